"""The functions of the MetaTrader5 package that the adapter calls: the real package, or any object that has them.

Signatures are those of the C extension (mt5.md 1.1): positional-only where it refuses keywords. A bridge to a terminal
on another machine (mt5linux) has the same functions as methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Protocol, cast

from dtms_service.broker.structs import (
    Mt5AccountInfo,
    OrderSendResult,
    SymbolInfo,
    TerminalInfo,
    Tick,
    TradeDeal,
    TradeOrder,
    TradePosition,
)

COPY_TICKS_INFO = 1  # ticks that changed bid or ask


class TickRow(Protocol):
    """A row of the ticks array: numpy's record, by field name."""

    def __getitem__(self, name: str, /) -> float: ...


class RateRow(Protocol):
    """A row of the rates array: numpy's record, by field name."""

    def __getitem__(self, name: str, /) -> float: ...


class Mt5Package(Protocol):
    """None (or False) means failure, and ``last_error`` then says which one."""

    def initialize(self, *path: str, **options: object) -> bool: ...
    def shutdown(self) -> None: ...
    def last_error(self) -> tuple[int, str]: ...
    def terminal_info(self) -> TerminalInfo | None: ...
    def account_info(self) -> Mt5AccountInfo | None: ...
    def symbol_info(self, symbol: str, /) -> SymbolInfo | None: ...
    def symbol_info_tick(self, symbol: str, /) -> Tick | None: ...
    def symbol_select(self, symbol: str, enable: bool, /) -> bool: ...
    def copy_ticks_from(self, symbol: str, date_from: int, count: int, flags: int, /) -> Iterable[TickRow] | None: ...
    def copy_rates_from_pos(
        self, symbol: str, timeframe: int, start_pos: int, count: int, /
    ) -> Iterable[RateRow] | None: ...
    def positions_get(self, *, ticket: int = ...) -> tuple[TradePosition, ...] | None: ...
    def orders_get(self, *, ticket: int = ...) -> tuple[TradeOrder, ...] | None: ...
    def history_orders_get(
        self, date_from: int = ..., date_to: int = ..., /, *, ticket: int = ...
    ) -> tuple[TradeOrder, ...] | None: ...
    def history_deals_get(
        self, date_from: int = ..., date_to: int = ..., /, *, position: int = ...
    ) -> tuple[TradeDeal, ...] | None: ...
    def order_send(self, request: Mapping[str, object], /) -> OrderSendResult | None: ...


Load = Callable[[], Mt5Package]
"""Gives the package before each ``initialize``: a bridge that lost its own connection is made anew."""

FUNCTIONS = tuple(sorted(name for name in vars(Mt5Package) if not name.startswith("_")))


def loader(name: str) -> Load:
    """How to get the package. Raises ImportError for a module that is not there, ValueError for a wrong one."""
    module_name, _, maker = name.partition(":")
    module = import_module(module_name)
    known = getattr(module, maker, None) if maker else module
    missing = [function for function in FUNCTIONS if not hasattr(known, function)]
    if missing:
        raise ValueError(f"{name}: no package of MetaTrader 5, it lacks {', '.join(missing)}")

    def load() -> Mt5Package:
        return cast("Mt5Package", known() if maker and callable(known) else known)

    return load
