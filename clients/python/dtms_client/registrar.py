"""Registrations that nobody has to wait for: handed over at once, delivered by a thread, through outages too.

A registration is tried three times. An outage after that is a loud failure *and* no end: the registration waits in a
queue and is delivered, in order, when the service is back. Registering is idempotent, so a repeat after a lost answer
does no harm. Whatever the service refuses for good is dropped, loudly, at once.
"""

from __future__ import annotations

import asyncio
import atexit
import heapq
import itertools
import logging
import os
import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc

from dtms.v1.registry_service_pb2 import RegisterTradeRequest, RegisterTradeResponse, Registration
from dtms.v1.registry_service_pb2_grpc import RegistryServiceStub
from dtms.v1.trade_pb2 import Side
from dtms_client._alarm import Alarm, hand_on
from dtms_client._channel import Target, deadlines, target
from dtms_client.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    DtmsError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unexpected,
    closed,
    from_rpc,
)

logger = logging.getLogger(__name__)

METHOD: Final = "dtms.v1.RegistryService/RegisterTrade"
TRIES: Final = 3
"""Before a failure is told."""
PAUSES_S: Final = (1.0, 2.0, 4.0)
"""After the first, the second, and every further try that failed."""
UNDELIVERED_LIMIT: Final = 1_000
"""Registrations that may be on their way or wait: more than an account has open positions, less than a megabyte."""
AT_ONCE: Final = 32
"""Calls under way at a time: enough to share the service's commits, few beside the 100 streams of a connection."""
CLOSE_S: Final = 5.0
EXIT_S: Final = 2.0
"""What the end of the interpreter waits for registrations that are not delivered yet; it waits for nothing else."""

_WAITS: Final = (Unavailable, DeadlineExceeded, ResourceExhausted)
"""Says something of the service, not of the registration: worth keeping."""
_FINAL: Final = (
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    OutOfRange,
)
"""No repeat will change it."""


@dataclass(frozen=True, slots=True)
class RegistrationFailure:
    """What `on_failure` is told. With `waits` it is tried on, and delivered when the service is back."""

    registration: Registration
    error: Exception
    tries: int
    waits: bool


class PendingRegistration:
    """A registration that was handed over. Threads wait with `result`, coroutines with `await`; nobody has to."""

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        # Never cancelled from outside: whoever stops waiting does not stop the delivery.
        self._told = _running_future()
        self._delivered = _running_future()

    def done(self) -> bool:
        """`result` and `await` answer at once."""
        return self._told.done()

    @property
    def waits(self) -> bool:
        """It failed, and is delivered when the service is back."""
        return self._told.done() and not self._delivered.done()

    def result(self, timeout_s: float | None = None) -> RegisterTradeResponse:
        """The registered trade, or the failure as it was told first: after three tries, or a refusal.

        Raises TimeoutError when neither is known within `timeout_s`.
        """
        return self._told.result(timeout_s)

    def delivered(self, timeout_s: float | None = None) -> RegisterTradeResponse:
        """As `result`, but waits for the last word: an outage is no failure until the registrar is closed."""
        return self._delivered.result(timeout_s)

    def __await__(self) -> Generator[Any, None, RegisterTradeResponse]:
        return asyncio.wrap_future(self._told).__await__()

    def succeed(self, response: RegisterTradeResponse) -> None:
        """The trade is registered."""
        if not self._told.done():
            self._told.set_result(response)
        self._delivered.set_result(response)

    def fail(self, error: Exception, *, waits: bool = False) -> None:
        """It is not; with `waits` not yet."""
        if not self._told.done():
            self._told.set_exception(error)
        if not waits:
            self._delivered.set_exception(error)


def _running_future() -> Future[RegisterTradeResponse]:
    future: Future[RegisterTradeResponse] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(order=True, slots=True)
class _Delivery:
    number: int
    pending: PendingRegistration = field(compare=False)
    tries: int = field(default=0, compare=False)


