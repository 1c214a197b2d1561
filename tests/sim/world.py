"""A whole DTMS in one thread: service, gateway, terminal, broker, three managers, hands, watchers, a market.

All of it is the real code but for three things: time is virtual, the wire is memory (network.py), and the journal's
thread and the terminal's are turns of the loop (disk.py, terminal.py). One seed decides everything that is by chance.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final

import structlog

from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import Bar, StreamBarsRequest
from dtms.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.score_pb2 import Score
from dtms.v1.trade_pb2 import SIDE_BUY, SIDE_SELL
from dtms.v1.trade_status_service_pb2 import WatchFilter
from dtms_client import AsyncClient, _alarm
from dtms_client.errors import DtmsError as ClientError
from dtms_client.exit_manager.brain import ExitManager
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.exit_manager.vix import VixSources
from dtms_client.managing.live import Live as ManagerLive
from dtms_client.managing.state_source import Limits
from dtms_client.universal_manager.brain import UniversalManager
from dtms_service import clock, server, symbols
from dtms_service.broker.door import Position, Side
from dtms_service.broker.fence import Fence
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_session import Login
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_config import PaperConfig, Slippage, SlippageModel
from dtms_service.broker.paper_symbols import list_symbols
from dtms_service.broker.recorded import RecordedBroker
from dtms_service.broker.server_time import ServerTime
from dtms_service.config import Config
from dtms_service.credentials import BUILT_IN_IDENTITIES, Credentials, Principal, Role
from dtms_service.fault_points import Point
from dtms_service.gateway.live import POLL_S, Live
from dtms_service.interceptors import ACCESS, Pipeline
from dtms_service.reload import Reload
from dtms_service.settings import configuration
from dtms_service.stage import Stage
from dtms_service.system import System
from tests.checker.evidence import DONE
from tests.sim.disk import Disk, VirtualCommitQueue
from tests.sim.model import Model
from tests.sim.network import Link, Network, SimTarget, token_of
from tests.sim.terminal import Lies, LyingMt5, MarkedDoor, MemoryLog, VirtualOwner
from tests.sim.virtual_loop import HOST, Host, VirtualLoop
from tests.sim.witness import Witness

ACCOUNT: Final = "7001@Paper"
SYMBOLS: Final = ("EURUSD", "GBPUSD")
FIRST_BID: Final = {"EURUSD": 1.1, "GBPUSD": 1.3}
WALL0_NS: Final = 1_700_000_000_000_000_000 - 1_700_000_000_000_000_000 % 900_000_000_000
BOT: Final = "strategy_bot"
ENTRY_MAGIC: Final = 77
WARM_BARS: Final = 40  # more than ATR and the regime need
PRICE_S: Final = 0.5  # between two prices of a symbol
STORM_S: Final = 60.0
SLOW_MARKS_MS: Final = 2_500
GRACE_S: Final = 9.0  # after trouble: back-off is 5 s at most, a dead stream is noticed after 3 s of silence
COMPARED_S: Final = 5.0  # an attachment is told so long after it has read the positions, at most
SETTLE_S: Final = 240.0  # a refused close is tried again after a minute at most
STRATEGIES: Final = ("", "", "trend_continuation_pullback", "default_standard", "liquidity_sweep_reversal")

SETTINGS: Final[dict[str, object]] = {
    "managers": {BOT: "PROFIT_PROTECTION"},
    "engine.fast_s": 5,
    "engine.slow_s": 15,
    "engine.hold_s": 3,
    "engine.arm_after_s": 5,
    "engine.lease_ttl_ms": 6_000,
    "engine.stale_after_s": 20,
    "engine.hedge_pause_slow_bars": 1,
    "engine.recovery_timer_slow_bars": 1,
    "event_log.capacity": 256,
    "journal.snapshot_every_events": 400,
    "rails.daily_loss_percent": 20.0,
    "rails.hourly_loss_percent": 20.0,
    "rails.consecutive_stops": 0,
}

PAPER: Final = PaperConfig(
    account_id=ACCOUNT,
    hedging=True,
    hedge_prohibited=False,
    fifo_close=False,
    currency="USD",
    currency_digits=2,
    leverage=100,
    balance=1_000_000.0,
    margin_call_percent=100.0,
    stop_out_percent=50.0,
    commission_per_lot_side=0.0,
    conversion_rates={},
    limit_positions=0,
    requests_per_second=0,
    slippage=Slippage(SlippageModel.NONE, 0),
    first_order=1_001,
    first_deal=5_001,
    server_utc_offset_s=0,
)


class Died(BaseException):
    """This process was killed right here: nothing of it goes on."""


@dataclass(slots=True)
class Trouble:
    """A fault at work on these hosts, and in its wake until ``over_s``."""

    name: str
    hosts: frozenset[str]
    begun_s: float
    ended_s: float = float("inf")

    @property
    def over_s(self) -> float:
        return self.ended_s + GRACE_S


def credentials() -> Credentials:
    """Every identity of the world."""
    identities = {**BUILT_IN_IDENTITIES, BOT: Role.MANAGER, "entry": Role.FEED, "viewer_of_lists": Role.VIEWER}
    return Credentials(
        {hashlib.sha256(token_of(name).encode()).digest(): Principal(name, role) for name, role in identities.items()}
    )


@dataclass
class World:
    """``random`` is the only source of chance. Prices, hands and the broker belong to no host: they never fail."""

    seed: int
    root: Path
    settings: dict[str, object] = field(default_factory=dict)
    storm_s: float = STORM_S

    def __post_init__(self) -> None:
        self.loop = VirtualLoop()
        self.random = Random(self.seed)
        self.witness = Witness(self.loop.time)
        self.network = Network(self.loop, self.witness)
        self.network.world = self  # for planted bugs, which reach for anything
        self.disk = Disk(self.root, self._part(), self.witness)
        self.config: Config = configuration(
            None, paper=False, given={"data_dir": self.disk.folder, **SETTINGS, **self.settings}
        )
        self.broker: PaperBroker = RecordedBroker(PAPER, MemoryLog(self.witness.told))
        list_symbols(self.broker, [symbols.load(name, {}).spec for name in SYMBOLS])
        self.lies = Lies()
        self.hosts: dict[str, Host] = {}
        self.links: dict[str, Link] = {}
        self.clients: dict[str, AsyncClient] = {}
        self.system: System | None = None
        self.door: MarkedDoor | None = None
        self.storming = True
        self.is_starting = False
        self.spread = 1.0
        self.drift = 0.0
        self.market_open = True
        self.odd_prices = False
        self.score: float | None = None
        self.registered: set[int] = set()
        self.watched: dict[str, list[Any]] = {}
        self.account_id = ACCOUNT
        self.held_at: dict[int, frozenset[int]] = {}
        self.last_held: list[Position] = []
        self.last_revision = 0
        self.is_serving_at_the_end = False
        self.deadly: tuple[Point, int] | None = None
        self.watched_from: dict[str, int] = {}
        self.wanted: dict[str, WatchFilter] = {}
        self.slow: set[str] = set()
        self.model = Model()
        self.witness.on_event.append(self.model.take)
        self.ended_s = 0.0
        self.recoveries: list[list[Event]] = []
        self.compacted_answers: list[tuple[str, str]] = []
        self.troubles: list[Trouble] = []
        self.witness.on_event.append(self._look_at_broker)
        self._bids = dict(FIRST_BID)
        self._trend = dict.fromkeys(SYMBOLS, 0.0)
        self._ids = self._part()

    def _part(self) -> Random:
        """Chance of its own for a part of the world, so that one part's questions do not change another's luck."""
        return Random(self.random.getrandbits(64))

    def _look_at_broker(self, event: Event) -> None:
        if event.HasField("state_confirmed"):
            self.held_at[event.revision] = frozenset(self.broker.book.positions)

    def on_point(self, point: Point) -> None:
        """A process has reached a fault point; it may be the one that it dies at."""
        host = HOST.get()
        if self.deadly is None or host is None or host.dead or point is not self.deadly[0]:
            return
        wanted, passages = self.deadly
        if passages > 1:
            self.deadly = wanted, passages - 1
            return
        self.deadly = None
        self.witness.mark(f"dies at {point}")
        if host is self.hosts["service"]:
            self.kill_service(torn=False)
        else:
            self.kill_gateway()
        raise Died

    # ---- trouble

    @contextmanager
    def trouble(self, name: str, *hosts: str) -> Iterator[None]:
        """While a fault lasts: what is promised in no trouble is not asked of these hosts."""
        trouble = Trouble(name, frozenset(hosts), self.loop.time())
        self.troubles.append(trouble)
        self.witness.mark(f"fault {name} begins", hosts=sorted(hosts))
        try:
            yield
        finally:
            trouble.ended_s = self.loop.time()
            self.witness.mark(f"fault {name} ends")

    def is_quiet(self, begun_s: float, ended_s: float, *hosts: str) -> bool:
        """Whether nothing troubled the service, its broker, or these hosts, then and a while before."""
        near = {"service", "gateway", "broker", *hosts}
        if any(each.hosts & near and each.begun_s <= ended_s and begun_s <= each.over_s for each in self.troubles):
            return False
        return any(begun + GRACE_S <= begun_s and ended_s <= ended for begun, ended in self.serving_intervals())

    def was_troubled(self, begun_s: float, ended_s: float, *names: str) -> bool:
        """Whether one of these faults was at work then."""
        return any(each.name in names and each.begun_s <= ended_s and begun_s <= each.ended_s for each in self.troubles)

    def serving_intervals(self) -> list[tuple[float, float]]:
        """From when to when there was a service that served."""
        found: list[tuple[float, float]] = []
        since: float | None = None
        for mark in self.witness.marks:
            serves = mark.what == "stage" and mark.facts["stage"] == "SERVING"
            if serves and since is None:
                since = mark.at_s
            elif since is not None and (mark.what in {"service killed", "service failed"} or mark.what == "stage"):
                found.append((since, mark.at_s))
                since = None
        return [*found, (since, float("inf"))] if since is not None else found

    @property
    def last_attached_msc(self) -> int:
        """Before this moment (ms UTC) every position was seen by the last comparison."""
        at_s = max((mark.at_s for mark in self.witness.marks if mark.what == "attached"), default=0.0)
        return self.msc_at(at_s - COMPARED_S)

    def side_of(self, ticket: int) -> str | None:
        """The side of the deal that opened a position, as the broker logged it."""
        for line in self.witness.broker:
            if line["event"] == "request" and line.get("order") == ticket and not line["position"]:
                return str(line["side"])
        return None

    def was_held(self, ticket: int, event: Event) -> bool:
        """The broker had this position when the event was confirmed, or right before."""
        at_s = self.witness.durable_s.get(event.revision, 0.0)
        if ticket in self.held_at.get(event.revision, ()):
            return True
        gone = [
            line["at_s"]
            for line in self.witness.broker
            if line["position"] == ticket and (line["event"] == "deal" or line["retcode"] in DONE)
        ]
        return bool(gone) and gone[-1] > at_s - GRACE_S

    # ---- hosts

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Host:
        """A process by that name, in place of the one before."""
        host = self.hosts[name] = Host(name)
        if name in self.links:
            self.links[name].host = host
        self.loop.spawn(host, self._guarded(name, work()), name)
        return host

    async def _guarded(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  a process that ends by an error is a finding
            self.witness.breach("host", f"{name} ended: {type(error).__name__}: {error}")

    def link(self, name: str) -> Link:
        if name not in self.links:
            self.links[name] = Link(self.hosts[name], self._part(), self.loop)
        return self.links[name]

    def client(self, name: str) -> AsyncClient:
        """A fresh client of the host of that name, which is its identity too."""
        client = AsyncClient("127.0.0.1:1", token=token_of(name))
        client._target = SimTarget(self.network, self.link(name), name)
        self.clients[name] = client
        return client

    # ---- the service

    def start_service(self) -> None:
        self.start("service", self._serve)

    async def _serve(self) -> None:
        host = self.hosts["service"]
        system = await System.open(self._reread(), None, queue=partial(VirtualCommitQueue, self.disk))
        stored = system.journal.read(system.journal.oldest_revision, 1_000_000)
        self.witness.recovered(stored)
        self.witness.mark("service started", revision=system.journal.newest_revision)
        system.on_stage.append(lambda stage: self.witness.mark("stage", stage=stage.name))
        system.reload = Reload(system, self._reread, aside=_at_once)
        services = server._services(system)
        pipeline = Pipeline(credentials(), lambda: system.stage, server._fail(system))
        handlers = [pipeline.handler(descriptor, servicer) for descriptor, servicer in services]
        self.system = system
        self.network.listen(host, handlers, [f"/dtms.v1.{name}" for name in ACCESS])
        try:
            await system.failed
        except Exception as error:  # noqa: BLE001  the process ends, its supervisor starts it again
            self.witness.mark("service failed", why=f"{type(error).__name__}: {error}")
            self.loop.spawn(None, self._start_again())

    def _reread(self) -> Config:
        return self.config.model_copy(update={"data_dir": self.disk.folder})

    async def _start_again(self) -> None:
        self.kill_service(torn=False)
        await self.start_service_after(1.0)

    async def start_service_after(self, seconds: float) -> None:
        """As a supervisor does: one at a time."""
        if not self.is_starting:
            self.is_starting = True
            # Whoever waits for it may be called off: it starts all the same.
            await asyncio.shield(self.loop.spawn(None, self._start_later(seconds)))

    async def _start_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.is_starting = False
        if self.system is None:
            self.start_service()

    def kill_service(self, *, torn: bool) -> None:
        """kill -9, or a power cut: what is not on the disk is gone."""
        self.witness.mark("service killed", torn=torn)
        self.loop.kill(self.hosts["service"])
        self.network.refuse()
        system, self.system = self.system, None
        if system is None:
            return
        self.disk.cut(torn=torn)
        system.journal._connection.close()
        system.journal._lock.release()
        if system.bar_store is not None:
            system.bar_store.close()

    async def restart_service(self) -> None:
        """SIGTERM, and a new start."""
        system = self.system
        if system is None:
            return
        self.witness.mark("service draining")
        done = self.loop.spawn(self.hosts["service"], self._drain(system), "drain")
        await asyncio.wait([done], timeout=20.0)
        if self.system is not system:
            return  # it failed meanwhile, and was started again
        self.kill_service(torn=False)
        await self.start_service_after(0.2)

    @staticmethod
    async def _drain(system: System) -> None:
        system.begin_drain("reload")
        await system.executor.finish(5.0)
        await system.close()

    @property
    def is_serving(self) -> bool:
        return self.system is not None and self.system.stage is Stage.SERVING and not self.hosts["service"].frozen

    # ---- the gateway

    def start_gateway(self) -> None:
        self.start("gateway", self._lend)

    def kill_gateway(self) -> None:
        self.witness.mark("gateway killed")
        self.loop.kill(self.hosts["gateway"])
        self.link("gateway").reset("gateway killed")
        self.door = None

    async def _lend(self) -> None:
        folder = self.root / "gateway"
        folder.mkdir(exist_ok=True)
        door = MarkedDoor(
            lambda: LyingMt5(self.broker, self.lies),
            Login(ACCOUNT),
            time=ServerTime(None, [(0, 0)]),
            fence=Fence(folder / "fence.db"),
            now_msc=lambda: self.wall_ns() // 1_000_000,
            thread=partial(_owner, lambda: self.lies.slow_s),  # type: ignore[arg-type]
        )
        self.door = door

        async def pause(seconds: float) -> None:
            await asyncio.sleep(PRICE_S if seconds == POLL_S else seconds)

        target = SimTarget(self.network, self.link("gateway"), "gateway")
        while True:
            try:
                await Live(door, target, ACCOUNT, SYMBOLS, pause=pause).run()
            except ClientError as refused:
                # The service may hold the stream of the gateway before it still. The process ends, and its
                # supervisor starts it again.
                self.witness.mark("gateway refused", why=str(refused))
                await asyncio.sleep(1.0)

    # ---- managers

    def start_exit_manager(self) -> None:
        brain = ExitManager(RuleBook(default=ExitRules()), name="intelligent_exit_manager", vix=VixSources())
        self.start("intelligent_exit_manager", lambda: self._manage("intelligent_exit_manager", brain))

    def start_universal(self) -> None:
        self.start("universal_sl_tp_manager", lambda: self._manage("universal_sl_tp_manager", UniversalManager()))

    async def _manage(self, name: str, brain: Any) -> None:
        async with self.client(name) as client:
            live = ManagerLive(client, brain, monotonic=self.loop.time, now_ns=self.wall_ns, limits=Limits())
            await live.run()

    # ---- market and hands: of no host

    async def _market(self) -> None:
        chance = self._part()
        while True:
            for symbol in SYMBOLS:
                if self.market_open:
                    self._price(symbol, chance)
            await asyncio.sleep(PRICE_S)

    def _price(self, symbol: str, chance: Random) -> None:
        if chance.random() < 0.05:
            self._trend[symbol] = chance.uniform(-0.00012, 0.00012)
        if not self.storming:
            self._trend[symbol] *= 0.9
        noise = chance.gauss(0, 0.00008 if self.storming else 0.00001)
        self._bids[symbol] = max(self._bids[symbol] + self._trend[symbol] + self.drift + noise, 0.5)
        self.quote(symbol, self._bids[symbol])

    def quote(self, symbol: str, bid: float) -> None:
        """A price at the broker now; stops and targets trigger."""
        bid = round(bid, 5)
        self._bids[symbol] = bid
        ask = round(bid + 0.0001 * self.spread, 5)
        now_msc = max(self.broker.now_msc, self.now_msc())
        made = self.broker.on_tick(symbol, now_msc, bid, ask)
        for deal in made:
            log: MemoryLog = self.broker._log  # type: ignore[attr-defined]
            log.deals([deal])

    def bid(self, symbol: str) -> float:
        return self._bids[symbol]

    async def _enter(self) -> None:
        """An expert advisor in the terminal opens, an entry bot registers; now and then nobody registers it."""
        chance, client = self._part(), self.client("entry")
        hand = ForeignActor(self.broker)
        while self.storming:
            if len(self.broker.book.positions) < 8 and self.market_open:
                symbol = chance.choice(SYMBOLS)
                side = chance.choice((Side.BUY, Side.SELL))
                sign = 1 if side is Side.BUY else -1
                bid = self._bids[symbol]
                risk = chance.choice((0.0015, 0.003, 0.005))
                result = hand.open(
                    symbol,
                    side,
                    chance.choice((0.02, 0.1, 1.0)),
                    0.0 if chance.random() < 0.1 else round(bid - sign * risk, 5),
                    0.0 if chance.random() < 0.2 else round(bid + sign * 2 * risk, 5),
                )
                if result.retcode == 10009 and chance.random() < 0.9:
                    self.loop.spawn(
                        self.hosts["entry"], self._register(client, result.order, chance.choice(STRATEGIES))
                    )
            await asyncio.sleep(chance.uniform(1, 8))

    async def _register(self, client: AsyncClient, ticket: int, strategy: str) -> None:
        held = self.broker.position(ticket)
        if held is None:
            return
        body = Registration(
            account_id=ACCOUNT,
            ticket=ticket,
            symbol=held.symbol,
            side=SIDE_BUY if held.side is Side.BUY else SIDE_SELL,
            entry_price=held.price_open,
            volume=held.volume,
            sl=held.sl,
            tp=held.tp,
            strategy_type=strategy,
            opened_ns=held.time_msc * 1_000_000,
        )
        for _ in range(3):
            try:
                await client.register_trade(body)
            except ClientError as error:
                if error.reason in {"FIELD_INVALID", "TRADE_DIFFERS"}:
                    return
                await asyncio.sleep(1.0)
            else:
                self.registered.add(ticket)
                return

    async def _score(self) -> None:
        """An outside scorer: calm, bad, worse, and back."""
        chance, client = self._part(), self.client("feed")
        level = 1.0
        while True:
            if chance.random() < 0.35:
                level = chance.choice((2.0, 1.5, 0.5, -1.0, -2.5, -4.5, -5.0, -7.0, -9.0))
            for symbol in SYMBOLS:
                total = self.score if self.score is not None else level * chance.choice((1, 1, -1))
                try:
                    await client.report_score(
                        symbol, Score(total=total if self.storming else 2.0), valid_ms=8_000, account_id=ACCOUNT
                    )
                except ClientError:
                    await asyncio.sleep(0.5)
            await asyncio.sleep(chance.uniform(1.0, 4.0))

    def watch_as_viewer(
        self, name: str, start_revision: int, wanted: WatchFilter, slow_s: float
    ) -> Coroutine[Any, Any, None]:
        """One more stream of the viewer's, noted under a name of its own; it may rest after each item."""
        client, seen = self.clients["viewer"], self.watched.setdefault(name, [])
        self.watched_from[name], self.wanted[name] = start_revision, wanted
        if slow_s:
            self.slow.add(name)

        async def watch() -> None:
            # Who reads slowly has no right to marks in time, and is known by this interval.
            interval_ms = SLOW_MARKS_MS if slow_s else 1_000 * (1 + len(self.watched) % 2)
            async for item in client.watch(
                start_revision=start_revision, watch_filter=wanted, progress_interval_ms=interval_ms
            ):
                seen.append((self.loop.time(), item))
                if slow_s and self.storming:
                    await asyncio.sleep(slow_s)

        return watch()

    async def _watch(self, name: str, start_revision: int) -> None:
        """A viewer that wants everything, for ever."""
        seen = self.watched.setdefault(name, [])
        self.watched_from[name] = start_revision
        async with self.client(name) as client:
            async for item in client.watch(
                start_revision=start_revision, snapshot=not start_revision, progress_interval_ms=1_000
            ):
                seen.append((self.loop.time(), item))

    # ---- time

    def wall_ns(self) -> int:
        host = HOST.get()
        return self.true_ns() + (host.wall_offset_ns if host is not None else 0)

    def true_ns(self) -> int:
        return WALL0_NS + round(self.loop.time() * 1e9)

    def now_msc(self) -> int:
        return self.true_ns() // 1_000_000

    def msc_at(self, at_s: float) -> int:
        """ms UTC at a moment of the loop's clock."""
        return (WALL0_NS + round(at_s * 1e9)) // 1_000_000

    # ---- the run

    async def begin(self) -> None:
        """Everybody comes up."""
        for symbol in SYMBOLS:
            self.quote(symbol, self._bids[symbol])
        for name in ("entry", "feed", "viewer", "viewer_of_lists", "operator", BOT):
            self.hosts[name] = Host(name)
        self.start_service()
        self.start_gateway()
        self.loop.spawn(None, self._market(), "market")
        await self.until(lambda: self.is_serving, 30.0)
        await self._warm_up()
        self.start_exit_manager()
        self.start_universal()
        self.start("viewer", lambda: self._watch("viewer", 1))
        self.loop.spawn(self.hosts["entry"], self._enter(), "entries")
        self.loop.spawn(self.hosts["feed"], self._score(), "scores")

    async def _warm_up(self) -> None:
        """Closed slow bars up to now: ATR is known, so that hedges can have stops."""
        slow_s = self.config.engine.slow_s
        now_s = self.now_msc() // 1000
        client = self.client("feed")
        for symbol in SYMBOLS:
            bid = self._bids[symbol]
            bars = [
                Bar(time_s=start, open=bid, high=bid + 0.0004, low=bid - 0.0004, close=bid, volume=100)
                for start in range(now_s - now_s % slow_s - WARM_BARS * slow_s, now_s - slow_s, slow_s)
            ]
            call: Any = MarketDataServiceStub(client.channel).StreamBars(metadata=client.metadata)
            await call.write(StreamBarsRequest(account_id=ACCOUNT, symbol=symbol, timeframe_s=slow_s, bars=bars))
            await call.done_writing()
            async for _ in call:
                pass

    async def until(self, fact: Callable[[], bool], within_s: float) -> bool:
        """Whether it became so in time."""
        ends = self.loop.time() + within_s
        while not fact():
            if self.loop.time() >= ends:
                return False
            await asyncio.sleep(0.25)
        return True


