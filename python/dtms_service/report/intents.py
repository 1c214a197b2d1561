"""Commands of a run: each intent with its outcomes, and the entry actions that they carry out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dtms.v1 import action_pb2, event_pb2

_FINAL = frozenset({action_pb2.OUTCOME_STATUS_CONFIRMED, action_pb2.OUTCOME_STATUS_REJECTED})

TradeKey = tuple[str, int]  # account_id, ticket


@dataclass(slots=True)
class Write:
    """One command to the broker, from the revision of its intent to that of its final outcome (None: never came)."""

    trade: TradeKey
    intent: event_pb2.IntentRecorded
    begun: int
    ended: int | None = None
    outcome: action_pb2.Outcome | None = None
    retried: bool = False  # the final outcome announced another try

    @property
    def confirmed(self) -> bool:
        return self.outcome is not None and self.outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED

    def overlaps(self, other: Write) -> bool:
        """Both were under way at some revision."""
        return (self.ended is None or other.begun <= self.ended) and (other.ended is None or self.begun <= other.ended)


@dataclass(slots=True)
class Ledger:
    """All writes of a run in the order of their intents, and the planned actions that were settled."""

    writes: dict[int, Write] = field(default_factory=dict)
    planned: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)

    def add(self, event: event_pb2.Event) -> Write | None:
        """Takes one event; answers with the write that it ended, if it ended one."""
        match event.WhichOneof("body"):
            case "state_changed":
                self.planned.update(action.action_id for action in event.state_changed.actions)
            case "action_skipped":
                self.skipped.add(event.action_skipped.action.action_id)
            case "intent_recorded":
                intent = event.intent_recorded
                self.writes[intent.intent_id] = Write((event.account_id, event.ticket), intent, event.revision)
            case "outcome_recorded" if event.outcome_recorded.outcome.status in _FINAL:
                recorded = event.outcome_recorded
                write = self.writes[recorded.outcome.intent_id]
                write.ended, write.outcome = event.revision, recorded.outcome
                write.retried = recorded.HasField("retry_at_ns")
                return write
            case _:
                pass
        return None

    @classmethod
    def of(cls, events: Iterable[event_pb2.Event]) -> Ledger:
        ledger = cls()
        for event in events:
            ledger.add(event)
        return ledger

    def unconfirmed(self) -> int:
        """Intents without a final outcome, and planned actions that nothing settled and no open intent carries."""
        open_intents = [write for write in self.writes.values() if write.ended is None]
        carried = {write.intent.action_id for write in open_intents}
        settled = {w.intent.action_id for w in self.writes.values() if w.ended is not None and not w.retried}
        return len(open_intents) + len(self.planned - self.skipped - settled - carried)

    def conflicts(self) -> Iterator[tuple[Write, Write]]:
        """Pairs of writes of different managers on one trade that were under way together."""
        under_way: dict[TradeKey, list[Write]] = {}
        for write in sorted(self.writes.values(), key=lambda w: w.begun):
            others = [other for other in under_way.get(write.trade, ()) if other.overlaps(write)]
            for other in others:
                if other.intent.manager != write.intent.manager:
                    yield other, write
            under_way[write.trade] = [*others, write]
