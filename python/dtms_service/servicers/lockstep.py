"""LockstepService: managers of a run in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dtms.v1 import lockstep_service_pb2 as pb
from dtms_service import convert
from dtms_service.errors import DtmsError, Reason
from dtms_service.interceptors import Call
from dtms_service.lockstep import Answer, Lockstep, Memo, Participant, Proposal, Result, Step
from dtms_service.servicers.market_data import timeframes_of


@dataclass(frozen=True, slots=True)
class LockstepServicer:
    lockstep: Lockstep | None

    async def Join(self, requests: AsyncIterator[pb.JoinRequest], call: Call) -> AsyncIterator[pb.JoinResponse]:
        if self.lockstep is None:
            raise DtmsError(Reason.MODE_UNSUPPORTED, "this service runs in real time: use WatchQuotes and Propose")
        first = await anext(requests)
        participant = self.lockstep.join(call.principal.name, timeframes_of(first.timeframes_s))
        reader = asyncio.create_task(_read(requests, participant))
        try:
            while (step := await participant.steps.get()) is not None:
                yield _step(step)
        finally:
            reader.cancel()
            self.lockstep.leave(participant)


async def _read(requests: AsyncIterator[pb.JoinRequest], participant: Participant) -> None:
    async for request in requests:
        proposals = [
            Proposal(p.request_id, p.account_id, p.ticket, p.owner_epoch, convert.to_dict(p.action))
            for p in request.proposals
        ]
        memos = [Memo(m.account_id, m.ticket, m.memo) for m in request.memos]
        await participant.answers.put(Answer(request.seq, proposals, memos))
    await participant.answers.put(None)


def _step(step: Step) -> pb.JoinResponse:
    return pb.JoinResponse(
        seq=step.seq,
        time_ns=step.time_ns,
        quotes=map(convert.quote, step.quotes),
        results=map(_result, step.results),
        revision=step.revision,
        last=step.last,
        bars=map(convert.closed_bar, step.bars),
        indices=map(convert.index, step.indices),
    )


def _result(result: Result) -> pb.ProposalResult:
    return pb.ProposalResult(
        request_id=result.request_id,
        decision=None if result.decision is None else convert.decision(result.decision),
        outcome=convert.outcome_message(result.outcome),
        error_reason=result.error_reason,
    )
