"""The gateway's end of an Attach stream: ticks up and waited for, commands and queries answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from dtms.v1 import gateway_service_pb2, gateway_service_pb2_grpc, market_data_service_pb2
from dtms_client._channel import Target
from dtms_client.errors import OUTAGE, from_rpc
from dtms_service import gateway_messages as messages
from dtms_service.broker.door import (
    AccountInfo,
    BrokerDoor,
    BrokerUnavailable,
    Outcome,
    OutcomeStatus,
    Position,
)
from dtms_service.errors import FatalError, invalid
from dtms_service.fault_points import Point, reach

METHOD = "dtms.v1.GatewayService/Attach"
ASKED_MAX = 10_000  # commands and queries that may wait: as many as a service may have under way
BARS_MAX = 1_000  # in one answer: 50 KB
LEAVE_S = 2.0  # for the service to close a stream that is let go
SENDS = {
    "hello": Point.HELLO_SEND,
    "ticks": Point.TICKS_SEND,
    "positions": Point.POSITIONS_SEND,
    "account": Point.ACCOUNT_SEND,
    "terminal": Point.TERMINAL_SEND,
    "command_result": Point.RESULT_SEND,
    "query_result": Point.QUERY_SEND,
    "recall": Point.RECALL_SEND,
    "ready": Point.READY_SEND,
    "end": Point.END_SEND,
}
ATTACH_TRIES = 3  # a refusal that was lost over our first write comes again; three times in a row it is no accident


class AttachmentLost(FatalError):
    """The stream to the service ended before the history did. Nothing is known of a command under way."""

    def __init__(self, why: str, *, unexplained: bool = False) -> None:
        """``unexplained``: gRPC lost the service's status over a write of ours; a new attempt may tell it."""
        super().__init__(f"lost the service: {why}")
        self.why, self.unexplained = why, unexplained


