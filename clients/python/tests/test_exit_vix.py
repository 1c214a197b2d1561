"""VIX from its three sources: what is known when, and what is not."""

from __future__ import annotations

import datetime as dt
import gzip
from pathlib import Path

import pytest

from dtms.v1.event_pb2 import Index
from dtms.v1.market_data_service_pb2 import Quote
from dtms_client.exit_manager.vix import DAY_NS, HOUR_NS, Vix, VixDays, VixSources

# A Thursday, a Friday, and the Monday after.
TEXT = """date,open,high,low,close
2014-05-01,13.4,13.9,13.0,13.25
2014-05-02,13.1,13.3,12.6,12.91
2014-05-05,13.0,13.5,12.9,13.29
"""
SHARED = Path(__file__).parents[4] / "shared" / "data" / "vix_daily_cboe_19900102_20260723.csv.gz"


def ns(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()) * 1_000_000_000


def days(tmp_path: Path, text: str = TEXT) -> VixDays:
    file = tmp_path / "vix.csv"
    file.write_text(text)
    return VixDays.read(file)


@pytest.mark.parametrize(
    ("at", "known"),
    [
        ("2014-05-01T23:59:59", None),
        ("2014-05-02T00:00:00", 13.25),
        ("2014-05-02T23:59:59", 13.25),
        ("2014-05-03T00:00:00", 12.91),
        ("2014-05-05T23:59:59", 12.91),
        ("2014-05-06T00:00:00", 13.29),
        ("2014-05-10T00:00:00", 13.29),
        ("2014-05-10T00:00:01", None),
    ],
)
def test_a_close_is_known_from_the_next_day_on_and_not_for_ever(tmp_path: Path, at: str, known: float | None) -> None:
    """No look into the future, the Friday's close over the weekend, and nothing after four days."""
    assert days(tmp_path).at(ns(at), max_age_ns=4 * DAY_NS) == known


def test_a_compressed_file_is_read_too(tmp_path: Path) -> None:
    """gzip, by its name."""
    file = tmp_path / "vix.csv.gz"
    file.write_bytes(gzip.compress(TEXT.encode()))
    assert VixDays.read(file) == days(tmp_path)


@pytest.mark.skipif(not SHARED.exists(), reason=f"no real market data: {SHARED} does not exist")
def test_the_real_file_is_read() -> None:
    """Every day since 1990; a value as it was published."""
    real = VixDays.read(SHARED)
    assert len(real.closes) == 9_235
    assert real.at(ns("2025-04-09T12:00:00"), max_age_ns=4 * DAY_NS) == 52.33


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("date,open\n", "close"),
        ("day,close\n", "date"),
        ("date,close\n2014-05-01,13\n2014-05-01,14\n", "line 3"),
        ("date,close\n2014-05-01,x\n", "line 2"),
        ("date,close\n2014-05-01,nan\n", "line 2"),
        ("date,close\n2014-05-01,0\n", "line 2"),
        ("date,close\n2014-05-01\n", "line 2"),
        ("date,close\n1 May,13\n", "line 2"),
    ],
)
def test_a_wrong_file_names_the_place(tmp_path: Path, text: str, named: str) -> None:
    """A value that is not there is an error, not a zero."""
    with pytest.raises(ValueError, match=named):
        days(tmp_path, text)


NOW_NS = ns("2014-05-02T12:00:00")


def quoted(bid: float, *, age_ns: int, symbol: str = "VIX.r") -> Quote:
    return Quote(symbol=symbol, bid=bid, ask=bid + 0.2, time_msc=(NOW_NS - age_ns) // 1_000_000)


def test_what_speaks_most_directly_wins(tmp_path: Path) -> None:
    """A report before a quote, a quote before the file, each for as long as it holds."""
    vix = Vix(VixSources(symbol="VIX.r", days=days(tmp_path)))
    assert vix.at(NOW_NS) == 13.25
    vix.take_quotes([quoted(20.0, age_ns=HOUR_NS), quoted(1.1, age_ns=0, symbol="EURUSD")])
    assert vix.at(NOW_NS) == pytest.approx(20.1)
    assert vix.take_indices([Index(name="VIX", value=25.0, valid_until_ns=NOW_NS + 1)])
    assert vix.at(NOW_NS) == 25.0
    assert vix.at(NOW_NS + 1) == 13.25


def test_without_a_source_it_is_unknown() -> None:
    """None is no number: an old quote, an expired report, another index and rubbish leave it unknown."""
    vix = Vix(VixSources(symbol="VIX.r"))
    assert vix.at(NOW_NS) is None
    vix.take_quotes([quoted(20.0, age_ns=HOUR_NS + 1_000_000), quoted(float("nan"), age_ns=0), quoted(0.0, age_ns=0)])
    assert not vix.take_indices(
        [
            Index(name="MOVE", value=90.0, valid_until_ns=NOW_NS + HOUR_NS),
            Index(name="VIX", value=float("nan"), valid_until_ns=NOW_NS + HOUR_NS),
        ]
    )
    assert vix.take_indices([Index(name="VIX", value=30.0, valid_until_ns=NOW_NS)])
    assert vix.at(NOW_NS) is None


def test_a_symbol_without_a_name_is_none() -> None:
    """Quotes are VIX only where the operator said which."""
    vix = Vix(VixSources())
    vix.take_quotes([quoted(20.0, age_ns=0, symbol="")])
    assert vix.at(NOW_NS) is None
