"""The two clocks of the service. Below the server layer time is an argument; this is where the argument comes from."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both readings are nanoseconds and never go back."""

    def now_ns(self) -> int:
        """Event time: nanoseconds since 1970-01-01 UTC."""

    def mono_ns(self) -> int:
        """Lease clock: nanoseconds since an arbitrary point of this process."""


class SystemClock:
    """The machine's clock: UTC is read once, then carried by the monotonic clock.

    A jump of the wall clock (NTP step, DST, an operator) therefore changes nothing until the next start.
    """

    __slots__ = ("_anchor_ns",)

    def __init__(self) -> None:
        self._anchor_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        return self._anchor_ns + time.monotonic_ns()

    def mono_ns(self) -> int:
        return time.monotonic_ns()


class VirtualClock:
    """A clock that moves only when told: replay, simulation and tests."""

    __slots__ = ("_mono_ns", "_now_ns")

    def __init__(self, now_ns: int, mono_ns: int = 0) -> None:
        self._now_ns = now_ns
        self._mono_ns = mono_ns

    def now_ns(self) -> int:
        return self._now_ns

    def mono_ns(self) -> int:
        return self._mono_ns

    def advance_to(self, now_ns: int) -> None:
        """Move event time to ``now_ns`` and the lease clock by the same span. ValueError if that lies in the past."""
        if now_ns < self._now_ns:
            raise ValueError(f"event time cannot go back from {self._now_ns} to {now_ns} ns")
        self._mono_ns += now_ns - self._now_ns
        self._now_ns = now_ns

    def advance_mono_to(self, mono_ns: int) -> None:
        """Move only the lease clock. ValueError if that lies in the past."""
        if mono_ns < self._mono_ns:
            raise ValueError(f"the lease clock cannot go back from {self._mono_ns} to {mono_ns} ns")
        self._mono_ns = mono_ns
