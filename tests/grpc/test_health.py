"""Health, reflection, status and deadlines: what operators and tools see of the service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from dtms.v1 import action_pb2, admin_service_pb2
from dtms.v1.admin_service_pb2 import DrainRequest, GetSystemStatusRequest
from dtms.v1.arbitration_service_pb2 import ProposeRequest
from dtms_client import errors
from dtms_service import interceptors
from dtms_service.broker.faults import Gate, Leg
from dtms_service.credentials import BUILT_IN_IDENTITIES
from tests import wire
from tests.stack import EXIT_MANAGER, Stack, attach_paper, running, stop_at

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = [service.full_name for service in wire.SERVICES]


async def health_watch(stack: Stack, service: str = "") -> Any:
    """Health needs no credential: it is asked by load balancers."""
    channel = (await stack.client("viewer")).channel
    call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
    stack.exits.callback(call.cancel)
    return call


async def next_status(call: Any) -> int:
    async with asyncio.timeout(10):
        return int((await call.read()).status)


@pytest.mark.parametrize("service", ["", *NAMES])
async def test_health_follows_the_life_of_the_service(tmp_path: Path, service: str) -> None:
    """I22: NOT_SERVING while it recovers, SERVING once its broker was compared with, NOT_SERVING when it drains."""
    async with running(tmp_path / "data", attach=False) as stack:
        call = await health_watch(stack, service)
        assert await next_status(call) == NOT_SERVING
        await attach_paper(stack.system)
        assert await next_status(call) == SERVING
        stack.system.begin_drain("test")
        assert await next_status(call) == NOT_SERVING


async def test_no_write_is_served_before_recovery_ends(tmp_path: Path) -> None:
    """I22: every method that changes something is UNAVAILABLE/RECOVERING; reading works, and the status says why."""
    async with running(tmp_path / "data", attach=False) as stack:
        plain = await stack.exits.enter_async_context(grpc.aio.insecure_channel(stack.server.address))  # no retries
        for method in wire.METHODS:
            access = interceptors.ACCESS[f"{method.containing_service.name}/{method.name}"]
            if not access.writes or method.client_streaming:
                continue
            caller = next(name for name, role in BUILT_IN_IDENTITIES.items() if role in access.roles)
            metadata = (await stack.client(caller)).metadata
            with pytest.raises(errors.Unavailable) as refused:
                await wire.call(plain, wire.request_class(method)(), metadata=metadata, timeout_s=5)
            assert refused.value.reason == "RECOVERING", method.name
        client = await stack.client("operator")
        status = await client.system_status()
        assert status.stage == admin_service_pb2.SERVICE_STAGE_RECOVERING
        assert status.recovery_detail
        await attach_paper(stack.system)
        status = await client.system_status()
        assert (status.stage, status.recovery_detail) == (admin_service_pb2.SERVICE_STAGE_SERVING, "")


async def test_the_status_says_what_runs(stack: Stack) -> None:
    """Version, revision, states by name, accounts, latencies and the head of the journal's chain."""
    trade = await stack.trade()
    await stack.propose(trade, stop_at(1.0961))
    status = await stack.call("viewer", GetSystemStatusRequest())
    assert status.version
    assert status.revision == stack.system.desk.engine.revision
    assert [(count.state, count.trades) for count in status.states] == [("HEALTHY", 1)]
    assert list(status.account_ids) == ["1000@paper"]
    assert status.broker_call.count == 1
    assert status.tick_to_decision.count >= 1
    assert len(status.journal_sha256) == 64
    assert not status.lockstep


async def test_a_drain_by_an_operator_ends_writes_and_tells_the_revision(stack: Stack) -> None:
    """What is in flight is finished, new writes are UNAVAILABLE/DRAINING, the answer names the last revision."""
    trade = await stack.trade()
    with pytest.raises(errors.InvalidArgument):
        await stack.call("operator", DrainRequest())
    answer = await stack.call("operator", DrainRequest(reason="test"))
    assert answer.revision == stack.system.desk.engine.revision
    with pytest.raises(errors.Unavailable) as refused:
        await stack.propose(trade, stop_at(1.0961))
    assert refused.value.reason == "DRAINING"
    assert (await stack.get_trade(trade.ticket)).ticket == trade.ticket


