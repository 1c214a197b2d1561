"""MetaTrader 5 terminals for the gateways that a service supervises: paper accounts of the test, each behind a socket.

A gateway's process imports `Far` (`package = "tests.process.far_terminal:Far"`), which finds its terminal by the login.
The test serves them with `serving`, and does to them what a hand or a bad day does.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_api import FUNCTIONS, PaperMt5
from dtms_service.broker.mt5_package import FUNCTIONS as USED
from tests.paper_terminal import _plain as plain
from tests.unit.paper_world import World

PORTS = "FAR_TERMINALS"
PACKAGE = "tests.process.far_terminal:Far"
KEY = b"a terminal of the tests"

MINUTE_MS = 60_000
BACK_MINUTES = 6 * 60
OPENED_MINUTES = 30


class Far:
    """The functions of MetaTrader5, carried out elsewhere. A lost line raises, as that of a bridge does."""

    def __init__(self) -> None:
        self._line: Connection | None = None

    def initialize(self, *path: str, **options: Any) -> Any:
        port = json.loads(os.environ[PORTS])[str(options["login"])]
        self._line = Client(("127.0.0.1", port), authkey=KEY)
        return self._call("initialize", *path, **options)

    def _call(self, name: str, *arguments: object, **fields: object) -> Any:
        if self._line is None:
            return (-10004, "No IPC connection") if name == "last_error" else None
        self._line.send((name, arguments, fields))
        return self._line.recv()


def _function(name: str) -> Any:
    return lambda far, *arguments, **fields: far._call(name, *arguments, **fields)


for _name in USED:
    if _name != "initialize":
        setattr(Far, _name, _function(_name))


@dataclass
class FarTerminal:
    """One account with six hours of prices and a position bought half an hour ago: one lot, stop 0.01 away.

    ``shows`` is the account that answers in place of its own. ``lines`` counts the programs that came.
    """

    account_id: str
    world: World = field(init=False)
    shows: str = ""
    lines: int = 0
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        login = self.account_id
        self.world = World(quoted=False, config={"account_id": login, "server_utc_offset_s": 0, "balance": 100_000.0})
        self.lock = threading.Lock()
        self._let_go = threading.Event()
        self._let_go.set()
        self._held_lines = 0
        self.listener = Listener(("127.0.0.1", 0), authkey=KEY)
        now_msc = time.time_ns() // 1_000_000
        self.world.now = now_msc - BACK_MINUTES * MINUTE_MS
        for minute in range(BACK_MINUTES):
            if minute == BACK_MINUTES - OPENED_MINUTES:
                self.ticket = self.world.buy(1.0, sl=1.09, tp=1.13).order
            bid = 1.1 + (0.0005 if minute % 2 else -0.0005)
            self.world.broker.on_tick("EURUSD", self.world.now + minute * MINUTE_MS, bid, round(bid + 0.0001, 5))
        self.tick(1.1)

    def tick(self, bid: float) -> None:
        """A price of now."""
        with self.lock:
            broker = self.world.broker
            now_msc = max(time.time_ns() // 1_000_000, broker.now_msc + 1)
            broker.on_tick("EURUSD", now_msc, bid, round(bid + 0.0001, 5))

    def held(self) -> dict[int, tuple[float, float | None, float | None]]:
        """Volume, stop and target by ticket."""
        with self.lock:
            return {held.ticket: (held.volume, held.sl, held.tp) for held in self.world.broker.positions()}

    def by_hand(self) -> ForeignActor:
        return ForeignActor(self.world.broker)

    def hang(self) -> None:
        """No call of a program that is there already comes back; one that comes later is served."""
        self._held_lines = self.lines
        self._let_go.clear()

    def let_go(self) -> None:
        self._let_go.set()

    def serve(self) -> None:
        """Until the listener is closed; a thread for each program."""
        while True:
            try:
                line = self.listener.accept()
            except (OSError, EOFError):
                return
            self.lines += 1
            threading.Thread(target=self._answer, args=(line, self.lines), daemon=True).start()

    def _answer(self, line: Connection, number: int) -> None:
        mt5 = PaperMt5(self.world.broker)
        with suppress(EOFError, OSError), line:
            while True:
                name, arguments, fields = line.recv()
                self.calls.append(name)
                if number <= self._held_lines:
                    self._let_go.wait()
                with self.lock:
                    answer = plain(getattr(mt5, name)(*arguments, **fields))
                if name == "account_info" and self.shows and answer is not None:
                    login, _, server = self.shows.partition("@")
                    answer.login, answer.server = int(login), server
                line.send(answer)


@contextmanager
def serving(*accounts: str) -> Iterator[dict[str, FarTerminal]]:
    """A terminal for each account."""
    assert set(USED) <= set(FUNCTIONS)
    terminals = {account_id: FarTerminal(account_id) for account_id in accounts}
    with ExitStack() as exits:
        for terminal in terminals.values():
            thread = threading.Thread(target=terminal.serve, daemon=True)
            thread.start()
            exits.callback(_close, terminal, thread)
        yield terminals


def _close(terminal: FarTerminal, thread: threading.Thread) -> None:
    terminal.let_go()
    address = terminal.listener.address
    terminal.listener.close()
    with suppress(OSError):  # accept() does not wake up by a close from another thread, but by a visitor
        Client(address, authkey=KEY).close()
    thread.join(timeout=5)


def environment(terminals: dict[str, FarTerminal]) -> dict[str, str]:
    """What a service must hand on to its gateways."""
    ports = {name.partition("@")[0]: terminal.listener.address[1] for name, terminal in terminals.items()}
    return {PORTS: json.dumps(ports)}
