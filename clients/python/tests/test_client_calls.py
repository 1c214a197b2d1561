"""Unary calls: what goes out, what comes back, and what failures become. The peer is a real gRPC server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import dtms_client
from dtms.v1.action_pb2 import ACTION_KIND_STOP, PURPOSE_TRAIL, Action, Decision
from dtms.v1.admin_service_pb2 import (
    DrainRequest,
    DrainResponse,
    GetSystemStatusRequest,
    GetSystemStatusResponse,
    ReloadConfigurationRequest,
    ReloadConfigurationResponse,
    SetKillSwitchRequest,
    SetKillSwitchResponse,
    SetRiskBudgetRequest,
    SetRiskBudgetResponse,
    SetTradingStateRequest,
    SetTradingStateResponse,
)
from dtms.v1.arbitration_service_pb2 import (
    AcquireOwnershipRequest,
    AcquireOwnershipResponse,
    ExplainRequest,
    ExplainResponse,
    Grant,
    ListDecisionsResponse,
    ProposeRequest,
    ProposeResponse,
    ReleaseOwnershipRequest,
    ReleaseOwnershipResponse,
    RenewOwnershipRequest,
    RenewOwnershipResponse,
    SetMemoRequest,
    SetMemoResponse,
)
from dtms.v1.error_reason_pb2 import ErrorReason
from dtms.v1.event_pb2 import KILL_SCOPE_SYMBOL, TRADING_STATE_REDUCING
from dtms.v1.gateway_service_pb2 import BrokerPosition
from dtms.v1.market_data_service_pb2 import (
    ReportIndexRequest,
    ReportIndexResponse,
    ReportScoreRequest,
    ReportScoreResponse,
)
from dtms.v1.ownership_pb2 import Ownership
from dtms.v1.paper_service_pb2 import (
    ClosePositionRequest,
    ClosePositionResponse,
    ListPositionsRequest,
    ListPositionsResponse,
    ModifyPositionRequest,
    ModifyPositionResponse,
    OpenPositionRequest,
    OpenPositionResponse,
)
from dtms.v1.registry_service_pb2 import (
    GetOwnershipRequest,
    GetOwnershipResponse,
    GetRegistrationRequest,
    GetRegistrationResponse,
    ListRegistrationsResponse,
    RegisterTradeRequest,
    RegisterTradeResponse,
    Registration,
    UnregisterTradeRequest,
    UnregisterTradeResponse,
)
from dtms.v1.score_pb2 import Score
from dtms.v1.trade_pb2 import SIDE_BUY, Trade
from dtms.v1.trade_status_service_pb2 import (
    BatchGetTradesRequest,
    BatchGetTradesResponse,
    GetScoreRequest,
    GetScoreResponse,
    GetTradeRequest,
    GetTradeResponse,
    ListTradesResponse,
)
from dtms_client import AsyncClient, Client, errors, new_request_id
from dtms_client._channel import deadlines
from dtms_client.testing import Context, ScriptedService, never, refuse

TRADE = Trade(account_id="1@Demo", ticket=7, symbol="EURUSD", side=SIDE_BUY, owner_epoch=3)
OWNED = Ownership(account_id="1@Demo", ticket=7, managed_by="dtms_manager", owner_epoch=3)
GRANT = Grant(account_id="1@Demo", ticket=7, owner_epoch=3)
POSITION = BrokerPosition(ticket=7, symbol="EURUSD", side=SIDE_BUY, volume=0.1)
STOP = Action(kind=ACTION_KIND_STOP, purpose=PURPOSE_TRAIL, stop=1.1)
REGISTRATION = Registration(ticket=7, symbol="EURUSD", side=SIDE_BUY, entry_price=1.1, volume=0.1)

# method of the client, its arguments, RPC, request expected on the wire, response of the peer, value expected
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], str, Any, Any, Any]] = [
    (
        "register_trade",
        (REGISTRATION,),
        {},
        "RegisterTrade",
        RegisterTradeRequest(registration=REGISTRATION),
        RegisterTradeResponse(trade=TRADE, created=True),
        RegisterTradeResponse(trade=TRADE, created=True),
    ),
    (
        "unregister_trade",
        (7,),
        {},
        "UnregisterTrade",
        UnregisterTradeRequest(ticket=7),
        UnregisterTradeResponse(revision=4),
        UnregisterTradeResponse(revision=4),
    ),
    (
        "get_trade",
        (7,),
        {"account_id": "1@Demo"},
        "GetTrade",
        GetTradeRequest(account_id="1@Demo", ticket=7),
        GetTradeResponse(trade=TRADE),
        TRADE,
    ),
    (
        "batch_get_trades",
        ([7, 8],),
        {},
        "BatchGetTrades",
        BatchGetTradesRequest(tickets=[7, 8]),
        BatchGetTradesResponse(trades=[TRADE], unknown_tickets=[8]),
        BatchGetTradesResponse(trades=[TRADE], unknown_tickets=[8]),
    ),
    (
        "get_ownership",
        (7,),
        {},
        "GetOwnership",
        GetOwnershipRequest(ticket=7),
        GetOwnershipResponse(ownership=OWNED),
        OWNED,
    ),
    (
        "get_score",
        ("EURUSD", SIDE_BUY),
        {},
        "GetScore",
        GetScoreRequest(symbol="EURUSD", side=SIDE_BUY),
        GetScoreResponse(score=Score(total=-2.5), warm=True),
        GetScoreResponse(score=Score(total=-2.5), warm=True),
    ),
    (
        "acquire_ownership",
        (7,),
        {},
        "AcquireOwnership",
        AcquireOwnershipRequest(ticket=7),
        AcquireOwnershipResponse(granted=True, ownership=OWNED),
        AcquireOwnershipResponse(granted=True, ownership=OWNED),
    ),
    (
        "renew_ownership",
        ([GRANT],),
        {},
        "RenewOwnership",
        RenewOwnershipRequest(grants=[GRANT]),
        RenewOwnershipResponse(lost=[GRANT]),
        RenewOwnershipResponse(lost=[GRANT]),
    ),
    (
        "release_ownership",
        (GRANT,),
        {},
        "ReleaseOwnership",
        ReleaseOwnershipRequest(grant=GRANT),
        ReleaseOwnershipResponse(ownership=OWNED),
        OWNED,
    ),
    (
        "propose",
        (),
        {"request_id": "r", "ticket": 7, "owner_epoch": 3, "action": STOP, "dry_run": True},
        "Propose",
        ProposeRequest(request_id="r", ticket=7, owner_epoch=3, action=STOP, dry_run=True),
        ProposeResponse(decision=Decision(granted=True)),
        ProposeResponse(decision=Decision(granted=True)),
    ),
    (
        "explain",
        (),
        {"request_id": "r", "manager": "m"},
        "Explain",
        ExplainRequest(request_id="r", manager="m"),
        ExplainResponse(summary="because"),
        ExplainResponse(summary="because"),
    ),
    (
        "report_score",
        ("EURUSD", Score(total=1.0)),
        {"valid_ms": 500},
        "ReportScore",
        ReportScoreRequest(symbol="EURUSD", score=Score(total=1.0), valid_ms=500),
        ReportScoreResponse(revision=9),
        ReportScoreResponse(revision=9),
    ),
    (
        "set_memo",
        (7, "frozen"),
        {},
        "SetMemo",
        SetMemoRequest(ticket=7, memo="frozen"),
        SetMemoResponse(revision=9),
        SetMemoResponse(revision=9),
    ),
    (
        "report_index",
        ("VIX", 21.5),
        {"valid_ms": 500},
        "ReportIndex",
        ReportIndexRequest(name="VIX", value=21.5, valid_ms=500),
        ReportIndexResponse(revision=9),
        ReportIndexResponse(revision=9),
    ),
    (
        "set_risk_budget",
        (7, 1.5),
        {"reason": "volatile"},
        "SetRiskBudget",
        SetRiskBudgetRequest(ticket=7, budget_r=1.5, reason="volatile"),
        SetRiskBudgetResponse(revision=9),
        SetRiskBudgetResponse(revision=9),
    ),
    (
        "system_status",
        (),
        {},
        "GetSystemStatus",
        GetSystemStatusRequest(),
        GetSystemStatusResponse(version="0.1.0"),
        GetSystemStatusResponse(version="0.1.0"),
    ),
    (
        "get_registration",
        (7,),
        {},
        "GetRegistration",
        GetRegistrationRequest(ticket=7),
        GetRegistrationResponse(registration=REGISTRATION, ownership=OWNED),
        GetRegistrationResponse(registration=REGISTRATION, ownership=OWNED),
    ),
    (
        "set_trading_state",
        (TRADING_STATE_REDUCING,),
        {"reason": "news"},
        "SetTradingState",
        SetTradingStateRequest(trading_state=TRADING_STATE_REDUCING, reason="news"),
        SetTradingStateResponse(revision=9),
        SetTradingStateResponse(revision=9),
    ),
    (
        "set_kill_switch",
        (KILL_SCOPE_SYMBOL, "EURUSD"),
        {"engaged": True, "reason": "news", "flatten": True},
        "SetKillSwitch",
        SetKillSwitchRequest(scope=KILL_SCOPE_SYMBOL, value="EURUSD", engaged=True, reason="news", flatten=True),
        SetKillSwitchResponse(revision=9),
        SetKillSwitchResponse(revision=9),
    ),
    (
        "reload_configuration",
        (),
        {"reason": "a new rank", "validate_only": True},
        "ReloadConfiguration",
        ReloadConfigurationRequest(reason="a new rank", validate_only=True),
        ReloadConfigurationResponse(streams_ended=2),
        ReloadConfigurationResponse(streams_ended=2),
    ),
    (
        "drain",
        (),
        {"reason": "upgrade"},
        "Drain",
        DrainRequest(reason="upgrade"),
        DrainResponse(revision=9),
        DrainResponse(revision=9),
    ),
    (
        "open_position",
        ("EURUSD", SIDE_BUY, 0.1),
        {"sl": 1.09},
        "OpenPosition",
        OpenPositionRequest(symbol="EURUSD", side=SIDE_BUY, volume=0.1, sl=1.09),
        OpenPositionResponse(retcode=10009, position=POSITION),
        OpenPositionResponse(retcode=10009, position=POSITION),
    ),
    (
        "close_position",
        (7,),
        {"volume": 0.05},
        "ClosePosition",
        ClosePositionRequest(ticket=7, volume=0.05),
        ClosePositionResponse(retcode=10009),
        ClosePositionResponse(retcode=10009),
    ),
    (
        "modify_position",
        (7,),
        {"sl": 1.09, "tp": None},
        "ModifyPosition",
        ModifyPositionRequest(ticket=7, sl=1.09),
        ModifyPositionResponse(retcode=10009),
        ModifyPositionResponse(retcode=10009),
    ),
    (
        "list_positions",
        (),
        {},
        "ListPositions",
        ListPositionsRequest(),
        ListPositionsResponse(positions=[POSITION]),
        (POSITION,),
    ),
]


def answering(response: Any) -> Callable[[Any, Context], Awaitable[Any]]:
    """A script that always answers the same."""

    async def answer(_request: Any, _context: Context) -> Any:
        return response

    return answer


@pytest.mark.parametrize("case", CALLS, ids=[case[0] for case in CALLS])
async def test_both_clients_send_the_same_and_answer_the_same(
    case: tuple[str, tuple[Any, ...], dict[str, Any], str, Any, Any, Any],
) -> None:
    """Each unary method sends its request with the credential and the deadline of timeouts.json, in both clients."""
    method, args, kwargs, rpc, request, response, value = case
    async with ScriptedService() as service:
        service.on(rpc, answering(response))
        async with AsyncClient(service.address, token="secret") as client:
            assert await getattr(client, method)(*args, **kwargs) == value
        with Client(service.address, token="secret") as client_of_threads:
            assert await asyncio.to_thread(getattr(client_of_threads, method), *args, **kwargs) == value
    assert service.requests(rpc) == [request, request]
    for call in service.calls:
        assert call.metadata["authorization"] == "Bearer secret"
        assert call.deadline_s == pytest.approx(deadlines().of(request), abs=0.5)


def test_the_clients_have_equal_methods() -> None:
    """The sync and the async client offer the same methods with the same parameters."""

    def surface(of: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(of, inspect.isfunction)
            if not name.startswith("_")
        }

    assert surface(Client) == surface(AsyncClient)
    streams = {"list_trades", "list_registrations", "list_decisions", "watch", "watch_quotes", "watch_bars", "backup"}
    assert {case[0] for case in CALLS} | streams | {"close"} == set(surface(Client))


def test_every_unary_method_of_the_protocol_has_a_method_here() -> None:
    """Nothing that answers once is left to be called by hand."""
    listed = {"ListTrades", "ListRegistrations", "ListDecisions"}
    assert {case[3] for case in CALLS} | listed == {name.partition("/")[2] for name in deadlines().seconds}


async def test_a_deadline_given_with_the_call_wins() -> None:
    """`timeout_s` takes the place of the shared deadline, and a frozen service costs no more than that."""
    async with ScriptedService() as service:
        service.on("GetTrade", never)
        async with AsyncClient(service.address, token="t") as client:
            with pytest.raises(errors.DeadlineExceeded) as caught:
                await client.get_trade(7, timeout_s=0.2)
    assert caught.value.method == "dtms.v1.TradeStatusService/GetTrade"
    deadline_s = service.calls[0].deadline_s
    assert deadline_s is not None
    assert deadline_s < 1.0


async def test_lists_are_read_to_the_last_page() -> None:
    """list_trades, list_registrations and list_decisions follow page tokens until there is none."""

    async def trades(request: Any, _context: Context) -> ListTradesResponse:
        number = int(request.page_token or "1")
        return ListTradesResponse(trades=[Trade(ticket=number)], next_page_token=str(number + 1) if number < 3 else "")

    async def registrations(request: Any, _context: Context) -> ListRegistrationsResponse:
        number = int(request.page_token or "1")
        return ListRegistrationsResponse(
            registrations=[Registration(ticket=number)], next_page_token=str(number + 1) if number < 3 else ""
        )

    async def decisions(request: Any, _context: Context) -> ListDecisionsResponse:
        number = int(request.page_token or "1")
        return ListDecisionsResponse(
            decisions=[Decision(decision_id=number)], next_page_token=str(number + 1) if number < 3 else ""
        )

    async with ScriptedService() as service:
        service.on("ListTrades", trades)
        service.on("ListRegistrations", registrations)
        service.on("ListDecisions", decisions)
        async with AsyncClient(service.address, token="t") as client:
            assert [trade.ticket async for trade in client.list_trades()] == [1, 2, 3]
            assert [each.ticket async for each in client.list_registrations(include_closed=True)] == [1, 2, 3]
            assert [decision.decision_id async for decision in client.list_decisions()] == [1, 2, 3]
        with Client(service.address, token="t") as threads:
            assert [trade.ticket for trade in await asyncio.to_thread(list, threads.list_trades())] == [1, 2, 3]
            registered = await asyncio.to_thread(list, threads.list_registrations())
            assert [registration.ticket for registration in registered] == [1, 2, 3]
            found = await asyncio.to_thread(list, threads.list_decisions())
            assert [decision.decision_id for decision in found] == [1, 2, 3]


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("INVALID_ARGUMENT", "FIELD_INVALID", errors.InvalidArgument),
        ("UNAUTHENTICATED", "CREDENTIAL_MISSING", errors.Unauthenticated),
        ("PERMISSION_DENIED", "ROLE_FORBIDDEN", errors.PermissionDenied),
        ("NOT_FOUND", "TRADE_UNKNOWN", errors.NotFound),
        ("NOT_FOUND", "ACCOUNT_UNKNOWN", errors.NotFound),
        ("NOT_FOUND", "SYMBOL_UNKNOWN", errors.NotFound),
        ("ALREADY_EXISTS", "TRADE_DIFFERS", errors.AlreadyExists),
        ("ALREADY_EXISTS", "REQUEST_ID_REUSED", errors.AlreadyExists),
        ("ABORTED", "STALE_EPOCH", errors.StaleEpoch),
        ("FAILED_PRECONDITION", "TRADE_CLOSED", errors.FailedPrecondition),
        ("FAILED_PRECONDITION", "NOT_LEADER", errors.FailedPrecondition),
        ("FAILED_PRECONDITION", "MODE_UNSUPPORTED", errors.FailedPrecondition),
        ("OUT_OF_RANGE", "COMPACTED", errors.Compacted),
        ("OUT_OF_RANGE", "FUTURE_REVISION", errors.OutOfRange),
        ("RESOURCE_EXHAUSTED", "LIMIT_REACHED", errors.ResourceExhausted),
        ("RESOURCE_EXHAUSTED", "RATE_EXCEEDED", errors.ResourceExhausted),
        ("UNAVAILABLE", "RECOVERING", errors.Unavailable),
        ("UNAVAILABLE", "DRAINING", errors.Unavailable),
        ("UNAVAILABLE", "BROKER_DISCONNECTED", errors.Unavailable),
        ("INTERNAL", "CORE_PANIC", errors.Internal),
        ("DATA_LOSS", "", errors.Unexpected),
    ],
)
async def test_every_reason_has_its_error(code: str, reason: str, kind: type[errors.DtmsError]) -> None:
    """Status and ErrorInfo become one class with the reason, in both clients."""

    async def answer(_request: Any, context: Context) -> Any:
        await refuse(context, grpc.StatusCode[code], reason, metadata={"fact": "1"})

    async with ScriptedService() as service:
        # Not a method that the retry policy repeats: UNAVAILABLE must come through at once.
        service.on("ReleaseOwnership", answer)
        async with AsyncClient(service.address, token="t") as client:
            with pytest.raises(errors.DtmsError) as caught:
                await client.release_ownership(GRANT)
        with Client(service.address, token="t") as threads, pytest.raises(errors.DtmsError) as caught_by_thread:
            await asyncio.to_thread(threads.release_ownership, GRANT)
    for error in (caught.value, caught_by_thread.value):
        assert type(error) is kind
        assert (error.reason, error.metadata, error.message) == (reason, {"fact": "1"}, "refused by script")


def test_the_table_of_reasons_is_complete() -> None:
    """The test above knows every reason of the protocol."""
    mark = next(mark for mark in test_every_reason_has_its_error.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    tested = {reason for _, reason, _ in mark.args[1]} - {""}
    assert tested == {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }


async def test_violations_and_pauses_arrive() -> None:
    """BadRequest names the fields, RetryInfo the pause."""

    async def answer(_request: Any, context: Context) -> Any:
        violations = {"registration.volume": "off step"}
        await refuse(
            context, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", violations=violations, retry_after_s=1.5
        )

    async with ScriptedService() as service:
        service.on("RegisterTrade", answer)
        async with AsyncClient(service.address, token="t") as client:
            with pytest.raises(errors.InvalidArgument) as caught:
                await client.register_trade(REGISTRATION)
    assert caught.value.violations == (errors.Violation("registration.volume", "off step"),)
    assert caught.value.retry_after_s == 1.5
    assert "registration.volume: off step" in str(caught.value)


async def test_foreign_details_leave_the_status_to_speak() -> None:
    """Details that are no google.rpc.Status do not hide the error behind another one."""

    async def answer(_request: Any, context: Context) -> Any:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    async with ScriptedService() as service:
        service.on("GetTrade", answer)
        async with AsyncClient(service.address, token="t") as client:
            with pytest.raises(errors.NotFound, match="no such thing"):
                await client.get_trade(7)


async def test_propose_is_repeated_with_the_same_request_id_on_unavailable() -> None:
    """The shared retry policy repeats a proposal by itself, under one request_id."""

    async def answer(_request: Any, context: Context) -> Any:
        if len(service.calls) < 3:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "RECOVERING")
        return ProposeResponse(decision=Decision(granted=True))

    async with ScriptedService() as service:
        service.on("Propose", answer)
        async with AsyncClient(service.address, token="t") as client:
            request_id = new_request_id()
            response = await client.propose(request_id=request_id, ticket=7, owner_epoch=3, action=STOP)
    assert response.decision.granted
    assert [request.request_id for request in service.requests("Propose")] == [request_id] * 3


async def test_nobody_there_is_unavailable() -> None:
    """A service that is not running is Unavailable, for both clients, and never a bare gRPC error."""
    async with ScriptedService() as service:
        address = service.address
    async with AsyncClient(address, token="t") as client:
        with pytest.raises(errors.Unavailable):
            await client.release_ownership(GRANT)
    with Client(address, token="t") as threads, pytest.raises(errors.Unavailable):
        await asyncio.to_thread(threads.release_ownership, GRANT)


async def test_a_closed_client_says_so() -> None:
    """A call on a closed client is Cancelled/CLIENT_CLOSED."""
    client = AsyncClient("127.0.0.1:1", token="t")
    await client.close()
    with pytest.raises(errors.Cancelled) as caught:
        await client.system_status()
    assert caught.value.reason == "CLIENT_CLOSED"
    threads = Client("127.0.0.1:1", token="t")
    threads.close()
    with pytest.raises(errors.Cancelled) as caught:
        threads.system_status()
    assert caught.value.reason == "CLIENT_CLOSED"


def test_every_public_name_is_found() -> None:
    """What the package says it offers can be imported from it, and nothing else."""
    for name in dtms_client.__all__:
        assert getattr(dtms_client, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = dtms_client.nothing


async def test_a_client_belongs_to_one_loop() -> None:
    """An AsyncClient used from a second loop says so instead of hanging."""

    def elsewhere() -> None:
        async def use() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await client.system_status()

        asyncio.run(use())

    async with AsyncClient("127.0.0.1:1", token="t") as client:
        await asyncio.to_thread(elsewhere)


def test_explain_takes_exactly_one_key() -> None:
    """Two keys, or none, are refused before anything is sent."""
    with Client("127.0.0.1:1", token="t") as client:
        with pytest.raises(ValueError, match="exactly one"):
            client.explain()
        with pytest.raises(ValueError, match="exactly one"):
            client.explain(decision_id=1, revision=2)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:50051", "127.9.9.9:1", "[::1]:50051", "localhost:50051", "unix:/run/dtms.sock"]
)
def test_this_machine_needs_no_tls(address: str) -> None:
    """Loopback and local sockets are reached with the plain credential."""
    Client(address, token="t").close()


@pytest.mark.parametrize("address", ["10.0.0.5:50051", "dtms.example:443", "0.0.0.0:50051", "[2001:db8::1]:443"])
def test_another_machine_needs_tls(address: str) -> None:
    """The token is never sent in the clear over a network."""
    with pytest.raises(ValueError, match="not on this machine"):
        Client(address, token="t")
    with pytest.raises(ValueError, match="not on this machine"):
        AsyncClient(address, token="t")
    AsyncClient(address, token="t", root_certificates=b"pem")


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", "localhost:0", "localhost:x", "::1:5", ":5"])
def test_a_wrong_address_is_named(address: str) -> None:
    """What is no address is refused with its text."""
    with pytest.raises(ValueError, match="address"):
        Client(address, token="t")


def test_exactly_one_token_is_needed(tmp_path: Path) -> None:
    """A token or a file that holds one, not both, not neither, not an empty one."""
    file = tmp_path / "token"
    file.write_text("from-file\n")
    with Client("localhost:1", token_file=file) as client:
        assert client.metadata == (("authorization", "Bearer from-file"),)
    with pytest.raises(ValueError, match="exactly one"):
        Client("localhost:1")
    with pytest.raises(ValueError, match="exactly one"):
        Client("localhost:1", token="t", token_file=file)
    with pytest.raises(ValueError, match="printable"):
        Client("localhost:1", token="two words")
    file.write_text("\n")
    with pytest.raises(ValueError, match="token_file"):
        Client("localhost:1", token_file=file)
    with pytest.raises(FileNotFoundError):
        Client("localhost:1", token_file=tmp_path / "absent")