async def _at_once(read: Callable[..., Any], *arguments: Any) -> Any:
    return read(*arguments)


def _owner(slowness: Callable[[], tuple[float, float]], name: str, watch: Any) -> VirtualOwner:
    owner = VirtualOwner(name, watch)
    owner.slowness = slowness
    return owner


@contextmanager
def on_virtual_time(world: World) -> Iterator[None]:
    """The machine's clocks and dice are the world's, and nobody logs, for as long as it runs."""

    def monotonic() -> float:
        return world.loop.time()

    machine = SimpleNamespace(
        time_ns=world.wall_ns,
        monotonic_ns=lambda: round(monotonic() * 1e9),
        monotonic=monotonic,
        clock_gettime=lambda _clock: monotonic(),
        CLOCK_BOOTTIME=0,
    )
    ids = world._ids
    clocks: list[Any] = [clock, _alarm]
    before = [module.time for module in clocks]
    make_id, logging = uuid.uuid4, structlog.get_config()
    for module in clocks:
        module.time = machine
    uuid.uuid4 = lambda: uuid.UUID(int=ids.getrandbits(128), version=4)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50), logger_factory=structlog.ReturnLoggerFactory()
    )
    try:
        yield
    finally:
        for module, time in zip(clocks, before, strict=True):
            module.time = time
        uuid.uuid4 = make_id
        structlog.configure(**logging)
