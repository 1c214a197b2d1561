"""What a manager knows of a trade while the service freezes, goes, is absent and comes back: on the real process."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

from dtms_client.managing.state_source import Answer, Limits, Source, StateSource
from tests.process.market import Market, manager_of
from tests.process.service_process import Process, Service, serving
from tests.stack import EXIT_MANAGER, T0_MSC

LIMITS: Final = Limits(deadline_s=0.25, state_s=0.0, ownership_s=0.0, last_known_s=1.2)
# Two deadlines, and what a busy machine adds.
AT_MOST_S: Final = 2 * LIMITS.deadline_s + 1.0


async def timed(answer: Awaitable[Answer]) -> Source:
    """Where the answer comes from, which took no longer than it may."""
    started_s = time.monotonic()
    source = (await answer).source
    assert time.monotonic() - started_s < AT_MOST_S
    return source


async def until(source: StateSource, key: tuple[str, int], wanted: Source) -> None:
    """Asks until the answer is of this kind; each one in time."""
    async with asyncio.timeout(20):
        while await timed(source.state(key)) is not wanted:
            pass


async def test_no_state_of_the_service_keeps_a_question_beyond_its_deadlines(tmp_path: Path) -> None:
    """Frozen, gone on, killed, absent, back again: fresh, last known, assumed and fresh again, always in time."""
    async with serving(tmp_path) as service, service.client("feed") as feed, service.client("viewer") as viewer:
        market = Market(feed, viewer, T0_MSC)
        await market.tick(1.1)
        trade = await market.buy()
        key = (trade.account_id, trade.ticket)
        async with service.client(EXIT_MANAGER) as client:
            source = StateSource(client.batch_get_trades, monotonic=time.monotonic, limits=LIMITS)
            assert await timed(source.state(key)) is Source.FRESH
            service.process.send_signal(signal.SIGSTOP)
            try:
                assert await timed(source.state(key)) is Source.LAST_KNOWN
                await until(source, key, Source.ASSUMED)
            finally:
                service.process.send_signal(signal.SIGCONT)
            await until(source, key, Source.FRESH)
            await service.kill()
            assert await timed(source.state(key)) is Source.LAST_KNOWN
            await until(source, key, Source.ASSUMED)
            async with serving(tmp_path, port=int(service.address.rpartition(":")[2])):
                await until(source, key, Source.FRESH)


async def ends(manager: Process, service: Service) -> None:
    """The manager ends in good order while the service is frozen."""
    service.process.send_signal(signal.SIGSTOP)
    try:
        started_s = time.monotonic()
        assert await manager.terminate() == 0, manager.text()
        assert time.monotonic() - started_s < 10
    finally:
        service.process.send_signal(signal.SIGCONT)


async def test_a_frozen_service_does_not_keep_the_manager_from_ending(tmp_path: Path) -> None:
    """SIGTERM is heard at once, though everything that the manager waits for stands still."""
    async with serving(tmp_path) as service, service.client("feed") as feed, service.client("viewer") as viewer:
        market = Market(feed, viewer, T0_MSC)
        await market.tick(1.1)
        manager = await manager_of(service, "exit-manager", EXIT_MANAGER)
        try:
            await market.buy()
            await ends(manager, service)
        finally:
            await manager.kill()
