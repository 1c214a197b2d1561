"""The clocks: event time and lease time never go back."""

from __future__ import annotations

import time

import pytest

from dtms_service.clock import Clock, SystemClock, VirtualClock


def test_a_wall_clock_jump_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is read once; after it jumps by an hour, event time goes on as before."""
    clock: Clock = SystemClock()
    before = clock.now_ns()
    monkeypatch.setattr(time, "time_ns", lambda: before - 3_600_000_000_000)
    assert 0 <= clock.now_ns() - before < 3_600_000_000_000


def test_system_time_is_utc_and_leases_run_on_the_monotonic_clock() -> None:
    """Event time starts at the wall clock; the lease clock is the machine's monotonic one."""
    wall, mono = time.time_ns(), time.monotonic_ns()
    clock = SystemClock()
    assert abs(clock.now_ns() - wall) < 1_000_000_000
    assert 0 <= clock.mono_ns() - mono < 1_000_000_000


def test_virtual_time_carries_the_lease_clock_along() -> None:
    """Moving event time moves the lease clock by the same span; the lease clock also moves alone."""
    clock = VirtualClock(1_000, mono_ns=5)
    clock.advance_to(1_400)
    assert (clock.now_ns(), clock.mono_ns()) == (1_400, 405)
    clock.advance_mono_to(900)
    assert (clock.now_ns(), clock.mono_ns()) == (1_400, 900)


def test_virtual_time_never_goes_back() -> None:
    """Both clocks refuse the past and stay where they are; standing still is allowed."""
    clock = VirtualClock(1_000, mono_ns=10)
    with pytest.raises(ValueError, match="event time"):
        clock.advance_to(999)
    with pytest.raises(ValueError, match="lease clock"):
        clock.advance_mono_to(9)
    clock.advance_to(1_000)
    assert (clock.now_ns(), clock.mono_ns()) == (1_000, 10)
