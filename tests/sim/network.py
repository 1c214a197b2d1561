"""gRPC without sockets: channels and a server that carry serialised bytes over links that can do whatever networks do.

A link joins one host with the service. Messages of a stream keep their order; calls overtake each other. A cut link
holds what is sent, as TCP does, until it is healed or the keepalive gives the connection up.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from importlib import resources
from random import Random
from typing import Any, Final, Protocol, Self

import grpc
import grpc.aio

from dtms_client._channel import Target
from dtms_client.errors import from_rpc
from tests.sim.virtual_loop import HOST, Host, VirtualLoop

KEEPALIVE_S: Final = 15.0  # of both ends; 30 to 40 s in the real ones, shortened as all times of the world are
RESET_S: Final = 0.2  # until the loss of a single message is noticed, where it is
WINDOW: Final = 8  # messages that a stream may have unread: flow control

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailing: tuple[tuple[str, str | bytes], ...] = ()

    def error(self) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(
            self.code, grpc.aio.Metadata(), grpc.aio.Metadata(*self.trailing), details=self.details
        )


class Record(Protocol):
    """Who keeps what clients said and heard."""

    def sent(self, client: str, path: str, deadline_s: float | None, request: Any) -> int: ...
    def answered(self, number: int, response: Any) -> None: ...
    def failed(self, number: int, error: Any) -> None: ...
    def streamed(self, number: int, response: Any) -> None: ...


@dataclass(eq=False)
class Link:
    """One host's way to the service and back. Probabilities are those of each unary call."""

    host: Host
    random: Random
    loop: VirtualLoop
    latency_s: tuple[float, float] = (0.0005, 0.002)
    lose_request: float = 0.0
    lose_reply: float = 0.0
    duplicate: float = 0.0
    up: bool = True
    down: bool = True
    calls: list[_Call] = field(default_factory=list)
    _stalled_up: list[Callable[[], None]] = field(default_factory=list)
    _stalled_down: list[Callable[[], None]] = field(default_factory=list)
    _cuts: int = 0

    def __post_init__(self) -> None:
        context = copy_context()
        context.run(HOST.set, None)
        self.nowhere: Context = context

    def delay_s(self) -> float:
        return self.random.uniform(*self.latency_s)

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """In the network: no host's freezing stops it."""
        self.loop.call_later(delay_s, what, context=self.nowhere)

    def send_up(self, deliver: Callable[[], None], delay_s: float | None = None) -> None:
        if self.up:
            self.later(self.delay_s() if delay_s is None else delay_s, deliver)
        else:
            self._stalled_up.append(deliver)

    def send_down(self, deliver: Callable[[], None], delay_s: float | None = None) -> None:
        if self.down:
            self.later(self.delay_s() if delay_s is None else delay_s, deliver)
        else:
            self._stalled_down.append(deliver)

    def cut(self, *, up: bool, down: bool) -> None:
        """Nothing passes these ways; the keepalive ends what is open when it lasts."""
        self.up, self.down = self.up and not up, self.down and not down
        self._cuts += 1
        cuts = self._cuts
        self.later(KEEPALIVE_S, lambda: self.reset("keepalive") if self._cuts == cuts else None)

    def heal(self) -> None:
        self._cuts += 1
        self.up = self.down = True
        stalled = [*self._stalled_up, *self._stalled_down]
        self._stalled_up, self._stalled_down = [], []
        for place, deliver in enumerate(stalled):
            self.later(0.001 + place * 1e-6, deliver)

    def reset(self, why: str, *, server_hears: bool = True) -> None:
        """The connection is gone; half open, the server learns it from its keepalive only."""
        calls, self.calls = self.calls, []
        for call in calls:
            call.end(Status(UNAVAILABLE, why))
            if server_hears:
                call.hang_up()
            else:
                self.later(KEEPALIVE_S, call.hang_up)
        self._stalled_up.clear()
        self._stalled_down.clear()


@dataclass(eq=False, slots=True)
class _Endpoint:
    """A service that listens."""

    host: Host
    methods: Mapping[str, Any]
    open: dict[_Call, None] = field(default_factory=dict)  # in order of arrival


