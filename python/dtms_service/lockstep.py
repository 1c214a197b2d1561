"""Lockstep: the next tick waits until every manager has answered this one.

Proposals of one step are decided in a fixed order, each to its end, so that the same history gives the same journal,
whatever the timing of the processes was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from dtms.v1 import arbitration_service_pb2 as arbitration
from dtms.v1 import lockstep_service_pb2 as pb
from dtms_service import convert
from dtms_service.clock import Clock
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError, invalid
from dtms_service.executor import Executor
from dtms_service.quotes import Quotes

STEP_DEADLINE_S = 30.0  # a manager that is silent for so long has died: the run must not hang, nor go on without it

log = structlog.get_logger(__name__)


class ManagerSilent(Exception):
    """A manager of the lockstep run did not answer a step. The run ends: its result would not be reproducible."""


@dataclass(slots=True)
class Participant:
    """One manager's side of the exchange."""

    manager: str
    steps: asyncio.Queue[pb.JoinResponse | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    answers: asyncio.Queue[pb.JoinRequest | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    results: list[pb.ProposalResult] = field(default_factory=list)


@dataclass(slots=True)
class Lockstep:
    desk: Desk
    doors: Doors
    executor: Executor
    quotes: Quotes
    clock: Clock
    expected: frozenset[str]
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    _participants: dict[str, Participant] = field(default_factory=dict)
    _seq: int = 0
    _quote_count: int = 0

    def __post_init__(self) -> None:
        if not self.expected:
            self.complete.set()

    def join(self, manager: str) -> Participant:
        if manager not in self.expected:
            raise invalid("manager", f"{manager} is not one of this run's managers: {', '.join(sorted(self.expected))}")
        if manager in self._participants:
            raise invalid("manager", f"{manager} has joined already")
        participant = self._participants[manager] = Participant(manager)
        if self.expected == self._participants.keys():
            self.complete.set()
        log.info("lockstep_joined", manager=manager)
        return participant

    def leave(self, participant: Participant) -> None:
        """The manager's stream ended: a step that waits for it fails."""
        if participant.answers.empty():
            participant.answers.put_nowait(None)

    async def step(self) -> None:
        """One turn of all managers. Raises ManagerSilent."""
        if not self._participants:
            return
        self._seq += 1
        self._quote_count, quotes = self.quotes.since(self._quote_count)
        participants = [self._participants[name] for name in sorted(self._participants)]
        for participant in participants:
            results, participant.results = participant.results, []
            await participant.steps.put(
                pb.JoinResponse(
                    seq=self._seq,
                    time_ns=self.clock.now_ns(),
                    quotes=quotes,
                    results=results,
                    revision=self.desk.engine.revision,
                )
            )
        for participant, answer in [(p, await self._answer(p)) for p in participants]:
            await self._decide(participant, answer)

    async def end(self) -> None:
        """The history has ended."""
        self._seq += 1
        for participant in self._participants.values():
            await participant.steps.put(
                pb.JoinResponse(seq=self._seq, time_ns=self.clock.now_ns(), results=participant.results, last=True)
            )
            await participant.steps.put(None)

    async def _answer(self, participant: Participant) -> pb.JoinRequest:
        try:
            async with asyncio.timeout(STEP_DEADLINE_S):
                answer = await participant.answers.get()
        except TimeoutError:
            raise ManagerSilent(
                f"{participant.manager} did not answer step {self._seq} within {STEP_DEADLINE_S:g} s"
            ) from None
        if answer is None:
            raise ManagerSilent(f"{participant.manager} left at step {self._seq}")
        if answer.seq != self._seq:
            raise ManagerSilent(f"{participant.manager} answered step {answer.seq} instead of {self._seq}")
        return answer

    async def _decide(self, participant: Participant, answer: pb.JoinRequest) -> None:
        for proposal in sorted(answer.proposals, key=lambda p: (p.account_id, p.ticket, p.request_id)):
            participant.results.append(await self._propose(participant.manager, proposal))
            await self.executor.idle()

    async def _propose(self, manager: str, proposal: arbitration.ProposeRequest) -> pb.ProposalResult:
        try:
            key = (self.doors.resolve(proposal.account_id), proposal.ticket)
            verdict = await self.desk.propose(
                manager, proposal.request_id, key, proposal.owner_epoch, convert.to_dict(proposal.action)
            )
        except DtmsError as error:
            return convert.proposal_result(proposal.request_id, None, None, error.reason.value)
        return convert.proposal_result(proposal.request_id, verdict.decision, verdict.outcome, "")
