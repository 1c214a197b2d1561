"""What an outsider has: the logs that clients keep of their calls, and the broker's own log. Nothing of the service.

A client log holds JSON lines. Each call has a number ``n`` of its own within its file:

    {"n", "client", "kind": "sent", "method", "at_s", "deadline_s", "request"}   a call left the client
    {"n", "client", "kind": "answered", "at_s", "response"}                      its answer, where it has one
    {"n", "client", "kind": "failed", "at_s", "code", "reason", "metadata"}      its status, where it has none
    {"n", "client", "kind": "streamed", "at_s", "response"}                      one message of a stream

``at_s`` is CLOCK_MONOTONIC in seconds, one clock for all processes of a machine; messages are base64 of dtms.v1.
The broker log is that of ``dtms serve --broker-log``.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from dtms.v1 import arbitration_service_pb2, paper_service_pb2, registry_service_pb2, trade_status_service_pb2
from dtms.v1.event_pb2 import Event, IntentRecorded
from dtms.v1.ownership_pb2 import Rank
from dtms.v1.trade_pb2 import TRADE_STATE_HEDGED, TRADE_STATE_WARNING_L2, TradeState

Key: TypeAlias = tuple[str, int]
"""(account_id, ticket)"""

DTMS: Final = "dtms_manager"
DEFENSIVE: Final = frozenset({TRADE_STATE_WARNING_L2, TRADE_STATE_HEDGED})
DONE: Final = frozenset({10008, 10009, 10010})
"""Retcodes that say that the broker did it, or will: PLACED, DONE, DONE_PARTIAL."""

_METHODS: Final = {
    f"/{service.full_name}/{method.name}": method
    for module in (arbitration_service_pb2, registry_service_pb2, trade_status_service_pb2, paper_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(slots=True)
class Call:
    """One call of a client. ``ended_s`` is None where the log ends before the call did."""

    client: str
    method: str
    sent_s: float
    deadline_s: float | None
    request: Any
    ended_s: float | None = None
    response: Any = None
    code: str = ""
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``Propose`` of ``/dtms.v1.ArbitrationService/Propose``."""
        return self.method.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Watched:
    """One message of a Watch stream: the revisions in it, when it arrived."""

    at_s: float
    revisions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """A Watch call of a client and what came of it. ``filtered``: the client asked for a part only."""

    client: str
    start_revision: int
    filtered: bool
    messages: tuple[Watched, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """Who may act from ``revision`` on, under which token. ``rank`` is 0 for nobody."""

    revision: int
    managed_by: str
    epoch: int
    rank: Rank.ValueType


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of a trade with what held right before it."""

    event: Event
    state: TradeState.ValueType
    grant: Grant | None
    in_flight: tuple[int, ...]
    """Intents recorded and not yet known to be done or refused."""

    @property
    def body(self) -> str:
        return self.event.WhichOneof("body") or ""

    @property
    def defensive(self) -> bool:
        """Right before the event."""
        return self.state in DEFENSIVE


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything of one run. ``events`` are those of all streams together, by revision."""

    calls: tuple[Call, ...]
    streams: tuple[Stream, ...]
    events: tuple[Event, ...]
    first_seen_s: Mapping[int, float]
    broker: tuple[Mapping[str, Any], ...]

    def named(self, name: str) -> Iterator[Call]:
        """The calls of one method, in the order of their sending."""
        return (call for call in self.calls if call.name == name)

    def bodies(self, name: str) -> Iterator[Event]:
        """The events with this body."""
        return (event for event in self.events if event.HasField(name))  # type: ignore[arg-type]

    def intents(self) -> dict[int, Event]:
        """Events by intent."""
        return {event.intent_recorded.intent_id: event for event in self.bodies("intent_recorded")}

    def orders(self) -> Iterator[Mapping[str, Any]]:
        """Requests that reached the broker from DTMS."""
        return (line for line in self.broker if line["event"] == "request" and line["actor"] == "dtms")

    def trades(self) -> dict[Key, tuple[Moment, ...]]:
        """The life of each trade. Decisions about trades that were never registered are left out."""
        lives: defaultdict[Key, _Life] = defaultdict(_Life)
        for event in self.events:
            if event.ticket:
                lives[event.account_id, event.ticket].take(event)
        return {
            key: tuple(life.moments)
            for key, life in lives.items()
            if any(moment.body == "trade_registered" for moment in life.moments)
        }


@dataclass(slots=True)
class _Life:
    moments: list[Moment] = field(default_factory=list)
    state: TradeState.ValueType = TradeState.TRADE_STATE_UNSPECIFIED
    grant: Grant | None = None
    in_flight: dict[int, IntentRecorded] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        self.moments.append(Moment(event, self.state, self.grant, tuple(self.in_flight)))
        if event.HasField("ownership_granted"):
            granted = event.ownership_granted
            self.grant = Grant(event.revision, granted.managed_by, granted.owner_epoch, granted.rank)
        elif event.HasField("intent_recorded"):
            self.in_flight[event.intent_recorded.intent_id] = event.intent_recorded
        elif event.HasField("outcome_recorded"):
            outcome = event.outcome_recorded.outcome
            if outcome.status != UNKNOWN:
                self.in_flight.pop(outcome.intent_id, None)
        if event.state:
            self.state = event.state


UNKNOWN: Final = 3
"""OUTCOME_STATUS_UNKNOWN"""


def read(client_logs: Iterable[Path], broker_log: Path) -> Evidence:
    """All logs of a run. Raises ValueError for a line that is none, or for two streams that tell different stories."""
    calls: list[Call] = []
    streams: list[Stream] = []
    told: dict[int, bytes] = {}
    first_seen_s: dict[int, float] = {}
    for path in client_logs:
        numbered: dict[int, Call] = {}
        messages: defaultdict[int, list[Watched]] = defaultdict(list)
        for line in _lines(path):
            number = line["n"]
            if line["kind"] == "sent":
                numbered[number] = _sent(line)
                continue
            call, at_s = numbered[number], line["at_s"]
            match line["kind"]:
                case "answered":
                    call.ended_s, call.response = at_s, _message(call.method, line["response"], answers=True)
                case "failed":
                    call.ended_s, call.code = at_s, line["code"]
                    call.reason, call.metadata = line["reason"], line["metadata"]
                case "streamed" if call.name == "Watch":
                    response = trade_status_service_pb2.WatchResponse.FromString(base64.b64decode(line["response"]))
                    messages[number].append(Watched(at_s, tuple(event.revision for event in response.events)))
                    for event in response.events:
                        body = event.SerializeToString(deterministic=True)
                        if told.setdefault(event.revision, body) != body:
                            raise ValueError(f"{path}: revision {event.revision} was told differently before")
                        first_seen_s[event.revision] = min(at_s, first_seen_s.get(event.revision, at_s))
        calls += numbered.values()
        streams += [
            Stream(
                call.client,
                call.request.start_revision,
                bool(call.request.filter.ListFields()),
                tuple(messages[number]),
            )
            for number, call in numbered.items()
            if call.name == "Watch"
        ]
    return Evidence(
        calls=tuple(sorted(calls, key=lambda call: call.sent_s)),
        streams=tuple(streams),
        events=tuple(Event.FromString(told[revision]) for revision in sorted(told)),
        first_seen_s=first_seen_s,
        broker=tuple(_lines(broker_log)),
    )


def _sent(line: Mapping[str, Any]) -> Call:
    request = _message(line["method"], line["request"], answers=False)
    return Call(line["client"], line["method"], line["at_s"], line["deadline_s"], request)


def _message(method: str, text: str, *, answers: bool) -> Any:  # any message of the protocol
    known = _METHODS.get(method)
    if known is None:
        return None  # market data and administration grant nothing and move nothing
    kind = known.output_type if answers else known.input_type
    return _class(kind.full_name).FromString(base64.b64decode(text))


def _class(full_name: str) -> Any:  # any message of the protocol
    name = full_name.rpartition(".")[2]
    modules = (arbitration_service_pb2, registry_service_pb2, trade_status_service_pb2, paper_service_pb2)
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def _lines(path: Path) -> Iterator[Any]:
    """The lines of a file. A last line without its end was being written when the process was killed."""
    text = path.read_text(encoding="utf-8")
    for line in text[: text.rfind("\n") + 1].splitlines():
        yield json.loads(line)
