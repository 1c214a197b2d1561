"""A stand-in for the service, for tests of programs that use these clients: a real gRPC server with scripted answers.

::

    async with ScriptedService() as service:
        service.on("GetTrade", answer)      # async def answer(request, context) -> GetTradeResponse
        async with AsyncClient(service.address, token="test") as client: ...

A method without a script is UNIMPLEMENTED. `refuse` ends a call as DTMS does; `never` is a service that froze.
`ManualTime` takes the place of the clock for ownership sessions and registrars.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from dtms.v1 import (
    admin_service_pb2,
    arbitration_service_pb2,
    lockstep_service_pb2,
    market_data_service_pb2,
    paper_service_pb2,
    registry_service_pb2,
    trade_status_service_pb2,
)
from dtms_client._alarm import Alarm, AsyncAlarm
from dtms_client.errors import DOMAIN

_SleeperT = TypeVar("_SleeperT", bound="_ManualAlarm | _ManualAsyncAlarm")

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Script: TypeAlias = Callable[[Any, Context], Awaitable[Any] | AsyncIterator[Any]]
"""Takes the request, or the iterator of requests; answers with a response, or yields responses."""

PATIENCE_S = 20.0
"""Longer than any worker takes for its work on a busy machine."""

FLIGHT_S = 0.05
"""Of real time, for a sleep in a time that flies: what is under way over loopback gets its chance."""

_METHODS: Mapping[str, MethodDescriptor] = {
    method.name: method
    for module in (
        admin_service_pb2,
        arbitration_service_pb2,
        lockstep_service_pb2,
        market_data_service_pb2,
        paper_service_pb2,
        registry_service_pb2,
        trade_status_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call that came in; `request` is None where the client streams, `deadline_s` where it set none."""

    method: str
    request: Any
    metadata: Mapping[str, str]
    deadline_s: float | None


class ScriptedService:
    """One server on this machine at a time; it can be stopped and started again on the same port."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._scripts: dict[str, Script] = {}
        self._server: grpc.aio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        """Where it listens, also while it is stopped."""
        return f"127.0.0.1:{self._port}"

    def on(self, method: str, script: Script) -> None:
        """Sets the answer of a method, "GetTrade" for example. Raises KeyError for a method that does not exist."""
        self._scripts[_METHODS[method].name] = script

    def requests(self, method: str) -> list[Any]:
        """What was asked of a method so far, in order."""
        return [call.request for call in self.calls if call.method == method]

    async def start(self) -> None:
        """Listens, on the port of the time before if there was one."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers((_Router(self._scripts, self.calls),))
        self._port = self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        """Breaks all calls and goes away."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None


class ManualTime:
    """A time that stands still until the test moves it, for any number of workers."""

    def __init__(self, start_s: float = 1_000.0) -> None:
        self.now_s = start_s
        self.flies = False
        self._changed = threading.Condition()
        self._sleepers: list[_ManualAlarm | _ManualAsyncAlarm] = []

    def alarm(self) -> Alarm:
        """For a worker that is a thread."""
        return self._enlisted(_ManualAlarm(self, self._changed))

    def async_alarm(self) -> AsyncAlarm:
        """For a worker that is a task of the running loop."""
        return self._enlisted(_ManualAsyncAlarm(self, self._changed))

    def advance(self, seconds: float) -> None:
        """Moves the time and wakes whoever slept until then."""
        with self._changed:
            self.now_s += seconds
            self._changed.notify_all()
            for sleeper in self._sleepers:
                sleeper.wake()

    def fly(self) -> None:
        """From now on the time moves by itself: nobody sleeps longer than `FLIGHT_S` of real time."""
        with self._changed:
            self.flies = True
        self.advance(0.0)

    async def asleep(self) -> float:
        """Waits until a worker sleeps until some moment, and returns the seconds that are left."""
        return await asyncio.to_thread(self._asleep)

    async def skip(self) -> float:
        """As `asleep`, and moves the time there."""
        left_s = await self.asleep()
        self.advance(left_s)
        return left_s

    async def until(self, fact: Callable[[], bool]) -> None:
        """Waits until the fact holds; looks whenever a worker goes to sleep."""
        await asyncio.to_thread(self._until, fact)

    def _until(self, fact: Callable[[], object]) -> None:
        with self._changed:
            if not self._changed.wait_for(fact, PATIENCE_S):
                raise TimeoutError(f"not so within {PATIENCE_S:g} s")

    def _asleep(self) -> float:
        def ends() -> list[float]:
            return [each.until_s for each in self._sleepers if each.until_s is not None and each.until_s > self.now_s]

        with self._changed:
            if not self._changed.wait_for(ends, PATIENCE_S):
                raise TimeoutError(f"nobody has slept for {PATIENCE_S:g} s: the worker hangs or waits for a ring")
            return min(ends()) - self.now_s

    def _enlisted(self, sleeper: _SleeperT) -> _SleeperT:
        self._sleepers.append(sleeper)
        return sleeper


class _ManualAlarm(Alarm):
    def __init__(self, time: ManualTime, changed: threading.Condition) -> None:
        super().__init__()
        self._time = time
        self._changed = changed
        self.until_s: float | None = None

    def now_s(self) -> float:
        return self._time.now_s

    def ring(self) -> None:
        with self._changed:
            self._rung, self.until_s = True, None
            self._changed.notify_all()

    def wake(self) -> None:
        """The condition is shared: it has told already."""

    def wait_until(self, deadline_s: float | None) -> None:
        with self._changed:
            self.until_s = None if self._rung else deadline_s
            self._changed.notify_all()
            while not self._rung and (deadline_s is None or deadline_s > self.now_s()):
                if deadline_s is None or not self._time.flies:
                    self._changed.wait()
                elif not self._changed.wait(FLIGHT_S):
                    self._time.now_s = max(self.now_s(), deadline_s)
            self._rung, self.until_s = False, None


class _ManualAsyncAlarm(AsyncAlarm):
    def __init__(self, time: ManualTime, changed: threading.Condition) -> None:
        super().__init__()
        self._time = time
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self.until_s: float | None = None

    def now_s(self) -> float:
        return self._time.now_s

    def ring(self) -> None:
        with self._changed:
            self.until_s = None
        super().ring()

    def wake(self) -> None:
        """Lets the task look at the time again."""
        self._loop.call_soon_threadsafe(self._rung.set)

    async def wait_until(self, deadline_s: float | None) -> None:
        with self._changed:
            self.until_s = None if self._rung.is_set() else deadline_s
            self._changed.notify_all()
        if deadline_s is None or deadline_s > self.now_s():
            try:
                async with asyncio.timeout(FLIGHT_S if self._time.flies and deadline_s is not None else None):
                    await self._rung.wait()
            except TimeoutError:
                self._time.now_s = max(self.now_s(), deadline_s or 0.0)
        self._rung.clear()
        with self._changed:
            self.until_s = None


class _Router(grpc.GenericRpcHandler):
    def __init__(self, scripts: Mapping[str, Script], calls: list[Call]) -> None:
        self._scripts = scripts
        self._calls = calls

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method, None where nothing is scripted."""
        path: str | bytes = handler_call_details.method
        name = (path.decode() if isinstance(path, bytes) else path).rpartition("/")[2]
        script = self._scripts.get(name)
        return None if script is None else _handler(_METHODS[name], script, self._calls)


