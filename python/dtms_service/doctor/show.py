"""Findings for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.text import Text

from dtms_service.doctor.finding import Finding, Verdict, worst

PROMISE: Final = "dtms doctor looks and changes nothing: no order, no write, no login."
_STYLES: Final = {Verdict.OK: "green", Verdict.SKIPPED: "dim", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
_WIDTH: Final = max(len(verdict) for verdict in Verdict)


def show(findings: Sequence[Finding], console: Console) -> None:
    """A line each, and under it what to do."""
    console.print(PROMISE, style="dim", highlight=False)
    for each in findings:
        line = Text(f"{each.verdict:<{_WIDTH}}  ", _STYLES[each.verdict])
        line.append(f"{each.check} {each.about}".rstrip(), "bold").append(f"  {each.found}", "").append(
            f"  [{each.looked_at}]", "dim"
        )
        console.print(line, soft_wrap=True)
        if each.mend:
            console.print(f"{'':<{_WIDTH}}  mend: {each.mend}", soft_wrap=True, highlight=False, markup=False)
    counts = {verdict: sum(each.verdict is verdict for each in findings) for verdict in Verdict}
    console.print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()), highlight=False)


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps({"verdict": worst(findings), "findings": [asdict(each) for each in findings]}, indent=2)
