"""LockstepService: managers of a run in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dtms.v1 import lockstep_service_pb2 as pb
from dtms_service import convert
from dtms_service.errors import DtmsError, Reason
from dtms_service.interceptors import Call
from dtms_service.lockstep import Answer, Lockstep, Memo, Proposal, Result, Seat, Step
from dtms_service.servicers.market_data import timeframes_of


@dataclass(frozen=True, slots=True)
class LockstepServicer:
    lockstep: Lockstep | None

    async def Join(self, requests: AsyncIterator[pb.JoinRequest], call: Call) -> AsyncIterator[pb.JoinResponse]:
        if self.lockstep is None:
            raise DtmsError(Reason.MODE_UNSUPPORTED, "this service runs in real time: use WatchQuotes and Propose")
        first = await anext(requests)
        seat = self.lockstep.join(call.principal.name, timeframes_of(first.timeframes_s), first.answered_seq)
        reader = asyncio.create_task(_read(requests, self.lockstep, seat))
        try:
            while (step := await seat.steps.get()) is not None:
                if isinstance(step, DtmsError):
                    raise step
                yield _step(step)
        finally:
            reader.cancel()
            self.lockstep.leave(seat)


async def _read(requests: AsyncIterator[pb.JoinRequest], lockstep: Lockstep, seat: Seat) -> None:
    """Until the manager has said everything; what it must not say ends its stream."""
    try:
        async for request in requests:
            proposals = [
                Proposal(p.request_id, p.account_id, p.ticket, p.owner_epoch, convert.to_dict(p.action))
                for p in request.proposals
            ]
            memos = [Memo(m.account_id, m.ticket, m.memo) for m in request.memos]
            lockstep.answer(seat, Answer(request.seq, proposals, memos, request.state))
    except DtmsError as error:
        seat.steps.put_nowait(error)


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
        state=step.state,
    )


def _result(result: Result) -> pb.ProposalResult:
    return pb.ProposalResult(
        request_id=result.request_id,
        decision=None if result.decision is None else convert.decision(result.decision),
        outcome=convert.outcome_message(result.outcome),
        error_reason=result.error_reason,
    )
