"""The arbitration table in plain Python: what one decision of the core is measured against, and a twin to check it.

Decides a proposal as the core does: idempotency, authority, denials in order of precedence, then the decision with its
inputs and, where granted, the intent. Prices are points, volumes steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

from benches.plain_table import BUY, State

NS_PER_MS: Final = 1_000_000
OFF_GRID: Final = 1e-6  # as the core: how far, in points or steps, a number may lie off its grid
STOP, TARGET, PARTIAL_CLOSE, CLOSE = 1, 2, 3, 4
DTMS: Final = "dtms_manager"


class Rank(IntEnum):
    """Numbers of the wire, lowest first."""

    PROFIT_PROTECTION = 1
    DTMS_NORMAL = 2
    STRATEGY = 3
    DTMS_DEFENSIVE = 4


class Denial(IntEnum):
    """Numbers of the wire, in order of precedence."""

    TRADE_UNKNOWN = 1
    TRADE_CLOSED = 2
    HALTED = 3
    STALE_EPOCH = 4
    DTMS_DEFENSIVE = 5
    OWNED_BY_OTHER = 6
    IN_FLIGHT = 7
    COOLDOWN = 8
    LOOSENS = 9
    RISK_BUDGET = 10
    INVALID_STOP = 11
    FROZEN = 12
    MIN_VOLUME = 13
    NO_CHANGE = 14


_RETRYABLE: Final = frozenset(
    {
        Denial.HALTED,
        Denial.DTMS_DEFENSIVE,
        Denial.OWNED_BY_OTHER,
        Denial.IN_FLIGHT,
        Denial.COOLDOWN,
        Denial.INVALID_STOP,
        Denial.FROZEN,
    }
)
_DEFENSIVE: Final = frozenset({State.WARNING_L2, State.HEDGED})


class Grid(NamedTuple):
    """A symbol's units: points per price unit and steps per lot, whole numbers; levels in points, volumes in steps."""

    points_per_price: int
    steps_per_lot: int
    volume_min: int
    stops_level: int
    freeze_level: int


class Leg(NamedTuple):
    """A hedge or re-add."""

    side: int
    entry: int
    stop: int
    volume: int


@dataclass(slots=True)
class OwnedTrade:
    """A trade as arbitration sees it.

    ``realised``: what closed parts and legs have earned, points x steps. ``last_change_ns``: his last, by manager.
    """

    ticket: int
    symbol: str
    side: int
    entry: int
    risk: int
    initial_volume: int
    volume: int
    sl: int | None
    tp: int | None
    state: State
    managed_by: str
    owner_epoch: int
    breakeven_triggered: bool = False
    set_by_rank: int = 0
    in_flight: int | None = None
    is_gone: bool = False
    realised: int = 0
    legs: tuple[Leg, ...] = ()
    last_change_ns: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Asked:
    """A proposal's action in integers: a level (None removes it) or a volume (None: off the step)."""

    kind: int
    level: int | None
    volume: int | None
    allow_loosen: bool


class Reply(NamedTuple):
    decision: dict[str, Any]
    intent: dict[str, Any] | None


