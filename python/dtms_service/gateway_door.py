"""The service's end of a gateway stream: a broker door whose broker stands behind the network.

A command whose answer does not come (deadline, lost stream) is UNKNOWN, a query then is BrokerUnavailable: the caller
learns that nothing is known, never that nothing happened. Only a command that was never handed to the stream is
REJECTED, for that is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from dtms.v1 import gateway_service_pb2
from dtms_service import gateway_messages as messages
from dtms_service.bars import ClosedBar
from dtms_service.broker.door import (
    AccountInfo,
    BrokerUnavailable,
    ClosingDeal,
    Command,
    OrderRecord,
    Outcome,
    OutcomeStatus,
    Position,
    Report,
    SymbolSpec,
)
from dtms_service.broker.retcodes import COMMENTS, LAST_ERROR_TEXTS, LastError, Retcode
from dtms_service.errors import invalid
from dtms_service.fault_points import Point, reach

Send = Callable[[gateway_service_pb2.AttachResponse], Awaitable[None]]
Missed = Callable[[str], None]

# Calls under way at once. The core has one intent a trade in flight and the monitor one query: more means that the
# gateway has stopped answering, and waiting for it must not take the service's memory.
PENDING_CALLS_MAX: Final = 10_000
# A terminal answers within a second or two even at a bad moment; the executor's own deadline is 30 s.
CALL_DEADLINE_S: Final = 10.0


class StreamLost(Exception):
    """The answer will not come on this stream."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call under way; its future gets the answer of the kind that fits it."""

    field: str
    message: gateway_service_pb2.AttachResponse
    answer: asyncio.Future[gateway_service_pb2.CommandResult | gateway_service_pb2.QueryResult]


