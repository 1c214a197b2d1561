"""The embedded journal: one SQLite file, one connection, WAL with a sync in every commit.

One connection that holds the file exclusively keeps clear of SQLite's WAL-reset race and needs no shared memory.
Checkpoints cost 10-20 ms, so they run when the owner is idle, not inside a commit, until the log reaches its limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import apsw

from dtms_service import fault_disk
from dtms_service.errors import (
    JournalDamaged,
    JournalFailed,
    JournalModeDiffers,
    JournalVersionUnknown,
    compacted,
    future_revision,
)
from dtms_service.fault_points import Point, reach
from dtms_service.journal.backup import copy_pages, made_ns_of, unmark
from dtms_service.journal.chain import MAX_GROUP_EVENTS, ChainReport, proven, walk
from dtms_service.journal.lock import DataDirectoryLock
from dtms_service.journal.protocol import GENESIS, Event, Progress, Snapshot, link
from dtms_service.journal.wal import WalReport, scan_wal

JOURNAL_NAME: Final = "journal.db"
FORMAT: Final = 1
APPLICATION_ID: Final = 0x44544D53  # "DTMS", so that `file` and SQLite tools name the file
SHADOW_APPLICATION_ID: Final = 0x44545348  # "DTSH": what it records was never sent to a broker
SNAPSHOTS_KEPT: Final = 2
"""Two, so that a damaged newest one costs a longer replay and no state."""
COMPACT_CHUNK: Final = 10_000
"""Events dropped per transaction: about 20 ms, because commits wait meanwhile."""
IDLE_CHECKPOINT_BYTES: Final = 1 << 20
"""A shorter log is not worth a checkpoint: reading it at start takes 20 ms."""
_PAGE_BYTES: Final = 4096
# SQLite's file header (sqlite.org/fileformat.html, 1.3).
_HEADER_BYTES: Final = 100
_MAGIC: Final = b"SQLite format 3\0"
_SCHEMA_AT: Final = 40
_APPLICATION_AT: Final = 68
_VM_STEPS_PER_PROGRESS: Final = 1_000_000

_SCHEMA: Final = """
CREATE TABLE event (revision INTEGER PRIMARY KEY, body BLOB NOT NULL, chain BLOB NOT NULL) STRICT;
CREATE TABLE base (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, chain BLOB NOT NULL) STRICT;
CREATE TABLE snapshot (
    revision INTEGER PRIMARY KEY, chain BLOB NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE torn (id INTEGER PRIMARY KEY, revision INTEGER, why TEXT NOT NULL, body BLOB, chain BLOB);
INSERT INTO base VALUES (1, 0, zeroblob(32));
"""
_ROWS: Final = (
    "SELECT revision, CAST(body AS BLOB), CAST(chain AS BLOB) FROM event WHERE revision >= ? ORDER BY revision LIMIT ?"
)
_BASE: Final = "SELECT revision, chain FROM base"
_SNAPSHOTS: Final = "SELECT revision, chain, digest, body FROM snapshot ORDER BY revision DESC"


@dataclass(frozen=True, slots=True)
class OpenReport:
    """What opening found. ``torn_*`` were never part of a whole commit and now lie in the table ``torn``."""

    created: bool
    oldest_revision: int
    newest_revision: int
    snapshot_revision: int  # 0 if none
    verified_events: int
    torn_revisions: tuple[int, ...]
    torn_log_bytes: int
    damaged_snapshots: tuple[int, ...]  # revisions whose snapshot does not verify; an older one is used

    @property
    def recovered(self) -> bool:
        """Whether an unfinished last write was set aside."""
        return bool(self.torn_revisions or self.torn_log_bytes)


@dataclass(frozen=True, slots=True)
class _Anchor:
    revision: int
    chain: bytes
    damaged: tuple[int, ...]


class SqliteJournal:
    """A Journal in ``<data_dir>/journal.db``. Make one with ``open``; use it from one thread at a time."""

    def __init__(self, path: Path, connection: apsw.Connection, lock: DataDirectoryLock, wal_limit_bytes: int) -> None:
        self._path = path
        self._connection = connection
        self._lock = lock
        self._wal_limit_bytes = wal_limit_bytes
        self._wal_bytes = 0
        self._base_revision = 0
        self._newest = 0
        self._chain = GENESIS
        self._failure: JournalFailed | None = None
        self._closed = False
        connection.set_wal_hook(self._on_commit)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        wal_limit_bytes: int,
        progress: Progress,
        shadow: bool | None = False,
        vfs: str | None = None,
    ) -> tuple[Self, OpenReport]:
        """Lock, open and verify the journal in ``data_dir``, creating both if they do not exist.

        Verified are the write-ahead log, the file's structure and the chain from the newest sound snapshot on. A torn
        last commit is moved aside and reported. ``vfs`` names a registered SQLite VFS (fault injection), None the
        system's own. A journal is marked as that of a ``shadow`` run or of a live service when it is made; None takes
        either, for readers.
        Raises DataDirectoryBusy, JournalModeDiffers, JournalVersionUnknown, JournalDamaged, JournalFailed; where it is
        refused or damaged, nothing was changed.
        """
        path = data_dir / JOURNAL_NAME
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = DataDirectoryLock(data_dir)
        except OSError as error:
            raise JournalFailed(path, 0, str(error)) from error
        try:
            _refuse_foreign(path, shadow=shadow)
            wal = scan(path, progress)
            connection = connect(path, vfs)
            try:
                journal = cls(path, connection, lock, wal_limit_bytes)
                return journal, journal._start(wal, progress, shadow=shadow)
            except BaseException:
                connection.close()
                raise
        except (apsw.CorruptError, apsw.NotADBError) as error:
            lock.release()
            raise JournalDamaged(path, 0, f"not readable as a database ({error})") from error
        except apsw.Error as error:
            lock.release()
            raise JournalFailed(path, 0, str(error)) from error
        except BaseException:
            lock.release()
            raise

    @property
    def path(self) -> Path:
        return self._path

    @property
    def oldest_revision(self) -> int:
        return self._base_revision + 1

    @property
    def newest_revision(self) -> int:
        return self._newest

    @property
    def chain_head(self) -> str:
        return self._chain.hex()

    @property
    def wal_bytes(self) -> int:
        """Length of the log that the next checkpoint would clear."""
        return self._wal_bytes

    def append(self, expected_revision: int, events: Sequence[Event]) -> None:
        self._require_open()
        if expected_revision != self._newest:
            raise self._fail(f"append after revision {expected_revision}, but the newest is {self._newest}")
        if len(events) > MAX_GROUP_EVENTS:
            raise ValueError(f"{len(events)} events in one commit, at most {MAX_GROUP_EVENTS}")
        chain = self._chain
        rows: list[tuple[int, bytes, bytes]] = []
        for following, (revision, body) in enumerate(events, self._newest + 1):
            if revision != following:
                raise ValueError(f"revision {revision} where {following} follows")
            chain = link(chain, body)
            rows.append((revision, body, chain))
        reach(Point.JOURNAL_BEGIN)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO event VALUES (?, ?, ?)", rows)
            reach(Point.JOURNAL_INSERTED)
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            raise self._fail(str(error)) from error
        reach(Point.JOURNAL_COMMITTED)
        self._newest += len(rows)
        self._chain = chain
        if self._wal_bytes >= self._wal_limit_bytes:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def read(self, from_revision: int, limit: int) -> list[Event]:
        self._require_open()
        if from_revision <= self._base_revision:
            raise compacted(from_revision, self.oldest_revision)
        if from_revision > self._newest + 1:
            raise future_revision(from_revision, self._newest)
        try:
            chain = self._chain_before(from_revision)
            rows = query(self._connection, _ROWS, (from_revision, limit))
        except apsw.Error as error:
            raise self._fail(f"read from {from_revision}: {error}") from error
        return proven(rows, from_revision, chain, min(limit, self._newest - from_revision + 1))

    def save_snapshot(self, snapshot: Snapshot) -> None:
        self._require_open()
        if not self._base_revision <= snapshot.revision <= self._newest:
            raise ValueError(
                f"snapshot of revision {snapshot.revision} outside [{self._base_revision}, {self._newest}]"
            )
        try:
            with self._connection:
                chain = self._chain_at(snapshot.revision)
                self._connection.execute(
                    "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)",
                    (snapshot.revision, chain, _digest(snapshot.revision, chain, snapshot.body), snapshot.body),
                )
                self._connection.execute(
                    "DELETE FROM snapshot WHERE revision NOT IN "
                    "(SELECT revision FROM snapshot ORDER BY revision DESC LIMIT ?)",
                    (SNAPSHOTS_KEPT,),
                )
                reach(Point.SNAPSHOT_WRITE)
        except apsw.Error as error:
            raise self._fail(f"snapshot of revision {snapshot.revision}: {error}") from error
        reach(Point.SNAPSHOT_WRITTEN)

    def load_snapshot(self) -> Snapshot | None:
        self._require_open()
        try:
            rows = query(self._connection, _SNAPSHOTS)
        except apsw.Error as error:
            raise self._fail(f"load snapshot: {error}") from error
        return next(_sound(rows), None)

    @property
    def backup_made_ns(self) -> int | None:
        """When this journal was copied, ns UTC, if it is a backup that nobody has gone on from; else None."""
        return made_ns_of(self._connection)

    def go_on(self) -> None:
        self._require_open()
        try:
            unmark(self._connection)
        except apsw.Error as error:
            raise self._fail(f"backup: {error}") from error

    def copy(self, target: Path) -> Iterator[None]:
        self._require_open()
        return copy_pages(self._connection, target)

    def compact(self, before_revision: int) -> int:
        self._require_open()
        kept = self._connection.execute("SELECT min(revision) FROM snapshot").get
        allowed = kept + 1 if isinstance(kept, int) else self.oldest_revision
        if before_revision > allowed:
            raise ValueError(f"compaction before {before_revision} would outrun the oldest snapshot, {allowed - 1}")
        base = min(before_revision - 1, self._base_revision + COMPACT_CHUNK)
        if base <= self._base_revision:
            return self.oldest_revision
        try:
            with self._connection:
                self._connection.execute("UPDATE base SET revision = ?, chain = ?", (base, self._chain_at(base)))
                self._connection.execute("DELETE FROM event WHERE revision <= ?", (base,))
                reach(Point.COMPACT_WRITE)
        except apsw.Error as error:
            raise self._fail(f"compact before {before_revision}: {error}") from error
        reach(Point.COMPACT_WRITTEN)
        self._base_revision = base
        return self.oldest_revision

    def checkpoint(self) -> None:
        self._require_open()
        if self._wal_bytes >= IDLE_CHECKPOINT_BYTES:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def close(self) -> None:
        """Clear the log, close the file, release the directory. After a failure the log is left as it is."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._failure is None:
                self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            try:
                self._connection.close()
            finally:
                self._lock.release()

    # -- opening -------------------------------------------------------------------------------------------------

    def _start(self, wal: WalReport, progress: Progress, *, shadow: bool | None) -> OpenReport:
        connection = self._connection
        created = connection.pragma("application_id") == 0 and connection.pragma("schema_version") == 0
        if created:
            with connection:
                connection.pragma("application_id", SHADOW_APPLICATION_ID if shadow else APPLICATION_ID)
                connection.pragma("user_version", FORMAT)
                connection.execute(_SCHEMA)
        application = connection.pragma("application_id")
        found = format_of(connection)
        if found != FORMAT:
            raise JournalVersionUnknown(self._path, found, FORMAT)
        if shadow is not None and (application == SHADOW_APPLICATION_ID) != shadow:
            raise JournalModeDiffers(self._path, shadow=not shadow)
        if wal.damage:
            raise JournalDamaged(self._path, self._newest_row() + 1, wal.damage)
        self._check_structure(progress)
        base = query(connection, _BASE)
        if len(base) != 1:
            raise JournalDamaged(self._path, 1, "the base revision is missing")
        self._base_revision, base_chain = base[0]
        anchor = self._anchor(base_chain)
        report = walk(connection, self._path, anchor.revision, anchor.chain, progress)
        self._newest, self._chain = report.newest_revision, report.chain_head
        self._set_aside(report, wal)
        self._wal_bytes = wal.sound_bytes
        return OpenReport(
            created=created,
            oldest_revision=self.oldest_revision,
            newest_revision=self._newest,
            snapshot_revision=anchor.revision,
            verified_events=report.events,
            torn_revisions=tuple(report.torn),
            torn_log_bytes=wal.torn_bytes,
            damaged_snapshots=anchor.damaged,
        )

    def _newest_row(self) -> int:
        newest = self._connection.execute("SELECT max(revision) FROM event").get
        return self._base_revision if newest is None else int(newest)

    def _check_structure(self, progress: Progress) -> None:
        steps = 0

        def tick() -> bool:
            nonlocal steps
            steps += 1
            progress("check journal structure", steps * _VM_STEPS_PER_PROGRESS, 0)
            return False

        self._connection.set_progress_handler(tick, _VM_STEPS_PER_PROGRESS)
        try:
            problems = [str(row[0]) for row in self._connection.execute("PRAGMA quick_check")]
        except (apsw.CorruptError, apsw.IOError) as error:
            problems = [str(error)]
        finally:
            self._connection.set_progress_handler(None)
        if problems == ["ok"]:
            return
        why = f"the file's structure does not verify ({problems[0]})"
        walk_from = query(self._connection, _BASE)
        revision, chain = walk_from[0] if walk_from else (0, GENESIS)
        sound = walk(self._connection, self._path, revision, chain, progress)  # names the first unreadable event
        raise JournalDamaged(self._path, sound.newest_revision + 1, why)

    def _anchor(self, base_chain: bytes) -> _Anchor:
        damaged: list[int] = []
        newest = self._newest_row()
        for revision, chain, digest, body in query(self._connection, _SNAPSHOTS):
            if digest != _digest(revision, chain, body):
                damaged.append(revision)
            elif newest < revision:
                raise JournalDamaged(self._path, newest + 1, f"a snapshot knows revision {revision}")
            else:
                return _Anchor(revision, chain, tuple(damaged))
        if self._base_revision:
            raise JournalDamaged(self._path, self._base_revision, "no snapshot of the compacted events verifies")
        return _Anchor(0, base_chain, tuple(damaged))

    def _set_aside(self, report: ChainReport, wal: WalReport) -> None:
        if not report.torn and not wal.torn_bytes:
            return
        with self._connection:
            if report.torn:
                self._connection.execute(
                    "INSERT INTO torn (revision, why, body, chain) "
                    "SELECT revision, 'does not verify', body, chain FROM event WHERE revision > ?",
                    (report.newest_revision,),
                )
                self._connection.execute("DELETE FROM event WHERE revision > ?", (report.newest_revision,))
            if wal.torn_bytes:
                self._connection.execute(
                    "INSERT INTO torn (revision, why, body) VALUES (NULL, 'unfinished commit in the log', ?)",
                    (wal.torn,),
                )

    # -- while open ----------------------------------------------------------------------------------------------

    def _chain_before(self, revision: int) -> bytes | None:
        """None where it is not there."""
        if revision - 1 == self._base_revision:
            return bytes(self._connection.execute("SELECT chain FROM base").get)
        found = self._connection.execute(
            "SELECT CAST(chain AS BLOB) FROM event WHERE revision = ?", (revision - 1,)
        ).get
        return found if isinstance(found, bytes) else None

    def _chain_at(self, revision: int) -> bytes:
        if revision == self._base_revision:
            row = self._connection.execute("SELECT chain FROM base").get
        else:
            row = self._connection.execute("SELECT chain FROM event WHERE revision = ?", (revision,)).get
        if not isinstance(row, bytes):
            raise JournalDamaged(self._path, revision, "its chain value is missing")
        return row

    def _on_commit(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_bytes = pages * _PAGE_BYTES
        return apsw.SQLITE_OK

    def _checkpoint(self, mode: int) -> None:
        reach(Point.JOURNAL_CHECKPOINT)
        try:
            self._connection.wal_checkpoint(mode=mode)
        except apsw.Error as error:
            raise self._fail(f"checkpoint: {error}") from error
        reach(Point.JOURNAL_CHECKPOINTED)
        self._wal_bytes = 0

    def _require_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise ValueError(f"{self._path} is closed")

    def _fail(self, why: str) -> JournalFailed:
        # The transaction stays unfinished: what a failed sync left on the disk is for the next start to find out.
        self._failure = JournalFailed(self._path, self._newest, why)
        return self._failure


def sound_snapshots(connection: apsw.Connection) -> list[Snapshot]:
    """Those that verify, the newest first."""
    return list(_sound(query(connection, _SNAPSHOTS)))


def _sound(rows: list[Any]) -> Iterator[Snapshot]:
    return (Snapshot(r, body) for r, chain, digest, body in rows if digest == _digest(r, chain, body))


def _refuse_foreign(path: Path, *, shadow: bool | None) -> None:
    """Looks at the file's own header: opening it in WAL mode would change it already."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return
    schema, application = (int.from_bytes(header[at : at + 4], "big") for at in (_SCHEMA_AT, _APPLICATION_AT))
    is_new = application == schema == 0  # what it is about stands in the log as yet
    if not header.startswith(_MAGIC) or is_new:
        return
    if application not in {APPLICATION_ID, SHADOW_APPLICATION_ID}:
        raise JournalVersionUnknown(path, 0, FORMAT)
    if shadow is not None and (application == SHADOW_APPLICATION_ID) != shadow:
        raise JournalModeDiffers(path, shadow=not shadow)


def format_of(connection: apsw.Connection) -> int:
    """0 for what is no journal of DTMS."""
    is_journal = connection.pragma("application_id") in {APPLICATION_ID, SHADOW_APPLICATION_ID}
    return int(connection.pragma("user_version")) if is_journal else 0


def scan(path: Path, progress: Progress) -> WalReport:
    log = path.with_name(f"{JOURNAL_NAME}-wal")
    wal = scan_wal(log, progress)
    if wal.sound_bytes and not path.exists():
        raise JournalDamaged(path, 1, f"{log.name} is there but {path.name} is not")
    return wal


def connect(path: Path, vfs: str | None) -> apsw.Connection:
    vfs = vfs or fault_disk.vfs_of(Point.JOURNAL_WRITE, Point.JOURNAL_SYNC, Point.JOURNAL_SYNCED)
    connection = apsw.Connection(str(path), vfs=vfs)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("locking_mode", "exclusive")
    connection.pragma("page_size", _PAGE_BYTES)
    if connection.pragma("journal_mode", "wal") != "wal":
        raise JournalFailed(path, 0, "this file system cannot keep a write-ahead log")
    connection.pragma("synchronous", "full")
    connection.wal_autocheckpoint(0)
    return connection


def query(connection: apsw.Connection, sql: str, bindings: Sequence[int] = ()) -> list[Any]:
    """All rows; the STRICT schema vouches for the types of their columns."""
    return connection.execute(sql, tuple(bindings)).fetchall()


def _digest(revision: int, chain: bytes, body: bytes) -> bytes:
    return sha256(revision.to_bytes(8, "big") + chain + body).digest()
