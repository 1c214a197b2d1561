"""What every call goes through, whichever method it is: errors, credential, role, stage, deadline, logging, metrics.

The wrapping happens once per method when the server is built, from the service descriptor: a call pays for no chain of
interceptors, and a servicer method is plain ``async def GetTrade(self, request, call)``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from prometheus_client import Counter, Histogram

from dtms_service import status
from dtms_service._core import CorePanic
from dtms_service.credentials import Credentials, Principal, Role
from dtms_service.errors import DtmsError, FatalError, Reason
from dtms_service.fault_points import Point, reach
from dtms_service.stage import Stage

log = structlog.get_logger(__name__)

CALLS = Counter("dtms_calls_total", "Finished calls", ["method", "code"])
SECONDS = Histogram(
    "dtms_call_seconds",
    "Unary calls, from the request to the answer",
    ["method"],
    buckets=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1, 10),
)

_BEARER = "Bearer "
MAX_CORRELATION_CHARS = 64  # longer ones are cut: they go into every log line of the call


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a method, and whether it changes anything (refused while recovering or draining)."""

    roles: frozenset[Role]
    writes: bool


@dataclass(frozen=True, slots=True)
class Call:
    """What a servicer may know of its caller."""

    principal: Principal
    context: grpc.aio.ServicerContext[Any, Any]
    correlation_id: str


def _access() -> dict[str, Access]:
    everybody = frozenset({Role.MANAGER, Role.OPERATOR, Role.VIEWER, Role.FEED, Role.GATEWAY})
    managers = frozenset({Role.MANAGER, Role.OPERATOR})
    feeds = frozenset({Role.FEED, Role.OPERATOR})
    read, operate = Access(everybody, writes=False), Access(frozenset({Role.OPERATOR}), writes=True)
    manage, feed = Access(managers, writes=True), Access(feeds, writes=True)
    return {
        "RegistryService/RegisterTrade": Access(managers | {Role.FEED}, writes=True),
        "RegistryService/GetRegistration": read,
        "RegistryService/ListRegistrations": read,
        "RegistryService/UnregisterTrade": manage,
        "RegistryService/GetOwnership": read,
        "TradeStatusService/GetTrade": read,
        "TradeStatusService/BatchGetTrades": read,
        "TradeStatusService/ListTrades": read,
        "TradeStatusService/GetScore": read,
        "TradeStatusService/Watch": read,
        "ArbitrationService/AcquireOwnership": manage,
        "ArbitrationService/RenewOwnership": manage,
        "ArbitrationService/ReleaseOwnership": manage,
        "ArbitrationService/Propose": manage,
        "ArbitrationService/SetMemo": Access(frozenset({Role.MANAGER}), writes=True),
        "ArbitrationService/Explain": read,
        "ArbitrationService/ListDecisions": read,
        "MarketDataService/StreamTicks": feed,
        "MarketDataService/StreamBars": feed,
        "MarketDataService/ReportScore": feed,
        "MarketDataService/ReportIndex": feed,
        "MarketDataService/WatchBars": read,
        "MarketDataService/WatchQuotes": read,
        "LockstepService/Join": Access(frozenset({Role.MANAGER}), writes=False),
        "GatewayService/Attach": Access(frozenset({Role.GATEWAY}), writes=False),
        "PaperService/OpenPosition": Access(feeds | {Role.MANAGER}, writes=True),
        "PaperService/ClosePosition": Access(feeds | {Role.MANAGER}, writes=True),
        "PaperService/ModifyPosition": Access(feeds | {Role.MANAGER}, writes=True),
        "PaperService/ListPositions": read,
        "AdminService/GetSystemStatus": read,
        "AdminService/SetTradingState": operate,
        "AdminService/SetKillSwitch": operate,
        "AdminService/SetRiskBudget": operate,
        "AdminService/ReloadConfiguration": operate,
        "AdminService/Backup": Access(frozenset({Role.OPERATOR}), writes=False),
        "AdminService/Drain": Access(frozenset({Role.OPERATOR}), writes=False),
    }


