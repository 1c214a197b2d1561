"""Group commit: nothing is said to be durable before it is, and nothing waits for a timer."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from dtms_service.errors import DtmsError, JournalFailed, Reason
from dtms_service.journal import (
    MAX_GROUP_EVENTS,
    CommitQueue,
    Event,
    Snapshot,
    SqliteJournal,
    no_progress,
    verify_journal,
)
from tests.unit.journal_crash_child import body_of

ROOT = Path(__file__).resolve().parents[2]


def events(first: int, last: int) -> list[Event]:
    return [(revision, body_of(revision)) for revision in range(first, last + 1)]


class GatedJournal(SqliteJournal):
    """The real journal with a door in front of each commit, so that a test decides when the disk is busy."""

    gate: threading.Event
    at_gate: asyncio.Event
    loop: asyncio.AbstractEventLoop
    groups: list[int]

    def append(self, expected_revision: int, events: Sequence[Event]) -> None:
        self.loop.call_soon_threadsafe(self.at_gate.set)
        self.gate.wait()
        super().append(expected_revision, events)
        self.groups.append(len(events))


class World:
    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.journal, _report = GatedJournal.open(data_dir, wal_limit_bytes=1 << 20, progress=no_progress)
        self.journal.gate = threading.Event()
        self.journal.gate.set()
        self.journal.loop, self.journal.at_gate = asyncio.get_running_loop(), asyncio.Event()
        self.journal.groups = []
        self.published: list[int] = []
        self.queue = CommitQueue(self.journal, on_durable=self.published.append, max_pending_events=100, idle_ms=1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.gate.set()
    try:
        await made.queue.close()
    except JournalFailed:
        assert made.queue.durable_revision < made.queue.appended_revision


async def test_durable_means_on_disk(world: World) -> None:
    """`durable` returns once the journal has the revision, and not before the commit."""
    world.journal.gate.clear()
    world.queue.append(events(1, 3))
    waiting = asyncio.create_task(world.queue.durable(3))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert world.queue.durable_revision == 0
    world.journal.gate.set()
    await waiting
    assert (world.queue.durable_revision, world.journal.newest_revision) == (3, 3)


async def test_what_arrives_during_a_commit_shares_the_next(world: World) -> None:
    """Fifty events handed over one by one while a commit runs become one commit."""
    world.journal.gate.clear()
    world.queue.append(events(1, 1))
    await world.journal.at_gate.wait()
    for revision in range(2, 52):
        world.queue.append(events(revision, revision))
    world.journal.gate.set()
    await world.queue.durable(51)
    assert world.journal.groups == [1, 50]


async def test_publishing_comes_before_anybody_goes_on(world: World) -> None:
    """When a waiter continues, `on_durable` has already run for its revision, and it runs in order."""
    for revision in range(1, 20):
        world.queue.append(events(revision, revision))
        await world.queue.durable(revision)
        assert world.published[-1] >= revision
    assert world.published == sorted(world.published)


async def test_a_long_backlog_is_cut_into_bounded_groups(world: World) -> None:
    """No commit holds more than the named limit, whatever was handed over at once."""
    world.queue.append(events(1, 2 * MAX_GROUP_EVENTS + 5))
    await world.queue.durable(2 * MAX_GROUP_EVENTS + 5)
    assert world.journal.groups == [MAX_GROUP_EVENTS, MAX_GROUP_EVENTS, 5]


async def test_the_queue_says_when_it_is_full(world: World) -> None:
    """With the limit's worth of events waiting for the disk, LIMIT_REACHED names the limit and when to come back."""
    world.journal.gate.clear()
    world.queue.append(events(1, 100))
    with pytest.raises(DtmsError) as caught:
        world.queue.require_room()
    assert caught.value.reason is Reason.LIMIT_REACHED
    assert caught.value.metadata == {"limit": "journal.max_pending_events", "value": "100"}
    assert caught.value.retry_after_s
    world.journal.gate.set()
    await world.queue.durable(100)
    world.queue.require_room()


