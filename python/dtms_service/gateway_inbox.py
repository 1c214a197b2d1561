"""What a gateway has sent and the service has not worked on yet: never more than a little, however far it is behind.

Prices of a symbol that wait are put together. Beyond a limit only those stay that nothing can be told without: the
lowest and the highest bid, which bars need, and the last one; the volume of the others is theirs then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from dtms.v1 import gateway_service_pb2 as pb
from dtms.v1.market_data_service_pb2 import Tick

# Of one symbol; about a second of work. A gateway of ours has one message under way, so only a burst comes near.
TICKS_WAITING_MAX: Final = 1_024


@dataclass(slots=True)
class Waiting:
    """Ticks of one symbol, in order of time. ``first_seq`` and ``last_seq`` are of the messages that brought them."""

    symbol: str
    first_seq: int
    last_seq: int = 0
    ticks: list[Tick] = field(default_factory=list)
    change_count: int = 0
    equity: float | None = None


class Inbox:
    """One writer, one reader."""

    def __init__(self) -> None:
        self.merged = 0
        """Ticks left out so far."""
        self._waiting: dict[str, Waiting] = {}
        self._last_seq = 0
        self._ended = False
        self._news = asyncio.Event()

    def put(self, message: pb.GatewayTicks) -> None:
        """Never waits."""
        of = self._waiting.setdefault(message.symbol, Waiting(message.symbol, message.seq))
        of.last_seq = self._last_seq = message.seq
        of.ticks.extend(message.ticks)
        of.change_count = message.change_count
        of.equity = message.equity if message.HasField("equity") else None
        if len(of.ticks) > TICKS_WAITING_MAX:
            kept = essence(of.ticks)
            self.merged += len(of.ticks) - len(kept)
            of.ticks = kept
        self._news.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._news.set()

    async def get(self) -> Waiting | None:
        """What has waited longest; None at the end."""
        while not self._waiting:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    @property
    def done_seq(self) -> int:
        """Every message up to this one has been taken out."""
        return min((of.first_seq for of in self._waiting.values()), default=self._last_seq + 1) - 1


def essence(ticks: Iterable[Tick]) -> list[Tick]:
    """Lowest and highest bid and the last tick, in their order; each has the volume of those before it as well."""
    listed = list(ticks)
    bids = [tick.bid for tick in listed]
    places = sorted({bids.index(min(bids)), bids.index(max(bids)), len(listed) - 1})
    kept, start = [], 0
    for place in places:
        tick = Tick()
        tick.CopyFrom(listed[place])
        # A volume of 0 counts as one tick, as everywhere.
        tick.volume = sum(left.volume or 1.0 for left in listed[start : place + 1])
        kept.append(tick)
        start = place + 1
    return kept
