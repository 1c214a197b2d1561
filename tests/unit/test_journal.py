"""The journal: durable, gapless, chained, and honest about what it finds."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from dtms_service.errors import (
    DataDirectoryBusy,
    DtmsError,
    JournalDamaged,
    JournalFailed,
    JournalVersionUnknown,
    Reason,
)
from dtms_service.journal import (
    GENESIS,
    MAX_GROUP_EVENTS,
    Event,
    OpenReport,
    Snapshot,
    SqliteJournal,
    export_journal,
    link,
    no_progress,
    verify_journal,
)
from dtms_service.journal.sqlite import COMPACT_CHUNK

WAL_LIMIT = 1 << 20
BODY = b"x" * 40 + b"%06d" + b"y" * 200


def body(revision: int) -> bytes:
    return BODY % revision


def events(first: int, last: int) -> list[Event]:
    return [(revision, body(revision)) for revision in range(first, last + 1)]


def opened(data_dir: Path, vfs: str | None = None) -> tuple[SqliteJournal, OpenReport]:
    return SqliteJournal.open(data_dir, wal_limit_bytes=WAL_LIMIT, progress=no_progress, vfs=vfs)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def journal(data_dir: Path) -> Iterator[SqliteJournal]:
    made, _report = opened(data_dir)
    yield made
    made.close()


def written(data_dir: Path, count: int, group: int = 10) -> Path:
    """A closed journal of ``count`` events, all of them in the main file; its path."""
    journal, _report = opened(data_dir)
    for first in range(1, count + 1, group):
        journal.append(first - 1, events(first, min(first + group - 1, count)))
    journal.close()
    return journal.path


def crashed(data_dir: Path, commits: int, group: int = 10) -> Path:
    """A journal whose process died: ``commits`` groups, all of them only in the log; the log's path."""
    script = (
        "import os, sys; from pathlib import Path; from tests.unit.test_journal import events, opened\n"
        "journal, _ = opened(Path(sys.argv[1])); commits, group = int(sys.argv[2]), int(sys.argv[3])\n"
        "for n in range(commits): journal.append(n * group, events(n * group + 1, (n + 1) * group))\n"
        "os._exit(9)"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", script, str(data_dir), str(commits), str(group)], cwd=root, check=False)
    assert run.returncode == 9
    return data_dir / "journal.db-wal"


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


# -- append and read ----------------------------------------------------------------------------------------------


def test_an_empty_journal_stands_at_revision_zero(data_dir: Path) -> None:
    """A new directory is created for the owner alone; the first revision is 1."""
    journal, report = opened(data_dir)
    assert report.created
    assert (journal.oldest_revision, journal.newest_revision, journal.chain_head) == (1, 0, GENESIS.hex())
    assert journal.read(1, 10) == []
    assert data_dir.stat().st_mode & 0o077 == 0
    journal.close()


def test_what_was_appended_is_read_back_in_order(journal: SqliteJournal) -> None:
    """Bodies come back byte for byte, from any revision, up to the limit."""
    journal.append(0, events(1, 25))
    journal.append(25, events(26, 40))
    assert journal.read(1, 100) == events(1, 40)
    assert journal.read(20, 10) == events(20, 29)
    assert journal.read(41, 10) == []


def test_the_head_chains_every_body(journal: SqliteJournal) -> None:
    """chain_n = sha256(chain_{n-1} || body), independent of how events were grouped."""
    journal.append(0, events(1, 3))
    journal.append(3, events(4, 4))
    chain = GENESIS
    for _revision, text in events(1, 4):
        chain = link(chain, text)
    assert journal.chain_head == chain.hex()


def test_everything_survives_a_reopen(data_dir: Path) -> None:
    """Revisions, bodies and head are the same after close and open, and the report says what was verified."""
    journal, _report = opened(data_dir)
    journal.append(0, events(1, 30))
    head = journal.chain_head
    journal.close()
    again, report = opened(data_dir)
    assert (again.chain_head, again.read(1, 100)) == (head, events(1, 30))
    assert (report.created, report.newest_revision, report.verified_events, report.recovered) == (False, 30, 30, False)
    again.close()


def test_two_journals_of_one_history_have_one_head(tmp_path: Path) -> None:
    """Equal events give equal heads, a single different byte does not."""
    heads = []
    for name, first in (("a", b"one"), ("b", b"one"), ("c", b"onf")):
        journal, _report = opened(tmp_path / name)
        journal.append(0, [(1, first), (2, b"two")])
        heads.append(journal.chain_head)
        journal.close()
    assert heads[0] == heads[1] != heads[2]


def test_a_gap_is_refused_and_nothing_is_written(journal: SqliteJournal) -> None:
    """Revisions that do not follow each other are a bug of the caller; the journal stays usable."""
    with pytest.raises(ValueError, match="revision 3 where 2 follows"):
        journal.append(0, [(1, b"a"), (3, b"b")])
    assert journal.newest_revision == 0
    journal.append(0, events(1, 1))


def test_a_group_is_bounded(journal: SqliteJournal) -> None:
    """More events than a group may hold are refused whole."""
    with pytest.raises(ValueError, match="at most"):
        journal.append(0, events(1, MAX_GROUP_EVENTS + 1))
    journal.append(0, events(1, MAX_GROUP_EVENTS))


def test_an_unexpected_newest_revision_stops_the_writer(journal: SqliteJournal) -> None:
    """Whoever appends after a revision that is not the newest does not own the journal: nothing is written."""
    journal.append(0, events(1, 5))
    with pytest.raises(JournalFailed) as caught:
        journal.append(4, events(5, 5))
    assert caught.value.newest_revision == 5


def test_a_read_outside_the_history_is_told_its_bounds(journal: SqliteJournal) -> None:
    """Beyond newest + 1 is FUTURE_REVISION, below the oldest is COMPACTED, each with the revision to go on from."""
    journal.append(0, events(1, 5))
    with pytest.raises(DtmsError) as caught:
        journal.read(7, 1)
    assert (caught.value.reason, caught.value.metadata) == (Reason.FUTURE_REVISION, {"newest_revision": "5"})
    journal.save_snapshot(Snapshot(4, b"state"))
    journal.compact(4)
    with pytest.raises(DtmsError) as caught:
        journal.read(3, 1)
    assert (caught.value.reason, caught.value.metadata) == (Reason.COMPACTED, {"oldest_revision": "4"})


# -- snapshots and compaction -------------------------------------------------------------------------------------


def test_the_newest_snapshot_comes_back(data_dir: Path) -> None:
    """After a reopen the newest snapshot is loaded and only the events behind it are verified."""
    journal, _report = opened(data_dir)
    assert journal.load_snapshot() is None
    journal.append(0, events(1, 30))
    for revision in (10, 20, 25):
        journal.save_snapshot(Snapshot(revision, b"state %d" % revision))
    journal.close()
    again, report = opened(data_dir)
    assert again.load_snapshot() == Snapshot(25, b"state 25")
    assert (report.snapshot_revision, report.verified_events, report.newest_revision) == (25, 5, 30)
    again.close()


def test_a_snapshot_of_an_unknown_revision_is_refused(journal: SqliteJournal) -> None:
    """A snapshot belongs to a durable revision."""
    journal.append(0, events(1, 3))
    with pytest.raises(ValueError, match="revision 4"):
        journal.save_snapshot(Snapshot(4, b""))


def test_a_damaged_snapshot_costs_replay_and_no_state(data_dir: Path) -> None:
    """When the newest snapshot does not verify, the one before is used and the report names the damaged one."""
    journal, _report = opened(data_dir)
    journal.append(0, events(1, 30))
    journal.save_snapshot(Snapshot(10, b"state 10"))
    journal.save_snapshot(Snapshot(20, b"state 20"))
    journal.close()
    edit(data_dir, "UPDATE snapshot SET body = x'00' WHERE revision = 20")
    again, report = opened(data_dir)
    assert again.load_snapshot() == Snapshot(10, b"state 10")
    assert (report.damaged_snapshots, report.snapshot_revision, report.verified_events) == ((20,), 10, 20)
    again.close()


def test_compaction_keeps_what_the_snapshots_need(journal: SqliteJournal) -> None:
    """Events behind the oldest kept snapshot stay; asking for more is refused."""
    journal.append(0, events(1, 30))
    with pytest.raises(ValueError, match="oldest snapshot"):
        journal.compact(2)
    journal.save_snapshot(Snapshot(10, b"state 10"))
    journal.save_snapshot(Snapshot(20, b"state 20"))
    with pytest.raises(ValueError, match="oldest snapshot"):
        journal.compact(12)
    assert journal.compact(11) == journal.oldest_revision == 11
    assert journal.compact(5) == 11
    assert journal.read(11, 100) == events(11, 30)


def test_the_chain_survives_compaction(data_dir: Path) -> None:
    """Compaction changes neither head nor later events, and a reopen verifies from the snapshot."""
    journal, _report = opened(data_dir)
    journal.append(0, events(1, 30))
    head = journal.chain_head
    journal.save_snapshot(Snapshot(30, b"state"))
    journal.compact(31)
    assert (journal.chain_head, journal.oldest_revision, journal.newest_revision) == (head, 31, 30)
    journal.close()
    again, report = opened(data_dir)
    assert (again.chain_head, report.oldest_revision, report.newest_revision) == (head, 31, 30)
    again.append(30, events(31, 31))
    assert again.read(31, 1) == events(31, 31)
    again.close()
    assert verify_journal(data_dir, no_progress).oldest_revision == 31


def test_compaction_runs_in_bounded_steps(journal: SqliteJournal) -> None:
    """One call drops at most a chunk, so that commits can pass in between."""
    count = COMPACT_CHUNK + 500
    for first in range(1, count + 1, 1000):
        journal.append(first - 1, events(first, min(first + 999, count)))
    journal.save_snapshot(Snapshot(count, b"state"))
    assert journal.compact(count + 1) == COMPACT_CHUNK + 1
    assert journal.compact(count + 1) == count + 1


# -- one owner ----------------------------------------------------------------------------------------------------


def test_a_second_service_on_the_directory_is_refused(data_dir: Path, journal: SqliteJournal) -> None:
    """The second opener learns the owner's process id and changes nothing; after close the directory is free."""
    journal.append(0, events(1, 1))
    with pytest.raises(DataDirectoryBusy) as caught:
        opened(data_dir)
    assert caught.value.pid == os.getpid()
    with pytest.raises(DataDirectoryBusy):
        verify_journal(data_dir, no_progress)
    journal.close()
    again, report = opened(data_dir)
    assert report.newest_revision == 1
    again.close()


def test_another_process_is_refused_too(data_dir: Path, journal: SqliteJournal) -> None:
    """The lock holds between processes, and the pid in the error is the owner's."""
    script = (
        "import sys; from pathlib import Path; from dtms_service.errors import DataDirectoryBusy\n"
        "from dtms_service.journal import DataDirectoryLock\n"
        "try: DataDirectoryLock(Path(sys.argv[1]))\n"
        "except DataDirectoryBusy as busy: print(busy.pid)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(data_dir)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(os.getpid())
    journal.append(0, events(1, 1))


def test_a_dead_owner_leaves_no_lock(data_dir: Path) -> None:
    """The lock goes with the process that held it, however it ended."""
    crashed(data_dir, commits=1)
    journal, report = opened(data_dir)
    assert report.newest_revision == 10
    journal.close()


# -- damage -------------------------------------------------------------------------------------------------------


def edit(data_dir: Path, sql: str) -> None:
    """Change a closed journal behind its back."""
    connection = apsw.Connection(str(data_dir / "journal.db"))
    connection.execute(sql)
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()


@pytest.mark.parametrize("revision", [1, 50, 99])
def test_a_flipped_byte_before_the_tail_is_refused_and_named(data_dir: Path, revision: int) -> None:
    """One flipped bit in an event's body stops the start, names the revision and deletes nothing."""
    path = written(data_dir, 100)
    flip(path, path.read_bytes().index(body(revision)) + 41)
    damaged = path.read_bytes()
    for attempt in (lambda: opened(data_dir), lambda: verify_journal(data_dir, no_progress)):
        with pytest.raises(JournalDamaged) as caught:
            attempt()
        assert caught.value.revision == revision
    assert path.read_bytes() == damaged


def test_a_flipped_chain_value_is_named_as_well(data_dir: Path) -> None:
    """Damage in the chain column is damage of that revision, also when only one sound event follows."""
    written(data_dir, 100)
    edit(data_dir, "UPDATE event SET chain = zeroblob(32) WHERE revision = 99")
    with pytest.raises(JournalDamaged) as caught:
        opened(data_dir)
    assert caught.value.revision == 99


def damaged_before_its_snapshot(data_dir: Path, *edits: str) -> SqliteJournal:
    """A journal of 100 events with a snapshot of revision 90: what lies before it is not looked at by the start."""
    path = written(data_dir, 90)
    journal, _report = opened(data_dir)
    journal.save_snapshot(Snapshot(90, b"state"))
    journal.append(90, events(91, 100))
    journal.close()
    if not edits:
        flip(path, path.read_bytes().index(body(40)) + 41)
    for sql in edits:
        edit(data_dir, sql)
    journal, report = opened(data_dir)
    assert (report.snapshot_revision, report.verified_events) == (90, 10)
    return journal


def unreadable_at(journal: SqliteJournal, revision: int, limit: int = 100) -> int:
    """Where the journal says that it can be read again."""
    with pytest.raises(DtmsError) as caught:
        journal.read(revision, limit)
    assert caught.value.reason is Reason.COMPACTED
    assert caught.value.metadata["damaged_revision"] == str(revision)
    return int(caught.value.metadata["oldest_revision"])


def test_a_damaged_event_is_never_read(data_dir: Path) -> None:
    """Reading ends before it, is refused at it with the place behind it, and goes on from there; I16, I20."""
    journal = damaged_before_its_snapshot(data_dir)
    assert journal.read(1, 100) == events(1, 39)
    assert unreadable_at(journal, 40) == unreadable_at(journal, 40, 1) == 41
    assert journal.read(41, 100) == events(41, 100)
    journal.close()


@pytest.mark.parametrize(
    ("edit_sql", "bad", "good"),
    [
        ("UPDATE event SET chain = zeroblob(32) WHERE revision = 40", 40, 42),
        ("DELETE FROM event WHERE revision = 40", 40, 42),
        ("DELETE FROM event WHERE revision BETWEEN 20 AND 40", 20, 42),
        ("UPDATE event SET body = zeroblob(9) WHERE revision BETWEEN 1 AND 60", 1, 61),
        ("UPDATE base SET chain = randomblob(32)", 1, 2),
    ],
)
def test_an_event_that_cannot_be_proven_is_never_read(data_dir: Path, edit_sql: str, bad: int, good: int) -> None:
    """Not the one whose chain value is damaged or which is gone, nor the one behind it, which follows from that."""
    journal = damaged_before_its_snapshot(data_dir, edit_sql)
    assert bad == 1 or journal.read(1, 100) == events(1, bad - 1)
    assert unreadable_at(journal, bad) == good
    assert journal.read(good, 100) == events(good, 100)
    journal.close()


def test_a_missing_event_is_named(data_dir: Path) -> None:
    """A gap is damage wherever it is."""
    written(data_dir, 100)
    edit(data_dir, "DELETE FROM event WHERE revision = 99")
    with pytest.raises(JournalDamaged) as caught:
        opened(data_dir)
    assert caught.value.revision == 99


def test_events_lost_behind_a_snapshot_are_noticed(data_dir: Path) -> None:
    """A snapshot that knows more than the events do proves that events are gone."""
    journal, _report = opened(data_dir)
    journal.append(0, events(1, 30))
    journal.save_snapshot(Snapshot(30, b"state"))
    journal.close()
    edit(data_dir, "DELETE FROM event WHERE revision > 25")
    with pytest.raises(JournalDamaged) as caught:
        opened(data_dir)
    assert caught.value.revision == 26


def test_a_torn_last_event_is_set_aside_and_said(data_dir: Path) -> None:
    """Rows at the very end that do not verify, with nothing sound behind, go to `torn`; the rest is whole."""
    written(data_dir, 100)
    edit(data_dir, "UPDATE event SET body = x'00' WHERE revision >= 99")
    journal, report = opened(data_dir)
    assert report.torn_revisions == (99, 100)
    assert report.recovered
    assert (journal.newest_revision, journal.read(98, 10)) == (98, events(98, 98))
    journal.append(98, events(99, 99))
    journal.close()
    again, second = opened(data_dir)
    assert (second.newest_revision, second.recovered) == (99, False)
    again.close()
    with sqlite3.connect(f"file:{data_dir / 'journal.db'}?immutable=1", uri=True) as connection:
        kept = connection.execute("SELECT revision, body FROM torn").fetchall()
    connection.close()
    assert kept == [(99, b"\0"), (100, b"\0")]


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_truncated_log_recovers_to_the_last_whole_commit(data_dir: Path, kept: float) -> None:
    """A log cut anywhere gives the events of its whole commits, and the report says what was cut off."""
    log = crashed(data_dir, commits=20)
    os.truncate(log, int(log.stat().st_size * kept))
    journal, report = opened(data_dir)
    newest = journal.newest_revision
    assert newest % 10 == 0
    assert 0 < newest < 200
    assert journal.read(1, 1000) == events(1, newest)
    assert report.torn_log_bytes > 0
    journal.append(newest, events(newest + 1, newest + 1))
    journal.close()
    assert verify_journal(data_dir, no_progress).newest_revision == newest + 1


def torn_at(source: Path, folder: Path, size: int) -> tuple[int, bool]:
    """(newest revision, whether it was said) of a journal whose log ends at a byte."""
    shutil.copytree(source.parent, folder)
    os.truncate(folder / source.name, size)
    journal, report = opened(folder)
    newest = journal.newest_revision
    assert journal.read(1, 1000) == events(1, newest)
    journal.close()
    shutil.rmtree(folder)
    return newest, report.recovered


@pytest.mark.parametrize("step", [499, pytest.param(1, marks=pytest.mark.slow)])
def test_a_tail_torn_at_any_byte_costs_what_was_not_whole_and_no_more(tmp_path: Path, step: int) -> None:
    """The last two commits cut off at every byte: each is there whole or not at all, and a cut is said."""
    log = crashed(tmp_path / "source", commits=5)
    size, frame = log.stat().st_size, 4096 + 24
    ends = [size]
    while len(ends) < 3:  # back to the frames that end a commit: their number of pages is not 0
        at = ends[-1] - frame
        while not int.from_bytes(log.read_bytes()[at - frame + 4 : at - frame + 8], "big"):
            at -= frame
        ends.append(at)
    whole = {end: 50 - 10 * number for number, end in enumerate(ends)}
    cuts = {*range(ends[-1], size, step), *ends, *(end + extra for end in ends[1:] for extra in range(-2, 26))}
    for cut in sorted(cuts):
        newest, said = torn_at(log, tmp_path / "torn", cut)
        last = max(end for end in ends if end <= cut) if cut >= ends[-1] else None
        assert newest == (whole[last] if last is not None else 20), f"byte {cut}"
        assert said == (cut not in whole), f"byte {cut}"


def read_all(journal: SqliteJournal) -> tuple[list[Event], list[int]]:
    """What can be read, and the revisions that are told to be damaged."""
    read: list[Event] = []
    told: list[int] = []
    revision = journal.oldest_revision
    while revision <= journal.newest_revision:
        try:
            read += journal.read(revision, 70)
            revision = read[-1][0] + 1
        except DtmsError as error:
            told.append(int(error.metadata["damaged_revision"]))
            revision = int(error.metadata["oldest_revision"])
    return read, told


@pytest.mark.parametrize("seed", [20261125])
def test_no_single_flipped_byte_in_the_file_is_passed_over(tmp_path: Path, seed: int) -> None:
    """Flips anywhere in a closed journal: it is refused, or what is read is what was written and the rest is told to be
    damaged, or set aside; where nothing is told, all is there and verifies.

    A byte that nobody reads (free space, a snapshot that an older one stands in for) may flip; none loses an event.
    """
    chance = random.Random(seed)
    journal, _report = opened(tmp_path / "source")
    for first in range(1, 400, 10):
        journal.append(first - 1, events(first, first + 9))
    for revision in (100, 200):
        journal.save_snapshot(Snapshot(revision, random.Random(revision).randbytes(3000)))
    journal.close()
    size, refused = journal.path.stat().st_size, 0
    for at in [chance.randrange(size) for _ in range(60)]:
        data_dir = tmp_path / "flipped"
        shutil.copytree(journal.path.parent, data_dir)
        flip(data_dir / journal.path.name, at)
        try:
            again, report = opened(data_dir)
        except (JournalDamaged, JournalVersionUnknown):
            refused += 1
        else:
            read, told = read_all(again)
            again.close()
            assert all(found == (found[0], body(found[0])) for found in read), f"byte {at}"
            if told or report.recovered:
                refused += 1
            else:
                assert read == events(1, 400), f"byte {at}"
                verify_journal(data_dir, no_progress)
        shutil.rmtree(data_dir)
    assert refused > 30


def test_a_flipped_byte_in_the_log_before_later_commits_is_refused(data_dir: Path) -> None:
    """SQLite would silently drop every commit behind the flipped byte; the journal refuses and names the revision."""
    log = crashed(data_dir, commits=20)
    flip(log, log.read_bytes().index(body(91)) + 41)
    before = log.read_bytes()
    with pytest.raises(JournalDamaged) as caught:
        opened(data_dir)
    assert caught.value.revision == 91
    assert log.read_bytes() == before


def test_a_flipped_byte_in_the_last_commit_of_the_log_is_a_torn_tail(data_dir: Path) -> None:
    """Nothing follows the last commit, so it counts as torn: recovered to the commit before, and said."""
    log = crashed(data_dir, commits=20)
    flip(log, log.read_bytes().rindex(body(199)) + 41)
    journal, report = opened(data_dir)
    assert (journal.newest_revision, report.recovered) == (190, True)
    journal.close()


@pytest.mark.parametrize("seed", [20261122])
def test_no_single_flipped_byte_in_the_log_loses_more_than_the_last_commit(tmp_path: Path, seed: int) -> None:
    """Flips anywhere in the log, frame headers above all: refused, or torn off the last commit and reported."""
    chance = random.Random(seed)
    source = crashed(tmp_path / "source", commits=20)
    frame, header, size = 4096 + 24, 32, source.stat().st_size
    spots = [header + chance.randrange((size - header) // frame) * frame + chance.randrange(24) for _ in range(60)]
    for number, at in enumerate(spots + [chance.randrange(size) for _ in range(20)]):
        data_dir = tmp_path / str(number)
        shutil.copytree(source.parent, data_dir)
        flip(data_dir / source.name, at)
        try:
            journal, report = opened(data_dir)
        except JournalDamaged:
            continue
        assert (journal.newest_revision, report.recovered) == (190, True), f"byte {at}"
        journal.close()


def test_a_damaged_log_header_is_refused(data_dir: Path) -> None:
    """A flipped bit in the log's header would drop the whole log."""
    log = crashed(data_dir, commits=5)
    flip(log, 17)
    with pytest.raises(JournalDamaged):
        opened(data_dir)


def test_a_log_without_its_journal_is_refused(data_dir: Path) -> None:
    """SQLite would delete a log whose main file is gone; the journal refuses."""
    log = crashed(data_dir, commits=5)
    (data_dir / "journal.db").unlink()
    with pytest.raises(JournalDamaged):
        opened(data_dir)
    assert log.exists()


def test_an_old_generation_behind_the_log_is_no_tail(data_dir: Path) -> None:
    """After a checkpoint the log is overwritten from its start; what is left of the old one is no tail."""
    script = (
        "import os, sys; from pathlib import Path; from tests.unit.test_journal import *\n"
        "journal, _ = opened(Path(sys.argv[1]))\n"
        "journal.append(0, events(1, 4000)); assert journal.wal_bytes == 0, journal.wal_bytes\n"
        "journal.append(4000, events(4001, 4010)); os._exit(9)"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", script, str(data_dir)], cwd=root, check=False)
    assert run.returncode == 9
    journal, report = opened(data_dir)
    assert (journal.newest_revision, report.recovered) == (4010, False)
    journal.close()


@pytest.mark.parametrize("spot", ["header", "middle page"])
def test_a_damaged_file_structure_is_refused(data_dir: Path, spot: str) -> None:
    """Damage that SQLite itself notices is a damaged journal, not a traceback of the database."""
    path = written(data_dir, 2000)
    at = 5 if spot == "header" else path.stat().st_size // 2 // 4096 * 4096
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 64)
    with pytest.raises(JournalDamaged) as caught:
        opened(data_dir)
    assert spot == "header" or 1 <= caught.value.revision <= 2000


def test_another_programs_database_is_left_alone(data_dir: Path) -> None:
    """A SQLite file that DTMS did not make, or a newer format, is refused by its number."""
    data_dir.mkdir()
    with sqlite3.connect(data_dir / "journal.db") as connection:
        connection.execute("CREATE TABLE event (x)")
    connection.close()
    with pytest.raises(JournalVersionUnknown) as caught:
        opened(data_dir)
    assert caught.value.found == 0


def test_a_newer_format_is_refused(data_dir: Path) -> None:
    """An older DTMS does not guess at a newer journal."""
    written(data_dir, 1)
    edit(data_dir, "PRAGMA user_version = 99")
    with pytest.raises(JournalVersionUnknown) as caught:
        opened(data_dir)
    assert (caught.value.found, caught.value.known) == (99, 1)


# -- failing disks ------------------------------------------------------------------------------------------------


class FaultyFile(apsw.VFSFile):
    """A file whose syncs fail while the switch is on."""

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], failing: Callable[[], bool]) -> None:
        super().__init__("", name, flags)
        self._failing = failing

    def xSync(self, flags: int) -> None:  # noqa: N802  named by SQLite
        if self._failing():
            raise apsw.IOError("fsync: Input/output error")
        super().xSync(flags)


class FaultyDisk(apsw.VFS):
    """The system's VFS with a switch that makes every sync fail."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self.failing = False

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> FaultyFile:  # noqa: N802  named by SQLite
        return FaultyFile(name, flags, lambda: self.failing)


# apsw reports what a VFS raised a second time, where no Python code can catch it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failed_sync_makes_nothing_durable_and_refuses_all_that_follows(data_dir: Path) -> None:
    """After a failed fsync the batch does not count, later calls are refused, a restart has all acknowledged."""
    disk = FaultyDisk("faulty")
    journal, _report = opened(data_dir, vfs="faulty")
    journal.append(0, events(1, 10))
    disk.failing = True
    with pytest.raises(JournalFailed) as caught:
        journal.append(10, events(11, 20))
    assert (caught.value.newest_revision, journal.newest_revision) == (10, 10)
    disk.failing = False
    for refused in (lambda: journal.append(10, events(11, 11)), lambda: journal.read(1, 1), journal.checkpoint):
        with pytest.raises(JournalFailed):
            refused()
    journal.close()
    disk.unregister()
    again, _report = opened(data_dir)
    assert again.read(1, 10) == events(1, 10)
    again.close()


class UnsafeFile(apsw.VFSFile):
    """A file of which a power cut takes what was not synced: any of the writes since, and leaves others."""

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], disk: UnsafeDisk) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.unsynced: list[tuple[int, bytes]] = []
        disk.files.append(self)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  named by SQLite
        self._disk.count()
        size = self.xFileSize()
        before = self.xRead(min(len(data), max(size - offset, 0)), offset) if offset < size else b""
        self.unsynced.append((offset, before.ljust(len(data), b"\0")))
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802  named by SQLite
        self._disk.count()
        super().xSync(flags)
        self.unsynced.clear()


class UnsafeDisk(apsw.VFS):
    """The system's VFS until the n-th write or sync, when the power goes."""

    def __init__(self, name: str, cut_at: int) -> None:
        super().__init__(name, "")
        self.files: list[UnsafeFile] = []
        self.to_come = cut_at

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> UnsafeFile:  # noqa: N802  named by SQLite
        return UnsafeFile(name, flags, self)

    def count(self) -> None:
        self.to_come -= 1
        if self.to_come <= 0:
            raise apsw.IOError("no power")

    def take_unsynced(self, chance: random.Random) -> None:
        """Each write since the last sync may be on the disk, or not: the disk wrote in an order of its own."""
        for file in self.files:
            with Path(file.path).open("r+b") as image:
                for offset, before in reversed(file.unsynced):
                    if chance.random() < 0.5:
                        image.seek(offset)
                        image.write(before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("cuts", [12, pytest.param(600, marks=pytest.mark.slow)])
def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path, cuts: int) -> None:
    """The power goes at any write or sync, and any of the writes that were not synced are lost, others not.

    Commits, snapshots, checkpoints and compaction are under way: whatever was acknowledged is there afterwards.
    """
    for seed in range(1, cuts + 1):
        chance, data_dir = random.Random(seed), tmp_path / str(seed)
        journal, _report = opened(data_dir)  # what it is made with is synced with its first commit
        journal.append(0, events(1, 10))
        journal.close()
        disk = UnsafeDisk(f"unsafe {seed}", chance.randrange(5, 400))
        journal, _report = SqliteJournal.open(
            data_dir, wal_limit_bytes=chance.choice((50_000, WAL_LIMIT)), progress=no_progress, vfs=f"unsafe {seed}"
        )
        acknowledged = 0
        try:
            while True:
                newest = journal.newest_revision
                journal.append(newest, events(newest + 1, newest + chance.randrange(1, 30)))
                if chance.random() < 0.2:
                    journal.save_snapshot(Snapshot(journal.newest_revision, b"state"))
                    journal.compact(min(journal.newest_revision // 2, journal.oldest_revision))
        except JournalFailed:
            acknowledged = journal.newest_revision
        journal.close()
        disk.take_unsynced(chance)
        disk.unregister()
        again, report = opened(data_dir)
        assert again.newest_revision >= acknowledged, f"seed {seed}"
        last = again.newest_revision
        assert again.read(report.oldest_revision, 10_000) == events(report.oldest_revision, last), f"seed {seed}"
        again.append(last, events(last + 1, last + 1))
        again.close()
        verify_journal(data_dir, no_progress)
        shutil.rmtree(data_dir)


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_a_full_disk_is_an_error_and_loses_nothing(data_dir: Path) -> None:
    """When the file may not grow, append raises JournalFailed; all acknowledged events are there after a restart."""
    script = (
        "import resource, sys; from pathlib import Path; from tests.unit.test_journal import *\n"
        "journal, _ = opened(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "try:\n"
        "    while True: journal.append(journal.newest_revision, events(journal.newest_revision + 1, "
        "journal.newest_revision + 10))\n"
        "except JournalFailed as failed: print(failed.newest_revision, failed.why)\n"
        "try: journal.append(journal.newest_revision, [(journal.newest_revision + 1, b'')])\n"
        "except JournalFailed: print('refused')\n"
        "journal.close()"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", script, str(data_dir)], cwd=root, capture_output=True, text=True, check=True
    )
    acknowledged = int(run.stdout.split()[0])
    assert acknowledged > 100
    assert run.stdout.splitlines()[1] == "refused"
    journal, _report = opened(data_dir)
    assert journal.newest_revision >= acknowledged
    assert journal.read(1, acknowledged) == events(1, acknowledged)
    journal.close()


def test_the_log_stays_below_its_limit(data_dir: Path) -> None:
    """Without an idle moment the log is checkpointed at its limit, so the file does not grow without bound."""
    journal, _report = opened(data_dir)
    for first in range(1, 20_000, 100):
        journal.append(first - 1, events(first, first + 99))
    assert (data_dir / "journal.db-wal").stat().st_size < 2 * WAL_LIMIT
    journal.close()
    assert not (data_dir / "journal.db-wal").exists() or (data_dir / "journal.db-wal").stat().st_size == 0


# -- verify and export --------------------------------------------------------------------------------------------


def test_verify_reads_every_event(data_dir: Path) -> None:
    """Verification covers also what lies before a snapshot, and reports head and bounds with progress."""
    journal, _report = opened(data_dir)
    journal.append(0, events(1, 50))
    journal.save_snapshot(Snapshot(40, b"state"))
    head = journal.chain_head
    journal.close()
    seen: list[tuple[int, int]] = []
    report = verify_journal(data_dir, lambda _what, done, total: seen.append((done, total)))
    assert (report.oldest_revision, report.newest_revision, report.chain_head) == (1, 50, head)
    assert seen[-1] == (50, 50)
    edit(data_dir, "UPDATE event SET body = x'00' WHERE revision = 10")
    with pytest.raises(JournalDamaged) as caught:
        verify_journal(data_dir, no_progress)
    assert caught.value.revision == 10


def test_an_export_proves_itself(data_dir: Path) -> None:
    """The exported lines carry all bodies, and their chain can be recomputed without DTMS."""
    written(data_dir, 25)
    out = io.StringIO()
    report, written_lines = export_journal(data_dir, out, no_progress)
    assert written_lines == 25
    chain = GENESIS
    for revision, line in enumerate(out.getvalue().splitlines(), 1):
        event = json.loads(line)
        text = base64.b64decode(event["body"])
        chain = link(chain, text)
        assert (event["revision"], text, event["chain"]) == (revision, body(revision), chain.hex())
    assert report.chain_head == chain.hex()


def test_verify_without_a_journal_makes_none(tmp_path: Path) -> None:
    """Looking at an empty directory is an error and leaves it empty."""
    with pytest.raises(FileNotFoundError):
        verify_journal(tmp_path, no_progress)
    assert list(tmp_path.iterdir()) == []
