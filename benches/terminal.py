"""A MetaTrader 5 terminal for a gateway's process: a paper account with a position, and a new price at every look.

It hangs for good, and holds the interpreter as the real package does, while `HANG_FOLDER` has a file of its login's
name.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from dtms_service import symbols
from dtms_service.broker.mt5_api import PaperMt5
from dtms_service.broker.mt5_package import FUNCTIONS
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_symbols import list_symbols
from dtms_service.settings import configuration

HANG_FOLDER: Final = "BENCH_HANG_FOLDER"
PACKAGE: Final = "benches.terminal:Terminal"
SYMBOL: Final = "EURUSD"
BID, SPREAD = 1.1, 0.0001
STOP, TARGET = 1.08, 1.13
_MARKET_ORDER: Final = {"action": 1, "symbol": SYMBOL, "type": 0, "volume": 0.1, "type_filling": 0}


class Terminal:
    """The functions of MetaTrader5."""

    def __init__(self) -> None:
        self._login = ""
        self._mt5: PaperMt5 | None = None

    def initialize(self, *path: str, **options: object) -> bool:
        self._login = str(options["login"])
        self._hang()
        if self._mt5 is None:
            self._broker = _broker(f"{self._login}@{options['server']}")
            self._mt5 = PaperMt5(self._broker)
            self._price()
            self._broker.order_send(_MARKET_ORDER | {"sl": STOP, "tp": TARGET})
        return bool(self._mt5.initialize(*path, login=int(self._login)))

    def call(self, name: str, *arguments: object, **fields: object) -> object:
        if self._mt5 is None:
            return (-10004, "No IPC connection") if name == "last_error" else None
        self._hang()
        if name == "symbol_info_tick":
            self._price()
        return getattr(self._mt5, name)(*arguments, **fields)

    def _price(self) -> None:
        now_msc = max(time.time_ns() // 1_000_000, self._broker.now_msc + 1)
        bid = round(BID + now_msc % 100 * 0.00001, 5)
        self._broker.on_tick(SYMBOL, now_msc, bid, round(bid + SPREAD, 5))

    def _hang(self) -> None:
        folder = os.environ.get(HANG_FOLDER)
        if folder is not None and Path(folder, self._login).exists():
            ctypes.PyDLL(None).sleep(3600)


def _function(name: str) -> Callable[..., object]:
    def function(terminal: Terminal, *arguments: object, **fields: object) -> object:
        return terminal.call(name, *arguments, **fields)

    return function


for _name in FUNCTIONS:
    if _name != "initialize":
        setattr(Terminal, _name, _function(_name))


def _broker(account_id: str) -> PaperBroker:
    shipped = configuration(None, paper=True, given={"data_dir": "unused"}).paper
    assert shipped is not None
    broker = PaperBroker(replace(shipped.to_broker(), account_id=account_id, server_utc_offset_s=0))
    list_symbols(broker, [symbols.load(SYMBOL, {}).spec])
    return broker
