"""Why: a decision or an event, with everything that led to it and came of it, out of the journal."""

from __future__ import annotations

from dataclasses import dataclass

from dtms.v1 import arbitration_service_pb2, event_pb2
from dtms_service.describe import RULES, describe
from dtms_service.desk import Desk
from dtms_service.errors import DtmsError, Reason

RELATED_EVENTS = 200  # how far after a decision its intent and outcomes are looked for
MAX_RELATED = 20  # events in one answer


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
    decisions, intents, actions = set[int](), set[int](), set[int]()
    if event.HasField("decision_made"):
        decisions.add(event.decision_made.decision.decision_id)
    if event.HasField("intent_recorded"):
        intents.add(event.intent_recorded.intent_id)
    if event.HasField("state_changed"):
        actions.update(action.action_id for action in event.state_changed.actions)
    return decisions, intents, actions
