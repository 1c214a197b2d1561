"""The table for people and the file for comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.figures import Figure

FILE = "bench.json"
PLAIN_WIDTH = 180  # of the table where no terminal says how wide it is


def show(results: Mapping[str, Sequence[Figure]], console: Console) -> None:
    """One row a figure, grouped by bench."""
    table = Table(title="Figures beside their baselines, measured in this run")
    for column in ("bench", "figure"):
        table.add_column(column)
    for column in ("measured", "baseline", "ratio", "target"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("reached")
    table.add_column("baseline is")
    for bench, figures in results.items():
        for place, figure in enumerate(figures):
            table.add_row(
                "" if place else bench,
                figure.name,
                f"{_number(figure.value)} {figure.unit}",
                "" if figure.baseline is None else _number(figure.baseline.value),
                "" if figure.ratio is None else f"{figure.ratio:.3g}",
                "" if figure.target is None else str(figure.target),
                {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[figure.reached],
                "" if figure.baseline is None else figure.baseline.name,
            )
        table.add_section()
    console.print(table)


def save(results: Mapping[str, Sequence[Figure]], facts: Mapping[str, Any], folder: Path) -> Path:
    """Writes ``bench.json``: the facts of the run and all figures by bench."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    benches = {bench: [figure.as_json() for figure in figures] for bench, figures in results.items()}
    path.write_text(json.dumps({**facts, "benches": benches}, indent=2) + "\n")
    return path


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
