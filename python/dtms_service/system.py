"""The system: everything of the service but gRPC, put together. One way to start, which is recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import structlog

from dtms_service import backup, convert, news_watch, recovery, symbols
from dtms_service._core import CorePanic, Engine
from dtms_service.bar_store import BarStore
from dtms_service.bars import KEPT, ClosedBars
from dtms_service.bookmark import BOOKMARK, Bookmarks, Seen
from dtms_service.broker.door import BrokerDoor, BrokerUnavailable, SymbolSpec
from dtms_service.clock import Clock, SystemClock, VirtualClock
from dtms_service.config import Config
from dtms_service.config_changes import Reloaded
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError
from dtms_service.event_log import Entry, EventLog
from dtms_service.executor import Executor
from dtms_service.fault_points import Point, reach
from dtms_service.gateways import Gateways
from dtms_service.journal import CommitQueue, SqliteJournal
from dtms_service.lockstep import Lockstep
from dtms_service.lockstep_run import LockstepRun
from dtms_service.monitor import Monitor
from dtms_service.news_watch import NewsWatch
from dtms_service.notify import Notifier, Target, open_senders
from dtms_service.paper_account import PaperAccount
from dtms_service.quotes import Quotes
from dtms_service.shadow import Shadows
from dtms_service.stage import Stage

NEWS_INTERVAL_S = 5.0  # between two looks at the calendar's file: news are known hours before
REMIND_S = 10.0  # between two log lines about what the recovery waits for
TIMER_INTERVAL_S = 0.25  # timers are minutes, leases seconds: a quarter of a second late changes nothing
OTHER_VWAP_SLOPE = 0.001
BARS = "bars.db"
TITLE = "DTMS"  # of a notification

log = structlog.get_logger(__name__)


class LockstepClock(VirtualClock):
    """Event time of the history; the lease clock stands: in lockstep no manager can miss its turn."""

    def advance_to(self, now_ns: int) -> None:
        mono_ns = self.mono_ns()
        super().advance_to(max(now_ns, self.now_ns()))
        self._mono_ns = mono_ns


@dataclass(slots=True)
class System:
    """Made by :meth:`open` on the running loop; ended by :meth:`close`."""

    config: Config
    clock: Clock
    journal: SqliteJournal
    desk: Desk
    doors: Doors
    executor: Executor
    monitor: Monitor
    gateways: Gateways
    quotes: Quotes
    news: NewsWatch
    events: EventLog
    lockstep: Lockstep | None
    started_ns: int
    replayed: recovery.Replayed
    failed: asyncio.Future[None]
    stage: Stage = Stage.RECOVERING
    notifier: Notifier | None = None
    shadows: Shadows | None = None
    paper: PaperAccount | None = None
    # A gateway's run of a history; None in real time.
    run: LockstepRun | None = None
    # None in virtual time: a run begins with what its history shows.
    bar_store: BarStore | None = None
    # Reads the configuration again (reload.py); None where there is nothing to read, as in virtual time.
    reload: Callable[..., Awaitable[Reloaded]] | None = None
    on_stage: list[Callable[[Stage], None]] = field(default_factory=list)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.Task[None] | None = None
    _news_timer: asyncio.Task[None] | None = None
    _watcher: asyncio.Task[None] | None = None
    _reminder: asyncio.Task[None] | None = None
    _progress: dict[str, recovery.Progress] = field(default_factory=dict)
    _snapshot_revision: int = 0
    # Accounts whose broker was asked for past bars in vain.
    _without_past: set[str] = field(default_factory=set)

    @classmethod
    async def open(
        cls,
        config: Config,
        managers_in_lockstep: frozenset[str] | None,
        *,
        queue: Callable[..., CommitQueue] = CommitQueue,
    ) -> System:
        """Locks the data directory, verifies and replays the journal. ``managers_in_lockstep`` is None in real time.

        Raises ConfigInvalid, DataDirectoryBusy, JournalDamaged, JournalModeDiffers, JournalVersionUnknown or
        JournalFailed; then nothing was changed.
        """
        announcements, calendar_seen = news_watch.first(config.rails)
        virtual = managers_in_lockstep is not None
        clock: Clock = LockstepClock(0) if virtual else SystemClock()
        notifier = None if virtual else _notifier(config, clock)  # a history of last year is no news to anybody
        journal, report = SqliteJournal.open(
            config.data_dir,
            wal_limit_bytes=config.journal.wal_limit_bytes,
            progress=_log_progress,
            shadow=config.shadow,
        )
        backup.remove_drafts(config.data_dir)
        if report.recovered:
            log.warning("journal_recovered", torn_revisions=report.torn_revisions, torn_log_bytes=report.torn_log_bytes)
        engine = Engine(
            config.to_core(),
            {name: int(rank) for name, rank in config.managers.items()},
            config.universal_strategies,
        )
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()

        def fail(error: BaseException) -> None:
            if not failed.done():
                log.critical("service_fails", exc_info=error)
                failed.set_exception(error)

        desk = Desk(engine, None, None, clock, config.engine.decisions_kept, config.limits.max_trades)  # type: ignore[arg-type]
        bookmarks = Bookmarks(config.data_dir / BOOKMARK) if virtual else None
        bookmark = None if bookmarks is None else bookmarks.newest
        # Of a run that was cut off, what had not come to its end is worked on once more.
        until = None if bookmark is None or bookmark.has_ended else bookmark.revision
        replayed = recovery.replay(desk, journal, _log_progress, until=until)
        log.info("replayed", events=replayed.events, revision=replayed.revision)
        backup_made_ns = journal.backup_made_ns
        reach(Point.REPLAYED)
        desk.commits = commits = queue(
            journal,
            on_durable=desk.publish,
            max_pending_events=config.journal.max_pending_events,
            idle_ms=config.journal.idle_checkpoint_ms,
        )

        async def read_back(from_revision: int, limit: int) -> list[Entry]:
            return [convert.entry(revision, body) for revision, body in await desk.read(from_revision, limit)]

        desk.events = events = EventLog(config.event_log.capacity, journal.newest_revision, read_back)
        engine.start(clock.mono_ns())
        doors = Doors()
        executor = Executor(
            desk,
            doors,
            config.engine.deviation_points,
            config.engine.magic,
            serial=virtual,
            on_failure=fail,
            settle_s=config.reconciliation.settle_ms / 1000,
        )
        desk.on_intent = executor.submit
        desk.on_alarm = _log_alarm
        desk.on_fact = notifier.on_event if notifier is not None else None
        quotes, bars = Quotes(engine.quote, engine.indices), ClosedBars(keep=None if virtual else KEPT)
        desk.on_index = quotes.index_changed
        news = NewsWatch(desk, config.rails, config.symbols.suffixes, announcements, calendar_seen)
        monitor = Monitor(
            desk,
            doors,
            executor,
            quotes,
            bars,
            _spec_of(config),
            clock if isinstance(clock, VirtualClock) else None,
            fail,
            config.reconciliation.missing_ms,
            on_symbol=news.follow,
        )
        shadows = monitor.shadows = Shadows(config.data_dir, _conversion_rates(config)) if config.shadow else None
        lockstep = None
        if managers_in_lockstep is not None:
            lockstep = Lockstep(desk, doors, executor, quotes, bars, clock, managers_in_lockstep)
            monitor.managers_turn = lockstep.step
            if bookmark is not None:
                lockstep.go_on(bookmark)
        system = cls(
            config=config,
            clock=clock,
            journal=journal,
            desk=desk,
            doors=doors,
            executor=executor,
            monitor=monitor,
            gateways=Gateways(clock, desk.alarm),
            quotes=quotes,
            news=news,
            events=events,
            lockstep=lockstep,
            started_ns=SystemClock().now_ns(),
            replayed=replayed,
            failed=failed,
            notifier=notifier,
            shadows=shadows,
        )
        if bookmarks is not None and lockstep is not None:
            system.run = LockstepRun(system.take_in, desk, monitor, lockstep, bookmarks, fail)
        system._snapshot_revision = replayed.snapshot_revision
        if not virtual:
            system.bar_store = BarStore(config.data_dir / BARS)
            bars.on_closed = system.bar_store.add
        for account_id, _ticket in engine.keys(False):
            doors.know(account_id)
        if backup_made_ns is not None:
            log.warning("backup_restored", made_ns=backup_made_ns, revision=replayed.revision)
            await desk.go_on_from_backup(backup_made_ns)
        if replayed.damage is not None:
            desk.damaged(*replayed.damage)
        await desk.record_rules()
        system._watcher = loop.create_task(_until_failure(commits, fail))
        system._reminder = loop.create_task(system._remind())
        return system

    @property
    def version(self) -> str:
        return version("dtms-service")

    @property
    def oldest_revision(self) -> int:
        return self.journal.oldest_revision

    async def attach(self, account_id: str, door: BrokerDoor, symbol_names: list[str]) -> None:
        """Takes a broker in: settles open intents, adopts and compares positions; after the last one, serves.

        Waits for a broker that does not answer, for as long as it takes. Raises what a broker that is not this
        account's raises: FIELD_INVALID.
        """
        progress = self._progress[account_id] = recovery.Progress(account_id, self.clock)
        served = await recovery.patiently(progress, lambda: self._serve_through(account_id, door, symbol_names))
        if self.bar_store is not None:
            recalled = recovery.recall_bars(self.desk, self.monitor.bars, self.bar_store, account_id, set(symbol_names))
            log.info("bars_recalled", account=account_id, bars=recalled)
            await self._ask_past(account_id, self.bar_store, symbol_names)
        await recovery.reconcile(self.desk, self.executor, self.monitor, progress)
        await self.monitor.weigh(account_id)
        self._served(account_id, served)

    async def take_in(self, account_id: str, door: BrokerDoor, symbol_names: list[str], seen: Seen | None) -> None:
        """A broker in lockstep: as :meth:`attach`, or where the account is known as it was when the run was cut off,
        without a comparison: both go on from the same tick."""
        if seen is None:
            await self.attach(account_id, door, symbol_names)
            return
        progress = self._progress[account_id] = recovery.Progress(account_id, self.clock)
        served = await recovery.patiently(progress, lambda: self._serve_through(account_id, door, symbol_names))
        self.monitor.go_on(account_id, seen)
        self._served(account_id, served)

    def _served(self, account_id: str, served: BrokerDoor) -> None:
        """The account's trades are as its broker shows them."""
        reach(Point.COMPARED)
        self.doors.compared(account_id, served)
        missing = [known for known in self.doors.account_ids if not self.doors.ready(known)]
        if missing:
            log.warning("recovery_waits", accounts=missing)
        elif self.stage is Stage.RECOVERING:
            self._enter(Stage.SERVING)
            if self.lockstep is None:
                self._timer = asyncio.get_running_loop().create_task(self._run_timer())
                self._news_timer = asyncio.get_running_loop().create_task(self._run_news())

    async def _ask_past(self, account_id: str, store: BarStore, symbol_names: list[str]) -> None:
        """Fills up what the market did while nobody looked. A broker that cannot tell is asked no more."""
        if account_id in self._without_past:
            return
        try:
            door = self.doors.of(account_id)
            found = await recovery.past_bars(self.desk, self.monitor.bars, account_id, door, symbol_names)
        except BrokerUnavailable as error:
            self._without_past.add(account_id)
            log.warning("past_bars_unknown", account=account_id, why=str(error))
        else:
            store.add(found)
            log.info("past_bars", account=account_id, bars=len(found))

    async def _serve_through(self, account_id: str, door: BrokerDoor, symbol_names: list[str]) -> BrokerDoor:
        """One attempt to attach the door; the one that is served. Raises BrokerUnavailable, nothing changed."""
        if self.shadows is None:
            await self.monitor.attach(account_id, door, symbol_names)
            return door
        shadow = await self.shadows.door_before(account_id, door, symbol_names)
        await self.monitor.attach(account_id, shadow, symbol_names)
        self.shadows.serve(shadow)
        return shadow

    @property
    def recovery_detail(self) -> str:
        """What the recovery waits for or works at; empty afterwards."""
        if self.stage is not Stage.RECOVERING:
            return ""
        waiting = [account_id for account_id in self.doors.account_ids if not self.doors.ready(account_id)]
        waiting += [account_id for account_id in self._progress if account_id not in self.doors.account_ids]
        return "; ".join(map(self._detail_of, waiting)) or "waiting for a gateway"

    def _detail_of(self, account_id: str) -> str:
        progress = self._progress.get(account_id)
        return progress.detail if progress is not None else f"waiting for the gateway of {account_id}"

    def detach(self, account_id: str, door: BrokerDoor, why: str = "") -> None:
        """The broker behind ``door`` is gone."""
        served = door if self.shadows is None else self.shadows.door_of(account_id, door)
        if self.doors.serves(account_id, served):
            is_expected = self.lockstep is not None or self.stage is not Stage.SERVING
            self.gateways.detached(account_id, why, expected=is_expected)
        self.monitor.detach(account_id, served)
        if not self.doors.attached(account_id):
            self._progress.pop(account_id, None)

    def take(self, config: Config, by: str) -> None:
        """Goes on with ``config``, which differs in nothing that a running system cannot change."""
        self.config = config
        self.desk.reconfigure(config, by)
        self.executor.deviation_points = config.engine.deviation_points

    def fail(self, error: BaseException) -> None:
        """What this system is for cannot be done any more: the service ends with this error."""
        if not self.failed.done():
            log.critical("service_fails", exc_info=error)
            self.failed.set_exception(error)

    def begin_drain(self, why: str) -> None:
        """No new writes; streams are told where to resume. The server stops when what is in flight has ended."""
        if self.stage is not Stage.DRAINING:
            log.info("draining", why=why)
            self._enter(Stage.DRAINING)
            self.draining.set()

    async def close(self) -> None:
        """Finishes what is at the broker, writes a snapshot and gives the journal back."""
        self.monitor.stop()
        for task in (self._timer, self._news_timer, self._watcher, self._reminder):
            if task is not None:
                task.cancel()
        if not self.failed.done():
            await self.executor.idle()
            await self._save_snapshot()
        if self.notifier is not None:
            await self.notifier.close()
        if self.shadows is not None:
            self.shadows.close()
        if self.paper is not None:
            self.paper.close()
        if self.bar_store is not None:
            self.bar_store.close()
        if self.run is not None:
            self.run.close()
        await self.desk.commits.close()

    async def _remind(self) -> None:
        """While the recovery lasts, the log says from time to time what it waits for."""
        while self.stage is Stage.RECOVERING:
            await asyncio.sleep(REMIND_S)
            if self.stage is Stage.RECOVERING:
                waited_s = (SystemClock().now_ns() - self.started_ns) // 1_000_000_000
                log.warning("recovering", detail=self.recovery_detail, waited_s=waited_s)

    async def _run_timer(self) -> None:
        while True:
            await asyncio.sleep(TIMER_INTERVAL_S)
            try:
                self.desk.time()
                self.monitor.look()
                self.gateways.look()
                if self.notifier is not None:
                    self.notifier.time()
                if self.desk.engine.revision - self._snapshot_revision >= self.config.journal.snapshot_every_events:
                    await self._save_snapshot()
            except (Exception, CorePanic) as error:  # noqa: BLE001  a service whose timers stand still must not go on
                if not self.failed.done():
                    self.failed.set_exception(error)
                return

    async def _run_news(self) -> None:
        while True:
            await asyncio.sleep(NEWS_INTERVAL_S)
            try:
                await self.news.look()
            except (Exception, CorePanic) as error:  # noqa: BLE001  a calendar that is followed no more must not look so
                if not self.failed.done():
                    self.failed.set_exception(error)
                return

    async def _save_snapshot(self) -> None:
        snapshot = recovery.snapshot_of(self.desk.engine)
        if snapshot.revision > self._snapshot_revision:
            await self.desk.commits.save_snapshot(snapshot)
            before, self._snapshot_revision = self._snapshot_revision, snapshot.revision
            await self._compact(before)

    async def _compact(self, older_snapshot: int) -> None:
        """Drops what nobody needs: the two newest snapshots keep the events that follow them."""
        keep = self.config.journal.keep_events
        if keep is not None and older_snapshot:
            before = min(older_snapshot, self.desk.commits.durable_revision - keep) + 1
            if before > self.journal.oldest_revision:
                oldest = await self.desk.commits.compact(before)
                log.info("compacted", oldest_revision=oldest)

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        log.info("stage", stage=stage.name, revision=self.desk.engine.revision)
        for listener in self.on_stage:
            listener(stage)


