"""One thread that owns the MetaTrader5 package: each call of it, and its last_error, happens there, one step at a time.

A step that waited longer than its deadline for its turn never runs, and its caller knows that. A step that has begun
cannot be stopped; when its answer comes after the deadline, it is nobody's. Later steps wait behind it, so whatever is
read afterwards shows what it did.

The package holds the interpreter while a call lasts (mt5.md 0.1). Deadlines work while it answers, or with a module
that lets other threads run; against a terminal that hangs for good only ``watch`` helps (gateway/watchdog.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

Wanted = Callable[[], bool]
Watch = Callable[[], AbstractContextManager[object]]

# Steps that wait for their turn. The service sends one command a trade and few queries: more means a terminal that
# hangs, and whoever asks then is told so at once.
STEPS_MAX: Final = 10_000


class NeverStarted(Exception):
    """The step did not get its turn in time (or at all): it never runs."""


class Unanswered(Exception):
    """The step had begun and did not end in time: nothing is known of what it did."""


@dataclass(slots=True)
class _Step(Generic[T]):
    work: Callable[[Wanted], T]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[T]
    lock: threading.Lock = field(default_factory=threading.Lock)
    started: bool = False
    abandoned: bool = False

    def abandon(self) -> bool:
        """The caller gives up; whether the step had begun."""
        with self.lock:
            self.abandoned = True
            return self.started

    def wanted(self) -> bool:
        return not self.abandoned

    def run(self, watch: Watch) -> None:
        with self.lock:
            if self.abandoned:
                return
            self.started = True
        try:
            with watch():
                result = self.work(self.wanted)
        except BaseException as error:  # noqa: BLE001  # it belongs to the caller, not to the thread
            self._post(lambda error=error: self._fail(error))  # type: ignore[misc]
        else:
            self._post(lambda: self._finish(result))

    def _post(self, tell: Callable[[], None]) -> None:
        # A loop that has ended has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(tell)

    def _finish(self, result: T) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class OwnerThread:
    """Runs steps in order of their asking. ``watch`` is entered around each of them, on the thread."""

    def __init__(self, name: str, watch: Watch = nullcontext) -> None:
        self._watch = watch
        self._steps: queue.SimpleQueue[_Step[Any] | Callable[[], None]] = queue.SimpleQueue()
        self._closed = False
        # A daemon: a call that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Wanted], T], deadline_s: float) -> T:
        """What ``work`` gives or raises. Raises NeverStarted or Unanswered after ``deadline_s``.

        ``work`` gets a function that says whether its caller still waits.
        """
        if self._closed or self._steps.qsize() >= STEPS_MAX:
            raise NeverStarted("closed" if self._closed else f"{STEPS_MAX} calls wait for the terminal")
        loop = asyncio.get_running_loop()
        step: _Step[T] = _Step(work, loop, loop.create_future())
        self._steps.put(step)
        try:
            async with asyncio.timeout(deadline_s):
                return await step.answer
        except TimeoutError:
            if step.abandon():
                raise Unanswered(f"no answer within {deadline_s:g} s") from None
            raise NeverStarted(f"no turn within {deadline_s:g} s") from None
        except asyncio.CancelledError:
            step.abandon()
            raise

    def close(self, last: Callable[[], None]) -> None:
        """No more steps; ``last`` runs behind those that wait. Does not wait for it: a call may hang for ever."""
        if not self._closed:
            self._closed = True
            self._steps.put(last)

    def _run(self) -> None:
        while isinstance(step := self._steps.get(), _Step):
            step.run(self._watch)
        with self._watch():
            step()
