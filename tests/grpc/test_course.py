"""The course of a trade end to end: prices and scores in, states and broker actions out."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtms.v1 import action_pb2, event_pb2, trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import Bar, StreamBarsRequest, StreamTicksRequest, Tick
from dtms.v1.trade_status_service_pb2 import WatchFilter, WatchRequest
from tests.grpc.watching import all_until, events_until
from tests.stack import DONE, EXIT_MANAGER, Stack, running, stop_at

HEALTHY, L1, L2, HEDGED, RECOVERING, CLOSED = (
    trade_pb2.TRADE_STATE_HEALTHY,
    trade_pb2.TRADE_STATE_WARNING_L1,
    trade_pb2.TRADE_STATE_WARNING_L2,
    trade_pb2.TRADE_STATE_HEDGED,
    trade_pb2.TRADE_STATE_RECOVERING,
    trade_pb2.TRADE_STATE_CLOSED,
)
CONFIRMED = trade_pb2.STATE_PHASE_CONFIRMED
# A better score acts at once and timers end within seconds: what is waited for here is the event, not the clock.
QUICK = {
    "engine.hold_s": 0,
    "engine.fast_s": 1,
    "engine.slow_s": 2,
    "engine.recovery_timer_slow_bars": 1,
    "engine.flat_timer_slow_bars": 1,
}


async def shown(stack: Stack, trade: trade_pb2.Trade) -> trade_pb2.Trade:
    return await stack.get_trade(trade.ticket)


async def told_until(stack: Stack, trade: trade_pb2.Trade, state: trade_pb2.TradeState.ValueType) -> list[Event]:
    """The events of a trade up to the confirmation of a state."""
    wanted = WatchFilter(tickets=[trade.ticket])
    call = await stack.stream("viewer", WatchRequest(start_revision=trade.revision + 1, filter=wanted))
    return await events_until(call, lambda event: event.state_confirmed.confirmed_state == state)


def edges(events: list[Event]) -> list[tuple[int, int]]:
    return [
        (getattr(event.state_changed, "from"), event.state_changed.to)
        for event in events
        if event.HasField("state_changed")
    ]


async def factor(stack: Stack) -> float:
    """What the regime multiplies thresholds with, at this moment."""
    await stack.report_score(0.0)
    score = stack.system.desk.score("1000@paper", "EURUSD", trade_pb2.SIDE_BUY)
    assert score is not None
    return float(score["thresholds"]["multiplier"])


async def test_worse_and_worse_scores_take_a_trade_to_hedged(stack: Stack) -> None:
    """L1 tightens, L2 takes half off and goes to breakeven, HEDGED opens half of the rest the other way."""
    await stack.warm_up()
    times = await factor(stack)
    trade = await stack.trade()
    await stack.tick(1.1008)

    await stack.report_score(-2.5 * times)
    first = await shown(stack, trade)
    assert (first.state, first.phase, first.armed) == (L1, CONFIRMED, True)
    assert first.confirmed.sl == pytest.approx(1.1008 - 0.3 * 0.005, abs=1e-9)
    assert first.confirmed.tp == trade.initial_tp
    assert first.HasField("flat_timer_ends_ns")

    await stack.report_score(-4.5 * times)
    second = await shown(stack, trade)
    assert (second.state, second.phase) == (L2, CONFIRMED)
    assert (second.volume, second.confirmed.sl, second.partial_taken) == (0.5, 1.1001, True)
    assert stack.held() == {trade.ticket: (0.5, 1.1001, 1.1101)}

    await stack.report_score(-7.0 * times)
    third = await shown(stack, trade)
    assert (third.state, third.phase) == (HEDGED, CONFIRMED)
    assert third.hedge.volume == 0.25
    assert third.hedge.sl == pytest.approx(1.1008 + 0.0005, abs=1e-4)
    assert stack.held()[third.hedge.ticket] == (0.25, third.hedge.sl, None)

    events = await told_until(stack, trade, HEDGED)
    assert edges(events) == [(HEALTHY, L1), (L1, L2), (L2, HEDGED)]
    for event in events:
        if event.HasField("state_changed"):
            score = event.state_changed.score
            assert score.thresholds.multiplier == pytest.approx(times)
            assert score.reported_by == "feed"


async def test_a_severe_score_skips_no_edge_in_the_record(stack: Stack) -> None:
    """From HEALTHY to HEDGED in one evaluation: each edge is an event, what is overtaken is recorded as superseded."""
    await stack.warm_up()
    trade = await stack.trade()
    await stack.tick(1.1021)
    await stack.report_score(-10.5)
    events = await told_until(stack, trade, HEDGED)
    assert edges(events) == [(HEALTHY, L1), (L1, L2), (L2, HEDGED)]
    skipped = [event.action_skipped.reason for event in events if event.HasField("action_skipped")]
    assert action_pb2.SKIP_REASON_SUPERSEDED in skipped
    assert (await shown(stack, trade)).hedge.ticket in stack.held()


async def test_nobody_but_dtms_acts_while_it_defends(stack: Stack) -> None:
    """In L2 and HEDGED every manager is DTMS_DEFENSIVE; the trade says so."""
    await stack.warm_up()
    trade = await stack.trade()
    await stack.tick(1.1021)
    for score, state in ((-7.5, L2), (-10.5, HEDGED)):
        await stack.report_score(score)
        now = await shown(stack, trade)
        assert now.state in {state, HEDGED}
        denied = await stack.propose(now, stop_at(1.1011), manager=EXIT_MANAGER)
        assert denied.decision.denial == action_pb2.DENIAL_CODE_DTMS_DEFENSIVE
        assert denied.decision.defensive


async def test_a_hedge_that_is_stopped_out_begins_recovery_and_a_good_score_ends_it(tmp_path: Path) -> None:
    """HEDGED -> RECOVERING by the hedge's own stop, -> HEALTHY when the timer ends on a good score."""
    async with running(tmp_path / "data", QUICK | {"engine.flat_timer_slow_bars": 1000}) as stack:
        await warm(stack)
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-10.5)
        hedged = await shown(stack, trade)
        assert hedged.state == HEDGED
        await stack.report_score(10.0)
        await stack.tick(round(hedged.hedge.sl + 0.0002, 5))
        recovering = await shown(stack, trade)
        assert recovering.state == RECOVERING
        assert not recovering.HasField("hedge")
        assert list(stack.held()) == [trade.ticket]
        events = await told_until(stack, trade, HEALTHY)
        assert edges(events)[-2:] == [(HEDGED, RECOVERING), (RECOVERING, HEALTHY)]
        healthy = await shown(stack, trade)
        assert healthy.state == HEALTHY
        assert set(stack.held()) == {trade.ticket} | ({healthy.readd.ticket} if healthy.HasField("readd") else set())
        if healthy.HasField("readd"):
            assert healthy.readd.volume == pytest.approx(0.25)


