"""Price histories: read exactly, or refused by line and column."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from dtms_service.errors import HistoryInvalid
from dtms_service.history import HistoryInfo, Kind, Tick, read, sniff

TICKS = "time_msc,bid,ask\n"
BARS = "time,open,high,low,close\n"
FULL = "time,open,high,low,close,tick_volume,spread,ask_open,ask_high,ask_low,ask_close\n"
MT = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
UP = "60,1.10,1.15,1.05,1.12"
DOWN = "120,1.12,1.15,1.05,1.10"


def quiet(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.csv"


def ticks(path: Path, spread_points: int | None = None, point: float = 0.01) -> list[Tick]:
    return list(read(path, point=point, spread_points=spread_points, progress=quiet))


def refused(path: Path, text: str | bytes, spread_points: int | None = 1) -> HistoryInvalid:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(HistoryInvalid) as caught:
        ticks(path, spread_points)
    with pytest.raises(HistoryInvalid) as sniffed:
        sniff(path, quiet)
    assert str(sniffed.value) == str(caught.value), "sniffing finds what reading would"
    return caught.value


# -- ticks --------------------------------------------------------------------------------------------------------


def test_ticks_come_as_they_are(file: Path) -> None:
    """Each row of a tick file is one tick of volume 1; several within a millisecond are kept."""
    file.write_text(TICKS + "1000,1.1,1.2\n1000,1.1,1.2\n1005,1.3,1.3\n")
    assert ticks(file) == [Tick(1000, 1.1, 1.2, 1.0), Tick(1000, 1.1, 1.2, 1.0), Tick(1005, 1.3, 1.3, 1.0)]
    assert sniff(file, quiet) == HistoryInfo(
        Kind.TICKS, ("time_msc", "bid", "ask"), compressed=False, period_s=None, has_spread=True, rows=3,
        first_time_msc=1000, last_time_msc=1005,
    )  # fmt: skip


def test_gzip_is_told_by_content_not_by_name(file: Path) -> None:
    """A compressed file reads the same under any name."""
    file.write_bytes(gzip.compress((TICKS + "1000,1.1,1.2\n").encode()))
    assert ticks(file) == [Tick(1000, 1.1, 1.2, 1.0)]
    assert sniff(file, quiet).compressed


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_windows_encodings_and_line_ends_are_read(file: Path, encoding: str) -> None:
    """A byte order mark, UTF-16 and CRLF do not matter; column names may be in capitals."""
    file.write_bytes((TICKS.upper() + "1000,1.1,1.2\n").replace("\n", "\r\n").encode(encoding))
    assert ticks(file) == [Tick(1000, 1.1, 1.2, 1.0)]


# -- bars ---------------------------------------------------------------------------------------------------------


def test_an_up_bar_makes_its_low_first(file: Path) -> None:
    """open, low, high, close at 0, 1/4, 1/2, 3/4 of the period; ask is bid plus the given spread."""
    file.write_text(BARS + f"{UP}\n{DOWN}\n")
    up = ticks(file, spread_points=2)[:4]
    assert [tick.bid for tick in up] == [1.10, 1.05, 1.15, 1.12]
    assert [tick.ask for tick in up] == [1.12, 1.07, 1.17, 1.14]
    assert [tick.time_msc for tick in up] == [60_000, 75_000, 90_000, 105_000]


def test_a_down_bar_makes_its_high_first(file: Path) -> None:
    """open, high, low, close when the bar closes below its open."""
    file.write_text(BARS + f"{UP}\n{DOWN}\n")
    assert [tick.bid for tick in ticks(file, spread_points=0)[4:]] == [1.12, 1.15, 1.05, 1.10]


def test_a_flat_bar_counts_as_up(file: Path) -> None:
    """A bar that closes where it opened makes its low first."""
    file.write_text(BARS + f"{UP}\n120,1.1,1.2,1.0,1.1\n")
    assert [tick.bid for tick in ticks(file, spread_points=0)[4:]] == [1.1, 1.0, 1.2, 1.1]


def test_the_files_own_asks_win(file: Path) -> None:
    """Ask columns are taken before the spread column, and that before the argument."""
    file.write_text(FULL + "60,1.1,1.2,1.0,1.1,8,5,1.11,1.22,1.03,1.14\n120,1.1,1.2,1.0,1.1,8,5,1.11,1.22,1.03,1.14\n")
    assert [tick.ask for tick in ticks(file, spread_points=50)[:4]] == [1.11, 1.03, 1.22, 1.14]
    file.write_text("time,open,high,low,close,spread\n60,1.1,1.2,1.0,1.1,5\n120,1.1,1.2,1.0,1.1,6\n")
    assert [tick.ask for tick in ticks(file, spread_points=50)[3:5]] == [1.15, 1.16]


def test_a_spread_is_never_made_up(file: Path) -> None:
    """A file without a spread is refused unless the caller gives one."""
    file.write_text(BARS + f"{UP}\n{DOWN}\n")
    with pytest.raises(HistoryInvalid) as caught:
        ticks(file, spread_points=None)
    assert caught.value.column == "spread"
    assert not sniff(file, quiet).has_spread


@pytest.mark.parametrize(
    ("column", "volume", "parts"),
    [
        ("tick_volume", "43", [11.0, 11.0, 11.0, 10.0]),
        ("tick_volume", "2", [1.0, 1.0, 0.0, 0.0]),
        ("tick_volume", "0", [0.0, 0.0, 0.0, 0.0]),
        ("volume_usd", "2300413.7295", [2300413.7295 / 4] * 4),
    ],
)
def test_volume_is_split_and_sums_exactly(file: Path, column: str, volume: str, parts: Sequence[float]) -> None:
    """Whole volumes split into whole parts, others into exact quarters; the sum is the bar's volume, to the bit."""
    file.write_text(f"{BARS.strip()},{column}\n{UP},{volume}\n{DOWN},{volume}\n")
    got = [tick.volume for tick in ticks(file, spread_points=0)[:4]]
    assert got == parts
    assert sum(got) == float(volume)


