"""What a journal is, whatever stores it: gapless, hash-chained events, and snapshots that shorten replay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

GENESIS: Final = bytes(32)
"""Chain value before the first event: what an empty journal's head is."""

Event = tuple[int, bytes]
"""(revision, encoded event). The journal never looks inside the bytes."""

Progress = Callable[[str, int, int], None]
"""Called as (what, done, total) during long work; ``total`` is 0 when it is not known."""


def link(chain: bytes, body: bytes) -> bytes:
    """Chain value of an event: sha256(previous chain || body), 32 bytes."""
    return hashlib.sha256(chain + body).digest()


def no_progress(what: str, done: int, total: int) -> None:
    """For callers that show nothing."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State as of ``revision``: replay starts with the event after it."""

    revision: int
    body: bytes


class Journal(Protocol):
    """Blocking and single-threaded: one owner calls it (see CommitQueue). Revisions start at 1; 0 means "nothing yet".

    Every method may raise JournalFailed; after that only ``close`` may be called.
    """

    @property
    def path(self) -> Path:
        """Where it is stored, for messages."""

    @property
    def oldest_revision(self) -> int:
        """The oldest event kept; newest_revision + 1 if none is."""

    @property
    def newest_revision(self) -> int:
        """The newest durable revision, 0 for an empty journal."""

    @property
    def chain_head(self) -> str:
        """Chain value of the newest event, 64 hex digits: equal heads mean equal histories."""

    def append(self, expected_revision: int, events: Sequence[Event]) -> None:
        """Make all events durable, or none.

        ``expected_revision`` is the newest revision the caller knows, the events carry on from it without a gap.
        Returns only when the disk has them. JournalFailed if it does not, or if another writer came first.
        """

    def read(self, from_revision: int, limit: int) -> list[Event]:
        """Up to ``limit`` events from ``from_revision`` on, in order; empty at newest + 1.

        Each is proven by its chain value: they end before one that does not verify, and begin with none
        (``errors.unreadable``). DtmsError COMPACTED below the oldest kept revision, FUTURE_REVISION beyond newest + 1.
        """

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of a revision that the journal still knows; the newest two are kept."""

    def load_snapshot(self) -> Snapshot | None:
        """The newest intact snapshot, None if there is none: then replay starts at revision 1."""

    def compact(self, before_revision: int) -> int:
        """Drop a bounded number of events below ``before_revision``; the new oldest revision.

        Call again until it is reached. ValueError if a kept snapshot would lose the events that follow it.
        """

    @property
    def backup_made_ns(self) -> int | None:
        """When this journal was copied, ns UTC, if it is a backup that nobody has gone on from; else None."""

    def go_on(self) -> None:
        """It is a backup no longer: the numbers of the lost events are passed."""

    def copy(self, target: Path) -> Iterator[None]:
        """Copies the journal to a new file, in bounded steps between which it may be used. ``target`` is durable then.

        LIMIT_REACHED where the copy cannot be written: it is worth nothing then, and the journal as before.
        """

    def checkpoint(self) -> None:
        """Housekeeping for an idle moment; never needed for durability."""

    def close(self) -> None:
        """Give the store back. Safe after a failure, and twice."""
