"""The faults of docs/guarantees.md, by number. Each strikes once when asked to, and undoes itself.

A fault works on the world through what a real one would: the wire, a process, a disk, a clock, the terminal, the
broker, the market. ``settings`` are what the service is configured with so that the fault finds something to break.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, Final

from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import Bar, StreamBarsRequest
from dtms.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.trade_pb2 import SIDE_BUY, TradeState
from dtms.v1.trade_status_service_pb2 import WatchFilter, WatchRequest
from dtms.v1.trade_status_service_pb2_grpc import TradeStatusServiceStub
from dtms_client.errors import DtmsError
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_enums import Action as OrderAction
from dtms_service.broker.retcodes import Retcode
from dtms_service.errors import DataDirectoryBusy, JournalDamaged, damage_of
from dtms_service.errors import DtmsError as Refusal
from dtms_service.fault_points import Point
from dtms_service.journal import SqliteJournal
from dtms_service.journal.protocol import no_progress
from dtms_service.system import System
from tests.sim.disk import VirtualCommitQueue
from tests.sim.people import by_hand
from tests.sim.world import ACCOUNT, BOT, SYMBOLS, World

MANAGERS: Final = ("intelligent_exit_manager", "universal_sl_tp_manager", BOT)
CLIENTS: Final = (*MANAGERS, "entry", "feed", "viewer", "operator")
EVERYBODY: Final = (*CLIENTS, "gateway")
HUNDRED: Final = 100
HOUR_NS: Final = 3_600_000_000_000

OF_SERVICE: Final = (
    *(Point.JOURNAL_BEGIN, Point.JOURNAL_INSERTED, Point.JOURNAL_COMMITTED, Point.PUBLISH, Point.PUBLISHED),
    *(Point.SNAPSHOT_WRITE, Point.SNAPSHOT_WRITTEN, Point.COMMAND, Point.MESSAGE_SENT, Point.OUTCOME),
    *(Point.OUTCOME_KEPT, Point.ANSWER),
)
OF_GATEWAY: Final = (
    *(Point.TICKS_SEND, Point.COMMAND_RECEIVED, Point.FENCE_RAISE, Point.FENCE_RAISED, Point.ORDER_SEND),
    *(Point.ORDER_SENT, Point.RESULT_SEND, Point.RESULT_SENT, Point.QUERY_RECEIVED),
)

REFUSALS: Final = (
    Retcode.REQUOTE,
    Retcode.REJECT,
    Retcode.TIMEOUT,
    Retcode.INVALID_STOPS,
    Retcode.MARKET_CLOSED,
    Retcode.NO_MONEY,
    Retcode.PRICE_OFF,
    Retcode.TOO_MANY_REQUESTS,
    Retcode.NO_CHANGES,
    Retcode.CLIENT_DISABLES_AT,
    Retcode.FROZEN,
    Retcode.CONNECTION,
)


class Fault:
    """One of the list. ``number`` and ``name`` are the list's."""

    number: int
    name: str
    settings: dict[str, object] = {}  # noqa: RUF012

    async def strike(self, world: World, chance: Random) -> None:
        """Once; returns when it is over."""
        raise NotImplementedError


class ClientPaused(Fault):
    """A client stands still for longer than its lease, and wakes."""

    number, name = 1, "client paused past its lease"

    async def strike(self, world: World, chance: Random) -> None:
        host = world.hosts[chance.choice(CLIENTS)]
        with world.trouble(self.name, host.name):
            world.loop.freeze(host)
            await asyncio.sleep(chance.uniform(3.0, 12.0))
            world.loop.thaw(host)


class ServicePaused(Fault):
    """The service stands still, and goes on as if nothing had been."""

    number, name = 2, "service paused"

    async def strike(self, world: World, chance: Random) -> None:
        with world.trouble(self.name, "service"):
            host = world.hosts["service"]
            world.loop.freeze(host)
            await asyncio.sleep(chance.uniform(0.5, 8.0))
            world.loop.thaw(host)


