"""The crew of a run: who takes part, and what happens when one does not come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dtms_service.replay.children import ProcessFailed
from dtms_service.replay.crew import EXIT_MANAGER, UNIVERSAL_MANAGER, Crew, Program, names, programs


def test_who_takes_part_is_said_by_name() -> None:
    """Each manager is left out or in on its own; a profile goes to the Universal Manager, VIX to the exit manager."""
    both = programs(exit_manager=True, universal_manager=True, profile="swing", vix=Path("vix.csv"))
    assert names(both) == {EXIT_MANAGER, UNIVERSAL_MANAGER}
    assert [program.arguments for program in both] == [("--vix-file", "vix.csv"), ("--profile", "swing")]
    assert programs(exit_manager=False, universal_manager=False, profile="swing", vix=None) == ()


async def test_a_manager_that_ends_before_it_joined_is_named(tmp_path: Path) -> None:
    """A run does not wait for a manager that cannot start."""
    crew = Crew((Program("absent_manager", "dtms_client.no_such_module"),))
    await crew.start("127.0.0.1:1", tmp_path)
    with pytest.raises(ProcessFailed, match="absent_manager ended with code 1"):
        await crew.until(asyncio.Event())
    await crew.stop()


async def test_a_run_without_managers_waits_for_nobody() -> None:
    """With nobody to join, the run begins at once and ends at once."""
    complete = asyncio.Event()
    complete.set()
    crew = Crew(())
    await crew.until(complete)
    await crew.ended()
