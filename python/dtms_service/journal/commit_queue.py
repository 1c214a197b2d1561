"""Group commit: the asyncio side of a journal.

One thread owns the journal. Everything handed over while it commits goes into its next commit, so the price of a sync
is shared by all that arrived together and nobody waits for a timer.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from dtms_service.errors import DtmsError, Reason
from dtms_service.journal.chain import MAX_GROUP_EVENTS
from dtms_service.journal.protocol import Event, Journal, Snapshot

_Answer = TypeVar("_Answer")

_DONE: Final = object()
_RETRY_AFTER_S: Final = 0.1  # a full queue drains in about that time


@dataclass(frozen=True, slots=True)
class _Job:
    run: Callable[[], Any]
    result: asyncio.Future[Any]


class CommitQueue:
    """Takes events without blocking, tells when it is durable. Made and used on one running event loop.

    ``on_durable(newest_revision)`` runs on the loop after each commit, before anybody who awaits ``durable`` goes on:
    the place to publish. ``max_pending_events`` bounds what ``require_room`` lets in; ``idle_ms`` is how long nothing
    must happen before the journal's housekeeping runs.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        on_durable: Callable[[int], None],
        max_pending_events: int,
        idle_ms: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = journal
        self._on_durable = on_durable
        self._max_pending_events = max_pending_events
        self._idle_s = idle_ms / 1000
        self._appended = self._durable = journal.newest_revision
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._failure: Exception | None = None
        self._has_failed = asyncio.Event()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        # Below: shared with the thread, under the condition.
        self._handed_over = threading.Condition()
        self._events: list[Event] = []
        self._jobs: list[_Job] = []
        self._closing = False
        self._thread: threading.Thread | None = None
        self._start()

    @property
    def appended_revision(self) -> int:
        """The newest revision handed over."""
        return self._appended

    @property
    def durable_revision(self) -> int:
        """The newest revision that survives a power cut."""
        return self._durable

    def require_room(self) -> None:
        """LIMIT_REACHED when too many events wait for the disk. Ask before deciding; what is decided must go in."""
        self._require_sound()
        pending = self._appended - self._durable
        if pending >= self._max_pending_events:
            raise DtmsError(
                Reason.LIMIT_REACHED,
                f"{pending} events wait for the disk",
                metadata={"limit": "journal.max_pending_events", "value": str(self._max_pending_events)},
                retry_after_s=_RETRY_AFTER_S,
            )

    def append(self, events: Sequence[Event]) -> None:
        """Hand over events that carry on from ``appended_revision``. Never blocks. JournalFailed after a failure."""
        self._require_sound()
        for following, (revision, _body) in enumerate(events, self._appended + 1):
            if revision != following:
                raise ValueError(f"revision {revision} where {following} follows")
        with self._handed_over:
            if self._closing:
                raise ValueError("the commit queue is closed")
            self._events.extend(events)
            self._wake()
        self._appended += len(events)

    async def durable(self, revision: int) -> None:
        """Wait until the disk has ``revision``. JournalFailed if it never will."""
        if revision > self._appended:
            raise ValueError(f"revision {revision} was not appended; the newest is {self._appended}")
        if revision <= self._durable:
            return
        self._require_sound()
        committed = self._loop.create_future()
        heapq.heappush(self._waiting, (revision, next(self._order), committed))
        await committed

    async def read(self, from_revision: int, limit: int) -> list[Event]:
        """Journal.read, between two commits."""
        return await self._do(lambda: self._journal.read(from_revision, limit))

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Journal.save_snapshot behind everything that was appended before."""
        await self._do(lambda: self._journal.save_snapshot(snapshot))

    async def compact(self, before_revision: int) -> int:
        """Drop the events below ``before_revision`` in bounded steps, so that commits pass; the oldest kept then."""
        while True:
            oldest = await self._do(lambda: self._journal.compact(before_revision))
            if oldest >= before_revision:
                return oldest

    async def copy(self, target: Path) -> None:
        """Journal.copy of everything that was appended before, and perhaps of more; commits pass meanwhile."""
        steps = await self._do(lambda: self._journal.copy(target))
        while await self._do(lambda: next(steps, _DONE)) is not _DONE:
            pass

    async def go_on(self) -> None:
        """Journal.go_on behind everything that was appended before."""
        await self._do(self._journal.go_on)

    async def chain_head(self) -> str:
        """Journal.chain_head behind everything that was appended before."""
        return await self._do(lambda: self._journal.chain_head)

    async def watch_failure(self) -> None:
        """Never returns; raises JournalFailed when the journal fails. Await it in the task that keeps the process."""
        await self._has_failed.wait()
        self._require_sound()

    async def close(self) -> None:
        """Commit what was handed over, then close the journal. JournalFailed if that was not possible."""
        with self._handed_over:
            self._closing = True
            self._wake()
        await asyncio.shield(self._stopped)
        if self._thread is not None:
            self._thread.join()
        self._require_sound()

    # -- on the loop ---------------------------------------------------------------------------------------------

    # The simulation puts turns of its virtual loop in place of the thread: these two are all that knows of it.
    def _start(self) -> None:
        # A daemon: whoever leaves without `close` is a crash to the journal, and must not hang instead.
        self._thread = threading.Thread(target=self._run, name="dtms-journal", daemon=True)
        self._thread.start()

    def _wake(self) -> None:
        self._handed_over.notify()

    async def _do(self, run: Callable[[], _Answer]) -> _Answer:
        self._require_sound()
        job = _Job(run, self._loop.create_future())
        with self._handed_over:
            if self._closing:
                raise ValueError("the commit queue is closed")
            self._jobs.append(job)
            self._wake()
        answer: _Answer = await job.result
        return answer

    def _require_sound(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _committed(self, newest_revision: int) -> None:
        self._durable = newest_revision
        # Whoever asked goes before whoever watches; both go on when this callback, and so `on_durable`, has ended.
        while self._waiting and self._waiting[0][0] <= newest_revision:
            _settle(heapq.heappop(self._waiting)[2], None, None)
        self._on_durable(newest_revision)

    def _failed(self, error: Exception, jobs: list[_Job]) -> None:
        self._failure = error
        self._has_failed.set()
        for waiting in (*(waiter for _, _, waiter in self._waiting), *(job.result for job in jobs)):
            _settle(waiting, None, error)
        self._waiting.clear()

    # -- on the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        jobs: list[_Job] = []
        try:
            while (work := self._next()) is not None:
                events, jobs = work
                self._commit(events)
                while jobs:
                    self._perform(jobs.pop(0))
            self._journal.close()
        except Exception as error:  # noqa: BLE001  the loop raises it to everybody who waits, now and later
            with self._handed_over:
                self._closing = True
                jobs += self._jobs
            self._tell(self._failed, error, jobs)
            self._journal.close()
        finally:
            self._tell(_settle, self._stopped, None, None)

    def _next(self) -> tuple[list[Event], list[_Job]] | None:
        """Wait for work and take all of it; None when closed and drained. Housekeeping runs after an idle while."""
        with self._handed_over:
            idle = not self._handed_over.wait_for(self._has_work, self._idle_s)
        if idle:
            self._journal.checkpoint()
        with self._handed_over:
            self._handed_over.wait_for(self._has_work)
            events, self._events = self._events, []
            jobs, self._jobs = self._jobs, []
        return (events, jobs) if events or jobs else None

    def _has_work(self) -> bool:
        return bool(self._events or self._jobs or self._closing)

    def _commit(self, events: list[Event]) -> None:
        for start in range(0, len(events), MAX_GROUP_EVENTS):
            self._journal.append(self._journal.newest_revision, events[start : start + MAX_GROUP_EVENTS])
            self._tell(self._committed, self._journal.newest_revision)

    def _perform(self, job: _Job) -> None:
        try:
            answer = job.run()
        except (DtmsError, ValueError) as refusal:  # an answer to the asker; the journal itself is sound
            self._tell(_settle, job.result, None, refusal)
        except Exception as error:
            self._tell(_settle, job.result, None, error)
            raise
        else:
            self._tell(_settle, job.result, answer, None)

    def _tell(self, what: Callable[..., None], *facts: object) -> None:
        self._loop.call_soon_threadsafe(what, *facts)


def _settle(future: asyncio.Future[Any], answer: object, error: BaseException | None) -> None:
    if future.done():  # its waiter was cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)
