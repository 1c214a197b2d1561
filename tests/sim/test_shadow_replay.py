"""A shadow run beside the live one on the same real ticks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtms_service.replay.shadow import read_shadow_run
from tests.sim.test_replay_determinism import XAUUSD_M1, XAUUSD_TICKS, replay


@pytest.mark.slow
def test_a_shadow_run_decides_as_the_live_one(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gold at the payrolls of 2 May 2014: same states and decisions, no order at the broker, and the money of the live
    run, but for commission, which no door tells before the real position is closed."""
    arguments = (
        *(shared_data / XAUUSD_TICKS, "XAUUSD"),
        ["BUY@2014-05-02T12:00:00,1.00,sl_distance=20,tp_distance=40"],
        *("--warm-up", str(shared_data / XAUUSD_M1), "--no-exit-manager"),
    )
    live = replay(tmp_path / "live", *arguments)
    monkeypatch.setenv("DTMS_SHADOW", "true")
    shadow = replay(tmp_path / "shadow", *arguments)
    for figure in ("transitions", "decisions", "stop_changes", "states_visited"):
        assert shadow[figure] == live[figure]
    assert '"actor": "dtms"' in (tmp_path / "live" / "broker_log.jsonl").read_text()
    assert '"actor": "dtms"' not in (tmp_path / "shadow" / "broker_log.jsonl").read_text()
    (left_alone,) = json.loads((tmp_path / "shadow" / "results.json").read_text())["trades"]
    assert left_alone["profit"] == left_alone["unprotected_profit"]
    (traded,) = json.loads((tmp_path / "live" / "results.json").read_text())["trades"]
    (told,) = read_shadow_run(tmp_path / "shadow" / "data").trades
    assert told.account.is_open
    both_sides = 2 * 3.5 * (1.0 + sum(leg["volume"] for leg in traded["legs"]))
    assert told.shadow.money == pytest.approx(traded["profit"] + both_sides, abs=0.05)
