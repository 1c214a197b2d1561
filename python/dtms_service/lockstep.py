"""Lockstep: the next tick waits until every manager has answered this one.

Proposals of one step are decided in a fixed order, each to its end, so that the same history gives the same journal,
whatever the timing of the processes was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from dtms_service.bars import Closed, ClosedBars, Wanted
from dtms_service.clock import Clock
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError, invalid
from dtms_service.executor import Executor
from dtms_service.quotes import Changes, Quoted, Quotes

STEP_DEADLINE_S = 30.0  # a manager that is silent for so long has died: the run must not hang, nor go on without it

log = structlog.get_logger(__name__)


class ManagerSilent(Exception):
    """A manager of the lockstep run did not answer a step. The run ends: its result would not be reproducible."""


@dataclass(frozen=True, slots=True)
class Memo:
    """What a manager leaves on a trade."""

    account_id: str
    ticket: int
    memo: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a manager answers a step with; ``action`` has the fields of the wire's Action."""

    request_id: str
    account_id: str
    ticket: int
    owner_epoch: int
    action: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a proposal: a decision and perhaps an outcome, or the reason why it could not be decided."""

    request_id: str
    decision: Mapping[str, Any] | None
    outcome: Mapping[str, Any] | None
    error_reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One turn. ``revision`` is what it is decided on; ``last`` asks for no answer."""

    seq: int
    time_ns: int
    quotes: Sequence[Quoted]
    indices: Sequence[Mapping[str, Any]]
    bars: Sequence[Closed]
    results: Sequence[Result]
    revision: int
    last: bool


@dataclass(frozen=True, slots=True)
class Answer:
    seq: int
    proposals: Sequence[Proposal]
    memos: Sequence[Memo] = ()


@dataclass(slots=True)
class Participant:
    """One manager's side of the exchange; None ends it. ``timeframes_s`` are the bars that it wants."""

    manager: str
    timeframes_s: tuple[int, ...]
    steps: asyncio.Queue[Step | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    answers: asyncio.Queue[Answer | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    results: list[Result] = field(default_factory=list)
    bars_seen: int = 0


@dataclass(slots=True)
class Lockstep:
    """``complete`` is set once every expected manager has joined."""

    desk: Desk
    doors: Doors
    executor: Executor
    quotes: Quotes
    bars: ClosedBars
    clock: Clock
    expected: frozenset[str]
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    _participants: dict[str, Participant] = field(default_factory=dict)
    _seq: int = 0
    _quote_count: int = 0

    def __post_init__(self) -> None:
        if not self.expected:
            self.complete.set()

    def join(self, manager: str, timeframes_s: tuple[int, ...] = ()) -> Participant:
        """Raises FIELD_INVALID for a manager that is not expected, or has joined."""
        if manager not in self.expected:
            raise invalid("manager", f"{manager} is not one of this run's managers: {', '.join(sorted(self.expected))}")
        if manager in self._participants:
            raise invalid("manager", f"{manager} has joined already")
        participant = self._participants[manager] = Participant(manager, timeframes_s)
        if self.expected == self._participants.keys():
            self.complete.set()
        log.info("lockstep_joined", manager=manager)
        return participant

    def leave(self, participant: Participant) -> None:
        """The manager's stream ended: a step that waits for it fails."""
        if participant.answers.empty():
            participant.answers.put_nowait(None)

    async def step(self) -> None:
        """One turn of all managers; without an open trade there is nothing to turn to. Raises ManagerSilent."""
        engine = self.desk.engine
        if not self._participants or not any(map(engine.open_positions, self.doors.account_ids)):
            return
        self._seq += 1
        changes = self.quotes.since(self._quote_count)
        self._quote_count = changes.count
        participants = [self._participants[name] for name in sorted(self._participants)]
        for participant in participants:
            await participant.steps.put(self._step_of(participant, changes, last=False))
        for participant, answer in [(p, await self._answer(p)) for p in participants]:
            for memo in answer.memos:
                await self._note(participant.manager, memo)
            for proposal in sorted(answer.proposals, key=lambda p: (p.account_id, p.ticket, p.request_id)):
                participant.results.append(await self._decide(participant.manager, proposal))
                await self.executor.idle()

    async def end(self) -> None:
        """The history has ended."""
        self._seq += 1
        for participant in self._participants.values():
            await participant.steps.put(self._step_of(participant, Changes(0, [], []), last=True))
            await participant.steps.put(None)

    def _step_of(self, participant: Participant, changes: Changes, *, last: bool) -> Step:
        results, participant.results = participant.results, []
        bars: list[Closed] = []
        if participant.timeframes_s:
            wanted = Wanted("", frozenset(), participant.timeframes_s)
            bars, participant.bars_seen = self.bars.since(participant.bars_seen, wanted), self.bars.count
        now_ns, revision = self.clock.now_ns(), self.desk.engine.revision
        return Step(self._seq, now_ns, changes.quotes, changes.indices, bars, results, revision, last)

    async def _answer(self, participant: Participant) -> Answer:
        try:
            async with asyncio.timeout(STEP_DEADLINE_S):
                answer = await participant.answers.get()
        except TimeoutError:
            why = f"{participant.manager} did not answer step {self._seq} within {STEP_DEADLINE_S:g} s"
            raise ManagerSilent(why) from None
        if answer is None:
            raise ManagerSilent(f"{participant.manager} left at step {self._seq}")
        if answer.seq != self._seq:
            raise ManagerSilent(f"{participant.manager} answered step {answer.seq} instead of {self._seq}")
        return answer

    async def _note(self, manager: str, memo: Memo) -> None:
        """A memo on a trade that is gone by now has nowhere to stand; anything else that is wrong ends the run."""
        key = (self.doors.resolve(memo.account_id), memo.ticket)
        if self.desk.knows(key):
            await self.desk.set_memo(key, manager, memo.memo)

    async def _decide(self, manager: str, proposal: Proposal) -> Result:
        try:
            key = (self.doors.resolve(proposal.account_id), proposal.ticket)
            verdict = await self.desk.propose(manager, proposal.request_id, key, proposal.owner_epoch, proposal.action)
        except DtmsError as error:
            return Result(proposal.request_id, None, None, error.reason.value)
        return Result(proposal.request_id, verdict.decision, verdict.outcome, "")
