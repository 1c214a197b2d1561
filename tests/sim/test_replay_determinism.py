"""The same history gives the same journal, byte for byte, with managers as processes of their own."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from dtms.v1.event_pb2 import RAIL_NEWS
from dtms_service.replay.command import read_events

EURUSD_TICKS = "eurusd_ticks_oanda_20140508_0512.csv.gz"
XAUUSD_TICKS = "xauusd_ticks_oanda_20140502_0504.csv.gz"
XAUUSD_M1 = "xauusd_m1_oanda_20140501_0515.csv.gz"

# What is opened, and the excerpts of the fast suite (first tick ms UTC, rows): ECB press conference and payrolls.
EURUSD = ("EURUSD", EURUSD_TICKS, ["BUY@2014-05-08T12:31:00,1.00,sl_distance=0.004,tp_distance=0.008"])
XAUUSD = ("XAUUSD", XAUUSD_TICKS, ["BUY@2014-05-02T12:33:25,1.00,sl_distance=3,tp_distance=6"])
NEWS = """time,currency,impact,title
2014-05-02T12:30:00,USD,high,Non-Farm Payrolls
2014-05-08T12:30:00,EUR,high,ECB Press Conference
"""
ABOUT = {
    "EURUSD": "EUR ECB Press Conference at 2014-05-08 12:30 UTC",
    "XAUUSD": "USD Non-Farm Payrolls at 2014-05-02 12:30 UTC",
}
EXCERPTS = {"EURUSD": ("1399552200000", 5_000), "XAUUSD": ("1399034000000", 3_500)}


def replay(out: Path, history: Path, symbol: str, trades: list[str], *more: str) -> dict[str, Any]:
    """Runs `dtms replay` and returns its summary."""
    arguments = ["replay", str(history), "--symbol", symbol, "--out", str(out), *more]
    for trade in trades:
        arguments += ["--trade", trade]
    done = subprocess.run(
        [sys.executable, "-m", "dtms_service", *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def excerpt(history: Path, target: Path, around: str, rows: int) -> Path:
    """Rows of a tick file around the first tick at or after ``around`` (ms UTC)."""
    with gzip.open(history, "rt") as lines:
        header = next(lines)
        begun = (line for line in lines if line >= around)
        target.write_text(header + "".join(islice(begun, rows)))
    return target


def compare(first: Path, second: Path) -> None:
    """Everything that a run leaves, but wall-clock figures, is equal."""
    for name in ("broker_log.jsonl", "bars.csv", "results.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize("case", [EURUSD, XAUUSD], ids=lambda case: case[0])
def test_two_runs_of_an_excerpt_are_equal(shared_data: Path, tmp_path: Path, case: tuple[str, str, list[str]]) -> None:
    """Around the ECB's press conference and the payrolls two runs with both managers have one journal hash, and the
    calendar's news keep new risk away meanwhile."""
    symbol, name, trades = case
    history = excerpt(shared_data / name, tmp_path / "ticks.csv", *EXCERPTS[symbol])
    calendar = tmp_path / "news.csv"
    calendar.write_text(NEWS, encoding="utf-8")
    runs = [replay(tmp_path / run, history, symbol, trades, "--news", str(calendar)) for run in ("a", "b")]
    assert runs[0]["journal_sha256"] == runs[1]["journal_sha256"]
    edges = [event.rail_changed for event in read_events(tmp_path / "a" / "data") if event.HasField("rail_changed")]
    assert [edge.detail for edge in edges if edge.rail == RAIL_NEWS and edge.engaged] == [ABOUT[symbol]]
    assert runs[0]["trades"] == len(trades)
    assert runs[0]["stop_changes"].get("intelligent_exit_manager", 0) > 0, "the excerpt must give the manager work"
    assert runs[0]["conflicting_writes"] == runs[0]["unconfirmed_actions"] == 0
    compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize(("symbol", "name", "trades"), [EURUSD, XAUUSD])
def test_two_runs_of_a_whole_tick_file_are_equal(
    shared_data: Path, tmp_path: Path, symbol: str, name: str, trades: list[str]
) -> None:
    """Days of real ticks, weekend gap included, give one journal hash in two runs with both managers."""
    runs = [replay(tmp_path / run, shared_data / name, symbol, trades) for run in ("a", "b")]
    assert runs[0]["journal_sha256"] == runs[1]["journal_sha256"]
    assert runs[0]["conflicting_writes"] == runs[0]["unconfirmed_actions"] == 0
    compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_gold_at_the_payrolls_takes_a_long_into_defence(shared_data: Path, tmp_path: Path) -> None:
    """A long before the payrolls of 2 May 2014 passes WARNING_L2 and HEDGED on the real ticks."""
    summary = replay(
        tmp_path / "gold",
        shared_data / XAUUSD_TICKS,
        "XAUUSD",
        ["BUY@2014-05-02T12:00:00,1.00,sl_distance=20,tp_distance=40"],
        *("--warm-up", str(shared_data / XAUUSD_M1), "--no-exit-manager", "--no-universal-manager"),
    )
    assert {"WARNING_L2", "HEDGED"} <= set(summary["states_visited"])
    assert summary["conflicting_writes"] == summary["unconfirmed_actions"] == 0
