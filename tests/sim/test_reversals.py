"""The three managers on the real ticks of two reversals, and what the same trades earn when left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import reversals
from tests.sim.reversals import EURUSD, GOLD, Market, Outcome
from tests.sim.test_replay_determinism import excerpt

MANAGERS = {"dtms_manager", "intelligent_exit_manager", "universal_sl_tp_manager"}


def nobody_fought(outcome: Outcome) -> None:
    assert outcome.summary["conflicting_writes"] == outcome.summary["unconfirmed_actions"] == 0
    assert outcome.results, "no trade was opened"
    assert all(trade["r"] is not None and trade["unprotected_r"] is not None for trade in outcome.results)


def test_three_managers_work_on_gold_at_the_payrolls(shared_data: Path, tmp_path: Path) -> None:
    """Hours of minute bars around the payrolls of 2 May 2014: all three act on the two longs, and none conflicts."""
    minutes = excerpt(shared_data / GOLD.warm_up, tmp_path / "minutes.csv", "1399031700", 300)
    outcome = reversals.run(GOLD, reversals.scheduled(GOLD), minutes, tmp_path / "run")
    nobody_fought(outcome)
    assert {name for name, did in outcome.summary["per_manager"].items() if did["granted"]} == MANAGERS


@pytest.mark.slow
@pytest.mark.parametrize("way", reversals.WAYS)
@pytest.mark.parametrize("market", [GOLD, EURUSD], ids=lambda market: market.symbol)
def test_the_published_results_are_those_of_the_run(
    shared_data: Path, repo: Path, tmp_path: Path, market: Market, way: str
) -> None:
    """docs/results.md has, trade by trade, what the whole tick files give; `-m tests.sim.reversals` writes it anew."""
    outcome = reversals.run(market, reversals.WAYS[way](market), shared_data / market.ticks, tmp_path / "run")
    nobody_fought(outcome)
    assert set(outcome.summary["per_manager"]) <= MANAGERS
    assert reversals.table(outcome) in (repo / "docs" / "results.md").read_text(encoding="utf-8")
