"""Defects of the system that DTMS replaces, in its state machine and its registry: each must be impossible here.

The numbers are those of the list in docs/legacy-defects.md. Everything runs through the real service and its broker.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.paper_service_pb2 import ClosePositionRequest
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client.errors import StaleEpoch
from dtms_service.broker.faults import Gate, Leg
from dtms_service.broker.retcodes import Retcode
from tests.grpc.watching import events_until
from tests.stack import DTMS, EXIT_MANAGER, UNIVERSAL, Stack, running, stop_at

BUY, SELL = trade_pb2.SIDE_BUY, trade_pb2.SIDE_SELL
HEDGED = trade_pb2.TRADE_STATE_HEDGED
ALWAYS_AGAINST = {BUY: -9.0, SELL: 9.0}
"""A score for a BUY that hedges a trade of the side at once, whatever the session's multiplier is."""


async def hedged(stack: Stack, side: trade_pb2.Side.ValueType = BUY) -> trade_pb2.Trade:
    """A trade with a confirmed hedge."""
    await stack.warm_up()
    trade = await stack.trade(side)
    await stack.tick(1.1021 if side == BUY else 1.0979)
    await stack.report_score(ALWAYS_AGAINST[side])
    return await stack.get_trade(trade.ticket)


def registration_of(trade: trade_pb2.Trade) -> Registration:
    """The body that a trade was registered with."""
    return Registration(
        ticket=trade.ticket,
        symbol=trade.symbol,
        side=trade.side,
        entry_price=trade.entry_price,
        volume=trade.initial_volume,
        sl=trade.initial_sl,
        tp=trade.initial_tp,
        opened_ns=trade.opened_ns,
    )


async def events_of(stack: Stack, ticket: int, until: str) -> list[Event]:
    """The events of a trade up to the first of a kind."""
    watch = await stack.stream("viewer", WatchRequest(start_revision=1))
    events = await events_until(watch, lambda event: event.ticket == ticket and event.WhichOneof("body") == until)
    return [event for event in events if event.ticket == ticket]


@pytest.mark.parametrize("side", [BUY, SELL], ids=["buy", "sell"])
async def test_d05_a_trade_is_hedged_when_the_market_opposes_it(stack: Stack, side: trade_pb2.Side.ValueType) -> None:
    """Scores were trade-relative but labelled bullish, so a SELL was hedged when everything favoured it.

    One sign convention: the same bearish market hedges the BUY and leaves the SELL alone, and the other way round.
    """
    await stack.warm_up()
    trade = await stack.trade(side)
    await stack.tick(1.1021 if side == BUY else 1.0979)
    await stack.report_score(-ALWAYS_AGAINST[side])
    assert (await stack.get_trade(trade.ticket)).state == trade_pb2.TRADE_STATE_HEALTHY
    await stack.report_score(ALWAYS_AGAINST[side])
    shown = await stack.get_trade(trade.ticket)
    assert (shown.state, shown.last_score.total) == (HEDGED, -9.0)
    assert len(stack.held()) == 2


async def test_d10_closing_the_main_position_settles_its_hedge(stack: Stack) -> None:
    """CLOSED was written before the previous state was read, so the engine saw no change and left the hedge open.

    The event carries both states, and CLOSED is confirmed only when no position of the trade is left.
    """
    trade = await hedged(stack)
    await stack.call("feed", ClosePositionRequest(ticket=trade.ticket, volume=trade.volume))
    await stack.tick(1.1022)
    assert stack.held() == {}
    events = await events_of(stack, trade.ticket, "state_confirmed")
    while events[-1].state_confirmed.confirmed_state != trade_pb2.TRADE_STATE_CLOSED:
        watch = await stack.stream("viewer", WatchRequest(start_revision=events[-1].revision + 1))
        events += await events_until(watch, lambda event: event.HasField("state_confirmed"))
    changes = [event.state_changed for event in events if event.HasField("state_changed")]
    assert (getattr(changes[-1], "from"), changes[-1].to) == (HEDGED, trade_pb2.TRADE_STATE_CLOSED)
    hedge_gone = [event for event in events if event.leg_closed.leg == event_pb2.LEG_KIND_HEDGE]
    assert hedge_gone[-1].revision < events[-1].revision


async def test_d11_the_hedge_is_linked_to_its_trade_and_closed_by_that_link(stack: Stack) -> None:
    """The ticket of a hedge was never written back, so closing it always answered "no hedge ticket".

    The broker's ticket is in the trade as soon as the hedge is confirmed, and recovery closes exactly that position.
    """
    trade = await hedged(stack)
    assert trade.hedge.ticket in stack.held()
    assert trade.hedge.ticket != trade.ticket
    await stack.report_score(9.0)
    operator = await stack.client("operator")
    closed = await operator.propose(
        request_id="close",
        ticket=trade.ticket,
        owner_epoch=trade.owner_epoch,
        action=action_pb2.Action(kind=action_pb2.ACTION_KIND_CLOSE),
    )
    assert closed.decision.denial == action_pb2.DENIAL_CODE_DTMS_DEFENSIVE
    await stack.call("feed", ClosePositionRequest(ticket=trade.ticket, volume=trade.volume))
    await stack.tick(1.1022)
    events = await events_of(stack, trade.ticket, "leg_closed")
    intents = [e.intent_recorded for e in events if e.intent_recorded.leg == event_pb2.LEG_KIND_HEDGE]
    opened = [e.outcome_recorded.outcome.opened_ticket for e in events if e.outcome_recorded.outcome.opened_ticket]
    assert opened == [trade.hedge.ticket]
    assert all(intent.position in (0, trade.hedge.ticket) for intent in intents)
    assert stack.held() == {}


