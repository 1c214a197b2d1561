"""A copy of a journal that knows that it is one.

Whatever way it comes back, the service that opens it sees the mark and lets every number that it gives jump past those
that the lost events can have given (``Engine.restored``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw

from dtms_service.errors import DtmsError, Reason
from dtms_service.fault_points import Point, reach

_PAGES_PER_STEP: Final = 2_500
"""10 MB: about 10 ms, because commits wait meanwhile."""
_MARK: Final = """
CREATE TABLE IF NOT EXISTS backup (one INTEGER PRIMARY KEY CHECK (one = 1), made_ns INTEGER NOT NULL) STRICT;
"""


def copy_pages(source: apsw.Connection, target: Path) -> Iterator[None]:
    """Copies the database in bounded steps. What ``source`` itself commits between two of them is in the copy as well.

    ``target`` must not exist; it is durable in the end. LIMIT_REACHED where it cannot be written: it is worth nothing
    then, and ``source`` is as before.
    """
    try:
        with closing(apsw.Connection(str(target))) as copy:
            copy.pragma("synchronous", "off")
            with copy.backup("main", source, "main") as pages:
                while not pages.done:
                    reach(Point.BACKUP_STEP)
                    pages.step(_PAGES_PER_STEP)
                    yield
        reach(Point.BACKUP_SYNC)
        sync(target)
    except (apsw.Error, OSError) as error:
        limit = {"limit": "disk", "value": str(target)}
        raise DtmsError(Reason.LIMIT_REACHED, f"the copy cannot be written: {error}", metadata=limit) from error


def copy_database(source: Path, target: Path) -> None:
    """As of now, also while somebody else has it open."""
    with closing(apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        for _ in copy_pages(connection, target):
            pass


def mark(path: Path, made_ns: int) -> None:
    """Say in a copy what it is."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(_MARK)
        reach(Point.BACKUP_MARK)
        connection.execute("INSERT OR REPLACE INTO backup VALUES (1, ?)", (made_ns,))
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    sync(path)
    reach(Point.BACKUP_MARKED)


def made_ns_of(connection: apsw.Connection) -> int | None:
    """When the journal was copied, ns UTC; None for one that is no backup, or goes on already."""
    if connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'backup'").get == 0:
        return None
    made_ns = connection.execute("SELECT made_ns FROM backup").get
    return None if made_ns is None else int(made_ns)


def unmark(connection: apsw.Connection) -> None:
    connection.execute("DELETE FROM backup")


def sync(path: Path) -> None:
    """Make a file and its name durable."""
    for place, flags in ((path, os.O_RDWR), (path.parent, os.O_RDONLY)):
        if place.is_dir() and sys.platform == "win32":  # a folder cannot be opened there
            continue
        fd = os.open(place, flags if place.is_file() else os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
