"""The figures of a run, as `summary.json` holds them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, TypeAlias, TypedDict

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms_service.report.inputs import BrokerWrite, ReportInputInvalid, Run, TradeResult, compare
from dtms_service.report.intents import Ledger, TradeKey, Write

EXTERNAL = "external"  # moved at the broker, by nobody that DTMS knows

_TAKEOVERS = frozenset({ownership_pb2.GRANT_CAUSE_ACQUIRED, ownership_pb2.GRANT_CAUSE_DEFENSIVE})
_R_DIGITS = 6  # beyond it a sum of R only shows the noise of doubles

State: TypeAlias = "trade_pb2.TradeState.ValueType"
Denial: TypeAlias = "action_pb2.DenialCode.ValueType"
Edge: TypeAlias = "tuple[State, State]"


class Decisions(TypedDict):
    granted: int
    denied: dict[str, int]


class ManagerFigures(TypedDict):
    """``preemptions``: how often the manager took a trade away from another one.

    ``stop_changes`` and ``partials`` are those that the broker confirmed; the rest is what was asked and answered.
    """

    proposals: int
    granted: int
    denied: dict[str, int]
    preemptions: int
    stop_changes: int
    partials: int


class Quantiles(TypedDict):
    p50: float
    p99: float


class Summary(TypedDict):
    """All keys but ``tick_to_decision_us`` and ``restarts`` are equal in two runs of the same history."""

    bars: int
    trades: int
    transitions: dict[str, int]
    states_visited: list[str]
    decisions: Decisions
    per_manager: dict[str, ManagerFigures]
    stop_changes: dict[str, int]
    conflicting_writes: int
    unconfirmed_actions: int
    total_r: float
    unprotected_total_r: float
    tick_to_decision_us: Quantiles
    journal_sha256: str
    # How often each process was started again; only where any was.
    restarts: NotRequired[dict[str, int]]


def summarise(
    events: Iterable[event_pb2.Event],
    results: Sequence[TradeResult],
    run: Run,
    broker_log: Iterable[BrokerWrite] | None = None,
) -> Summary:
    """Folds the events of a whole run, in order of revision, into its figures.

    ``conflicting_writes`` counts pairs of writes of different managers on one trade that were under way together
    and, where the broker's log is given, each accepted change of a position of a trade that no confirmed intent of the
    journal explains.
    Both sums of R run over the trades whose R is known both ways.
    Raises ReportInputInvalid when a result speaks of a trade that was never registered.
    """
    counts = _Counts()
    for event in events:
        counts.add(event)
    for result in results:
        if result.ticket not in counts.tickets:
            raise ReportInputInvalid(f"ticket {result.ticket}", "has a result and was never registered")
    pairs = compare(results)
    conflicts = sum(1 for _ in counts.ledger.conflicts())
    if broker_log is not None:
        conflicts += _unexplained(counts.ledger, counts.positions, broker_log)
    return Summary(
        bars=run.bars,
        trades=len(counts.trades),
        transitions={
            f"{state_name(a)}->{state_name(b)}": n for (a, b), n in sorted(counts.transitions.items(), key=_by_edge)
        },
        states_visited=[state_name(number) for number in sorted(counts.visited)],
        decisions=Decisions(
            granted=sum(tally.granted for tally in counts.managers.values()),
            denied=_by_name(sum((tally.denied for tally in counts.managers.values()), Counter())),
        ),
        per_manager={name: _figures(counts.managers[name]) for name in sorted(counts.managers)},
        stop_changes=dict(sorted(counts.stop_changes.items())),
        conflicting_writes=conflicts,
        unconfirmed_actions=counts.ledger.unconfirmed(),
        total_r=total(pair.r for pair in pairs),
        unprotected_total_r=total(pair.original_r for pair in pairs),
        tick_to_decision_us=Quantiles(p50=run.tick_to_decision_p50_us, p99=run.tick_to_decision_p99_us),
        journal_sha256=run.journal_sha256,
    )


def state_name(state: State) -> str:
    return trade_pb2.TradeState.Name(state).removeprefix("TRADE_STATE_")


def denial_name(code: Denial) -> str:
    return action_pb2.DenialCode.Name(code).removeprefix("DENIAL_CODE_")


def total(values: Iterable[float]) -> float:
    """Exact sum, rounded to the digits that carry meaning; never a negative zero."""
    return round(math.fsum(values), _R_DIGITS) + 0.0


def is_takeover(grant: event_pb2.OwnershipGranted) -> bool:
    """Whether it took the trade away from another manager; what is given back or registered does not."""
    return grant.displaced not in {"", grant.managed_by} and grant.cause in _TAKEOVERS


def _by_name(denied: Mapping[Denial, int]) -> dict[str, int]:
    return {denial_name(code): n for code, n in sorted(denied.items())}


def _by_edge(item: tuple[Edge, int]) -> Edge:
    return item[0]


@dataclass(slots=True)
class _Tally:
    """What one manager did."""

    granted: int = 0
    denied: Counter[Denial] = field(default_factory=Counter)
    preemptions: int = 0
    stop_changes: int = 0
    partials: int = 0


def _figures(tally: _Tally) -> ManagerFigures:
    return ManagerFigures(
        proposals=tally.granted + tally.denied.total(),
        granted=tally.granted,
        denied=_by_name(tally.denied),
        preemptions=tally.preemptions,
        stop_changes=tally.stop_changes,
        partials=tally.partials,
    )


class _Counts:
    """The fold behind a summary."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.trades: set[TradeKey] = set()
        self.tickets: set[int] = set()
        self.positions: set[int] = set()  # of trades and their legs
        self.transitions: Counter[Edge] = Counter()
        self.visited: set[State] = set()
        self.managers: defaultdict[str, _Tally] = defaultdict(_Tally)
        self.stop_changes: Counter[str] = Counter()
        self._stops: dict[TradeKey, float | None] = {}

    def add(self, event: event_pb2.Event) -> None:
        ended = self.ledger.add(event)
        key = (event.account_id, event.ticket)
        match event.WhichOneof("body"):
            case "trade_registered":
                registered = event.trade_registered
                self.trades.add(key)
                self.tickets.add(event.ticket)
                self.positions.add(event.ticket)
                self.visited.add(event.state)
                self._stops[key] = registered.sl if registered.HasField("sl") else None
            case "state_changed":
                change = event.state_changed
                self.transitions[getattr(change, "from"), change.to] += 1
                self.visited.add(change.to)
            case "decision_made":
                self._decision(event.decision_made.decision)
            case "ownership_granted" if is_takeover(event.ownership_granted):
                self.managers[event.ownership_granted.managed_by].preemptions += 1
            case "position_changed" if event.position_changed.leg == event_pb2.LEG_KIND_MAIN:
                moved = event.position_changed
                self._stop(key, moved.sl if moved.HasField("sl") else None, EXTERNAL)
            case "outcome_recorded" if ended is not None and ended.confirmed:
                self._confirmed(key, ended, event.outcome_recorded.outcome)
            case _:
                pass

    def _decision(self, decision: action_pb2.Decision) -> None:
        tally = self.managers[decision.manager]
        if decision.granted:
            tally.granted += 1
        else:
            tally.denied[decision.denial] += 1

    def _confirmed(self, key: TradeKey, write: Write, outcome: action_pb2.Outcome) -> None:
        if outcome.opened_ticket:
            self.positions.add(outcome.opened_ticket)
        by = write.intent.manager
        if write.intent.kind == action_pb2.ACTION_KIND_PARTIAL_CLOSE:
            self.managers[by].partials += 1
        if write.intent.kind == action_pb2.ACTION_KIND_STOP and write.intent.leg == event_pb2.LEG_KIND_MAIN:
            stop = outcome.sl if outcome.HasField("sl") else None
            self.managers[by].stop_changes += self._stop(key, stop, by)

    def _stop(self, key: TradeKey, stop: float | None, by: str) -> bool:
        """Whether it is another one."""
        if self._stops.get(key) == stop:
            return False
        self._stops[key] = stop
        self.stop_changes[by] += 1
        return True


def _unexplained(ledger: Ledger, positions: set[int], log: Iterable[BrokerWrite]) -> int:
    """Accepted changes at the broker, on positions of trades, without a confirmed intent of their own."""
    unused = {intent_id for intent_id, write in ledger.writes.items() if write.confirmed}
    unexplained = 0
    for write in log:
        if write.position not in positions:
            continue
        if write.intent_id in unused:
            unused.remove(write.intent_id)
        else:
            unexplained += 1
    return unexplained
