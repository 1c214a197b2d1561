"""The summary on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table

from dtms_service.describe import clock
from dtms_service.report.inputs import TradeResult, compare
from dtms_service.report.summary import Summary, total


class Run(Protocol):
    """A finished run."""

    @property
    def summary(self) -> Summary: ...
    @property
    def report(self) -> object: ...


def show_summary(run: Run, console: Console) -> None:
    """Every figure of the summary, one line each, and where the report is."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in run.summary.items():
        table.add_row(name, _words(value))
    console.print(table)
    console.print(f"report: {run.report}", soft_wrap=True)


def show_trades(results: Sequence[TradeResult], console: Console) -> None:
    """What each trade earned, with DTMS and with its original stop and target only; both sums below.

    In R, with all costs; a trade whose R is not known both ways is shown and not summed.
    """
    table = Table("trade", "opened", "entry", "R with DTMS", "R original", "difference", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for result in results:
        gain = next((pair.gain for pair in compare([result])), None)
        name, entry = f"{result.side} {result.ticket}", f"{result.entry_price:g}"
        table.add_row(name, clock(result.opened_ns), entry, _r(result.r), _r(result.unprotected_r), _r(gain))
    pairs = compare(results)
    with_dtms, without = total(pair.r for pair in pairs), total(pair.original_r for pair in pairs)
    table.add_row("all", "", "", _r(with_dtms), _r(without), _r(with_dtms - without), style="bold")
    console.print(table)


def _r(value: float | None) -> str:
    return "?" if value is None else f"{value:+.2f}"


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
