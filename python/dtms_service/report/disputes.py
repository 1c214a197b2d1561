"""Where managers met: denials with an example each, and trades that one took from another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dtms.v1 import action_pb2, event_pb2, ownership_pb2
from dtms_service.report.intents import TradeKey
from dtms_service.report.summary import Denial, denial_name, is_takeover, state_name


@dataclass(frozen=True, slots=True)
class Refusal:
    """One denied proposal, with the state that the trade was in."""

    trade: TradeKey
    time_ns: int
    state: str
    decision: action_pb2.Decision

    @property
    def code(self) -> str:
        return denial_name(self.decision.denial)


@dataclass(slots=True)
class Takeover:
    """A trade that changed hands against its owner's will. ``returned_ns`` is when the owner had it back."""

    trade: TradeKey
    time_ns: int
    state: str
    by: str
    displaced: str
    defensive: bool
    returned_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Disputes:
    """``examples`` holds the first refusal of each code, in order of the codes; ``takeovers`` are in order of time."""

    examples: list[Refusal]
    takeovers: list[Takeover]


def disputes(events: Iterable[event_pb2.Event]) -> Disputes:
    """``events`` is a whole run in order of revision."""
    first: dict[Denial, Refusal] = {}
    takeovers: list[Takeover] = []
    held: dict[TradeKey, Takeover] = {}
    for event in events:
        key = (event.account_id, event.ticket)
        match event.WhichOneof("body"):
            case "decision_made" if not event.decision_made.decision.granted:
                decision = event.decision_made.decision
                refusal = Refusal(key, event.time_ns, state_name(event.state), decision)
                first.setdefault(decision.denial, refusal)
            case "ownership_granted":
                grant = event.ownership_granted
                if is_takeover(grant):
                    defensive = grant.cause == ownership_pb2.GRANT_CAUSE_DEFENSIVE
                    state = state_name(event.state)
                    held[key] = Takeover(key, event.time_ns, state, grant.managed_by, grant.displaced, defensive)
                    takeovers.append(held[key])
                elif key in held and grant.managed_by == held[key].displaced:
                    held.pop(key).returned_ns = event.time_ns
            case _:
                pass
    return Disputes([first[code] for code in sorted(first)], takeovers)
