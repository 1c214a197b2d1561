"""What becomes of a command: confirmed, rejected with its retcode, or unknown and settled by reading the broker."""

from __future__ import annotations

import asyncio

import pytest

from dtms.v1 import action_pb2, event_pb2, market_data_service_pb2, paper_service_pb2, trade_pb2
from dtms.v1.action_pb2 import Outcome
from dtms.v1.event_pb2 import Event
from dtms.v1.trade_status_service_pb2 import WatchFilter, WatchRequest
from dtms_service.broker.faults import Gate, Leg
from dtms_service.broker.retcodes import LastError, Retcode
from tests.grpc.test_course import told_until
from tests.grpc.watching import all_until
from tests.stack import SYMBOL, Stack, close_all, part_of, stop_at

CONFIRMED, REJECTED, UNKNOWN = (
    action_pb2.OUTCOME_STATUS_CONFIRMED,
    action_pb2.OUTCOME_STATUS_REJECTED,
    action_pb2.OUTCOME_STATUS_UNKNOWN,
)
HEDGED = trade_pb2.TRADE_STATE_HEDGED


async def events_of(stack: Stack, trade: trade_pb2.Trade) -> list[Event]:
    """Everything about a trade after its registration."""
    wanted = WatchFilter(tickets=[trade.ticket])
    request = WatchRequest(start_revision=trade.revision + 1, filter=wanted, progress_interval_ms=100)
    return await all_until(await stack.stream("viewer", request), stack.system.desk.engine.revision)


async def outcomes(stack: Stack, trade: trade_pb2.Trade) -> list[Outcome]:
    return [
        event.outcome_recorded.outcome for event in await events_of(stack, trade) if event.HasField("outcome_recorded")
    ]


def commands(stack: Stack) -> int:
    return stack.system.executor.calls.figures().count


# -- managers' commands ------------------------------------------------------------------------------------------------


async def test_a_reply_lost_after_execution_is_found_by_reading(stack: Stack) -> None:
    """I9: UNKNOWN, then CONFIRMED from what the broker shows; the caller gets the settled outcome of one command."""
    trade = await stack.trade()
    stack.faults.lose_replies()
    answer = await stack.propose(trade, stop_at(1.0961))
    assert (answer.outcome.status, answer.outcome.settled, answer.outcome.sl) == (CONFIRMED, True, 1.0961)
    assert [outcome.status for outcome in await outcomes(stack, trade)] == [UNKNOWN, CONFIRMED]
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0961
    assert commands(stack) == 1


@pytest.mark.parametrize("action", [part_of(0.4), close_all()], ids=["partial", "close"])
async def test_a_lost_reply_to_a_close_is_found_in_the_deals(stack: Stack, action: action_pb2.Action) -> None:
    """I9: the closing deal carries the intent's comment, so the fill is known with its volume and price."""
    trade = await stack.trade()
    stack.faults.lose_replies()
    answer = await stack.propose(trade, action)
    assert (answer.outcome.status, answer.outcome.settled) == (CONFIRMED, True)
    assert answer.outcome.volume == pytest.approx(action.volume or 1.0)
    assert commands(stack) == 1
    left = 1.0 - (action.volume or 1.0)
    assert {ticket: volume for ticket, (volume, _, _) in stack.held().items()} == ({trade.ticket: left} if left else {})


async def test_a_lost_request_is_rejected_once_the_broker_shows_no_trace(stack: Stack) -> None:
    """I9: no failure without evidence: the broker is read until it is clear that nothing was done."""
    trade = await stack.trade()
    stack.faults.fail_calls(LastError.INTERNAL_FAIL_SEND)
    answer = await stack.propose(trade, stop_at(1.0961))
    assert (answer.outcome.status, answer.outcome.settled) == (REJECTED, True)
    assert [outcome.status for outcome in await outcomes(stack, trade)] == [UNKNOWN, REJECTED]
    assert stack.held()[trade.ticket] == (1.0, 1.0951, 1.1101)
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0951
    assert (await stack.propose(trade, stop_at(1.0961))).outcome.status == CONFIRMED


async def test_a_broker_that_cannot_be_read_settles_nothing(stack: Stack) -> None:
    """I9, I21: while queries fail the intent stays UNKNOWN and in flight; the next answer settles it."""
    trade = await stack.trade()
    stack.faults.lose_replies()
    reading = stack.faults.latency = Gate("positions", Leg.REQUEST)
    asked = asyncio.create_task(stack.propose(trade, stop_at(1.0961)))
    await reading.arrived.wait()
    stack.faults.fail_calls(LastError.INTERNAL_FAIL_RECEIVE, count=3)
    reading.open()
    other = await stack.propose(trade, stop_at(1.0971))
    assert other.decision.denial == action_pb2.DENIAL_CODE_IN_FLIGHT
    assert (await asked).outcome.status == CONFIRMED
    assert (await stack.propose(trade, stop_at(1.0971))).outcome.status == CONFIRMED


