"""Entry rules: the channel breakout against a naive twin, schedules and how they are written."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator

import pytest

from dtms_service.bars import BarBuilder, ClosedBar
from dtms_service.broker.door import Side
from dtms_service.errors import DtmsError
from dtms_service.history import Tick
from dtms_service.replay.entries import (
    DonchianBreakout,
    Entry,
    Level,
    LevelKind,
    parse_trade,
    parse_trades,
)
from dtms_service.replay.on_the_clock import OnTheClock
from dtms_service.replay.options import seen_by
from dtms_service.replay.strategies import rotation

SPREAD = 0.0002
NONE_OPEN: frozenset[Side] = frozenset()


def ticks(bids: Iterable[float], step_ms: int = 1000) -> Iterator[Tick]:
    for index, bid in enumerate(bids):
        yield Tick(1_000_000_000_000 + index * step_ms, bid, bid + SPREAD, 1.0)


def rule(period: int = 3) -> DonchianBreakout:
    return DonchianBreakout(timeframe_s=60, volume=0.1, period=period, stop_atr=2.0, target_r=3.0)


def flat_bars(breakout: DonchianBreakout, count: int, low: float = 1.0, high: float = 1.1) -> None:
    for index in range(count):
        breakout.on_bar(ClosedBar(index * 60, low, high, low, high, 4.0))


def distances(entry: Entry) -> tuple[float, float]:
    assert entry.sl is not None
    assert entry.tp is not None
    assert (entry.sl.kind, entry.tp.kind) == (LevelKind.DISTANCE, LevelKind.DISTANCE)
    return entry.sl.value, entry.tp.value


def close_at(breakout: DonchianBreakout, price: float) -> None:
    """One bar that closes there, after it was inside."""
    breakout.on_bar(ClosedBar(10**6, 1.05, max(1.05, price), min(1.05, price), price, 4.0))


def opened(breakout: DonchianBreakout, open_sides: frozenset[Side] = NONE_OPEN) -> list[Entry]:
    (tick,) = ticks([1.05])
    return breakout.on_tick(tick, open_sides)


def test_nothing_is_opened_before_n_is_known() -> None:
    """The rule waits for 20 closed bars, however far the price runs."""
    breakout = rule()
    flat_bars(breakout, 18)
    close_at(breakout, 1.5)
    assert opened(breakout) == []
    assert breakout.n is None


def test_a_breakout_buys_with_a_stop_of_two_n_and_a_target_of_three_stops() -> None:
    """After a close above the channel the next tick is bought, once: stop 2 N away, target 3 times as far."""
    breakout = rule()
    flat_bars(breakout, 20)
    assert breakout.n == pytest.approx(0.1)
    close_at(breakout, 1.15)
    assert breakout.n == pytest.approx((19 * 0.1 + 0.1) / 20)
    (entry,) = opened(breakout)
    assert (entry.side, entry.volume) == (Side.BUY, 0.1)
    assert distances(entry) == pytest.approx((0.2, 0.6))
    assert opened(breakout) == []


def test_the_mirror_of_a_breakout_sells() -> None:
    """After a close below the channel the rule sells with the same distances."""
    breakout = rule()
    flat_bars(breakout, 20, low=1.0, high=1.1)
    close_at(breakout, 0.95)
    (entry,) = opened(breakout)
    assert entry.side is Side.SELL
    n = (19 * 0.1 + 0.15) / 20
    assert distances(entry) == pytest.approx((2 * n, 6 * n))


def test_a_side_that_is_open_is_not_opened_again_and_the_other_may_be() -> None:
    """At most one trade a side is open, and both sides may be."""
    breakout = rule()
    flat_bars(breakout, 20)
    close_at(breakout, 1.15)
    assert opened(breakout, frozenset({Side.BUY})) == []
    close_at(breakout, 0.9)
    assert [entry.side for entry in opened(breakout, frozenset({Side.BUY}))] == [Side.SELL]


def test_closes_that_stay_outside_are_one_breakout() -> None:
    """After its trade was stopped out, the rule does not buy again before a bar has closed inside."""
    breakout = rule()
    flat_bars(breakout, 20)
    sides = []
    for price in (1.15, 1.25, 1.05, 1.05, 1.05, 1.3):
        close_at(breakout, price)
        sides.append([entry.side for entry in opened(breakout)])
    assert sides == [[Side.BUY], [], [], [], [], [Side.BUY]]


def test_the_rule_agrees_with_a_naive_twin() -> None:
    """On a random walk the entries are those of a rule that recomputes channel and N from all bars at every close."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201  # repeats the walk
    chance = random.Random(seed)
    bids, price = [], 1.0
    for _ in range(20_000):
        price = max(0.5, price + chance.gauss(0, 0.0004))
        bids.append(round(price, 5))
    breakout, builder = rule(period=20), BarBuilder(60)
    bars: list[ClosedBar] = []
    got: list[tuple[int, Side, float]] = []
    wanted: list[tuple[int, Side, float]] = []
    before: Side | None = None
    for index, tick in enumerate(ticks(bids, step_ms=3000)):
        bar = builder.add(tick.time_msc, tick.bid, tick.volume)
        if bar is not None:
            breakout.on_bar(bar)
            bars.append(bar)
            if len(bars) > 20:
                channel = bars[-21:-1]
                above, below = bar.close > max(b.high for b in channel), bar.close < min(b.low for b in channel)
                beyond = Side.BUY if above else Side.SELL if below else None
                if beyond is not None and beyond is not before:
                    wanted.append((index, beyond, 2 * naive_n(bars)))
                before = beyond
        got += [(index, e.side, e.sl.value) for e in breakout.on_tick(tick, NONE_OPEN) if e.sl is not None]
    assert len(wanted) > 10, "the walk must break out, or the test proves nothing"
    assert [entry[:2] for entry in got] == [entry[:2] for entry in wanted]
    assert [stop for *_, stop in got] == pytest.approx([stop for *_, stop in wanted], rel=1e-9)


