"""What others do on the account while the service runs: told within one poll, the state follows (I8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtms.v1 import event_pb2, trade_pb2
from dtms_service.broker.door import Side
from dtms_service.broker.mt5_enums import Action
from tests.grpc.test_recovery import by_hand, events_of, hedged
from tests.stack import SYMBOL, Stack, attach_paper, running

HEALTHY, L2, CLOSED = (
    trade_pb2.TRADE_STATE_HEALTHY,
    trade_pb2.TRADE_STATE_WARNING_L2,
    trade_pb2.TRADE_STATE_CLOSED,
)


@pytest.mark.parametrize(("volume", "left"), [(0.25, None), (0.05, 0.2)], ids=["all", "part"])
async def test_a_hedge_closed_by_hand_is_followed(stack: Stack, volume: float, left: float | None) -> None:
    """All of it: the trade is back in WARNING_L2, as the table says. A part: HEDGED with what is left, as external."""
    trade = await hedged(stack)
    by_hand(stack).close(trade.hedge.ticket, volume)
    await stack.tick(1.1021)
    now = await stack.get_trade(trade.ticket)
    assert now.state == (trade.state if left else L2)
    assert (now.hedge.volume if now.HasField("hedge") else None) == left
    events = await events_of(stack, trade.ticket)
    if left:
        changed = [event.position_changed for event in events if event.HasField("position_changed")]
        assert [(c.leg, c.external, c.volume) for c in changed] == [(event_pb2.LEG_KIND_HEDGE, True, left)]
    else:
        gone = [event.leg_closed for event in events if event.HasField("leg_closed")]
        assert [(leg.leg, leg.reason) for leg in gone] == [(event_pb2.LEG_KIND_HEDGE, event_pb2.CLOSE_REASON_CLIENT)]


async def test_positions_closed_by_each_other_are_both_closed(stack: Stack) -> None:
    """CLOSE_BY takes two positions away with one request: each trade is CLOSED by a deal of its own."""
    first, second = await stack.trade(trade_pb2.SIDE_BUY), await stack.trade(trade_pb2.SIDE_SELL)
    assert stack.system.paper is not None
    stack.system.paper.broker.order_send(
        {"action": Action.CLOSE_BY, "position": first.ticket, "position_by": second.ticket}
    )
    assert not stack.held()
    await stack.tick(1.1)
    for trade in (first, second):
        now = await stack.get_trade(trade.ticket)
        assert (now.state, now.phase) == (CLOSED, trade_pb2.STATE_PHASE_CONFIRMED)


async def test_a_netting_position_that_is_reversed_is_closed_and_adopted(tmp_path: Path) -> None:
    """The reversing deal closes the trade; the other side has a ticket of its own and is adopted."""
    async with running(tmp_path / "data", {"paper.hedging": False}) as stack:
        trade = await stack.trade()
        other = by_hand(stack).open(SYMBOL, Side.SELL, 1.5, 0.0, 0.0).order
        await stack.tick(1.1)
        assert (await stack.get_trade(trade.ticket)).state == CLOSED
        adopted = await stack.get_trade(other)
        assert (adopted.origin, adopted.side, adopted.volume) == (
            trade_pb2.ORIGIN_EXTERNAL,
            trade_pb2.SIDE_SELL,
            0.5,
        )
        by_hand(stack).open(SYMBOL, Side.BUY, 0.5, 0.0, 0.0)
        await stack.tick(1.1)
        now = await stack.get_trade(other)
        assert (now.state, now.quarantined) == (CLOSED, False)


async def test_a_position_on_a_symbol_that_nobody_named_is_adopted(tmp_path: Path) -> None:
    """With the next comparison, not with the next attachment: the symbol is made known on demand."""
    async with running(tmp_path / "data", attach=False) as stack:
        paper = stack.system.paper
        assert paper is not None
        await stack.system.attach(paper.account_id, paper, [SYMBOL])
        await stack.tick(1.1)
        broker = paper.broker
        broker.on_tick("GBPUSD", broker.now_msc, 1.25, 1.2501)
        ticket = by_hand(stack).open("GBPUSD", Side.BUY, 0.5, 1.24, 0.0).order
        await stack.tick(1.1)
        trade = await stack.get_trade(ticket)
        assert (trade.symbol, trade.origin, trade.managed_by) == ("GBPUSD", trade_pb2.ORIGIN_EXTERNAL, "")
        assert (trade.volume, trade.confirmed.sl, trade.state) == (0.5, 1.24, HEALTHY)
        await stack.tick(1.26, symbol="GBPUSD")
        assert (await stack.get_trade(ticket)).armed
    async with running(tmp_path / "data", attach=False) as stack:
        await attach_paper(stack.system)
        assert (await stack.get_trade(ticket)).armed