class Network:
    """The service's address, and who listens there now."""

    def __init__(self, loop: VirtualLoop, record: Record) -> None:
        self.loop, self.record = loop, record
        self.endpoint: _Endpoint | None = None
        self.world: Any = None
        policy = json.loads(resources.files("dtms_client").joinpath("service_config.json").read_text())["methodConfig"]
        self._retried = {(each["service"], each.get("method")) for each in policy[0]["name"]}

    def listen(self, host: Host, handlers: Sequence[Any], paths: Sequence[str]) -> None:
        """``handlers`` are gRPC's generic handlers."""
        methods = {}
        for path in paths:
            details = _Details(path)
            methods[path] = next(found for handler in handlers if (found := handler.service(details)) is not None)
        self.endpoint = _Endpoint(host, methods)

    def refuse(self) -> None:
        """Whoever listened is dead: connections break."""
        endpoint, self.endpoint = self.endpoint, None
        for call in endpoint.open if endpoint else ():
            call.link.send_down(lambda call=call: call.end(Status(UNAVAILABLE, "connection reset")))  # type: ignore[misc]

    def is_retried(self, path: str) -> bool:
        _, service, method = path.split("/")
        return (service, None) in self._retried or (service, method) in self._retried


@dataclass(frozen=True, slots=True)
class _Details:
    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


class _Context:
    """What a servicer and the pipeline ask of gRPC's context."""

    def __init__(self, metadata: Sequence[tuple[str, str]], deadline_s: float | None, loop: VirtualLoop) -> None:
        self._metadata, self._deadline_s, self._loop = tuple(metadata), deadline_s, loop
        self.status: Status | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return None if self._deadline_s is None else max(self._deadline_s - self._loop.time(), 0.0)

    async def abort_with_status(self, status: grpc.Status) -> None:
        self.status = Status(status.code, status.details, tuple(status.trailing_metadata or ()))
        raise grpc.aio.AbortError

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status = Status(code, details)
        raise grpc.aio.AbortError