async def warm(stack: Stack) -> None:
    """ATR of the quick slow timeframe, from ticks of two seconds."""
    for step in range(40):
        await stack.tick(1.1 + (step % 2) * 0.0005, after_ms=1000)
    await stack.tick(1.1, after_ms=1000)


async def test_a_netting_account_hedges_by_reduction(tmp_path: Path) -> None:
    """Where no second position can stand beside it, the trade is cut by the hedge's ratio; CLOSED leaves nothing."""
    async with running(tmp_path / "data", QUICK | {"paper.hedging": False}) as stack:
        await warm(stack)
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-10.5)
        hedged = await shown(stack, trade)
        assert (hedged.state, hedged.phase) == (HEDGED, CONFIRMED)
        assert not hedged.HasField("hedge")
        assert (hedged.volume, hedged.closed_volume) == (0.25, 0.75)
        assert {ticket: held[0] for ticket, held in stack.held().items()} == {trade.ticket: 0.25}
        await told_until(stack, trade, CLOSED)
        assert stack.held() == {}


async def test_the_flat_timer_closes_a_hedged_trade_and_its_hedge(tmp_path: Path) -> None:
    """I13: HEDGED -> CLOSED by time: position and hedge are both gone at the broker, and CLOSED is final."""
    async with running(tmp_path / "data", QUICK) as stack:
        await warm(stack)
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-10.5)
        events = await told_until(stack, trade, CLOSED)
        (cause,) = [e.state_changed.cause for e in events if e.HasField("state_changed") and e.state == CLOSED]
        assert cause == event_pb2.TRANSITION_CAUSE_FLAT_TIMER
        assert stack.held() == {}
        await stack.report_score(10.0)
        assert (await shown(stack, trade)).state == CLOSED


async def test_a_stop_that_the_broker_hits_closes_trade_and_hedge(stack: Stack) -> None:
    """I13: any -> CLOSED when the broker reports the stop; the hedge goes too, reason and price are on record."""
    await stack.warm_up()
    trade = await stack.trade()
    await stack.tick(1.1021)
    await stack.report_score(-10.5)
    assert len(stack.held()) == 2
    await stack.report_score(0.0)
    stop = (await shown(stack, trade)).confirmed.sl
    await stack.tick(round(stop - 0.0002, 5))
    events = await told_until(stack, trade, CLOSED)
    main, hedge = [event.leg_closed for event in events if event.HasField("leg_closed")]
    assert (main.leg, main.reason) == (event_pb2.LEG_KIND_MAIN, event_pb2.CLOSE_REASON_STOP_LOSS)
    assert (hedge.leg, hedge.reason) == (event_pb2.LEG_KIND_HEDGE, event_pb2.CLOSE_REASON_DTMS)
    assert stack.held() == {}
    now = await shown(stack, trade)
    assert (now.state, now.phase) == (CLOSED, CONFIRMED)
    assert now.close_price == pytest.approx(main.price)


