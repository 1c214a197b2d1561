"""The history that the demo ships is the one that its note describes."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from dtms_service.history import read

DEMO = Path(str(files("dtms_service").joinpath("demo")))
HISTORY = DEMO / "eurusd_h1_2017.csv.gz"
HOUR_S, WEEKEND_LEAST_S = 3600, 40 * 3600


def test_content_is_the_documented_one() -> None:
    """The CSV inside has the hash that the note of origin gives, and the archive holds no time or name."""
    archive = HISTORY.read_bytes()
    assert hashlib.sha256(gzip.decompress(archive)).hexdigest() in (DEMO / "ORIGIN.md").read_text(encoding="utf-8")
    assert archive[3:8] == bytes(5)  # no optional fields, mtime 0
    assert "Mohammad Amin Haghpanah" in (DEMO / "LICENSE-gym-anytrading.txt").read_text(encoding="utf-8")


def test_reader_takes_it_whole() -> None:
    """The service's own reader accepts every one of the 6,225 bars, four ticks each, inside of 2017."""
    ticks = list(read(HISTORY, point=1e-5, spread_points=10, progress=lambda _done, _total: None))
    assert len(ticks) == 4 * 6225
    assert (ticks[0].time_msc, ticks[-4].time_msc) == (1_483_308_000_000, 1_514_581_200_000)


def test_gaps_are_weekends() -> None:
    """Bars are an hour apart but for 51 weekends and Christmas: nothing was filled in and nothing is missing."""
    times = [int(line.split(",", 1)[0]) for line in gzip.decompress(HISTORY.read_bytes()).decode().splitlines()[1:]]
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) == HOUR_S
    assert sum(gap >= WEEKEND_LEAST_S for gap in gaps) == 51
    assert [gap for gap in gaps if HOUR_S < gap < WEEKEND_LEAST_S] == [15 * HOUR_S]
