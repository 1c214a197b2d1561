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
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest
from rich.console import Console

from dtms.v1.gateway_service_pb2 import AttachRequest, AttachResponse, GatewayHello, RunPlace
from dtms_client.errors import InvalidArgument
from dtms_service.credentials import CREDENTIALS_FOLDER
from dtms_service.demo.run import GATEWAY, HISTORY, PROFILE, SERVICE, gateway_arguments, options_of, run_demo
from dtms_service.fault_points import KILL_VARIABLE, Point
from dtms_service.replay.artefacts import BARS, BROKER_LOG, RESULTS
from dtms_service.replay.children import Children
from dtms_service.replay.command import TRADER, Finished, fresh_data_dir, replay
from dtms_service.replay.crew import EXIT_MANAGER, UNIVERSAL_MANAGER, names, programs
from dtms_service.settings import configuration
from tests.process.service_process import Process, Service, serve, serving
from tests.wire import exchange

SHORT_BARS = 360  # hours: two trades, a hedge, stops moved by all three
DEMO_HISTORY = Path(str(files("dtms_service.demo").joinpath(HISTORY)))
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
        Point.ATTACH_SEND,
        Point.JOIN_SEND,
        Point.BOOKMARK,
        Point.BOOKMARK_WRITE,
        Point.BOOKMARK_SYNC,
        Point.BOOKMARK_PUT,
    ),
    GATEWAY: (Point.HELLO_SEND, Point.READY_SEND, Point.TICKS_SEND, Point.QUERY_RECEIVED, Point.QUERY_SEND),
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
# What was done is told anew to a service that was killed, before anything else; the end is told once.
FIRST, LAST = Point.RECALL_SEND, Point.END_SEND
POINTS = {FIRST, LAST, *(point for kind in (OFTEN, OF_A_COMMAND) for points in kind.values() for point in points)}
MOST_PASSAGES = {
    Point.TICKS_SEND: 400,
    Point.BOOKMARK: 150,
    Point.BOOKMARK_PUT: 150,
    Point.BOOKMARK_SYNC: 1,
    Point.HELLO_SEND: 1,
    Point.READY_SEND: 1,
}


@dataclass(slots=True)
class Killer:
    """``lives`` are the deaths of each process, one after the other, as DTMS_FAULT_POINT has them; ``beside`` is the
    manager that dies when the process is started again."""

    lives: dict[str, list[str]]
    beside: Mapping[str, str]
    children: Children | None = None

    @classmethod
    def by(cls, seed: int, points: Mapping[str, Sequence[Point]], beside: Mapping[str, str]) -> Killer:
        """Each of these deaths once, in an order and at passages that the seed says."""
        chance = random.Random(seed)
        lives: dict[str, list[str]] = {}
        for name, of_process in points.items():
            most = dict.fromkeys(OF_A_COMMAND[name], 3) | MOST_PASSAGES
            shuffled = chance.sample(of_process, k=len(of_process))
            lives[name] = [f"{point}:{chance.randint(1, most.get(point, 40))}" for point in shuffled]
        print(f"SEED={seed}", lives)  # noqa: T201  # how to see a failure again
        return cls(lives, beside)

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
    with gzip.open(DEMO_HISTORY, "rt") as whole:
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
    return {name: value for name, value in finished.summary.items() if name not in ("tick_to_decision_us", "restarts")}


async def undisturbed(out: Path, history: Path) -> Finished:
    """The same run with service and broker in this process, where nothing can be killed but with it."""
    given = {"data_dir": fresh_data_dir(out), "server.port": 0, "profile": PROFILE}
    config = configuration(None, paper=True, given=given)
    crew = programs(exit_manager=True, universal_manager=True, profile=PROFILE, vix=None)
    return await replay(options_of(out, history), config, managers=crew, progress=lambda _done, _total: None)


