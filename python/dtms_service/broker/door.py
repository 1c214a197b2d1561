"""The broker door: what DTMS asks of a broker, whoever stands behind it.

Prices are quote-currency doubles and volumes are lots, as MetaTrader 5 has them. Times are UTC.
A query that fails raises :class:`BrokerUnavailable`; an empty answer means "none", never "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from dtms_service.bars import ClosedBar


class BrokerUnavailable(Exception):
    """The broker could not be asked. Says nothing about what the broker holds."""

    def __init__(self, operation: str, code: int, text: str) -> None:
        super().__init__(f"{operation}: broker unavailable ({code} {text})")
        self.operation, self.code, self.text = operation, code, text


class Side(Enum):
    BUY = 1
    SELL = 2

    @property
    def opposite(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class CommandKind(Enum):
    MODIFY = 1  # levels of a position: MetaTrader 5 takes both at once, the command may keep one
    CLOSE = 2  # all or a part of a position
    OPEN = 3  # a new position (netting accounts: adds to or reduces the symbol's position)


class OutcomeStatus(Enum):
    CONFIRMED = 1
    REJECTED = 2
    UNKNOWN = 3


class CloseReason(Enum):
    """Why a position was closed, from the closing deal (MT5 DEAL_REASON)."""

    CLIENT = 0
    EXPERT = 3
    STOP_LOSS = 4
    TAKE_PROFIT = 5
    STOP_OUT = 6


@dataclass(frozen=True, slots=True)
class SymbolSpec:
    """Trading rules of one symbol. Levels are points (multiples of ``point``), volumes are lots."""

    name: str
    digits: int
    point: float
    tick_size: float
    contract_size: float
    volume_min: float
    volume_max: float
    volume_step: float
    stops_level: int
    freeze_level: int
    currency_profit: str


@dataclass(frozen=True, slots=True)
class Command:
    """One order for the broker. ``token`` is the trade's owner_epoch; the door refuses a lower one than it has seen.

    ``ticket`` is the trade that authorises the command, ``position`` the position it acts on (its hedge, say).
    MODIFY uses sl and tp (None removes the level), CLOSE uses volume, OPEN uses side, volume, sl and tp. A level that a
    MODIFY keeps (``keeps_sl``, ``keeps_tp``) stays as it is at the broker when the command gets there: sl or tp is then
    only how it was known.
    """

    intent_id: int
    account_id: str
    ticket: int
    token: int
    kind: CommandKind
    symbol: str
    position: int
    side: Side
    volume: float
    sl: float | None
    tp: float | None
    deviation_points: int
    magic: int
    comment: str
    keeps_sl: bool = False
    keeps_tp: bool = False

    def kept(self, sl: float | None, tp: float | None) -> Command:
        """The command for a position that stands at these levels: those that it keeps are the position's."""
        if not (self.keeps_sl or self.keeps_tp):
            return self
        return replace(self, sl=sl if self.keeps_sl else self.sl, tp=tp if self.keeps_tp else self.tp)

    def shows_in(self, sl: float | None, tp: float | None) -> bool:
        """Whether a position that stands at these levels has all that a MODIFY names."""
        return (self.keeps_sl or sl == self.sl) and (self.keeps_tp or tp == self.tp)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the broker answered. sl/tp are the levels it echoes for the position after the command."""

    status: OutcomeStatus
    retcode: int
    comment: str
    order: int = 0
    deal: int = 0
    price: float | None = None
    volume: float | None = None
    sl: float | None = None
    tp: float | None = None


@dataclass(frozen=True, slots=True)
class Position:
    ticket: int
    symbol: str
    side: Side
    volume: float
    price_open: float
    sl: float | None
    tp: float | None
    time_msc: int
    magic: int
    comment: str
    profit: float
    swap: float


@dataclass(frozen=True, slots=True)
class ClosingDeal:
    """A deal that took a position's volume away (DEAL_ENTRY_OUT)."""

    deal: int
    position: int
    symbol: str
    reason: CloseReason
    volume: float
    price: float
    profit: float
    commission: float
    swap: float
    time_msc: int
    comment: str
    remaining: float  # the position's volume after this deal; 0 means closed


class OrderFate(Enum):
    """What became of an order, by the broker's books."""

    WORKING = 1  # accepted, and may yet be executed
    FILLED = 2  # executed, all or a part; nothing more of it will be
    DROPPED = 3  # cancelled, rejected or expired: nothing of it was or will be executed


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """An order in the broker's books. ``position`` is what it opened or acted on (0: none), ``volume`` and ``price``
    what was filled, ``deal`` the last of its deals (0: none)."""

    order: int
    position: int
    fate: OrderFate
    volume: float
    price: float
    deal: int
    time_msc: int


@dataclass(frozen=True, slots=True)
class AccountInfo:
    account_id: str
    hedging: bool
    currency: str
    leverage: int
    balance: float
    equity: float
    margin: float
    margin_free: float


@dataclass(frozen=True, slots=True)
class Report:
    """Positions as the broker holds them. ``changed`` names all that may have changed; None: everything was read.

    A changed ticket that is not among ``positions`` is not open any more.
    """

    positions: list[Position]
    changed: frozenset[int] | None


class BrokerDoor(Protocol):
    """The one door. Every method may raise :class:`BrokerUnavailable`."""

    @property
    def settles_at_once(self) -> bool:
        """Whether a command that the books do not show now was never executed and never will be: nothing lies between
        this door and the books where one could be on its way."""

    async def execute(self, command: Command) -> Outcome:
        """Send one command and answer with what the broker said. A lost reply is Outcome UNKNOWN, not an exception."""

    async def account(self, account_id: str) -> AccountInfo: ...

    async def symbol(self, account_id: str, name: str) -> SymbolSpec:
        """Trading rules of the symbol now (levels may change at any time). KeyError if there is no such symbol."""

    async def positions(self, account_id: str) -> list[Position]: ...

    async def report(self, account_id: str, since: int) -> Report:
        """What changed after the change count ``since`` (see ``Monitor.tick``); everything where that is not known."""

    async def closing_deals(self, account_id: str, position: int) -> list[ClosingDeal]:
        """All deals that reduced the position, oldest first."""

    async def past_bars(self, account_id: str, symbol: str, timeframe_s: int, count: int) -> list[ClosedBar]:
        """The last closed bars, oldest first, at most ``count``, never the one that is forming.

        Empty where the broker keeps no history. KeyError for an unknown symbol or length."""

    async def orders(self, account_id: str, comment: str, since_msc: int) -> list[OrderRecord]:
        """The orders with that comment, working or past, oldest first; of the past ones those since ``since_msc``.

        A broker whose clock is not the caller's (a paper account on old prices) looks at all of them.
        """
