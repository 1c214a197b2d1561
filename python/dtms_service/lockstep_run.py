"""A history that a gateway drives past this service in lockstep, whatever becomes of either process on the way.

A tick is worked on apart from the stream that brought it. A gateway that was started again is answered where the other
one left off; a service that was started again begins with the tick that was cut off, and repeats it: the same tick on
the same state gives the same events, the journal has the first of them already (:meth:`Desk.repeat`), and the gateway
answers a command that it has carried out before as it did then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from dtms_service.bookmark import Bookmark, Bookmarks, Seen
from dtms_service.broker.door import BrokerDoor
from dtms_service.desk import Desk, Tick
from dtms_service.errors import FatalError, invalid
from dtms_service.gateway_door import GatewayDoor, Send
from dtms_service.lockstep import Lockstep
from dtms_service.monitor import Monitor

CALL_DEADLINE_S = 120.0  # a gateway may be started again meanwhile
NOTE_EVERY = 500  # ticks that nothing follows from, between two bookmarks: about a second of work to repeat in a demo

TakeIn = Callable[[str, BrokerDoor, list[str], Seen | None], Awaitable[None]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run stands, see ``RunPlace`` of the wire."""

    done: int
    under_way: bool
    recall: bool
    fresh: bool
    ended: bool


@dataclass(slots=True)
class LockstepRun:
    """One account's. ``take_in`` is :meth:`System.take_in`."""

    take_in: TakeIn
    desk: Desk
    monitor: Monitor
    lockstep: Lockstep
    bookmarks: Bookmarks
    # What the run cannot go on after: the service ends.
    fail: Callable[[BaseException], None]
    door: GatewayDoor | None = None
    _run_id: str = ""
    _account_id: str = ""
    _done: int = 0
    _recalled: int = 0
    # What another process of this service had come to, until the gateway has told its ticks again.
    _cut_off: Bookmark | None = field(init=False)
    _taking_in: asyncio.Task[None] | None = None
    _tick: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._cut_off = self.bookmarks.newest

    def place(self, account_id: str, run_id: str) -> Place:
        """For a gateway that says hello. Raises FIELD_INVALID for one that is not this run's."""
        if self._run_id:
            self._check(account_id, run_id, self._account_id, self._run_id)
            return self._place()
        known = self._cut_off
        if known is None or (known.has_ended and known.run_id != run_id):
            self._run_id, self._account_id, self._cut_off = run_id, account_id, None
            self.bookmarks.clear()
            self.lockstep.has_ended = False
            return self._place()
        self._check(account_id, run_id, known.account_id, known.run_id)
        self._run_id, self._account_id, self._done = run_id, account_id, known.done
        log.info("run_goes_on", run=run_id, done=known.done, revision=known.revision)
        return self._place()

    def _place(self) -> Place:
        """A gateway that dies before it is ready leaves everything to the next."""
        has_ended = self.lockstep.has_ended
        begins, goes_on = self._taking_in is None and not has_ended, self._cut_off is not None
        return Place(
            self._done,
            under_way=self._tick is not None,
            recall=begins and goes_on,
            fresh=begins and not goes_on,
            ended=has_ended,
        )

    @staticmethod
    def _check(account_id: str, run_id: str, own_account: str, own_run: str) -> None:
        if (account_id, run_id) != (own_account, own_run):
            raise invalid("hello.run_id", f"this service is in the run {own_run!r} of {own_account}, not {run_id!r}")

    def recall(self, before: int, symbol: str, ticks: Sequence[Tick]) -> None:
        """Ticks that another process of this service has decided on, behind so many that the same gateway told
        ``before``. Another one may have told the first of them and died."""
        missing = ticks[max(0, self._recalled - before) :]
        self.monitor.recall(self._account_id, symbol, missing)
        self._recalled += len(missing)

    async def ready(self, send: Send, symbols: Sequence[str]) -> None:
        """The gateway's books stand where its place says. Returns when every manager takes part."""
        if self.door is None:
            self.door = GatewayDoor(send, deadline_s=CALL_DEADLINE_S)
        else:
            await self.door.reopen(send)
        if self.lockstep.has_ended:
            return
        if self._taking_in is None:
            seen = None if self._cut_off is None else self._cut_off.seen
            work = self.take_in(self._account_id, self.door, list(symbols), seen)
            self._taking_in = asyncio.ensure_future(work)
        await asyncio.shield(self._taking_in)
        await self.lockstep.complete.wait()
        if self.bookmarks.newest is None:
            self._note()

    async def tick(self, number: int, symbol: str, tick: Tick, change_count: int, equity: float | None) -> None:
        """Returns when all that follows from the tick is durable. One that is done or under way is not worked on again.

        Raises FIELD_INVALID for a tick out of turn, ManagerSilent, and what the monitor raises.
        """
        if number <= self._done:
            return
        if number != self._done + 1:
            raise invalid("ticks.seq", f"{number} where {self._done + 1} follows")
        if self._tick is None:
            self._tick = asyncio.create_task(self._work(symbol, tick, change_count, equity))
        await asyncio.shield(self._tick)

    async def _work(self, symbol: str, tick: Tick, change_count: int, equity: float | None) -> None:
        try:
            await self.monitor.tick(self._account_id, symbol, tick, change_count, equity)
            await self.desk.settled()
        except FatalError as error:
            self.fail(error)
            raise
        self._done, self._tick = self._done + 1, None
        newest = self.bookmarks.newest
        is_quiet = (
            newest is not None
            and (newest.revision, newest.seq) == (self.desk.engine.revision, self.lockstep.seq)
            and newest.seen == self.monitor.seen(self._account_id)
        )
        if not is_quiet or self._done % NOTE_EVERY == 0:
            self._note()

    def end(self) -> None:
        """The history has ended."""
        if not self.lockstep.has_ended:
            self.lockstep.end()
            self._note()

    def close(self) -> None:
        """After an orderly end of the run nobody goes on with it."""
        newest = self.bookmarks.newest
        if newest is not None and newest.has_ended:
            self.bookmarks.clear()
        self.bookmarks.close()

    def _note(self) -> None:
        lockstep = self.lockstep
        self.bookmarks.put(
            Bookmark(
                run_id=self._run_id,
                account_id=self._account_id,
                done=self._done,
                revision=self.desk.engine.revision,
                seq=lockstep.seq,
                seen=self.monitor.seen(self._account_id),
                managers=lockstep.told(),
                has_ended=lockstep.has_ended,
            )
        )
