"""What a manager has done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


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
        }