class Registrar:
    """Registers trades from any thread and any coroutine, with a connection and a thread of its own.

    The thread starts with the first registration. Make a registrar that is in use after a fork, not before: in the
    child every registration is refused with Cancelled/FORKED.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        token_file: Path | str | None = None,
        root_certificates: bytes | None = None,
        on_failure: Callable[[RegistrationFailure], object] | None = None,
        undelivered_limit: int = UNDELIVERED_LIMIT,
        alarm: Alarm | None = None,
    ) -> None:
        """Checks address and credential as `Client` does.

        `on_failure` is called in the registrar's thread; for what is refused before it gets there, in the caller's.
        """
        self._target = target(address, token=token, token_file=token_file, root_certificates=root_certificates)
        self._on_failure = on_failure
        self._limit = undelivered_limit
        self._alarm = alarm or Alarm()
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._undelivered: dict[int, _Delivery] = {}
        self._worker: _Worker | None = None
        self._thread: threading.Thread | None = None
        self._pid: int | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def auto_register(self, registration: Registration) -> PendingRegistration:
        """Hands a registration over and returns at once, whatever the service does; failures are in what it returns.

        A full queue is ResourceExhausted/LIMIT_REACHED, a closed registrar Cancelled/CLIENT_CLOSED.
        """
        copy = Registration()
        copy.CopyFrom(registration)
        pending = PendingRegistration(copy)
        refusal = self._forked() or self._hand_over(pending)
        if refusal is not None:
            pending.fail(refusal)
            self._tell(RegistrationFailure(copy, refusal, tries=0, waits=False))
        return pending

    async def register_trade(self, registration: Registration) -> RegisterTradeResponse:
        """As `auto_register`, and waits for `result`. Cancelling the wait does not stop the delivery."""
        return await self.auto_register(registration)

    def close(self, wait_s: float = CLOSE_S) -> tuple[Registration, ...]:
        """Delivers what can be delivered within `wait_s`; returns, and logs, what could not."""
        if self._forked() is not None:
            return ()
        with self._guard:
            self._closed = True
            worker, thread = self._worker, self._thread
        if worker is None or thread is None:
            return ()
        atexit.unregister(self._at_exit)
        worker.end(self._alarm.now_s() + wait_s)
        if thread is not threading.current_thread():
            thread.join()
        return worker.left

    def _hand_over(self, pending: PendingRegistration) -> DtmsError | None:
        with self._guard:
            if self._closed:
                return closed()
            if len(self._undelivered) >= self._limit:
                return ResourceExhausted(
                    f"{self._limit} registrations wait already",
                    method=METHOD,
                    reason="LIMIT_REACHED",
                    metadata={"limit": "undelivered_limit", "value": str(self._limit)},
                )
            delivery = _Delivery(next(self._numbers), pending)
            self._undelivered[delivery.number] = delivery
            if self._worker is None:
                self._worker = _Worker(self._target, self._alarm, self._tell, self._settle, self._end)
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._worker.run, name="dtms-registrar", daemon=True)
                self._thread.start()
                atexit.register(self._at_exit)
            self._worker.take(delivery)
        return None

    def _settle(self, delivery: _Delivery) -> None:
        with self._guard:
            del self._undelivered[delivery.number]

    def _end(self) -> list[_Delivery]:
        with self._guard:
            self._closed = True
            return sorted(self._undelivered.values())

    def _forked(self) -> Cancelled | None:
        """Asked before any lock: in a child the parent's locks may be held for ever."""
        if self._pid is None or self._pid == os.getpid():
            return None
        return Cancelled(
            f"this registrar belongs to process {self._pid}: gRPC does not survive a fork, make one afterwards",
            method=METHOD,
            reason="FORKED",
        )

    def _at_exit(self) -> None:
        self.close(EXIT_S)

    def _tell(self, failure: RegistrationFailure) -> None:
        registration = failure.registration
        facts = {
            "account": registration.account_id,
            "ticket": registration.ticket,
            "symbol": registration.symbol,
            "side": Side.Name(registration.side),
            "volume": registration.volume,
            "tries": failure.tries,
            "waits": failure.waits,
            "error": str(failure.error),
        }
        words = ", ".join(f"{name}={value}" for name, value in facts.items())
        logger.error("trade not registered: %s", words, extra={"facts": facts})
        if self._on_failure is not None:
            try:
                self._on_failure(failure)
            except Exception as error:  # noqa: BLE001  the others are delivered all the same
                hand_on(error)


