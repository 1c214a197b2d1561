"""1,000 trades, three managers as processes of their own, 100 ticks a second; then half an hour of prices in one go.

The third manager asks for decisions at a steady pace and measures each answer. More of it, outside of `make bench`:
``python -m benches.managers --seconds 60 --virtual-minutes 30``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import grpc
import uvloop
from cyclopts import Parameter

from benches import paper_trades, processes, sampling
from benches.bare_server import SERVICE, pack
from benches.figures import Baseline, Figure, Target
from benches.load import READY
from benches.paced_feed import TICKS_PER_S, message
from benches.processes import Served
from benches.world import SEED, T0_NS
from dtms.v1 import action_pb2, event_pb2, market_data_service_pb2_grpc, trade_pb2
from dtms.v1.trade_status_service_pb2 import GetTradeResponse
from dtms_client import AsyncClient, new_request_id
from dtms_client.errors import StaleEpoch

PROBE: Final = "bench_probe"
MANAGED: Final = "default_standard"
ECHO: Final = "an echo by bare grpc.aio that syncs a page, asked as often beside it"
ECHOED: Final = bytes(100)  # about a proposal
QUIET_S: Final = 2.0
START_S: Final = 0.2  # until the feed has heard of it
PROBES_PER_S: Final = 50
BATCH: Final = 100  # ticks a message when prices are taken as fast as they are
END_S: Final = 30
# Caches that are bounded by counts are full before the watch on memory begins: what grows then is a leak.
SETTINGS: Final = (
    "[managers]",
    f'{PROBE} = "PROFIT_PROTECTION"',
    "[event_log]",
    "capacity = 2048",
    "[engine]",
    "decisions_kept = 500",
    "request_ids_kept = 500",
)


@dataclass(frozen=True, slots=True)
class Size:
    """``minutes`` of virtual time, whose ticks are taken as fast as they can be."""

    trades: int
    seconds: float
    minutes: float


FULL: Final = Size(trades=1_000, seconds=10, minutes=30)
QUICK: Final = Size(trades=10, seconds=0.5, minutes=0.1)


@dataclass(frozen=True, slots=True)
class Paced:
    """``late_ms``: from the moment a tick was due to the answer that all of it is done, for each tick."""

    sent: int
    answered: int
    late_ms: list[float]
    decided_ms: list[float]
    dry_ms: list[float]
    echo_ms: list[float]


def measure(quick: bool) -> list[Figure]:
    """10 s of 100 ticks a second over 1,000 trades, first without managers; then 30 minutes of ticks in one go.

    Tiny when quick.
    """
    return run(QUICK if quick else FULL)


def run(size: Size) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix=".bench-managers-", dir=Path.cwd()) as name, ExitStack() as exits:
        folder = Path(name)
        served = exits.enter_context(processes.service(folder, SETTINGS))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            trades = runner.run(_open(served, folder, size))
            feed = exits.enter_context(
                _process("benches.paced_feed", served.address, str(processes.token(folder, "feed")))
            )
            (folder / "answers").write_bytes(pack([GetTradeResponse(trade=trades[0]).SerializeToString()]))
            echoing = exits.enter_context(
                processes.server("benches.bare_server", str(folder / "answers"), log=folder / "bare.log")
            )
            pace = _Pace(served, echoing, processes.token(folder, PROBE), feed, trades, size.seconds)
            bare = runner.run(pace.take(_FIRST_MSC))
            names = {"exit": "intelligent_exit_manager", "universal": "universal_sl_tp_manager"}
            managers = {
                kind: exits.enter_context(
                    _process("benches.timed_manager", kind, served.address, str(processes.token(folder, name)))
                )
                for kind, name in names.items()
            }
            # A first start leaves a memo on every trade, at leisure; what is measured is the day that follows.
            runner.run(_settled(served, folder))
            paced = runner.run(pace.take(_FIRST_MSC + 600_000))
            cycles = {kind: _end(manager) for kind, manager in managers.items()}
            ticks = round(size.minutes * 60 * TICKS_PER_S)
            first, last, took_s = runner.run(_virtual(served, folder, ticks))
    return [
        Figure("ticks missed", "ticks", float(paced.sent - paced.answered), None, Target("value", "at most", 0)),
        Figure(
            f"tick due to done p99, {TICKS_PER_S}/s, {size.trades} trades", "ms", sampling.quantile(paced.late_ms, 0.99)
        ),
        Figure(
            f"decision p99 over loopback, on disk, {len(paced.decided_ms)} of them",
            "ms",
            sampling.quantile(paced.decided_ms, 0.99),
            Baseline(ECHO, sampling.quantile(paced.echo_ms, 0.99)),
            Target("value", "at most", 5),
        ),
        Figure(
            "decision p99 without the two managers",
            "ms",
            sampling.quantile(bare.decided_ms, 0.99),
            Baseline(ECHO, sampling.quantile(bare.echo_ms, 0.99)),
        ),
        Figure("decision p99 over loopback, decided only (dry run)", "ms", sampling.quantile(paced.dry_ms, 0.99)),
        Figure(
            "decision p50 over loopback, on disk",
            "ms",
            sampling.quantile(paced.decided_ms, 0.50),
            Baseline(ECHO, sampling.quantile(paced.echo_ms, 0.50)),
        ),
        *(
            Figure(f"cycle of the {kind} manager {q}, {facts['cycles']} cycles", "ms", facts[f"cycle_ms_{q}"] or 0.0)
            for kind, facts in cycles.items()
            for q in ("p50", "p99")
        ),
        *(
            Figure(f"proposals of the {kind} manager", "proposals", facts["proposals"])
            for kind, facts in cycles.items()
        ),
        Figure(
            f"resident memory after {size.minutes:g} virtual minutes, {ticks} ticks",
            "MB",
            last / 1e6,
            Baseline("after a sixth of them", first / 1e6),
            Target("ratio", "at most", 1.1),
        ),
        Figure("virtual time over real time", "x", size.minutes * 60 / took_s),
    ]


async def _open(served: Served, folder: Path, size: Size) -> list[trade_pb2.Trade]:
    """Half of the trades belong to the Universal Manager."""
    async with AsyncClient(served.address, token_file=processes.token(folder, "feed")) as feed:
        return await paper_trades.open_and_register(feed, size.trades, strategies=("", MANAGED))


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """From the moment that it says READY."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                raise RuntimeError(f"{module} {arguments[0]} failed with code {process.wait(END_S)}")
            yield process
        finally:
            process.kill()


