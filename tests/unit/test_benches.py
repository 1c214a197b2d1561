"""The benches run, and report what they say they report; how fast anything is, no test says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benches.__main__ import BENCHES
from benches.figures import Baseline, Figure, Target
from benches.report import FILE

ROOT = Path(__file__).resolve().parents[2]
# Each run is well inside of a test's time also on a busy machine; with the targets of the issues.
RUNS = [
    (["evaluation", "decision", "journal", "get-trade"], {"≤ 1.25 x", "≤ 100", "≤ 1024", "≤ 2", "≥ 50000"}),
    (["fan-out", "registrations", "tick"], {"≥ 0.8 x", "≤ 1000"}),
    (["managers"], {"≤ 0", "≤ 5", "≤ 1.1 x"}),
    (["gateway"], {"≤ 5", "≤ 1.25 x"}),
    (["recovery"], {"≤ 2"}),
]


@pytest.mark.parametrize(("names", "targets"), RUNS, ids=["core", "service", "managers", "gateway", "recovery"])
def test_a_quick_run_measures_every_bench(tmp_path: Path, names: list[str], targets: set[str]) -> None:
    """The benches run at tiny sizes, and bench.json holds finite figures with the targets of the issues."""
    command = [sys.executable, "-m", "benches", *names, "--quick", "--out", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    written = json.loads((tmp_path / FILE).read_text())
    assert written["quick"] is True
    assert list(written["benches"]) == names
    assert all(figures for figures in written["benches"].values())
    for figure in (figure for figures in written["benches"].values() for figure in figures):
        assert math.isfinite(figure["value"]), figure
        assert (figure["reached"] is None) == (figure["target"] is None), figure
    found = {figure["target"] for figures in written["benches"].values() for figure in figures}
    assert found == targets | {None}


def test_no_bench_is_left_out() -> None:
    """The quick runs together name all benches."""
    assert [name for names, _ in RUNS for name in names] == list(BENCHES)


def test_named_benches_run_alone(tmp_path: Path) -> None:
    """Only what is named is measured."""
    command = [sys.executable, "-m", "benches", "decision", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert list(json.loads((tmp_path / FILE).read_text())["benches"]) == ["decision"]


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        (None, None),
        (Target("value", "at most", 3), True),
        (Target("value", "at most", 2.9), False),
        (Target("ratio", "at least", 1.5), True),
        (Target("ratio", "at most", 1.4), False),
    ],
)
def test_a_target_bounds_the_figure_or_its_ratio(target: Target | None, reached: bool | None) -> None:
    """3 over a baseline of 2 is judged by its value or by 1.5, as the target says."""
    assert Figure("speed", "us", 3.0, Baseline("bare", 2.0), target).reached is reached


def test_a_ratio_needs_a_baseline() -> None:
    """A target for a ratio without a baseline is a mistake of the bench, not a pass."""
    with pytest.raises(ValueError, match="baseline"):
        _ = Figure("speed", "us", 3.0, None, Target("ratio", "at most", 1)).reached
