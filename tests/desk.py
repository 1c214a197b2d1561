"""An account whose service comes and goes, with the exit manager on it, fast: for tests of what it does meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dtms.v1.action_pb2 import Purpose
from dtms_client import AsyncClient
from dtms_client.exit_manager.brain import ExitManager
from dtms_client.exit_manager.direct import Direct
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.exit_manager.terminal_process import TerminalProcess
from dtms_client.exit_manager.vix import VixSources
from dtms_client.managing.brain import NANOS
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.paper_account import PaperAccount
from dtms_service.server import Server
from dtms_service.service import credentials_of, paper_account
from dtms_service.settings import configuration
from dtms_service.system import System
from tests.conftest import REPO
from tests.paper_terminal import PORT, Serving, serving
from tests.stack import EXIT_MANAGER, SYMBOL, T0_MSC, Stack, attach_paper

# The times of the real thing, a hundred times as fast.
LIMITS = Limits(deadline_s=0.3, state_s=0.1, ownership_s=0.05, last_known_s=0.3)
BOOK = RuleBook(default=ExitRules())
# Of a BUY of Stack.trade: entry 1.1001 + spread + 0.01 %, and half of the way to its target and a bit.
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
    async def manager(self, *, direct: bool = False, book: RuleBook = BOOK) -> AsyncIterator[ExitManager]:
        """The exit manager at work, on a clock that runs a hundred times as fast."""
        standby = Direct(TerminalProcess("tests.paper_terminal"), book) if direct else None
        if standby is not None:
            standby.every_s = 0.02
        brain = ExitManager(book, name=EXIT_MANAGER, vix=VixSources(), direct=standby)
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
