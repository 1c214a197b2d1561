"""Defects of the universal manager that this one replaces: each must be impossible here.

What one trade and one price decide is tried on the rules alone, for both sides; what others see runs through the real
service and its broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, trade_pb2
from dtms.v1.arbitration_service_pb2 import AcquireOwnershipRequest, Grant, RenewOwnershipRequest
from dtms.v1.event_pb2 import Event
from dtms.v1.ownership_pb2 import RANK_STRATEGY
from dtms.v1.paper_service_pb2 import ModifyPositionRequest
from dtms_client import AsyncClient
from dtms_client.managing.brain import NANOS, PAUSE_NS
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits
from dtms_client.managing.testing import BUY as A_BUY
from dtms_client.managing.testing import NOW_NS, mirrored_quote, mirrored_trade, quote
from dtms_client.managing.views import QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop, Wish
from dtms_client.universal_manager.brain import UniversalManager
from dtms_client.universal_manager.indicators import Reading
from dtms_client.universal_manager.rules import decide
from dtms_client.universal_manager.strategies import PROFILES, Session, freeze
from dtms_service.broker.retcodes import Retcode
from tests.stack import UNIVERSAL, Stack, running

BUY, SELL = trade_pb2.SIDE_BUY, trade_pb2.SIDE_SELL
both_sides = pytest.mark.parametrize("side", [BUY, SELL], ids=["buy", "sell"])

OTHER = "another_strategy"
OWNED = replace(A_BUY, managed_by=UNIVERSAL, owner_rank=RANK_STRATEGY)
ATR_ONLY = Reading(atr=0.002, baseline=0.002)


def wished(
    trade: TradeView, seen: QuoteView, side: trade_pb2.Side.ValueType, strategy: str = "default_standard"
) -> list[Wish]:
    """What the manager wants of the trade, or of its mirror image, where only ATR is known."""
    if side == SELL:
        trade, seen = mirrored_trade(trade), mirrored_quote(trade, seen)
    rules = freeze(strategy, trade.symbol, Session.LONDON, PROFILES["intraday"])
    readings = dict.fromkeys((60, 300, 900), ATR_ONLY)
    return decide(trade, seen, rules, readings, manager=UNIVERSAL, now_ns=NOW_NS)


class Clock:
    """Event time of a manager, moved by the test."""

    now_ns = NOW_NS


@asynccontextmanager
async def universal_manager(stack: Stack, clock: Clock | None = None) -> AsyncIterator[UniversalManager]:
    """The manager as it ships, at work."""
    brain, clock = UniversalManager(), clock or Clock()
    loop = asyncio.get_running_loop()
    async with AsyncClient(stack.server.address, token_file=stack.token(UNIVERSAL)) as client:
        live = Live(client, brain, monotonic=loop.time, now_ns=lambda: clock.now_ns, limits=Limits())
        task = asyncio.create_task(live.run())
        try:
            yield brain
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def event(stack: Stack, ticket: int, kind: str, count: int = 1) -> Event:
    """The so-maniest event of a kind about a trade, as soon as it is there."""
    async with asyncio.timeout(20):
        async for item in (await stack.client("viewer")).watch(start_revision=1):
            if isinstance(item, Event) and item.ticket == ticket and item.WhichOneof("body") == kind:
                count -= 1
                if not count:
                    return item
    raise AssertionError("unreachable")


async def granted(stack: Stack, ticket: int, kind: action_pb2.ActionKind.ValueType) -> int:
    """How many orders of a kind the manager was granted."""
    viewer = await stack.client("viewer")
    decisions = [each async for each in viewer.list_decisions(ticket=ticket, manager=UNIVERSAL)]
    return sum(each.granted and each.action.kind == kind for each in decisions)


async def test_d25_a_trade_of_another_owner_is_not_taken_over(tmp_path: Path) -> None:
    """register_trade wrote itself down as the owner, whoever owned the trade: no compare, no set, no token.

    A trade of its strategy that another manager holds stays where it is; a lease under an old token is not renewed.
    """
    async with running(tmp_path, {"managers": {OTHER: "STRATEGY"}}) as stack:
        trade = await stack.trade(strategy_type="default_standard")
        mine = Grant(account_id=trade.account_id, ticket=trade.ticket, owner_epoch=trade.owner_epoch)
        await (await stack.client(UNIVERSAL)).release_ownership(mine)
        theirs = (await stack.call(OTHER, AcquireOwnershipRequest(ticket=trade.ticket))).ownership
        assert theirs.managed_by == OTHER
        async with universal_manager(stack):
            # It knows the trade: it has left its rules there.
            await event(stack, trade.ticket, "memo_set")
            await stack.tick(1.12)
            answer = await stack.call(UNIVERSAL, AcquireOwnershipRequest(ticket=trade.ticket))
            assert (answer.granted, answer.ownership.managed_by) == (False, OTHER)
            renewal = await stack.call(UNIVERSAL, RenewOwnershipRequest(grants=[mine]))
            assert [grant.ticket for grant in renewal.lost] == [trade.ticket]
        now = await stack.get_trade(trade.ticket)
        assert (now.managed_by, now.owner_epoch) == (OTHER, theirs.owner_epoch)


@both_sides
def test_d28_breakeven_is_an_event_and_no_guess_from_the_stop(side: trade_pb2.Side.ValueType) -> None:
    """A stop within 0.1 % of the entry counted as breakeven: with an initial stop of 10 pips trailing began at once;
    any other trade waited for a breakeven that the other manager never made.

    Ten pips are no breakeven: nothing before 1 R, then its own breakeven; trailing once DTMS has recorded it.
    """
    near = replace(OWNED, stop=1.099, risk=0.001)
    assert wished(near, quote(1.10099), side) == []
    (first,) = wished(near, quote(1.101), side)
    assert isinstance(first, MoveStop)
    assert first.purpose == action_pb2.PURPOSE_BREAKEVEN
    protected = replace(near, stop=first.stop if side == BUY else round(2.2 - first.stop, 5))
    purposes = [
        [wish.purpose for wish in wished(replace(protected, breakeven_triggered=known), quote(1.12), side)]
        for known in (False, True)
    ]
    assert purposes == [[action_pb2.PURPOSE_BREAKEVEN], [action_pb2.PURPOSE_TRAIL]]


@both_sides
async def test_d29_no_stop_and_no_target_are_invented(stack: Stack, side: trade_pb2.Side.ValueType) -> None:
    """A trade without a stop got one at 0.99 of its entry and a target at 1.01, for a SELL both on the wrong side, so
    that R was always 0.

    It has neither until its R is known and a rule asks for a stop; a target it never gets.
    """
    registration = await stack.open_position(side)
    registration.strategy_type = "default_standard"
    trade = (await (await stack.client("feed")).register_trade(registration)).trade
    sign = 1 if side == BUY else -1
    async with universal_manager(stack):
        await event(stack, trade.ticket, "memo_set")
        await stack.tick(1.1 + sign * 0.02)
        assert not (await stack.get_trade(trade.ticket)).HasField("risk_distance")
        assert stack.held()[trade.ticket] == (1.0, None, None)
        # ATR becomes known, and with it R: 2 ATR. Now breakeven is a rule of the strategy.
        await stack.warm_up()
        await stack.tick(1.1 + sign * 0.021)
        await event(stack, trade.ticket, "breakeven_triggered")
        _, stop, target = stack.held()[trade.ticket]
        assert stop is not None
        assert 0 < sign * (stop - trade.entry_price) < 0.001
        assert target is None


@both_sides
def test_d30_a_trade_without_a_stop_can_get_one(side: trade_pb2.Side.ValueType) -> None:
    """A SELL whose stop was 0 never got one: no price is below 0, so nothing was an improvement.

    Absent is none, on the wire and in the rules: breakeven and trailing set one, for both sides alike.
    """
    wire = trade_pb2.Trade(side=side, confirmed=trade_pb2.ConfirmedLevels(tp=1.13))
    assert TradeView.of(wire, manager=UNIVERSAL).stop is None
    bare = replace(OWNED, stop=None)
    assert [wish.purpose for wish in wished(bare, quote(1.11), side)] == [action_pb2.PURPOSE_BREAKEVEN]
    (wish,) = wished(replace(bare, breakeven_triggered=True), quote(1.12), side)
    assert isinstance(wish, MoveStop)
    assert wish.stop == pytest.approx(1.116 if side == BUY else 1.084)


async def test_d31_a_target_that_was_moved_stays_and_a_failure_is_not_sent_twice(stack: Stack) -> None:
    """Moving the stop wrote the initial target over the broker's; a refused order was sent a second time at once.

    A stop is all that is sent: the target that somebody moved by hand stays. A refused order is decided anew, later.
    """
    trade = await stack.trade(strategy_type="default_standard")
    await stack.call("feed", ModifyPositionRequest(ticket=trade.ticket, sl=1.0951, tp=1.1201))
    clock = Clock()
    async with universal_manager(stack, clock):
        await event(stack, trade.ticket, "memo_set")
        stack.faults.inject(Retcode.REJECT, 1)
        await stack.tick(1.1056)
        await event(stack, trade.ticket, "outcome_recorded")
        await stack.tick(1.1057)
        assert await granted(stack, trade.ticket, action_pb2.ACTION_KIND_STOP) == 1
        assert stack.held()[trade.ticket] == (1.0, 1.0951, 1.1201)
        clock.now_ns += PAUSE_NS
        await stack.tick(1.1058)
        await event(stack, trade.ticket, "breakeven_triggered")
        _, stop, target = stack.held()[trade.ticket]
        assert stop == pytest.approx(1.1003, abs=2e-5)
        assert target == 1.1201
    assert await granted(stack, trade.ticket, action_pb2.ACTION_KIND_STOP) == 2


async def test_d32_a_failed_partial_is_not_taken(stack: Stack) -> None:
    """A partial that the broker had refused was marked as taken, and never came again.

    Taken is what the broker has confirmed, as DTMS records it: refused, it is tried again; done, it is done once.
    """
    trade = await stack.trade(strategy_type="breakout_ib_volatility_trap")
    clock = Clock()
    async with universal_manager(stack, clock):
        await event(stack, trade.ticket, "memo_set")
        await stack.tick(1.1056)
        await event(stack, trade.ticket, "breakeven_triggered")
        stack.faults.inject(Retcode.REJECT, 1)
        await stack.tick(1.1080)
        await event(stack, trade.ticket, "outcome_recorded", count=2)
        (record,) = (await stack.get_trade(trade.ticket)).managers
        assert (record.partial_taken, stack.held()[trade.ticket][0]) == (False, 1.0)
        clock.now_ns += 60 * NANOS
        await stack.tick(1.1081)
        await event(stack, trade.ticket, "outcome_recorded", count=3)
        await stack.tick(1.1082)
        (record,) = (await stack.get_trade(trade.ticket)).managers
        assert (record.partial_taken, stack.held()[trade.ticket][0]) == (True, 0.5)
        clock.now_ns += 60 * NANOS
        await stack.tick(1.1083)
    assert await granted(stack, trade.ticket, action_pb2.ACTION_KIND_PARTIAL_CLOSE) == 2


@both_sides
@pytest.mark.parametrize("strategy", ["order_block_rejection", "liquidity_sweep_reversal"])
def test_d43_a_fallback_is_applied(side: trade_pb2.Side.ValueType, strategy: str) -> None:
    """Where the first rule gave no stop, the fallback was computed and dropped: applying it stood in an elif.

    With neither a displacement nor a swing, nor a change of character, the stop follows by ATR.
    """
    safe = replace(OWNED, breakeven_triggered=True)
    (wish,) = wished(safe, quote(1.12), side, strategy)
    assert isinstance(wish, MoveStop)
    assert wish.purpose == action_pb2.PURPOSE_TRAIL
    assert wish.stop == pytest.approx(1.117 if side == BUY else 1.083)
