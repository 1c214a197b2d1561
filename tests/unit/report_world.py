"""A journal written by hand: events with rising revisions, one line a fact."""

from __future__ import annotations

from typing import TypeAlias

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, score_pb2, trade_pb2
from dtms_service.report import Bar, Run, TradeResult
from dtms_service.report.inputs import Score

ACCOUNT = "7@Paper"
DTMS = "dtms_manager"
EXIT = "intelligent_exit_manager"
UNIVERSAL = "universal_sl_tp_manager"
START_S = 1_500_000_000
HOUR_NS = 3_600 * 1_000_000_000

Kind: TypeAlias = "action_pb2.ActionKind.ValueType"
State: TypeAlias = "trade_pb2.TradeState.ValueType"

RUN = Run(
    symbol="EURUSD",
    source="EURUSD <hourly>",
    entry_rule="by hand",
    bars=48,
    journal_sha256="c0ffee",
    tick_to_decision_p50_us=12.5,
    tick_to_decision_p99_us=80.0,
)


def at(hour: float) -> int:
    return START_S * 1_000_000_000 + int(hour * HOUR_NS)


class Journal:
    """``hour`` is the time of what is written next."""

    def __init__(self) -> None:
        self.events: list[event_pb2.Event] = []
        self.hour = 0.0
        self._states: dict[int, State] = {}
        self._next_id = 100
        spec = event_pb2.SymbolSpec(symbol="EURUSD", digits=5, point=1e-5)
        self.write(0, symbol_defined=event_pb2.SymbolDefined(spec=spec))

    def write(self, ticket: int, **body: object) -> int:
        event = event_pb2.Event(
            revision=len(self.events) + 1,
            time_ns=at(self.hour),
            account_id=ACCOUNT if ticket else "",
            ticket=ticket,
            symbol="EURUSD",
            state=self._states.get(ticket, trade_pb2.TRADE_STATE_UNSPECIFIED),
            **body,  # type: ignore[arg-type]  # one of the bodies by name
        )
        self.events.append(event)
        return event.revision

    def register(self, ticket: int, side: trade_pb2.Side.ValueType, entry: float, sl: float, tp: float) -> None:
        self._states[ticket] = trade_pb2.TRADE_STATE_HEALTHY
        registered = event_pb2.TradeRegistered(
            side=side, entry_price=entry, volume=0.1, sl=sl, tp=tp, opened_ns=at(self.hour)
        )
        self.write(ticket, trade_registered=registered)

    def change(
        self, ticket: int, to: State, cause: event_pb2.TransitionCause.ValueType, *planned: tuple[int, Kind]
    ) -> None:
        before, self._states[ticket] = self._states[ticket], to
        actions = [action_pb2.PlannedAction(action_id=action_id, kind=kind) for action_id, kind in planned]
        change = event_pb2.StateChanged(to=to, cause=cause, actions=actions, score=score_pb2.Score(total=-3.25))
        setattr(change, "from", before)
        self.write(ticket, state_changed=change)

    def decide(
        self,
        ticket: int,
        manager: str,
        denial: action_pb2.DenialCode.ValueType = action_pb2.DENIAL_CODE_UNSPECIFIED,
        kind: Kind = action_pb2.ACTION_KIND_STOP,
    ) -> None:
        decision = action_pb2.Decision(
            manager=manager, granted=not denial, denial=denial, action=action_pb2.Action(kind=kind)
        )
        self.write(ticket, decision_made=event_pb2.DecisionMade(decision=decision))

    def intend(self, ticket: int, manager: str, kind: Kind = action_pb2.ACTION_KIND_STOP, *, action_id: int = 0) -> int:
        self._next_id += 1
        intent = event_pb2.IntentRecorded(
            intent_id=self._next_id, manager=manager, kind=kind, action_id=action_id, leg=event_pb2.LEG_KIND_MAIN
        )
        self.write(ticket, intent_recorded=intent)
        return self._next_id

    def end(
        self,
        ticket: int,
        intent_id: int,
        status: action_pb2.OutcomeStatus.ValueType = action_pb2.OUTCOME_STATUS_CONFIRMED,
        *,
        retry_at_ns: int | None = None,
        **outcome: object,
    ) -> None:
        ended = action_pb2.Outcome(intent_id=intent_id, status=status, **outcome)  # type: ignore[arg-type]  # by name
        self.write(ticket, outcome_recorded=event_pb2.OutcomeRecorded(outcome=ended, retry_at_ns=retry_at_ns))

    def stop(self, ticket: int, manager: str, sl: float) -> int:
        """A granted, confirmed stop change; answers with its intent."""
        self.decide(ticket, manager)
        intent_id = self.intend(ticket, manager)
        self.end(ticket, intent_id, sl=sl)
        return intent_id

    def grant(self, ticket: int, to: str, displaced: str, cause: ownership_pb2.GrantCause.ValueType) -> None:
        self.write(
            ticket, ownership_granted=event_pb2.OwnershipGranted(managed_by=to, displaced=displaced, cause=cause)
        )

    def close(self, ticket: int, price: float, reason: event_pb2.CloseReason.ValueType) -> None:
        closed = event_pb2.LegClosed(leg=event_pb2.LEG_KIND_MAIN, position=ticket, reason=reason, price=price)
        self.write(ticket, leg_closed=closed)
        self.change(ticket, trade_pb2.TRADE_STATE_CLOSED, event_pb2.TRANSITION_CAUSE_BROKER_CLOSED)


def result(ticket: int, r: float | None, unprotected_r: float | None, *, closed: float = 12) -> TradeResult:
    return TradeResult(
        ticket=ticket,
        side="BUY",
        entry_price=1.1,
        initial_sl=1.098,
        initial_tp=1.106,
        volume=0.1,
        opened_ns=at(1),
        closed_ns=at(closed),
        r=r,
        profit=0.0,
        unprotected_r=unprotected_r,
        unprotected_profit=None,
        open_at_end=False,
    )


def bars(hours: int) -> list[Bar]:
    """A slow saw of prices around 1.1, with a score that turns from + to -."""
    made = []
    for hour in range(hours):
        mid = 1.1 + 0.0005 * (hour % 7 - 3)
        part = 1.0 if hour < hours // 2 else -1.0
        score = Score(total=6 * part, parts=(part,) * 6) if hour >= 3 else None
        made.append(Bar(START_S + hour * 3600, mid, mid + 0.0004, mid - 0.0004, mid + 0.0002, score))
    return made
