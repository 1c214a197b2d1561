"""The driver inside of the service's own process: ticks by a call, everything else over loopback gRPC as any client."""

from __future__ import annotations

import asyncio
from typing import Protocol

from dtms_service.history import Tick
from dtms_service.replay.driver import Registration, ScoreReading
from dtms_service.replay.trader import Trader

# A tick that nothing follows from never suspends: without a turn now and then the loop would serve no RPC.
# 64 ticks are well below a millisecond of work, and a turn costs about a microsecond.
TICKS_PER_TURN = 64


class TickSink(Protocol):
    """The service's monitor."""

    async def tick(self, account_id: str, symbol: str, tick: Tick, change_count: int, equity: float | None) -> None:
        """Returns when all that follows from the tick is done."""


class LocalLink:
    """Implements :class:`driver.Link` over a monitor of this process. ``trader`` may be shared."""

    def __init__(self, account_id: str, monitor: TickSink, trader: Trader) -> None:
        self._account_id, self._monitor, self._trader = account_id, monitor, trader
        self._until_turn = TICKS_PER_TURN

    async def register(self, registration: Registration) -> None:
        await self._trader.register(registration)

    async def tick(self, symbol: str, tick: Tick, change_count: int, equity: float | None) -> None:
        await self._monitor.tick(self._account_id, symbol, tick, change_count, equity)
        self._until_turn -= 1
        if not self._until_turn:
            self._until_turn = TICKS_PER_TURN
            await asyncio.sleep(0)

    async def score(self, symbol: str) -> ScoreReading:
        return await self._trader.score(symbol)

    async def risk_distance(self, ticket: int) -> float | None:
        return await self._trader.risk_distance(ticket)
