"""A terminal lent to a real service: prices and changes up, commands down, and back when either side was away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from dtms.v1 import gateway_service_pb2 as pb
from dtms.v1.admin_service_pb2 import GatewayStatus
from dtms.v1.event_pb2 import (
    ALARM_CODE_ACCOUNT_SWITCHED,
    ALARM_CODE_BROKER_LINK_LOST,
    ALARM_CODE_TRADING_DISABLED,
    AlarmCode,
    Event,
)
from dtms.v1.market_data_service_pb2 import WatchQuotesRequest
from dtms.v1.trade_pb2 import TRADE_STATE_HEALTHY
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client._channel import target
from dtms_client.errors import PermissionDenied
from dtms_service.bars import KEPT, TIMEFRAMES_S, Wanted
from dtms_service.broker.door import CommandKind, OutcomeStatus
from dtms_service.broker.fence import Fence
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_package import FUNCTIONS, loader
from dtms_service.broker.server_time import ServerTime
from dtms_service.gateway.live import Live
from dtms_service.gateway.process import Exit
from dtms_service.server import Server
from dtms_service.service import credentials_of
from dtms_service.settings import configuration
from dtms_service.stage import Stage
from dtms_service.system import System
from tests.conftest import REPO
from tests.contract.mt5_rig import ACCOUNT, Rig, terminal_rig
from tests.grpc.gateway_peer import Peer, serving, token_files
from tests.grpc.watching import all_until, events_until, response
from tests.process.service_process import Process
from tests.stack import Stack, stop_at
from tests.unit.paper_world import World
from tests.unit.test_paper_door import command


@pytest.fixture
async def rig(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A terminal with one position."""
    rig = terminal_rig(World(), wheel, monkeypatch)
    rig.world.buy(sl=1.09, tp=1.12)
    yield rig
    rig.mt5.close()


async def at_once(_: float) -> None:
    """A pause that lets everybody else go on, a hundred times faster than the real one."""
    await asyncio.sleep(0.001)


