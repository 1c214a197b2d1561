"""A paper broker and its door that tell a log what they were asked and what they answered."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from dtms_service.bars import ClosedBar
from dtms_service.broker.door import (
    AccountInfo,
    BrokerDoor,
    ClosingDeal,
    Command,
    CommandKind,
    OrderRecord,
    Outcome,
    Position,
    Report,
    SymbolSpec,
)
from dtms_service.broker.faults import AT_ONCE, Fill
from dtms_service.broker.mt5_enums import DealReason
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_config import PaperConfig
from dtms_service.broker.structs import OrderSendResult

# Which command a request at the broker belongs to. A context variable follows the command through every await of its
# own task and through none of another's, so a request by anybody else in between is not mistaken for it.
_carried_out: ContextVar[Command | None] = ContextVar("_carried_out", default=None)


class Held(NamedTuple):
    """A position around a request. Levels are None where there are none."""

    volume: float
    sl: float | None
    tp: float | None


class RequestLog(Protocol):
    def request(
        self,
        time_msc: int,
        result: OrderSendResult,
        command: Command | None,
        *,
        named: frozenset[str],
        before: Held | None,
        after: Held | None,
    ) -> None:
        """One request that reached the trade server. ``command`` is None unless it came through the recorded door.

        ``named`` are the fields that the request had; ``before`` and ``after`` are the position that it was about.
        """


class RecordedBroker(PaperBroker):
    """A paper broker that logs every request its trade server decides, in order."""

    def __init__(self, config: PaperConfig, log: RequestLog) -> None:
        super().__init__(config)
        self._log = log

    def order_send(
        self, request: Mapping[str, object], *, reason: DealReason = DealReason.EXPERT, fill: Fill = AT_ONCE
    ) -> OrderSendResult:
        about = request.get("position")
        before = self._held(about) if isinstance(about, int) else None
        result = super().order_send(request, reason=reason, fill=fill)
        after = self._held(result.request.position or result.order)
        self._log.request(
            self.now_msc, result, _carried_out.get(), named=frozenset(request), before=before, after=after
        )
        return result

    def _held(self, ticket: int) -> Held | None:
        position = self.position(ticket)
        return None if position is None else Held(position.volume, position.sl, position.tp)


class RecordedDoor:
    """A door that remembers which position belongs to which trade, and marks its requests for the log.

    A position that a command opened is known by the order in the outcome or, where the reply was lost or the fill came
    later, by the command's magic and comment, which the executor makes unique for each command.
    """

    def __init__(self, door: BrokerDoor) -> None:
        self._door = door
        self._trade_of_order: dict[int, int] = {}
        self._trade_of_mark: dict[tuple[int, str], int] = {}

    def trade_of(self, ticket: int, magic: int, comment: str) -> int | None:
        """The trade that a position is a leg of; None for a position that no command opened."""
        return self._trade_of_order.get(ticket) or self._trade_of_mark.get((magic, comment))

    async def execute(self, command: Command) -> Outcome:
        opens = command.kind is CommandKind.OPEN
        if opens:
            self._trade_of_mark[command.magic, command.comment] = command.ticket
        marked = _carried_out.set(command)
        try:
            outcome = await self._door.execute(command)
        finally:
            _carried_out.reset(marked)
        if opens and outcome.order:
            self._trade_of_order[outcome.order] = command.ticket
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
        return self._door.settles_at_once

    async def orders(self, account_id: str, comment: str, since_msc: int) -> list[OrderRecord]:
        return await self._door.orders(account_id, comment, since_msc)
