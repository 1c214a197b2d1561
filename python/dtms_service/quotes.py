"""Latest quote of each instrument and latest value of each index, for whoever watches: conflated.

Quotes are never journaled; indices are, and come from the engine.
"""

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


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed after some count: quotes by account and symbol, indices (``Index``) by name."""

    count: int
    quotes: list[Quoted]
    indices: list[Mapping[str, Any]]


class Quotes:
    """One counter for all, one wake-up for all readers: a slow one misses ticks in between, never the last.

    ``read`` answers with the engine's quote of (account_id, symbol), or None before its first tick; ``read_indices``
    with all indices by name.
    """

    def __init__(
        self,
        read: Callable[[str, str], Mapping[str, Any] | None],
        read_indices: Callable[[], Iterable[Mapping[str, Any]]],
    ) -> None:
        self._read = read
        self._read_indices = read_indices
        self._specs: dict[Instrument, SymbolSpec] = {}
        self._changes: dict[Instrument, int] = {}
        self._index_changes: dict[str, int] = {}
        self._count = 1  # a reader that has seen nothing stands at 0
        self._index_count = 0
        self._changed = asyncio.Event()

    def describe(self, account_id: str, spec: SymbolSpec) -> None:
        """Rules of a symbol, before its first tick or anew."""
        self._specs[account_id, spec.name] = spec

    def knows(self, account_id: str, symbol: str) -> bool:
        return (account_id, symbol) in self._specs

    def changed(self, account_id: str, symbol: str) -> None:
        self._count += 1
        self._changes[account_id, symbol] = self._count
        self._changed.set()

    def index_changed(self, name: str) -> None:
        self._count += 1
        self._index_count = self._index_changes[name] = self._count
        self._changed.set()

    def since(self, count: int) -> Changes:
        """What changed after ``count``; after 0 everything that is known."""
        quotes = [
            Quoted(account_id, self._specs[account_id, symbol], view)
            for (account_id, symbol), changed in sorted(self._changes.items())
            if changed > count and (view := self._read(account_id, symbol)) is not None
        ]
        indices: list[Mapping[str, Any]] = []
        if not count or self._index_count > count:
            indices = [i for i in self._read_indices() if not count or self._index_changes.get(i["name"], 0) > count]
        return Changes(self._count, quotes, indices)

    async def watch(
        self, account_id: str, symbols: Iterable[str], min_interval_s: float = 0.0
    ) -> AsyncIterator[Changes]:
        """First all that match, then what changed since, no sooner than ``min_interval_s`` after the last.

        Empty arguments mean all; indices always match.
        """
        wanted, count = frozenset(symbols), 0
        while True:
            changed = self._changed
            found = self.since(count)
            count = found.count
            quotes = [
                quoted
                for quoted in found.quotes
                if (not account_id or quoted.account_id == account_id) and (not wanted or quoted.spec.name in wanted)
            ]
            if quotes or found.indices:
                yield Changes(found.count, quotes, found.indices)
                if min_interval_s:
                    await asyncio.sleep(min_interval_s)
            elif changed.is_set():
                self._changed = asyncio.Event()
            else:
                await changed.wait()