def _handler(method: MethodDescriptor, script: Script, calls: list[Call]) -> grpc.RpcMethodHandler[Any, Any]:
    def note(request: Any, context: Context) -> None:  # noqa: ANN401 - any message, or an iterator of them
        calls.append(
            Call(
                method=method.name,
                request=request if isinstance(request, Message) else None,
                metadata={str(key): str(value) for key, value in context.invocation_metadata() or ()},
                deadline_s=context.time_remaining(),
            )
        )

    async def one(request: Any, context: Context) -> Any:  # noqa: ANN401 - as above
        note(request, context)
        answer = script(request, context)
        assert isinstance(answer, Awaitable), f"{method.name}: the script must be a coroutine function"
        return await answer

    async def many(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401 - as above
        note(request, context)
        answers = script(request, context)
        assert isinstance(answers, AsyncIterator), f"{method.name}: the script must be an async generator function"
        async for answer in answers:
            yield answer

    read: Callable[[bytes], Any] = message_factory.GetMessageClass(method.input_type).FromString
    handler: grpc.RpcMethodHandler[Any, Any]
    if method.client_streaming:
        handler = grpc.stream_stream_rpc_method_handler(many, read, _write)
    elif method.server_streaming:
        handler = grpc.unary_stream_rpc_method_handler(many, read, _write)
    else:
        handler = grpc.unary_unary_rpc_method_handler(one, read, _write)
    return handler


def _write(message: Message) -> bytes:
    return message.SerializeToString()


async def never(_request: object, _context: Context) -> NoReturn:
    """A script that does not answer."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")


async def refuse(
    context: Context,
    code: grpc.StatusCode,
    reason: str,
    message: str = "refused by script",
    *,
    metadata: Mapping[str, str] | None = None,
    violations: Mapping[str, str] | None = None,
    retry_after_s: float | None = None,
) -> NoReturn:
    """Ends the call with a status and details, as the service does."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata or {})]
    if violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=name, description=why) for name, why in violations.items()
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if retry_after_s is not None:
        delay = duration_pb2.Duration(seconds=int(retry_after_s), nanos=round(retry_after_s % 1 * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        box = any_pb2.Any()
        box.Pack(detail)
        packed.append(box)
    status = rpc_status.to_status(status_pb2.Status(code=_number(code), message=message, details=packed))
    context.set_trailing_metadata(status.trailing_metadata)
    await context.abort(status.code, status.details)
    raise AssertionError("unreachable")


def _number(code: grpc.StatusCode) -> int:
    number: int = code_pb2.Code.Value(code.name)
    return number