def _end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Its figures."""
    out, _ = process.communicate(timeout=END_S)
    facts: dict[str, Any] = json.loads(out.splitlines()[-1])
    return facts


async def _settled(served: Served, folder: Path) -> None:
    """Returns when nothing has happened for a while: memos are left, leases are taken."""
    loop = asyncio.get_running_loop()
    async with AsyncClient(served.address, token_file=processes.token(folder, "viewer")) as viewer:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S) as quiet:
                async for item in viewer.watch():
                    if isinstance(item, event_pb2.Event):
                        quiet.reschedule(loop.time() + QUIET_S)


@dataclass(frozen=True, slots=True)
class _Pace:
    """Ticks from the feed's process at their moments, and proposals of this one beside them, for so many seconds."""

    served: Served
    echoing: Served
    token_file: Path
    feed: subprocess.Popen[str]
    trades: Sequence[trade_pb2.Trade]
    seconds: float

    async def take(self, first_msc: int) -> Paced:
        """Once; ticks from ``first_msc`` (ms UTC) on."""
        ticks = round(self.seconds * TICKS_PER_S)
        assert self.feed.stdin is not None
        assert self.feed.stdout is not None
        async with (
            AsyncClient(self.served.address, token_file=self.token_file) as probe,
            grpc.aio.insecure_channel(self.echoing.address) as channel,
        ):
            echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/EchoSynced")
            kinds: list[Callable[[trade_pb2.Trade], Awaitable[object]]] = [
                lambda trade: _ask(probe, trade, dry_run=False),
                lambda trade: _ask(probe, trade, dry_run=True),
                lambda _trade: echo(ECHOED),
            ]
            await asyncio.gather(*(kind(self.trades[0]) for kind in kinds[1:]))
            began_s = time.perf_counter() + START_S
            print(began_s, first_msc, ticks, file=self.feed.stdin, flush=True)
            with sampling.quiet_heap():
                decided, dry, echoed = await asyncio.gather(
                    *(self._asks(kind, began_s, SEED + seed) for seed, kind in enumerate(kinds))
                )
        late: list[float] = json.loads(await asyncio.to_thread(self.feed.stdout.readline))
        return Paced(ticks, len(late), late, decided, dry, echoed)

    async def _asks(
        self, ask: Callable[[trade_pb2.Trade], Awaitable[object]], began_s: float, seed: int
    ) -> list[float]:
        """Independent of each other and of the ticks, as managers ask: some come together, some alone."""
        took: list[float] = []
        at_s, chance = began_s, random.Random(seed)
        for index in range(round(self.seconds * PROBES_PER_S / 2)):
            at_s += chance.expovariate(PROBES_PER_S / 2)
            await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
            started_s = time.perf_counter()
            await ask(self.trades[index % len(self.trades)])
            took.append(1000 * (time.perf_counter() - started_s))
        return took


