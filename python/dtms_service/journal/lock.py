"""One service per data directory: a lock that the operating system drops when the process dies, however it dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from dtms_service.errors import DataDirectoryBusy
from dtms_service.fault_points import Point, reach

_NAME: Final = "dtms.lock"
_PID_BYTES: Final = 20  # no process id has more digits

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE: Final = 1 << 30  # Windows locks keep readers out: far behind the pid, so that it stays readable

    def _try_lock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

    def _try_share(fd: int) -> None:
        _try_lock(fd)  # there are no shared ones; it goes with the file
else:
    import fcntl

    def _try_lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _try_share(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


class DataDirectoryLock:
    """Holds ``<directory>/dtms.lock`` from construction to ``release``. DataDirectoryBusy if somebody else does."""

    def __init__(self, directory: Path) -> None:
        path = directory / _NAME
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _try_lock(fd)
        except OSError as error:
            pid = _pid_in(fd)
            os.close(fd)
            raise DataDirectoryBusy(directory, pid) from error
        os.lseek(fd, 0, os.SEEK_SET)
        os.ftruncate(fd, 0)
        reach(Point.LOCK_WRITE)
        os.write(fd, str(os.getpid()).encode())
        self._fd: int | None = fd

    def release(self) -> None:
        """Let go. The file stays: removing it would let two owners lock two files of one name."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def holder(directory: Path) -> int | None:
    """Process that holds the directory's lock (0: not known which), None when nobody does. Raises OSError.

    For those who only look: nothing is written. The lock is tried for a moment, in which another could be refused it.
    """
    try:
        fd = os.open(directory / _NAME, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        _try_share(fd)
    except OSError:
        return _pid_in(fd)
    finally:
        os.close(fd)
    return None


def _pid_in(fd: int) -> int:
    os.lseek(fd, 0, os.SEEK_SET)
    pid = os.read(fd, _PID_BYTES)
    return int(pid) if pid.strip().isdigit() else 0