class _Worker:
    """The registrar's thread: everything below `run` happens in it."""

    def __init__(
        self,
        to: Target,
        alarm: Alarm,
        tell: Callable[[RegistrationFailure], None],
        settle: Callable[[_Delivery], None],
        end: Callable[[], list[_Delivery]],
    ) -> None:
        self._target = to
        self._alarm = alarm
        self._tell = tell
        self._settle = settle
        self._end = end
        self._inbox: deque[_Delivery] = deque()
        self._answers: deque[tuple[_Delivery, Any]] = deque()
        self._ready: deque[_Delivery] = deque()
        self._paused: list[tuple[float, _Delivery]] = []
        """Between two of their tries; a heap by the time of the next one."""
        self._waiting: list[_Delivery] = []
        """The queue of an outage, in order. While it is not empty, whatever is not under way stands in it."""
        self._probe_s = 0.0
        """When the first of the queue is tried again."""
        self._flying: dict[int, Any] = {}
        self._end_s: float | None = None
        self.left: tuple[Registration, ...] = ()

    # ---- from other threads

    def take(self, delivery: _Delivery) -> None:
        """One more to deliver."""
        self._inbox.append(delivery)
        self._alarm.ring()

    def end(self, end_s: float) -> None:
        """Everything is tried at once, and then until this time."""
        self._end_s = end_s
        self._alarm.ring()

    # ---- the thread

    def run(self) -> None:
        """Until the end, with nothing left or no time left."""
        error: DtmsError = Cancelled("closed before it was delivered", method=METHOD, reason="CLIENT_CLOSED")
        try:
            with self._target.open() as channel:
                self._deliver(RegistryServiceStub(channel))
        except BaseException as failure:
            error = Unexpected(f"the registrar failed: {failure!r}", method=METHOD, reason="REGISTRAR_FAILED")
            raise
        finally:
            undelivered = self._end()
            self.left = tuple(delivery.pending.registration for delivery in undelivered)
            for delivery in undelivered:
                self._fail(delivery, error)

    def _deliver(self, stub: RegistryServiceStub) -> None:
        hurried = False
        while True:
            if self._end_s is not None and not hurried:
                hurried = True
                self._hurry()
            self._ready.extend(self._inbox.popleft() for _ in range(len(self._inbox)))
            for _ in range(len(self._answers)):
                self._take_answer(*self._answers.popleft())
            self._send_due(stub)
            if self._end_s is not None and (not self._open() or self._alarm.now_s() >= self._end_s):
                return
            self._alarm.wait_until(self._wake_s())

    def _open(self) -> bool:
        return bool(self._inbox or self._ready or self._paused or self._waiting or self._flying)

    def _wake_s(self) -> float | None:
        moments = [self._end_s] if self._end_s is not None else []
        if self._paused:
            moments.append(self._paused[0][0])
        if self._waiting and not self._trying_first():
            moments.append(self._probe_s)
        return min(moments, default=None)

    def _hurry(self) -> None:
        self._probe_s = self._alarm.now_s()
        self._paused = [(self._probe_s, delivery) for _, delivery in sorted(self._paused)]

    def _send_due(self, stub: RegistryServiceStub) -> None:
        now_s = self._alarm.now_s()
        while self._paused and self._paused[0][0] <= now_s:
            self._ready.append(heapq.heappop(self._paused)[1])
        if self._waiting:
            for _ in range(len(self._ready)):
                insort(self._waiting, self._ready.popleft())
            if now_s >= self._probe_s and not self._trying_first():
                self._send(stub, self._waiting[0])
            return
        while self._ready and len(self._flying) < AT_ONCE:
            self._send(stub, self._ready.popleft())

    def _trying_first(self) -> bool:
        return any(delivery.number in self._flying for delivery in self._waiting)

    def _send(self, stub: RegistryServiceStub, delivery: _Delivery) -> None:
        request = RegisterTradeRequest(registration=delivery.pending.registration)
        call = stub.RegisterTrade.future(request, timeout=deadlines().of(request), metadata=self._target.metadata)
        self._flying[delivery.number] = call

        def answered(call: Any) -> None:  # noqa: ANN401  gRPC has no public type that is both
            self._answers.append((delivery, call))
            self._alarm.ring()

        call.add_done_callback(answered)

    def _take_answer(self, delivery: _Delivery, call: Any) -> None:  # noqa: ANN401  as above
        del self._flying[delivery.number]
        try:
            response: RegisterTradeResponse = call.result()
        except grpc.FutureCancelledError:
            self._take_failure(delivery, closed())
        except grpc.RpcError as failure:
            self._take_failure(delivery, from_rpc(failure, method=METHOD))
        else:
            self._leave_queue(delivery)
            if delivery.pending.done():
                facts = {"ticket": delivery.pending.registration.ticket, "tries": delivery.tries + 1}
                logger.info("trade registered late", extra={"facts": facts})
            self._settle(delivery)
            delivery.pending.succeed(response)

    def _take_failure(self, delivery: _Delivery, error: DtmsError) -> None:
        delivery.tries += 1
        waits = isinstance(error, _WAITS)
        if isinstance(error, _FINAL) or (delivery.tries >= TRIES and not waits):
            self._leave_queue(delivery)
            self._fail(delivery, error)
            return
        pause_s = max(PAUSES_S[min(delivery.tries, len(PAUSES_S)) - 1], error.retry_after_s or 0.0)
        next_s = self._alarm.now_s() + pause_s
        if delivery in self._waiting:
            self._probe_s = next_s
            if waits:
                # The first has tried for all behind it.
                for each in self._waiting:
                    self._fail_loudly(each, error)
        elif delivery.tries < TRIES:
            heapq.heappush(self._paused, (next_s, delivery))
        else:
            if not self._waiting:
                self._probe_s = next_s
            insort(self._waiting, delivery)
            self._fail_loudly(delivery, error)

    def _leave_queue(self, delivery: _Delivery) -> None:
        """The service has answered: the next one may go."""
        if delivery in self._waiting:
            self._waiting.remove(delivery)
            self._probe_s = self._alarm.now_s()

    def _fail_loudly(self, delivery: _Delivery, error: DtmsError) -> None:
        """Once for each: it is delivered late, or not at all."""
        if not delivery.pending.done():
            delivery.pending.fail(error, waits=True)
            self._tell(RegistrationFailure(delivery.pending.registration, error, delivery.tries, waits=True))

    def _fail(self, delivery: _Delivery, error: Exception) -> None:
        self._settle(delivery)
        delivery.pending.fail(error)
        self._tell(RegistrationFailure(delivery.pending.registration, error, delivery.tries, waits=False))
