"""Claims of a manager that owns trades: a real gRPC server with scripted answers, and a clock that the test moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dtms.v1.action_pb2 import DENIAL_CODE_HALTED
from dtms.v1.arbitration_service_pb2 import AcquireOwnershipResponse
from dtms.v1.ownership_pb2 import Ownership
from dtms_client import AsyncClient
from dtms_client.managing.owning import Owning
from dtms_client.managing.testing import BUY
from dtms_client.managing.views import Key
from dtms_client.testing import Context, ScriptedService
from dtms_client.universal_manager.brain import MANAGER, UniversalManager

FALLEN = replace(BUY, strategy_type="default_standard")


class Dtms:
    """Grants or denies a claim as the test says."""

    killed = True

    async def acquire(self, request: Any, _context: Context) -> AcquireOwnershipResponse:
        if self.killed:
            return AcquireOwnershipResponse(granted=False, denial=DENIAL_CODE_HALTED)
        owned = Ownership(
            account_id=request.account_id,
            ticket=request.ticket,
            managed_by=MANAGER,
            owner_epoch=9,
            lease_remaining_ms=600_000,
        )
        return AcquireOwnershipResponse(granted=True, ownership=owned)


async def test_a_denied_claim_is_not_argued_with() -> None:
    """While a kill switch holds it asks once, then after 5, 10, 20 ... 300 s; once granted it asks no more."""
    dtms, now_s, asked_s = Dtms(), 0, list[int]()
    changed: list[Key] = []
    async with ScriptedService() as service, AsyncClient(service.address, token="t") as client:
        service.on("AcquireOwnership", dtms.acquire)
        owning = Owning(client, UniversalManager(), monotonic=lambda: now_s, changed=changed.append)
        for now_s in range(1_900):
            dtms.killed = now_s < 1_300
            if due := owning.due([FALLEN]):
                asked_s.append(now_s)
                await owning.take(due)
        await owning.close()
    assert asked_s == [0, 5, 15, 35, 75, 155, 315, 615, 915, 1215, 1515]
    assert len(changed) == len(asked_s)


async def test_a_closed_trade_is_neither_kept_alive_nor_given_back() -> None:
    """There is nobody to give it to; renewing it would tell of a loss that is none."""
    dtms = Dtms()
    dtms.killed = False
    async with ScriptedService() as service, AsyncClient(service.address, token="t") as client:
        service.on("AcquireOwnership", dtms.acquire)
        owning = Owning(client, UniversalManager(), monotonic=lambda: 0, changed=lambda _: None)
        await owning.take(owning.due([FALLEN]))
        assert not owning.due([FALLEN])
        owning.forget(FALLEN.key)
        await owning.close()
    assert [call.method.rpartition("/")[2] for call in service.calls] == ["AcquireOwnership"]
