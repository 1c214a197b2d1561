"""What a gateway costs a command, and what a terminal that hangs costs everybody else."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import uvloop

from benches.figures import Baseline, Figure, Target
from benches.processes import server, token
from benches.terminal import HANG_FOLDER, PACKAGE, SYMBOL, Terminal
from dtms.v1 import action_pb2, admin_service_pb2
from dtms_client import AsyncClient, new_request_id
from dtms_service.broker.door import BrokerDoor, Command, CommandKind, OutcomeStatus, Side
from dtms_service.broker.fence import Fence
from dtms_service.broker.mt5_door import Mt5Door
from dtms_service.broker.mt5_package import Mt5Package
from dtms_service.broker.mt5_session import Login
from dtms_service.broker.server_time import ServerTime
from dtms_service.server import Server
from dtms_service.service import credentials_of
from dtms_service.settings import configuration
from dtms_service.system import System

ACCOUNT: Final = "7001@Bench"
STUCK, WELL = "7001@Bench", "7002@Bench"
HANGS: Final = "hangs"
STOPS: Final = (1.081, 1.082)
READY_S: Final = 30.0
OVERHEAD_MS: Final = 5.0
USUAL: Final = 1.25
"""Of a median that is the same; what is longer on a machine with other work shows in the 99th percentiles."""
PAUSE_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Size:
    """``hang_s`` is the length of each half: all well, and with a terminal that hangs."""

    commands: int
    hang_s: float


FULL: Final = Size(commands=2_000, hang_s=20.0)
QUICK: Final = Size(commands=40, hang_s=1.0)


def measure(quick: bool, hang_s: float | None = None) -> list[Figure]:
    """2,000 commands, and 20 s with a terminal that hangs; 40 and 1 s when quick. ``hang_s`` says otherwise."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix=".bench-gateway-", dir=Path.cwd()) as name:
        folder = Path(name)
        for part in ("command", "hang", f"hang/{HANGS}"):
            (folder / part).mkdir()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            overhead = runner.run(_overhead(folder / "command", size.commands))
            hanging = runner.run(_hanging(folder / "hang", hang_s or size.hang_s))
    return [*overhead, *hanging]


# --- a command ------------------------------------------------------------------------------------------------------


async def _overhead(folder: Path, count: int) -> list[Figure]:
    near = Mt5Door(
        lambda: cast("Mt5Package", Terminal()),
        Login(ACCOUNT),
        time=ServerTime(None, [(0, 0)]),
        fence=Fence(folder / "fence.db"),
        now_msc=lambda: time.time_ns() // 1_000_000,
    )
    try:
        async with _attached(folder) as far:
            near_ms, far_ms = await _by_turns(near, far, count)
    finally:
        near.close()
    near_p99, far_p99 = _percentile(near_ms, 99), _percentile(far_ms, 99)
    same = "the same door in process"
    return [
        Figure(
            "a command through a gateway, p50", "ms", _percentile(far_ms, 50), Baseline(same, _percentile(near_ms, 50))
        ),
        Figure("a command through a gateway, p99", "ms", far_p99, Baseline(same, near_p99)),
        Figure("what the gateway adds at p99", "ms", far_p99 - near_p99, None, Target("value", "at most", OVERHEAD_MS)),
    ]


@asynccontextmanager
async def _attached(folder: Path) -> AsyncIterator[BrokerDoor]:
    """A service in this process, a `dtms gateway` in another: the service's door to it."""
    config = configuration(None, paper=False, given={"data_dir": folder / "data", "server.port": 0})
    system = await System.open(config, None)
    running = await Server.start(system, config, credentials_of(config))
    arguments = ["--service", running.address, "--token-file", str(token(folder, "gateway")), "--account", ACCOUNT]
    options = ["--symbol", SYMBOL, "--out", str(folder / "gateway"), "--mt5-module", PACKAGE]
    command = [sys.executable, "-m", "dtms_service", "gateway", "--broker", "mt5", "--server-utc-offset-s", "0"]
    gateway = await asyncio.create_subprocess_exec(*command, *arguments, *options, stderr=subprocess.DEVNULL)
    try:
        await _until(lambda: _true(system.doors.attached(ACCOUNT)))
        yield system.doors.of(ACCOUNT)
    finally:
        await running.stop()
        gateway.terminate()
        await gateway.wait()


