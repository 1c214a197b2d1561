"""What the shadow door saw of the real account."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ChangeKind(StrEnum):
    """What happened to a real position."""

    OPENED = "OPENED"  # first seen
    LEVELS = "LEVELS"  # stop or target moved
    ADDED = "ADDED"  # netting: volume joined it
    REDUCED = "REDUCED"  # a part was closed
    CLOSED = "CLOSED"


@dataclass(slots=True)
class RealPosition:
    """A position of the real account as it was last seen; one that is closed keeps its last levels.

    ``first_volume``, ``first_sl`` and ``first_tp`` are those at first sight, lots and prices. ``money_per_price`` is
    what a move of 1.0 in the price against one lot costs, account currency; None until a rate is known. ``last_deal``
    is the newest closing deal taken into account, 0 for none.
    """

    ticket: int
    symbol: str
    side: int  # door.Side
    first_volume: float
    first_sl: float | None
    first_tp: float | None
    volume: float
    price_open: float
    sl: float | None
    tp: float | None
    opened_msc: int
    swap: float
    money_per_price: float | None
    is_open: bool = True
    last_deal: int = 0


@dataclass(frozen=True, slots=True)
class RealChange:
    """One fact about a real position. Volumes are lots; money is account currency; times are ms UTC.

    ``volume`` is what was opened, added or taken, for LEVELS what is held. ``followed`` says that the shadow position
    did the same; money and ``reason`` (door.CloseReason) belong to a deal that took volume away.
    """

    time_msc: int
    ticket: int
    kind: ChangeKind
    volume: float
    price: float
    sl: float | None
    tp: float | None
    followed: bool
    reason: str = ""
    deal: int = 0
    profit: float = 0.0
    commission: float = 0.0
    swap: float = 0.0
