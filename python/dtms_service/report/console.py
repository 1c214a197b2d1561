"""The summary on a terminal."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.table import Table

from dtms_service.report.summary import Summary


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


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