@dataclass(slots=True)
class PlainArbiter:
    """Decides for the trades of one account. ``quotes``: (bid, ask) in points by symbol."""

    account_id: str
    ranks: Mapping[str, Rank]
    cooldown_ms: int
    allow_loosen: bool
    grids: Mapping[str, Grid]
    quotes: dict[str, tuple[int, int]]
    trades: dict[int, OwnedTrade] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[tuple[Any, ...], Reply]] = field(default_factory=dict)

    def propose(
        self,
        manager: str,
        request_id: str,
        ticket: int,
        *,
        owner_epoch: int,
        action: Mapping[str, Any],
        dry_run: bool,
        now_ns: int,
    ) -> Reply:
        """Decides and records. ValueError for a number off its grid or a request id that was used otherwise."""
        body = (ticket, owner_epoch, dict(action))
        if not dry_run and (known := self.answers.get((manager, request_id))) is not None:
            if known[0] != body:
                raise ValueError("the request_id was used with another body")
            return known[1]
        trade = self.trades.get(ticket)
        asked = None if trade is None else _asked(action, self.grids[trade.symbol])
        denial = Denial.TRADE_UNKNOWN if trade is None else None
        if trade is not None and asked is not None:
            denial = self.denial(manager, trade, asked, owner_epoch, now_ns)
        decision = self._decision(
            manager,
            request_id,
            ticket,
            trade,
            asked_epoch=owner_epoch,
            action=action,
            denial=denial,
            dry_run=dry_run,
            now_ns=now_ns,
        )
        if dry_run:
            return Reply(decision, None)
        self.events.append(decision)
        intent = None
        if trade is not None and asked is not None and denial is None:
            intent = self._intent(manager, trade, asked, action)
            trade.in_flight = intent["intent_id"]
            self.events.append(intent)
        reply = Reply(decision, intent)
        self.answers[manager, request_id] = (body, reply)
        return reply

    def denial(self, manager: str, trade: OwnedTrade, asked: Asked, asked_epoch: int, now_ns: int) -> Denial | None:
        """The first denial that applies, None grants."""
        if trade.state is State.CLOSED or trade.is_gone:
            return Denial.TRADE_CLOSED
        if asked_epoch != trade.owner_epoch:
            return Denial.STALE_EPOCH
        rank = self._rank(manager, trade.state) or Rank.PROFIT_PROTECTION
        if (refused := self._authority(manager, rank, trade)) is not None:
            return refused
        if trade.in_flight is not None:
            return Denial.IN_FLIGHT
        last = trade.last_change_ns.get(manager)
        if last is not None and now_ns - last < self.cooldown_ms * NS_PER_MS:
            return Denial.COOLDOWN
        if _loosens(trade, asked):
            if not (asked.allow_loosen and self.allow_loosen and trade.set_by_rank <= rank):
                return Denial.LOOSENS
            if _exposure(trade, asked.level) > trade.risk * trade.initial_volume:
                return Denial.RISK_BUDGET
        return self._broker_rules(trade, asked)

    def _authority(self, manager: str, rank: Rank, trade: OwnedTrade) -> Denial | None:
        if trade.state in _DEFENSIVE:
            return Denial.DTMS_DEFENSIVE
        is_owner = trade.managed_by == manager
        owner_rank = self._rank(trade.managed_by, trade.state)
        if rank is Rank.STRATEGY:
            allowed = is_owner
        else:
            by_strategy = owner_rank is Rank.STRATEGY and not trade.breakeven_triggered
            allowed = is_owner or owner_rank in {None, Rank.DTMS_NORMAL} or by_strategy
        return None if allowed else Denial.OWNED_BY_OTHER

    def _broker_rules(self, trade: OwnedTrade, asked: Asked) -> Denial | None:
        grid, (bid, ask) = self.grids[trade.symbol], self.quotes[trade.symbol]
        sign, price = (1, bid) if trade.side == BUY else (-1, ask)
        is_level = asked.kind in {STOP, TARGET}
        if is_level and asked.level is not None:
            ahead = (asked.level - price) * sign
            least = max(grid.stops_level, grid.freeze_level, 1)
            if not (ahead <= -least if asked.kind == STOP else ahead >= least):
                return Denial.INVALID_STOP
        levels = (level for level in (trade.sl, trade.tp) if level is not None)
        if grid.freeze_level > 0 and any(abs(price - level) <= grid.freeze_level for level in levels):
            return Denial.FROZEN
        if asked.kind == PARTIAL_CLOSE:
            rest = -1 if asked.volume is None else trade.volume - asked.volume
            if asked.volume is None or asked.volume < grid.volume_min or (rest != 0 and rest < grid.volume_min):
                return Denial.MIN_VOLUME
        if is_level and asked.level == (trade.sl if asked.kind == STOP else trade.tp):
            return Denial.NO_CHANGE
        return None

    def _rank(self, name: str, state: State) -> Rank | None:
        if not name:
            return None
        if name == DTMS:
            return Rank.DTMS_DEFENSIVE if state in _DEFENSIVE else Rank.DTMS_NORMAL
        return self.ranks.get(name, Rank.PROFIT_PROTECTION)

    def _decision(
        self,
        manager: str,
        request_id: str,
        ticket: int,
        trade: OwnedTrade | None,
        *,
        asked_epoch: int,
        action: Mapping[str, Any],
        denial: Denial | None,
        dry_run: bool,
        now_ns: int,
    ) -> dict[str, Any]:
        number = 0 if dry_run else len(self.events) + 1
        state = State.HEALTHY if trade is None else trade.state
        decision = {
            "decision_id": number,
            "request_id": request_id,
            "account_id": self.account_id,
            "ticket": ticket,
            "manager": manager,
            "rank": self._rank(manager, state),
            "action": dict(action),
            "granted": denial is None,
            "denial": denial or 0,
            "retryable": denial in _RETRYABLE,
            "asked_epoch": asked_epoch,
            "time_ns": now_ns,
            "dry_run": dry_run,
            "revision": number,
        }
        if trade is not None:
            grid, (bid, ask) = self.grids[trade.symbol], self.quotes[trade.symbol]
            decision |= {
                "owner": trade.managed_by,
                "owner_rank": self._rank(trade.managed_by, state),
                "owner_epoch": trade.owner_epoch,
                "defensive": state in _DEFENSIVE,
                "bid": bid / grid.points_per_price,
                "ask": ask / grid.points_per_price,
                "confirmed_sl": None if trade.sl is None else trade.sl / grid.points_per_price,
            }
        return decision

    def _intent(self, manager: str, trade: OwnedTrade, asked: Asked, action: Mapping[str, Any]) -> dict[str, Any]:
        grid = self.grids[trade.symbol]
        is_level = asked.kind in {STOP, TARGET}
        sl = asked.level if asked.kind == STOP else trade.sl
        tp = asked.level if asked.kind == TARGET else trade.tp
        volume = {STOP: 0, TARGET: 0, PARTIAL_CLOSE: asked.volume, CLOSE: trade.volume}[asked.kind]
        number = len(self.events) + 1
        return {
            "intent_id": number,
            "decision_id": number - 1,
            "action_id": 0,
            "manager": manager,
            "rank": self._rank(manager, trade.state),
            "owner_epoch": trade.owner_epoch,
            "kind": asked.kind,
            "purpose": action.get("purpose", 0),
            "leg": 1,
            "position": trade.ticket,
            "side": trade.side,
            "volume": (volume or 0) / grid.steps_per_lot,
            "sl": sl / grid.points_per_price if is_level and sl is not None else None,
            "tp": tp / grid.points_per_price if is_level and tp is not None else None,
            "attempt": 0,
            "revision": number,
        }


