"""Commands whose answer was lost, where one may still be on its way: what is evidence, and what comes late (I9)."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, event_pb2, trade_pb2
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_service import backup
from dtms_service.broker.faults import Gate, Leg
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_enums import Action, DealReason, OrderType
from dtms_service.broker.paper_rules import default_filling
from dtms_service.broker.retcodes import LastError, Retcode
from dtms_service.journal import JOURNAL_NAME
from dtms_service.paper_account import PaperAccount
from tests.grpc.test_outcomes import events_of, outcomes
from tests.grpc.watching import all_until, events_until
from tests.stack import SYMBOL, Stack, part_of, running, stop_at

CONFIRMED, REJECTED, UNKNOWN = (
    action_pb2.OUTCOME_STATUS_CONFIRMED,
    action_pb2.OUTCOME_STATUS_REJECTED,
    action_pb2.OUTCOME_STATUS_UNKNOWN,
)
HEDGED = trade_pb2.TRADE_STATE_HEDGED
LOST = LastError.INTERNAL_FAIL_RECEIVE
EVERYTHING = WatchRequest(start_revision=1, progress_interval_ms=100)


class FarAccount(PaperAccount):
    """The paper account as if a gateway and a terminal lay between: a lost command may be executed later."""

    @property
    def settles_at_once(self) -> bool:
        return False


class Reads:
    """Counts what the broker is asked, before it is; ``at`` does something before the n-th question of a kind."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._news = asyncio.Condition()
        self._at: dict[tuple[str, int], Callable[[], object]] = {}

    async def __call__(self, operation: str, leg: Leg) -> None:
        if leg is not Leg.REQUEST:
            return
        self.counts[operation] += 1
        do = self._at.pop((operation, self.counts[operation]), None)
        if do is not None:
            do()
        async with self._news:
            self._news.notify_all()

    def at(self, operation: str, number: int, do: Callable[[], object]) -> None:
        self._at[operation, number] = do

    async def reached(self, operation: str, number: int) -> None:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: self.counts[operation] >= number)


@asynccontextmanager
async def far_away(tmp_path: Path, settle_ms: int) -> AsyncIterator[tuple[Stack, Reads]]:
    """A service whose broker is far away."""

    settings = {"reconciliation.settle_ms": settle_ms, "engine.flat_timer_slow_bars": 1000}
    async with running(tmp_path / "data", settings, attach=False) as stack:
        assert stack.system.paper is not None
        far = FarAccount(stack.system.paper.broker, None)
        await stack.system.attach(far.account_id, far, list(far.broker.symbols))
        await stack.tick(1.1)
        reads = stack.faults.latency = Reads()
        yield stack, reads


def execute_late(stack: Stack, intent_id: int, kind: OrderType, volume: float, position: int = 0) -> int:
    """The terminal sends what it was given long ago, with the command's mark; the order's ticket."""
    assert stack.system.paper is not None
    broker = stack.system.paper.broker
    market = broker.market(SYMBOL)
    result = broker.order_send(
        {
            "action": Action.DEAL,
            "symbol": SYMBOL,
            "volume": volume,
            "type": kind,
            "type_filling": default_filling(market),
            "price": market.ask if kind is OrderType.BUY else market.bid,
            "position": position,
            "magic": stack.config.engine.magic,
            "comment": f"dtms {intent_id}",
        },
        reason=DealReason.EXPERT,
    )
    assert result.retcode == Retcode.DONE, result
    return result.order


async def hedge_lost(stack: Stack) -> tuple[trade_pb2.Trade, int]:
    """A trade of half a lot in HEDGED whose hedge never reached the broker; the trade, and the intent of the hedge."""
    await stack.warm_up()
    trade = await stack.trade()
    await stack.tick(1.1021)
    await stack.report_score(-5.5)
    stack.faults.fail_calls(LOST)
    await stack.report_score(-10.5)
    events = await events_of(stack, trade)
    (intent,) = [
        event.intent_recorded
        for event in events
        if event.intent_recorded.kind == action_pb2.ACTION_KIND_OPEN_HEDGE and not event.intent_recorded.attempt
    ]
    return trade, intent.intent_id


async def alarms(stack: Stack, trade: trade_pb2.Trade) -> list[int]:
    return [e.alarm_raised.code for e in await events_of(stack, trade) if e.HasField("alarm_raised")]