def _conversion_rates(config: Config) -> dict[str, float]:
    embedded = config.paper.conversion_rates if config.paper is not None else {}
    return {**embedded, **config.shadow_conversion_rates}


def _notifier(config: Config, clock: Clock) -> Notifier | None:
    """None without a URL: then apprise is never loaded. Raises ConfigInvalid."""
    told = config.notifications
    senders = open_senders(told.urls, told.timeout_s) if told.urls else []
    if not senders:
        return None
    title = f"{TITLE} SHADOW" if config.shadow else TITLE
    log.info("notifications", targets=[sender.label for sender in senders], events=told.events)
    return Notifier(told, clock, [Target(sender, title, max_waiting=told.max_waiting) for sender in senders])


async def _until_failure(commits: CommitQueue, fail: Callable[[BaseException], None]) -> None:
    try:
        await commits.watch_failure()
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001  a journal that cannot write ends the service
        fail(error)


def _spec_of(config: Config) -> Callable[[SymbolSpec], dict[str, Any]]:
    def spec_of(spec: SymbolSpec) -> dict[str, Any]:
        try:
            known = symbols.load(spec.name, config.symbols.override_fields(), config.symbols.suffixes)
        except DtmsError:  # not in the table: the broker's own rules, and the slope of any other symbol (domain.md)
            return convert.symbol_spec(spec, OTHER_VWAP_SLOPE)
        return convert.symbol_spec(spec, known.vwap_slope_threshold)

    return spec_of


def _log_progress(what: str, done: int, total: int) -> None:
    log.info("progress", what=what, done=done, total=total)


def _log_alarm(event: dict[str, Any]) -> None:
    alarm = event["alarm_raised"]
    log.error(
        "alarm",
        code=convert.alarm_name(alarm["code"]),
        detail=alarm["detail"],
        account=event["account_id"],
        ticket=event["ticket"],
        symbol=event["symbol"],
        revision=event["revision"],
    )