ACCESS = _access()
SENDS = {
    "TradeStatusService/Watch": Point.WATCH_SEND,
    "MarketDataService/StreamTicks": Point.TICKS_ANSWER,
    "MarketDataService/StreamBars": Point.BARS_ANSWER,
    "MarketDataService/WatchBars": Point.BARS_SEND,
    "MarketDataService/WatchQuotes": Point.QUOTES_SEND,
    "LockstepService/Join": Point.JOIN_SEND,
    "GatewayService/Attach": Point.ATTACH_SEND,
    "AdminService/Backup": Point.BACKUP_SEND,
}
# Ends by itself when the service drains, because only it can say where to resume.
_ENDS_BY_ITSELF = frozenset({"TradeStatusService/Watch"})


def default_deadlines() -> dict[str, float]:
    """Seconds for each unary method, from the data that all clients share (timeouts.json)."""
    data = json.loads(resources.files("dtms_client").joinpath("timeouts.json").read_text())
    return {method.removeprefix("dtms.v1."): seconds for method, seconds in data["methods"].items()}


@dataclass(eq=False, slots=True)
class _Stream:
    """An open stream, whose it is, and why the service ended it."""

    task: asyncio.Task[Any]
    principal: Principal
    ends_by_itself: bool
    why: DtmsError | None = None
    # A task that is cancelled while gRPC sends ends without a status, and its client waits for ever.
    is_sending: bool = False

    def end(self, why: DtmsError) -> None:
        if self.why is None:
            self.why = why
            if not self.is_sending:
                self.task.cancel()

    def raise_if_ended(self) -> None:
        if self.why is not None:
            raise self.why


