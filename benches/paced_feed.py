"""Prices at their moments, whether or not those before are done. ``python -m benches.paced_feed ADDRESS TOKEN_FILE``.

Connects and says READY. A line on stdin names the start (``time.perf_counter``, one for all processes), the first time
(ms UTC) and how many ticks; it answers with the lateness of each as JSON, line for line until stdin ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from benches import paper_trades
from benches.load import READY
from benches.paper_trades import SPREAD, SYMBOL
from benches.world import SEED
from dtms.v1 import market_data_service_pb2, market_data_service_pb2_grpc
from dtms_client import AsyncClient

TICKS_PER_S: Final = 100


def message(first_msc: int, bids: Sequence[float]) -> market_data_service_pb2.StreamTicksRequest:
    """Ticks of 10 ms each."""
    ticks = [
        market_data_service_pb2.Tick(time_msc=first_msc + 10 * index, bid=bid, ask=round(bid + SPREAD, 5))
        for index, bid in enumerate(bids)
    ]
    return market_data_service_pb2.StreamTicksRequest(symbol=SYMBOL, ticks=ticks)


async def main(address: str, token_file: Path) -> None:
    async with AsyncClient(address, token_file=token_file) as feed:
        await feed.system_status()
        print(READY, flush=True)
        for line in iter(sys.stdin.readline, ""):  # nothing else runs between two paces
            began_s, first_msc, count = line.split()
            print(json.dumps(await pace(feed, float(began_s), int(first_msc), int(count))), flush=True)


async def pace(feed: AsyncClient, began_s: float, first_msc: int, count: int) -> list[float]:
    """ms from the moment a tick was due to the answer that all of it is done, for each that was answered."""
    call = market_data_service_pb2_grpc.MarketDataServiceStub(feed.channel).StreamTicks(metadata=feed.metadata)
    due_s = [began_s + index / TICKS_PER_S for index in range(count)]

    async def send() -> None:
        for index, bid in enumerate(paper_trades.walk(count, SEED + 2)):
            await asyncio.sleep(max(0.0, due_s[index] - time.perf_counter()))
            await call.write(message(first_msc + 10 * index, [bid]))
        await call.done_writing()

    async def read() -> list[float]:
        late: list[float] = []
        while isinstance(await call.read(), market_data_service_pb2.StreamTicksResponse):
            late.append(1000 * (time.perf_counter() - due_s[len(late)]))
        return late

    _, late = await asyncio.gather(send(), read())
    return late


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], Path(sys.argv[2])))
