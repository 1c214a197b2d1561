"""The core's indicators against TA-Lib, and its score on real prices."""

import csv
import gzip
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import talib

from dtms_service import _core

Series: TypeAlias = npt.NDArray[np.float64]
Row: TypeAlias = tuple[int, int, float, float, float, float, float]

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {
    "EURUSD": ("eurusd_m1_oanda_20140501_0515.csv.gz", "tick_volume", 0.0005),
    "XAUUSD": ("xauusd_m1_oanda_20140501_0515.csv.gz", "tick_volume", 0.001),
    "BTCUSD": ("btcperp_m1_20211231_20220201.csv.gz", "volume_usd", 0.002),
}
PARTS = {
    "structure": 3.0,
    "vwap_volume": 2.0,
    "momentum": 2.0,
    "ema_alignment": 1.5,
    "delta_pressure": 1.0,
    "candle_conviction": 1.0,
}
TOLERANCE = 1e-9

every_symbol = pytest.mark.parametrize("symbol", FILES)


@cache
def m1_bars(symbol: str) -> tuple[Row, ...]:
    """The M1 bars of a file as rows for `score_bars`; skips where the real data is absent."""
    name, volume, _ = FILES[symbol]
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no real data at {path}")
    with gzip.open(path, "rt", newline="") as file:
        return tuple(
            (
                60,
                int(row["time"]),
                float(row["open"]),
                float(row["high"]),
                float(row["low"]),
                float(row["close"]),
                float(row[volume]),
            )
            for row in csv.DictReader(file)
        )


@cache
def readings(symbol: str) -> list[dict[str, object]]:
    """The reading after each M1 bar in the profile `intraday`."""
    return _core.score_bars(300, 900, FILES[symbol][2], list(m1_bars(symbol)))


def column(symbol: str, index: int) -> Series:
    return np.array([row[index] for row in m1_bars(symbol)])


def numbers(symbol: str, key: str) -> Series:
    return np.array([row[key] for row in readings(symbol)], dtype=np.float64)


def assert_agree(ours: list[float | None], theirs: Series, scale: float = 0.0) -> None:
    """Same first index, and the same values to 1e-9 of themselves (or of `scale`, for series that cross zero)."""
    values = np.array(ours, dtype=np.float64)
    assert np.isfinite(theirs).any()
    np.testing.assert_array_equal(np.isnan(values), np.isnan(theirs))
    np.testing.assert_allclose(values, theirs, rtol=TOLERANCE, atol=TOLERANCE * scale)


@every_symbol
@pytest.mark.parametrize("period", [2, 50, 200])
def test_ema_is_talibs(symbol: str, period: int) -> None:
    """EMA equals TA-Lib's on real closes from the first value on."""
    closes = column(symbol, 5)
    assert_agree(_core.ema(closes.tolist(), period), talib.EMA(closes, period))


@every_symbol
def test_rsi_is_talibs(symbol: str) -> None:
    """RSI(14) equals TA-Lib's on real closes from the first value on."""
    closes = column(symbol, 5)
    assert_agree(_core.rsi(closes.tolist(), 14), talib.RSI(closes, 14))


@every_symbol
def test_macd_is_talibs(symbol: str) -> None:
    """MACD(12, 26, 9), its signal and its histogram equal TA-Lib's, to 1e-9 of the mean size of each."""
    closes = column(symbol, 5)
    for ours, theirs in zip(_core.macd(closes.tolist(), 12, 26, 9), talib.MACD(closes, 12, 26, 9), strict=True):
        assert_agree(ours, theirs, scale=float(np.nanmean(np.abs(theirs))))


@every_symbol
def test_atr_is_talibs(symbol: str) -> None:
    """ATR(14) equals TA-Lib's on real bars from the first value on."""
    high, low, close = (column(symbol, index) for index in (3, 4, 5))
    assert_agree(_core.atr(high.tolist(), low.tolist(), close.tolist(), 14), talib.ATR(high, low, close, 14))