async def test_d12_a_state_is_pending_until_its_actions_are_done_and_they_are_retried(stack: Stack) -> None:
    """The state was committed before its actions ran, and a failure was only logged: L2 was shown, the stop unmoved.

    A refused action leaves the state pending, is sent again, and the state is confirmed with the broker's echo.
    """
    await stack.warm_up()
    trade = await stack.trade()
    await stack.tick(1.1021)
    stack.faults.inject(Retcode.REJECT, 1)
    in_force = (await (await stack.client("viewer")).get_score("EURUSD", BUY)).score.thresholds
    await stack.report_score(in_force.warn1 - 0.01)
    shown = await stack.get_trade(trade.ticket)
    assert (shown.state, shown.phase) == (trade_pb2.TRADE_STATE_WARNING_L1, trade_pb2.STATE_PHASE_PENDING)
    assert shown.confirmed.sl == trade.confirmed.sl
    watch = await stack.stream("viewer", WatchRequest(start_revision=shown.revision + 1))
    await events_until(watch, lambda event: event.HasField("state_confirmed"))
    shown = await stack.get_trade(trade.ticket)
    assert shown.phase == trade_pb2.STATE_PHASE_CONFIRMED
    assert stack.held()[trade.ticket][1] == shown.confirmed.sl > trade.confirmed.sl


@pytest.mark.parametrize("side", [BUY, SELL], ids=["buy", "sell"])
async def test_d20_a_severe_score_needs_one_evaluation(stack: Stack, side: trade_pb2.Side.ValueType) -> None:
    """A score of -9 needed three deep checks, up to 45 minutes, before it hedged.

    Every edge is taken, and recorded, in one evaluation: HEALTHY, L1, L2, HEDGED.
    """
    trade = await hedged(stack, side)
    changes = [
        (getattr(event.state_changed, "from"), event.state_changed.to, event.time_ns)
        for event in await events_of(stack, trade.ticket, "state_confirmed")
        if event.HasField("state_changed")
    ]
    assert [change[:2] for change in changes] == [(1, 2), (2, 3), (3, 4)]
    assert len({time_ns for _, _, time_ns in changes}) == 1


async def test_d24_the_registry_stands_in_the_path_of_every_write(stack: Stack) -> None:
    """Nobody ever wrote managed_by="dtms_manager" and nobody asked the registry before a write.

    Who owns a trade decides each proposal: registered without a strategy it is DTMS's, and the Universal Manager is
    refused until it has claimed it.
    """
    trade = await stack.trade()
    assert trade.managed_by == DTMS
    refused = (await stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL)).decision
    assert (refused.denial, refused.owner) == (action_pb2.DENIAL_CODE_OWNED_BY_OTHER, DTMS)
    claimed = await (await stack.client(UNIVERSAL)).acquire_ownership(trade.ticket)
    assert (claimed.granted, claimed.ownership.managed_by) == (True, UNIVERSAL)
    owned = await stack.get_trade(trade.ticket)
    assert (await stack.propose(owned, stop_at(1.0961), manager=UNIVERSAL)).decision.granted


async def test_d26_nothing_happens_between_the_check_and_the_send(stack: Stack) -> None:
    """Ownership was read, then the order was sent, with no lock between; a target read earlier was written back.

    While one change is at the broker no other is granted, what was decided under an older grant never gets there, and
    a stop that moves keeps the target of now.
    """
    trade = await stack.trade(strategy_type="default_standard")
    gate = stack.faults.latency = Gate("execute", Leg.REQUEST)
    first = asyncio.create_task(stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL))
    await gate.arrived.wait()
    others = await asyncio.gather(
        *(stack.propose(trade, stop_at(1.0971 + step * 1e-4), manager=EXIT_MANAGER) for step in range(10))
    )
    assert {answer.decision.denial for answer in others} == {action_pb2.DENIAL_CODE_IN_FLIGHT}
    assert gate.waiting == 1
    gate.open()
    assert (await first).outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
    moved = action_pb2.Action(kind=action_pb2.ACTION_KIND_TARGET, target=1.1121)
    assert (await stack.propose(trade, moved, manager=UNIVERSAL)).decision.granted
    assert (await stack.propose(trade, stop_at(1.0971), manager=UNIVERSAL)).outcome.tp == 1.1121
    operator = await stack.client("operator")
    await operator.acquire_ownership(trade.ticket)
    await stack.tick(1.1021)
    await stack.report_score(-9.0)
    with pytest.raises(StaleEpoch):
        await stack.propose(trade, stop_at(1.0981), manager=UNIVERSAL)


async def test_d38_registering_again_resets_nothing(tmp_path: Path) -> None:
    """Adding a ticket again set HEDGED back to HEALTHY and wiped what was known of its symbol.

    The same registration answers with the trade as it is, hedge, owner and timers included, also after a restart.
    """
    async with running(tmp_path) as stack:
        trade = await hedged(stack)
        body = await (await stack.client("feed")).register_trade(registration_of(trade))
        assert not body.created
        assert body.trade == trade
    async with running(tmp_path) as stack:
        body = await (await stack.client("feed")).register_trade(registration_of(trade))
        assert not body.created
        assert (body.trade.state, body.trade.hedge) == (HEDGED, trade.hedge)
        assert body.trade.flat_timer_ends_ns == trade.flat_timer_ends_ns
        assert body.trade.owner_rank == ownership_pb2.RANK_DTMS_DEFENSIVE