async def test_a_lost_command_is_held_open_for_as_long_as_it_may_be_on_its_way(tmp_path: Path) -> None:
    """However often the broker shows no trace, nothing is concluded within the window; what comes in it is found."""
    async with far_away(tmp_path, settle_ms=600_000) as (stack, reads):
        trade = await stack.trade()
        stack.faults.fail_calls(LOST)
        asked = asyncio.create_task(stack.propose(trade, part_of(0.4)))
        await reads.reached("orders", 4)
        assert [outcome.status for outcome in await outcomes(stack, trade)] == [UNKNOWN]
        denied = await stack.propose(trade, stop_at(1.0961))
        assert denied.decision.denial == action_pb2.DENIAL_CODE_IN_FLIGHT
        execute_late(stack, 1, OrderType.SELL, 0.4, trade.ticket)
        answer = await asked
        assert (answer.outcome.status, answer.outcome.settled, answer.outcome.volume) == (CONFIRMED, True, 0.4)
        assert (await stack.get_trade(trade.ticket)).volume == 0.6


async def test_after_the_window_a_command_without_a_trace_was_not_executed(tmp_path: Path) -> None:
    """The window over, and read once more after it: REJECTED, settled, and the trade is free again."""
    async with far_away(tmp_path, settle_ms=400) as (stack, _):
        trade = await stack.trade()
        stack.faults.fail_calls(LOST)
        answer = await stack.propose(trade, part_of(0.4))
        assert (answer.outcome.status, answer.outcome.settled) == (REJECTED, True)
        assert (await stack.propose(trade, part_of(0.4))).outcome.status == CONFIRMED


async def test_a_report_that_lacks_the_position_is_no_evidence(stack: Stack) -> None:
    """I21: two reports in a row do not show the position whose stop was moved: it is not given up."""
    trade = await stack.trade()
    assert stack.system.paper is not None
    positions = stack.system.paper.broker.book.positions
    reads = stack.faults.latency = Reads()
    hidden = positions[trade.ticket]
    reads.at("positions", 1, lambda: positions.pop(trade.ticket, None))
    reads.at("positions", 4, lambda: positions.update({trade.ticket: hidden}))
    stack.faults.lose_replies()
    answer = await stack.propose(trade, stop_at(1.0961))
    assert (answer.outcome.status, answer.outcome.sl) == (CONFIRMED, 1.0961)


async def test_a_hedge_that_comes_late_is_the_trades_hedge_within_one_poll(tmp_path: Path) -> None:
    """Settled as not executed, its retry held up, then it comes: adopted as the hedge, aloud; no second one is sent."""
    async with far_away(tmp_path, settle_ms=0) as (stack, reads):
        reads.at("orders", 2, lambda: stack.faults.inject(Retcode.MARKET_CLOSED))  # the retry has to wait
        trade, intent_id = await hedge_lost(stack)
        await reads.reached("execute", 4)
        await stack.system.executor.idle()
        hedge = execute_late(stack, intent_id, OrderType.SELL, 0.25)
        await stack.tick(1.1021)
        now = await stack.get_trade(trade.ticket)
        assert (now.state, now.phase, now.hedge.ticket) == (HEDGED, trade_pb2.STATE_PHASE_CONFIRMED, hedge)
        assert set(stack.held()) == {trade.ticket, hedge}
        assert await alarms(stack, trade) == [event_pb2.ALARM_CODE_LATE_EXECUTION]
        assert not now.pending_actions


async def test_before_an_order_is_repeated_the_lost_one_is_looked_for_once_more(tmp_path: Path) -> None:
    """It comes between the verdict and the retry: the retry is not sent, there is one hedge."""
    async with far_away(tmp_path, settle_ms=0) as (stack, reads):
        late = list[int]()
        await stack.warm_up()
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-5.5)
        stack.faults.fail_calls(LOST)
        asked = reads.counts["positions"]  # two to settle, then the look before the retry
        reads.at("positions", asked + 3, lambda: late.append(execute_late(stack, 3, OrderType.SELL, 0.25)))
        await stack.report_score(-10.5)
        await reads.reached("positions", asked + 3)
        await stack.tick(1.1021)
        now = await stack.get_trade(trade.ticket)
        assert (now.state, [now.hedge.ticket]) == (HEDGED, late)
        assert set(stack.held()) == {trade.ticket, *late}


