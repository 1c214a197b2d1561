"""The main job, whole: a year through the real processes, twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MANAGERS = ("dtms_manager", "intelligent_exit_manager", "universal_sl_tp_manager")


def demo(out: Path) -> dict[str, Any]:
    """Runs `dtms demo` and returns its summary."""
    command = [sys.executable, "-m", "dtms_service", "demo", "--out", str(out)]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


@pytest.mark.slow
def test_the_demo_shows_three_managers_and_is_the_same_in_any_folder(tmp_path: Path) -> None:
    """All three move stops, DTMS takes trades over, every state is seen, nobody fights; two folders, one journal."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    first, second = demo(tmp_path / "here" / "report"), demo(tmp_path / "there" / "another")
    assert first["journal_sha256"] == second["journal_sha256"]
    assert first["conflicting_writes"] == first["unconfirmed_actions"] == 0
    assert [name for name in MANAGERS if first["per_manager"][name]["stop_changes"]] == list(MANAGERS)
    assert first["per_manager"]["dtms_manager"]["preemptions"] > 0
    assert len(first["states_visited"]) == 6
    assert first["decisions"]["denied"], "managers met, and one gave way"
    first.pop("tick_to_decision_us")
    second.pop("tick_to_decision_us")
    assert first == second
