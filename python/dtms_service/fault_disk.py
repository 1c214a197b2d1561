"""Fault points inside of SQLite: a VFS whose files reach a point before each write, and before and after each sync.

Only an armed process has one; else SQLite uses the system's own.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import apsw

from dtms_service import fault_points
from dtms_service.fault_points import Point

_disks: Final[dict[Point, _FaultDisk]] = {}
"""Registered for as long as the process lives, by their point of writing."""


def vfs_of(write: Point, sync: Point, synced: Point | None = None) -> str | None:
    """Name of the VFS whose files pass these points; None for the system's own."""
    if not fault_points.is_armed():
        return None
    if write not in _disks:
        _disks[write] = _FaultDisk(write, sync, synced)
    return str(write)


class _FaultDisk(apsw.VFS):
    def __init__(self, write: Point, sync: Point, synced: Point | None) -> None:
        super().__init__(str(write), "")
        self._points = write, sync, synced

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _FaultFile:  # noqa: N802  named by SQLite
        return _FaultFile(name, flags, *self._points)


class _FaultFile(apsw.VFSFile):
    def __init__(
        self, name: str | apsw.URIFilename | None, flags: list[int], write: Point, sync: Point, synced: Point | None
    ) -> None:
        super().__init__("", name, flags)
        self._write, self._sync, self._synced = write, sync, synced

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  named by SQLite
        with _as_sqlite_says_it():
            fault_points.reach(self._write)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802  named by SQLite
        with _as_sqlite_says_it():
            fault_points.reach(self._sync)
        super().xSync(flags)
        if self._synced is not None:
            fault_points.reach(self._synced)


@contextmanager
def _as_sqlite_says_it() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise (apsw.FullError if error.errno == errno.ENOSPC else apsw.IOError)(str(error)) from error
