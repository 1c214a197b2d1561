"""Latest quote of each instrument for whoever watches: conflated, never journaled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from dtms.v1 import market_data_service_pb2 as pb

Instrument = tuple[str, str]


class Quotes:
    """One counter per instrument, one wake-up for all readers: a slow one misses ticks in between, never the last.

    ``read`` answers with the engine's quote of (account_id, symbol), or None before its first tick.
    """

    def __init__(self, read: Callable[[str, str], Mapping[str, Any] | None]) -> None:
        self._read = read
        self._changes: dict[Instrument, int] = {}
        self._count = 0
        self._changed = asyncio.Event()

    def changed(self, account_id: str, symbol: str) -> None:
        self._count += 1
        self._changes[account_id, symbol] = self._count
        self._changed.set()

    def since(self, count: int) -> tuple[int, list[pb.Quote]]:
        """The counter now, and the quotes that changed after ``count``, by account and symbol."""
        return self._count, [
            quote
            for (account_id, symbol), changed in sorted(self._changes.items())
            if changed > count and (quote := self.quote(account_id, symbol)) is not None
        ]

    def quote(self, account_id: str, symbol: str) -> pb.Quote | None:
        view = self._read(account_id, symbol)
        return None if view is None else pb.Quote(account_id=account_id, symbol=symbol, **view)

    async def watch(self, account_id: str, symbols: Iterable[str]) -> AsyncIterator[list[pb.Quote]]:
        """First all that match, then what changed since the last batch. Empty arguments mean all."""
        wanted, count = frozenset(symbols), 0
        while True:
            self._changed.clear()
            count, quotes = self.since(count)
            quotes = [
                quote
                for quote in quotes
                if (not account_id or quote.account_id == account_id) and (not wanted or quote.symbol in wanted)
            ]
            if quotes:
                yield quotes
            else:
                await self._changed.wait()