class _Call:
    """One call, both ends of it. The client's end learns all through the link."""

    def __init__(self, channel: Channel, path: str, data: bytes | None, deadline_s: float | None) -> None:
        self.network, self.link, self.path = channel.network, channel.link, path
        self.metadata, self.deadline_s = channel.metadata, deadline_s
        self.loop = self.link.loop
        self.status: asyncio.Future[Status] = self.loop.create_future()
        self.arrived: deque[bytes] = deque()
        self.news = asyncio.Event()
        self._room = asyncio.Semaphore(WINDOW)
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._last_up_s = self._last_down_s = 0.0
        self._endpoint: _Endpoint | None = None
        self.link.calls.append(self)
        self._begin(data)

    # ---- the client's end

    def _begin(self, data: bytes | None) -> None:
        link, random = self.link, self.link.random
        endpoint = self.network.endpoint
        if endpoint is None:
            link.send_down(lambda: self.end(Status(UNAVAILABLE, "connection refused")))
            return
        if data is not None and random.random() < link.lose_request:
            self._broken()
            return
        self._last_up_s = self.loop.time() + link.delay_s()
        link.send_up(lambda: self._accept(endpoint, data), self._last_up_s - self.loop.time())
        if data is not None and random.random() < link.duplicate:
            link.send_up(lambda: self._accept_twin(endpoint, data), link.delay_s() * 3)

    def _broken(self) -> None:
        """The message is lost: the connection breaks, or nobody ever says a word."""
        if self.link.random.random() < 0.5:
            self.link.later(RESET_S, lambda: self.end(Status(UNAVAILABLE, "connection reset")))

    def end(self, status: Status) -> None:
        """The client's end knows how it ended."""
        if not self.status.done():
            self.status.set_result(status)
            self.news.set()
        if self in self.link.calls:
            self.link.calls.remove(self)

    def cancel(self) -> bool:
        was_open = not self.status.done()
        self.end(Status(grpc.StatusCode.CANCELLED, "locally cancelled"))
        if was_open:
            self.link.send_up(self.hang_up)
        return was_open

    def write_up(self, data: bytes | None) -> None:
        """In order."""
        self._last_up_s = max(self._last_up_s + 1e-6, self.loop.time() + self.link.delay_s())
        self.link.send_up(lambda: self._requests.put_nowait(data), self._last_up_s - self.loop.time())

    def take(self) -> bytes:
        self._room.release()
        return self.arrived.popleft()

    # ---- the server's end

    def _accept(self, endpoint: _Endpoint, data: bytes | None) -> None:
        if self.network.endpoint is not endpoint:
            self.link.send_down(lambda: self.end(Status(UNAVAILABLE, "connection reset")))
            return
        if self.status.done() and self.status.result().code is not OK:
            return
        self._endpoint = endpoint
        endpoint.open[self] = None
        self._task = self.loop.spawn(endpoint.host, self._serve(endpoint, data), f"serve {self.path}")
        if self.deadline_s is not None:
            self.link.later(max(self.deadline_s - self.loop.time(), 0.0), self.hang_up)

    def _accept_twin(self, endpoint: _Endpoint, data: bytes) -> None:
        """The same bytes again; nobody waits for this answer."""
        if self.network.endpoint is endpoint:
            context = _Context(self.metadata, self.deadline_s, self.loop)

            async def again() -> None:
                handler = endpoint.methods[self.path]
                if handler.unary_unary is not None:
                    with suppress(grpc.aio.AbortError):
                        await handler.unary_unary(handler.request_deserializer(data), context)

            self.loop.spawn(endpoint.host, again(), f"again {self.path}")

    def hang_up(self) -> None:
        """The client is gone, or its time is up: gRPC cancels the handler."""
        self._requests.put_nowait(None)
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def _serve(self, endpoint: _Endpoint, data: bytes | None) -> None:
        handler = endpoint.methods[self.path]
        context = _Context(self.metadata, self.deadline_s, self.loop)
        status = Status(OK)
        try:
            if handler.unary_unary is not None:
                answer = await handler.unary_unary(handler.request_deserializer(data), context)
                self._reply(handler.response_serializer(answer))
            else:
                requests = self._incoming(handler) if handler.request_streaming else handler.request_deserializer(data)
                serve = handler.stream_stream if handler.request_streaming else handler.unary_stream
                async for answer in serve(requests, context):
                    await self._room.acquire()
                    self._reply(handler.response_serializer(answer))
        except grpc.aio.AbortError:
            assert context.status is not None
            status = context.status
        except asyncio.CancelledError:
            status = Status(grpc.StatusCode.CANCELLED, "the server gave it up")
        finally:
            endpoint.open.pop(self, None)
        self._finish(status, unary=handler.unary_unary is not None)

    async def _incoming(self, handler: Any) -> AsyncIterator[Any]:
        while (data := await self._requests.get()) is not None:
            yield handler.request_deserializer(data)

    def _reply(self, data: bytes) -> None:
        self._last_down_s = max(self._last_down_s + 1e-6, self.loop.time() + self.link.delay_s())
        self.link.send_down(lambda: self._arrive(data), self._last_down_s - self.loop.time())

    def _arrive(self, data: bytes) -> None:
        if not self.status.done():
            self.arrived.append(data)
            self.news.set()

    def _finish(self, status: Status, *, unary: bool) -> None:
        if unary and self.link.random.random() < self.link.lose_reply:
            self.arrived.clear()
            self._last_down_s = float("inf")  # what is under way is lost as well
            self._broken()
            return
        self._last_down_s = max(self._last_down_s + 1e-6, self.loop.time() + self.link.delay_s())
        self.link.send_down(lambda: self.end(status), self._last_down_s - self.loop.time())


