"""Following events without a gap: what a watcher gets, and the cursor that resumes for it.

A watcher gets every matching event exactly once and in order, across restarts of the service. Where that is not
possible because the journal no longer reaches back, it is told so by `Relisted`; it is never left to guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dtms.v1.event_pb2 import Event, Index
from dtms.v1.market_data_service_pb2 import ClosedBar, Quote, WatchBarsRequest, WatchBarsResponse
from dtms.v1.trade_pb2 import Trade
from dtms.v1.trade_status_service_pb2 import Progress, WatchFilter, WatchRequest, WatchResponse
from dtms_client.errors import OUTAGE, Cancelled, Compacted, DtmsError, Unavailable, Unexpected

METHOD: Final = "dtms.v1.TradeStatusService/Watch"
QUOTES_METHOD: Final = "dtms.v1.MarketDataService/WatchQuotes"
BARS_METHOD: Final = "dtms.v1.MarketDataService/WatchBars"
BACKUP_METHOD: Final = "dtms.v1.AdminService/Backup"
BARS_KEPT: Final = 500
"""The service keeps so many bars of each symbol and length."""
DEFAULT_PROGRESS_MS: Final = 5_000
# Marks come once an interval; three missing in a row are no jitter.
SILENT_INTERVALS: Final = 3


@dataclass(frozen=True, slots=True)
class Listed:
    """The snapshot that was asked for: all matching trades as of `revision`; the events after it follow."""

    trades: tuple[Trade, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Relisted:
    """Events from `missed_from` to `revision` were compacted away and will not come; here are the trades instead."""

    trades: tuple[Trade, ...]
    revision: int
    missed_from: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The stream broke and is opened again by itself; nothing is lost, but what is known may be old by now."""

    error: DtmsError


WatchItem: TypeAlias = Event | Progress | Listed | Relisted | Interrupted


@dataclass(frozen=True, slots=True)
class Quotes:
    """What changed in the market: the latest quote of each symbol, the latest report of each index."""

    quotes: tuple[Quote, ...]
    indices: tuple[Index, ...]


class BarCursor:
    """Where a follower of bars stands: after a break it asks for all that are kept and passes over what it has seen."""

    def __init__(self, *, account_id: str, symbols: Sequence[str], timeframes_s: Sequence[int], history: int) -> None:
        self._account_id = account_id
        self._symbols = tuple(symbols)
        self._timeframes_s = tuple(timeframes_s)
        self._history = history
        self._newest: dict[tuple[str, str, int], int] = {}

    def request(self) -> WatchBarsRequest:
        """The request that continues here."""
        return WatchBarsRequest(
            account_id=self._account_id,
            symbols=self._symbols,
            timeframes_s=self._timeframes_s,
            history=BARS_KEPT if self._newest else self._history,
        )

    def take(self, response: WatchBarsResponse) -> tuple[ClosedBar, ...]:
        """The bars of a response that are new."""
        fresh = []
        for closed in response.bars:
            key = (closed.account_id, closed.symbol, closed.timeframe_s)
            if closed.bar.time_s > self._newest.get(key, -1):
                self._newest[key] = closed.bar.time_s
                fresh.append(closed)
        return tuple(fresh)


class Cursor:
    """Where a watcher stands. Feeds on responses and errors, says what to ask for next. Does no I/O."""

    def __init__(
        self,
        *,
        start_revision: int,
        snapshot: bool,
        watch_filter: WatchFilter | None,
        progress_interval_ms: int,
    ) -> None:
        if snapshot and start_revision:
            raise ValueError("start_revision: not together with snapshot")
        self._next = start_revision
        self._snapshot = snapshot
        self._filter = watch_filter
        self._progress_interval_ms = progress_interval_ms
        self._pieces: list[Trade] = []
        self._missed_from: int | None = None

    @property
    def silence_s(self) -> float:
        """A stream that says nothing for so long is dead."""
        return SILENT_INTERVALS * self._progress_interval_ms / 1e3

    @property
    def anchored(self) -> bool:
        """It is known what comes next: after a break no event can be skipped."""
        return self._snapshot or self._next > 0

    def anchor(self, newest_revision: int) -> None:
        """Fixes what "from now on" means."""
        self._next = newest_revision + 1

    def request(self) -> WatchRequest:
        """The request that continues here."""
        self._pieces.clear()
        return WatchRequest(
            start_revision=0 if self._snapshot else self._next,
            filter=self._filter,
            snapshot=self._snapshot,
            progress_interval_ms=self._progress_interval_ms,
        )

    def take(self, response: WatchResponse) -> list[Event | Progress | Listed | Relisted]:
        """What a response says, in order. Raises Unexpected for an event that was due earlier."""
        items: list[Event | Progress | Listed | Relisted] = []
        if response.HasField("snapshot"):
            self._pieces.extend(response.snapshot.trades)
            if revision := response.snapshot.complete_at_revision:
                items.append(self._complete(revision))
        for event in response.events:
            self._advance(event.revision)
            items.append(event)
        if response.HasField("progress"):
            # A mark may repeat the last event's revision.
            self._next = max(self._next, response.progress.revision + 1)
            items.append(response.progress)
        return items

    def broken(self, error: DtmsError) -> None:
        """Prepares to go on after `error`, or raises it when going on makes no sense."""
        if isinstance(error, Compacted):
            self._missed_from = self._next
            self._snapshot = True
        elif not isinstance(error, (*OUTAGE, Cancelled)):
            raise error

    def _complete(self, revision: int) -> Listed | Relisted:
        trades, missed_from = tuple(self._pieces), self._missed_from
        self._pieces.clear()
        self._snapshot, self._missed_from, self._next = False, None, revision + 1
        if missed_from is None:
            return Listed(trades=trades, revision=revision)
        return Relisted(trades=trades, revision=revision, missed_from=missed_from)

    def _advance(self, revision: int) -> None:
        if revision < self._next:
            raise Unexpected(
                f"event {revision} came again or late, {self._next} was due", method=METHOD, reason="OUT_OF_ORDER"
            )
        self._next = revision + 1


def silent(seconds: float) -> Unavailable:
    """The error of a stream without a sign of life."""
    return Unavailable(f"nothing for {seconds:g} s, not even a progress mark", method=METHOD, reason="SILENT")


def ended(method: str) -> Unavailable:
    """The error of a stream that the service closed without a word."""
    return Unavailable("the service ended the stream", method=method, reason="STREAM_ENDED")
