"""A service and its broker under a list of deaths: each process is started again after one, and dies of the next.

A desk goes on all the while: whoever has no answer asks again. The broker of :func:`behind_a_gateway` is in the test's
own process, so it outlives everybody; the embedded account dies with its service and has books on disk.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dtms.v1 import trade_pb2
from dtms.v1.arbitration_service_pb2 import ProposeRequest
from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import Bar, StreamBarsRequest, StreamTicksRequest, Tick
from dtms.v1.paper_service_pb2 import OpenPositionRequest
from dtms_client import AsyncClient
from dtms_client.errors import OUTAGE, Cancelled, FailedPrecondition, NotFound
from dtms_client.watch import Quotes, Relisted
from dtms_service.broker.mt5_enums import DealEntry
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.broker.paper_store import PaperStore
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.fault_points import KILL_VARIABLE, Point
from dtms_service.journal import JOURNAL_NAME
from dtms_service.service import SERVING, paper_account
from dtms_service.settings import configuration
from dtms_service.shadow.store import SHADOW_FOLDER, ShadowStore
from dtms_service.stage import Stage
from tests import wire
from tests.conftest import REPO
from tests.paper_terminal import PORT, Serving
from tests.paper_terminal import serving as terminal_serving
from tests.process.service_process import Process
from tests.stack import EXIT_MANAGER, SLOW_S, SYMBOL, T0_MSC, WARM_BARS, running, stop_at
from tests.unit.paper_world import CONFIG, SPEC, TRADING

T = TypeVar("T")

KILLED = -9
PATIENCE_S = 40.0
DEATH_S = 10.0
"""For what a test waits, and how much longer for each death that may come in between: a restart on a busy machine,
and a gateway's pauses."""
AGAIN_S = 0.02
FEED_S = 0.1
WARM_MSC = T0_MSC - WARM_BARS * SLOW_S * 1000
SL, TP = 1.0951, 1.1101
NOBODYS = 999_999
KNOCK_S = 0.005
AT_ONCE = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 20),
)
"""A channel that tries again and again."""
OFTEN = {"DTMS_JOURNAL__SNAPSHOT_EVERY_EVENTS": "25", "DTMS_JOURNAL__KEEP_EVENTS": "10"}
"""Snapshots and compaction within a test."""


@dataclass(frozen=True, slots=True)
class Death:
    """At the n-th passage of a point in the life of a process."""

    point: Point
    passage: int = 1

    def __str__(self) -> str:
        return f"{self.point}:{self.passage}"


