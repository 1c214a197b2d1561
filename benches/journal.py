"""The journal with group commit against bare SQLite: the same rows, the same groups, the same file system."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from benches.figures import Baseline, Figure, Target
from benches.world import SEED
from dtms_service.journal import CommitQueue, SqliteJournal, no_progress
from dtms_service.journal.protocol import GENESIS, link

BODY_BYTES: Final = (120, 380)  # encoded events of a replayed year: mean about 250 bytes
PER_COMMAND: Final = 5  # events of a transition: decision, intent, outcome, state changed, confirmed
COMMANDS_AT_ONCE: Final = 200  # in flight under full load; together they fill a group of 1,000 events
WAL_LIMIT_BYTES: Final = 64 << 20  # as configured by default
IDLE_MS: Final = 200


@dataclass(slots=True)
class Groups:
    """Sizes of the commits as they happened."""

    newest: int = 0
    sizes: list[int] = field(default_factory=list)

    def note(self, revision: int) -> None:
        self.sizes.append(revision - self.newest)
        self.newest = revision


def measure(quick: bool) -> list[Figure]:
    """200,000 events from 200 commands at once; 2,000 when quick."""
    chance = random.Random(SEED)
    count = 2_000 if quick else 200_000
    bodies = [chance.randbytes(chance.randint(*BODY_BYTES)) for _ in range(count)]
    # Below the working directory: /tmp may be memory, and a sync there costs nothing.
    with tempfile.TemporaryDirectory(prefix=".bench-journal-", dir=Path.cwd()) as folder:
        groups = Groups()
        per_s, single_us = asyncio.run(_group_commit(Path(folder) / "dtms", bodies, groups, 20 if quick else 500))
        sizes = groups.sizes[: -20 if quick else -500]
        bare_per_s = _bare(Path(folder) / "bare.db", bodies, sizes)
        bare_single_us = 1e6 / _bare(Path(folder) / "single.db", bodies[: 20 if quick else 500], [1] * count)
    mean = sum(sizes) / len(sizes)
    return [
        Figure(
            f"durable events, {COMMANDS_AT_ONCE} commands at once",
            "events/s",
            per_s,
            Baseline(f"bare SQLite, same rows in the same {len(sizes)} groups of {mean:.0f}", bare_per_s),
            Target("value", "at least", 50_000),
        ),
        Figure(
            "one event alone, from append to durable",
            "us",
            single_us,
            Baseline("bare SQLite, one row a commit", bare_single_us),
        ),
    ]


async def _group_commit(data_dir: Path, bodies: Sequence[bytes], groups: Groups, alone: int) -> tuple[float, float]:
    journal, _report = SqliteJournal.open(data_dir, wal_limit_bytes=WAL_LIMIT_BYTES, progress=no_progress)
    queue = CommitQueue(journal, on_durable=groups.note, max_pending_events=100_000, idle_ms=IDLE_MS)
    left = iter(range(0, len(bodies), PER_COMMAND))

    async def commands() -> None:
        for start in left:
            first = queue.appended_revision + 1
            queue.append(list(enumerate(bodies[start : start + PER_COMMAND], first)))
            await queue.durable(queue.appended_revision)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(COMMANDS_AT_ONCE):
            tasks.create_task(commands())
    per_s = len(bodies) / (time.perf_counter() - started)

    started = time.perf_counter()
    for body in bodies[:alone]:
        revision = queue.appended_revision + 1
        queue.append([(revision, body)])
        await queue.durable(revision)
    single_us = (time.perf_counter() - started) / alone * 1e6
    await queue.close()
    return per_s, single_us


def _bare(path: Path, bodies: Sequence[bytes], sizes: Sequence[int]) -> float:
    """Events a second of apsw alone, in this thread; the chain is computed before."""
    rows: list[tuple[int, bytes, bytes]] = []
    chain = GENESIS
    for revision, body in enumerate(bodies, 1):
        chain = link(chain, body)
        rows.append((revision, body, chain))
    connection = apsw.Connection(str(path))
    connection.pragma("locking_mode", "exclusive")
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.wal_autocheckpoint(0)
    connection.execute(
        "CREATE TABLE event (revision INTEGER PRIMARY KEY, body BLOB NOT NULL, chain BLOB NOT NULL) STRICT"
    )
    start = 0
    started = time.perf_counter()
    for size in sizes:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO event VALUES (?, ?, ?)", rows[start : start + size])
        connection.execute("COMMIT")
        start += size
        if start >= len(rows):
            break
    per_s = start / (time.perf_counter() - started)
    connection.close()
    return per_s
