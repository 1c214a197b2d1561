"""A manager that owns trades, on a real service with short leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dtms.v1 import trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.ownership_pb2 import (
    GRANT_CAUSE_ACQUIRED,
    GRANT_CAUSE_DEFENSIVE,
    GRANT_CAUSE_EXPIRED,
    GRANT_CAUSE_REGISTERED,
    GRANT_CAUSE_RELEASED,
    GRANT_CAUSE_RETURNED,
    GrantCause,
)
from dtms_client import AsyncClient
from dtms_client.managing.brain import NANOS, Brain
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits
from dtms_client.managing.views import OPEN_TO_OTHERS, QuoteView, TradeView
from dtms_client.managing.wishes import Wish
from tests.stack import UNIVERSAL, Stack, running

LEASE_MS = 600
STRATEGY = "default_standard"


class Owner(Brain):
    """Wants the trades of a strategy, and nothing of them."""

    def wishes(self, trade: TradeView, quote: QuoteView, *, now_ns: int) -> list[Wish]:  # noqa: ARG002
        return []

    def claims(self, trade: TradeView) -> bool:
        return trade.strategy_type == STRATEGY and trade.state in OPEN_TO_OTHERS


@asynccontextmanager
async def owner(stack: Stack) -> AsyncIterator[asyncio.Task[None]]:
    """The manager at work, ended in good order."""
    async with AsyncClient(stack.server.address, token_file=stack.token(UNIVERSAL)) as client:
        clock = asyncio.get_running_loop().time
        brain = Owner(UNIVERSAL)
        live = Live(client, brain, monotonic=clock, now_ns=lambda: round(clock() * NANOS), limits=Limits())
        task = asyncio.create_task(live.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait((task,))


class Grants:
    """Grants of all trades, as the stream tells of them."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._events: AsyncIterator[object] | None = None

    async def next(self) -> tuple[str, GrantCause.ValueType]:
        """New owner and cause."""
        if self._events is None:
            self._events = (await self._stack.client("viewer")).watch(start_revision=1)
        async with asyncio.timeout(20):
            while True:
                event = await anext(self._events)
                if isinstance(event, Event) and event.HasField("ownership_granted"):
                    return event.ownership_granted.managed_by, event.ownership_granted.cause


async def test_a_trade_is_kept_for_as_long_as_its_manager_lives(tmp_path: Path) -> None:
    """Over many leases one grant; ended in good order it falls to DTMS at once, and comes back with the manager."""
    async with running(tmp_path, {"engine.lease_ttl_ms": LEASE_MS}) as stack:
        grants = Grants(stack)
        await stack.tick(1.1)
        async with owner(stack):
            trade = await stack.trade(strategy_type=STRATEGY)
            assert await grants.next() == (UNIVERSAL, GRANT_CAUSE_REGISTERED)
            await asyncio.sleep(3 * LEASE_MS / 1000)
            assert (await stack.get_trade(trade.ticket)).owner_epoch == trade.owner_epoch
        assert (await grants.next())[1] == GRANT_CAUSE_RELEASED
        async with owner(stack):
            assert await grants.next() == (UNIVERSAL, GRANT_CAUSE_ACQUIRED)


async def test_a_trade_that_ran_out_is_asked_for_again(tmp_path: Path) -> None:
    """Nobody kept it alive, so it fell to DTMS; a manager that comes takes it back."""
    async with running(tmp_path, {"engine.lease_ttl_ms": 100}) as stack:
        grants = Grants(stack)
        await stack.trade(strategy_type=STRATEGY)
        assert await grants.next() == (UNIVERSAL, GRANT_CAUSE_REGISTERED)
        assert (await grants.next())[1] == GRANT_CAUSE_EXPIRED
        async with owner(stack):
            assert await grants.next() == (UNIVERSAL, GRANT_CAUSE_ACQUIRED)


async def test_after_a_defence_the_trade_is_kept_under_its_new_token(tmp_path: Path) -> None:
    """Taken by DTMS and given back in time, it is adopted again, and lives over its next leases."""
    async with running(tmp_path, {"engine.lease_ttl_ms": LEASE_MS, "engine.hold_s": 0}) as stack:
        grants = Grants(stack)
        await stack.warm_up()
        async with owner(stack):
            trade = await stack.trade(strategy_type=STRATEGY)
            assert await grants.next() == (UNIVERSAL, GRANT_CAUSE_REGISTERED)
            await stack.tick(1.1012)
            await stack.report_score(0.001)
            viewer = await stack.client("viewer")
            in_force = (await viewer.get_score("EURUSD", trade_pb2.SIDE_BUY)).score.thresholds
            await stack.report_score((in_force.warn2 + in_force.critical) / 2)
            assert (await grants.next())[1] == GRANT_CAUSE_DEFENSIVE
            await stack.report_score(0.001)
            assert await grants.next() == (UNIVERSAL, GRANT_CAUSE_RETURNED)
            back = await stack.get_trade(trade.ticket)
            await asyncio.sleep(3 * LEASE_MS / 1000)
            now = await stack.get_trade(trade.ticket)
            assert (now.managed_by, now.owner_epoch) == (UNIVERSAL, back.owner_epoch)
            assert back.owner_epoch > trade.owner_epoch
