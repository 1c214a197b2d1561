"""Why: a decision or an event, with everything that led to it and came of it, out of the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dtms.v1 import action_pb2, arbitration_service_pb2, event_pb2, ownership_pb2
from dtms_service.describe import RULES, describe, enum_name
from dtms_service.desk import Desk
from dtms_service.errors import DtmsError, Reason, damage_of

RELATED_EVENTS = 200  # how far after a decision its intent, outcomes and losers are looked for
MAX_RELATED = 20  # events in one answer
_CHUNK = 500  # events read at a time while a decision is looked for

_DENIED_WHILE_IN_FLIGHT = action_pb2.DENIAL_CODE_IN_FLIGHT


@dataclass(frozen=True, slots=True)
class Explainer:
    desk: Desk
    oldest_revision: Callable[[], int]

    async def explain(self, key: str, value: int | str, manager: str) -> arbitration_service_pb2.ExplainResponse:
        """``key`` is decision_id, request_id or revision. Raises COMPACTED, FUTURE_REVISION or FIELD_INVALID."""
        revision = int(value) if key == "revision" else await self._revision_of(key, value, manager)
        event, *later = events = await self._from(revision)
        decision = event.decision_made.decision if event.HasField("decision_made") else None
        if decision is not None:
            decision.revision = revision
        return arbitration_service_pb2.ExplainResponse(
            summary=describe(event) + await self._gap(events, revision),
            rule=RULES[decision.denial] if decision is not None else "",
            decision=decision,
            events=_related(event, later),
            winner=_winner(event),
            losers=_losers(event, later),
        )

    async def _revision_of(self, key: str, value: int | str, manager: str) -> int:
        if key == "request_id":
            decision = self.desk.decision_on(manager, str(value))
            found = None if decision is None else int(decision["revision"])
        else:
            found = await self._search(int(value))
        if found is None:
            raise DtmsError(
                Reason.COMPACTED,
                f"no decision with {key} {value} is on record any more, or there never was one",
                metadata={"oldest_revision": str(self.oldest_revision())},
            )
        return found

    async def _search(self, decision_id: int) -> int | None:
        """Where a decision stands: decisions rise with revisions, so the journal is halved until it is found."""
        await self.desk.settled()
        low, high = self.oldest_revision(), self.desk.commits.durable_revision
        damage: list[DtmsError] = []
        while low <= high:
            middle = (low + high) // 2
            found = await self._next_decision(middle, high, damage)
            if found is None:
                high = middle - 1
                continue
            revision, number = found
            if number == decision_id:
                return revision
            if number < decision_id:
                low = revision + 1
            else:
                high = middle - 1
        if damage:
            raise damage[0]
        return None

    async def _next_decision(self, revision: int, last: int, damage: list[DtmsError]) -> tuple[int, int] | None:
        """(revision, decision_id) of the first decision from ``revision`` to ``last`` that can be read.

        What cannot, which may be the one that is looked for, goes into ``damage``.
        """
        while revision <= last:
            try:
                bodies = await self.desk.read(revision, _CHUNK)
            except DtmsError as error:
                if (found := damage_of(error)) is None:
                    raise
                damage.append(error)
                revision = found[1]
                continue
            for at, body in bodies:
                event = event_pb2.Event.FromString(body)
                if at <= last and event.HasField("decision_made"):
                    return at, event.decision_made.decision.decision_id
            if not bodies:
                return None
            revision = bodies[-1][0] + 1
        return None

    async def _from(self, revision: int) -> list[event_pb2.Event]:
        await self.desk.settled()
        bodies = await self.desk.read(revision, RELATED_EVENTS)
        if not bodies:
            raise DtmsError(Reason.FUTURE_REVISION, f"revision {revision} was not reached yet")
        return [event_pb2.Event.FromString(body) for _revision, body in bodies]

    async def _gap(self, events: list[event_pb2.Event], first: int) -> str:
        """Words about a damaged event among those that may belong to the first; empty without one."""
        behind = first + len(events)
        if len(events) == RELATED_EVENTS or behind > self.desk.commits.durable_revision:
            return ""
        try:
            await self.desk.read(behind, 1)
        except DtmsError as error:
            if damage_of(error) is None:
                raise
            return f" (what followed may be incomplete: {error.message})"
        return ""


def _related(first: event_pb2.Event, later: list[event_pb2.Event]) -> list[event_pb2.Event]:
    """The event and those that belong to it: intents of its decision or actions, their outcomes."""
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


def _winner(event: event_pb2.Event) -> str:
    """Who prevailed by it."""
    match event.WhichOneof("body"):
        case "decision_made":
            decision = event.decision_made.decision
            return str(decision.manager if decision.granted else decision.gave_way_to)
        case "ownership_granted":
            return str(event.ownership_granted.managed_by)
        case _:
            return ""


def _losers(event: event_pb2.Event, later: list[event_pb2.Event]) -> list[arbitration_service_pb2.Loser]:
    """Who lost by it: who was denied, who was denied while its change was at the broker, who was displaced."""
    match event.WhichOneof("body"):
        case "decision_made" if event.decision_made.decision.granted:
            return _denied_meanwhile(event, later)
        case "decision_made":
            return [_loser(event.decision_made.decision)]
        case "ownership_granted" if displaced := event.ownership_granted.displaced:
            cause = enum_name(ownership_pb2.GrantCause, event.ownership_granted.cause)
            return [arbitration_service_pb2.Loser(manager=displaced, why=f"lost the trade: {cause}")]
        case _:
            return []


def _denied_meanwhile(grant: event_pb2.Event, later: list[event_pb2.Event]) -> list[arbitration_service_pb2.Loser]:
    """Others that asked for the same trade until the granted change was settled."""
    mine, intent_id, losers = grant.decision_made.decision, 0, []
    for event in later:
        if (event.account_id, event.ticket) != (grant.account_id, grant.ticket):
            continue
        if event.HasField("intent_recorded") and event.intent_recorded.decision_id == mine.decision_id:
            intent_id = event.intent_recorded.intent_id
        elif event.HasField("outcome_recorded") and event.outcome_recorded.outcome.intent_id == intent_id:
            if event.outcome_recorded.outcome.status != action_pb2.OUTCOME_STATUS_UNKNOWN:
                break
        elif event.HasField("decision_made"):
            other = event.decision_made.decision
            if other.denial == _DENIED_WHILE_IN_FLIGHT and other.gave_way_to == mine.manager:
                losers.append(_loser(other))
    return losers


def _loser(denied: action_pb2.Decision) -> arbitration_service_pb2.Loser:
    why = f"denied {enum_name(action_pb2.DenialCode, denied.denial)}: {RULES[denied.denial]}"
    return arbitration_service_pb2.Loser(manager=denied.manager, decision_id=denied.decision_id, why=why)


def _keys(event: event_pb2.Event) -> tuple[set[int], set[int], set[int]]:
    """Decision, intent and action ids that an event begins."""
    decisions, intents, actions = set[int](), set[int](), set[int]()
    if event.HasField("decision_made"):
        decisions.add(event.decision_made.decision.decision_id)
    if event.HasField("intent_recorded"):
        intents.add(event.intent_recorded.intent_id)
    if event.HasField("state_changed"):
        actions.update(action.action_id for action in event.state_changed.actions)
    return decisions, intents, actions
