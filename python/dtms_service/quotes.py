"""Latest quote of each instrument for whoever watches: conflated, never journaled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dtms_service.broker.door import SymbolSpec

Instrument = tuple[str, str]  # account_id, symbol


@dataclass(frozen=True, slots=True)
class Quoted:
    """A quote as the engine has it, with the rules of its symbol."""

    account_id: str
    spec: SymbolSpec
    view: Mapping[str, Any]


class Quotes:
    """One counter per instrument, one wake-up for all readers: a slow one misses ticks in between, never the last.

    ``read`` answers with the engine's quote of (account_id, symbol), or None before its first tick.
    """

    def __init__(self, read: Callable[[str, str], Mapping[str, Any] | None]) -> None:
        self._read = read
        self._specs: dict[Instrument, SymbolSpec] = {}
        self._changes: dict[Instrument, int] = {}
        self._count = 0
        self._changed = asyncio.Event()

    def describe(self, account_id: str, spec: SymbolSpec) -> None:
        """Rules of a symbol, before its first tick or anew."""
        self._specs[account_id, spec.name] = spec

    def changed(self, account_id: str, symbol: str) -> None:
        self._count += 1
        self._changes[account_id, symbol] = self._count
        self._changed.set()

    def since(self, count: int) -> tuple[int, list[Quoted]]:
        """The counter now, and the quotes that changed after ``count``, by account and symbol."""
        return self._count, [
            Quoted(account_id, self._specs[account_id, symbol], view)
            for (account_id, symbol), changed in sorted(self._changes.items())
            if changed > count and (view := self._read(account_id, symbol)) is not None
        ]

    async def watch(self, account_id: str, symbols: Iterable[str]) -> AsyncIterator[list[Quoted]]:
        """First all that match, then what changed since the last batch. Empty arguments mean all."""
        wanted, count = frozenset(symbols), 0
        while True:
            changed = self._changed
            count, quotes = self.since(count)
            quotes = [
                quoted
                for quoted in quotes
                if (not account_id or quoted.account_id == account_id) and (not wanted or quoted.spec.name in wanted)
            ]
            if quotes:
                yield quotes
            elif changed.is_set():
                self._changed = asyncio.Event()
            else:
                await changed.wait()