def naive_n(bars: list[ClosedBar]) -> float:
    """Wilder's average of the true range over all bars."""
    ranges = [bars[0].high - bars[0].low] + [
        max(b.high - b.low, abs(b.high - a.close), abs(b.low - a.close)) for a, b in itertools.pairwise(bars)
    ]
    n = sum(ranges[:20]) / 20
    for true_range in ranges[20:]:
        n = (19 * n + true_range) / 20
    return n


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("volume", {"volume": 0.0}),
        ("volume", {"volume": float("nan")}),
        ("period", {"period": 0}),
        ("timeframe_s", {"timeframe_s": 0}),
        ("stop_atr", {"stop_atr": -1.0}),
        ("target_r", {"target_r": float("inf")}),
    ],
)
def test_a_breakout_that_cannot_be_is_refused_by_field(field: str, given: dict[str, float]) -> None:
    """Each parameter that no rule can have is named."""
    fields: dict[str, float] = {"timeframe_s": 60, "volume": 0.1, **given}
    with pytest.raises(DtmsError) as caught:
        DonchianBreakout(**fields)  # type: ignore[arg-type]  # wrong on purpose
    assert [violation.field for violation in caught.value.violations] == [field]


def test_the_clock_opens_both_sides_once_at_each_whole_time() -> None:
    """Both sides at the first tick at or after each whole 10 s, with stop 2 N and target three times as far."""
    clock = OnTheClock(timeframe_s=60, every_s=10, volume=0.1)
    for index in range(20):
        clock.on_bar(ClosedBar(index * 60, 1.0, 1.1, 1.0, 1.05, 4.0))
    opened = [clock.on_tick(Tick(at_s * 1000, 1.05, 1.06, 1.0), NONE_OPEN) for at_s in (3, 12, 13, 20, 45, 49, 50)]
    assert [[entry.side for entry in entries] for entries in opened] == [
        [],
        [Side.BUY, Side.SELL],
        [],
        [Side.BUY, Side.SELL],
        [Side.BUY, Side.SELL],
        [],
        [Side.BUY, Side.SELL],
    ]
    assert distances(opened[1][0]) == distances(opened[1][1]) == pytest.approx((0.2, 0.6))


def test_the_clock_lets_a_time_go_before_n_is_known() -> None:
    """Without 20 closed bars nothing is opened, and nothing is made up for later."""
    clock = OnTheClock(timeframe_s=60, every_s=10, volume=0.1)
    assert clock.on_tick(Tick(10_000, 1.05, 1.06, 1.0), NONE_OPEN) == []
    for index in range(20):
        clock.on_bar(ClosedBar(index * 60, 1.0, 1.1, 1.0, 1.05, 4.0))
    assert clock.on_tick(Tick(11_000, 1.05, 1.06, 1.0), NONE_OPEN) == []


def test_warm_up_shows_its_bars_to_the_entry_rule() -> None:
    """Bars that close in the older history are seen and every tick goes on; a schedule, which wants none, is spared."""
    clock = OnTheClock(timeframe_s=1, every_s=10, volume=0.1)
    older = list(ticks([1.0, 1.1] * 21, step_ms=500))
    assert list(seen_by(clock, iter(older))) == older
    assert len(clock.on_tick(Tick(2_000_000_000_000, 1.0, 1.1, 1.0), NONE_OPEN)) == 2
    assert list(seen_by(parse_trades([]), iter(older))) == older


