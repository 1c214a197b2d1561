"""The door of a shadow run: reads come from the real broker, commands go to the shadow book and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from dtms_service.bars import ClosedBar
from dtms_service.broker.door import (
    AccountInfo,
    BrokerDoor,
    BrokerUnavailable,
    ClosingDeal,
    Command,
    OrderRecord,
    Outcome,
    Position,
    Report,
    SymbolSpec,
)
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.desk import Tick
from dtms_service.errors import DtmsError, Reason, invalid
from dtms_service.shadow.store import ShadowStore, file_of

log = structlog.get_logger(__name__)


class ShadowDoor:
    """Implements :class:`broker.door.BrokerDoor` for one account. ``real.execute`` is called nowhere.

    Each change of the shadow book is on disk before it is answered, with what was seen of the real account.
    """

    def __init__(self, account_id: str, real: BrokerDoor, store: ShadowStore, inner: PaperDoor) -> None:
        self.account_id, self.real = account_id, real
        self._store, self._book, self._inner = store, store.book, inner
        self._turn = asyncio.Lock()
        self._told = 0  # the real account's change count as of the last tick
        self._read = -1  # the one up to which its positions are followed; -1: not at all
        self._followed = False

    async def tick(self, symbol: str, tick: Tick, real_change_count: int) -> int:
        """A price: what the real account did until it, then the shadow's own levels. Answers the book's change count.

        Raises FIELD_INVALID or SYMBOL_UNKNOWN. A real account that cannot be read now is read at the next tick.
        """
        self._told = real_change_count
        if self._read != real_change_count:
            try:
                await self._follow()
            except BrokerUnavailable as error:
                log.warning("real_positions_unknown", account=self.account_id, why=str(error))
        try:
            self._book.take_quote(symbol, tick.time_msc, tick.bid, tick.ask)
        except KeyError:
            raise DtmsError(Reason.SYMBOL_UNKNOWN, f"no symbol {symbol}", metadata={"symbol": symbol[:100]}) from None
        except ValueError as error:
            raise invalid("ticks", str(error)) from None
        self._store.save()
        return self._book.change_count

    async def _follow(self) -> None:
        """Reads first, then changes the book in one step. Raises BrokerUnavailable; then nothing was changed."""
        async with self._turn:
            told = self._told
            report = await self.real.report(self.account_id, self._read)
            held = {position.ticket: position for position in report.positions}
            asked = self._book.wants_deals(held, report.changed)
            deals = {ticket: await self.real.closing_deals(self.account_id, ticket) for ticket in asked}
            proven = self._book.follow(held, deals, report.changed)
            self._store.save()
            self._read = told if proven else -1
            self._followed = True

    async def execute(self, command: Command) -> Outcome:
        if command.position and self._book.find_position(command.position) is None:
            await self._follow()  # opened and registered since the last tick
        outcome = await self._inner.execute(command)
        self._store.save()
        return outcome

    async def account(self, account_id: str) -> AccountInfo:
        """The shadow's; before its positions have prices again, what floats at the real account is taken for theirs."""
        info = await self._inner.account(account_id)
        if self._book.is_valued:
            return info
        real = await self.real.account(account_id)
        return replace(info, equity=info.balance + real.equity - real.balance)

    @property
    def equity(self) -> float | None:
        """The shadow's; None while a position has no price."""
        return self._book.account().equity if self._book.is_valued else None

    async def symbol(self, account_id: str, name: str) -> SymbolSpec:
        spec = await self.real.symbol(account_id, name)
        list_symbols(self._store, [spec])
        return spec

    async def positions(self, account_id: str) -> list[Position]:
        await self._require_followed()
        return await self._inner.positions(account_id)

    async def report(self, account_id: str, since: int) -> Report:
        await self._require_followed()
        return await self._inner.report(account_id, since)

    async def closing_deals(self, account_id: str, position: int) -> list[ClosingDeal]:
        """Of a position that was gone before the book could take it in: the real ones."""
        deals = await self._inner.closing_deals(account_id, position)
        if not deals and position not in self._book.real and self._book.find_position(position) is None:
            return await self.real.closing_deals(account_id, position)
        return deals

    async def past_bars(self, account_id: str, symbol: str, timeframe_s: int, count: int) -> list[ClosedBar]:
        return await self.real.past_bars(account_id, symbol, timeframe_s, count)

    @property
    def settles_at_once(self) -> bool:
        """Commands go to the shadow book, which is at hand."""
        return True

    async def orders(self, account_id: str, comment: str, since_msc: int) -> list[OrderRecord]:
        return await self._inner.orders(account_id, comment, since_msc)

    async def _require_followed(self) -> None:
        if not self._followed:
            await self._follow()


def list_symbols(store: ShadowStore, specs: Sequence[SymbolSpec]) -> None:
    """FIELD_INVALID for a symbol whose money nothing converts into that of the account."""
    try:
        if store.book.list_or_change(specs):
            store.save_symbols()
    except ValueError as error:
        raise invalid("symbols", f"{error} (shadow mode: shadow_conversion_rates)") from None


class Shadows:
    """The shadow doors of a service, by account. A book outlives the gateway that serves its account."""

    def __init__(self, data_dir: Path, conversion_rates: Mapping[str, float]) -> None:
        self._data_dir, self._conversion_rates = data_dir, dict(conversion_rates)
        self._stores: dict[str, tuple[ShadowStore, PaperDoor]] = {}
        self._doors: dict[str, ShadowDoor] = {}

    async def door_before(self, account_id: str, real: BrokerDoor, symbols: Sequence[str]) -> ShadowDoor:
        """The door to serve instead of ``real``. Raises what that raises; FIELD_INVALID for another kind of account."""
        info = await real.account(account_id)
        specs = [await real.symbol(account_id, symbol) for symbol in symbols]
        if account_id not in self._stores:
            store = ShadowStore.create_or_open(file_of(self._data_dir, account_id), info, self._conversion_rates)
            self._stores[account_id] = (store, PaperDoor({account_id: store.book}))
        store, inner = self._stores[account_id]
        if (info.hedging, info.currency) != (store.book.config.hedging, store.book.config.currency):
            raise invalid("account_id", f"{account_id} has another currency or way of hedging than its shadow book")
        list_symbols(store, specs)
        return ShadowDoor(account_id, real, store, inner)

    def serve(self, door: ShadowDoor) -> None:
        """The door is attached: prices of its account go through it."""
        self._doors[door.account_id] = door

    def door_of(self, account_id: str, real: BrokerDoor) -> BrokerDoor:
        """The shadow door that is served instead of ``real``; itself where none is."""
        door = self._doors.get(account_id)
        return door if door is not None and door.real is real else real

    async def tick(self, account_id: str, symbol: str, tick: Tick, real_change_count: int) -> int:
        """See :meth:`ShadowDoor.tick`."""
        return await self._doors[account_id].tick(symbol, tick, real_change_count)

    def equity(self, account_id: str) -> float | None:
        """See :attr:`ShadowDoor.equity`."""
        return self._doors[account_id].equity

    def close(self) -> None:
        for store, _inner in self._stores.values():
            store.close()
