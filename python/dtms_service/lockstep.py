"""Lockstep: the next tick waits until every manager has answered this one.

Proposals of one step are decided in a fixed order, each to its end, so that the same history gives the same journal,
whatever the timing of the processes was. A manager that is started again joins again: it is told what it has missed,
and asked again what it has not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from dtms_service.bars import Closed, ClosedBars, Wanted
from dtms_service.bookmark import Bookmark, Told
from dtms_service.clock import Clock
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError, FatalError, invalid
from dtms_service.executor import Executor
from dtms_service.quotes import Changes, Quoted, Quotes

STEP_DEADLINE_S = 60.0  # time to be started again; who is silent for longer has died: the run must not go on without it
BARS_AT_ONCE = 5_000  # told in one message to who has missed them: 0.3 MB
STATE_BYTES = 65_536  # that a manager may leave

log = structlog.get_logger(__name__)


class ManagerSilent(FatalError):
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
    """One turn. ``revision`` is what it is decided on; ``last`` asks for no answer.

    With ``seq`` 0 it is no turn but what a manager that was started again has missed, and the ``state`` it left.
    """

    seq: int
    time_ns: int
    quotes: Sequence[Quoted]
    indices: Sequence[Mapping[str, Any]]
    bars: Sequence[Closed]
    results: Sequence[Result]
    revision: int
    last: bool
    state: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    seq: int
    proposals: Sequence[Proposal]
    memos: Sequence[Memo] = ()
    state: str = ""


@dataclass(slots=True)
class Seat:
    """One stream of a manager: the steps that go out on it; None ends it, an error ends it with a status."""

    participant: Participant
    steps: asyncio.Queue[Step | DtmsError | None] = field(default_factory=asyncio.Queue)


@dataclass(slots=True)
class Participant:
    """One manager, whatever becomes of its process. ``timeframes_s`` are the bars that it wants.

    ``asked`` is the step that it has not answered yet; ``state`` is what it left with its last answer.
    """

    manager: str
    timeframes_s: tuple[int, ...] = ()
    seat: Seat | None = None
    asked: Step | None = None
    answered: asyncio.Future[Answer] | None = None
    results: list[Result] = field(default_factory=list)
    bars_seen: int = 0
    state: str = ""

    def ask(self, step: Step) -> asyncio.Future[Answer]:
        self.asked, self.answered = step, asyncio.get_running_loop().create_future()
        if self.seat is not None:
            self.seat.steps.put_nowait(step)
        return self.answered


@dataclass(slots=True)
class Lockstep:
    """``complete`` is set while every expected manager takes part, for the first time or again."""

    desk: Desk
    doors: Doors
    executor: Executor
    quotes: Quotes
    bars: ClosedBars
    clock: Clock
    expected: frozenset[str]
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    has_ended: bool = False
    _participants: dict[str, Participant] = field(default_factory=dict)
    _seq: int = 0
    _quote_count: int = 0

    def __post_init__(self) -> None:
        self._participants = {name: Participant(name) for name in sorted(self.expected)}
        if not self.expected:
            self.complete.set()

    @property
    def seq(self) -> int:
        """The last step."""
        return self._seq

    def told(self) -> dict[str, Told]:
        """What each manager has been told, between two steps."""
        return {
            name: Told(of.bars_seen, of.state, [asdict(result) for result in of.results])
            for name, of in self._participants.items()
        }

    def go_on(self, bookmark: Bookmark) -> None:
        """The run goes on where another process left it."""
        self._seq, self.has_ended = bookmark.seq, bookmark.has_ended
        for name, told in bookmark.managers.items():
            if (participant := self._participants.get(name)) is not None:
                participant.bars_seen, participant.state = told.bars, told.state
                participant.results = [Result(**result) for result in told.results]

    def join(self, manager: str, timeframes_s: tuple[int, ...] = (), answered_seq: int = 0) -> Seat:
        """The manager's stream from now on. ``answered_seq`` is the last step that it remembers to have answered.

        Raises FIELD_INVALID for a manager that is not expected, or is there.
        """
        participant = self._participants.get(manager)
        if participant is None:
            raise invalid("manager", f"{manager} is not one of this run's managers: {', '.join(sorted(self.expected))}")
        if participant.seat is not None:
            raise invalid("manager", f"{manager} has joined already")
        seat = participant.seat = Seat(participant)
        participant.timeframes_s = timeframes_s
        if self._seq and not answered_seq:
            self._tell_missed(seat)
        if participant.asked is not None:
            seat.steps.put_nowait(participant.asked)
        if self.has_ended:
            self._tell_end(participant)
        if all(each.seat is not None for each in self._participants.values()):
            self.complete.set()
        log.info("lockstep_joined", manager=manager, answered=answered_seq, step=self._seq)
        return seat

    def leave(self, seat: Seat) -> None:
        """The manager's stream ended: the step that waits for it waits until it joins again."""
        if seat.participant.seat is seat:
            seat.participant.seat = None
            self.complete.clear()
            log.info("lockstep_left", manager=seat.participant.manager, step=self._seq)

    def answer(self, seat: Seat, answer: Answer) -> None:
        """What the manager says to the step that it was asked for. Raises FIELD_INVALID for another step's."""
        participant = seat.participant
        if participant.asked is None or participant.asked.seq != answer.seq or participant.answered is None:
            raise invalid("seq", f"{participant.manager} answered step {answer.seq}, which it was not asked for")
        if len(answer.state.encode()) > STATE_BYTES:
            raise invalid("state", f"is longer than {STATE_BYTES} bytes")
        participant.asked, participant.state = None, answer.state
        participant.answered.set_result(answer)

    async def step(self) -> None:
        """One turn of all managers; without an open trade there is nothing to turn to. Raises ManagerSilent."""
        engine = self.desk.engine
        if not self._participants or not any(map(engine.open_positions, self.doors.account_ids)):
            return
        self._seq += 1
        changes = self.quotes.since(self._quote_count)
        self._quote_count = changes.count
        participants = list(self._participants.values())
        asked = [each.ask(self._step_of(each, changes, last=False)) for each in participants]
        answers = [await self._answer(each, answered) for each, answered in zip(participants, asked, strict=True)]
        for participant, answer in zip(participants, answers, strict=True):
            for memo in answer.memos:
                await self._note(participant.manager, memo)
            for proposal in sorted(answer.proposals, key=lambda p: (p.account_id, p.ticket, p.request_id)):
                participant.results.append(await self._decide(participant.manager, proposal))
                await self.executor.idle()

    def end(self) -> None:
        """The history has ended: every manager is told, those that are away when they come back."""
        if not self.has_ended:
            self.has_ended = True
            self._seq += 1
            for participant in self._participants.values():
                self._tell_end(participant)

    def _tell_end(self, participant: Participant) -> None:
        if participant.seat is not None:
            participant.seat.steps.put_nowait(self._step_of(participant, Changes(0, [], []), last=True))
            participant.seat.steps.put_nowait(None)

    def _tell_missed(self, seat: Seat) -> None:
        """Everything that the managers have been told so far, to one that was started in the middle."""
        of = seat.participant
        changes = self.quotes.since(0)
        bars = self._bars(of.timeframes_s, 0)
        now_ns, revision = self.clock.now_ns(), self.desk.engine.revision
        for start in range(0, max(1, len(bars)), BARS_AT_ONCE):
            some = bars[start : start + BARS_AT_ONCE]
            step = Step(0, now_ns, changes.quotes, changes.indices, some, (), revision, last=False, state=of.state)
            seat.steps.put_nowait(step)

    def _bars(self, timeframes_s: tuple[int, ...], seen: int) -> list[Closed]:
        return self.bars.since(seen, Wanted("", frozenset(), timeframes_s)) if timeframes_s else []

    def _step_of(self, participant: Participant, changes: Changes, *, last: bool) -> Step:
        results, participant.results = participant.results, []
        bars = self._bars(participant.timeframes_s, participant.bars_seen)
        participant.bars_seen = self.bars.count
        now_ns, revision = self.clock.now_ns(), self.desk.engine.revision
        return Step(self._seq, now_ns, changes.quotes, changes.indices, bars, results, revision, last)

    async def _answer(self, participant: Participant, answered: asyncio.Future[Answer]) -> Answer:
        try:
            async with asyncio.timeout(STEP_DEADLINE_S):
                return await answered
        except TimeoutError:
            did = "did not answer" if participant.seat is not None else "left and did not come back for"
            why = f"{participant.manager} {did} step {self._seq} within {STEP_DEADLINE_S:g} s"
            raise ManagerSilent(why) from None

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