def _asked(action: Mapping[str, Any], grid: Grid) -> Asked:
    kind, allow_loosen = action["kind"], action.get("allow_loosen", False)
    if kind in {STOP, TARGET}:
        price = action["stop" if kind == STOP else "target"]
        if price == 0:
            return Asked(kind, None, None, allow_loosen)
        points = _on_grid(price, grid.points_per_price)
        if points is None or points <= 0:
            raise ValueError(f"{price} is not on the symbol's points")
        return Asked(kind, points, None, allow_loosen)
    volume = _on_grid(action["volume"], grid.steps_per_lot) if kind == PARTIAL_CLOSE else None
    return Asked(kind, None, volume, allow_loosen)


def _on_grid(value: float, per_one: int) -> int | None:
    raw = value * per_one
    nearest = round(raw)
    return nearest if abs(raw - nearest) <= OFF_GRID else None


def _loosens(trade: OwnedTrade, asked: Asked) -> bool:
    if asked.kind != STOP or trade.sl is None:
        return False
    return asked.level is None or (asked.level - trade.sl) * (1 if trade.side == BUY else -1) < 0


def _exposure(trade: OwnedTrade, stop: int | None) -> int:
    """The loss so far and at the stops, in points x steps; without a stop the trade itself counts with R."""
    main = trade.risk if stop is None else _distance(trade.side, trade.entry, stop)
    return (
        main * trade.volume
        - min(0, trade.realised)
        + sum(_distance(leg.side, leg.entry, leg.stop) * leg.volume for leg in trade.legs)
    )


def _distance(side: int, entry: int, stop: int) -> int:
    return max(0, (entry - stop) if side == BUY else (stop - entry))
