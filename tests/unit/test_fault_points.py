"""Fault points: free unless a test arms them, and then exact."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtms_service.fault_points import (
    FAULT_VARIABLES,
    KILL_VARIABLE,
    PASSED_VARIABLE,
    Point,
    from_environment,
    hook,
    is_armed,
    reach,
)
from dtms_service.journal import SqliteJournal, no_progress
from tests.conftest import REPO
from tests.house_sources import SERVICE, sources

KILLED = -9


def test_nothing_is_armed_by_itself() -> None:
    """Without its variables a process has no fault points: this one has none."""
    assert not FAULT_VARIABLES & os.environ.keys()
    assert from_environment({}) is None
    assert not is_armed()
    reach(Point.ANSWER)


def test_a_hook_hears_every_point_of_its_block_and_no_other() -> None:
    """For simulations in one process: what the hook raises comes out of the place that was reached."""
    heard: list[Point] = []
    with hook(heard.append):
        reach(Point.PUBLISH)
        reach(Point.ANSWER)
    reach(Point.OUTCOME)
    assert heard == [Point.PUBLISH, Point.ANSWER]


def test_an_error_comes_from_the_nth_passage_on() -> None:
    """A disk that is full stays full."""
    called = from_environment({KILL_VARIABLE: f"{Point.FENCE_RAISE}:2:ENOSPC"})
    assert called is not None
    called(Point.FENCE_RAISE)
    called(Point.ANSWER)
    for _ in range(2):
        with pytest.raises(OSError, match="fault point") as caught:
            called(Point.FENCE_RAISE)
        assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("text", ["nowhere:1", "publish", "publish:x", "publish:1:EWHAT"])
def test_a_misspelt_point_arms_nothing_in_silence(text: str) -> None:
    """A test that names what does not exist fails instead of passing without its fault."""
    with pytest.raises((ValueError, AttributeError)):
        from_environment({KILL_VARIABLE: text})


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is not Windows'")
def test_the_process_dies_at_the_nth_passage(tmp_path: Path) -> None:
    """kill -9, not an exit: no handler runs, and what was passed before is on record."""
    passed = tmp_path / "passed"
    script = (
        "import atexit; from dtms_service.fault_points import Point, reach\n"
        "atexit.register(print, 'cleaned up')\n"
        "for _ in range(3): reach(Point.PUBLISH); reach(Point.PUBLISHED)"
    )
    env = os.environ | {KILL_VARIABLE: f"{Point.PUBLISHED}:2", PASSED_VARIABLE: str(passed)}
    run = subprocess.run([sys.executable, "-c", script], cwd=REPO, env=env, capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (KILLED, b"", b"fault point published:2\n")
    assert passed.read_text(encoding="ascii").split() == ["publish", "published", "publish", "published"]


def test_writes_and_syncs_inside_of_sqlite_are_points(tmp_path: Path) -> None:
    """A commit writes and syncs its log; an armed process passes both, in this order."""
    heard: list[Point] = []
    with hook(heard.append):
        journal, _report = SqliteJournal.open(tmp_path, wal_limit_bytes=1 << 20, progress=no_progress)
        heard.clear()
        journal.append(0, [(1, b"one")])
        journal.close()
    commit = heard[: heard.index(Point.JOURNAL_COMMITTED) + 1]
    assert commit[:2] == [Point.JOURNAL_BEGIN, Point.JOURNAL_INSERTED]
    assert commit[-3:] == [Point.JOURNAL_SYNC, Point.JOURNAL_SYNCED, Point.JOURNAL_COMMITTED]
    assert Point.JOURNAL_WRITE in commit


def test_each_point_is_reached_in_one_place() -> None:
    """No point is forgotten in the list and none stands for two places; those of files are handed to their disk."""
    used: dict[str, int] = {}
    for source in sources(SERVICE):
        if source.unit not in {"fault_points", "fault_disk"}:
            text = source.path.read_text(encoding="utf-8")
            for point in Point:
                used[point.name] = used.get(point.name, 0) + text.count(f"Point.{point.name})")
                used[point.name] += text.count(f"Point.{point.name},")
    assert {name: count for name, count in used.items() if count != 1} == {}
