"""The driver's way to a service that may be killed, from a gateway that may have been killed.

Whichever was started again, the history is driven from its first tick: what was done with before is done again on this
side only, with the commands that the broker had obeyed, until the driver comes to the place where the run stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import grpc.aio

from dtms.v1 import gateway_service_pb2, market_data_service_pb2
from dtms_client._channel import Target
from dtms_client.errors import LOST, Internal, from_rpc
from dtms_service.broker.command_log import CommandLog, LoggedDoor
from dtms_service.errors import invalid
from dtms_service.gateway.link import METHOD, Attachment, AttachmentLost
from dtms_service.history import Tick
from dtms_service.replay.driver import Registration, ScoreReading
from dtms_service.replay.job import HistoryRun
from dtms_service.replay.trader import Trader

RECALLED_AT_ONCE: Final = 1_000  # ticks in a message: 40 KB
TICKS_PER_TURN: Final = 256  # that are done again before the stream has its turn: some milliseconds

T = TypeVar("T")


class LockstepLink(Attachment):
    """Implements :class:`driver.Link`: a history in lockstep, and an entry bot that registers what it opens.

    Entering it asks the service where the run stands (``place``); ``begin`` says what is driven.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        target: Target,
        hello: gateway_service_pb2.GatewayHello,
        trader: Trader,
        log: CommandLog,
    ) -> None:
        super().__init__(channel, target, hello, None)
        self._trader, self._log, self._last_call = trader, log, 0
        self._placed: asyncio.Future[gateway_service_pb2.RunPlace] = asyncio.get_running_loop().create_future()
        self._run: HistoryRun | None = None
        self._tick_number = self._bars = 0
        self._recalled: list[market_data_service_pb2.Tick] = []
        self._is_live = False

    @property
    def place(self) -> gateway_service_pb2.RunPlace:
        return self._placed.result()

    def begin(self, run: HistoryRun) -> None:
        """Before anything else: the run, its books as they are before the first tick."""
        self._run, self._door, self._last_call = run, run.door, self._log.last_call()

    # --- the driver's side ---

    async def register(self, registration: Registration) -> None:
        self._door_of_run.call += 1
        if not self._is_live and not await self._is_registration_next():
            return
        await self._live()
        self._log.note_call(self._door_of_run.call)
        await self._asked(self._trader.register(registration))

    async def tick(self, symbol: str, tick: Tick, change_count: int, equity: float | None) -> None:
        self._door_of_run.call += 1
        self._tick_number += 1
        told = market_data_service_pb2.Tick(time_msc=tick.time_msc, bid=tick.bid, ask=tick.ask, volume=tick.volume)
        if not self._is_live:
            is_done = self._tick_number <= self.place.done
            if is_done or not self.place.recall:
                await self._door_of_run.redo()
            if is_done:
                await self._recall(symbol, told)
                return
            await self._live()
        self._seq = self._tick_number - 1
        await self.send(symbol, (told,), change_count, equity)

    async def score(self, symbol: str) -> ScoreReading:
        number, self._bars = self._bars, self._bars + 1
        known = self._of_run.known_scores
        if number < len(known):
            return known[number]
        await self._live()
        return await self._asked(self._trader.score(symbol))

    async def risk_distance(self, ticket: int) -> float | None:
        await self._live()
        return await self._asked(self._trader.risk_distance(ticket))

    async def end(self) -> None:
        await self._live()
        await super().end()

    # --- from where the run began to where it stands ---

    async def _is_registration_next(self) -> bool:
        """False for one that the service had answered, as far as this side can know: it did what came after it."""
        place, call = self.place, self._door_of_run.call
        is_done = self._tick_number < place.done
        if is_done or not place.recall:
            await self._door_of_run.redo()
        if is_done or place.recall:
            return not is_done
        return not place.under_way and call >= self._last_call

    async def _recall(self, symbol: str, tick: market_data_service_pb2.Tick) -> None:
        if self.place.recall:
            self._recalled.append(tick)
            if len(self._recalled) >= RECALLED_AT_ONCE or self._tick_number == self.place.done:
                told = gateway_service_pb2.GatewayRecall(symbol=symbol, ticks=self._recalled)
                self._recalled = []
                await self._write(gateway_service_pb2.AttachRequest(recall=told))
        if not self._tick_number % TICKS_PER_TURN:
            self.raise_if_lost()
            await asyncio.sleep(0)

    async def _live(self) -> None:
        """From here on the service takes part. Returns once it has attached the account."""
        if not self._is_live:
            self._is_live = True
            await self._write(gateway_service_pb2.AttachRequest(ready=True))
            await self._attached

    # --- the stream ---

    @property
    def _of_run(self) -> HistoryRun:
        if self._run is None:
            raise invalid("run", "nothing is driven yet")
        return self._run

    @property
    def _door_of_run(self) -> LoggedDoor:
        return self._of_run.logged_door

    async def _answered(self) -> None:
        first: list[asyncio.Future[Any]] = [self._placed, self._attached]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not self._placed.done():
            self._attached.result()  # what ended the stream before the service had said anything

    def _take_place(self, place: gateway_service_pb2.RunPlace) -> None:
        if not self._placed.done():
            self._placed.set_result(place)

    async def _asked(self, call: Awaitable[T]) -> T:
        """A call beside the stream. Raises AttachmentLost where the service is away."""
        try:
            return await call
        except LOST as error:
            raise AttachmentLost(str(error)) from error

    def _failure(self, status: grpc.aio.AioRpcError) -> Exception:
        """A service that is away comes back; one that says what is wrong would say it again."""
        error = from_rpc(status, method=METHOD)
        return AttachmentLost(str(error), unexplained=isinstance(error, Internal)) if isinstance(error, LOST) else error


__all__ = ["LockstepLink"]