@pytest.mark.parametrize(
    ("names", "types"),
    [
        ([], ("",)),
        (["none", "kill_zone"], ("", "kill_zone")),
        (["alternate"], ("", "a", "", "b")),
        (["alternate", "none"], ("", "a", "", "b", "")),
    ],
)
def test_strategy_types_are_a_fixed_rotation(names: list[str], types: tuple[str, ...]) -> None:
    """`none` is DTMS's own, `alternate` is none and each managed type in the order of the configuration."""
    assert rotation(names, ["a", "b"]) == types


def test_a_trade_is_read_with_levels_as_prices_or_distances() -> None:
    """Times are UTC, levels are prices or distances, and what is not written is not there."""
    full = parse_trade("BUY@2014-05-02T12:25:00,0.10,sl=1283.5,tp_distance=20")
    assert full.time_msc == 1_399_033_500_000
    assert full.entry == Entry(
        side=Side.BUY, volume=0.10, sl=Level(LevelKind.PRICE, 1283.5), tp=Level(LevelKind.DISTANCE, 20.0)
    )
    assert parse_trade("BUY@2014-05-02T12:25:00,0.10,strategy=kill_zone").entry.strategy_type == "kill_zone"
    assert parse_trade("BUY@2014-05-02T12:25:00,0.10,strategy=none").entry.strategy_type == ""
    bare = parse_trade("sell@2014-05-02T14:25:00+02:00, 1")
    assert bare.time_msc == full.time_msc
    assert bare.entry == Entry(side=Side.SELL, volume=1.0, sl=None, tp=None)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", ["trade.side", "trade.volume"]),
        ("LONG@2014-05-02T12:25:00,0.1", ["trade.side"]),
        ("BUY@noon,0.1", ["trade.time"]),
        ("BUY@2014-05-02T12:25:00", ["trade.volume"]),
        ("BUY@2014-05-02T12:25:00,-0.1", ["trade.volume"]),
        ("BUY@2014-05-02T12:25:00,nan", ["trade.volume"]),
        ("BUY@2014-05-02T12:25:00,0.1,sl=", ["trade.sl"]),
        ("BUY@2014-05-02T12:25:00,0.1,sl=1,sl_distance=2", ["trade.sl"]),
        ("BUY@2014-05-02T12:25:00,0.1,stop=1", ["trade"]),
        ("BUY@2014-05-02T12:25:00,0.1,strategy=", ["trade.strategy"]),
        ("BUY@2014-05-02T12:25:00,0.1,strategy=kill_zone,strategy=none", ["trade.strategy"]),
        ("BUY@x,y,tp=z", ["trade.time", "trade.volume", "trade.tp"]),
    ],
)
def test_what_is_wrong_with_a_trade_is_named(text: str, fields: list[str]) -> None:
    """Every wrong part is named at once, by its field."""
    with pytest.raises(DtmsError) as caught:
        parse_trade(text)
    assert [violation.field for violation in caught.value.violations] == fields


def test_wrong_trades_of_a_schedule_are_told_apart() -> None:
    """The field says which of the trades it belongs to."""
    with pytest.raises(DtmsError) as caught:
        parse_trades(["BUY@2014-05-02T12:25:00,0.1", "SELL@2014-05-02T12:25:00,0"])
    assert [violation.field for violation in caught.value.violations] == ["trades[1].volume"]


def test_a_schedule_opens_at_the_first_tick_that_is_not_too_early_and_tells_what_it_missed() -> None:
    """Trades open in order of time, several at one tick if they are due; what the history never reached is named."""
    late = "SELL@2001-09-10T00:00:00,0.3"
    schedule = parse_trades([late, "BUY@2001-09-09T01:46:43,0.2", "SELL@2001-09-09T01:46:41.5,0.1"])
    opened = [[entry.volume for entry in schedule.on_tick(tick, NONE_OPEN)] for tick in ticks([1.0] * 5)]
    assert opened == [[], [], [0.1], [0.2], []]
    assert schedule.missed() == [f"{late}: the history ends before"]


def test_bars_are_those_of_the_ticks_in_them() -> None:
    """A bar is closed by the first tick of a later window; windows without ticks have no bar; volume 0 counts as 1."""
    builder = BarBuilder(60)
    closed = [
        builder.add(time_msc, price, volume)
        for time_msc, price, volume in [
            (61_000, 5.0, 2.0),
            (70_000, 7.0, 0.0),
            (100_000, 4.0, 3.0),
            (119_999, 6.0, 1.0),
            (300_000, 8.0, 1.0),
            (360_000, 9.0, 1.0),
        ]
    ]
    assert [bar for bar in closed if bar is not None] == [
        ClosedBar(60, 5.0, 7.0, 4.0, 6.0, 7.0),
        ClosedBar(300, 8.0, 8.0, 8.0, 8.0, 1.0),
    ]
    assert closed[4] is not None
    assert closed[5] is not None