async def test_a_run_whose_processes_are_killed_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Service and gateway die in the middle of a command, and a manager: same events, same deals, no orphan."""
    history = short_history(tmp_path)
    chosen = random.Random(SEED)
    points = {name: [chosen.choice(of_process)] for name, of_process in OF_A_COMMAND.items()}
    killer = Killer.by(SEED, points, {SERVICE: EXIT_MANAGER})
    reference, killed = await asyncio.gather(
        undisturbed(tmp_path / "undisturbed", history),
        run_demo(tmp_path / "killed", quiet(), history=history, started=killer.watch),
    )
    assert killed.summary.get("restarts") == {SERVICE: 1, GATEWAY: 1, EXIT_MANAGER: 1}
    assert "restarts" not in reference.summary
    same(tmp_path / "undisturbed", tmp_path / "killed")
    assert figures(reference) == figures(killed)


async def test_a_gateway_that_dies_before_it_is_ready_leaves_everything_to_the_next(tmp_path: Path) -> None:
    """It may have forgotten an earlier run or not: the next one is told the same. Another run's gateway is refused."""

    async def place(service: Service, run_id: str) -> RunPlace:
        hello = GatewayHello(account_id="demo", lockstep=True, run_id=run_id)
        async with service.client("gateway") as client:
            answers = await exchange(client.channel, [AttachRequest(hello=hello)], metadata=client.metadata)
        told: AttachResponse = answers[0]
        return told.place

    async with serving(tmp_path, arguments=("--lockstep", EXIT_MANAGER, "--trader", TRADER)) as service:
        assert [await place(service, "one") for _ in range(2)] == [RunPlace(fresh=True)] * 2
        with pytest.raises(InvalidArgument, match="this service is in the run 'one'"):
            await place(service, "other")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_the_demo_survives_a_death_at_every_point(tmp_path: Path) -> None:
    """The whole year, with a death at each write, sync and send of the way of a tick, and a manager with each."""
    points = {name: [*OFTEN[name], *OF_A_COMMAND[name]] for name in OFTEN}
    killer = Killer.by(SEED, points, {SERVICE: EXIT_MANAGER, GATEWAY: UNIVERSAL_MANAGER})
    killer.lives[GATEWAY] = [f"{FIRST}:1", *killer.lives[GATEWAY], f"{LAST}:1"]
    reference = await undisturbed(tmp_path / "undisturbed", DEMO_HISTORY)
    killed = await run_demo(tmp_path / "killed", quiet(), started=killer.watch)
    restarts = killed.summary.get("restarts", {})
    assert {name: restarts[name] for name in points} == {name: len(deaths) for name, deaths in killer.lives.items()}
    assert restarts[EXIT_MANAGER] >= 3 <= restarts[UNIVERSAL_MANAGER]
    same(tmp_path / "undisturbed", tmp_path / "killed")
    assert figures(reference) == figures(killed)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_processes_started_by_hand_find_each_other_again(tmp_path: Path) -> None:
    """Without the demo around them: service and gateway die and are started again with the same command, the others
    dial again, and the run ends as one that nobody disturbed."""
    history, out = short_history(tmp_path), tmp_path / "killed"
    reference = await undisturbed(tmp_path / "undisturbed", history)
    managers = programs(exit_manager=True, universal_manager=True, profile=PROFILE, vix=None)
    data_dir = fresh_data_dir(out)
    in_lockstep = ("--profile", PROFILE, "--lockstep", *sorted(names(managers)), "--trader", TRADER)
    service = await serve(data_dir, arguments=in_lockstep, env={KILL_VARIABLE: "outcome.kept:2"})
    tokens, port = data_dir / CREDENTIALS_FOLDER, int(service.address.rpartition(":")[2])
    crew = Children(out)
    for program in managers:
        await crew.start(program.manager, *program.command(service.address, tokens, "info"))
    command = gateway_arguments(service.address, tokens, options_of(out, history))[2:]
    gateway = await Process.start(*command, env={KILL_VARIABLE: "commands.logged:3"})
    try:
        await service.process.wait()
        service = await serve(data_dir, port=port, arguments=in_lockstep)
        await gateway.process.wait()
        gateway = await Process.start(*command)
        assert await gateway.process.wait() == 0
        crew.may_end.set()
        for program in managers:
            await crew.until(crew.running[program.manager].has_ended)
        async with service.client("viewer") as client:
            status = await client.system_status()
    finally:
        await crew.stop()
        await gateway.kill()
        await service.kill()
    assert not crew.restarts
    assert status.journal_sha256 == reference.summary["journal_sha256"]
    same(tmp_path / "undisturbed", out)