@every_symbol
def test_bollinger_is_talibs(symbol: str) -> None:
    """The bands of Bollinger(20, 2) equal TA-Lib's."""
    closes = column(symbol, 5)
    upper, middle, lower = talib.BBANDS(closes, 20, 2.0, 2.0)
    means, widths = _core.bollinger(closes.tolist(), 20)
    assert_agree(means, middle)
    mean, width = np.array(means, dtype=np.float64), np.array(widths, dtype=np.float64)
    assert_agree((mean * (1.0 + width / 2.0)).tolist(), upper)
    assert_agree((mean * (1.0 - width / 2.0)).tolist(), lower)


@every_symbol
def test_bollinger_width_is_the_exact_deviation(symbol: str) -> None:
    """The width equals numpy's population deviation of each window, where TA-Lib's own sums cancel digits away."""
    closes = column(symbol, 5)
    windows = np.lib.stride_tricks.sliding_window_view(closes, 20)
    exact = 4.0 * windows.std(axis=1) / windows.mean(axis=1)
    _, widths = _core.bollinger(closes.tolist(), 20)
    np.testing.assert_allclose(np.array(widths[19:], dtype=np.float64), exact, rtol=TOLERANCE, atol=1e-14)


@pytest.mark.parametrize(
    "call",
    [
        lambda: _core.ema([1.0], 0),
        lambda: _core.rsi([1.0], 0),
        lambda: _core.macd([1.0], 26, 12, 9),
        lambda: _core.atr([1.0], [1.0, 2.0], [1.0], 14),
        lambda: _core.score_bars(0, 900, 0.001, []),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], object]) -> None:
    """A period of 0, periods out of order and series of different length are ValueErrors."""
    with pytest.raises(ValueError, match=r"at least 1|exceed|differ"):
        call()


@every_symbol
def test_every_real_bar_is_taken(symbol: str) -> None:
    """No bar of the real files is refused, and both timeframes close."""
    rows = readings(symbol)
    assert [row["ignored"] for row in rows if row["ignored"] is not None] == []
    fast = sum(bool(row["closed_fast"]) for row in rows)
    slow = sum(bool(row["closed_slow"]) for row in rows)
    assert fast > 2.8 * slow > 0


@every_symbol
def test_structure_breaks_on_real_prices(symbol: str) -> None:
    """BOS and CHOCH occur in both directions, and only where a slow bar closed (D13)."""
    closed = numbers(symbol, "closed_slow") > 0
    for key in ("bos", "choch", "choch_confirmed"):
        edges = numbers(symbol, key)
        assert (edges > 0).any(), key
        assert (edges < 0).any(), key
        assert not edges[~closed].any(), key


@every_symbol
def test_every_signal_speaks_both_ways(symbol: str) -> None:
    """On real bars every bar signal reaches both ends of its range, and neither sign dominates."""
    for key, limit in PARTS.items():
        values = numbers(symbol, key)
        assert np.abs(values).max() <= limit, key
        if key == "delta_pressure":
            assert not values.any(), "bars alone have no tick flow"
            continue
        assert (values.min(), values.max()) == (-limit, limit), key
        positive, negative = float((values > 0).mean()), float((values < 0).mean())
        assert 0.2 < positive / negative < 5.0, key
    assert np.abs(numbers(symbol, "total")).max() <= 10.5


@every_symbol
def test_every_regime_occurs(symbol: str) -> None:
    """All sessions and volatilities occur, and the multiplier stays in 0.5..=1.8 (D17)."""
    assert set(numbers(symbol, "session")) == {1, 2, 3, 4, 5}
    assert set(numbers(symbol, "volatility")) == {1, 2, 3}
    multiplier = numbers(symbol, "multiplier")
    assert 0.5 <= multiplier.min() < 1.0 < multiplier.max() <= 1.8


@every_symbol
def test_a_second_feed_changes_nothing(symbol: str) -> None:
    """Every bar fed twice is refused the second time, and the last reading is the same (D18)."""
    bars = m1_bars(symbol)[:3000]
    threshold = FILES[symbol][2]
    once = _core.score_bars(300, 900, threshold, list(bars))
    twice = _core.score_bars(300, 900, threshold, [bar for bar in bars for _ in range(2)])
    assert {row["ignored"] for row in twice[1::2]} == {"duplicate"}
    assert twice[::2] == once