async def test_a_second_hedge_is_closed_at_once(tmp_path: Path) -> None:
    """It comes after its retry was executed: one too many, a stray; DTMS closes it and keeps the other."""
    async with far_away(tmp_path, settle_ms=0) as (stack, reads):
        trade, intent_id = await hedge_lost(stack)
        await reads.reached("execute", 4)
        await stack.system.executor.idle()
        hedge = (await stack.get_trade(trade.ticket)).hedge.ticket
        stray = execute_late(stack, intent_id, OrderType.SELL, 0.25)
        assert set(stack.held()) == {trade.ticket, hedge, stray}
        await stack.tick(1.1021)
        now = await stack.get_trade(trade.ticket)
        assert (now.state, now.phase, now.hedge.ticket) == (HEDGED, trade_pb2.STATE_PHASE_CONFIRMED, hedge)
        assert set(stack.held()) == {trade.ticket, hedge}
        gone = [e.leg_closed for e in await events_of(stack, trade) if e.HasField("leg_closed")]
        assert [(leg.leg, leg.position, leg.reason) for leg in gone] == [
            (event_pb2.LEG_KIND_STRAY, stray, event_pb2.CLOSE_REASON_DTMS)
        ]


async def test_a_part_that_a_manager_closed_late_is_told_as_its_own(tmp_path: Path) -> None:
    """A proposal settled as not executed and executed later: the volume is the broker's, as that command's outcome."""
    async with far_away(tmp_path, settle_ms=0) as (stack, _):
        trade = await stack.trade()
        stack.faults.fail_calls(LOST)
        assert (await stack.propose(trade, part_of(0.4))).outcome.status == REJECTED
        execute_late(stack, 1, OrderType.SELL, 0.4, trade.ticket)
        await stack.tick(1.1)
        events = await events_of(stack, trade)
        assert (await stack.get_trade(trade.ticket)).volume == 0.6
        assert not [event for event in events if event.HasField("position_changed")]
        assert await alarms(stack, trade) == [event_pb2.ALARM_CODE_LATE_EXECUTION]
        statuses = [event.outcome_recorded.outcome.status for event in events if event.HasField("outcome_recorded")]
        assert statuses == [UNKNOWN, REJECTED, CONFIRMED]


async def test_a_stop_that_was_given_up_and_set_by_another_command_is_not_late(tmp_path: Path) -> None:
    """The first never reached the broker, the second set the level that it had wanted: nothing was executed late,
    neither while the second is on its way nor when everything of the trade is looked at again."""
    async with far_away(tmp_path, settle_ms=0) as (stack, _):
        trade = await stack.trade()
        stack.faults.fail_calls(LOST)
        assert (await stack.propose(trade, stop_at(1.0961))).outcome.status == REJECTED
        assert stack.system.paper is not None
        gate = stack.faults.latency = Gate("execute", Leg.REPLY)
        asked = asyncio.create_task(stack.propose(trade, stop_at(1.0961)))
        await gate.arrived.wait()
        await stack.system.monitor.sync(trade.account_id, -1)
        assert await alarms(stack, trade) == []
        gate.open()
        assert (await asked).outcome.status == CONFIRMED
        ForeignActor(stack.system.paper.broker).modify(trade.ticket, 1.0961, 1.13)
        await stack.tick(1.1)
        stack.faults.fail_calls(LOST)
        assert (await stack.propose(trade, part_of(0.4))).outcome.status == REJECTED
        assert (await stack.propose(trade, part_of(0.4))).outcome.status == CONFIRMED
        await stack.tick(1.1)
        assert await alarms(stack, trade) == []


async def test_a_target_that_a_hand_has_just_moved_is_kept_and_told_as_external(stack: Stack) -> None:
    """I11, I8: a stop change that is decided before the hand is seen keeps the hand's target; the service learns of it
    as a change by somebody else."""
    trade = await stack.trade()
    assert stack.system.paper is not None
    ForeignActor(stack.system.paper.broker).modify(trade.ticket, trade.confirmed.sl, 1.1311)
    answer = await stack.propose(trade, stop_at(1.0961))
    assert (answer.outcome.status, answer.outcome.sl, answer.outcome.tp) == (CONFIRMED, 1.0961, 1.1311)
    now = await stack.get_trade(trade.ticket)
    assert (now.confirmed.sl, now.confirmed.tp) == (1.0961, 1.1311)
    (moved,) = [e.position_changed for e in await events_of(stack, trade) if e.HasField("position_changed")]
    assert (moved.external, moved.sl, moved.tp) == (True, trade.confirmed.sl, 1.1311)