async def _by_turns(near: BrokerDoor, far: BrokerDoor, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each command at both doors."""
    taken: tuple[list[float], list[float]] = ([], [])
    tickets = [(await door.positions(ACCOUNT))[0].ticket for door in (near, far)]
    for number, stop in zip(range(1, count + 1), itertools.cycle(STOPS), strict=False):
        for door, ticket, times in zip((near, far), tickets, taken, strict=True):
            command = _move(ticket, number, stop)
            started = time.perf_counter()
            outcome = await door.execute(command)
            times.append((time.perf_counter() - started) * 1e3)
            if outcome.status is not OutcomeStatus.CONFIRMED:
                raise RuntimeError(f"{command}: {outcome}")
        await asyncio.sleep(PAUSE_S / 5)
    return taken


def _move(ticket: int, number: int, stop: float) -> Command:
    """The stop, under one token: the trade keeps its owner."""
    return Command(
        intent_id=number,
        account_id=ACCOUNT,
        ticket=ticket,
        token=1,
        kind=CommandKind.MODIFY,
        symbol=SYMBOL,
        position=ticket,
        side=Side.BUY,
        volume=0.0,
        sl=stop,
        tp=1.13,
        deviation_points=20,
        magic=0,
        comment="bench",
    )


# --- a terminal that hangs ------------------------------------------------------------------------------------------


async def _hanging(folder: Path, hang_s: float) -> list[Figure]:
    hangs = folder / HANGS
    config = folder / "dtms.toml"
    config.write_text("".join(map(_section, (STUCK, WELL))))
    os.environ[HANG_FOLDER] = str(hangs)
    arguments = ["--config", str(config), "--data-dir", str(folder / "data"), "--port", "0", "--log-level", "warning"]
    try:
        with server("dtms_service", "serve", *arguments, log=folder / "service.log") as served:
            clients = {
                name: AsyncClient(served.address, token_file=token(folder, name))
                for name in ("viewer", "operator", "feed")
            }
            for client in clients.values():
                await client.__aenter__()
            try:
                calls = Calls(clients)
                await _until(calls.ready)
                usual = await calls.run(hang_s)
                (hangs / STUCK.partition("@")[0]).touch()
                began_s = time.perf_counter()
                while_hanging = await calls.run(hang_s)
                killed_s = None if calls.killed_s is None else calls.killed_s - began_s
            finally:
                for client in clients.values():
                    await client.close()
    finally:
        del os.environ[HANG_FOLDER]
    return _beside(usual, while_hanging, killed_s, hang_s)


def _section(account_id: str) -> str:
    return "\n".join(
        (
            f'[gateways."{account_id}"]',
            'broker = "mt5"',
            f'symbols = ["{SYMBOL}"]',
            f'package = "{PACKAGE}"',
            "server_utc_offset_s = 0\n",
        )
    )


class Calls:
    """Every kind of call that is not about the terminal that hangs, one after the other, for a while."""

    def __init__(self, clients: dict[str, AsyncClient]) -> None:
        self._viewer, self._operator, self._feed = clients["viewer"], clients["operator"], clients["feed"]
        self._ticket = 0
        self._stops = itertools.cycle(STOPS)
        self.killed_s: float | None = None

    async def ready(self) -> bool:
        """Both are attached and priced: a stop of each can be moved."""
        status = await self._viewer.system_status()
        attached = [g for g in status.gateways if g.state == admin_service_pb2.GATEWAY_STATE_ATTACHED]
        if len(attached) < 2:
            return False
        listed = [trade async for trade in self._viewer.list_trades()]
        self._ticket = listed[0].ticket
        return len(listed) == 2 and await self._propose()

    async def run(self, seconds: float) -> dict[str, list[float]]:
        """Milliseconds of each call, by name."""
        taken: dict[str, list[float]] = defaultdict(list)
        kinds: dict[str, Callable[[], Awaitable[object]]] = {
            "GetTrade": lambda: self._viewer.get_trade(self._ticket, account_id=WELL),
            "GetSystemStatus": self._status,
            "ReportIndex": lambda: self._feed.report_index("VIX", 20.0, valid_ms=60_000),
            "Propose, at the other terminal": self._move,
        }
        ends_s = time.perf_counter() + seconds
        for name in itertools.cycle(kinds):
            started_s = time.perf_counter()
            if started_s > ends_s:
                return taken
            await kinds[name]()
            taken[name].append((time.perf_counter() - started_s) * 1e3)
            await asyncio.sleep(PAUSE_S)
        raise AssertionError("a cycle does not end")

    async def _status(self) -> None:
        for gateway in (await self._viewer.system_status()).gateways:
            if gateway.account_id == STUCK and gateway.state != admin_service_pb2.GATEWAY_STATE_ATTACHED:
                self.killed_s = self.killed_s or time.perf_counter()

    async def _move(self) -> None:
        if not await self._propose():
            raise RuntimeError("a stop was not moved")

    async def _propose(self) -> bool:
        trade = await self._viewer.get_trade(self._ticket, account_id=WELL)
        answer = await self._operator.propose(
            request_id=new_request_id(),
            account_id=WELL,
            ticket=self._ticket,
            owner_epoch=trade.owner_epoch,
            action=action_pb2.Action(
                kind=action_pb2.ACTION_KIND_STOP,
                purpose=action_pb2.PURPOSE_WIDEN,
                stop=next(self._stops),
                allow_loosen=True,
            ),
        )
        return answer.outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED


def _beside(
    usual: dict[str, list[float]], hanging: dict[str, list[float]], killed_s: float | None, hang_s: float
) -> list[Figure]:
    figures = []
    for name, before_ms in usual.items():
        for percent, target in ((50, Target("ratio", "at most", USUAL)), (99, None)):
            before, now = _percentile(before_ms, percent), _percentile(hanging[name], percent)
            words = f"{name}, p{percent}, while another account's terminal hangs for {hang_s:g} s"
            figures.append(Figure(words, "ms", now, Baseline("the same service, all terminals well", before), target))
    if killed_s is not None:
        figures.append(Figure("from the hang to the end of its gateway", "s", killed_s))
    return figures


# --- both -----------------------------------------------------------------------------------------------------------


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


async def _true(is_so: bool) -> bool:
    return is_so


async def _until(found: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(READY_S):
        while not await found():  # noqa: ASYNC110  nothing tells it
            await asyncio.sleep(0.1)
