"""The files of a run are read as written, and refused with their place where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtms_service.report import ReportInputInvalid, read_bars, read_results

HEADER = (
    "time_s,open,high,low,close,total,structure,vwap_volume,momentum,ema_alignment,delta_pressure,candle_conviction"
)
TRADE = {
    "ticket": 7,
    "side": "SELL",
    "entry_price": 1.1,
    "initial_sl": 1.102,
    "initial_tp": None,
    "volume": 0.1,
    "opened_ns": 1_483_308_000_000_000_001,
    "closed_ns": 1_483_311_600_000_000_001,
    "r": -0.25,
    "profit": -5.0,
    "unprotected_r": None,
    "unprotected_profit": None,
    "open_at_end": True,
    "legs": [],
}


def test_bars(tmp_path: Path) -> None:
    """A bar without a score has none; one with a score has its parts in order and a mirror for the other side."""
    path = tmp_path / "bars.csv"
    path.write_text(f"{HEADER}\n0,1,2,0.5,1.5,,,,,,,\n3600,1.5,2,1,1.75,-1.5,-3,1,0,0.5,0,0\n")
    first, second = read_bars(path)
    assert (first.close, first.score) == (1.5, None)
    assert second.score is not None
    assert list(second.score.parts) == [-3, 1, 0, 0.5, 0, 0]
    assert (second.score.mirrored().total, second.score.mirrored().parts[0]) == (1.5, 3)


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("time_s,open\n", "bars.csv", "columns missing: high, low, close, total"),
        (f"{HEADER}\n0,1,x,1,1,,,,,,,\n", "bars.csv:2", "high is 'x', not a number"),
        (f"{HEADER}\n0,1,nan,1,1,,,,,,,\n", "bars.csv:2", "high is 'nan', not finite"),
        (f"{HEADER}\n0,1,1,1,1,2,,,,,,\n", "bars.csv:2", "structure is '', not a number"),
        (f"{HEADER}\n0,1,1,1\n", "bars.csv:2", "close is None, not a number"),
        (f"{HEADER}\n5,1,1,1,1,,,,,,,\n5,1,1,1,1,,,,,,,\n", "bars.csv:3", "time_s 5 does not follow 5"),
    ],
)
def test_bad_bars(tmp_path: Path, text: str, place: str, why: str) -> None:
    """Each fault names the file, the line and the column."""
    path = tmp_path / "bars.csv"
    path.write_text(text)
    with pytest.raises(ReportInputInvalid) as error:
        read_bars(path)
    assert error.value.place.endswith(place)
    assert why in error.value.why


def test_results(tmp_path: Path) -> None:
    """Nanoseconds survive whole, absent levels and figures are None, other keys are left alone."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"trades": [TRADE]}))
    (trade,) = read_results(path)
    assert (trade.opened_ns, trade.closed_ns) == (TRADE["opened_ns"], TRADE["closed_ns"])
    assert (trade.side, trade.initial_tp, trade.unprotected_r, trade.open_at_end) == ("SELL", None, None, True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"side": "LONG"}, "side is 'LONG', not BUY or SELL"),
        ({"profit": None}, "profit is None, not a number"),
        ({"r": float("inf")}, "r is inf, not finite"),
        ({"opened_ns": 1.5e18}, "opened_ns is 1.5e+18, not a whole number"),
    ],
)
def test_bad_results(tmp_path: Path, change: dict[str, object], why: str) -> None:
    """A wrong field is named with the trade's place in the list."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"trades": [TRADE, TRADE | change]}))
    with pytest.raises(ReportInputInvalid) as error:
        read_results(path)
    assert error.value.place == f"{path}: trades[1]"
    assert error.value.why == why


def test_results_without_list(tmp_path: Path) -> None:
    """A document of another kind is refused as a whole."""
    path = tmp_path / "results.json"
    path.write_text("[]")
    with pytest.raises(ReportInputInvalid, match='no list "trades"'):
        read_results(path)
