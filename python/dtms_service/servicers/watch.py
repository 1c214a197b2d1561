"""Watch streams: snapshot, events from a cursor, progress marks; no watcher in the way of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from dtms.v1 import trade_pb2
from dtms.v1 import trade_status_service_pb2 as pb
from dtms_service import convert
from dtms_service.clock import Clock
from dtms_service.config import LimitsConfig
from dtms_service.desk import Desk
from dtms_service.errors import DtmsError, Reason
from dtms_service.event_log import EventLog, Filter
from dtms_service.stage import Stage

TRADES_PER_CHUNK = 200  # about 60 KB


@dataclass(slots=True)
class Watches:
    """All open Watch streams."""

    desk: Desk
    events: EventLog
    clock: Clock
    limits: LimitsConfig
    open: int = 0
    _draining: bool = False
    _idle: set[asyncio.Timeout] = field(default_factory=set)

    async def snapshot(self, wanted: Filter) -> tuple[int, list[bytes]]:
        """The matching trades as of one durable revision."""
        revision = self.desk.engine.revision
        views = self.desk.views(include_closed=True)
        await self.desk.commits.durable(revision)
        return revision, [body for body in views if wanted.passes_all or _matches(wanted, body)]

    async def stream(
        self, cursor: int, wanted: Filter, interval_s: float, *, snapshot: bool
    ) -> AsyncIterator[pb.WatchResponse | bytes]:
        """WatchResponses from revision ``cursor`` on, or behind the trades as they are.

        Raises COMPACTED, FUTURE_REVISION, DRAINING.
        """
        if snapshot:
            revision, trades = await self.snapshot(wanted)
            for chunk in chunks(revision, trades):
                yield chunk
            cursor = revision + 1
        self.events.check_start(cursor)
        if self.open >= self.limits.max_watchers:
            raise DtmsError(
                Reason.LIMIT_REACHED,
                f"{self.open} watchers are open",
                metadata={"limit": "limits.max_watchers", "value": str(self.limits.max_watchers)},
                retry_after_s=1.0,
            )
        loop = asyncio.get_running_loop()
        marked, limit = loop.time(), self.limits.max_batch_events
        ready = self.events.ready if wanted.passes_all else _never_ready
        self.open += 1
        try:
            while True:
                while (full := ready(cursor, limit)) is not None:
                    cursor, whole = full
                    yield whole
                if cursor > self.events.newest_revision and not await self._wait(cursor, marked + interval_s):
                    if self._draining:
                        raise _draining(cursor)
                    marked = loop.time()
                    yield self._mark(cursor - 1)
                    continue
                batch = await self.events.next_batch(cursor, self.limits.max_batch_events)
                cursor = batch[-1].revision + 1
                if wanted.passes_all:
                    yield self.events.joined(batch)
                elif matching := [entry.framed for entry in batch if wanted.passes(entry)]:
                    yield b"".join(matching)
                elif loop.time() >= marked + interval_s:
                    marked = loop.time()
                    yield self._mark(cursor - 1)
        finally:
            self.open -= 1

    def on_stage(self, stage: Stage) -> None:
        """Draining ends every stream where it stands; a busy one ends when it has caught up."""
        if stage is not Stage.DRAINING:
            return
        self._draining = True
        for waiting in self._idle:
            waiting.reschedule(0)

    async def _wait(self, cursor: int, until: float) -> bool:
        """True when there is an event at the cursor, False at ``until`` (loop time) or when draining."""
        if self._draining:
            return False
        timeout = asyncio.timeout_at(until)
        try:
            async with timeout:
                self._idle.add(timeout)
                await self.events.next_batch(cursor, 1)
        except TimeoutError:
            return False
        finally:
            self._idle.discard(timeout)
        return True

    def _mark(self, revision: int) -> bytes:
        mark = pb.Progress(revision=revision, time_ns=self.clock.now_ns())
        return pb.WatchResponse(progress=mark).SerializeToString()


def _never_ready(_cursor: int, _limit: int) -> None:
    """A filter looks at each event: nothing is joined beforehand."""


def chunks(revision: int, trades: Sequence[bytes]) -> Iterator[pb.WatchResponse]:
    """The snapshot in pieces; the last one says that it is complete."""
    last = max(0, len(trades) - 1) // TRADES_PER_CHUNK
    for index in range(last + 1):
        part = trades[index * TRADES_PER_CHUNK : (index + 1) * TRADES_PER_CHUNK]
        chunk = pb.SnapshotChunk(trades=[trade_pb2.Trade.FromString(body) for body in part])
        if index == last:
            chunk.complete_at_revision = revision
        yield pb.WatchResponse(snapshot=chunk)


def filter_of(request: pb.WatchFilter) -> Filter:
    return Filter(
        accounts=frozenset(request.account_ids),
        tickets=frozenset(request.tickets),
        symbols=frozenset(request.symbols),
        states=frozenset(request.states),
    )


def _matches(wanted: Filter, body: bytes) -> bool:
    trade = trade_pb2.Trade.FromString(body)
    return wanted.passes(convert.entry_of_trade(trade))


def _draining(cursor: int) -> DtmsError:
    return DtmsError(
        Reason.DRAINING,
        f"the service stops: resume at revision {cursor}",
        metadata={"resume_revision": str(cursor)},
        retry_after_s=1.0,
    )
