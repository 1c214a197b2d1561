"""Who may call what, and how a refusal looks on the wire."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from dtms.v1 import arbitration_service_pb2, error_reason_pb2, paper_service_pb2, registry_service_pb2
from dtms.v1.admin_service_pb2 import BackupRequest, GetSystemStatusRequest, SetTradingStateRequest
from dtms.v1.event_pb2 import TRADING_STATE_HALTED
from dtms.v1.trade_pb2 import SIDE_BUY
from dtms.v1.trade_status_service_pb2 import GetTradeRequest
from dtms_client import errors
from dtms_client._channel import deadlines
from dtms_service import interceptors, status
from dtms_service.backup import PIECE_BYTES
from dtms_service.credentials import BUILT_IN_IDENTITIES, Credentials, Role, read_token
from dtms_service.errors import DtmsError, Reason, invalid
from tests import wire
from tests.grpc import watching
from tests.stack import EXIT_MANAGER, UNIVERSAL, Stack, running, stop_at

IDENTITY_OF = {role: name for name, role in BUILT_IN_IDENTITIES.items()}

EVENTS, AT_ONCE = 2200, 100
"""258 bytes each in a journal: three pieces of a backup, more than gRPC takes for a reader that is late."""
LOST_STATUSES = 3
"""gRPC puts an INTERNAL of its own in the place of a status that comes during a write; not as often as this."""


def short(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}/{method.name}"


def bearer(token: str) -> wire.Metadata:
    return (("authorization", f"Bearer {token}"),)


async def refusal(stack: Stack, method: MethodDescriptor, metadata: wire.Metadata) -> grpc.aio.AioRpcError | None:
    """What an empty request is answered with: the error, or None when it was let in and answered."""
    for _ in range(LOST_STATUSES):
        error = await _refusal(stack, method, metadata)
        if error is None or error.code() is not grpc.StatusCode.INTERNAL:
            return error
    return await _refusal(stack, method, metadata)


async def _refusal(stack: Stack, method: MethodDescriptor, metadata: wire.Metadata) -> grpc.aio.AioRpcError | None:
    channel = (await stack.client("viewer")).channel
    codec: Any = wire._codec(method)
    request = wire.request_class(method)()
    try:
        if method.client_streaming:
            both_ways = channel.stream_stream(wire.path_of(method), **codec)(metadata=metadata, timeout=5)
            with suppress(asyncio.InvalidStateError):  # refused before it was written: what is read says why
                await both_ways.write(request)
                await both_ways.done_writing()
            await both_ways.read()
        elif method.server_streaming:
            stream = channel.unary_stream(wire.path_of(method), **codec)(request, metadata=metadata, timeout=5)
            await stream.read()
            stream.cancel()
        else:
            await channel.unary_unary(wire.path_of(method), **codec)(request, metadata=metadata, timeout=5)
    except grpc.aio.AioRpcError as error:
        return error
    return None


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rich = rpc_status.from_call(error)
    assert rich is not None
    for detail in rich.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind.DESCRIPTOR.name] = message
    return found


# -- tables --------------------------------------------------------------------------------------------------------


def test_every_method_of_every_service_has_its_line_in_the_access_table() -> None:
    """No method is reachable by accident: table and protocol name exactly the same methods."""
    assert set(interceptors.ACCESS) == {short(method) for method in wire.METHODS}


def test_every_unary_method_has_a_deadline() -> None:
    """timeouts.json names every unary method and nothing else."""
    unary = {f"dtms.v1.{short(method)}" for method in wire.METHODS if not method.server_streaming}
    assert set(deadlines().seconds) == unary
    assert set(interceptors.default_deadlines()) == {name.removeprefix("dtms.v1.") for name in unary}


def test_every_reason_has_its_status_and_its_number_on_the_wire() -> None:
    """Reasons of the service, of the protocol and of the status table are the same set."""
    wire_reasons = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    reasons = {reason.value for reason in Reason}
    assert reasons == wire_reasons - {"UNSPECIFIED"}
    assert set(status.CODE_OF) == set(Reason)
    assert grpc.StatusCode.OK not in status.CODE_OF.values()


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_survives_the_wire(reason: Reason) -> None:
    """The status carries ErrorInfo with reason, domain and facts; a retry hint travels as RetryInfo."""
    error = DtmsError(reason, "no", metadata={"fact": "7"}, retry_after_s=0.25)
    packed = status.to_status(error)
    assert (packed.code, packed.details) == (status.CODE_OF[reason], "no")
    rich = status_pb2.Status.FromString(dict(packed.trailing_metadata)["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert rich.details[0].Unpack(info)
    assert rich.details[1].Unpack(retry)
    assert (info.reason, info.domain, dict(info.metadata)) == (reason.value, "dtms", {"fact": "7"})
    assert retry.retry_delay.ToTimedelta().total_seconds() == 0.25


@pytest.mark.parametrize(("name", "role"), list(BUILT_IN_IDENTITIES.items()))
async def test_everybody_is_told_who_the_service_takes_them_for(stack: Stack, name: str, role: Role) -> None:
    """Identity and role of the token, and the time of the service, stand in GetSystemStatus."""
    answer = await (await stack.client(name)).system_status()
    assert (answer.caller, answer.caller_role) == (name, role.value)
    assert answer.started_ns < answer.time_ns <= stack.system.clock.now_ns()


def test_details_stay_below_the_limit_of_headers() -> None:
    """Facts of any length are cut: trailers above 8 KiB would cost the code itself."""
    packed = status.to_status(invalid("f" * 10, "x" * 100_000))
    size = sum(len(key) + len(value) for key, value in packed.trailing_metadata)
    assert size + len(packed.details) < 8192


# -- credentials ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", wire.METHODS, ids=short)
async def test_nobody_gets_in_without_a_credential(stack: Stack, method: MethodDescriptor) -> None:
    """UNAUTHENTICATED/CREDENTIAL_MISSING for no token, before anything is looked at."""
    error = await refusal(stack, method, ())
    assert error is not None
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert details(error)["ErrorInfo"].reason == "CREDENTIAL_MISSING"


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer ", "Bearer wrong", "Basic dXNlcjpwYXNz", "bearer {token}", "{token}", "Bearer {token}x"],
)
async def test_anything_but_the_whole_token_is_no_credential(stack: Stack, authorization: str) -> None:
    """A wrong scheme, a wrong token and half a token are all the same: unknown."""
    metadata = (("authorization", authorization.format(token=read_token(stack.token("operator")))),)
    client = await stack.client("viewer")
    with pytest.raises(errors.Unauthenticated):
        await wire.call(client.channel, GetSystemStatusRequest(), metadata=metadata, timeout_s=5)


@pytest.mark.parametrize("method", wire.METHODS, ids=short)
async def test_every_role_but_those_of_the_table_is_refused(stack: Stack, method: MethodDescriptor) -> None:
    """PERMISSION_DENIED/ROLE_FORBIDDEN names the role; a role of the table is never told so."""
    for role, name in IDENTITY_OF.items():
        if short(method) == "AdminService/Drain" and role is Role.OPERATOR:
            continue  # an empty reason is refused, but by the field
        error = await refusal(stack, method, bearer(read_token(stack.token(name))))
        code = None if error is None else error.code()
        if role in interceptors.ACCESS[short(method)].roles:
            assert code not in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}, name
            continue
        assert error is not None, name
        assert code is grpc.StatusCode.PERMISSION_DENIED, name
        info = details(error)["ErrorInfo"]
        assert (info.reason, dict(info.metadata)) == ("ROLE_FORBIDDEN", {"role": role.name})


async def test_a_stream_that_is_ended_while_it_sends_says_why(stack: Stack) -> None:
    """Its reader is late, so a message is on its way when the token is revoked: the reader gets it, and
    then the reason. (A task that is cancelled there would end without any.)"""
    trade = await stack.trade()
    for _ in range(EVENTS // AT_ONCE):
        await asyncio.gather(*(stack.propose(trade, stop_at(1.0941)) for _ in range(AT_ONCE)))
    operator = await stack.client("operator")
    backup = wire.stream(operator.channel, BackupRequest(), metadata=operator.metadata)
    first = await watching.response(backup)
    assert len(first.data) == PIECE_BYTES
    stack.server.pipeline.take(Credentials({}))
    assert (await watching.refusal(backup)).reason == "CREDENTIAL_MISSING"


async def test_who_asks_is_taken_from_the_credential(stack: Stack) -> None:
    """The same proposal is the exit manager's or the Universal Manager's by token alone; nothing in it says so."""
    trade = await stack.trade(strategy_type="breakout_ib_volatility_trap")
    own = await stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL)
    foreign = await stack.propose(await stack.get_trade(trade.ticket), stop_at(1.0971), manager=EXIT_MANAGER)
    assert (own.decision.manager, foreign.decision.manager) == (UNIVERSAL, EXIT_MANAGER)
    with pytest.raises(errors.OutOfRange):  # a manager finds its own request_ids only
        await stack.call(
            EXIT_MANAGER,
            arbitration_service_pb2.ExplainRequest(request_id=own.decision.request_id, manager=UNIVERSAL),
        )


async def test_an_operators_change_carries_the_operators_name(stack: Stack) -> None:
    """What a person switched is recorded under the credential that did it."""
    answer = await stack.call(
        "operator", SetTradingStateRequest(trading_state=TRADING_STATE_HALTED, reason="a test says so")
    )
    told = await stack.call("viewer", arbitration_service_pb2.ExplainRequest(revision=answer.revision))
    assert told.events[0].trading_state_changed.by == "operator"


async def test_configured_managers_get_a_credential_of_their_own(tmp_path: Any) -> None:
    """A name in the configuration is an identity: its token file is made at start, for its owner's eyes only."""
    async with running(tmp_path / "data", {"managers": {"my_bot": "PROFIT_PROTECTION"}}) as stack:
        token = stack.token("my_bot")
        assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        trade = await stack.trade()
        answer = await stack.propose(trade, stop_at(1.0961), manager="my_bot")
        assert (answer.decision.granted, answer.decision.manager) == (True, "my_bot")


