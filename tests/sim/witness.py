"""What a run leaves behind for those who judge it: every call of every client, every order at the broker, the disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dtms.v1.event_pb2 import Event
from dtms_client.errors import BY_STATUS, DtmsError
from dtms_service import convert
from tests.checker.evidence import Call, Evidence, Stream, Watched

STATUS_OF = {kind: code.name for code, kind in BY_STATUS.items()}


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to the world at a moment: a fault, a restart, a stage."""

    at_s: float
    what: str
    facts: dict[str, Any]


@dataclass
class Witness:
    """``events`` is the journal as it was written, revision by revision; ``durable_s`` when each was told durable."""

    now_s: Callable[[], float]
    calls: list[Call] = field(default_factory=list)
    messages: defaultdict[int, list[Watched]] = field(default_factory=lambda: defaultdict(list))
    marks_heard: defaultdict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    broker: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    durable_s: dict[int, float] = field(default_factory=dict)
    durable_revision: int = 0
    under_way: list[tuple[int, bytes]] = field(default_factory=list)
    inherited: set[int] = field(default_factory=set)
    """Revisions that a dead service had written and told nobody of: its successor found them."""
    marks: list[Mark] = field(default_factory=list)
    found: list[tuple[str, str]] = field(default_factory=list)
    on_event: list[Callable[[Event], None]] = field(default_factory=list)
    on_line: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)
    on_answer: list[Callable[[Call], None]] = field(default_factory=list)

    # ---- the world

    def mark(self, what: str, **facts: Any) -> None:
        self.marks.append(Mark(self.now_s(), what, facts))

    def breach(self, guarantee: str, fact: str) -> None:
        """Something that must not be, seen as it happened."""
        self.found.append((guarantee, f"{fact} (at {self.now_s():.3f} s)"))

    # ---- the wire

    def sent(self, client: str, path: str, deadline_s: float | None, request: Any) -> int:
        self.calls.append(Call(client, path, self.now_s(), deadline_s, request))
        return len(self.calls) - 1

    def answered(self, number: int, response: Any) -> None:
        call = self.calls[number]
        call.ended_s, call.response = self.now_s(), response
        for heed in self.on_answer:
            heed(call)

    def failed(self, number: int, error: DtmsError) -> None:
        call = self.calls[number]
        call.ended_s, call.code = self.now_s(), STATUS_OF.get(type(error), type(error).__name__)
        call.reason, call.metadata = error.reason, error.metadata

    def streamed(self, number: int, response: Any) -> None:
        if self.calls[number].name == "Attach" and response.WhichOneof("message") == "attached_at_revision":
            self.mark("attached", revision=response.attached_at_revision)
        if self.calls[number].name != "Watch":
            return
        if response.HasField("progress"):
            self.marks_heard[number].append((self.now_s(), response.progress.revision))
        self.messages[number].append(Watched(self.now_s(), tuple(event.revision for event in response.events)))
        for event in response.events:
            if event.revision > len(self.events) or self.events[event.revision - 1] != event:
                self.breach("I15", f"{self.calls[number].client} was shown a revision {event.revision} of no journal")
            elif event.revision > self.durable_revision:
                self.breach("I20", f"{self.calls[number].client} was shown {event.revision} before it was durable")

    # ---- the disk

    def writing(self, events: list[tuple[int, bytes]]) -> None:
        """A commit begins; who dies in it may find all of it afterwards, or nothing."""
        self.under_way = list(events)

    def written(self, events: list[tuple[int, bytes]]) -> None:
        self.under_way = []
        for revision, body in events:
            if revision != len(self.bodies) + 1:
                self.breach("I15", f"revision {revision} was written behind {len(self.bodies)}")
            self.bodies.append(body)
            self.events.append(convert.event_message(body))

    def durable(self, revision: int) -> None:
        for each in range(self.durable_revision + 1, revision + 1):
            self.durable_s[each] = self.now_s()
        before, self.durable_revision = self.durable_revision, max(revision, self.durable_revision)
        for event in self.events[before:revision]:
            for heed in self.on_event:
                heed(event)

    def recovered(self, stored: list[tuple[int, bytes]]) -> None:
        """A service has started anew: what it found in the journal."""
        kept = stored[-1][0] if stored else 0
        if kept < self.durable_revision:
            self.breach("I20", f"recovery ends at {kept}, {self.durable_revision} was acknowledged")
        if self.under_way and kept == self.under_way[-1][0]:
            self.written(self.under_way)
        self.under_way = []
        for revision, body in stored:
            if revision > len(self.bodies):
                self.breach("I20", f"revision {revision} was never written")
            elif self.bodies[revision - 1] != body:
                self.breach("I20", f"revision {revision} is not what was written")
        del self.bodies[kept:], self.events[kept:]
        self.inherited |= set(range(self.durable_revision + 1, kept + 1))
        self.durable(kept)

    # ---- the broker

    def told(self, line: dict[str, Any]) -> None:
        line = {**line, "at_s": self.now_s()}
        self.broker.append(line)
        for heed in self.on_line:
            heed(line)

    # ---- judged by an outsider

    def evidence(self, *, by_hand: bool = True) -> Evidence:
        """As the outside checker takes it; without what hands did, for nobody asked DTMS for that."""
        lines = [line for line in self.broker if by_hand or line["event"] != "request" or line["actor"] == "dtms"]
        streams = [
            Stream(
                call.client,
                call.request.start_revision,
                bool(call.request.filter.ListFields()),
                tuple(self.messages[number]),
            )
            for number, call in enumerate(self.calls)
            if call.name == "Watch"
        ]
        return Evidence(
            calls=tuple(sorted(self.calls, key=lambda call: call.sent_s)),
            streams=tuple(streams),
            events=tuple(self.events),
            first_seen_s=self.durable_s,
            broker=tuple(lines),
        )
