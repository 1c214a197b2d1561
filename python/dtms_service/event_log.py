"""The stream's memory: one ring of durable events that all watchers read, each at a cursor of its own.

A reader that falls behind the ring continues from the journal. Nothing is queued per reader, so a slow one costs
nobody; one wake-up per publish serves all that wait. A cursor is the revision that its reader wants next.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dtms_service.errors import future_revision

JOINED_KEPT: Final = 2048
"""Joined batches remembered: readers woken together ask for the same few, older ones are joined anew."""


class Entry(NamedTuple):
    """A durable event as it goes out: ``framed`` are its bytes on the wire, the rest is what filters look at."""

    revision: int
    account_id: str
    ticket: int
    symbol: str
    state: int
    framed: bytes


ReadBack = Callable[[int, int], Awaitable[list[Entry]]]
"""(from_revision, limit) -> entries from the journal; raises COMPACTED for what it no longer has."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a reader wants: each non-empty set must hold the event's value. All empty: everything."""

    accounts: frozenset[str] = frozenset()
    tickets: frozenset[int] = frozenset()
    symbols: frozenset[str] = frozenset()
    states: frozenset[int] = frozenset()

    @property
    def passes_all(self) -> bool:
        """Such a reader may take ``EventLog.joined`` as it is."""
        return not (self.accounts or self.tickets or self.symbols or self.states)

    def passes(self, entry: Entry) -> bool:
        return (
            (not self.accounts or entry.account_id in self.accounts)
            and (not self.tickets or entry.ticket in self.tickets)
            and (not self.symbols or entry.symbol in self.symbols)
            and (not self.states or entry.state in self.states)
        )


class EventLog:
    """A ring of the newest ``capacity`` events behind ``newest_revision``, where the journal stood at start."""

    def __init__(self, capacity: int, newest_revision: int, read_back: ReadBack) -> None:
        if capacity < 1:
            raise ValueError("an event log holds at least one event")
        self._capacity = capacity
        self._read_back = read_back
        self._newest = newest_revision
        self._oldest = newest_revision + 1
        self._ring: list[Entry | None] = [None] * capacity
        self._published = asyncio.Event()
        self._joined: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._full: dict[tuple[int, int], tuple[int, bytes]] = {}

    @property
    def newest_revision(self) -> int:
        return self._newest

    @property
    def oldest_revision(self) -> int:
        """The oldest event that the ring still holds; older ones come from the journal."""
        return self._oldest

    def publish(self, entries: Sequence[Entry]) -> None:
        """Show durable events, which carry on from ``newest_revision`` without a gap, and wake every waiting reader."""
        if not entries:
            return
        for entry in entries:
            if entry.revision != self._newest + 1:
                raise ValueError(f"revision {entry.revision} where {self._newest + 1} follows")
            self._ring[entry.revision % self._capacity] = entry
            self._newest = entry.revision
        self._oldest = max(self._oldest, self._newest - self._capacity + 1)
        published, self._published = self._published, asyncio.Event()
        published.set()

    def check_start(self, cursor: int) -> None:
        """FUTURE_REVISION for a cursor beyond the event that comes next."""
        if cursor > self._newest + 1:
            raise future_revision(cursor, self._newest)

    async def next_batch(self, cursor: int, limit: int) -> list[Entry]:
        """The next 1 to ``limit`` events from ``cursor`` on, in order and without a gap; waits until there is one.

        Go on at ``batch[-1].revision + 1``. DtmsError COMPACTED or FUTURE_REVISION; ValueError if either is below 1.
        """
        if limit < 1 or cursor < 1:
            raise ValueError(f"cursor {cursor} and limit {limit} must be at least 1")
        self.check_start(cursor)
        while cursor > self._newest:
            await self._published.wait()
        if cursor >= self._oldest:
            return self._from_ring(cursor, min(limit, self._newest - cursor + 1))
        # Up to the ring only: what the journal has beyond it may not be published yet.
        batch = await self._read_back(cursor, min(limit, self._newest - cursor + 1))
        assert [entry.revision for entry in batch[:1]] == [cursor], "the journal has every published event"
        return batch

    def ready(self, cursor: int, limit: int) -> tuple[int, bytes] | None:
        """(next cursor, joined bytes) of a full batch in the ring, without waiting; None: ask ``next_batch``.

        A full batch at a cursor is always the same, so readers that come by the same places share one object.
        """
        found = self._full.get((cursor, limit))
        if found is not None or not self._oldest <= cursor <= self._newest - limit + 1:
            return found if cursor >= self._oldest else None
        whole = b"".join([entry.framed for entry in self._from_ring(cursor, limit)])
        self._full[cursor, limit] = found = (cursor + limit, whole)
        if len(self._full) > JOINED_KEPT:
            del self._full[next(iter(self._full))]
        return found

    def joined(self, batch: Sequence[Entry]) -> bytes:
        """The batch's framed bytes in one piece; readers at the same place share one object. For unfiltered batches."""
        if not batch:
            return b""
        place = (batch[0].revision, batch[-1].revision)
        whole = self._joined.get(place)
        if whole is None:
            whole = self._joined[place] = b"".join([entry.framed for entry in batch])
            if len(self._joined) > JOINED_KEPT:
                self._joined.popitem(last=False)
        return whole

    def _from_ring(self, cursor: int, count: int) -> list[Entry]:
        start = cursor % self._capacity
        end = start + count
        found = (
            self._ring[start:end] if end <= self._capacity else self._ring[start:] + self._ring[: end - self._capacity]
        )
        return [entry for entry in found if entry is not None]
