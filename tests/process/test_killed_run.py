"""kill -9 of any process of the demo, at any moment: it goes on, and what it leaves is what an undisturbed run leaves.

Moments are chosen by a seed, as passages of fault points (the N-th commit, command, tick ...), never by the clock. The
managers have no such points: they are killed in the moment in which the service or the gateway is started again.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from dtms_service.demo.run import GATEWAY, HISTORY, PROFILE, SERVICE, options_of, run_demo
from dtms_service.fault_points import KILL_VARIABLE, Point
from dtms_service.replay.artefacts import BARS, BROKER_LOG, RESULTS
from dtms_service.replay.children import Children
from dtms_service.replay.command import Finished, fresh_data_dir, replay
from dtms_service.replay.crew import EXIT_MANAGER, UNIVERSAL_MANAGER, programs
from dtms_service.settings import configuration

SHORT_BARS = 360  # hours: two trades, a hedge, stops moved by all three
SEED = int(os.environ.get("SEED", "1"))

# Where each is killed: points that are passed often, and those of a command, which are rare.
OFTEN: Mapping[str, Sequence[Point]] = {
    SERVICE: (
        Point.JOURNAL_BEGIN,
        Point.JOURNAL_INSERTED,
        Point.JOURNAL_WRITE,
        Point.JOURNAL_SYNC,
        Point.JOURNAL_SYNCED,
        Point.JOURNAL_COMMITTED,
        Point.PUBLISH,
        Point.PUBLISHED,
        Point.ANSWER,
        Point.BOOKMARK,
        Point.BOOKMARK_WRITE,
        Point.BOOKMARK_PUT,
    ),
    GATEWAY: (Point.TICKS_SEND, Point.QUERY_RECEIVED),
}
OF_A_COMMAND: Mapping[str, Sequence[Point]] = {
    SERVICE: (Point.COMMAND, Point.MESSAGE_SENT, Point.OUTCOME, Point.OUTCOME_KEPT),
    GATEWAY: (
        Point.COMMAND_RECEIVED,
        Point.COMMAND_LOG,
        Point.COMMAND_LOG_WRITE,
        Point.COMMAND_LOG_SYNC,
        Point.COMMAND_LOGGED,
        Point.RESULT_SEND,
        Point.RESULT_SENT,
    ),
}
MANAGER_BESIDE = {SERVICE: EXIT_MANAGER, GATEWAY: UNIVERSAL_MANAGER}
PASSAGES = {Point.TICKS_SEND: 400, Point.BOOKMARK: 150, Point.BOOKMARK_WRITE: 150, Point.BOOKMARK_PUT: 150}


@dataclass(slots=True)
class Killer:
    """``lives`` are the deaths of each process, one after the other, as DTMS_FAULT_POINT has them."""

    lives: dict[str, list[str]]
    beside: Mapping[str, str] = field(default_factory=lambda: MANAGER_BESIDE)
    children: Children | None = None

    @classmethod
    def by(cls, seed: int, *, of_a_command: int, often: int) -> Killer:
        """Deaths of service and gateway, so many of each kind, mixed."""
        chance = random.Random(seed)
        lives: dict[str, list[str]] = {}
        for name in (SERVICE, GATEWAY):
            points = chance.choices(OF_A_COMMAND[name], k=of_a_command) + chance.choices(OFTEN[name], k=often)
            chance.shuffle(points)
            lives[name] = [f"{point}:{chance.randint(1, PASSAGES.get(point, 3))}" for point in points]
        print(f"SEED={seed}", lives)
        return cls(lives)

    def watch(self, children: Children) -> None:
        self.children = children
        children.environ = self._environ

    def _environ(self, name: str, restarts: int) -> Mapping[str, str] | None:
        if restarts and (manager := self.beside.get(name)) is not None:
            assert self.children is not None
            process = self.children.running[manager].process
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
        deaths = self.lives.get(name, [])
        return {**os.environ, KILL_VARIABLE: deaths[restarts]} if restarts < len(deaths) else None


def short_history(folder: Path) -> Path:
    with gzip.open(str(files("dtms_service.demo").joinpath(HISTORY)), "rt") as whole:
        lines = [next(whole) for _ in range(SHORT_BARS + 1)]
    path = folder / "short.csv"
    path.write_text("".join(lines))
    return path


def quiet() -> Console:
    return Console(file=io.StringIO())


def same(one: Path, other: Path) -> None:
    """The broker was asked the same and answered the same, to the last deal; the service said the same of each bar."""
    for name in (BROKER_LOG, RESULTS, BARS):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def figures(finished: Finished) -> dict[str, object]:
    """Trades, states, decisions, and the hash of every event with its time."""
    return {
        name: value for name, value in finished.summary.items() if name not in ("tick_to_decision_us", "restarts")
    }


async def undisturbed(out: Path, history: Path) -> Finished:
    """The same run with service and broker in this process, where nothing can be killed but with it."""
    given = {"data_dir": fresh_data_dir(out), "server.port": 0, "profile": PROFILE}
    config = configuration(None, paper=True, given=given)
    crew = programs(exit_manager=True, universal_manager=True, profile=PROFILE, vix=None)
    return await replay(options_of(out, history), config, managers=crew, progress=lambda _done, _total: None)


async def test_a_run_whose_processes_are_killed_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Service and gateway die in the middle of a command, and a manager: same events, same deals, no orphan."""
    history = short_history(tmp_path)
    killer = Killer.by(SEED, of_a_command=1, often=0)
    killer.beside = {SERVICE: EXIT_MANAGER}
    reference, killed = await asyncio.gather(
        undisturbed(tmp_path / "undisturbed", history),
        run_demo(tmp_path / "killed", quiet(), history=history, started=killer.watch),
    )
    assert killed.summary.get("restarts") == {SERVICE: 1, GATEWAY: 1, EXIT_MANAGER: 1}
    assert "restarts" not in reference.summary
    same(tmp_path / "undisturbed", tmp_path / "killed")
    assert figures(reference) == figures(killed)
