"""A restart in the middle of a defence: timers run on, and the market is remembered."""

from __future__ import annotations

from pathlib import Path

from dtms.v1 import event_pb2, trade_pb2
from dtms.v1.trade_status_service_pb2 import GetScoreRequest, WatchRequest
from tests.grpc.test_course import QUICK, warm
from tests.grpc.watching import events_until
from tests.stack import SYMBOL, Stack, running

BUY = trade_pb2.SIDE_BUY


async def score(stack: Stack) -> tuple[bool, float]:
    """Warm or not, and the total for a BUY."""
    answer = await stack.call("viewer", GetScoreRequest(symbol=SYMBOL, side=BUY))
    return answer.warm, answer.score.total


async def test_indicators_are_warm_after_a_restart_and_no_trade_is_judged_by_old_bars(tmp_path: Path) -> None:
    """ATR and score are as before; the bars of before make no event."""
    async with running(tmp_path) as stack:
        await stack.warm_up()
        trade = await stack.trade()
        await stack.tick(1.1002)
        warm, total = await score(stack)
        assert warm
        await stack.marked()
        before = stack.system.desk.quote("1000@paper", SYMBOL)
        revision = stack.system.desk.engine.revision
    async with running(tmp_path) as stack:
        assert stack.system.desk.engine.revision == revision
        stack.bid, stack.now_msc = 1.1002, stack.now_msc + 2000
        await stack.tick(1.1002)
        assert await score(stack) == (True, total)
        now = stack.system.desk.quote("1000@paper", SYMBOL)
        assert before is not None
        assert now is not None
        assert (now["atr_slow"], now.get("swing_high")) == (
            before["atr_slow"],
            before.get("swing_high"),
        )
        assert (await stack.get_trade(trade.ticket)).state == trade_pb2.TRADE_STATE_HEALTHY


async def test_a_timer_runs_on_over_a_restart(tmp_path: Path) -> None:
    """Timers are state in event time: whether it ends before, during or after the restart, it ends as it would have."""
    async with running(tmp_path, QUICK) as stack:
        await warm(stack)
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-10.5)
        hedged = await stack.get_trade(trade.ticket)
        assert (hedged.state, hedged.phase) == (trade_pb2.TRADE_STATE_HEDGED, trade_pb2.STATE_PHASE_CONFIRMED)
        now_msc = stack.now_msc
    async with running(tmp_path, QUICK) as stack:
        stack.now_msc = now_msc
        await stack.tick(1.1021)
        watch = await stack.stream("viewer", WatchRequest(start_revision=hedged.revision + 1))
        events = await events_until(watch, lambda event: event.HasField("state_confirmed"))
        (ended,) = [event for event in events if event.HasField("state_changed")]
        changed = ended.state_changed
        assert (changed.to, changed.cause) == (trade_pb2.TRADE_STATE_CLOSED, event_pb2.TRANSITION_CAUSE_FLAT_TIMER)
        assert ended.time_ns >= hedged.flat_timer_ends_ns
        assert stack.held() == {}