async def test_reads_and_snapshots_pass_between_commits(world: World) -> None:
    """Read, snapshot, compact and head see everything that was handed over before them."""
    world.queue.append(events(1, 20))
    assert await world.queue.read(15, 10) == events(15, 20)
    await world.queue.save_snapshot(Snapshot(20, b"state"))
    assert await world.queue.compact(21) == 21
    with pytest.raises(DtmsError) as caught:
        await world.queue.read(20, 1)
    assert caught.value.reason is Reason.COMPACTED
    assert await world.queue.chain_head() == world.journal.chain_head
    world.queue.append(events(21, 21))
    await world.queue.durable(21)


async def test_a_gap_is_refused_before_it_is_queued(world: World) -> None:
    """Events that do not carry on from the last ones are a bug: ValueError, and nothing is handed over."""
    with pytest.raises(ValueError, match="revision 2 where 1 follows"):
        world.queue.append(events(2, 2))
    with pytest.raises(ValueError, match="not appended"):
        await world.queue.durable(1)
    world.queue.append(events(1, 1))
    await world.queue.durable(1)


async def test_a_failure_reaches_everybody_and_stays(world: World) -> None:
    """When a commit fails, waiters, the watch, later appends, reads and close all raise the same JournalFailed."""
    world.queue.append(events(1, 5))
    await world.queue.durable(5)
    world.journal.gate.clear()
    world.queue.append(events(6, 7))
    waiting = [asyncio.create_task(c) for c in (world.queue.durable(7), world.queue.read(1, 1))]
    watching = asyncio.create_task(world.queue.watch_failure())
    await asyncio.sleep(0)
    world.journal._connection.execute("DROP TABLE event")  # the disk's stand-in: the next insert cannot succeed
    world.journal.gate.set()
    outcomes = await asyncio.gather(*waiting, watching, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JournalFailed] * 3
    refused: list[Callable[[], None]] = [world.queue.require_room, lambda: world.queue.append(events(8, 8))]
    for call in refused:
        with pytest.raises(JournalFailed):
            call()
    with pytest.raises(JournalFailed):
        await world.queue.durable(7)
    assert (world.queue.durable_revision, world.published[-1]) == (5, 5)


async def test_close_commits_what_was_handed_over(tmp_path: Path) -> None:
    """Everything handed over before close is on disk after it, the directory is free, and later appends are refused."""
    world = World(tmp_path)
    world.queue.append(events(1, 50))
    await world.queue.close()
    assert verify_journal(tmp_path, no_progress).newest_revision == 50
    with pytest.raises(ValueError, match="closed"):
        world.queue.append(events(51, 51))


async def test_an_idle_journal_is_checkpointed(tmp_path: Path) -> None:
    """When nothing happens for a while, the log is cleared outside of any commit."""
    cleared = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(SqliteJournal):
        def checkpoint(self) -> None:
            super().checkpoint()
            if not self.wal_bytes and self.newest_revision:
                loop.call_soon_threadsafe(cleared.set)

    journal, _report = Watched.open(tmp_path, wal_limit_bytes=1 << 30, progress=no_progress)
    queue = CommitQueue(journal, on_durable=lambda _revision: None, max_pending_events=10**6, idle_ms=1)
    queue.append(events(1, 10_000))
    await queue.durable(10_000)
    await cleared.wait()
    await queue.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("seed", range(4_000, 4_010))
def test_i20_every_acknowledged_event_survives_kill_9(tmp_path: Path, seed: int) -> None:
    """A process killed at a random point of its commits, checkpoints and snapshots loses nothing acknowledged."""
    kill_after = random.Random(seed).randrange(1, 60)
    acknowledged = 0
    for life in range(2):  # the second life starts on what the first one's death left
        command = [sys.executable, "-m", "tests.unit.journal_crash_child", str(tmp_path), str(seed + life)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(kill_after)]
            child.kill()
            lines += child.stdout.readlines()  # said before death: acknowledged all the same
        acknowledged = max(acknowledged, *(int(line) for line in lines if line.endswith(b"\n")))
        report = verify_journal(tmp_path, no_progress)
        assert report.newest_revision >= acknowledged > 0
        journal, opened = SqliteJournal.open(tmp_path, wal_limit_bytes=1 << 20, progress=no_progress)
        assert opened.torn_revisions == ()
        assert (journal.chain_head, journal.newest_revision) == (report.chain_head, report.newest_revision)
        assert journal.read(1, report.newest_revision) == events(1, report.newest_revision)
        snapshot = journal.load_snapshot()
        assert snapshot is None or snapshot.body == b"state %d" % snapshot.revision
        journal.close()
