"""An event loop in virtual time: when nothing can run, the clock jumps to the next timer. One thread, no sleeping.

Every callback belongs to the host in whose context it was scheduled. A frozen host's callbacks wait, as those of a
stopped process do, while the clocks of the world go on; a killed one is frozen for good.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

T = TypeVar("T")

START_S: Final = 1_000.0  # of the loop's clock: a machine is never born at zero


class Deadlock(RuntimeError):
    """Nothing can run and no timer is set: the world would stand still for ever."""


@dataclass(eq=False, slots=True)
class Host:
    """A process of the world. ``wall_offset_ns`` is how far its wall clock is off."""

    name: str
    frozen: bool = False
    dead: bool = False
    wall_offset_ns: int = 0
    held: list[asyncio.Handle] = field(default_factory=list)


HOST: ContextVar[Host | None] = ContextVar("host", default=None)


class _Jump(selectors.DefaultSelector):
    """Waits by moving the clock. No descriptor is ever ready: all that the world says stays in memory."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        if timeout > 0:
            self._advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now_s = START_S
        super().__init__(_Jump(self._advance))
        self.slow_callback_duration = 1e9
        self.kept: list[asyncio.Task[Any]] = []
        self.has_ended = False

    def _advance(self, seconds: float) -> None:
        self._now_s += seconds

    def time(self) -> float:
        return self._now_s

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        host = HOST.get() if context is None else context.get(HOST)
        if self.has_ended:
            return asyncio.Handle(callback, args, self, context)
        if host is None or not host.frozen:
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        host.held.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        host = HOST.get() if context is None else context.get(HOST)
        if host is None:
            return super().call_at(when, callback, *args, context=context)

        def fire(*due: Any) -> None:
            if host.frozen:
                host.held.append(asyncio.Handle(late, due, self, copy_context()))
            else:
                callback(*due)

        def late(*due: Any) -> None:
            # What ran before it after the thaw may have called the timer off.
            if not timer.cancelled():
                callback(*due)

        timer = super().call_at(when, fire, *args, context=context)
        return timer

    # ---- hosts

    def spawn(self, host: Host | None, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
        """A task of that host; the loop keeps it."""
        context = copy_context()
        context.run(HOST.set, host)
        task = self.create_task(work, name=name or (host.name if host else None), context=context)
        self.kept.append(task)
        return task

    def freeze(self, host: Host) -> None:
        """From the next callback on it stands still."""
        host.frozen = True

    def thaw(self, host: Host) -> None:
        """It goes on with all that waited, in order. The dead stay dead."""
        if host.dead:
            return
        host.frozen = False
        held, host.held = host.held, []
        for handle in held:
            if not handle.cancelled():
                self._ready.append(handle)  # type: ignore[attr-defined]

    def kill(self, host: Host) -> None:
        """Nothing of it ever runs again, no ``finally`` either."""
        host.frozen = host.dead = True

    def end(self) -> None:
        """After the run: what is left is closed where it stands, so that nothing outlives the loop."""
        self.has_ended = True
        self.set_exception_handler(lambda _loop, _facts: None)
        for task in {*self.kept, *asyncio.all_tasks(self)}:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(Exception, asyncio.CancelledError):
                    task.get_coro().close()
        self.kept.clear()
        self.close()
