"""The embedded paper account: a broker inside of the service, fed by StreamTicks, that keeps its books on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dtms_service.bars import ClosedBar
from dtms_service.broker.broker_log import BrokerLog
from dtms_service.broker.door import (
    AccountInfo,
    BrokerDoor,
    ClosingDeal,
    Command,
    OrderRecord,
    Outcome,
    Position,
    Report,
    Side,
    SymbolSpec,
)
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.broker.paper_store import PaperStore
from dtms_service.broker.recorded import RecordedDoor
from dtms_service.broker.structs import OrderSendResult
from dtms_service.errors import DtmsError, Reason, invalid


class _Tick(Protocol):
    @property
    def time_msc(self) -> int: ...
    @property
    def bid(self) -> float: ...
    @property
    def ask(self) -> float: ...


class PaperAccount:
    """A :class:`broker.door.BrokerDoor` whose broker is at hand. Each change is on disk before it is answered.

    ``log`` gets the deals of the broker; its requests are there if the broker is a :class:`recorded.RecordedBroker`.
    """

    def __init__(self, broker: PaperBroker, store: PaperStore | None, log: BrokerLog | None = None) -> None:
        self.broker = broker
        door = PaperDoor({broker.config.account_id: broker})
        self._door: BrokerDoor = door if log is None else RecordedDoor(door)
        self._store = store
        self._log = log

    @property
    def account_id(self) -> str:
        return self.broker.config.account_id

    @property
    def change_count(self) -> int:
        return self.broker.change_count

    def on_tick(self, symbol: str, tick: _Tick) -> None:
        """A new price: stops and targets trigger. Raises FIELD_INVALID or SYMBOL_UNKNOWN."""
        try:
            made = self.broker.on_tick(symbol, tick.time_msc, tick.bid, tick.ask)
        except KeyError:
            raise symbol_unknown(symbol) from None
        except ValueError as error:
            raise invalid("ticks", str(error)) from None
        if made and self._log is not None:
            self._log.deals(made)
        self._save()

    def by_hand(self, trade: Callable[[ForeignActor], OrderSendResult]) -> OrderSendResult:
        """What a trader or an entry bot does on the account, past DTMS. Raises TRADE_UNKNOWN, SYMBOL_UNKNOWN."""
        try:
            result = trade(ForeignActor(self.broker))
        except KeyError as error:
            raise invalid("ticket or symbol", f"the paper broker has no {error.args[0]}") from None
        self._save()
        return result

    def position(self, ticket: int) -> Position | None:
        return self.broker.position(ticket)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        if self._log is not None:
            self._log.close()

    async def execute(self, command: Command) -> Outcome:
        outcome = await self._door.execute(command)
        self._save()
        return outcome

    async def account(self, account_id: str) -> AccountInfo:
        return await self._door.account(account_id)

    async def symbol(self, account_id: str, name: str) -> SymbolSpec:
        return await self._door.symbol(account_id, name)

    async def positions(self, account_id: str) -> list[Position]:
        return await self._door.positions(account_id)

    async def report(self, account_id: str, since: int) -> Report:
        return await self._door.report(account_id, since)

    async def closing_deals(self, account_id: str, position: int) -> list[ClosingDeal]:
        return await self._door.closing_deals(account_id, position)

    async def past_bars(self, account_id: str, symbol: str, timeframe_s: int, count: int) -> list[ClosedBar]:
        return await self._door.past_bars(account_id, symbol, timeframe_s, count)

    @property
    def settles_at_once(self) -> bool:
        return True

    async def orders(self, account_id: str, comment: str, since_msc: int) -> list[OrderRecord]:
        return await self._door.orders(account_id, comment, since_msc)

    def _save(self) -> None:
        if self._store is not None:
            self._store.save()


def symbol_unknown(symbol: str) -> DtmsError:
    return DtmsError(Reason.SYMBOL_UNKNOWN, f"no symbol {symbol}", metadata={"symbol": symbol[:100]})


__all__ = ["PaperAccount", "Side", "symbol_unknown"]