# -- details -------------------------------------------------------------------------------------------------------


async def raw_error(stack: Stack, caller: str, request: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(errors.DtmsError) as refused:
        await stack.call(caller, request)
    assert isinstance(refused.value.__cause__, grpc.aio.AioRpcError)
    return refused.value.__cause__


async def test_facts_of_an_error_travel_as_metadata(stack: Stack) -> None:
    """NOT_FOUND carries account and ticket, so that no client reads text."""
    error = await raw_error(stack, "viewer", GetTradeRequest(ticket=404))
    info = details(error)["ErrorInfo"]
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert (info.reason, info.domain) == ("TRADE_UNKNOWN", "dtms")
    assert dict(info.metadata) == {"account_id": "1000@paper", "ticket": "404"}


async def test_bad_fields_travel_as_bad_request(stack: Stack) -> None:
    """INVALID_ARGUMENT carries each field with why, beside the reason."""
    error = await raw_error(stack, "feed", paper_service_pb2.OpenPositionRequest(symbol="EURUSD", side=SIDE_BUY))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = details(error)["BadRequest"].field_violations
    assert violation.field == "volume"
    assert violation.description


async def test_what_may_be_repeated_says_when(tmp_path: Any) -> None:
    """UNAVAILABLE/RECOVERING carries RetryInfo."""
    async with running(tmp_path / "data", attach=False) as stack:
        request = registry_service_pb2.RegisterTradeRequest()
        error = await raw_error(stack, "feed", request)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert details(error)["ErrorInfo"].reason == "RECOVERING"
        assert details(error)["RetryInfo"].retry_delay.seconds == 1


async def test_a_call_that_this_mode_does_not_offer_says_so(stack: Stack) -> None:
    """Lockstep in a service of real time is FAILED_PRECONDITION/MODE_UNSUPPORTED."""
    (join,) = [method for method in wire.METHODS if short(method) == "LockstepService/Join"]
    error = await refusal(stack, join, bearer(read_token(stack.token(EXIT_MANAGER))))
    assert error is not None
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert details(error)["ErrorInfo"].reason == "MODE_UNSUPPORTED"