async def test_a_stop_waits_for_what_is_at_the_broker(tmp_path: Path) -> None:
    """A proposal in flight gets its answer, and its outcome is in the journal that the next start reads."""
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
        gate = stack.faults.latency = Gate("execute", Leg.REPLY)
        asked = asyncio.create_task(stack.propose(trade, stop_at(1.0961)))
        await gate.arrived.wait()
        stopping = asyncio.create_task(stack.server.stop())
        await stack.system.draining.wait()
        gate.open()
        assert (await asked).outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
        await stopping
    async with running(tmp_path / "data") as stack:
        assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0961
        assert stack.system.executor.calls.figures().count == 0


async def test_a_broker_that_hangs_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    """The limit holds: what is not settled within drain_ms stays open and is settled by the next start."""
    async with running(tmp_path / "data", {"server.drain_ms": 200}) as stack:
        trade = await stack.trade()
        gate = stack.faults.latency = Gate("execute", Leg.REPLY)
        asked = asyncio.create_task(stack.propose(trade, stop_at(1.0961)))
        await gate.arrived.wait()
        async with asyncio.timeout(5):
            await stack.server.stop()
        with pytest.raises(errors.DtmsError):
            await asked
    async with running(tmp_path / "data") as stack:
        shown = await stack.get_trade(trade.ticket)
        assert shown.confirmed.sl == 1.0961
        assert stack.system.desk.engine.open_intents() == []
        assert stack.system.executor.calls.figures().count == 0


# -- reflection ----------------------------------------------------------------------------------------------------


async def reflect(stack: Stack, version: str, **request: Any) -> Any:
    channel = (await stack.client("viewer")).channel
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call: Any = method()
    await call.write(reflection_pb2.ServerReflectionRequest(**request))
    answer = await call.read()
    await call.done_writing()
    call.cancel()
    return answer


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_reflection_lists_every_service(stack: Stack, version: str) -> None:
    """Old and new tools find the same services, without a credential."""
    answer = await reflect(stack, version, list_services="")
    listed = {service.name for service in answer.list_services_response.service}
    assert set(NAMES) < listed
    assert "grpc.health.v1.Health" in listed


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_reflection_gives_whole_files(stack: Stack, version: str) -> None:
    """A tool that knows nothing can build every message: file and all that it imports are given."""
    for service in NAMES:
        answer = await reflect(stack, version, file_containing_symbol=service)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(body)
            for body in answer.file_descriptor_response.file_descriptor_proto
        ]
        assert any(service == f"{file.package}.{found.name}" for file in files for found in file.service)


# -- deadlines -----------------------------------------------------------------------------------------------------


async def test_a_call_with_a_short_deadline_ends_in_time(stack: Stack) -> None:
    """DEADLINE_EXCEEDED at the client's own limit while the broker still holds the command; the service goes on."""
    trade = await stack.trade()
    gate = stack.faults.latency = Gate("execute", Leg.REQUEST)
    started = asyncio.get_running_loop().time()
    with pytest.raises(errors.DeadlineExceeded):
        await stack.propose(trade, stop_at(1.0961), timeout_s=0.3)
    assert asyncio.get_running_loop().time() - started < 3
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0951
    gate.open()
    await stack.system.executor.idle()
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0961


async def test_a_call_without_a_deadline_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own table ends what a client would wait for for ever: DEADLINE_EXCEEDED, the outcome unknown."""
    table = interceptors.default_deadlines() | {"ArbitrationService/Propose": 0.2}
    monkeypatch.setattr(interceptors, "default_deadlines", lambda: table)
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
        gate = stack.faults.latency = Gate("execute", Leg.REPLY)
        request = ProposeRequest(
            request_id="the key", ticket=trade.ticket, owner_epoch=trade.owner_epoch, action=stop_at(1.0961)
        )
        with pytest.raises(errors.DeadlineExceeded):
            await stack.call(EXIT_MANAGER, request, timeout_s=None)
        gate.open()
        again = await stack.call(EXIT_MANAGER, request)
        assert again.outcome.sl == 1.0961
