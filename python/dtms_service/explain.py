"""Why: a decision or an event, with everything that led to it and came of it, out of the journal."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from dtms.v1 import action_pb2, arbitration_service_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms_service.desk import Desk
from dtms_service.errors import DtmsError, Reason

RELATED_EVENTS = 200  # how far after a decision its intent and outcomes are looked for
MAX_RELATED = 20  # events in one answer

# The row of the arbitration table, or the check, behind each denial (domain.md).
RULES: dict[int, str] = {
    action_pb2.DENIAL_CODE_UNSPECIFIED: "granted: the rank allows it and every check passed",
    action_pb2.DENIAL_CODE_TRADE_UNKNOWN: "only registered trades can be changed",
    action_pb2.DENIAL_CODE_TRADE_CLOSED: "a closed trade is final",
    action_pb2.DENIAL_CODE_HALTED: "trading is halted, or a kill switch holds for the account, symbol or manager",
    action_pb2.DENIAL_CODE_STALE_EPOCH: "what was decided under an older grant is refused",
    action_pb2.DENIAL_CODE_DTMS_DEFENSIVE: "in WARNING_L2 and HEDGED only DTMS acts",
    action_pb2.DENIAL_CODE_OWNED_BY_OTHER: "the owner has the higher rank",
    action_pb2.DENIAL_CODE_IN_FLIGHT: "one modification per trade at a time",
    action_pb2.DENIAL_CODE_COOLDOWN: "too soon after the manager's last change",
    action_pb2.DENIAL_CODE_LOOSENS: "a stop loosens only if the proposal says so and no higher rank set it",
    action_pb2.DENIAL_CODE_RISK_BUDGET: "the loss at the stops may not exceed the initial risk",
    action_pb2.DENIAL_CODE_INVALID_STOP: "the level must be on the right side, off the stops level, a whole tick",
    action_pb2.DENIAL_CODE_FROZEN: "inside the freeze level nothing can be modified",
    action_pb2.DENIAL_CODE_MIN_VOLUME: "part and rest must be multiples of the step and at least the minimum volume",
    action_pb2.DENIAL_CODE_NO_CHANGE: "it stands there already",
}


@dataclass(frozen=True, slots=True)
class Explainer:
    desk: Desk

    async def explain(self, key: str, value: int | str, manager: str) -> arbitration_service_pb2.ExplainResponse:
        """``key`` is decision_id, request_id or revision. Raises COMPACTED, FUTURE_REVISION or FIELD_INVALID."""
        revision = int(value) if key == "revision" else self._revision_of(key, value, manager)
        events = await self._related(revision)
        event = events[0]
        decision = event.decision_made.decision if event.HasField("decision_made") else None
        if decision is not None:
            decision.revision = revision
        return arbitration_service_pb2.ExplainResponse(
            summary=describe(event),
            rule=RULES[decision.denial] if decision is not None else "",
            decision=decision,
            events=events,
        )

    def _revision_of(self, key: str, value: int | str, manager: str) -> int:
        for decision in self.desk.decisions():
            if decision[key] == value and (key == "decision_id" or decision["manager"] == manager):
                return int(decision["revision"])
        raise DtmsError(
            Reason.COMPACTED,
            f"no decision with {key} {value} among the newest {self.desk.decisions_kept}: ask by revision",
            metadata={"decisions_kept": str(self.desk.decisions_kept)},
        )

    async def _related(self, revision: int) -> list[event_pb2.Event]:
        await self.desk.settled()
        bodies = await self.desk.commits.read(revision, RELATED_EVENTS)
        if not bodies:
            raise DtmsError(Reason.FUTURE_REVISION, f"revision {revision} was not reached yet")
        first, *later = [event_pb2.Event.FromString(body) for _revision, body in bodies]
        decisions, intents, actions = _keys(first)
        related = [first]
        for event in later:
            if event.HasField("intent_recorded"):
                intent = event.intent_recorded
                if intent.decision_id in decisions or intent.action_id in actions:
                    intents.add(intent.intent_id)
                    related.append(event)
            elif (event.HasField("outcome_recorded") and event.outcome_recorded.outcome.intent_id in intents) or (
                event.HasField("action_skipped") and event.action_skipped.action.action_id in actions
            ):
                related.append(event)
        return related[:MAX_RELATED]


def _keys(event: event_pb2.Event) -> tuple[set[int], set[int], set[int]]:
    """Decision, intent and action ids that an event begins."""
    decisions, intents, actions = set(), set(), set()
    if event.HasField("decision_made"):
        decisions.add(event.decision_made.decision.decision_id)
    if event.HasField("intent_recorded"):
        intents.add(event.intent_recorded.intent_id)
    if event.HasField("state_changed"):
        actions.update(action.action_id for action in event.state_changed.actions)
    return decisions, intents, actions


def describe(event: event_pb2.Event) -> str:
    """One line in words."""
    what = event.WhichOneof("body") or "nothing"
    where = f"{event.symbol} {event.ticket}" if event.ticket else event.symbol or event.account_id
    return f"r{event.revision} {where}: {_DESCRIBE.get(what, _plain)(event)}".replace("  ", " ")


def _plain(event: event_pb2.Event) -> str:
    return (event.WhichOneof("body") or "nothing").replace("_", " ")


def _state(event: event_pb2.Event) -> str:
    changed = event.state_changed
    states = [enum_name(trade_pb2.TradeState, state) for state in (getattr(changed, "from"), changed.to)]
    cause = enum_name(event_pb2.TransitionCause, changed.cause)
    actions = ", ".join(enum_name(action_pb2.Purpose, action.purpose) for action in changed.actions)
    return f"{' -> '.join(states)} by {cause}, score {changed.score.total:+.2f}" + (
        f"; then {actions}" if actions else ""
    )


def _decision(event: event_pb2.Event) -> str:
    decision = event.decision_made.decision
    verdict = "granted" if decision.granted else f"denied, {enum_name(action_pb2.DenialCode, decision.denial)}"
    rank = enum_name(ownership_pb2.Rank, decision.rank)
    situation = f"owner {decision.owner or 'nobody'}, epoch {decision.owner_epoch}"
    return f"{decision.manager} ({rank}) asked for {action_words(decision.action)}: {verdict}; {situation}" + (
        ", defensive" if decision.defensive else ""
    )


def _intent(event: event_pb2.Event) -> str:
    intent = event.intent_recorded
    kind, purpose = enum_name(action_pb2.ActionKind, intent.kind), enum_name(action_pb2.Purpose, intent.purpose)
    return f"{intent.manager} sends {kind} ({purpose})"


def _outcome(event: event_pb2.Event) -> str:
    outcome = event.outcome_recorded.outcome
    status = enum_name(action_pb2.OutcomeStatus, outcome.status)
    return f"intent {outcome.intent_id} {status} {outcome.retcode} {outcome.comment}"


def _owner(event: event_pb2.Event) -> str:
    granted = event.ownership_granted
    return f"owner is {granted.managed_by or 'nobody'}, epoch {granted.owner_epoch}"


_DESCRIBE = {
    "state_changed": _state,
    "decision_made": _decision,
    "intent_recorded": _intent,
    "outcome_recorded": _outcome,
    "ownership_granted": _owner,
}


def action_words(action: action_pb2.Action) -> str:
    """An action in words: kind, purpose and the numbers that belong to it."""
    kind, purpose = enum_name(action_pb2.ActionKind, action.kind), enum_name(action_pb2.Purpose, action.purpose)
    numbers = [f"{f} {getattr(action, f):g}" for f in ("stop", "target", "volume") if action.HasField(f)]
    return " ".join([kind, f"({purpose})", *numbers])


def enum_name(enum: EnumTypeWrapper, number: int) -> str:
    """The value's name without the enum's prefix."""
    descriptor = enum.DESCRIPTOR
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join("_" + c if c.isupper() else c for c in descriptor.name).lstrip("_").upper() + "_"
    return str(value.name.removeprefix(prefix))
