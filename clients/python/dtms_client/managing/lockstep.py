"""A manager in virtual time: answers each step of a replay, always the same way."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import defaultdict
from typing import Final

import grpc
import grpc.aio

from dtms.v1.lockstep_service_pb2 import JoinRequest, JoinResponse
from dtms.v1.lockstep_service_pb2_grpc import LockstepServiceStub
from dtms_client._channel import Backoff
from dtms_client.aio import AsyncClient
from dtms_client.errors import LOST, Unexpected, from_rpc
from dtms_client.managing.brain import Brain, Proposal
from dtms_client.managing.left import read, written
from dtms_client.managing.views import Instrument, TradeView
from dtms_client.watch import ended

METHOD: Final = "dtms.v1.LockstepService/Join"
# The parent of all request_ids of a replay: an arbitrary, fixed UUID.
NAMESPACE: Final = uuid.UUID("6f0c5f9e-3f0e-5c55-9d3b-0d7a5a1c4e21")

logger = logging.getLogger(__name__)


class Lockstep:
    """Runs one Brain through one replay."""

    def __init__(self, client: AsyncClient, brain: Brain) -> None:
        self._client = client
        self._brain = brain
        self._trades: defaultdict[Instrument, list[TradeView]] = defaultdict(list)
        self._revision: int | None = None
        self._sent: dict[str, Proposal] = {}
        self._taken: tuple[int, list[Instrument], bool] = (0, [], False)
        """The last step that was taken in: its number, whose trades it touched, or whether all of them."""
        self._answered = JoinRequest()
        """The last answer, in case that the service is asked to repeat the step."""
        self.steps = 0

    async def run(self, *, connect_s: float) -> None:
        """Until the history ends. A service that is away is dialled again, and the run goes on where it was.

        Waits at most `connect_s` for a service that is starting, for the first time or again.
        Raises FailedPrecondition/MODE_UNSUPPORTED where the service does not run in lockstep, and any error that is
        no outage: a replay with a gap is worth nothing.
        """
        waited_s = 0.0
        backoff = Backoff()
        while True:
            steps = self.steps
            try:
                await self._join()
                return
            except LOST as error:
                if self.steps > steps:
                    waited_s = 0.0
                    backoff.reset()
                pause_s = backoff.pause_s(error.retry_after_s)
                waited_s += pause_s
                if waited_s > connect_s:
                    raise
                logger.warning("the service is away", extra={"facts": {"why": str(error), "again_in_s": pause_s}})
            await asyncio.sleep(pause_s)

    async def _join(self) -> None:
        call = LockstepServiceStub(self._client.channel).Join(metadata=self._client.metadata)
        try:
            await self._answer_all(call)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc(failure, method=METHOD) from failure
        finally:
            call.cancel()

    async def _answer_all(self, call: grpc.aio.StreamStreamCall[JoinRequest, JoinResponse]) -> None:
        joining = JoinRequest(timeframes_s=self._brain.timeframes_s, answered_seq=self._answered.seq)
        await _write(call, joining)
        while True:
            step = await call.read()
            if not isinstance(step, JoinResponse):
                raise ended(METHOD)
            if not step.seq:
                self._catch_up(step)
                continue
            self.steps += 1
            answer = await self.answer(step)
            if step.last:
                await call.done_writing()
                if isinstance(await call.read(), JoinResponse):
                    raise Unexpected("a step after the last", method=METHOD, reason="STEP_AFTER_LAST")
                return
            await _write(call, answer)

    async def answer(self, step: JoinResponse) -> JoinRequest:
        """What to propose in a step, after taking note of what became of the proposals of the step before.

        A step that was answered is answered alike, and one that was cut off is not taken in twice.
        """
        if step.seq == self._answered.seq:
            return self._answered
        if step.seq != self._taken[0]:
            self._settle(step)
            touched_now = self._brain.take_bars(step.bars) + self._brain.take_quotes(step.quotes)
            self._taken = step.seq, touched_now, self._brain.take_indices(step.indices)
        touched, everywhere = dict.fromkeys(self._taken[1]), self._taken[2]
        if step.last:
            return JoinRequest(seq=step.seq)
        if step.revision != self._revision:
            await self._refetch()
            self._revision = step.revision
            everywhere = True
        instruments = self._trades if everywhere else touched
        views = [view for instrument in instruments for view in self._trades.get(instrument, ())]
        proposals = self._brain.propose(views, now_ns=step.time_ns)
        memos = self._brain.memos(views, now_ns=step.time_ns)
        requests = [
            proposal.request(self._request_id(step.seq, proposal, index)) for index, proposal in enumerate(proposals)
        ]
        self._sent = {request.request_id: proposal for request, proposal in zip(requests, proposals, strict=True)}
        self._answered = JoinRequest(
            seq=step.seq,
            proposals=requests,
            memos=[memo.request() for memo in memos],
            state=written(self._brain.pauses(now_ns=step.time_ns), self._sent),
        )
        return self._answered

    def _catch_up(self, told: JoinResponse) -> None:
        """What another process of this manager had been told, and what it had left."""
        self._brain.take_bars(told.bars)
        self._brain.take_quotes(told.quotes)
        self._brain.take_indices(told.indices)
        if told.state:
            pauses, self._sent = read(told.state)
            self._brain.resume(pauses)

    def _settle(self, step: JoinResponse) -> None:
        """What became of the proposals of the step before."""
        for result in step.results:
            proposal = self._sent.pop(result.request_id, None)
            if proposal is None:
                raise Unexpected(
                    f"a result for {result.request_id}, which was not proposed", method=METHOD, reason="RESULT_UNKNOWN"
                )
            if result.error_reason:
                self._brain.undecided(proposal, result.error_reason, now_ns=step.time_ns)
            else:
                outcome = result.outcome if result.HasField("outcome") else None
                self._brain.decided(proposal, result.decision, outcome, now_ns=step.time_ns)

    async def _refetch(self) -> None:
        self._revision = None
        self._trades.clear()
        async for trade in self._client.list_trades():
            view = TradeView.of(trade, manager=self._brain.name)
            self._trades[view.instrument].append(view)

    def _request_id(self, seq: int, proposal: Proposal, index: int) -> str:
        account_id, ticket = proposal.key
        return str(uuid.uuid5(NAMESPACE, f"{self._brain.name}/{seq}/{account_id}/{ticket}/{index}"))


async def _write(call: grpc.aio.StreamStreamCall[JoinRequest, JoinResponse], answer: JoinRequest) -> None:
    """Sends an answer. Raises what the service ended the stream with, or Unavailable where that was lost."""
    try:
        await call.write(answer)
    except asyncio.InvalidStateError:
        # The stream is over, and reading tells why.
        await call.read()
        raise ended(METHOD) from None
    except grpc.aio.AioRpcError as failure:
        # A write into a stream that is just ending fails with an INTERNAL of the client's own making, and that takes
        # the place of the service's status.
        if failure.code() is grpc.StatusCode.INTERNAL:
            raise ended(METHOD) from failure
        raise
