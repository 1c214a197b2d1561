"""What a manager has done."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

# The last minutes of a busy day, 80 kB.
CYCLES_KEPT: Final = 10_000


@dataclass(slots=True)
class Tally:
    """Each proposal ends in exactly one of `confirmed`, `rejected`, `unknown`, `expired`, `denied`, `undecided`."""

    proposals: int = 0
    granted: int = 0
    confirmed: int = 0
    rejected: int = 0
    unknown: int = 0
    """Granted, and how it ended at the broker is left to the stream."""
    expired: int = 0
    """Waited for DTMS too long, to be decided anew."""
    denied: Counter[str] = field(default_factory=Counter)
    """By denial code, without prefix."""
    undecided: Counter[str] = field(default_factory=Counter)
    """By error reason."""

    cycles: int = 0
    _cycle_s: deque[float] = field(default_factory=lambda: deque(maxlen=CYCLES_KEPT))

    def cycle(self, took_s: float) -> None:
        """A cycle has ended: from the first news to the last proposal, the question for states included."""
        self.cycles += 1
        self._cycle_s.append(took_s)

    def cycle_ms(self, share: float) -> float | None:
        """The cycle time that this share of the last cycles did not exceed, ms; None before the first."""
        took = sorted(self._cycle_s)
        return round(1e3 * took[min(int(share * len(took)), len(took) - 1)], 3) if took else None

    def facts(self) -> dict[str, Any]:
        """For the log."""
        return {
            "proposals": self.proposals,
            "granted": self.granted,
            "confirmed": self.confirmed,
            "rejected": self.rejected,
            "unknown": self.unknown,
            "expired": self.expired,
            "denied": dict(self.denied),
            "undecided": dict(self.undecided),
            "cycles": self.cycles,
            "cycle_ms_p50": self.cycle_ms(0.5),
            "cycle_ms_p99": self.cycle_ms(0.99),
        }
