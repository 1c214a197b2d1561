"""Appends to the journal in argv[1] until it is killed, and says on stdout what is durable. Seeded by argv[2]."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from dtms_service.journal import CommitQueue, Snapshot, SqliteJournal, no_progress


def body_of(revision: int) -> bytes:
    """The body that every run writes at a revision, so that the parent can check what it finds."""
    return random.Random(revision).randbytes(revision % 400)


def acknowledge(revision: int) -> None:
    """One line per commit, straight to the pipe: what the parent has read was durable."""
    os.write(sys.stdout.fileno(), b"%d\n" % revision)


async def main(data_dir: Path, seed: int) -> None:
    chance = random.Random(seed)
    # A small log limit puts checkpoints, not only commits, under the knife.
    journal, _report = SqliteJournal.open(data_dir, wal_limit_bytes=200_000, progress=no_progress)
    queue = CommitQueue(
        journal,
        on_durable=acknowledge,
        max_pending_events=10_000,
        idle_ms=1,
    )
    while True:
        first = queue.appended_revision + 1
        last = first + chance.randrange(1, 300)
        queue.append([(revision, body_of(revision)) for revision in range(first, last)])
        if chance.random() < 0.5:
            await queue.durable(last - 1)
        if chance.random() < 0.1:
            await queue.save_snapshot(Snapshot(queue.durable_revision, b"state %d" % queue.durable_revision))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