class GatewayDoor:
    """Implements :class:`broker.door.BrokerDoor` for one account over one Attach stream.

    ``send`` hands a message to the stream, in the order of the calls, and may be called again while it waits (a queue's
    ``put``). The owner of the stream gives every command_result and query_result to :meth:`handle`, and calls
    :meth:`lost` when the stream ends. ``deadline_s`` holds for each call, from its sending to its answer; ``on_missed``
    is told of each that missed it.
    """

    def __init__(
        self, send: Send, *, deadline_s: float = CALL_DEADLINE_S, on_missed: Missed = lambda _what: None
    ) -> None:
        if not deadline_s > 0:
            raise ValueError(f"deadline_s: must be > 0, is {deadline_s}")
        self._send, self._deadline_s, self._on_missed = send, deadline_s, on_missed
        self._calls: dict[int, _Call] = {}
        self._last_call_id = self._last_command = 0
        self._told: list[Position] | None = None
        self._lost_because: str | None = None

    @property
    def pending(self) -> int:
        """Calls under way."""
        return len(self._calls)

    # --- the stream ---

    def handle(self, message: gateway_service_pb2.AttachRequest) -> bool:
        """Take an answer; True if somebody still waited for it (an answer after its deadline comes to nobody).

        Raises FIELD_INVALID for a message that is no answer, or the answer to a call that was never made.
        """
        field = message.WhichOneof("message")
        if field == "command_result":
            return self._resolve(field, message.command_result.call_id, message.command_result)
        if field == "query_result":
            return self._resolve(field, message.query_result.call_id, message.query_result)
        raise invalid("message", f"{field or 'nothing'} is no answer to a call")

    def _resolve(
        self, field: str, call_id: int, result: gateway_service_pb2.CommandResult | gateway_service_pb2.QueryResult
    ) -> bool:
        if not 0 < call_id <= self._last_call_id:
            raise invalid(f"{field}.call_id", f"no call {call_id} was made")
        call = self._calls.get(call_id)
        if call is None or call.answer.done():
            return False
        if call.field != field:
            raise invalid(f"{field}.call_id", f"call {call_id} waits for a {call.field}")
        call.answer.set_result(result)
        return True

    def told(self, pushed: gateway_service_pb2.GatewayPositions) -> None:
        """All positions, as the gateway saw them change: the next report shows them, unless a command of which they
        know nothing was sent. An answer to such a question would come behind that command."""
        in_flight = any(call.field == "command_result" for call in self._calls.values())
        is_older = in_flight or pushed.after_call_id < self._last_command
        self._told = None if is_older else [messages.position_from_wire(position) for position in pushed.positions]

    def lost(self, why: str) -> None:
        """The stream has ended: everybody who waits is told now, later calls at once. Idempotent."""
        if self._lost_because is None:
            self._lost_because = why
            for call in self._calls.values():
                if not call.answer.done():
                    call.answer.set_exception(StreamLost(why))

    async def reopen(self, send: Send) -> None:
        """The gateway is there again, on another stream: whoever waits asks once more.

        For a gateway that knows what it has carried out before and answers as it did then, which is one in lockstep.
        """
        self._send = send
        for call in list(self._calls.values()):
            if not call.answer.done():
                await self._hand_over(call.message)

    # --- the door ---

    async def execute(self, command: Command) -> Outcome:
        if self._lost_because is not None or len(self._calls) >= PENDING_CALLS_MAX:
            return Outcome(OutcomeStatus.REJECTED, Retcode.CONNECTION, COMMENTS[Retcode.CONNECTION])
        self._told = None
        call_id = self._last_command = self._next_call_id()
        message = gateway_service_pb2.AttachResponse(command=messages.command_to_wire(call_id, command))
        try:
            result = await self._call(call_id, "command_result", message)
        except TimeoutError:
            self._on_missed(f"{command.kind.name} for trade {command.ticket}: no answer within {self._deadline_s:g} s")
            return Outcome(OutcomeStatus.UNKNOWN, 0, f"no answer within {self._deadline_s:g} s")
        except StreamLost as error:
            return Outcome(OutcomeStatus.UNKNOWN, 0, f"gateway lost: {error}")
        assert isinstance(result, gateway_service_pb2.CommandResult), "handle() matched it with the call"
        return messages.outcome_from_wire(result.outcome)

    async def account(self, account_id: str) -> AccountInfo:  # noqa: ARG002  # one stream, one account
        result = await self._query(gateway_service_pb2.QUERY_KIND_ACCOUNT, "account")
        if not result.HasField("account"):
            raise invalid("query_result.account", "is required")
        return messages.account_from_wire(result.account)

    async def symbol(self, account_id: str, name: str) -> SymbolSpec:  # noqa: ARG002  # one stream, one account
        result = await self._query(gateway_service_pb2.QUERY_KIND_SYMBOL, "symbol", symbol=name)
        if not result.HasField("spec"):
            raise KeyError(name)
        return messages.symbol_from_wire(result.spec, result.profit_currency)

    async def positions(self, account_id: str) -> list[Position]:  # noqa: ARG002  # one stream, one account
        result = await self._query(gateway_service_pb2.QUERY_KIND_POSITIONS, "positions")
        return [messages.position_from_wire(position) for position in result.positions]

    async def report(self, account_id: str, since: int) -> Report:  # noqa: ARG002  # a gateway sends everything
        """What was told, once; else what is asked for."""
        told, self._told = self._told, None
        return Report(await self.positions(account_id) if told is None else told, changed=None)

    async def closing_deals(self, account_id: str, position: int) -> list[ClosingDeal]:  # noqa: ARG002  # one stream, one account
        result = await self._query(gateway_service_pb2.QUERY_KIND_CLOSING_DEALS, "closing_deals", position=position)
        return [messages.deal_from_wire(deal) for deal in result.deals]

    async def past_bars(self, account_id: str, symbol: str, timeframe_s: int, count: int) -> list[ClosedBar]:  # noqa: ARG002  # one stream, one account
        result = await self._query(
            gateway_service_pb2.QUERY_KIND_BARS, "past_bars", symbol=symbol, timeframe_s=timeframe_s, count=count
        )
        return [messages.bar_from_wire(bar) for bar in result.bars]

    @property
    def settles_at_once(self) -> bool:
        """A command may still lie in the gateway or its terminal when the service believes it lost."""
        return False

    async def orders(self, account_id: str, comment: str, since_msc: int) -> list[OrderRecord]:  # noqa: ARG002  # one stream, one account
        result = await self._query(
            gateway_service_pb2.QUERY_KIND_ORDERS, "orders", comment=comment, since_msc=since_msc
        )
        return [messages.order_from_wire(order) for order in result.orders]

    # --- calls ---

    async def _query(
        self,
        kind: gateway_service_pb2.QueryKind.ValueType,
        operation: str,
        *,
        symbol: str = "",
        position: int = 0,
        timeframe_s: int = 0,
        count: int = 0,
        comment: str = "",
        since_msc: int = 0,
    ) -> gateway_service_pb2.QueryResult:
        if self._lost_because is not None or len(self._calls) >= PENDING_CALLS_MAX:
            raise BrokerUnavailable(
                operation, Retcode.CONNECTION, self._lost_because or "too many calls wait for the gateway"
            )
        call_id = self._next_call_id()
        query = gateway_service_pb2.GatewayQuery(
            call_id=call_id,
            kind=kind,
            symbol=symbol,
            position=position,
            timeframe_s=timeframe_s,
            count=count,
            comment=comment,
            since_msc=since_msc,
        )
        try:
            result = await self._call(call_id, "query_result", gateway_service_pb2.AttachResponse(query=query))
        except TimeoutError:
            self._on_missed(f"{operation}: no answer within {self._deadline_s:g} s")
            code = LastError.INTERNAL_FAIL_TIMEOUT
            raise BrokerUnavailable(operation, code, f"no answer within {self._deadline_s:g} s") from None
        except StreamLost as error:
            raise BrokerUnavailable(operation, Retcode.CONNECTION, f"gateway lost: {error}") from None
        assert isinstance(result, gateway_service_pb2.QueryResult), "handle() matched it with the call"
        if result.error_code:
            raise BrokerUnavailable(operation, result.error_code, result.error_text or _error_text(result.error_code))
        return result

    async def _call(
        self, call_id: int, field: str, message: gateway_service_pb2.AttachResponse
    ) -> gateway_service_pb2.CommandResult | gateway_service_pb2.QueryResult:
        """Raises TimeoutError, or StreamLost, also for whatever the stream raises while it takes the message."""
        call = _Call(field, message, asyncio.get_running_loop().create_future())
        self._calls[call_id] = call
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._hand_over(message)
                return await call.answer
        finally:
            del self._calls[call_id]
            if call.answer.done() and not call.answer.cancelled():
                call.answer.exception()  # lost while the message was still being sent: told by the sending

    async def _hand_over(self, message: gateway_service_pb2.AttachResponse) -> None:
        try:
            await self._send(message)
        except Exception as error:
            # Half a message may have left: whatever went wrong here, this stream can prove nothing any more.
            self.lost(f"{type(error).__name__}: {error}")
            raise StreamLost(self._lost_because) from error
        reach(Point.MESSAGE_SENT)

    def _next_call_id(self) -> int:
        self._last_call_id += 1
        return self._last_call_id


def _error_text(code: int) -> str:
    return LAST_ERROR_TEXTS[LastError(code)] if code in set(LastError) else ""