@pytest.mark.parametrize("retcode", [Retcode.REQUOTE, Retcode.REJECT, Retcode.MARKET_CLOSED, Retcode.TOO_MANY_REQUESTS])
async def test_a_refusal_is_told_with_its_retcode(stack: Stack, retcode: Retcode) -> None:
    """REJECTED carries the server's code; stop and volume stay as they were, and asking anew is free."""
    trade = await stack.trade()
    stack.faults.inject(retcode)
    answer = await stack.propose(trade, stop_at(1.0961))
    assert answer.decision.granted
    assert (answer.outcome.status, answer.outcome.retcode, answer.outcome.settled) == (REJECTED, retcode, False)
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0951
    assert (await stack.propose(trade, stop_at(1.0961))).outcome.status == CONFIRMED


@pytest.mark.parametrize("retcode", [Retcode.TIMEOUT, Retcode.ERROR])
@pytest.mark.parametrize("executes", [True, False])
async def test_a_code_that_says_nothing_is_settled_by_reading(stack: Stack, retcode: Retcode, executes: bool) -> None:
    """TIMEOUT and ERROR prove neither: what the broker shows decides."""
    trade = await stack.trade()
    stack.faults.inject(retcode, executes=executes)
    answer = await stack.propose(trade, stop_at(1.0961))
    assert (answer.outcome.status, answer.outcome.settled) == (CONFIRMED if executes else REJECTED, True)
    assert stack.held()[trade.ticket][1] == (1.0961 if executes else 1.0951)


# -- DTMS's own commands -----------------------------------------------------------------------------------------------


async def defended(stack: Stack) -> trade_pb2.Trade:
    """A trade that the next severe score will hedge, far enough in profit for a legal breakeven."""
    await stack.warm_up()
    trade = await stack.trade()
    await stack.tick(1.1021)
    return trade


async def test_a_hedge_whose_reply_was_lost_is_found_and_not_opened_twice(stack: Stack) -> None:
    """I9, I13: the hedge is recognised by its comment: one position at the broker, known as the trade's leg."""
    trade = await defended(stack)
    await stack.report_score(-5.5)
    stack.faults.lose_replies()
    await stack.report_score(-10.5)
    now = await stack.get_trade(trade.ticket)
    assert (now.state, now.phase) == (HEDGED, trade_pb2.STATE_PHASE_CONFIRMED)
    assert set(stack.held()) == {trade.ticket, now.hedge.ticket}


async def test_a_hedge_whose_request_was_lost_is_sent_again(stack: Stack) -> None:
    """What left no trace was not done: the action is tried again until it is."""
    trade = await defended(stack)
    await stack.report_score(-5.5)
    stack.faults.fail_calls(LastError.INTERNAL_FAIL_SEND)
    await stack.report_score(-10.5)
    await told_until(stack, trade, HEDGED)
    now = await stack.get_trade(trade.ticket)
    assert set(stack.held()) == {trade.ticket, now.hedge.ticket}


async def test_a_hedge_that_is_placed_now_and_filled_with_later_prices_is_one_hedge(stack: Stack) -> None:
    """PLACED says accepted, not done: prices go on meanwhile, the fill is found, and nothing is sent twice."""
    await stack.warm_up()
    await stack.report_score(-10.5)
    trade = await stack.trade()
    await stack.call(
        "feed", paper_service_pb2.ModifyPositionRequest(ticket=trade.ticket, sl=trade.initial_sl, tp=trade.initial_tp)
    )
    stack.faults.place(0)  # the partial of WARNING_L2 is filled at once
    stack.faults.place(300)
    ticks = [
        market_data_service_pb2.Tick(time_msc=stack.now_msc + 100 * step, bid=1.1021, ask=1.1022)
        for step in range(1, 8)
    ]
    await stack.feed(*(market_data_service_pb2.StreamTicksRequest(symbol=SYMBOL, ticks=[tick]) for tick in ticks))
    while not (await stack.get_trade(trade.ticket)).HasField("hedge"):  # it may have been sent after the last of them
        stack.now_msc += 1000
        tick = market_data_service_pb2.Tick(time_msc=stack.now_msc, bid=1.1021, ask=1.1022)
        await stack.feed(market_data_service_pb2.StreamTicksRequest(symbol=SYMBOL, ticks=[tick]))
    await told_until(stack, trade, HEDGED)
    now = await stack.get_trade(trade.ticket)
    assert set(stack.held()) == {trade.ticket, now.hedge.ticket}
    placed = [outcome for outcome in await outcomes(stack, trade) if outcome.opened_ticket]
    assert [outcome.status for outcome in placed] == [CONFIRMED]


