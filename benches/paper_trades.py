"""Trades of the paper account, opened and registered over the wire as an entry bot does it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from benches.world import SEED
from dtms.v1 import (
    action_pb2,
    market_data_service_pb2,
    market_data_service_pb2_grpc,
    paper_service_pb2,
    paper_service_pb2_grpc,
    registry_service_pb2,
    trade_pb2,
)
from dtms_client import AsyncClient

SYMBOL: Final = "EURUSD"
VOLUME: Final = 0.02  # small enough for the shipped account to hold 1,000, large enough to be halved
BID: Final = 1.1
SPREAD: Final = 0.0001
STOP_POINTS: Final = (150, 3000)  # near ones are hit by the walk now and then, far ones hardly
POINT: Final = 0.00001
DONE: Final = 10009
DEADLINE_S: Final = 30.0


class Feed:
    """Prices through one StreamTicks call, each answered when all that follows from it is done."""

    def __init__(self, client: AsyncClient, time_msc: int) -> None:
        stub = market_data_service_pb2_grpc.MarketDataServiceStub(client.channel)
        self._call = stub.StreamTicks(metadata=client.metadata)
        self._time_msc = time_msc

    async def tick(self, bid: float, *, after_ms: int) -> None:
        self._time_msc += after_ms
        tick = market_data_service_pb2.Tick(time_msc=self._time_msc, bid=bid, ask=round(bid + SPREAD, 5))
        await self._call.write(market_data_service_pb2.StreamTicksRequest(symbol=SYMBOL, ticks=[tick]))
        await self._call.read()

    async def close(self) -> None:
        await self._call.done_writing()
        await self._call.read()


def walk(count: int, seed: int) -> Iterator[float]:
    """Bids from BID on, by steps of -10 to +10 points."""
    chance, points = random.Random(seed), round(BID / POINT)
    for _ in range(count):
        points += chance.randint(-10, 10)
        yield round(points * POINT, 5)


async def open_and_register(
    client: AsyncClient, count: int, time_msc: int = 1_699_999_200_000, *, strategies: Sequence[str] = ("",)
) -> list[trade_pb2.Trade]:
    """``count`` positions on both sides at BID, each with a stop of its own, registered as opened just now; the
    strategy types in turn, each for a buy and a sell."""
    feed, chance = Feed(client, time_msc), random.Random(SEED)
    await feed.tick(BID, after_ms=0)
    await feed.close()
    paper = paper_service_pb2_grpc.PaperServiceStub(client.channel)
    trades: list[trade_pb2.Trade] = []
    for index in range(count):
        distance = chance.randint(*STOP_POINTS) * POINT
        side = trade_pb2.SIDE_BUY if index % 2 == 0 else trade_pb2.SIDE_SELL
        stop = round(BID - distance if side == trade_pb2.SIDE_BUY else BID + SPREAD + distance, 5)
        opened = await paper.OpenPosition(
            paper_service_pb2.OpenPositionRequest(symbol=SYMBOL, side=side, volume=VOLUME, sl=stop),
            metadata=client.metadata,
            timeout=DEADLINE_S,
        )
        if opened.retcode != DONE:
            raise RuntimeError(f"the paper broker refused position {index + 1} of {count}: {opened}")
        held = opened.position
        registration = registry_service_pb2.Registration(
            ticket=held.ticket,
            symbol=SYMBOL,
            side=side,
            entry_price=held.price_open,
            volume=held.volume,
            sl=held.sl,
            strategy_type=strategies[index // 2 % len(strategies)],
        )
        trades.append((await client.register_trade(registration, timeout_s=DEADLINE_S)).trade)
    return trades


async def propose_no_change(client: AsyncClient, trade: trade_pb2.Trade) -> None:
    """A proposal that is denied: one decision goes into the journal. AssertionError if it is granted."""
    action = action_pb2.Action(
        kind=action_pb2.ACTION_KIND_STOP, purpose=action_pb2.PURPOSE_TRAIL, stop=trade.confirmed.sl
    )
    answer = await client.propose(
        request_id=str(uuid.uuid4()),
        ticket=trade.ticket,
        owner_epoch=trade.owner_epoch,
        action=action,
        timeout_s=DEADLINE_S,
    )
    assert not answer.decision.granted, "a stop that stands already is no change"
