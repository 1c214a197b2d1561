"""`dtms demo`: service, gateway with the paper broker, and the managers as processes of their own, over gRPC.

This process only starts them (again, where one is killed), watches as any client would, and reads what they left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from dtms.v1.admin_service_pb2 import GetSystemStatusResponse
from dtms.v1.event_pb2 import Event
from dtms.v1.trade_status_service_pb2 import Progress
from dtms_client import AsyncClient, DtmsError
from dtms_client.errors import LOST
from dtms_client.watch import Listed, Relisted
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.describe import clock
from dtms_service.live_table import LiveTable
from dtms_service.replay.children import Children, ProcessFailed
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
REFRESH_S = 0.25  # the table asks for the open trades so often; events come by themselves


def _unobserved(_children: Children) -> None:
    """Nobody looks on."""


async def run_demo(
    out: Path, console: Console, *, history: Path | None = None, started: Callable[[Children], None] = _unobserved
) -> Finished:
    """Runs to the end of the history, whichever of its processes is killed on the way. Raises FatalError, or what a
    process died of by itself. ``started`` is shown the processes before the first is there."""
    data_dir = fresh_data_dir(out)
    options = options_of(out, history or Path(str(files("dtms_service.demo").joinpath(HISTORY))))
    managers = programs(exit_manager=True, universal_manager=True, profile=PROFILE, vix=None)
    table = LiveTable("DTMS demo: EURUSD 2017, hourly bars, profile swing")
    children = Children(
        out, progress=lambda: table.virtual_time, notice=lambda words: console.print(words, style="bold")
    )
    started(children)
    try:
        service = await children.start(SERVICE, *_service_arguments(data_dir, names(managers), port=0))
        line = await children.first_line(SERVICE, START_DEADLINE_S)
        address = line.removeprefix(SERVING).strip()
        # One that is started again must be found where the others look for it.
        port = int(address.rpartition(":")[2])
        service.arguments = tuple(_service_arguments(data_dir, names(managers), port=port))
        tokens = data_dir / CREDENTIALS_FOLDER
        for program in managers:
            await children.start(program.manager, *program.command(address, tokens, "info"))
        gateway = await children.start(GATEWAY, *gateway_arguments(address, tokens, options), is_last=True)
        async with AsyncClient(address, token_file=token_path(tokens, "viewer")) as client:
            await _show(client, table, children.until(gateway.has_ended), console)
            for manager in sorted(names(managers)):
                await children.until(children.running[manager].has_ended)
            status = await _status(client)
    finally:
        await children.stop()
    if code := children.running[SERVICE].process.returncode:
        raise ProcessFailed(SERVICE, f"ended with code {code}", out / f"{SERVICE}.log")
    return finish(
        options,
        data_dir,
        journal_sha256=status.journal_sha256,
        p50_us=status.tick_to_decision.p50_us,
        p99_us=status.tick_to_decision.p99_us,
        restarts=children.restarts,
    )


async def _status(client: AsyncClient) -> GetSystemStatusResponse:
    """Of a service that may just be starting again."""
    async with asyncio.timeout(START_DEADLINE_S):
        while True:
            try:
                return await client.system_status()
            except LOST:
                await asyncio.sleep(REFRESH_S)


def options_of(out: Path, history: Path) -> ReplayOptions:
    """What the demo does with a history of hourly bars."""
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


def _service_arguments(data_dir: Path, managers: frozenset[str], *, port: int) -> list[str]:
    return [
        *("-m", "dtms_service", "serve", "--data-dir", str(data_dir), "--profile", PROFILE, "--port", str(port)),
        *("--lockstep", *sorted(managers), "--trader", TRADER),
    ]


def gateway_arguments(address: str, tokens: Path, options: ReplayOptions) -> list[str]:
    return [
        *("-m", "dtms_service", "gateway", *map(str, options.files), "--symbol", SYMBOL, "--profile", PROFILE),
        *("--volume", str(VOLUME), "--entry-bar-s", str(ENTRY_BAR_S), "--spread-points", str(SPREAD_POINTS)),
        *("--strategy-type", *STRATEGIES, "--out", str(options.out)),
        *("--service", address, "--token-file", str(token_path(tokens, "gateway"))),
        *("--trader-token-file", str(token_path(tokens, TRADER))),
    ]


async def _show(client: AsyncClient, table: LiveTable, until: Awaitable[None], console: Console) -> None:
    """The live table until then. Raises what that raises."""
    started_s = time.monotonic()
    ending = asyncio.ensure_future(until)
    with Live(table, console=console, refresh_per_second=8, transient=True) as live:
        watching = asyncio.create_task(_follow(client, table))
        try:
            while not ending.done():
                await asyncio.wait({ending}, timeout=REFRESH_S)
                try:
                    table.show_trades([trade async for trade in client.list_trades()])
                except DtmsError as error:  # shown, not hidden: the run itself goes on without its audience
                    table.footer = f"the table waits: {error}"
                else:
                    table.footer = f"{table.virtual_time} virtual, {time.monotonic() - started_s:.0f} s wall"
                live.refresh()
            ending.result()
        finally:
            watching.cancel()
            ending.cancel()


async def _follow(client: AsyncClient, table: LiveTable) -> None:
    async for item in client.watch(snapshot=True, progress_interval_ms=250):
        if isinstance(item, Listed | Relisted):
            table.show_trades(item.trades)
        elif isinstance(item, Event):
            table.show_event(item)
        if isinstance(item, Event | Progress):
            table.virtual_time = clock(item.time_ns)