async def test_states_and_timers_survive_a_restart(tmp_path: Path) -> None:
    """I20: a hedged trade is a hedged trade after the restart, with the same hedge, timer, token and score."""
    async with running(tmp_path / "data") as stack:
        await stack.warm_up()
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-10.5)
        before, held = await shown(stack, trade), stack.held()
    async with running(tmp_path / "data") as stack:
        assert await shown(stack, trade) == before
        assert stack.held() == held


async def test_a_sell_runs_the_same_course_mirrored(stack: Stack) -> None:
    """I12: for a SELL a score of +10.5 is what -10.5 is for a BUY: same edges, same volumes, mirrored levels."""
    await stack.warm_up()
    trade = await stack.trade(trade_pb2.SIDE_SELL)
    await stack.tick(1.0979)
    await stack.report_score(10.5)
    events = await told_until(stack, trade, HEDGED)
    assert edges(events) == [(HEALTHY, L1), (L1, L2), (L2, HEDGED)]
    now = await shown(stack, trade)
    assert (now.volume, now.hedge.volume) == (0.5, 0.25)
    assert now.confirmed.sl == trade.entry_price
    assert now.hedge.sl < 1.0979


# -- real prices -------------------------------------------------------------------------------------------------------

GOLD_TICKS = "xauusd_ticks_oanda_20140502_0504.csv.gz"
GOLD_BARS = "xauusd_m1_oanda_20140501_0515.csv.gz"
ENTRY_S, UNTIL_S = 1399033500, 1399035600  # 12:25 and 13:00 UTC on 2014-05-02


def rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        yield from csv.DictReader(file)


def gold_ticks(path: Path) -> Iterator[tuple[int, float, float]]:
    for row in rows(path):
        yield int(row["time_msc"]), float(row["bid"]), float(row["ask"])


def gold_bars(path: Path) -> Iterator[Bar]:
    for row in rows(path):
        prices = {name: float(row[name]) for name in ("open", "high", "low", "close")}
        yield Bar(time_s=int(row["time"]), volume=float(row["tick_volume"]), **prices)


async def test_a_long_in_gold_is_defended_through_the_jobs_report(tmp_path: Path, shared_data: Path) -> None:
    """2014-05-02 12:30 UTC: real ticks take a long into WARNING_L2 or HEDGED, all the way to the broker."""
    bars = [bar for bar in gold_bars(shared_data / GOLD_BARS) if bar.time_s < ENTRY_S - 60]
    prices = [price for price in gold_ticks(shared_data / GOLD_TICKS) if ENTRY_S <= price[0] // 1000 <= UNTIL_S]
    async with running(tmp_path / "data") as stack:
        for start in range(0, len(bars), 1000):
            part = bars[start : start + 1000]
            await stack.feed(StreamBarsRequest(symbol="XAUUSD", timeframe_s=60, bars=part))
        await stack.feed(*messages(prices[:1]))
        entry = prices[0][2]
        registration = await stack.open_position(symbol="XAUUSD", sl=round(entry - 25, 3), tp=round(entry + 50, 3))
        feed = await stack.client("feed")
        trade = (await feed.register_trade(registration)).trade
        await stack.feed(*messages(prices[1:], size=200))
        await stack.system.executor.idle()
        end = stack.system.desk.engine.revision
        wanted = WatchFilter(tickets=[trade.ticket])
        call = await stack.stream("viewer", WatchRequest(start_revision=1, filter=wanted, progress_interval_ms=100))
        events = await all_until(call, end)
        visited = {to for _from, to in edges(events)}
        assert visited & {L2, HEDGED}, edges(events)
        for event in events:
            if event.HasField("state_changed"):
                assert event.state_changed.score.reported_by == ""
                parts = event.state_changed.score
                total = (
                    parts.structure
                    + parts.vwap_volume
                    + parts.momentum
                    + parts.ema_alignment
                    + parts.delta_pressure
                    + parts.candle_conviction
                )
                assert parts.total == pytest.approx(total)
        answers = [event.outcome_recorded for event in events if event.HasField("outcome_recorded")]
        assert any(answer.outcome.retcode == DONE for answer in answers)
        # No price waits for a command: a level may be refused because it has moved on, and is then computed anew.
        assert all(answer.outcome.retcode == DONE or answer.HasField("retry_at_ns") for answer in answers)
        now = await stack.get_trade(trade.ticket)
        legs = {leg.ticket for leg in (now.hedge, now.readd) if leg.ticket}
        assert set(stack.held()) == legs | (set() if now.state == CLOSED else {trade.ticket})


def messages(prices: list[tuple[int, float, float]], size: int = 1000) -> list[Any]:
    return [
        StreamTicksRequest(
            symbol="XAUUSD", ticks=[Tick(time_msc=t, bid=bid, ask=ask) for t, bid, ask in prices[start : start + size]]
        )
        for start in range(0, len(prices), size)
    ]
