"""The processes of a run: which of them are started again, and when the run ends instead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dtms_service.replay.children import AGAIN_AT_MOST, Children, ProcessFailed

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
DIES_ONCE = f"import os, sys; sys.exit(0) if os.path.exists('lived') else open('lived', 'w').close(); {DIES}"


async def test_one_that_is_killed_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same command; it is told and counted."""
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    children = Children(tmp_path, notice=told.append)
    child = await children.start("worker", "-c", DIES_ONCE, is_last=True)
    await children.until(child.has_ended)
    await children.stop()
    assert (children.restarts, told) == ({"worker": 1}, ["worker was killed (signal 9): started again"])


async def test_one_that_fails_by_itself_ends_the_run_with_its_last_words(tmp_path: Path) -> None:
    """A wrong configuration is no accident: it is said at once, and nothing is started again."""
    children = Children(tmp_path)
    child = await children.start("worker", "-c", "import sys; sys.exit('no such symbol')")
    with pytest.raises(ProcessFailed, match=r"worker ended with code 1: see .*worker.log\n  no such symbol"):
        await children.until(child.has_ended)
    await children.stop()
    assert not children.restarts


async def test_one_that_dies_again_and_again_ends_the_run(tmp_path: Path) -> None:
    """Five times in a row without the run going on, then no more."""
    children = Children(tmp_path)
    await children.start("worker", "-c", DIES)
    with pytest.raises(ProcessFailed, match=f"ended {AGAIN_AT_MOST + 1} times without the run going on"):
        await children.until(asyncio.Event())
    await children.stop()
    assert children.restarts == {"worker": AGAIN_AT_MOST}