async def test_a_late_hedge_is_found_after_a_restart(tmp_path: Path) -> None:
    """What was believed lost is remembered in the journal: the next start knows whose the position is."""
    async with running(tmp_path / "data", {"engine.flat_timer_slow_bars": 1000}) as stack:
        await stack.tick(1.1)
        reads = stack.faults.latency = Reads()
        reads.at("orders", 2, lambda: stack.faults.inject(Retcode.MARKET_CLOSED, count=20))
        trade, intent_id = await hedge_lost(stack)
        await reads.reached("execute", 4)
        await stack.system.executor.idle()
        hedge = execute_late(stack, intent_id, OrderType.SELL, 0.25)
    async with running(tmp_path / "data", {"engine.flat_timer_slow_bars": 1000}) as stack:
        now = await stack.get_trade(trade.ticket)
        assert (now.state, now.hedge.ticket) == (HEDGED, hedge)
        assert set(stack.held()) == {trade.ticket, hedge}


@pytest.mark.parametrize("others", [0, 1])
async def test_a_hedge_of_a_time_that_was_lost_with_the_journal_is_no_orphan(tmp_path: Path, others: int) -> None:
    """I13, I23: the journal goes back to a backup from before the hedge. Of the only trade that can have it, it is a
    leg, here one that the restored state does not want: closed. Where it may be another's, it is adopted. Aloud."""
    data_dir, settings = tmp_path / "data", {"engine.flat_timer_slow_bars": 1000}
    async with running(data_dir, settings) as stack:
        await stack.warm_up()
        trade = await stack.trade()
        for _ in range(others):
            await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-5.5)
        system = stack.system
        async with backup.made(system.desk.commits, data_dir, system.desk.clock) as (folder, _):
            shutil.copy(folder / JOURNAL_NAME, tmp_path / JOURNAL_NAME)
        await stack.report_score(-10.5)
        hedge = (await stack.get_trade(trade.ticket)).hedge.ticket
        before = set(stack.held())
        assert hedge in before
    for lost in data_dir.glob(f"{JOURNAL_NAME}*"):
        lost.unlink()
    shutil.copy(tmp_path / JOURNAL_NAME, data_dir)
    async with running(data_dir, settings) as stack:
        alarms = [
            event.alarm_raised.code
            for event in await all_until(await stack.stream("viewer", EVERYTHING), stack.system.desk.engine.revision)
            if event.HasField("alarm_raised")
        ]
        assert alarms == [event_pb2.ALARM_CODE_LOST_LEG] * (1 + others)
        listed = {ticket for _, ticket in stack.system.desk.keys(include_closed=False)}
        if others:
            assert set(stack.held()) == before == listed
            return
        await stack.tick(1.1021, after_ms=60_000)
        told = await events_until(await stack.stream("viewer", EVERYTHING), lambda event: event.HasField("leg_closed"))
        assert [(e.ticket, e.leg_found.leg, e.leg_found.position) for e in told if e.HasField("leg_found")] == [
            (trade.ticket, event_pb2.LEG_KIND_STRAY, hedge)
        ]
        assert set(stack.held()) == listed == {trade.ticket}


@pytest.mark.parametrize("by", ["hand", "stop"])
async def test_an_opening_that_was_filled_and_closed_before_it_was_looked_for(tmp_path: Path, by: str) -> None:
    """UNKNOWN, filled, and gone again before the first read: the books tell of both, and the state follows."""
    async with far_away(tmp_path, settle_ms=600_000) as (stack, reads):
        await stack.warm_up()
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-5.5)
        stack.faults.lose_replies()

        def gone() -> None:
            assert stack.system.paper is not None
            broker = stack.system.paper.broker
            (hedge,) = [held for held in broker.positions() if held.ticket != trade.ticket]
            if by == "hand":
                ForeignActor(broker).close(hedge.ticket, hedge.volume)
            else:
                assert hedge.sl is not None
                broker.on_tick(SYMBOL, broker.now_msc + 1, round(hedge.sl + 0.0002, 5), round(hedge.sl + 0.0003, 5))

        reads.at("positions", reads.counts["positions"] + 1, gone)
        await stack.report_score(-10.5)
        await stack.tick(1.1021)
        now = await stack.get_trade(trade.ticket)
        gone_legs = [e.leg_closed for e in await events_of(stack, trade) if e.HasField("leg_closed")]
        reason = event_pb2.CLOSE_REASON_CLIENT if by == "hand" else event_pb2.CLOSE_REASON_STOP_LOSS
        assert [(leg.leg, leg.reason) for leg in gone_legs] == [(event_pb2.LEG_KIND_HEDGE, reason)]
        assert (now.state == HEDGED, now.HasField("hedge")) == (False, False)
        assert set(stack.held()) == {trade.ticket}