@pytest.mark.parametrize(("period_s", "gap"), [(60, 7), (3600, 49), (14_400, 13), (86_400, 3)])
def test_the_period_is_the_commonest_distance(file: Path, period_s: int, gap: int) -> None:
    """Missing bars and weekends do not hide the period."""
    times = [period_s * n for n in (1, 2, 3, 4, 4 + gap, 5 + gap, 6 + gap)]
    file.write_text(BARS + "".join(f"{time},1.1,1.2,1.0,1.1\n" for time in times))
    info = sniff(file, quiet)
    assert (info.period_s, info.rows, info.first_time_msc) == (period_s, 7, period_s * 1000)


# -- MetaTrader's export ------------------------------------------------------------------------------------------


def test_metatraders_export_is_read(file: Path) -> None:
    """Tab-separated <DATE> <TIME> ... rows become bars at their UTC times with their spread in points."""
    file.write_text(
        MT + "2017.01.02\t00:00:00\t1.05\t1.06\t1.04\t1.055\t100\t0\t2\n"
        "2017.01.02\t01:00:00\t1.055\t1.06\t1.05\t1.052\t101\t0\t3\n"
    )
    got = ticks(file)
    assert got[0] == Tick(1_483_315_200_000, 1.05, 1.07, 25.0)
    assert got[4].ask == 1.08
    info = sniff(file, quiet)
    assert (info.kind, info.period_s, info.has_spread) == (Kind.MT_BARS, 3600, True)


def test_metatraders_daily_export_has_no_time(file: Path) -> None:
    """Without a <TIME> column bars start at midnight."""
    file.write_text(
        MT.replace("<TIME>\t", "") + "2017.01.02\t1.05\t1.06\t1.04\t1.055\t100\t0\t2\n"
        "2017.01.03\t1.05\t1.06\t1.04\t1.055\t100\t0\t2\n"
    )
    assert sniff(file, quiet).period_s == 86_400


def test_an_impossible_date_is_refused(file: Path) -> None:
    """The 31st of June names its line and column."""
    error = refused(file, MT + "2017.06.31\t00:00:00\t1.05\t1.06\t1.04\t1.055\t100\t0\t2\n")
    assert (error.line, error.column) == (2, "<DATE>")


# -- bad files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 0, ""),
        (TICKS, 0, ""),
        ("date,open,high,low,close\n1990-01-02,1,1,1,1\n", 1, ""),
        ("time_msc,bid\n1,1.1\n", 1, "ask"),
        ("time,open,high,low\n", 1, "close"),
        ("time,open,high,low,close,ask_open\n", 1, "ask_close"),
        ("time,open,high,low,close,open\n", 1, "open"),
        ("time,open,high,low,close,colour\n", 1, "colour"),
        (TICKS + "1000,nan,1.2\n", 2, "bid"),
        (TICKS + "1000,1.1,inf\n", 2, "ask"),
        (TICKS + "1000,-1.1,1.2\n", 2, "bid"),
        (TICKS + "1000,0,1.2\n", 2, "bid"),
        (TICKS + "1000,1_0.1,1.2\n", 2, "bid"),
        (TICKS + "1000,abc,1.2\n", 2, "bid"),
        (TICKS + "1000.5,1.1,1.2\n", 2, "time_msc"),
        (TICKS + "-5,1.1,1.2\n", 2, "time_msc"),
        (TICKS + "1000,1.1,1.2\n999,1.1,1.2\n", 3, "time_msc"),
        (TICKS + "1000,1.2,1.1\n", 2, "ask"),
        (TICKS + "1000,1.1\n", 2, ""),
        (TICKS + "1000,1.1,1.2,7\n", 2, ""),
        (TICKS + "1000," + "1" * 5000 + ",1.2\n", 2, ""),
        (BARS + f"{UP}\n{UP}\n", 3, "time"),
        (BARS + f"{DOWN}\n{UP}\n", 3, "time"),
        (BARS + "60,1.1,1.0,1.2,1.1\n", 2, "high"),
        (BARS + "60,1.3,1.2,1.0,1.1\n", 2, "open"),
        (BARS + "60,1.1,1.2,1.0,0.9\n", 2, "close"),
        (BARS + f"{UP}\n", 0, "time"),
        (BARS + f"{UP}\n97,1.1,1.2,1.0,1.1\n", 0, "time"),
        (BARS + f"{UP}\n{DOWN}\n180,1.1,1.2,1.0,1.1\n210,1.1,1.2,1.0,1.1\n", 5, "time"),
        (FULL + "60,1.1,1.2,1.0,1.1,8,5,1.11,1.19,1.03,1.14\n", 2, "ask_high"),
        (FULL + "60,1.1,1.2,1.0,1.1,-8,5,1.11,1.22,1.03,1.14\n", 2, "tick_volume"),
        (FULL + "60,1.1,1.2,1.0,1.1,8,-5,1.11,1.22,1.03,1.14\n", 2, "spread"),
    ],
)
def test_a_bad_row_is_named_by_line_and_column(file: Path, text: str, line: int, column: str) -> None:
    """Whatever breaks a rule stops the reading at its line and column; nothing is repaired."""
    error = refused(file, text)
    assert (error.path, error.line, error.column) == (file, line, column)