class Killed(Fault):
    """kill -9 of the service or the gateway: at any moment, or right after a write, a sync or a send."""

    number, name = 3, "kill -9 at a write, a sync or a send"

    async def strike(self, world: World, chance: Random) -> None:
        with world.trouble(self.name, "service", "gateway"):
            at_gateway = chance.random() < 0.4
            world.deadly = chance.choice(OF_GATEWAY if at_gateway else OF_SERVICE), chance.randint(1, 4)
            await world.until(lambda: world.deadly is None, 6.0)
            if world.deadly is not None:  # nobody came by there
                world.deadly = None
                world.kill_gateway() if at_gateway else world.kill_service(torn=False)
            if world.system is None:
                await world.start_service_after(chance.uniform(0.1, 3.0))
            elif world.hosts["gateway"].dead:
                await asyncio.sleep(chance.uniform(0.1, 3.0))
                if world.hosts["gateway"].dead:
                    world.start_gateway()
            await world.until(lambda: world.is_serving, 20.0)


async def _moment(world: World, chance: Random) -> None:
    """Waits for a good moment to die, for a few seconds at most."""
    struck = asyncio.Event()
    when = chance.randrange(4)

    def on_event(event: Event) -> None:
        if when == 1 and event.HasField("intent_recorded"):  # on disk, and not yet sent
            struck.set()
        if when == 2 and event.HasField("decision_made"):
            struck.set()

    def on_line(line: dict[str, Any]) -> None:
        if when == 3 and line["event"] == "request" and line["actor"] == "dtms":  # at the broker, and not yet answered
            struck.set()

    if when == 0:
        return
    world.witness.on_event.append(on_event)
    world.witness.on_line.append(on_line)
    with suppress(TimeoutError):
        async with asyncio.timeout(5.0):
            await struck.wait()
    world.witness.on_event.remove(on_event)
    world.witness.on_line.remove(on_line)


class DiskTrouble(Fault):
    """The disk is full, a sync fails, the last commit is torn, a byte flips."""

    number, name = 4, "disk full, failed fsync, torn last record, flipped byte"

    async def strike(self, world: World, chance: Random) -> None:
        with world.trouble(self.name, "service", "gateway"):
            match chance.randrange(3):
                case 0:
                    world.disk.fails = chance.choice(("database or disk is full", "disk I/O error"))
                    await world.until(lambda: world.disk.fails is None, 10.0)
                    world.disk.fails = None
                case 1 if world.system is not None:
                    # As the power goes: right when a commit is on its way.
                    await world.until(lambda: world.disk.unsynced_from is not None, 3.0)
                    world.kill_service(torn=True)
                    await world.start_service_after(chance.uniform(0.1, 1.0))
                case 2 if world.system is not None:
                    world.kill_service(torn=False)
                    _flip(world, chance)
                    await world.start_service_after(0.5)
            await world.until(lambda: world.is_serving, 20.0)


def _flip(world: World, chance: Random) -> None:
    """A byte of a copy of the journal is another: it is refused, or what is read is what was written."""
    folder = world.disk.copy(f"flipped-{len(world.witness.marks)}")
    path = chance.choice([path for path in sorted(folder.iterdir()) if path.name.startswith("journal.db")])
    size = path.stat().st_size
    if not size:
        return
    with path.open("r+b") as file:
        at = chance.randrange(size)
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ (1 << chance.randrange(8))]))
    try:
        journal, report = SqliteJournal.open(folder, wal_limit_bytes=64 << 20, progress=no_progress)
    except Exception as error:  # noqa: BLE001  judged below
        if not isinstance(error, JournalDamaged):
            world.witness.mark("flipped byte refused otherwise", why=f"{type(error).__name__}: {error}")
        return
    # The start walks the chain from its snapshot on; before that it is proven as it is read.
    revision = journal.oldest_revision
    while revision <= journal.newest_revision:
        try:
            events = journal.read(revision, 1_000)
        except Refusal as error:
            damage = damage_of(error)
            if damage is None or damage[1] <= revision:
                world.witness.breach("I20", f"byte {at} of {path.name} flipped, and reading {revision} says {error}")
                break
            revision = damage[1]
            continue
        for revision, body in events:
            if world.witness.bodies[revision - 1] != body:
                what = f"byte {at} of {path.name} flipped, and revision {revision} reads otherwise"
                world.witness.breach("I20", what)
        revision += 1
    if journal.newest_revision < world.witness.durable_revision and not report.recovered:
        world.witness.breach("I20", f"byte {at} of {path.name} flipped, and events are gone without a word")
    journal._connection.close()
    journal._lock.release()


