"""What a manager may ask of DTMS for a trade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dtms.v1.action_pb2 import (
    ACTION_KIND_CLOSE,
    ACTION_KIND_PARTIAL_CLOSE,
    ACTION_KIND_STOP,
    ACTION_KIND_TARGET,
    PURPOSE_PARTIAL,
    Action,
    Purpose,
)


@dataclass(frozen=True, slots=True)
class MoveStop:
    """Stop to a price."""

    purpose: Purpose.ValueType
    stop: float
    allow_loosen: bool = False
    """It may move away from the price; DTMS still holds it to the risk budget."""

    def action(self) -> Action:
        """As the wire wants it."""
        return Action(kind=ACTION_KIND_STOP, purpose=self.purpose, stop=self.stop, allow_loosen=self.allow_loosen)


@dataclass(frozen=True, slots=True)
class MoveTarget:
    """Target to a price."""

    purpose: Purpose.ValueType
    target: float

    def action(self) -> Action:
        """As the wire wants it."""
        return Action(kind=ACTION_KIND_TARGET, purpose=self.purpose, target=self.target)


@dataclass(frozen=True, slots=True)
class TakePartial:
    """Close a part, in lots."""

    volume: float

    @property
    def purpose(self) -> Purpose.ValueType:
        """Always the same."""
        return PURPOSE_PARTIAL

    def action(self) -> Action:
        """As the wire wants it."""
        return Action(kind=ACTION_KIND_PARTIAL_CLOSE, purpose=PURPOSE_PARTIAL, volume=self.volume)


@dataclass(frozen=True, slots=True)
class Close:
    """Close the trade and its legs."""

    purpose: Purpose.ValueType

    def action(self) -> Action:
        """As the wire wants it."""
        return Action(kind=ACTION_KIND_CLOSE, purpose=self.purpose)


Wish: TypeAlias = MoveStop | MoveTarget | TakePartial | Close