class Attachment:
    """One stream to the service. A context manager: entering attaches, leaving hangs up.

    Commands and queries are answered one at a time, in the order of their arrival, for a terminal has one thread; they
    are answered whenever they come, also before the service has said "attached" and while a registration is under way.
    What else the service says does not wait behind them.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        target: Target,
        hello: gateway_service_pb2.GatewayHello,
        door: BrokerDoor | None,
    ) -> None:
        """``door`` may be given later, by whoever sees to it that nothing is asked before."""
        self._stub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        self._metadata = target.metadata
        self._hello, self._door = hello, door
        self._write_turn = asyncio.Lock()
        self._seq = 0
        self._attached: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._done: asyncio.Future[None] | None = None
        self._ending = False
        self._executed = 0
        self.symbols = dict.fromkeys(spec.symbol for spec in hello.symbols)
        """Whose prices the service wants: those that were announced, and those that it has asked about."""
        self._lost: BaseException | None = None

    async def __aenter__(self) -> Self:
        """Returns once the service has attached the account. Raises AttachmentLost, or the refusal (DtmsError)."""
        for _ in range(ATTACH_TRIES - 1):
            try:
                return await self._attach()
            except AttachmentLost as lost:
                if not lost.unexplained:
                    raise
        return await self._attach()

    async def _attach(self) -> Self:
        self._attached, self._lost = asyncio.get_running_loop().create_future(), None
        self._call = self._stub.Attach(metadata=self._metadata)
        self._reader = asyncio.create_task(self._read(), name="gateway-stream")
        self._reader.add_done_callback(self._ended)
        try:
            await self._write(gateway_service_pb2.AttachRequest(hello=self._hello))
            await self._answered()
        except BaseException:
            await self._hang_up()
            raise
        return self

    async def _answered(self) -> None:
        """The service has said to the hello what lets this attachment begin."""
        await self._attached

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._hang_up()

    @property
    def _broker(self) -> BrokerDoor:
        if self._door is None:
            raise invalid("message", "the service asks before this gateway is ready")
        return self._door

    @property
    def attached_at_revision(self) -> int:
        return self._attached.result()

    def raise_if_lost(self) -> None:
        """For whoever has nothing to send. Raises AttachmentLost."""
        if self._lost is not None:
            raise self._lost

    @property
    def executed(self) -> int:
        """The last command that was carried out: whatever is read from here on shows what it did."""
        return self._executed

    # --- prices and what else the broker shows ---

    async def send(
        self, symbol: str, ticks: Iterable[market_data_service_pb2.Tick], change_count: int, equity: float | None
    ) -> None:
        """Returns when the service has worked on them: at most one message is under way. Raises AttachmentLost."""
        self._seq += 1
        self._done = asyncio.get_running_loop().create_future()
        message = gateway_service_pb2.GatewayTicks(
            seq=self._seq, symbol=symbol, ticks=ticks, change_count=change_count, equity=equity
        )
        await self._write(gateway_service_pb2.AttachRequest(ticks=message))
        await self._done

    async def tell_positions(self, held: Iterable[Position], change_count: int, after_call_id: int) -> None:
        """``after_call_id`` is what ``executed`` was before they were read. Raises AttachmentLost."""
        message = gateway_service_pb2.GatewayPositions(
            change_count=change_count,
            positions=[messages.position_to_wire(position) for position in held],
            after_call_id=after_call_id,
        )
        await self._write(gateway_service_pb2.AttachRequest(positions=message))

    async def tell_account(self, account: AccountInfo) -> None:
        """Raises AttachmentLost."""
        await self._write(gateway_service_pb2.AttachRequest(account=messages.account_to_wire(account)))

    async def tell_terminal(self, state: gateway_service_pb2.TerminalState) -> None:
        """Raises AttachmentLost."""
        await self._write(gateway_service_pb2.AttachRequest(terminal=state))

    async def leave(self) -> None:
        """Let go of the account: what was said before still arrives. Returns when the service has taken note of it."""
        self._ending = True
        await self._call.done_writing()
        await asyncio.wait([self._reader], timeout=LEAVE_S)

    async def end(self) -> None:
        """Say that the history has ended and wait until the service has closed the stream. Raises AttachmentLost."""
        self._ending = True
        await self._write(gateway_service_pb2.AttachRequest(end=True))
        await self._reader

    # --- the service's side ---

    async def _read(self) -> None:
        """Serve the stream until it ends. Raises AttachmentLost unless the history had ended before."""
        asked: asyncio.Queue[gateway_service_pb2.AttachResponse] = asyncio.Queue(ASKED_MAX)
        listening = asyncio.create_task(self._listen(asked))
        answering = asyncio.create_task(self._answer_each(asked))
        try:
            await asyncio.wait({listening, answering}, return_when=asyncio.FIRST_COMPLETED)
            # Where the stream has ended, it says better than an answer that could not be written why.
            (listening if listening.done() else answering).result()
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        finally:
            for task in (listening, answering):
                task.cancel()
            await asyncio.wait({listening, answering})
        if not self._ending:
            raise AttachmentLost("the service closed the stream")

    async def _listen(self, asked: asyncio.Queue[gateway_service_pb2.AttachResponse]) -> None:
        async for message in self._call:
            match message.WhichOneof("message"):
                case "command" | "query":
                    asked.put_nowait(message)
                case "place":
                    self._take_place(message.place)
                case "attached_at_revision":
                    if not self._attached.done():
                        self._attached.set_result(message.attached_at_revision)
                case "ticks_done":
                    if message.ticks_done != self._seq or self._done is None or self._done.done():
                        raise invalid("ticks_done", f"{message.ticks_done} was not sent last, {self._seq} was")
                    self._done.set_result(None)
                case None:
                    raise invalid("message", "the service sent what this gateway does not know")

    def _take_place(self, place: gateway_service_pb2.RunPlace) -> None:
        raise invalid("place", f"there is no run that could have done {place.done} ticks")

    async def _answer_each(self, asked: asyncio.Queue[gateway_service_pb2.AttachResponse]) -> None:
        while True:
            message = await asked.get()
            if message.HasField("command"):
                await self._carry_out(message.command)
            else:
                await self._answer(message.query)

    def _ended(self, reader: asyncio.Task[None]) -> None:
        """Tell whoever waits why nothing more will come."""
        failure = None if reader.cancelled() else reader.exception()
        self._lost = AttachmentLost("the stream was closed") if failure is None else failure
        for waiting in (self._attached, self._done):
            if waiting is not None and not waiting.done():
                waiting.set_exception(self._lost)
                waiting.exception()  # nobody may be waiting yet, or any more

    async def _carry_out(self, message: gateway_service_pb2.GatewayCommand) -> None:
        command = messages.command_from_wire(message)
        reach(Point.COMMAND_RECEIVED)
        try:
            outcome = await self._broker.execute(command)
        except BrokerUnavailable as error:
            outcome = Outcome(OutcomeStatus.UNKNOWN, 0, str(error))
        self._executed = message.call_id
        result = gateway_service_pb2.CommandResult(
            call_id=message.call_id, outcome=messages.outcome_to_wire(command, outcome)
        )
        await self._write(gateway_service_pb2.AttachRequest(command_result=result))
        reach(Point.RESULT_SENT)

    async def _answer(self, query: gateway_service_pb2.GatewayQuery) -> None:
        reach(Point.QUERY_RECEIVED)
        result = gateway_service_pb2.QueryResult(call_id=query.call_id)
        account_id = self._hello.account_id
        try:
            match query.kind:
                case gateway_service_pb2.QUERY_KIND_ACCOUNT:
                    result.account.CopyFrom(messages.account_to_wire(await self._broker.account(account_id)))
                case gateway_service_pb2.QUERY_KIND_POSITIONS:
                    held = await self._broker.positions(account_id)
                    result.positions.extend(messages.position_to_wire(position) for position in held)
                case gateway_service_pb2.QUERY_KIND_CLOSING_DEALS:
                    deals = await self._broker.closing_deals(account_id, query.position)
                    result.deals.extend(messages.deal_to_wire(deal) for deal in deals)
                case gateway_service_pb2.QUERY_KIND_ORDERS:
                    orders = await self._broker.orders(account_id, query.comment, query.since_msc)
                    result.orders.extend(messages.order_to_wire(order) for order in orders)
                case gateway_service_pb2.QUERY_KIND_SYMBOL:
                    await self._answer_symbol(query.symbol, result)
                case gateway_service_pb2.QUERY_KIND_BARS:
                    await self._answer_bars(query, result)
                case other:
                    raise invalid("query.kind", f"{other} is no kind of query")
        except BrokerUnavailable as error:
            result.error_code, result.error_text = error.code, error.text
        await self._write(gateway_service_pb2.AttachRequest(query_result=result))

    async def _answer_symbol(self, name: str, result: gateway_service_pb2.QueryResult) -> None:
        try:
            spec = await self._broker.symbol(self._hello.account_id, name)
        except KeyError:
            return  # an absent spec is the answer: the broker has no such symbol
        self.symbols[name] = None
        result.spec.CopyFrom(messages.symbol_to_wire(spec))
        result.profit_currency = spec.currency_profit

    async def _answer_bars(
        self, query: gateway_service_pb2.GatewayQuery, result: gateway_service_pb2.QueryResult
    ) -> None:
        count = min(query.count, BARS_MAX)
        try:
            bars = await self._broker.past_bars(self._hello.account_id, query.symbol, query.timeframe_s, count)
        except KeyError:
            return  # no such symbol or length: none
        result.bars.extend(map(messages.bar_to_wire, bars))

    # --- the stream ---

    async def _write(self, message: gateway_service_pb2.AttachRequest) -> None:
        self.raise_if_lost()
        if (kind := message.WhichOneof("message")) is not None:
            reach(SENDS[kind])
        try:
            async with self._write_turn:
                await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise await self._status(error) from error

    async def _status(self, failed_write: Exception) -> Exception:
        """The status that the stream ended with says better than the failed write what happened."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return AttachmentLost(f"the service closed the stream ({failed_write})")
        status = grpc.aio.AioRpcError(
            code,
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            details=await self._call.details(),
        )
        return self._failure(status)

    def _failure(self, status: grpc.aio.AioRpcError) -> Exception:
        """A service that is away may come back; one that refuses to attach would refuse again."""
        error = from_rpc(status, method=METHOD)
        attaching = not (self._attached.done() and self._attached.exception() is None)
        return (
            error
            if attaching and not isinstance(error, OUTAGE)
            else AttachmentLost(str(error), unexplained=attaching and status.code() is grpc.StatusCode.INTERNAL)
        )

    async def _hang_up(self) -> None:
        self._call.cancel()
        self._reader.cancel()
        await asyncio.wait([self._reader])
