"""``python -m benches``: every figure and its baseline in one run, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter
from rich.console import Console

from benches import (
    decision,
    evaluation,
    fan_out,
    gateway,
    get_trade,
    journal,
    managers,
    recovery,
    registrations,
    report,
    tick,
)
from benches.figures import Figure, machine
from benches.world import SEED
from dtms_service import logs

Name = Literal[
    "evaluation",
    "decision",
    "journal",
    "get-trade",
    "fan-out",
    "registrations",
    "tick",
    "managers",
    "gateway",
    "recovery",
]

# Memory is measured in a process that has not grown yet: evaluation stands first.
BENCHES: dict[Name, Callable[[bool], Sequence[Figure]]] = {
    "evaluation": evaluation.measure,
    "decision": decision.measure,
    "journal": journal.measure,
    "get-trade": get_trade.measure,
    "fan-out": fan_out.measure,
    "registrations": registrations.measure,
    "tick": tick.measure,
    "managers": managers.measure,
    "gateway": gateway.measure,
    "recovery": recovery.measure,
}

app = cyclopts.App(name="benches", help="Measure DTMS against bare baselines in one run.")


@app.default
def run(
    *names: Annotated[Name, Parameter(help="benches to run; none named: all")],
    quick: Annotated[bool, Parameter(help="tiny sizes: shows that everything runs, the figures mean nothing")] = False,
    hang_s: Annotated[float | None, Parameter(help="gateway: how long a terminal hangs; 20 unless said")] = None,
    out: Annotated[Path, Parameter(help="where bench.json goes")] = Path("bench-report"),
) -> None:
    """Print a table and write bench.json."""
    logs.configure("error")
    console = Console()
    if not console.is_terminal:
        console = Console(width=report.PLAIN_WIDTH)
    facts = {"machine": machine(), "quick": quick, "seed": SEED}
    console.print(f"seed {SEED}")
    results: dict[str, Sequence[Figure]] = {}
    for name in [known for known in BENCHES if not names or known in names]:
        started = time.perf_counter()
        with console.status(f"measuring {name}"):
            results[name] = gateway.measure(quick, hang_s) if name == "gateway" else BENCHES[name](quick)
        console.print(f"{name}: {time.perf_counter() - started:.1f} s")
    if quick:
        console.print("[yellow]quick: sizes are too small for the figures to mean anything[/]")
    report.show(results, console)
    console.print(f"written to {report.save(results, facts, out)}")


if __name__ == "__main__":
    app()
