"""A run that was cut off makes its last events once more: the same ones, or it is at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from dtms_service.bookmark import BOOKMARK, Bookmark, Bookmarks, Seen
from dtms_service.errors import RunDiffers
from dtms_service.settings import configuration
from dtms_service.system import System

ACCOUNT = "7001@Paper"


@asynccontextmanager
async def in_lockstep(data_dir: Path) -> AsyncIterator[System]:
    config = configuration(None, paper=False, given={"data_dir": data_dir})
    system = await System.open(config, frozenset())
    try:
        yield system
    finally:
        await system.close()


async def cut_off(data_dir: Path) -> tuple[int, int]:
    """The journal has an event more than the bookmark knows: revisions of both."""
    async with in_lockstep(data_dir) as system:
        done = system.desk.engine.revision
        await system.desk.define_account(ACCOUNT, True, "USD")
        newest = system.desk.commits.durable_revision
    assert newest == done + 1
    seen = Seen(change_count=0, seen_count=0, trades=0, has_moved=False, equity=None, is_exposed=False)
    with closing(Bookmarks(data_dir / BOOKMARK)) as bookmarks:
        bookmarks.put(Bookmark("one", ACCOUNT, done=0, revision=done, seq=0, seen=seen))
    return done, newest


async def test_what_was_cut_off_is_made_again_and_not_written_twice(tmp_path: Path) -> None:
    """The state is that of the bookmark, the journal has what follows; what comes after it is written."""
    done, newest = await cut_off(tmp_path)
    async with in_lockstep(tmp_path) as system:
        assert system.desk.engine.revision == done
        await system.desk.define_account(ACCOUNT, True, "USD")
        assert (system.desk.engine.revision, system.desk.commits.durable_revision) == (newest, newest)
        await system.desk.define_account("7002@Paper", True, "USD")
        assert [revision for revision, _body in await system.desk.commits.read(1, 100)] == [*range(1, newest + 2)]


async def test_a_run_that_does_not_repeat_itself_is_at_its_end(tmp_path: Path) -> None:
    """Another history, an operator's command that nobody gives again: the event is named, and nothing is written."""
    done, newest = await cut_off(tmp_path)
    async with in_lockstep(tmp_path) as system:
        with pytest.raises(RunDiffers, match=f"event {newest} is not what the journal has as revision {newest}"):
            await system.desk.define_account(ACCOUNT, True, "EUR")
    async with in_lockstep(tmp_path) as system:
        assert system.desk.engine.revision == done
        await system.desk.define_account(ACCOUNT, True, "USD")
        assert system.desk.commits.durable_revision == newest
