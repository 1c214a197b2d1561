"""What a shadow run would have changed: per trade its writes beside what the account did, and the result both ways."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from dtms.v1 import action_pb2, event_pb2, trade_pb2
from dtms_service.describe import enum_name
from dtms_service.report.intents import Ledger, TradeKey, Write
from dtms_service.report.summary import denial_name, total
from dtms_service.shadow.record import RealChange
from dtms_service.shadow.results import Result, Results

EVEN_MONEY = 0.005  # account currency: below it two results are the same
_Level = Literal["sl", "tp"]
_LEVELS: dict[int, _Level] = {action_pb2.ACTION_KIND_STOP: "sl", action_pb2.ACTION_KIND_TARGET: "tp"}
_HALF_POINT = 0.5


@dataclass(frozen=True, slots=True)
class ShadowWrite:
    """A change that the shadow book confirmed. ``level`` belongs to stops and targets, ``volume`` (lots) to deals.

    ``differs``: the real position never had that level, or has no such deal because only DTMS would have made it.
    """

    time_ns: int
    manager: str
    kind: str
    purpose: str
    leg: str
    level: float | None
    volume: float | None
    price: float | None
    differs: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """How a position ended one way. Money is account currency, R a multiple of the initial risk; None: not known."""

    money: float | None
    r: float | None
    is_open: bool
    ended_ns: int
    reason: str
    price: float


@dataclass(frozen=True, slots=True)
class ShadowTrade:
    """``shadow.money`` is that of the position with its hedges and re-adds; ``gain_*`` is shadow less account."""

    account_id: str
    ticket: int
    symbol: str
    side: str
    volume: float
    entry_price: float
    opened_ns: int
    risk_money: float | None
    account: Ending
    shadow: Ending
    gain_money: float | None
    gain_r: float | None
    writes: tuple[ShadowWrite, ...]
    on_the_account: tuple[RealChange, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of money run over the trades whose money is known both ways, sums of R likewise."""

    trades: int
    compared: int
    account_money: float
    shadow_money: float
    account_r: float
    shadow_r: float
    better: int
    worse: int
    same: int
    writes: int
    writes_that_differ: int


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """``writes`` counts by manager and kind; ``unregistered`` real positions were never trades of DTMS."""

    trades: tuple[ShadowTrade, ...]
    totals: Totals
    writes: dict[str, dict[str, int]]
    granted: int
    denied: dict[str, int]
    unregistered: int

    def document(self) -> dict[str, object]:
        """As it is written to JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Trade:
    """What the journal says of a trade."""

    registered: event_pb2.TradeRegistered
    risk_distance: float | None
    writes: list[tuple[int, Write]] = field(default_factory=list)  # time of the outcome, ns


def shadow_report(events: Iterable[event_pb2.Event], accounts: Mapping[str, Results]) -> ShadowReport:
    """Folds the events of a shadow run, in order, with the results of its accounts by ``account_id``."""
    fold = _Fold()
    for event in events:
        fold.add(event)
    trades = [
        _compare(key, trade, accounts[key[0]])
        for key, trade in fold.trades.items()
        if key[0] in accounts and key[1] in accounts[key[0]].positions
    ]
    by_manager: dict[str, Counter[str]] = defaultdict(Counter)
    for trade in trades:
        for write in trade.writes:
            by_manager[write.manager][write.kind] += 1
    positions = sum(len(results.positions) for results in accounts.values())
    return ShadowReport(
        trades=tuple(trades),
        totals=_totals(trades),
        writes={manager: dict(sorted(kinds.items())) for manager, kinds in sorted(by_manager.items())},
        granted=fold.granted,
        denied={denial_name(code): n for code, n in sorted(fold.denied.items())},
        unregistered=positions - len(trades),
    )


class _Fold:
    def __init__(self) -> None:
        self.trades: dict[TradeKey, _Trade] = {}
        self.granted = 0
        self.denied: Counter[action_pb2.DenialCode.ValueType] = Counter()
        self._ledger = Ledger()

    def add(self, event: event_pb2.Event) -> None:
        ended = self._ledger.add(event)
        key = (event.account_id, event.ticket)
        match event.WhichOneof("body"):
            case "trade_registered":
                registered = event.trade_registered
                distance = registered.risk_distance if registered.HasField("risk_distance") else None
                self.trades[key] = _Trade(registered, distance)
            case "risk_defined" if key in self.trades:
                self.trades[key].risk_distance = event.risk_defined.risk_distance
            case "decision_made" if event.decision_made.decision.granted:
                self.granted += 1
            case "decision_made":
                self.denied[event.decision_made.decision.denial] += 1
            case "outcome_recorded" if ended is not None and ended.confirmed and key in self.trades:
                self.trades[key].writes.append((event.time_ns, ended))
            case _:
                pass


def _compare(key: TradeKey, trade: _Trade, results: Results) -> ShadowTrade:
    account_id, ticket = key
    known, changes = results.positions[ticket], results.changes(ticket)
    risk = results.risk(ticket, trade.risk_distance)
    own, legs = results.shadow(ticket), [results.shadow(leg) for leg in _legs(trade)]
    parts = [part.money for part in (own, *legs)]
    money = None if None in parts else total(part for part in parts if part is not None)
    account = _ending(results.real(ticket), risk)
    shadow = Ending(
        money=money,
        r=_in_r(money, risk),
        is_open=own.is_open or any(leg.is_open for leg in legs),
        ended_ns=own.ended_msc * 1_000_000,
        reason=own.reason,
        price=own.price,
    )
    return ShadowTrade(
        account_id=account_id,
        ticket=ticket,
        symbol=known.symbol,
        side=enum_name(trade_pb2.Side, trade.registered.side),
        volume=known.first_volume,
        entry_price=known.price_open,
        opened_ns=known.opened_msc * 1_000_000,
        risk_money=risk,
        account=account,
        shadow=shadow,
        gain_money=_gain(shadow.money, account.money),
        gain_r=_gain(shadow.r, account.r),
        writes=tuple(_write(time_ns, write, changes, results.point(ticket)) for time_ns, write in trade.writes),
        on_the_account=tuple(changes),
    )


def _legs(trade: _Trade) -> list[int]:
    """Positions that only the shadow has: hedges and re-adds."""
    opened = (write.outcome.opened_ticket for _, write in trade.writes if write.outcome is not None)
    return [position for position in opened if position]


def _write(time_ns: int, write: Write, changes: Sequence[RealChange], point: float) -> ShadowWrite:
    intent, outcome = write.intent, write.outcome
    assert outcome is not None, "only confirmed writes are compared"
    name = _LEVELS.get(intent.kind)
    level = getattr(outcome, name) if name is not None and outcome.HasField(name) else None
    on_main = intent.leg == event_pb2.LEG_KIND_MAIN
    there = name is not None and on_main and any(_same(getattr(change, name), level, point) for change in changes)
    return ShadowWrite(
        time_ns=time_ns,
        manager=intent.manager,
        kind=enum_name(action_pb2.ActionKind, intent.kind),
        purpose=enum_name(action_pb2.Purpose, intent.purpose),
        leg=enum_name(event_pb2.LegKind, intent.leg),
        level=level,
        volume=intent.volume if name is None else None,
        price=outcome.price if outcome.HasField("price") else None,
        differs=not there,
    )


def _same(real: float | None, shadow: float | None, point: float) -> bool:
    return real == shadow or (real is not None and shadow is not None and abs(real - shadow) < _HALF_POINT * point)


def _ending(result: Result, risk: float | None) -> Ending:
    return Ending(
        money=result.money,
        r=_in_r(result.money, risk),
        is_open=result.is_open,
        ended_ns=result.ended_msc * 1_000_000,
        reason=result.reason,
        price=result.price,
    )


def _in_r(money: float | None, risk: float | None) -> float | None:
    return None if money is None or not risk else money / risk


def _gain(shadow: float | None, account: float | None) -> float | None:
    return None if shadow is None or account is None else total([shadow, -account])


def _totals(trades: Sequence[ShadowTrade]) -> Totals:
    money = [(t.account.money, t.shadow.money) for t in trades]
    paired = [(account, shadow) for account, shadow in money if account is not None and shadow is not None]
    in_r = [(a, s) for a, s in ((t.account.r, t.shadow.r) for t in trades) if a is not None and s is not None]
    gains = [shadow - account for account, shadow in paired]
    writes = [write for trade in trades for write in trade.writes]
    better = sum(gain >= EVEN_MONEY for gain in gains)
    worse = sum(gain <= -EVEN_MONEY for gain in gains)
    return Totals(
        trades=len(trades),
        compared=len(paired),
        account_money=total(account for account, _ in paired),
        shadow_money=total(shadow for _, shadow in paired),
        account_r=total(account for account, _ in in_r),
        shadow_r=total(shadow for _, shadow in in_r),
        better=better,
        worse=worse,
        same=len(gains) - better - worse,
        writes=len(writes),
        writes_that_differ=sum(write.differs for write in writes),
    )
