"""What waits for the service: in order, little, and told with what was left out."""

from __future__ import annotations

from dtms.v1.gateway_service_pb2 import GatewayTicks
from dtms.v1.market_data_service_pb2 import Tick
from dtms_service.gateway_inbox import TICKS_WAITING_MAX, Inbox, essence


def message(seq: int, symbol: str, *bids: float) -> GatewayTicks:
    ticks = [Tick(time_msc=seq * 10_000 + index, bid=bid, ask=bid + 1, volume=1) for index, bid in enumerate(bids)]
    return GatewayTicks(seq=seq, symbol=symbol, ticks=ticks, change_count=seq)


async def test_prices_of_a_symbol_that_wait_are_put_together() -> None:
    """Symbols come in the order of their oldest price; a message counts as done when all before it are, too."""
    inbox = Inbox()
    for seq, symbol in enumerate(("A", "B", "A", "C"), start=1):
        inbox.put(message(seq, symbol, float(seq)))
    first = await inbox.get()
    assert first is not None
    assert (first.symbol, [tick.bid for tick in first.ticks], first.change_count) == ("A", [1.0, 3.0], 3)
    assert inbox.done_seq == 1
    inbox.end()
    rest = [(await inbox.get(), inbox.done_seq) for _ in range(3)]
    assert [(found and found.symbol, done) for found, done in rest] == [("B", 3), ("C", 4), (None, 4)]
    assert inbox.merged == 0


async def test_a_flood_keeps_what_bars_need() -> None:
    """However much comes, little waits: lowest, highest and last price in their order, and the whole volume."""
    inbox = Inbox()
    bids = [100.0 + (index * 7919) % 1_000 for index in range(50_000)]
    for seq, start in enumerate(range(0, len(bids), 500), start=1):
        inbox.put(message(seq, "A", *bids[start : start + 500]))
    waiting = await inbox.get()
    assert waiting is not None
    kept = [tick.bid for tick in waiting.ticks]
    assert len(kept) <= TICKS_WAITING_MAX
    assert (min(kept), max(kept), kept[-1]) == (min(bids), max(bids), bids[-1])
    assert sum(tick.volume for tick in waiting.ticks) == len(bids)
    assert [tick.time_msc for tick in waiting.ticks] == sorted(tick.time_msc for tick in waiting.ticks)
    assert inbox.merged == len(bids) - len(kept)
    assert inbox.done_seq == 100


def test_the_essence_of_one_price_is_that_price() -> None:
    """Nothing is invented; a price without a volume counts as one, as everywhere."""
    assert [(tick.bid, tick.volume) for tick in essence([Tick(bid=2.0)])] == [(2.0, 1.0)]
