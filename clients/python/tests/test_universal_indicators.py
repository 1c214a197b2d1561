"""Indicators of the Universal Manager: bar by bar they say what their naive twins say of the whole history."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from dtms_client.universal_manager.indicators import Bar, Chart, Reading

Bars = Sequence[Bar]
SEEDS = range(4)
SIDE = 2


def walk(seed: int, count: int = 220) -> list[Bar]:
    """A random walk on whole prices, so that equal highs, breaks and impulses all occur."""
    chance = random.Random(seed)
    bars, price = [], 1_000.0
    for _ in range(count):
        calm = chance.choice([2, 3, 4, 4, 5, 14])
        opened, closed = price, price + chance.randint(-calm, calm)
        bars.append(
            Bar(opened, max(opened, closed) + chance.randint(0, 2), min(opened, closed) - chance.randint(0, 2), closed)
        )
        price = closed
    return bars


def fed(bars: Bars) -> list[Reading]:
    """The reading after each bar."""
    chart, readings = Chart(), []
    for index, bar in enumerate(bars):
        assert chart.take(60 * index, bar)
        readings.append(chart.reading)
    return readings


# ---- naive twins: each looks at all bars so far, anew


def upside_down(bars: Bars) -> list[Bar]:
    return [Bar(-bar.open, -bar.low, -bar.high, -bar.close) for bar in bars]


def naive_atrs(bars: Bars) -> list[float]:
    ranges = [max(bar.high, before.close) - min(bar.low, before.close) for before, bar in itertools.pairwise(bars)]
    if len(ranges) < 14:
        return []
    atrs = [sum(ranges[:14]) / 14]
    for each in ranges[14:]:
        atrs.append((atrs[-1] * 13 + each) / 14)
    return atrs


def naive_swings(bars: Bars) -> list[int]:
    """Places of the swing highs that are confirmed by now."""
    highs = [bar.high for bar in bars]
    return [
        at
        for at in range(SIDE, len(bars) - SIDE)
        if highs[at] > max(highs[at - SIDE : at]) and highs[at] >= max(highs[at + 1 : at + SIDE + 1])
    ]


def naive_breaks(bars: Bars) -> list[tuple[int, float]]:
    """Place and origin of each close above the last swing high that was confirmed before it: each swing once."""
    found, spent = [], set()
    for at in range(1, len(bars)):
        swings = naive_swings(bars[:at])
        if swings and swings[-1] not in spent and bars[at].close > bars[swings[-1]].high:
            spent.add(swings[-1])
            found.append((at, min(bar.low for bar in bars[swings[-1] : at + 1])))
    return found


def naive_shift(bars: Bars) -> tuple[float | None, float | None]:
    """Origin of the last break (of a fall, of a rise), in a trend that turned another one."""
    breaks = [(at, 1, level) for at, level in naive_breaks(bars)]
    breaks += [(at, -1, -level) for at, level in naive_breaks(upside_down(bars))]
    trends = [(side, level) for _, side, level in sorted(breaks)]
    if not any(side != trends[-1][0] for side, _ in trends):
        return None, None
    side, level = trends[-1]
    return (level, None) if side < 0 else (None, level)


def naive_impulse(bars: Bars) -> float | None:
    """Low of the last impulse upward that nothing has overtaken."""
    for at in range(len(bars) - 1, -1, -1):
        before, bar = naive_atrs(bars[:at]), bars[at]
        reach = bar.high - bar.low
        if before and reach >= 1.5 * before[-1] and bar.close - bar.open >= 0.65 * reach:
            since = bars[at + 1 :]
            overtaken = any(low > at for low in naive_swings(upside_down(bars)))
            return None if overtaken or any(later.close < bar.low for later in since) else bar.low
    return None


def naive(bars: Bars) -> Reading:
    atrs, mirrored = naive_atrs(bars), upside_down(bars)
    highs, lows = naive_swings(bars), naive_swings(mirrored)
    shift_high, shift_low = naive_shift(bars)
    fall = naive_impulse(mirrored)
    return Reading(
        atr=atrs[-1] if atrs else None,
        baseline=sum(atrs[-50:]) / 50 if len(atrs) >= 50 else None,
        swing_high=bars[highs[-1]].high if highs else None,
        swing_low=bars[lows[-1]].low if lows else None,
        shift_high=shift_high,
        shift_low=shift_low,
        impulse_high=None if fall is None else -fall,
        impulse_low=naive_impulse(bars),
    )


def near(reading: Reading) -> list[object]:
    names = Reading.__slots__
    values = [getattr(reading, name) for name in names]
    return [value if value is None else pytest.approx(value, rel=1e-9) for value in values]


def values(reading: Reading) -> list[float | None]:
    return [getattr(reading, name) for name in Reading.__slots__]


@pytest.mark.parametrize("seed", SEEDS)
def test_bar_by_bar_is_the_same_as_all_at_once(seed: int) -> None:
    """After every bar each reading is what a look at the whole history says."""
    bars = walk(seed, 90)
    for count, reading in enumerate(fed(bars), start=1):
        assert values(reading) == near(naive(bars[:count])), count


def test_the_walks_have_everything_in_them() -> None:
    """Every reading occurs, and shifts and impulses come and go: the comparison above compares something."""
    readings = [reading for seed in SEEDS for reading in fed(walk(seed, 90))]
    for name in Reading.__slots__:
        known = sum(getattr(reading, name) is not None for reading in readings)
        assert 10 < known < len(readings), name


@pytest.mark.parametrize("seed", SEEDS)
def test_upside_down_prices_give_upside_down_readings(seed: int) -> None:
    """Highs and lows change places, distances stay."""
    bars = walk(seed)
    for up, down in zip(fed(bars), fed(upside_down(bars)), strict=True):
        assert (up.atr, up.baseline) == (down.atr, down.baseline)
        for high, low in (("swing_high", "swing_low"), ("shift_high", "shift_low"), ("impulse_high", "impulse_low")):
            for mine, other in ((high, low), (low, high)):
                seen, mirrored = getattr(up, mine), getattr(down, other)
                assert seen == (None if mirrored is None else -mirrored)


def test_a_swing_is_confirmed_by_the_bars_after_it() -> None:
    """A low is a swing two closed bars later, never while it is the current bar."""
    lows = [5.0, 4.0, 1.0, 2.0, 3.0]
    readings = fed([Bar(low + 1, low + 2, low, low + 1) for low in lows])
    assert [reading.swing_low for reading in readings] == [None, None, None, None, 1.0]


def test_an_impulse_is_not_measured_against_itself() -> None:
    """1.5 times the ATR before it, though its own range has raised the ATR by then; a long body is needed too."""
    calm = [Bar(10.0, 11.0, 9.0, 10.0)] * 20
    jump, wick = Bar(10.0, 13.0, 10.0, 13.0), Bar(10.0, 13.0, 10.0, 11.9)
    assert fed([*calm, jump])[-1].impulse_low == 10.0
    assert fed([*calm, wick])[-1].impulse_low is None
    small = Bar(10.0, 12.9, 10.0, 12.9)
    assert fed([*calm, small])[-1].impulse_low is None


def test_an_impulse_ends_with_a_close_behind_it_or_a_later_swing() -> None:
    """What has been taken back, or overtaken by a younger level, is no ground any more."""
    calm = [Bar(10.0, 11.0, 9.0, 10.0)] * 20
    jump = Bar(10.0, 14.0, 10.0, 14.0)
    assert fed([*calm, jump, Bar(14.0, 14.0, 9.5, 10.0)])[-1].impulse_low == 10.0
    assert fed([*calm, jump, Bar(14.0, 14.0, 9.5, 9.9)])[-1].impulse_low is None
    after = [Bar(13.0, 14.0, low, 13.0) for low in (13.0, 12.5, 12.0, 12.5)]
    assert fed([*calm, jump, *after])[-1].impulse_low == 10.0
    overtaken = fed([*calm, jump, *after, Bar(13.0, 14.0, 12.8, 13.0)])[-1]
    assert (overtaken.impulse_low, overtaken.swing_low) == (None, 12.0)


def test_late_and_repeated_bars_change_nothing() -> None:
    """A bar that is not after the last one is refused."""
    chart = Chart()
    assert chart.take(60, Bar(1.0, 2.0, 1.0, 2.0))
    assert not chart.take(60, Bar(5.0, 9.0, 1.0, 9.0))
    assert not chart.take(0, Bar(5.0, 9.0, 1.0, 9.0))
    assert chart.take(180, Bar(2.0, 3.0, 2.0, 3.0))
    assert chart.reading == Reading()
