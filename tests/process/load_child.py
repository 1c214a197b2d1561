"""A client under load as a process: opens, registers, moves stops and sends prices, and says what was acknowledged.

python -m tests.process.load_child ADDRESS CREDENTIALS_FOLDER SEED FIRST_TIME_MSC

Each line on stdout is written after the service's answer arrived: what the parent has read was acknowledged.
Ends with 0 when the service goes away.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from itertools import count
from pathlib import Path
from typing import Any

from dtms.v1.market_data_service_pb2 import Bar, StreamBarsRequest, StreamTicksRequest, Tick
from dtms.v1.paper_service_pb2 import OpenPositionRequest
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.score_pb2 import Score
from dtms.v1.trade_pb2 import SIDE_BUY, SIDE_SELL, Trade
from dtms_client import AsyncClient
from dtms_client.errors import DtmsError, Unavailable
from dtms_service.credentials import token_path
from tests import wire
from tests.stack import EXIT_MANAGER, SYMBOL, stop_at

DISTANCE = 0.005
WALK = 0.0004


def acknowledge(**fact: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(fact).encode() + b"\n")


class Load:
    def __init__(self, feed: AsyncClient, manager: AsyncClient, seed: int, first_msc: int) -> None:
        self.feed, self.manager = feed, manager
        self.chance = random.Random(seed)
        self.first_msc = first_msc
        self.bid = 1.1
        self.trades: list[Trade] = []
        self.priced = asyncio.Event()
        self.registered = asyncio.Event()

    async def prices(self) -> None:
        """A random walk, a second a tick, as fast as it is taken."""
        bars = [
            Bar(time_s=self.first_msc // 1000 - (40 - index) * 900, open=1.1, high=1.1005, low=1.0995, close=1.1)
            for index in range(40)
        ]
        warm = StreamBarsRequest(symbol=SYMBOL, timeframe_s=900, bars=bars)
        await wire.exchange(self.feed.channel, [warm], metadata=self.feed.metadata)
        for step in count():
            self.bid = round(self.bid + self.chance.choice((-WALK, 0.0, WALK)), 5)
            tick = Tick(time_msc=self.first_msc + 1000 * step, bid=self.bid, ask=round(self.bid + 0.0001, 5))
            request = StreamTicksRequest(symbol=SYMBOL, ticks=[tick])
            (answer,) = await wire.exchange(self.feed.channel, [request], metadata=self.feed.metadata)
            self.priced.set()
            acknowledge(kind="tick", time_msc=tick.time_msc, revision=answer.revision)

    async def scores(self) -> None:
        """Good and bad news, so that trades are warned, hedged and released."""
        await self.registered.wait()
        while True:
            score = Score(total=self.chance.uniform(-10.5, 10.5))
            answer = await self.feed.report_score(SYMBOL, score, valid_ms=60_000)
            acknowledge(kind="score", revision=answer.revision)

    async def entries(self) -> None:
        """Positions of both sides, each registered."""
        await self.priced.wait()
        while True:
            side = self.chance.choice((SIDE_BUY, SIDE_SELL))
            sign = 1 if side == SIDE_BUY else -1
            sl, tp = (round(self.bid + sign * away, 5) for away in (-DISTANCE, 2 * DISTANCE))
            request = OpenPositionRequest(symbol=SYMBOL, side=side, volume=0.1, sl=sl, tp=tp)
            opened = await wire.call(self.feed.channel, request, metadata=self.feed.metadata, timeout_s=5)
            if opened.retcode != 10009:  # the price has moved on
                continue
            held = opened.position
            acknowledge(kind="opened", ticket=held.ticket)
            body = Registration(
                ticket=held.ticket,
                symbol=SYMBOL,
                side=side,
                entry_price=held.price_open,
                volume=held.volume,
                opened_ns=held.time_msc * 1_000_000,
                sl=sl,
                tp=tp,
            )
            trade = (await self.feed.register_trade(body)).trade
            acknowledge(kind="registered", ticket=trade.ticket, revision=trade.revision)
            self.trades.append(trade)
            self.registered.set()

    async def stops(self, name: str) -> None:
        """Moves stops inwards and outwards; denials are answers too."""
        await self.registered.wait()
        for index in count():
            trade = self.chance.choice(self.trades[-20:])
            sign = 1 if trade.side == SIDE_BUY else -1
            stop = round(trade.initial_sl + sign * self.chance.randrange(-5, 30) * 0.0001, 5)
            request_id = f"{name} {index}"
            try:
                answer = await self.manager.propose(
                    request_id=request_id, ticket=trade.ticket, owner_epoch=trade.owner_epoch, action=stop_at(stop)
                )
            except Unavailable:
                raise
            except DtmsError as error:
                acknowledge(kind="undecided", request_id=request_id, reason=error.reason)
                continue
            acknowledge(
                kind="decided",
                request_id=request_id,
                ticket=trade.ticket,
                owner_epoch=trade.owner_epoch,
                stop=stop,
                decision_id=answer.decision.decision_id,
                revision=answer.decision.revision,
                granted=answer.decision.granted,
                outcome=answer.outcome.status,
            )


async def main(address: str, credentials: Path, seed: int, first_msc: int) -> None:
    feed = AsyncClient(address, token_file=token_path(credentials, "feed"))
    manager = AsyncClient(address, token_file=token_path(credentials, EXIT_MANAGER))
    async with feed, manager:
        load = Load(feed, manager, seed, first_msc)
        work = [load.prices(), load.scores(), load.entries(), *(load.stops(f"{seed} {name}") for name in "abc")]
        tasks = [asyncio.create_task(each) for each in work]
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in ended:
            if not isinstance(task.exception(), Unavailable):
                task.result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
