"""What a bench reports: a figure, its baseline from the same run, and the target that it has to reach."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the figure itself or on its ratio to the baseline."""

    of: Literal["value", "ratio"]
    kind: Literal["at most", "at least"]
    bound: float

    def __str__(self) -> str:
        sign = "≤" if self.kind == "at most" else "≥"
        return f"{sign} {self.bound:g}{' x' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, slots=True)
class Baseline:
    """``name`` says what was measured, in the figure's unit."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. Without a target it explains the others."""

    name: str
    unit: str
    value: float
    baseline: Baseline | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """Figure over baseline; None where a quick run was too small to measure one."""
        return None if self.baseline is None or not self.baseline.value else self.value / self.baseline.value

    @property
    def reached(self) -> bool | None:
        """None without a target."""
        if self.target is None:
            return None
        measured = self.value if self.target.of == "value" else self.ratio
        if measured is None:
            raise ValueError(f"{self.name} has a target for its ratio and no measured baseline")
        return measured <= self.target.bound if self.target.kind == "at most" else measured >= self.target.bound

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``target`` in words."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "baseline": None if self.baseline is None else {"name": self.baseline.name, "value": self.baseline.value},
            "ratio": self.ratio,
            "target": None if self.target is None else str(self.target),
            "reached": self.reached,
        }


def machine() -> dict[str, Any]:
    """Where the figures were measured."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.platform(),
    }