def test_a_truncated_gzip_says_where_it_ends(file: Path) -> None:
    """A cut file gives its whole rows, then an error that names the last one."""
    whole = gzip.compress((TICKS + "".join(f"{n},1.1,1.2\n" for n in range(1, 5000))).encode())
    error = refused(file, whole[: len(whole) // 2])
    assert "cut off" in error.why
    assert error.line > 1


def test_a_damaged_gzip_is_no_traceback(file: Path) -> None:
    """A flipped byte inside the compressed data is the file's fault and said so."""
    whole = bytearray(gzip.compress((TICKS + "".join(f"{n},1.1,1.2\n" for n in range(1, 5000))).encode()))
    whole[len(whole) // 2] ^= 0xFF
    assert refused(file, bytes(whole)).path == file


def test_bytes_that_are_no_text_are_refused(file: Path) -> None:
    """A binary file is not a history."""
    assert "not text" in refused(file, b"time_msc,bid,ask\n\xff\xfe\xfa\n").why


# -- size ---------------------------------------------------------------------------------------------------------


def test_progress_runs_to_the_end(file: Path) -> None:
    """Progress counts the file's bytes, never back, and ends at its size."""
    file.write_text(TICKS + "".join(f"{n},1.1,1.2\n" for n in range(1, 20_000)))
    seen: list[tuple[int, int]] = []
    list(read(file, point=0.01, spread_points=None, progress=lambda done, total: seen.append((done, total))))
    size = file.stat().st_size
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)


def test_memory_does_not_grow_with_the_file(file: Path) -> None:
    """Reading 10 times as many bars takes no more memory."""
    peaks = []
    for count in (1_000, 10_000):
        file.write_text(BARS + "".join(f"{60 * n},1.1,1.2,1.0,1.1\n" for n in range(1, count)))
        tracemalloc.start()
        assert sum(1 for _ in read(file, point=0.01, spread_points=1, progress=quiet)) == 4 * (count - 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_reader_that_stops_early_closes_the_file(file: Path) -> None:
    """Taking a few ticks and leaving raises no warning about an open file."""
    file.write_text(TICKS + "".join(f"{n},1.1,1.2\n" for n in range(1, 100)))
    reading = read(file, point=0.01, spread_points=None, progress=quiet)
    assert len(list(itertools.islice(reading, 3))) == 3
    del reading


@pytest.mark.parametrize(
    ("name", "rows", "ticks_per_row", "point"),
    [
        ("eurusd_ticks_oanda_20140508_0512", 143_585, 1, 0.00001),
        ("xauusd_ticks_oanda_20140502_0504", 221_976, 1, 0.001),
        ("eurusd_m1_oanda_20140501_0515", 15_366, 4, 0.00001),
        ("xauusd_m1_oanda_20140501_0515", 15_222, 4, 0.001),
        ("btcperp_m1_20211231_20220201", 45_031, 4, 0.01),
    ],
)
def test_real_files_are_read_whole(shared_data: Path, name: str, rows: int, ticks_per_row: int, point: float) -> None:
    """Every row of the real files passes; ticks are in order and never cross."""
    path = shared_data / f"{name}.csv.gz"
    assert sniff(path, quiet).rows == rows
    count, last = 0, 0
    for tick in read(path, point=point, spread_points=100, progress=quiet):
        assert last <= tick.time_msc
        assert tick.bid <= tick.ask
        last = tick.time_msc
        count += 1
    assert count == rows * ticks_per_row
