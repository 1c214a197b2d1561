"""The comparison on real ticks: the same trades with DTMS and its managers, and with their original levels only.

`.venv/bin/python -m tests.sim.reversals` runs all of it and prints the tables of docs/results.md. The rules stand here
and were fixed before the first run; nothing in them was chosen by what it earned.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtms_service.describe import clock
from tests.conftest import DATA

# Both sides at every even hour UTC, stop 2 N and target three times as far (the Turtle rule's numbers), N over 1 h
# bars; each side walks none and the managed strategy types in turn.
BY_THE_CLOCK = ("--volume", "1", "--every-s", "7200", "--entry-bar-s", "3600", "--strategy-type", "alternate")
VIX = "vix_daily_cboe_19900102_20260723.csv.gz"
TIMEOUT_S = 1500


@dataclass(frozen=True, slots=True)
class Market:
    """``reversal`` is a long that is open when the price turns against it, with stop and target in price."""

    symbol: str
    ticks: str
    warm_up: str
    event: str
    reversal: str

    @property
    def trades(self) -> list[str]:
        """The long as DTMS's own trade and as the Universal Manager's."""
        return [f"{self.reversal},strategy={strategy}" for strategy in ("none", "default_standard")]


GOLD = Market(
    "XAUUSD",
    "xauusd_ticks_oanda_20140502_0504.csv.gz",
    "xauusd_m1_oanda_20140501_0515.csv.gz",
    "US payrolls, 2 May 2014 12:30 UTC",
    "BUY@2014-05-02T12:00:00,1.00,sl_distance=20,tp_distance=40",
)
EURUSD = Market(
    "EURUSD",
    "eurusd_ticks_oanda_20140508_0512.csv.gz",
    "eurusd_m1_oanda_20140501_0515.csv.gz",
    "ECB press conference, 8 May 2014 12:30 UTC",
    "BUY@2014-05-08T12:31:00,1.00,sl_distance=0.004,tp_distance=0.008",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """``results`` are the trades of results.json."""

    summary: dict[str, Any]
    results: list[dict[str, Any]]
    refused: int


def run(market: Market, entries: list[str], ticks: Path, out: Path, *more: str) -> Outcome:
    """One `dtms replay` with the three managers. ``entries`` says how trades are opened, ``more`` whatever else."""
    arguments = [str(ticks), "--symbol", market.symbol, "--out", str(out), "--warm-up", str(DATA / market.warm_up)]
    arguments += ["--vix", str(DATA / VIX), *entries, *more]
    command = [sys.executable, "-m", "dtms_service", "replay", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return Outcome(
        json.loads((out / "summary.json").read_text()),
        json.loads((out / "results.json").read_text())["trades"],
        json.loads((out / "run.json").read_text())["refused"],
    )


def scheduled(market: Market) -> list[str]:
    return [part for trade in market.trades for part in ("--trade", trade)]


def by_the_clock(_market: Market) -> list[str]:
    return list(BY_THE_CLOCK)


WAYS = {"the long": scheduled, "by the clock": by_the_clock}


def table(outcome: Outcome) -> str:
    """Markdown: each trade, then the sums of the summary."""
    lines = ["| trade | opened (UTC) | R with DTMS | R original | difference |", "|---|---|---|---|---|"]
    for trade in outcome.results:
        r, original = trade["r"], trade["unprotected_r"]
        still = " (open at the end)" if trade["open_at_end"] else ""
        lines.append(
            f"| {trade['side']} {trade['ticket']}{still} | {clock(trade['opened_ns'])} | {_row(r, original)} |"
        )
    summary = outcome.summary
    lines.append(f"| **all** | | {_row(summary['total_r'], summary['unprotected_total_r'])} |")
    return "\n".join(lines)


def facts(outcome: Outcome) -> str:
    """Markdown: what else the run was."""
    managers = "; ".join(
        f"{name}: {m['proposals']} asked, {m['granted']} granted, {sum(m['denied'].values())} denied, "
        f"{m['stop_changes']} stops, {m['partials']} partials, {m['preemptions']} takeovers"
        for name, m in outcome.summary["per_manager"].items()
    )
    return (
        f"Refused by the broker: {outcome.refused}. Conflicting writes: {outcome.summary['conflicting_writes']}, "
        f"unconfirmed actions: {outcome.summary['unconfirmed_actions']}. {managers}. "
        f"Journal `{outcome.summary['journal_sha256'][:16]}`."
    )


def _row(r: float | None, original: float | None) -> str:
    gain = None if r is None or original is None else r - original
    return " | ".join("?" if value is None else f"{value:+.2f}" for value in (r, original, gain))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dtms-reversals-") as folder:
        for market in (GOLD, EURUSD):
            for name, entries in WAYS.items():
                outcome = run(market, entries(market), DATA / market.ticks, Path(folder) / f"{market.symbol}-{name}")
                print(f"### {market.symbol}, {market.event}: {name}\n")  # noqa: T201  # the tables are the output
                print(f"{table(outcome)}\n\n{facts(outcome)}\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
