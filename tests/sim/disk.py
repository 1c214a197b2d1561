"""The journal's disk in virtual time: a commit reaches the file, then the sync ends, then the loop is told.

A kill in between leaves what a kill leaves: the file as it is, or its last, never acknowledged commit torn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from shutil import copytree, ignore_patterns
from typing import Any, Protocol

from dtms_service.errors import JournalFailed
from dtms_service.journal.commit_queue import CommitQueue, _settle
from dtms_service.journal.protocol import Event

WAL = "journal.db-wal"


class Tap(Protocol):
    """Who watches the disk."""

    def writing(self, events: list[Event]) -> None: ...
    def written(self, events: list[Event]) -> None: ...
    def durable(self, revision: int) -> None: ...


@dataclass
class Disk:
    """``folder`` is the data directory of the service that lives now; ``fails`` is why the next commit does."""

    root: Path
    random: Random
    tap: Tap
    sync_s: tuple[float, float] = (0.0005, 0.003)
    fails: str | None = None
    generation: int = 0
    unsynced_from: int | None = None
    _log_bytes: int = field(default=0)

    @property
    def folder(self) -> Path:
        return self.root / f"data-{self.generation}"

    def delay_s(self) -> float:
        return self.random.uniform(*self.sync_s)

    def log_bytes(self) -> int:
        path = self.folder / WAL
        return path.stat().st_size if path.exists() else 0

    def cut(self, *, torn: bool) -> Path:
        """The files as a kill leaves them, in a folder of their own, from which the next service starts.

        ``torn``: of a commit that nobody was told of, only a part is there.
        """
        before = self.folder
        self.generation += 1
        copytree(before, self.folder, ignore=ignore_patterns("dtms.lock"))
        if torn and self.unsynced_from is not None:
            log = self.folder / WAL
            if log.stat().st_size > self.unsynced_from:
                with log.open("r+b") as file:
                    file.truncate(self.random.randrange(self.unsynced_from, log.stat().st_size))
        self.unsynced_from = None
        return self.folder

    def copy(self, name: str) -> Path:
        """The same files once more, for a second recovery."""
        target = self.root / name
        copytree(self.folder, target, ignore=ignore_patterns("dtms.lock"))
        return target


class VirtualCommitQueue(CommitQueue):
    """The queue's work as turns of the loop instead of a thread's."""

    def __init__(self, disk: Disk, *arguments: Any, **options: Any) -> None:
        self._disk = disk
        self._is_due = False
        self._told_s = 0.0
        super().__init__(*arguments, **options)

    def _start(self) -> None:
        """No thread."""

    def _wake(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(self._disk.delay_s(), self._turn)

    def _turn(self) -> None:
        """What the thread does each time it finds something to do."""
        self._is_due = False
        events, self._events = self._events, []
        jobs, self._jobs = self._jobs, []
        try:
            if events:
                self._write(events)
            while jobs:
                self._perform(jobs.pop(0))
            if self._closing:
                self._journal.close()
                self._tell(_settle, self._stopped, None, None)
        except Exception as error:  # noqa: BLE001  as the thread does: whoever waits is told
            self._closing = True
            jobs += self._jobs
            self._tell(self._failed, error, jobs)
            self._journal.close()
            self._tell(_settle, self._stopped, None, None)

    def _write(self, events: list[Event]) -> None:
        if self._disk.fails is not None:
            why, self._disk.fails = self._disk.fails, None
            raise JournalFailed(self._journal.path, self._journal.newest_revision, why)
        if self._disk.unsynced_from is None:
            self._disk.unsynced_from = self._disk.log_bytes()
        self._disk.tap.writing(events)
        self._commit(events)
        self._disk.tap.written(events)

    def _committed(self, newest_revision: int) -> None:
        if newest_revision == self._journal.newest_revision:
            self._disk.unsynced_from = None
        self._disk.tap.durable(newest_revision)
        super()._committed(newest_revision)

    def _tell(self, what: Callable[..., None], *facts: object) -> None:
        self._told_s = max(self._told_s + 1e-6, self._loop.time() + self._disk.delay_s())
        self._loop.call_at(self._told_s, what, *facts)
