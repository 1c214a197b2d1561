"""What the workers of these clients need: a clock, a sleep that anybody can end, a way out for errors of others."""

from __future__ import annotations

import asyncio
import threading
import time


def _now_s() -> float:
    # Where there is such a clock it goes on while the machine is suspended, and so do leases at the service.
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Alarm:
    """For one thread that sleeps, and any that wake it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = False

    def now_s(self) -> float:
        """Seconds that never go back."""
        return _now_s()

    def ring(self) -> None:
        """Ends the sleep, or the next one when nobody sleeps."""
        with self._changed:
            self._rung = True
            self._changed.notify()

    def wait_until(self, deadline_s: float | None) -> None:
        """Sleeps until the deadline (None: for ever) or the ring, whichever is first."""
        with self._changed:
            while not self._rung and (deadline_s is None or deadline_s > self.now_s()):
                self._changed.wait(None if deadline_s is None else max(deadline_s - self.now_s(), 0))
            self._rung = False


class AsyncAlarm:
    """For one task that sleeps, and any of its loop that wake it."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def now_s(self) -> float:
        """Seconds that never go back."""
        return _now_s()

    def ring(self) -> None:
        """Ends the sleep, or the next one when nobody sleeps."""
        self._rung.set()

    async def wait_until(self, deadline_s: float | None) -> None:
        """Sleeps until the deadline (None: for ever) or the ring, whichever is first."""
        left_s = None if deadline_s is None else max(deadline_s - self.now_s(), 0)
        try:
            async with asyncio.timeout(left_s):
                await self._rung.wait()
        except TimeoutError:
            return
        self._rung.clear()


def hand_on(error: Exception) -> None:
    """What a callback raised goes where it would have gone had it ended this thread; the worker lives on."""
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    )
