"""Direct mode of the exit manager: a real service that goes away, and a terminal on the same paper account."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dtms.v1 import trade_pb2
from dtms.v1.action_pb2 import PURPOSE_BREAKEVEN, PURPOSE_TRAIL, Purpose
from dtms_client import AsyncClient
from dtms_client.exit_manager.brain import ExitManager
from dtms_client.exit_manager.direct import Direct
from dtms_client.exit_manager.rule_book import RuleBook, read_memo
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.exit_manager.terminal import COMMENT, Failed
from dtms_client.exit_manager.terminal_process import TerminalProcess
from dtms_client.exit_manager.vix import VixSources
from dtms_client.managing.brain import NANOS
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits
from dtms_service.broker.foreign import ForeignActor
from dtms_service.credentials import token_path
from dtms_service.paper_account import PaperAccount
from dtms_service.server import Server
from dtms_service.service import CREDENTIALS_FOLDER, credentials_of, paper_account
from dtms_service.settings import configuration
from dtms_service.system import System
from tests.conftest import REPO
from tests.paper_terminal import PORT, Serving, serving
from tests.stack import EXIT_MANAGER, SYMBOL, T0_MSC, Stack, attach_paper

# The times of the real thing, a hundred times as fast.
LIMITS = Limits(deadline_s=0.3, state_s=0.1, ownership_s=0.05, last_known_s=0.3)
BOOK = RuleBook(default=ExitRules())
BREAKEVEN = 1.10031
HALF_WAY = 1.1052


class Desk:
    """An account whose service comes and goes."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.account: PaperAccount | None = None
        self.port = 0
        self._exits = AsyncExitStack()

    async def serve(self) -> Stack:
        """The service comes, always on the same port and the same account."""
        config = configuration(None, paper=True, given={"data_dir": self.data_dir, "server.port": self.port})
        assert config.paper is not None
        system = await System.open(config, None)
        broker = self.account.broker if self.account is not None else paper_account(config, config.paper).broker
        # The broker is not the service's: it stays when that goes.
        self.account = system.paper = PaperAccount(broker, None)
        server = await Server.start(system, config, credentials_of(config))
        self._exits.push_async_callback(server.stop)
        self.port = int(server.address.rpartition(":")[2])
        await attach_paper(system)
        stack = Stack(config, system, server, self._exits, now_msc=max(T0_MSC, broker.now_msc))
        # Channels of one process share what they know: that nobody was there a moment ago.
        await (await stack.client("feed")).channel.channel_ready()
        await stack.warm_up()
        return stack

    async def vanish(self) -> None:
        """The service goes."""
        await self._exits.aclose()

    @property
    def held(self) -> Any:
        """The one position."""
        assert self.account is not None
        (position,) = self.account.broker.positions()
        return position

    @contextmanager
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
        """Another process finds the terminal as the module `tests.paper_terminal`."""
        assert self.account is not None
        with serving(self.account.broker) as terminal:
            monkeypatch.setenv(PORT, terminal.port)
            monkeypatch.setenv("PYTHONPATH", str(REPO))
            yield terminal

    @asynccontextmanager
    async def manager(self, *, direct: bool = True, module: str = "tests.paper_terminal") -> AsyncIterator[ExitManager]:
        """The exit manager at work, on a clock that runs a hundred times as fast."""
        standby = Direct(TerminalProcess(module), BOOK) if direct else None
        if standby is not None:
            standby.every_s = 0.02
        brain = ExitManager(BOOK, name=EXIT_MANAGER, vix=VixSources(), direct=standby)
        clock = asyncio.get_running_loop().time
        token = token_path(self.data_dir / CREDENTIALS_FOLDER, EXIT_MANAGER)
        async with AsyncClient(f"127.0.0.1:{self.port}", token_file=token) as client:
            live = Live(client, brain, monotonic=clock, now_ns=lambda: round(100 * clock() * NANOS), limits=LIMITS)
            task = asyncio.create_task(live.run())
            try:
                yield brain
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def price(terminal: Serving, bid: float) -> None:
    """A new price at the broker, of which a service that is away hears nothing."""
    with terminal.lock:
        broker = terminal.broker
        broker.on_tick(SYMBOL, broker.now_msc + 1000, bid, round(bid + 0.0001, 5))