class Pipeline:
    """Builds the handlers of a service. ``stage`` is asked at each call; ``on_fatal`` ends the process."""

    def __init__(
        self,
        credentials: Credentials,
        stage: Callable[[], Stage],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._credentials = credentials
        self._stage = stage
        self._on_fatal = on_fatal
        self._deadlines = default_deadlines()
        self._correlation = itertools.count(1)
        self._streams: set[_Stream] = set()

    def end_streams(self) -> None:
        """Streams end with DRAINING, wherever they wait: their clients would hold the service up for ever."""
        for stream in self._streams:
            if not stream.ends_by_itself:
                stream.end(_draining())

    @property
    def credentials(self) -> Credentials:
        return self._credentials

    def take(self, credentials: Credentials) -> int:
        """Knows callers by these from now on; streams of a token that is none any more end. How many did."""
        self._credentials = credentials
        revoked = [stream for stream in self._streams if not credentials.holds(stream.principal)]
        for stream in revoked:
            stream.end(_unknown_token())
        return len(revoked)

    def handler(self, service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
        """All methods of the service, from the servicer's methods of the same names."""
        return grpc.method_handlers_generic_handler(
            service.full_name,
            {method.name: self._method(method, getattr(servicer, method.name)) for method in service.methods},
        )

    def _method(self, method: MethodDescriptor, serve: Callable[..., Any]) -> grpc.RpcMethodHandler[Any, Any]:
        name = f"{method.containing_service.name}/{method.name}"
        request_class = message_factory.GetMessageClass(method.input_type)
        if not method.server_streaming:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(name, serve), request_deserializer=request_class.FromString, response_serializer=_serialise
            )
        make = (
            grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(
            self._stream(name, serve), request_deserializer=request_class.FromString, response_serializer=_serialise
        )

    def _unary(self, name: str, serve: Callable[[Message, Call], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        access, deadline = ACCESS[name], self._deadlines[name]
        seconds, ok = SECONDS.labels(name), CALLS.labels(name, "OK")

        async def unary(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            try:
                call = self._admit(access, context)
                if context.time_remaining() is None:
                    async with asyncio.timeout(deadline):
                        answer = await serve(request, call)
                else:
                    answer = await serve(request, call)
            except Exception as error:
                await self._abort(name, error, context)
                raise
            except CorePanic as panic:
                await self._panic(name, panic, context)
                raise
            ok.inc()
            seconds.observe(time.perf_counter() - started)
            reach(Point.ANSWER)
            return answer

        return unary

    def _stream(self, name: str, serve: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        access, point = ACCESS[name], SENDS[name]
        ok = CALLS.labels(name, "OK")

        async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            opened: _Stream | None = None
            try:
                call, task = self._admit(access, context), asyncio.current_task()
                assert task is not None, "gRPC serves each stream in a task"
                opened = _Stream(task, call.principal, name in _ENDS_BY_ITSELF)
                self._streams.add(opened)
                try:
                    async for answer in serve(request, call):
                        opened.raise_if_ended()
                        reach(point)
                        opened.is_sending = True
                        yield answer
                        opened.is_sending = False
                        opened.raise_if_ended()
                finally:
                    self._streams.discard(opened)
            except asyncio.CancelledError:
                if opened is not None and opened.why is not None and not opened.is_sending:
                    opened.task.uncancel()
                    await self._abort(name, opened.why, context)
                raise
            except Exception as error:
                await self._abort(name, error, context)
                raise
            except CorePanic as panic:
                await self._panic(name, panic, context)
                raise
            ok.inc()

        return stream

    def _admit(self, access: Access, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
        principal, correlation_id = None, ""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization" and isinstance(value, str) and value.startswith(_BEARER):
                principal = self._credentials.identify(value.removeprefix(_BEARER))
            elif key == "x-correlation-id":
                correlation_id = str(value)[:MAX_CORRELATION_CHARS]
        if principal is None:
            raise _unknown_token()
        if principal.role not in access.roles:
            raise DtmsError(
                Reason.ROLE_FORBIDDEN,
                f"{principal.name} has role {principal.role.name}; this needs one of "
                + ", ".join(sorted(role.name for role in access.roles)),
                metadata={"role": principal.role.name},
            )
        if access.writes and (stage := self._stage()) is not Stage.SERVING:
            reason = Reason.RECOVERING if stage is Stage.RECOVERING else Reason.DRAINING
            raise DtmsError(reason, f"the service is {stage.name.lower()}", retry_after_s=1.0)
        call = Call(principal, context, correlation_id or f"{next(self._correlation):x}")
        if access.writes:
            structlog.contextvars.bind_contextvars(correlation=call.correlation_id, caller=principal.name)
        return call

    async def _abort(self, name: str, error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if isinstance(error, grpc.aio.AbortError):
            return
        if isinstance(error, DtmsError):
            code = status.CODE_OF[error.reason]
            CALLS.labels(name, code.name).inc()
            log.info("refused", method=name, reason=error.reason.value, message=error.message)
            await context.abort_with_status(status.to_status(error))
        if isinstance(error, TimeoutError):
            CALLS.labels(name, "DEADLINE_EXCEEDED").inc()
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "outcome unknown: repeat with the same request_id")
        CALLS.labels(name, "INTERNAL").inc()
        log.error("call_failed", method=name, exc_info=error)
        if isinstance(error, FatalError):
            self._on_fatal(error)
        # The text of an unexpected error may hold anything: it stays in the log.
        await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}; see the service's log")

    async def _panic(self, name: str, panic: CorePanic, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        CALLS.labels(name, "INTERNAL").inc()
        log.critical("core_panic", method=name, exc_info=panic)
        self._on_fatal(panic)
        error = DtmsError(Reason.CORE_PANIC, "the core failed; the service stops and starts again by replay")
        await context.abort_with_status(status.to_status(error))


def _unknown_token() -> DtmsError:
    return DtmsError(Reason.CREDENTIAL_MISSING, "metadata authorization: Bearer TOKEN is missing or unknown")


def _draining() -> DtmsError:
    return DtmsError(Reason.DRAINING, "the service stops", retry_after_s=1.0)


def _serialise(answer: Message | bytes) -> bytes:
    """Events and trades are encoded once, by the desk; everything else here."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()