async def test_a_hanging_command_of_one_trade_holds_up_no_price(stack: Stack) -> None:
    """While the broker sits on one command, ticks are taken, other trades are defended, watchers are told."""
    trade = await stack.trade()
    gate = stack.faults.latency = Gate("execute", Leg.REQUEST)
    asked = asyncio.create_task(stack.propose(trade, stop_at(1.0961)))
    await gate.arrived.wait()
    async with asyncio.timeout(5):
        tick = market_data_service_pb2.Tick(time_msc=stack.now_msc + 1, bid=1.1005, ask=1.1006)
        await stack.feed(market_data_service_pb2.StreamTicksRequest(symbol=SYMBOL, ticks=[tick]))
    assert not asked.done()
    gate.open()
    assert (await asked).outcome.status == CONFIRMED


async def test_an_action_that_the_broker_refuses_for_good_is_told_aloud(stack: Stack) -> None:
    """What cannot be done is recorded and alarmed, never dropped: the state is confirmed with the action skipped."""
    trade = await defended(stack)
    stack.faults.inject(Retcode.INVALID, count=10)
    await stack.report_score(-3.0)
    events = await events_of(stack, trade)
    (alarm,) = [event.alarm_raised for event in events if event.HasField("alarm_raised")]
    assert alarm.code == event_pb2.ALARM_CODE_ACTION_FAILED
    (skipped,) = [event.action_skipped for event in events if event.HasField("action_skipped")]
    assert skipped.reason == action_pb2.SKIP_REASON_REJECTED
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == trade.initial_sl


# -- what others do at the broker --------------------------------------------------------------------------------------


async def test_a_stop_moved_by_hand_is_told_as_external(stack: Stack) -> None:
    """I8: a change without an intent shows within one poll, as external, and is what counts from then on."""
    trade = await stack.trade()
    await stack.call("feed", paper_service_pb2.ModifyPositionRequest(ticket=trade.ticket, sl=1.0971, tp=1.1101))
    await stack.tick(1.1001)
    changed = [event.position_changed for event in await events_of(stack, trade) if event.HasField("position_changed")]
    assert [(c.external, c.volume, c.sl, c.tp) for c in changed] == [(True, 1.0, 1.0971, 1.1101)]
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0971


async def test_a_part_closed_by_hand_is_told_as_external(stack: Stack) -> None:
    """I8: the trade has the volume that the broker has."""
    trade = await stack.trade()
    await stack.call("feed", paper_service_pb2.ClosePositionRequest(ticket=trade.ticket, volume=0.3))
    await stack.tick(1.1001)
    assert (await stack.get_trade(trade.ticket)).volume == 0.7


async def test_a_position_closed_by_hand_closes_the_trade(stack: Stack) -> None:
    """The closing deal proves it: CLOSED, with its price and the reason CLIENT."""
    trade = await stack.trade()
    await stack.call("feed", paper_service_pb2.ClosePositionRequest(ticket=trade.ticket))
    await stack.tick(1.1001)
    (gone,) = [event.leg_closed for event in await events_of(stack, trade) if event.HasField("leg_closed")]
    assert (gone.reason, gone.price) == (event_pb2.CLOSE_REASON_CLIENT, 1.1)
    assert (await stack.get_trade(trade.ticket)).state == trade_pb2.TRADE_STATE_CLOSED


async def test_our_own_changes_are_not_external(stack: Stack) -> None:
    """What an intent explains is told once, as its outcome."""
    trade = await stack.trade()
    await stack.propose(trade, stop_at(1.0961))
    await stack.propose(trade, part_of(0.4))
    await stack.tick(1.1001)
    await stack.tick(1.1002)
    assert not [event for event in await events_of(stack, trade) if event.HasField("position_changed")]


async def test_a_query_that_fails_closes_nothing(stack: Stack) -> None:
    """I21: None from the terminal is no empty account: trades stay as they are, and the next answer is taken."""
    trade = await stack.trade()
    other = await stack.trade()
    await stack.call("feed", paper_service_pb2.ClosePositionRequest(ticket=other.ticket))
    for code in (LastError.INTERNAL_FAIL_SEND, LastError.INTERNAL_FAIL_TIMEOUT):
        stack.faults.fail_calls(code)
        await stack.tick(1.1001)
        for known in (trade, other):
            assert (await stack.get_trade(known.ticket)).state == trade_pb2.TRADE_STATE_HEALTHY
    await stack.tick(1.1002)
    assert (await stack.get_trade(trade.ticket)).state == trade_pb2.TRADE_STATE_HEALTHY
    assert (await stack.get_trade(other.ticket)).state == trade_pb2.TRADE_STATE_CLOSED