class ReplyLost(Fault):
    """What was asked is done, and the answer is lost: on the wire, or between terminal and broker."""

    number, name = 5, "reply lost after execution"

    async def strike(self, world: World, chance: Random) -> None:
        if chance.random() < 0.5:
            with world.trouble(self.name, "broker"):
                world.broker.faults.lose_replies(chance.randint(1, 3))
                await asyncio.sleep(5.0)
                return
        await _on_the_wire(world, chance, self.name, "lose_reply", chance.uniform(0.1, 0.6))


class RequestLost(Fault):
    """A call never arrives."""

    number, name = 6, "request lost"

    async def strike(self, world: World, chance: Random) -> None:
        await _on_the_wire(world, chance, self.name, "lose_request", chance.uniform(0.1, 0.6))


class Duplicate(Fault):
    """A call arrives twice."""

    number, name = 7, "duplicate"

    async def strike(self, world: World, chance: Random) -> None:
        await _on_the_wire(world, chance, self.name, "duplicate", chance.uniform(0.3, 1.0))


class Reordering(Fault):
    """Calls overtake each other by far."""

    number, name = 8, "reordering"

    async def strike(self, world: World, chance: Random) -> None:
        await _on_the_wire(world, chance, self.name, "latency_s", (0.0005, chance.uniform(0.2, 1.5)))


async def _on_the_wire(world: World, chance: Random, name: str, what: str, value: object) -> None:
    hosts = chance.sample(CLIENTS, 3)
    links = [world.link(host) for host in hosts]
    before = [getattr(link, what) for link in links]
    with world.trouble(name, *hosts):
        for link in links:
            setattr(link, what, value)
        await asyncio.sleep(chance.uniform(3.0, 10.0))
        for link, old in zip(links, before, strict=True):
            setattr(link, what, old)


class Partition(Fault):
    """One way is cut, or both: for a moment, or for longer than the keepalive waits."""

    number, name = 9, "one-way partition"

    async def strike(self, world: World, chance: Random) -> None:
        host = chance.choice(EVERYBODY)
        up = chance.random() < 0.6
        with world.trouble(self.name, host):
            world.link(host).cut(up=up, down=not up or chance.random() < 0.3)
            await asyncio.sleep(chance.choice((1.0, 4.0, 20.0)))
            world.link(host).heal()


class HalfOpen(Fault):
    """One end of a connection is gone, and the other does not know."""

    number, name = 10, "half-open connection"

    async def strike(self, world: World, chance: Random) -> None:
        host = chance.choice(EVERYBODY)
        with world.trouble(self.name, host):
            world.link(host).reset("connection lost", server_hears=False)
            await asyncio.sleep(20.0 if host == "gateway" else 5.0)