@dataclass(slots=True)
class Kept:
    """A command that is started again whenever a death has ended it. ``fired`` are those that did."""

    command: tuple[str, ...]
    env: dict[str, str]
    deaths: deque[Death]
    fired: list[Death] = field(default_factory=list)
    process: Process | None = None
    reborn: Callable[[Process], None] = lambda _process: None
    died: Callable[[], None] = lambda: None
    failed: str = ""
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            armed = {KILL_VARIABLE: str(self.deaths[0])} if self.deaths else {}
            self.process = await Process.start(*self.command, env=self.env | armed)
            if self.fired:
                self.reborn(self.process)
            code = await self.process.process.wait()
            await self.process.ended()
            if code != KILLED or not armed:
                self.failed = f"{self.command[0]} ended with {code}: {self.process.text()[-3000:]}"
                return
            self.fired.append(self.deaths.popleft())
            self.died()

    def raise_if_failed(self) -> None:
        if self.failed:
            raise AssertionError(self.failed)

    async def stop(self) -> None:
        """In good order, which is a way to a checkpoint. Returns when it is gone, or has died on the way."""
        process = self.process
        assert process is not None
        await process.until(lambda: any(line.startswith(SERVING) for line in process.said))
        await process.terminate()

    async def kill(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self.process is not None:
            await self.process.kill()


class Account(Protocol):
    """The broker's side."""

    async def warm_up(self) -> None:
        """ATR(slow) is 0.001, nothing is broken."""

    async def price(self, bid: float) -> None:
        """The price, which the service knows then."""

    async def buy(self) -> Any:
        """A lot at 1.1001 with SL and TP, as somebody opens it by hand; the position."""

    async def held(self) -> dict[int, float]:
        """Volumes by ticket, as the broker itself has them."""


@dataclass(slots=True)
class Terminal:
    """Implements :class:`Account` over the terminal of a gateway."""

    serving: Serving
    desk: Crashing

    async def warm_up(self) -> None:
        """Nothing to do: the gateway brings the bars of :meth:`past`."""

    def past(self) -> None:
        """What happened at the broker before anybody looked."""
        for start_msc in range(WARM_MSC, T0_MSC, SLOW_S * 1000):
            for number, bid in enumerate((1.1, 1.1005, 1.0995, 1.1)):
                self.serving.broker.on_tick(SYMBOL, start_msc + number, bid, round(bid + 0.0001, 5))

    async def price(self, bid: float) -> None:
        self.tick(bid)
        async with asyncio.timeout(self.desk.patience_s):
            async for item in self.desk.client("viewer").watch_quotes(symbols=[SYMBOL]):
                if isinstance(item, Quotes) and any(quote.bid == bid for quote in item.quotes):
                    return

    def tick(self, bid: float) -> None:
        with self.serving.lock:
            broker = self.serving.broker
            broker.on_tick(SYMBOL, max(broker.now_msc, T0_MSC) + 1000, bid, round(bid + 0.0001, 5))

    async def buy(self) -> Any:
        with self.serving.lock:
            broker = self.serving.broker
            opened = broker.order_send({"action": 1, "symbol": SYMBOL, "type": 0, "volume": 1.0, "sl": SL, "tp": TP})
            return broker.position(opened.order)

    async def close(self, ticket: int) -> None:
        """By hand."""
        with self.serving.lock:
            broker = self.serving.broker
            volume = broker.book.positions[ticket].volume
            order = {"action": 1, "symbol": SYMBOL, "type": 1, "volume": volume, "position": ticket}
            assert broker.order_send(order).deal

    async def held(self) -> dict[int, float]:
        with self.serving.lock:
            return {position.ticket: position.volume for position in self.serving.broker.positions()}


@dataclass(slots=True)
class Embedded:
    """Implements :class:`Account` over the service's own paper account, which goes and comes back with it."""

    desk: Crashing
    bid: float = 1.1
    now_msc: int = T0_MSC
    _told: float = 0.0
    _feeding: asyncio.Task[None] | None = None

    async def warm_up(self) -> None:
        feed = self.desk.client("feed")
        bars = [
            Bar(time_s=start_msc // 1000, open=1.1, high=1.1005, low=1.0995, close=1.1, volume=100)
            for start_msc in range(WARM_MSC, T0_MSC, SLOW_S * 1000)
        ]
        request = StreamBarsRequest(symbol=SYMBOL, timeframe_s=SLOW_S, bars=bars)
        await self.desk.sure(lambda: wire.exchange(feed.channel, [request], metadata=feed.metadata))

    async def price(self, bid: float) -> None:
        self.bid = bid
        if self._feeding is None:
            self._feeding = asyncio.create_task(self._feed())
            self.desk.exits.callback(self._feeding.cancel)
        await self.desk.until(lambda: self._told == bid)

    async def _feed(self) -> None:
        """The price again and again: a service that comes back knows none."""
        feed = self.desk.client("feed")
        while True:
            bid, self.now_msc = self.bid, self.now_msc + 100
            tick = Tick(time_msc=self.now_msc, bid=bid, ask=round(bid + 0.0001, 5))
            request = StreamTicksRequest(symbol=SYMBOL, ticks=[tick])
            with suppress(*OUTAGE, Cancelled):
                await wire.exchange(feed.channel, [request], metadata=feed.metadata)
                self._told = bid
            await asyncio.sleep(FEED_S)

    async def buy(self) -> Any:
        feed, before = self.desk.client("feed"), set(await self.held())
        request = OpenPositionRequest(symbol=SYMBOL, side=trade_pb2.SIDE_BUY, volume=1.0, sl=SL, tp=TP)

        async def once() -> Any:
            held = {position.ticket: position for position in await feed.list_positions()}
            if new := set(held) - before:
                return held[new.pop()]
            return (await wire.call(feed.channel, request, metadata=feed.metadata, timeout_s=5)).position

        async with asyncio.timeout(self.desk.patience_s):
            while True:
                held = await self.desk.sure(once)
                if held.ticket:
                    return held
                await asyncio.sleep(AGAIN_S)  # refused: a service that has come back knows no price yet

    async def held(self) -> dict[int, float]:
        positions = await self.desk.sure(lambda: self.desk.client("feed").list_positions())
        return {position.ticket: position.volume for position in positions}


class Crashing:
    """Made by :func:`embedded` or :func:`behind_a_gateway`."""

    def __init__(self, folder: Path, exits: AsyncExitStack) -> None:
        self.data_dir, self.exits = folder / "data", exits
        self.broker_log = folder / "broker.jsonl"  # of the embedded account
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.account: Account
        self.kept: list[Kept] = []
        self._clients: dict[str, AsyncClient] = {}
        # What a service that died has left behind, and who knocks at the one that starts after it.
        self.left: list[Path] = []
        self.refused = 0
        self.seen = 0  # the newest event that a watcher was shown
        self._beside: list[asyncio.Task[None]] = []

    def keep(self, *command: str | Path, deaths: Sequence[Death], env: dict[str, str]) -> Kept:
        kept = Kept(tuple(map(str, command)), env, deque(deaths))
        self.kept.append(kept)
        self.exits.push_async_callback(kept.kill)
        kept.start()
        return kept

    def keep_service(self, *arguments: str | Path, deaths: Sequence[Death], told: str = "") -> Kept:
        """``told`` is a URL that gets notifications."""
        port = self.address.rpartition(":")[2]
        where = ("serve", "--data-dir", self.data_dir, "--port", port)
        kept = self.keep(
            *where,
            *arguments,
            deaths=deaths,
            env=OFTEN
            | {"DTMS_ENGINE__LEASE_TTL_MS": "600000", "DTMS_RECONCILIATION__SETTLE_MS": "500"}
            | ({"DTMS_NOTIFICATIONS__URLS": told, "DTMS_NOTIFICATIONS__DEDUPE_S": "0"} if told else {}),
        )
        kept.reborn, kept.died = self._knock, self._leave
        return kept

    async def watch(self) -> None:
        """Somebody follows everything, over all deaths (I15, I16): each event once and in order, none left out unless
        it is said that the journal was compacted meanwhile."""
        async for item in self.client("viewer").watch(start_revision=1, progress_interval_ms=1000):
            if isinstance(item, Relisted):
                self.seen = item.revision
            elif isinstance(item, Event):
                assert item.revision == self.seen + 1
                self.seen = item.revision

    async def watch_prices(self) -> None:
        """Somebody is told of prices and bars, over all deaths."""

        async def follow(items: AsyncIterator[Any]) -> None:
            async for _ in items:
                pass

        viewer = self.client("viewer")
        await asyncio.gather(follow(viewer.watch_quotes()), follow(viewer.watch_bars(timeframes_s=[SLOW_S])))

    def _leave(self) -> None:
        folder = self.data_dir.with_name(f"left-{len(self.left)}")
        shutil.copytree(self.data_dir, folder)
        self.left.append(folder)

    def _knock(self, process: Process) -> None:
        """Somebody wants to change something from the first moment at which the port answers (I22)."""
        self.beside(self._write_until_decided(process))

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Goes on for as long as the desk, and fails it."""
        task = asyncio.create_task(work)
        self._beside.append(task)
        self.exits.callback(task.cancel)

    async def _write_until_decided(self, process: Process) -> None:
        """Asks for a change of a trade that is not there. Before the comparison has ended each answer is RECOVERING
        and health NOT_SERVING; the first decision stands behind the end of the comparison in the journal."""
        await self.until(lambda: EXIT_MANAGER in self._clients)
        metadata = self.client(EXIT_MANAGER).metadata
        request = ProposeRequest(request_id=f"knock {process.pid}", ticket=NOBODYS, action=stop_at(SL))
        async with grpc.aio.insecure_channel(self.address, options=AT_ONCE) as channel:
            health, before = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckResponse.UNKNOWN
            while process.process.returncode is None:
                try:
                    before = (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status
                    answer = await wire.call(channel, request, metadata=metadata, timeout_s=5)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(KNOCK_S)
                except (*OUTAGE, Cancelled) as error:
                    if error.reason == "RECOVERING" and process.process.returncode is None:
                        assert before == health_pb2.HealthCheckResponse.NOT_SERVING
                        self.refused += 1
                    await asyncio.sleep(KNOCK_S)
                else:
                    compared = await process.until(
                        lambda: next((line for line in process.log if line.get("stage") == "SERVING"), None)
                    )
                    assert answer.decision.revision > compared["revision"]
                    return

    def token(self, name: str) -> Path:
        return token_path(self.data_dir / CREDENTIALS_FOLDER, name)

    def client(self, name: str) -> AsyncClient:
        return self._clients[name]

    async def connect(self, *names: str) -> None:
        """Clients, as soon as their tokens are there."""
        for name in names:
            await self.until(self.token(name).exists)
            client = AsyncClient(self.address, token_file=self.token(name))
            self._clients[name] = await self.exits.enter_async_context(client)

    @property
    def to_come(self) -> list[Death]:
        return [death for kept in self.kept for death in kept.deaths]

    @property
    def fired(self) -> list[str]:
        return [str(death) for kept in self.kept for death in kept.fired]

    @property
    def patience_s(self) -> float:
        return PATIENCE_S + DEATH_S * len(self.to_come)

    async def sure(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, however often the question is lost."""
        async with asyncio.timeout(self.patience_s):
            while True:
                self._raise_if_failed()
                try:
                    return await ask()
                except (*OUTAGE, Cancelled, FailedPrecondition, NotFound):
                    await asyncio.sleep(AGAIN_S)

    async def until(self, found: Callable[[], Any]) -> None:
        """What happens in other processes tells nobody."""
        async with asyncio.timeout(self.patience_s):
            while not found():
                self._raise_if_failed()
                await asyncio.sleep(AGAIN_S)

    async def fired_next(self, kept: Kept) -> None:
        """The death that is next has come."""
        before = len(kept.fired)
        await self.until(lambda: len(kept.fired) > before)

    async def trade(self, ticket: int) -> trade_pb2.Trade:
        return await self.sure(lambda: self.client("viewer").get_trade(ticket))

    async def trade_once(self, ticket: int, wanted: Callable[[trade_pb2.Trade], Any]) -> trade_pb2.Trade:
        """The trade, once it is so."""
        for _ in range(round(self.patience_s / AGAIN_S)):
            if wanted(trade := await self.trade(ticket)):
                return trade
            await asyncio.sleep(AGAIN_S)
        words = "\n".join(kept.process.text()[-20000:] for kept in self.kept if kept.process is not None)
        raise AssertionError(f"never became so after {self.fired}: {await self.trade(ticket)}\n{words}")

    async def end(self) -> None:
        """Nothing serves any more."""
        for kept in self.kept:
            await kept.kill()

    def _raise_if_failed(self) -> None:
        for kept in self.kept:
            kept.raise_if_failed()
        for task in self._beside:
            if task.done() and not task.cancelled():
                task.result()


@asynccontextmanager
async def embedded(folder: Path, deaths: Sequence[Death], told: str = "") -> AsyncIterator[Crashing]:
    """A service with the play-money account."""
    async with AsyncExitStack() as exits:
        desk = Crashing(folder, exits)
        desk.account = Embedded(desk)
        desk.keep_service("--paper", "--broker-log", desk.broker_log, deaths=deaths, told=told)
        await desk.connect("feed", "viewer", "operator", "intelligent_exit_manager")
        yield desk


@asynccontextmanager
async def behind_a_gateway(
    folder: Path, *, service: Sequence[Death], gateway: Sequence[Death], mode: Sequence[str] = ()
) -> AsyncIterator[tuple[Crashing, PaperBroker]]:
    """A service and `dtms gateway --broker mt5`, each with its deaths; the terminal outlives both.

    ``mode`` are arguments of the service.
    """
    broker = PaperBroker(replace(CONFIG, balance=1_000_000.0))
    broker.add_symbol(SPEC, TRADING)
    async with AsyncExitStack() as exits:
        terminal = exits.enter_context(terminal_serving(broker))
        desk = Crashing(folder, exits)
        desk.account = account = Terminal(terminal, desk)
        account.past()
        account.tick(1.1)
        desk.keep_service(*mode, deaths=service)
        await desk.connect("feed", "viewer", "operator", "intelligent_exit_manager")
        await desk.until(desk.token("gateway").exists)
        desk.keep(
            *("gateway", "--broker", "mt5", "--service", desk.address, "--token-file", desk.token("gateway")),
            *("--account", CONFIG.account_id, "--mt5-module", "tests.paper_terminal", "--symbol", SYMBOL),
            *("--server-utc-offset-s", "0", "--out", folder / "gateway"),
            deaths=gateway,
            env={PORT: terminal.port, "PYTHONPATH": str(REPO)},
        )
        yield desk, broker


async def recover_twice(left: Path, broker: PaperBroker | None) -> None:
    """I24: what a service that died has left is recovered, and once more: the second time adds not a byte.

    Against ``broker`` as it is now, or the books that lie there too.
    """

    async def recovered() -> list[tuple[int, bytes, bytes]]:
        async with running(left, attach=broker is None) as stack:
            if broker is not None:
                account_id = broker.config.account_id
                await stack.system.attach(account_id, PaperDoor({account_id: broker}), [SYMBOL])
            assert stack.system.stage is Stage.SERVING
            revision = stack.system.desk.engine.revision
        with closing(sqlite3.connect(left / JOURNAL_NAME)) as journal:
            return journal.execute("SELECT * FROM event WHERE revision <= ? ORDER BY revision", (revision,)).fetchall()

    first = await recovered()
    assert first
    assert await recovered() == first


def books_of(data_dir: Path) -> PaperBroker:
    """The embedded account as it was left on disk."""
    config = configuration(None, paper=True, given={"data_dir": data_dir})
    assert config.paper is not None
    account = paper_account(config, config.paper)
    try:
        return account.broker
    finally:
        account.close()


def shadow_books_of(data_dir: Path) -> PaperBroker:
    """The books of the one account's shadow as they were left on disk."""
    (path,) = (data_dir / SHADOW_FOLDER).glob("*.db")
    store = ShadowStore.open(path)
    store.release()
    return store.book


def deals_of(broker: PaperBroker) -> list[tuple[str, float, float]]:
    """(entry, lots, what is left) of every deal on the account, in order."""
    ledger = broker.book.ledger
    return [(DealEntry(deal.entry).name, deal.volume, deal.remaining) for deal in ledger.deals if deal.position]


__all__ = [
    "SERVING",
    "Crashing",
    "Death",
    "PaperStore",
    "behind_a_gateway",
    "books_of",
    "deals_of",
    "embedded",
    "recover_twice",
    "shadow_books_of",
]
