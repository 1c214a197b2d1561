"""One service per data directory: a lock that the operating system drops when the process dies, however it dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from dtms_service.errors import DataDirectoryBusy

_NAME: Final = "dtms.lock"
_PID_BYTES: Final = 20  # no process id has more digits

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE: Final = 1 << 30  # Windows locks keep readers out: far behind the pid, so that it stays readable

    def _try_lock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DataDirectoryLock:
    """Holds ``<directory>/dtms.lock`` from construction to ``release``. DataDirectoryBusy if somebody else does."""

    def __init__(self, directory: Path) -> None:
        path = directory / _NAME
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _try_lock(fd)
        except OSError as error:
            os.lseek(fd, 0, os.SEEK_SET)
            pid = os.read(fd, _PID_BYTES)
            os.close(fd)
            raise DataDirectoryBusy(directory, int(pid) if pid.strip().isdigit() else 0) from error
        os.lseek(fd, 0, os.SEEK_SET)
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._fd: int | None = fd

    def release(self) -> None:
        """Let go. The file stays: removing it would let two owners lock two files of one name."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
