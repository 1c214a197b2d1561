"""`dtms demo`: service, gateway with the paper broker, and the managers as processes of their own, over gRPC.

This process only starts them, watches as any client would, and reads what they left.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from dtms.v1.admin_service_pb2 import GetSystemStatusResponse
from dtms.v1.event_pb2 import Event
from dtms.v1.trade_status_service_pb2 import Progress
from dtms_client import AsyncClient, DtmsError
from dtms_client.watch import Listed, Relisted
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.describe import clock
from dtms_service.errors import FatalError
from dtms_service.live_table import LiveTable
from dtms_service.replay.command import TRADER, Finished, finish, fresh_data_dir
from dtms_service.replay.crew import names, programs
from dtms_service.replay.options import ReplayOptions
from dtms_service.replay.strategies import ALTERNATE
from dtms_service.service import SERVING

SERVICE, GATEWAY = "service", "gateway"
HISTORY = "eurusd_h1_2017.csv.gz"
SYMBOL, VOLUME, SPREAD_POINTS = "EURUSD", 1.0, 10
PROFILE: Final = "swing"
STRATEGIES = (ALTERNATE,)  # every other trade is the Universal Manager's, so that all three work on trades
ENTRY_BAR_S = 28_800  # three bars a day: trades that live for days, so that a year shows every state
START_DEADLINE_S = 60.0  # a cold start of three interpreters on a busy machine takes about 5 s
STOP_DEADLINE_S = 20.0
REFRESH_S = 0.25  # the table asks for the open trades so often; events come by themselves


class ProcessFailed(FatalError):
    """One of the demo's processes ended before its time. Its last words are in its log file."""

    def __init__(self, name: str, code: int | None, log: Path) -> None:
        super().__init__(f"{name} ended with code {code}: see {log}")


@dataclass(slots=True)
class Processes:
    """Children with a log file each; ``stop`` ends those that still run, the last started first."""

    logs: Path
    children: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str, *arguments: str) -> asyncio.subprocess.Process:
        with (self.logs / f"{name}.log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        self.children[name] = child
        return child

    async def address(self) -> str:
        """Where the service serves, once it says so. Raises ProcessFailed when it ends instead."""
        output = self.children[SERVICE].stdout
        assert output is not None, "started with a pipe"
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                line = (await output.readline()).decode()
        except TimeoutError:
            raise FatalError(f"the service did not come up within {START_DEADLINE_S:g} s: see {self.logs}") from None
        if not line.startswith(SERVING):
            await self.children[SERVICE].wait()
            raise self.failure(SERVICE)
        return line.removeprefix(SERVING).strip()

    def failure(self, name: str) -> ProcessFailed:
        return ProcessFailed(name, self.children[name].returncode, self.logs / f"{name}.log")

    async def stop(self) -> None:
        for child in reversed(self.children.values()):
            if child.returncode is None:
                child.send_signal(signal.SIGTERM)
                with suppress(TimeoutError):
                    async with asyncio.timeout(STOP_DEADLINE_S):
                        await child.wait()
            if child.returncode is None:
                child.kill()
                await child.wait()


async def run_demo(out: Path, console: Console) -> Finished:
    """Runs to the end of the history. Raises FatalError, or what a process died of."""
    data_dir = fresh_data_dir(out)
    options = _options(out)
    managers = programs(exit_manager=True, universal_manager=True, profile=PROFILE, vix=None)
    processes = Processes(out)
    try:
        await processes.start(SERVICE, *_service_arguments(data_dir, names(managers)))
        address = await processes.address()
        tokens = data_dir / CREDENTIALS_FOLDER
        for program in managers:
            await processes.start(program.manager, *program.command(address, tokens, "info"))
        gateway = await processes.start(GATEWAY, *_gateway_arguments(address, tokens, options))
        async with AsyncClient(address, token_file=token_path(tokens, "viewer")) as client:
            await _show(client, gateway, console)
            if await gateway.wait():
                raise processes.failure(GATEWAY)
            status = await client.system_status()
        for manager in sorted(names(managers)):
            if await processes.children[manager].wait():
                raise processes.failure(manager)
    finally:
        await processes.stop()
    if processes.children[SERVICE].returncode:
        raise processes.failure(SERVICE)
    decided: GetSystemStatusResponse = status
    return finish(
        options,
        data_dir,
        decided.journal_sha256,
        decided.tick_to_decision.p50_us,
        decided.tick_to_decision.p99_us,
    )


def _options(out: Path) -> ReplayOptions:
    history = Path(str(files("dtms_service.demo").joinpath(HISTORY)))
    return ReplayOptions(
        files=[history],
        symbol=SYMBOL,
        trades=(),
        volume=VOLUME,
        entry_bar_s=ENTRY_BAR_S,
        every_s=None,
        spread_points=SPREAD_POINTS,
        warm_up=(),
        strategy_types=STRATEGIES,
        out=out,
    )


def _service_arguments(data_dir: Path, managers: frozenset[str]) -> list[str]:
    return [
        *("-m", "dtms_service", "serve", "--data-dir", str(data_dir), "--profile", PROFILE, "--port", "0"),
        *("--lockstep", *sorted(managers), "--trader", TRADER),
    ]


def _gateway_arguments(address: str, tokens: Path, options: ReplayOptions) -> list[str]:
    return [
        *("-m", "dtms_service", "gateway", *map(str, options.files), "--symbol", SYMBOL, "--profile", PROFILE),
        *("--volume", str(VOLUME), "--entry-bar-s", str(ENTRY_BAR_S), "--spread-points", str(SPREAD_POINTS)),
        *("--strategy-type", *STRATEGIES, "--out", str(options.out)),
        *("--service", address, "--token-file", str(token_path(tokens, "gateway"))),
        *("--trader-token-file", str(token_path(tokens, TRADER))),
    ]


async def _show(client: AsyncClient, gateway: asyncio.subprocess.Process, console: Console) -> None:
    """The live table until the gateway has ended."""
    table = LiveTable("DTMS demo: EURUSD 2017, hourly bars, profile swing")
    started = time.monotonic()
    with Live(table, console=console, refresh_per_second=8, transient=True) as live:
        watching = asyncio.create_task(_follow(client, table))
        try:
            while gateway.returncode is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH_S):
                        await gateway.wait()
                try:
                    table.show_trades([trade async for trade in client.list_trades()])
                except DtmsError as error:  # shown, not hidden: the run itself goes on without its audience
                    table.footer = f"the table waits: {error}"
                else:
                    table.footer = f"{table.virtual_time} virtual, {time.monotonic() - started:.0f} s wall"
                live.refresh()
        finally:
            watching.cancel()


async def _follow(client: AsyncClient, table: LiveTable) -> None:
    async for item in client.watch(snapshot=True, progress_interval_ms=250):
        if isinstance(item, Listed | Relisted):
            table.show_trades(item.trades)
        elif isinstance(item, Event):
            table.show_event(item)
        if isinstance(item, Event | Progress):
            table.virtual_time = clock(item.time_ns)
