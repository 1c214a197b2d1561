"""How things are measured: wall time, resident memory, CPU time of another process."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UTIME: Final = 11  # fields of /proc/PID/stat behind the command's name


@contextmanager
def quiet_heap() -> Iterator[None]:
    """What lives already is not walked by the garbage collector while something else is measured."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def least_ns(run: Callable[[], object], rounds: int) -> int:
    """CPU time that this thread needs for one ``run``, the least of ``rounds``: what disturbs a run only adds to it."""
    durations: list[int] = []
    for _ in range(rounds):
        started = time.thread_time_ns()
        run()
        durations.append(time.thread_time_ns() - started)
    return min(durations)


def resident_bytes() -> int:
    """Of this process, garbage collected before."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def resident_bytes_of(pid: int) -> int:
    """Of another process, as it is."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def cpu_s(pid: int) -> float:
    """User and system time that a process has used, its threads included; in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_UTIME + 1])) / _TICKS_PER_S


def quantile(values: list[float], q: float) -> float:
    """By rank; ``values`` must not be empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
