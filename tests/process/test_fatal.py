"""The disk fills up: the service stops rather than say what is not so."""

from __future__ import annotations

import asyncio
import resource
import sys
from itertools import count
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client import errors
from dtms_service.fault_points import KILL_VARIABLE
from tests import wire
from tests.grpc.test_registry import registration
from tests.process.market import Market
from tests.process.service_process import serving
from tests.stack import T0_MSC

ROOM_BYTES = 200_000  # some dozen registrations: each commit writes whole pages


def largest_file(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize(
    ("fault", "file"),
    [
        ("journal.sync:40:EIO", "journal.db"),
        ("books.sync:12:EIO", "paper.db"),
    ],
)
async def test_a_disk_that_fails_once_is_not_believed_again(tmp_path: Path, fault: str, file: str) -> None:
    """After a failed sync or write the process ends, naming the file: it does not try again and pretend.

    What it had acknowledged is there when it comes back, the paper account's positions among it.
    """
    bought: list[int] = []
    async with serving(tmp_path, env={KILL_VARIABLE: fault}) as service, service.client("feed") as feed:
        market = Market(feed, feed, T0_MSC)
        await market.tick(1.1)

        async def buy_on() -> None:
            while True:
                bought.append((await market.buy()).ticket)

        with pytest.raises(errors.DtmsError):
            await buy_on()
        assert await service.ended() not in {0, None}
        assert str(tmp_path / file) in service.text()
    assert bought
    async with serving(tmp_path) as service, service.client("feed") as feed:
        there = {trade.ticket async for trade in feed.list_trades()}
        assert set(bought) <= there
        assert {position.ticket for position in await feed.list_positions()} == there


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
async def test_a_full_disk_stops_the_service_and_nothing_unacknowledged_is_shown(tmp_path: Path) -> None:
    """What cannot be made durable is refused and no watcher sees it; the process ends with an error naming the journal.

    With room again, everything acknowledged is there, and at most the one command whose answer was lost.
    """
    acknowledged: list[int] = []
    seen: set[int] = set()
    async with serving(tmp_path) as service, service.client("feed") as feed, service.client("viewer") as viewer:

        async def follow() -> None:
            watch: Any = wire.stream(viewer.channel, WatchRequest(start_revision=1), metadata=viewer.metadata)
            try:
                async for message in watch:
                    seen.update(event.ticket for event in message.events if event.HasField("trade_registered"))
            except grpc.aio.AioRpcError:
                return  # the service is gone

        following = asyncio.create_task(follow())
        limit = largest_file(tmp_path) + ROOM_BYTES
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (limit, limit))

        async def fill_up() -> None:
            for ticket in count(1):
                await feed.register_trade(registration(ticket))
                acknowledged.append(ticket)

        with pytest.raises(errors.DtmsError):
            await fill_up()
        code = await service.ended()
        await following
        assert code not in {0, None}
        assert str(tmp_path / "journal.db") in service.text()
    assert len(acknowledged) > 20
    async with serving(tmp_path) as service, service.client("viewer") as viewer:
        there = [trade.ticket async for trade in viewer.list_trades()]
    assert there[: len(acknowledged)] == acknowledged
    assert seen <= set(there)
    assert len(there) <= len(acknowledged) + 1