async def until(found: Callable[[], Any]) -> None:
    """Returns when it is so; what happens in other processes tells nobody."""
    async with asyncio.timeout(20):
        while not found():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def nothing_for(seconds: float, found: Callable[[], Any]) -> None:
    """Fails when it becomes so."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await until(found)
    assert not found()


async def known(stack: Stack, ticket: int) -> None:
    """Returns when the manager knows the trade: it has left its memo."""
    while EXIT_MANAGER not in {record.manager for record in (await stack.get_trade(ticket)).managers}:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def purposes(stack: Stack) -> set[Purpose.ValueType]:
    """What the exit manager has asked of DTMS."""
    viewer = await stack.client("viewer")
    return {decision.action.purpose async for decision in viewer.list_decisions(manager=EXIT_MANAGER)}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    await desk.vanish()


async def test_while_dtms_is_away_the_trade_is_protected_and_cut_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breakeven, then one partial, at the terminal; back with DTMS nothing is repeated, and trailing goes on there."""
    stack = await desk.serve()
    trade = await stack.trade()
    with desk.terminal(monkeypatch) as terminal:
        async with desk.manager():
            await known(stack, trade.ticket)
            await desk.vanish()
            price(terminal, 1.1013)
            await until(lambda: desk.held.sl == BREAKEVEN)
            assert (desk.held.tp, desk.held.volume) == (1.1101, 1.0)
            price(terminal, HALF_WAY)
            await until(lambda: desk.held.volume == 0.5)
            price(terminal, 1.1062)
            await nothing_for(0.3, lambda: len(terminal.orders) > 2)
            assert (desk.held.sl, desk.held.tp) == (BREAKEVEN, 1.1101)
            stack = await desk.serve()
            await stack.tick(1.1062)
            await until(lambda: desk.held.sl > BREAKEVEN)
            mended = await stack.get_trade(trade.ticket)
            (own,) = [record for record in mended.managers if record.manager == EXIT_MANAGER]
            assert (read_memo(own.memo).part, own.partial_taken) == (True, False)
            assert (mended.volume, desk.held.tp) == (0.5, 1.1101)
            assert await purposes(stack) == {PURPOSE_TRAIL}
    assert [(order["position"], order.get("comment")) for order in terminal.orders] == [
        (trade.ticket, None),
        (trade.ticket, COMMENT),
    ]


async def test_a_part_taken_past_dtms_is_not_repeated_by_a_manager_without_memory(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before DTMS was back, started without direct mode: the volume that nobody took through DTMS tells."""
    stack = await desk.serve()
    trade = await stack.trade()
    with desk.terminal(monkeypatch) as terminal:
        async with desk.manager():
            await known(stack, trade.ticket)
            await desk.vanish()
            price(terminal, HALF_WAY)
            await until(lambda: desk.held.volume == 0.5)
    stack = await desk.serve()
    async with desk.manager(direct=False) as brain:
        await stack.tick(1.1062)
        await until(lambda: brain.tally.confirmed)
        await stack.tick(1.1082)
        await until(lambda: brain.tally.confirmed > 1)
    assert await purposes(stack) <= {PURPOSE_TRAIL, PURPOSE_BREAKEVEN}
    assert desk.held.volume == 0.5


async def test_without_a_word_of_dtms_in_this_life_nothing_is_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal shows a position that calls for breakeven; who owns it and in what state, nobody has said."""
    await (await desk.serve()).trade()
    await desk.vanish()
    with desk.terminal(monkeypatch) as terminal:
        async with desk.manager():
            price(terminal, HALF_WAY)
            await until(lambda: terminal.calls)
            await nothing_for(0.5, lambda: terminal.orders)


async def test_what_dtms_defended_or_somebody_has_cut_is_left_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last known in WARNING_L2: nothing. Cut by hand in the meantime: protected, but not cut again."""
    stack = await desk.serve()
    defended = await stack.trade()
    await stack.tick(1.1008)
    await stack.report_score(0.001)
    in_force = (await (await stack.client("viewer")).get_score(SYMBOL, trade_pb2.SIDE_BUY)).score.thresholds
    await stack.report_score((in_force.warn2 + in_force.critical) / 2)
    assert (await stack.get_trade(defended.ticket)).state == trade_pb2.TRADE_STATE_WARNING_L2
    await stack.report_score(0.001)
    cut = await stack.trade()
    with desk.terminal(monkeypatch) as terminal:
        async with desk.manager():
            for trade in (defended, cut):
                await known(stack, trade.ticket)
            await desk.vanish()
            with terminal.lock:
                ForeignActor(terminal.broker).close(cut.ticket, 0.5)
            price(terminal, HALF_WAY)
            await until(lambda: terminal.orders)
            await nothing_for(0.3, lambda: len(terminal.orders) > 1)
    assert [order["position"] for order in terminal.orders] == [cut.ticket]
    assert "volume" not in terminal.orders[0]


async def test_a_terminal_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call ends at its deadline as uncertain, the process is gone, and the manager's own loop never stood still."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    terminal = TerminalProcess("tests.stuck_terminal", start_s=0.5, deadline_s=0.5)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    pulse = asyncio.create_task(beat())
    started_s = asyncio.get_running_loop().time()
    with pytest.raises(Failed) as caught:
        await terminal.protect(1, 1.1)
    pulse.cancel()
    assert asyncio.get_running_loop().time() - started_s < 5
    assert (caught.value.uncertain, beats > 10) == (True, True)
    await terminal.close()


async def test_a_module_that_does_not_exist_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """The terminal's process names it and ends; the call fails, nothing else does."""
    terminal = TerminalProcess("no_such_terminal")
    with pytest.raises(Failed, match="has ended"):
        await terminal.see(1)
    await terminal.close()
    assert "no_such_terminal" in capfd.readouterr().err