@asynccontextmanager
async def lent(rig: Rig, address: str, token_file: Path) -> AsyncIterator[asyncio.Task[None]]:
    """The terminal's gateway, at work."""
    to = target(address, token=None, token_file=token_file, root_certificates=None)
    task = asyncio.create_task(Live(rig.mt5, to, ACCOUNT, ["EURUSD"], at_once).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def service(data_dir: Path, port: int = 0) -> AsyncIterator[Stack]:
    """A service in real time that waits for a gateway."""
    config = configuration(None, paper=False, given={"data_dir": data_dir, "server.port": port})
    system = await System.open(config, None)
    server = await Server.start(system, config, credentials_of(config))
    async with AsyncExitStack() as exits:
        exits.push_async_callback(server.stop)
        yield Stack(config, system, server, exits)


async def stage(stack: Stack, wanted: Stage) -> None:
    reached = asyncio.Event()
    stack.system.on_stage.append(lambda stage: reached.set() if stage is wanted else None)
    if stack.system.stage is not wanted:
        await reached.wait()


async def streaming(rig: Rig, stack: Stack) -> None:
    """The gateway is attached and has looked at its terminal again and again."""
    await stage(stack, Stage.SERVING)
    looks = rig.wire.calls.count("copy_ticks_from")
    rig.world.tick(1.1, 1.1001)
    await until(lambda: rig.wire.calls.count("copy_ticks_from") > looks)
    looks = rig.wire.calls.count("symbol_info_tick")
    await until(lambda: rig.wire.calls.count("symbol_info_tick") > looks + 5)


async def event(stack: Stack, kind: str, start_revision: int = 1) -> Event:
    watch = await stack.stream("viewer", WatchRequest(start_revision=start_revision))
    return (await events_until(watch, lambda event: event.WhichOneof("body") == kind))[-1]


async def test_a_service_defends_a_trade_at_the_terminal(rig: Rig, tmp_path: Path) -> None:
    """It adopts the position, hears its prices and what a hand does to it without any new price, and moves its stop."""
    (held,) = rig.world.broker.positions()
    async with service(tmp_path / "data") as stack, lent(rig, stack.server.address, stack.token("gateway")):
        await stage(stack, Stage.SERVING)
        trade = await stack.get_trade(held.ticket)
        assert (trade.account_id, trade.initial_sl, trade.entry_price) == (ACCOUNT, 1.09, 1.1001)

        ForeignActor(rig.world.broker).modify(held.ticket, 1.091, 1.12)
        changed = await event(stack, "position_changed")
        assert (changed.ticket, changed.position_changed.sl) == (held.ticket, 1.091)

        trade = await stack.get_trade(held.ticket)
        answer = await stack.propose(trade, stop_at(1.095), manager="operator", timeout_s=10)
        assert answer.outcome.sl == 1.095, answer
        assert rig.world.broker.positions()[0].sl == 1.095

        rig.world.tick(1.0949, 1.0950)
        closed = await event(stack, "leg_closed")
        assert (closed.ticket, closed.leg_closed.price) == (held.ticket, 1.0949)
    assert len(rig.wire.threads) == 1


async def alarm(stack: Stack, code: AlarmCode.ValueType) -> Event:
    watch = await stack.stream("viewer", WatchRequest(start_revision=1))
    return (await events_until(watch, lambda event: event.alarm_raised.code == code))[-1]


async def status(stack: Stack) -> GatewayStatus:
    (gateway,) = (await (await stack.client("viewer")).system_status()).gateways
    return gateway


def linked(stack: Stack) -> bool:
    terminal = stack.system.gateways.of(ACCOUNT).terminal
    return terminal is not None and terminal.linked


def replaced(shown: Any, **fields: object) -> Any:
    return type(shown).of(**(shown._asdict() | fields))


async def test_a_change_by_hand_is_seen_without_a_price(rig: Rig, tmp_path: Path) -> None:
    """Positions come when they change, whether the market moves or not, and nobody asks for them."""
    (held,) = rig.world.broker.positions()
    async with service(tmp_path / "data") as stack, lent(rig, stack.server.address, stack.token("gateway")):
        await streaming(rig, stack)
        prices = rig.wire.calls.count("copy_ticks_from")
        ForeignActor(rig.world.broker).modify(held.ticket, 1.0915, 1.12)
        changed = await event(stack, "position_changed")
        assert (changed.position_changed.sl, changed.position_changed.external) == (1.0915, True)
        assert rig.wire.calls.count("copy_ticks_from") == prices


async def test_what_is_wrong_with_a_terminal_is_alarmed_once_and_shown(rig: Rig, tmp_path: Path) -> None:
    """Automated trading switched off, the broker's server lost: one alarm each, the status says how it is now."""
    faults = rig.world.broker.faults
    async with service(tmp_path / "data") as stack, lent(rig, stack.server.address, stack.token("gateway")):
        await streaming(rig, stack)
        faults.trade_allowed = False
        off = await alarm(stack, ALARM_CODE_TRADING_DISABLED)
        assert off.account_id == ACCOUNT
        assert "automated trading is off in the terminal" in off.alarm_raised.detail
        shown = await status(stack)
        assert (shown.terminal.terminal_trades, shown.terminal.linked, shown.supervised) == (False, True, False)
        faults.trade_allowed = True
        faults.disconnect()
        await alarm(stack, ALARM_CODE_BROKER_LINK_LOST)
        assert not (await status(stack)).terminal.linked
        faults.reconnect()
        await until(lambda: linked(stack))
        watch = await stack.stream("viewer", WatchRequest(start_revision=1))
        last = stack.system.desk.engine.revision
        alarms = [event for event in await all_until(watch, last) if event.HasField("alarm_raised")]
        assert len(alarms) == 2


async def test_another_account_at_the_terminal_is_let_go(rig: Rig, tmp_path: Path) -> None:
    """A hand logs in elsewhere: the gateway says so and lets go, tells nothing of the other account, and nothing of the
    own one is closed; it comes back with the login."""
    (held,) = rig.world.broker.positions()
    async with service(tmp_path / "data") as stack, lent(rig, stack.server.address, stack.token("gateway")) as gateway:
        await streaming(rig, stack)
        rig.wire.overlay["account_info"] = lambda shown: replaced(shown, login=666)
        rig.wire.overlay["positions_get"] = lambda _: ()
        switched = await alarm(stack, ALARM_CODE_ACCOUNT_SWITCHED)
        assert switched.account_id == ACCOUNT
        assert "666@Paper" in switched.alarm_raised.detail
        await until(lambda: not stack.system.doors.attached(ACCOUNT))
        trade = await stack.get_trade(held.ticket)
        assert (trade.state, trade.confirmed.sl) == (TRADE_STATE_HEALTHY, 1.09)
        assert (await status(stack)).terminal.other_account_id == "666@Paper"
        rig.wire.overlay.clear()
        await until(lambda: stack.system.doors.attached(ACCOUNT))
        assert not gateway.done()


async def test_indicators_are_warm_from_the_terminals_history(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Closed bars of every length come with the attachment, each once, the forming one never, in UTC; the second start
    asks again and learns nothing new."""
    world = World(config={"server_utc_offset_s": 10_800})
    for minute in range(9 * 60):
        world.tick(1.1 + (0.0005 if minute % 2 else -0.0005), 1.1006, after_ms=60_000)
    rig = terminal_rig(world, wheel, monkeypatch)
    for _ in range(2):
        async with service(tmp_path / "data") as stack, lent(rig, stack.server.address, stack.token("gateway")):
            await streaming(rig, stack)
            wanted = Wanted(ACCOUNT, frozenset(), TIMEFRAMES_S)
            kept = stack.system.monitor.bars.since(0, wanted)
            starts = {length: [bar.bar.time_s for bar in kept if bar.timeframe_s == length] for length in TIMEFRAMES_S}
            assert {length: len(times) for length, times in starts.items()} == {
                60: KEPT,
                300: 108,
                900: 36,
                3_600: 9,
                14_400: 1,
            }
            for length, times in starts.items():
                assert times == sorted(set(times)), length
                assert all(time_s % length == 0 and (time_s + length) * 1000 <= world.now for time_s in times)
    rig.mt5.close()


async def test_the_gateway_comes_back_after_the_service(rig: Rig, tmp_path: Path) -> None:
    """The service is restarted on its port and its journal: the gateway attaches again, nobody has to help."""
    async with service(tmp_path / "data") as stack:
        address = stack.server.address
        port = int(address.rpartition(":")[2])
        token = stack.token("gateway")
        async with lent(rig, address, token) as gateway:
            await streaming(rig, stack)
            await stack.server.stop()
            async with service(tmp_path / "data", port) as again:
                await streaming(rig, again)
                assert not gateway.done()


async def test_the_gateway_outlives_its_terminal(rig: Rig, tmp_path: Path) -> None:
    """The terminal dies and starts anew under an attached gateway: the service's queries fail, then are answered."""
    token, _ = token_files(tmp_path)
    async with serving(Peer()) as peer, lent(rig, peer.address, token) as gateway:
        door = await peer.doors.get()
        rig.world.broker.faults.kill_terminal()
        outcome = await door.execute(command(CommandKind.CLOSE, 1))
        assert outcome.status is OutcomeStatus.UNKNOWN
        rig.world.broker.faults.start_terminal()
        assert len(await door.positions(ACCOUNT)) == 1
        rig.world.tick(1.11, 1.1101)
        await until(lambda: peer.ticks and peer.ticks[-1].ticks[-1].bid == 1.11)
        assert not gateway.done()


async def until(found: Callable[[], Any]) -> None:
    while not found():
        await at_once(0)


async def test_a_slow_service_is_not_overrun(rig: Rig, tmp_path: Path) -> None:
    """At most one message is under way: while the service works on it, ticks wait in the terminal, and none is lost."""
    token, _ = token_files(tmp_path)
    gate, entered = asyncio.Event(), asyncio.Event()

    async def hold(_: Peer, ticks: pb.GatewayTicks) -> None:
        if ticks.seq == 2:
            entered.set()
            await gate.wait()

    async with serving(Peer(turn=hold)) as peer, lent(rig, peer.address, token):
        await until(lambda: peer.ticks)
        bids = [round(1.1 + number / 10_000, 5) for number in range(1, 40)]
        rig.world.tick(bids[0], round(bids[0] + 0.0001, 5))
        await entered.wait()
        for bid in bids[1:]:
            rig.world.tick(bid, round(bid + 0.0001, 5), after_ms=1)
        assert (len(peer.ticks), peer.overlaps) == (2, 0)
        gate.set()
        await until(lambda: peer.ticks[-1].ticks[-1].bid == bids[-1])
        assert [tick.bid for ticks in peer.ticks[1:] for tick in ticks.ticks] == bids


async def test_a_gateway_that_is_refused_at_first_ends(rig: Rig, tmp_path: Path) -> None:
    """A wrong token will not get better by asking again."""
    token, _ = token_files(tmp_path)
    refusing = Peer(refuse_with=grpc.StatusCode.PERMISSION_DENIED)
    async with serving(refusing) as peer, lent(rig, peer.address, token) as gateway:
        with pytest.raises(PermissionDenied):
            await gateway


async def test_a_symbol_that_the_broker_does_not_have_is_said(rig: Rig, tmp_path: Path) -> None:
    """A misspelt symbol is a wrong argument, told before anything is attached."""
    token, _ = token_files(tmp_path)
    to = target("127.0.0.1:1", token=None, token_file=token, root_certificates=None)
    with pytest.raises(ValueError, match="no EURUSDx"):
        await Live(rig.mt5, to, ACCOUNT, ["EURUSDx"], at_once).run()


async def test_without_the_servers_time_nothing_is_attached(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The gateway waits for ticks that show it, and attaches with times in UTC."""
    world = World(config={"server_utc_offset_s": 10_800})
    rig = terminal_rig(world, wheel, monkeypatch, time=ServerTime(tmp_path / "server_time.json"))
    token, _ = token_files(tmp_path)
    async with serving(Peer()) as peer, lent(rig, peer.address, token):
        await until(lambda: rig.wire.calls.count("symbol_info_tick") > 10)
        assert peer.hello is None

        async def flow() -> None:
            while not peer.ticks:
                rig.world.tick(1.1, 1.1001, after_ms=100)
                await at_once(0)

        await flow()
        assert peer.ticks[0].ticks[0].time_msc <= rig.world.now
        assert peer.ticks[0].ticks[0].time_msc > rig.world.now - 60_000
    rig.mt5.close()


def test_a_module_that_is_no_package_is_refused() -> None:
    """Its missing functions are named; MODULE:CLASS is called for the object, each time it is asked for."""
    with pytest.raises(ValueError, match="it lacks account_info"):
        loader("json")
    with pytest.raises(ImportError):
        loader("no_such_module_anywhere")
    load = loader("tests.contract.test_mt5_gateway:Bridge")
    assert load() is not load()


Bridge = type("Bridge", (), dict.fromkeys(FUNCTIONS, staticmethod(tuple)))


# --- processes -------------------------------------------------------------------------------------------------------


async def test_the_process_lends_its_terminal(tmp_path: Path) -> None:
    """`dtms gateway --broker mt5` finds the server's time, attaches, streams, and keeps what it must not forget."""
    async with service(tmp_path / "data") as stack:
        gateway = await Process.start(
            *("gateway", "--broker", "mt5", "--service", stack.server.address, "--symbol", "EURUSD"),
            *("--token-file", stack.token("gateway"), "--out", tmp_path / "gateway"),
            *("--account", ACCOUNT, "--mt5-module", "tests.contract.paper_terminal"),
        )
        await gateway.logged("attached")
        adopted = await event(stack, "trade_registered")
        assert adopted.account_id == ACCOUNT
        assert ServerTime(tmp_path / "gateway" / "server_time.json").offset_s == 7200
        await response(await stack.stream("viewer", WatchQuotesRequest(account_id=ACCOUNT)))
        trade = await stack.get_trade(adopted.ticket)
        answer = await stack.propose(trade, stop_at(1.095), manager="operator", timeout_s=10)
        assert answer.outcome.sl == 1.095, answer
        await gateway.kill()
    fence = Fence(tmp_path / "gateway" / "fence.db")
    assert not fence.admit(ACCOUNT, adopted.ticket, trade.owner_epoch - 1)
    fence.close()


def test_a_terminal_that_hangs_for_good_ends_the_process() -> None:
    """The call holds the interpreter, so no Python of the process runs any more; the watchdog ends it all the same."""
    code = (
        "import ctypes, sys\n"
        "from dtms_service.gateway.watchdog import ended_after\n"
        "with ended_after(0.2):\n"
        "    ctypes.PyDLL(None).sleep(3600)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False, cwd=REPO
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_a_call_that_ends_in_time_ends_nothing() -> None:
    """The watchdog is off again behind each call."""
    code = (
        "import time\n"
        "from dtms_service.gateway.watchdog import ended_after\n"
        "with ended_after(0.2):\n"
        "    pass\n"
        "time.sleep(0.4)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False, cwd=REPO).returncode == Exit.DONE