class _Unary:
    """A unary method of a stub: awaited at once, repeated on UNAVAILABLE by the shared policy as gRPC does."""

    def __init__(self, channel: Channel, path: str, serialise: Any, parse: Any) -> None:
        self._channel, self._path, self._serialise, self._parse = channel, path, serialise, parse

    async def __call__(self, request: Any, *, timeout: float | None = None, metadata: Any = None) -> Any:  # noqa: ARG002, ASYNC109
        loop, record = self._channel.link.loop, self._channel.network.record
        deadline_s = None if timeout is None else loop.time() + timeout
        number = record.sent(self._channel.link.host.name, self._path, timeout, request)
        attempts = 4 if self._channel.network.is_retried(self._path) else 1
        pause_s = 0.1
        while True:
            attempts -= 1
            status, data = await self._once(self._serialise(request), deadline_s)
            if status.code is not UNAVAILABLE or not attempts:
                break
            pause = self._channel.link.random.uniform(0, pause_s)
            if deadline_s is not None and loop.time() + pause >= deadline_s:
                break
            await asyncio.sleep(pause)
            pause_s = min(2 * pause_s, 1.0)
        if status.code is not OK:
            error = status.error()
            record.failed(number, from_rpc(error, method=self._path.removeprefix("/")))
            raise error
        response = self._parse(data)
        record.answered(number, response)
        return response

    async def _once(self, data: bytes, deadline_s: float | None) -> tuple[Status, bytes]:
        call = _Call(self._channel, self._path, data, deadline_s)
        try:
            async with asyncio.timeout_at(deadline_s):
                status = await asyncio.shield(call.status)
        except TimeoutError:
            status = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            call.end(status)
        except asyncio.CancelledError:
            call.cancel()
            raise
        return status, call.arrived[0] if call.arrived else b""


class _Stream:
    """A streaming call of a client."""

    def __init__(self, channel: Channel, path: str, serialise: Any, parse: Any, request: Any) -> None:
        self._serialise, self._parse, self._record = serialise, parse, channel.network.record
        self._number = self._record.sent(channel.link.host.name, path, None, request)
        self._call = _Call(channel, path, None if request is None else serialise(request), None)

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """The next message, EOF behind the last. Raises AioRpcError, CancelledError where this end cancelled it."""
        call = self._call
        while not call.arrived:
            if call.status.done():
                status = call.status.result()
                if status.code is OK:
                    return grpc.aio.EOF
                if status.details == "locally cancelled":
                    raise asyncio.CancelledError
                raise status.error()
            call.news.clear()
            await call.news.wait()
        message = self._parse(call.take())
        self._record.streamed(self._number, message)
        return message

    async def write(self, message: Any) -> None:
        if self._call.status.done():
            raise asyncio.InvalidStateError("RPC already finished.")
        self._call.write_up(self._serialise(message))

    async def done_writing(self) -> None:
        self._call.write_up(None)

    def cancel(self) -> bool:
        return self._call.cancel()

    async def code(self) -> grpc.StatusCode:
        return (await asyncio.shield(self._call.status)).code

    async def details(self) -> str:
        return (await asyncio.shield(self._call.status)).details

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*(await asyncio.shield(self._call.status)).trailing)


class Channel:
    """The parts of ``grpc.aio.Channel`` that stubs and clients use."""

    def __init__(self, network: Network, link: Link, metadata: Sequence[tuple[str, str]]) -> None:
        self.network, self.link, self.metadata = network, link, metadata
        self._open: list[_Stream] = []

    def unary_unary(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> _Unary:
        return _Unary(self, path, request_serializer, response_deserializer)

    def unary_stream(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(request: Any, *, metadata: Any = None) -> _Stream:  # noqa: ARG001
            return self._keep(_Stream(self, path, request_serializer, response_deserializer, request))

        return call

    def stream_stream(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(*, metadata: Any = None) -> _Stream:  # noqa: ARG001
            return self._keep(_Stream(self, path, request_serializer, response_deserializer, None))

        return call

    def _keep(self, stream: _Stream) -> _Stream:
        self._open.append(stream)
        return stream

    async def close(self) -> None:
        for stream in self._open:
            stream.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class SimTarget(Target):
    """Where a client of the world connects to."""

    __slots__ = ("_link", "_network")

    def __init__(self, network: Network, link: Link, identity: str) -> None:
        super().__init__("127.0.0.1:1", None, (("authorization", f"Bearer {token_of(identity)}"),))
        object.__setattr__(self, "_network", network)
        object.__setattr__(self, "_link", link)

    def open_aio(self) -> Any:
        return Channel(self._network, self._link, self.metadata)  # type: ignore[attr-defined]


def token_of(identity: str) -> str:
    """The credential of an identity in this world."""
    return f"token-of-{identity}"
