"""LockstepService: managers of a run in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dtms.v1 import lockstep_service_pb2 as pb
from dtms_service.errors import DtmsError, Reason
from dtms_service.interceptors import Call
from dtms_service.lockstep import Lockstep, Participant


@dataclass(frozen=True, slots=True)
class LockstepServicer:
    lockstep: Lockstep | None

    async def Join(self, requests: AsyncIterator[pb.JoinRequest], call: Call) -> AsyncIterator[pb.JoinResponse]:
        if self.lockstep is None:
            raise DtmsError(Reason.MODE_UNSUPPORTED, "this service runs in real time: use WatchQuotes and Propose")
        await anext(requests)
        participant = self.lockstep.join(call.principal.name)
        reader = asyncio.create_task(_read(requests, participant))
        try:
            while (step := await participant.steps.get()) is not None:
                yield step
        finally:
            reader.cancel()
            self.lockstep.leave(participant)


async def _read(requests: AsyncIterator[pb.JoinRequest], participant: Participant) -> None:
    async for request in requests:
        await participant.answers.put(request)
    await participant.answers.put(None)