class ClockJump(Fault):
    """A wall clock jumps by an hour (daylight saving, a wrong NTP server), or drifts, at any process."""

    number, name = 11, "clock jump of an hour, DST, drift"

    async def strike(self, world: World, chance: Random) -> None:
        host = world.hosts[chance.choice(("service", "gateway", *MANAGERS))]
        with world.trouble(self.name, host.name):
            host.wall_offset_ns += chance.choice((-HOUR_NS, HOUR_NS, HOUR_NS // 2, 3_000_000_000, -3_000_000_000))
            await asyncio.sleep(chance.uniform(2.0, 15.0))
            host.wall_offset_ns = 0


class BrokerLies(Fault):
    """The terminal answers None, shows nothing, shows what was, or leaves one position out."""

    number, name = 12, "broker answers None, empty, stale, or misses one ticket"

    async def strike(self, world: World, chance: Random) -> None:
        lies = world.lies
        with world.trouble(self.name, "broker"):
            match chance.randrange(5):
                case 0:
                    lies.none |= {chance.choice(("positions_get", "history_deals_get", "account_info", "symbol_info"))}
                case 1:
                    lies.empty |= {"positions_get"}
                case 2:
                    lies.empty |= {"positions_get", "history_deals_get"}
                case 3:
                    world.broker.faults.stale_positions_ms = chance.choice((500, 2_000))
                case _:
                    tickets = sorted(world.broker.book.positions)
                    lies.hidden |= {chance.choice(tickets)} if tickets else set()
            await asyncio.sleep(chance.uniform(1.0, 8.0))
            lies.cease()
            world.broker.faults.stale_positions_ms = 0


class Refusals(Fault):
    """The trade server, or the terminal before it, says no in every way it can."""

    number, name = 13, "retcodes"

    async def strike(self, world: World, chance: Random) -> None:
        faults = world.broker.faults
        with world.trouble(self.name, "broker"):
            code = chance.choice(REFUSALS)
            if code is Retcode.CLIENT_DISABLES_AT:
                faults.trade_allowed = False
                await asyncio.sleep(chance.uniform(1.0, 6.0))
                faults.trade_allowed = True
            elif code is Retcode.CONNECTION:
                faults.disconnect()
                await asyncio.sleep(chance.uniform(1.0, 6.0))
                faults.reconnect()
            else:
                executes = code is Retcode.TIMEOUT and chance.random() < 0.5
                faults.inject(code, chance.randint(1, 3), executes=executes)
                await asyncio.sleep(chance.uniform(1.0, 6.0))


class OddFills(Fault):
    """An order is filled in part; positions are closed by each other; one is closed while it is being modified."""

    number, name = 14, "partial fill, close-by, position closed during modify"

    async def strike(self, world: World, chance: Random) -> None:
        with world.trouble(self.name, "broker"):
            match chance.randrange(3):
                case 0:
                    world.broker.faults.fill_partly(chance.choice((0.3, 0.6)), chance.randint(1, 2))
                case 1:
                    _close_by(world)
                case _:
                    await self._close_during_modify(world)
            await asyncio.sleep(2.0)

    async def _close_during_modify(self, world: World) -> None:
        hand = ForeignActor(world.broker)

        def on_event(event: Event) -> None:
            position = world.broker.position(event.intent_recorded.position) if event.intent_recorded.sl else None
            if position is not None:
                hand.close(position.ticket, position.volume)
                world.witness.on_event.remove(on_event)

        world.witness.on_event.append(on_event)
        world.lies.slow_s = (0.2, 0.2)
        await asyncio.sleep(5.0)
        world.lies.slow_s = (0.0, 0.0)
        if on_event in world.witness.on_event:
            world.witness.on_event.remove(on_event)


def _close_by(world: World) -> None:
    """Two opposite positions of a symbol close each other."""
    held = sorted(world.broker.positions(), key=lambda position: position.ticket)
    for one in held:
        for other in held:
            if (one.symbol, one.side) == (other.symbol, other.side.opposite):
                world.broker.order_send(
                    {
                        "action": int(OrderAction.CLOSE_BY),
                        "position": one.ticket,
                        "position_by": other.ticket,
                        "symbol": one.symbol,
                    }
                )
                return


class ByHand(Fault):
    """Somebody moves a stop, closes, or takes a part by hand."""

    number, name = 15, "stop moved by hand, closed by hand, partial by hand"

    async def strike(self, world: World, chance: Random) -> None:
        for _ in range(chance.randint(1, 4)):
            by_hand(world, chance)
            await asyncio.sleep(chance.uniform(0.1, 3.0))


class OddPrices(Fault):
    """The spread is fifty times as wide, a weekend lies between two prices, a tick is 0 or NaN."""

    number, name = 16, "spread x50, weekend gap, price 0 or NaN"

    async def strike(self, world: World, chance: Random) -> None:
        with world.trouble(self.name, "broker"):
            match chance.randrange(3):
                case 0:
                    world.spread = 50.0
                    await asyncio.sleep(chance.uniform(1.0, 5.0))
                    world.spread = 1.0
                case 1:
                    world.market_open = False
                    await asyncio.sleep(chance.uniform(5.0, 25.0))
                    world.market_open = True
                    symbol = chance.choice(SYMBOLS)
                    world.quote(symbol, world.bid(symbol) * chance.uniform(0.995, 1.005))
                case _:
                    world.lies.odd_ticks = chance.choice((0.0, float("nan")))
                    await asyncio.sleep(chance.uniform(1.0, 5.0))
                    world.lies.odd_ticks = None


class OddBars(Fault):
    """Bars come late, again, out of order, and before they are closed."""

    number, name = 17, "bars late, repeated, out of order, still forming"

    async def strike(self, world: World, chance: Random) -> None:
        client = world.clients.get("feed")
        if client is None:
            return
        symbol, slow_s = chance.choice(SYMBOLS), 15
        now_s = world.now_msc() // 1000
        bid = world.bid(symbol)
        starts = [now_s - now_s % slow_s + slow_s * chance.randint(-20, 2) for _ in range(10)]
        starts += chance.sample(starts, 3)
        bars = [
            Bar(
                time_s=start,
                open=bid,
                high=round(bid + chance.uniform(0, 0.001), 5),
                low=round(bid - chance.uniform(0, 0.001), 5),
                close=bid,
                volume=chance.randint(1, 50),
            )
            for start in starts
        ]
        call = MarketDataServiceStub(client.channel).StreamBars(metadata=client.metadata)
        for bar in bars:
            await call.write(StreamBarsRequest(account_id=ACCOUNT, symbol=symbol, timeframe_s=slow_s, bars=[bar]))
        await call.done_writing()
        with suppress(Exception):
            async with asyncio.timeout(3.0):
                async for _ in call:
                    pass
        call.cancel()


class TerminalGone(Fault):
    """The terminal is restarted, or somebody logs in to another account."""

    number, name = 18, "terminal restart, account switched"

    async def strike(self, world: World, chance: Random) -> None:
        with world.trouble(self.name, "broker", "gateway"):
            if chance.random() < 0.5:
                world.broker.faults.kill_terminal()
                await asyncio.sleep(chance.uniform(0.5, 8.0))
                world.broker.faults.start_terminal()
            else:
                world.lies.login = 9_999
                await asyncio.sleep(chance.uniform(0.5, 8.0))
                world.lies.login = None


class Watchers(Fault):
    """A hundred watch: all of it or a part, some slowly, and some never read."""

    number, name = 19, "a hundred watchers, one that never reads"

    async def strike(self, world: World, chance: Random) -> None:
        client = world.clients["viewer"]
        for _ in range(2):
            stub: Any = TradeStatusServiceStub(client.channel)
            request = WatchRequest(start_revision=1, filter=self._part_of(world, chance))
            stub.Watch(request, metadata=client.metadata)  # never read
        for _ in range(min(25, HUNDRED - len(world.watched))):
            name = f"viewer-{len(world.watched)}"
            revision = chance.randint(1, max(world.witness.durable_revision, 1))
            slow_s = chance.uniform(0.1, 2.0) if chance.random() < 0.1 else 0.0
            watching = world.watch_as_viewer(name, revision, self._part_of(world, chance), slow_s)
            world.loop.spawn(world.hosts["viewer"], watching, name)
        await asyncio.sleep(3.0)

    @staticmethod
    def _part_of(world: World, chance: Random) -> WatchFilter:
        """Everything, or a symbol, some trades, some states, or two of these at once."""
        wanted = WatchFilter()
        for _ in range(chance.choice((0, 0, 1, 1, 2))):
            match chance.randrange(4):
                case 0:
                    wanted.symbols[:] = [chance.choice(SYMBOLS)]
                case 1:
                    wanted.account_ids[:] = [ACCOUNT]
                case 2:
                    wanted.states[:] = chance.sample(TradeState.values()[1:], 2)
                case _:
                    tickets = sorted(world.registered)
                    wanted.tickets[:] = chance.sample(tickets, min(2, len(tickets)))
        return wanted


class Compaction(Fault):
    """History goes away under a watcher that is cut off, and comes back for it."""

    number, name = 20, "compaction under a resuming watcher"
    settings = {"journal.keep_events": 20, "journal.snapshot_every_events": 30, "event_log.capacity": 16}  # noqa: RUF012

    async def strike(self, world: World, chance: Random) -> None:
        with world.trouble(self.name, "viewer"):
            world.link("viewer").cut(up=True, down=True)
            await asyncio.sleep(chance.uniform(5.0, 20.0))
            world.link("viewer").heal()


class TwoServices(Fault):
    """A second service starts on the data directory of the first."""

    number, name = 21, "two services on one store"

    async def strike(self, world: World, chance: Random) -> None:  # noqa: ARG002
        if world.system is None:
            return
        config = world.config.model_copy(update={"data_dir": world.disk.folder})
        try:
            await System.open(config, None, queue=partial(VirtualCommitQueue, world.disk))
        except DataDirectoryBusy:
            return
        world.witness.breach("I20", "a second service opened the store of the first")


class Reload(Fault):
    """Other numbers in the middle of the work: mostly in place, now and then with an end in good order and a start."""

    number, name = 22, "configuration reload in mid-transition"

    async def strike(self, world: World, chance: Random) -> None:
        await _moment(world, chance)
        numbers = {
            "tighten_r": chance.choice((0.2, 0.3, 0.5)),
            "hold_s": chance.choice((2, 3, 5)),
            "warn1": chance.choice((-2.0, -1.5, -2.6)),
            "critical": chance.choice((-6.0, -5.0, -8.0)),
            "partial_fraction": chance.choice((0.5, 0.25)),
            "hedge_ratio": chance.choice((0.5, 0.3)),
            "flat_timer_slow_bars": chance.choice((5, 2)),
            "cooldown_ms": chance.choice((0, 500)),
        }
        engine = world.config.engine.model_copy(update=numbers)
        world.config = world.config.model_copy(update={"engine": engine})
        if chance.random() < 0.75:
            with suppress(DtmsError):  # where it cannot be reached now, it takes them at its next start
                await world.clients["operator"].reload_configuration(reason="an exercise")
            return
        with world.trouble(self.name, "service", "gateway"):
            await world.restart_service()
            await world.until(lambda: world.is_serving, 20.0)


class Flood(Fault):
    """Somebody registers far more than there is."""

    number, name = 24, "a flood of registrations"
    settings = {"limits.max_trades": 30}  # noqa: RUF012

    async def strike(self, world: World, chance: Random) -> None:
        client = world.clients["entry"]
        first = 900_000 + chance.randrange(1_000)

        async def register(ticket: int) -> None:
            symbol = chance.choice(SYMBOLS)
            price = round(world.bid(symbol), 5)
            body = Registration(
                account_id=ACCOUNT, ticket=ticket, symbol=symbol, side=SIDE_BUY, entry_price=price, volume=0.1
            )
            with suppress(DtmsError):
                await client.register_trade(body)

        tasks = [world.loop.spawn(world.hosts["entry"], register(first + each), "flood") for each in range(6)]
        await asyncio.wait(tasks)


FAULTS: Final[tuple[Fault, ...]] = tuple(
    kind()
    for kind in (
        *(ClientPaused, ServicePaused, Killed, DiskTrouble, ReplyLost, RequestLost, Duplicate, Reordering),
        *(Partition, HalfOpen, ClockJump, BrokerLies, Refusals, OddFills, ByHand, OddPrices, OddBars, TerminalGone),
        *(Watchers, Compaction, TwoServices, Reload, Flood),
    )
)
ELSEWHERE: Final = {23: "journal of the previous version"}
"""Faults of the list that no run can show: what stands for them is named in docs/simulation.md."""
