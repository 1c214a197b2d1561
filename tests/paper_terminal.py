"""A MetaTrader 5 terminal for another process: the paper broker's API of this one, over a socket of its own.

The test serves it with `serving`; the process that is to use it imports this module by name, as it would import a
bridge to a terminal on another machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener
from types import SimpleNamespace
from typing import Any

from dtms_service.broker.mt5_api import FUNCTIONS, PaperMt5
from dtms_service.broker.paper import PaperBroker

PORT = "PAPER_TERMINAL_PORT"
KEY = b"a terminal of the tests"

_line: list[Connection] = []


def _call(name: str, *arguments: object, **fields: object) -> Any:
    if not _line:
        _line.append(Client(("127.0.0.1", int(os.environ[PORT])), authkey=KEY))
    _line[0].send((name, arguments, fields))
    return _line[0].recv()


def __getattr__(name: str) -> Any:
    if name not in FUNCTIONS:
        raise AttributeError(name)
    return lambda *arguments, **fields: _call(name, *arguments, **fields)


class Serving:
    """What other processes have asked for, in order."""

    def __init__(self, broker: PaperBroker) -> None:
        self.broker = broker
        self.mt5 = PaperMt5(broker)
        self.calls: list[tuple[str, dict[str, object]]] = []
        self.listener = Listener(("127.0.0.1", 0), authkey=KEY)
        self.lock = threading.Lock()
        """Held while the broker is in use."""

    @property
    def port(self) -> str:
        return str(self.listener.address[1])

    @property
    def orders(self) -> list[Any]:
        """The requests to the broker."""
        return [fields["request"] for name, fields in self.calls if name == "order_send"]

    def run(self) -> None:
        """One program after the other, until the listener is closed."""
        while True:
            try:
                line = self.listener.accept()
            except OSError:
                return
            with line:
                self._answer(line)

    def _answer(self, line: Connection) -> None:
        while True:
            try:
                name, arguments, fields = line.recv()
            except (EOFError, OSError):
                return
            self.calls.append((name, fields | ({"request": arguments[0]} if name == "order_send" else {})))
            with self.lock:
                answer = _plain(getattr(self.mt5, name)(*arguments, **fields))
            line.send(answer)


def _plain(answer: Any) -> Any:
    """Structs as plain objects, which other processes can read."""
    if hasattr(answer, "_asdict"):
        return SimpleNamespace(**{name: _plain(value) for name, value in answer._asdict().items()})
    if isinstance(answer, tuple):
        return tuple(_plain(each) for each in answer)
    return answer


@contextmanager
def serving(broker: PaperBroker) -> Iterator[Serving]:
    """A thread that answers for the broker."""
    terminal = Serving(broker)
    thread = threading.Thread(target=terminal.run, daemon=True)
    thread.start()
    try:
        yield terminal
    finally:
        # accept() does not wake up by a close from another thread, but by a visitor.
        address = terminal.listener.address
        terminal.listener.close()
        with suppress(OSError):
            Client(address, authkey=KEY).close()
        thread.join(timeout=5)