_FIRST_MSC: Final = T0_NS // 1_000_000 + 60_000


async def _ask(probe: AsyncClient, trade: trade_pb2.Trade, *, dry_run: bool) -> None:
    """The target that is not there shall not be there: decided, recorded unless it is a dry run, and never sent."""
    with contextlib.suppress(StaleEpoch):  # decided as well: the trade has changed hands since
        await probe.propose(
            request_id=new_request_id(),
            ticket=trade.ticket,
            owner_epoch=trade.owner_epoch,
            action=action_pb2.Action(kind=action_pb2.ACTION_KIND_TARGET, purpose=action_pb2.PURPOSE_OTHER, target=0.0),
            dry_run=dry_run,
        )


async def _virtual(served: Served, folder: Path, ticks: int) -> tuple[int, int, float]:
    """Resident bytes after a sixth and at the end, and the seconds that it took."""
    bids = list(paper_trades.walk(ticks, SEED + 3))
    first_msc, first = _FIRST_MSC + 3_600_000, 0
    async with AsyncClient(served.address, token_file=processes.token(folder, "feed")) as feed:
        stub = market_data_service_pb2_grpc.MarketDataServiceStub(feed.channel)
        call = stub.StreamTicks(metadata=feed.metadata)
        started_s = time.perf_counter()
        for start in range(0, ticks, BATCH):
            await call.write(message(first_msc + 10 * start, bids[start : start + BATCH]))
            await call.read()
            if not first and start >= ticks // 6:
                first = sampling.resident_bytes_of(served.pid)
        took_s = time.perf_counter() - started_s
        await call.done_writing()
    return first or sampling.resident_bytes_of(served.pid), sampling.resident_bytes_of(served.pid), took_s


app = cyclopts.App()


@app.default
def main(
    *,
    trades: int = FULL.trades,
    seconds: Annotated[float, Parameter(help="how long 100 ticks a second come")] = 60,
    virtual_minutes: Annotated[float, Parameter(help="of prices, taken as fast as they can be")] = 30,
) -> None:
    """The same with other sizes; a line a figure."""
    for figure in run(Size(trades, seconds, virtual_minutes)):
        baseline = "" if figure.baseline is None else f"  ({figure.baseline.name}: {figure.baseline.value:.3g})"
        print(f"{figure.name}: {figure.value:.4g} {figure.unit}{baseline}")


if __name__ == "__main__":
    app()
