"""Prices in, quotes out."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from dtms.v1 import trade_pb2
from dtms.v1.market_data_service_pb2 import (
    Bar,
    ReportScoreRequest,
    StreamBarsRequest,
    StreamTicksRequest,
    Tick,
    WatchQuotesRequest,
)
from dtms.v1.score_pb2 import Score
from dtms.v1.trade_status_service_pb2 import GetScoreRequest
from dtms_client import errors
from tests.grpc.watching import response
from tests.stack import SLOW_S, T0_MSC, Stack


def ticks(*prices: tuple[int, float, float], symbol: str = "EURUSD") -> StreamTicksRequest:
    return StreamTicksRequest(
        symbol=symbol, ticks=[Tick(time_msc=time_msc, bid=bid, ask=ask) for time_msc, bid, ask in prices]
    )


async def quotes(stack: Stack, **request: Any) -> Any:
    return await stack.stream("viewer", WatchQuotesRequest(**request))


async def test_each_message_of_ticks_is_answered_when_all_of_it_is_done(stack: Stack) -> None:
    """The count rises by the ticks of each message, and the price is the last one's."""
    later = T0_MSC + 60_000
    first = ticks((later, 1.1, 1.1001), (later + 1, 1.1002, 1.1003))
    answers = await stack.feed(first, ticks((later + 2, 1.1004, 1.1005)))
    assert [answer.ticks_done for answer in answers] == [2, 3]
    assert answers[-1].revision == stack.system.desk.engine.revision
    quote = (await response(await quotes(stack))).quotes[0]
    assert (quote.time_msc, quote.bid, quote.ask) == (later + 2, 1.1004, 1.1005)


@pytest.mark.parametrize(
    ("bid", "ask", "field"),
    [
        (math.nan, 1.1, "bid"),
        (1.1, math.nan, "ask"),
        (0.0, 1.1, "bid"),
        (-1.1, 1.1, "bid"),
        (math.inf, math.inf, "bid"),
        (1.1001, 1.1, "ask"),
    ],
)
async def test_a_tick_that_is_no_price_is_refused_and_changes_nothing(
    stack: Stack, bid: float, ask: float, field: str
) -> None:
    """INVALID_ARGUMENT names the tick and its field; those before it count, none after it does."""
    later = T0_MSC + 60_000
    with pytest.raises(errors.InvalidArgument) as refused:
        await stack.feed(ticks((later, 1.1004, 1.1005), (later + 1, bid, ask), (later + 2, 1.5, 1.6)))
    assert [violation.field for violation in refused.value.violations] == [f"ticks[1].{field}"]
    quote = (await response(await quotes(stack))).quotes[0]
    assert (quote.time_msc, quote.bid) == (later, 1.1004)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (StreamTicksRequest(ticks=[Tick(time_msc=1, bid=1, ask=1)]), "symbol"),
        (StreamTicksRequest(symbol="EURUSD"), "ticks"),
        (StreamTicksRequest(symbol="EURUSD", ticks=[Tick(time_msc=1, bid=1, ask=1)] * 1001), "ticks"),
        (StreamBarsRequest(symbol="EURUSD", timeframe_s=60), "bars"),
        (StreamBarsRequest(symbol="EURUSD", bars=[Bar(time_s=1, open=1, high=1, low=1, close=1)]), "timeframe_s"),
    ],
)
async def test_a_message_without_what_it_needs_is_refused_by_field(stack: Stack, request_: Any, field: str) -> None:
    """INVALID_ARGUMENT for what is missing or too much."""
    with pytest.raises(errors.InvalidArgument) as refused:
        await stack.feed(request_)
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    "request_",
    [
        ticks((T0_MSC + 5000, 1.1, 1.1001), symbol="NOPE"),
        StreamBarsRequest(symbol="NOPE", timeframe_s=60, bars=[Bar(time_s=60, open=1, high=1, low=1, close=1)]),
    ],
)
async def test_prices_of_an_unknown_symbol_are_not_found(stack: Stack, request_: Any) -> None:
    """NOT_FOUND/SYMBOL_UNKNOWN."""
    with pytest.raises(errors.NotFound) as unknown:
        await stack.feed(request_)
    assert unknown.value.reason == "SYMBOL_UNKNOWN"


async def test_bars_are_taken_once_and_in_order(stack: Stack) -> None:
    """Late, repeated and impossible bars are counted as ignored; ATR is known after enough of the good ones."""
    start = T0_MSC // 1000 - 40 * SLOW_S
    good = [
        Bar(time_s=start + index * SLOW_S, open=1.1, high=1.1005, low=1.0995, close=1.1, volume=10)
        for index in range(30)
    ]
    impossible = Bar(time_s=start + 30 * SLOW_S, open=1.1, high=1.09, low=1.0995, close=1.1, volume=10)
    bars = [*good, good[0], good[-1], impossible]
    (answer,) = await stack.feed(StreamBarsRequest(symbol="EURUSD", timeframe_s=SLOW_S, bars=bars))
    assert (answer.bars_taken, answer.bars_ignored) == (30, 3)
    quote = (await response(await quotes(stack))).quotes[0]
    assert quote.atr_slow == pytest.approx(0.001)


async def test_quotes_carry_what_a_manager_needs(stack: Stack) -> None:
    """Price, ATR and the rules of the symbol come together; ATR is absent, not zero, until it is known."""
    cold = (await response(await quotes(stack))).quotes[0]
    assert not cold.HasField("atr_slow")
    await stack.warm_up()
    call = await quotes(stack, account_id="1000@paper", symbols=["EURUSD"])
    warm = (await response(call)).quotes[0]
    assert (warm.account_id, warm.symbol, warm.bid, warm.ask) == ("1000@paper", "EURUSD", 1.1, 1.1001)
    assert (warm.point, warm.volume_min, warm.volume_step) == (0.00001, 0.01, 0.01)
    assert warm.atr_slow == pytest.approx(0.001)


async def test_a_reader_of_quotes_misses_ticks_in_between_but_never_the_last(stack: Stack) -> None:
    """Conflation: after any number of ticks what is read next ends with the newest price of each symbol."""
    call = await quotes(stack)
    await response(call)
    for step in range(200):
        await stack.tick(round(1.1 + step / 100_000, 5))
    await stack.tick(1.5, symbol="GBPUSD")
    latest: dict[str, float] = {}
    messages = 0
    while latest.get("EURUSD") != 1.10199 or latest.get("GBPUSD") != 1.5:
        latest |= {quote.symbol: quote.bid for quote in (await response(call)).quotes}
        messages += 1
    assert messages <= 201


async def test_a_reader_may_ask_for_quotes_at_most_so_often(stack: Stack) -> None:
    """What changes within the interval comes in one response, with the last price."""
    later = T0_MSC + 60_000
    call = await quotes(stack, symbols=["EURUSD"], min_interval_ms=1000)
    await response(call)
    for index in range(5):
        await stack.feed(ticks((later + index, 1.1 + index / 10_000, 1.1001 + index / 10_000)))
    assert [round(quote.bid, 5) for quote in (await response(call)).quotes] == [1.1004]


async def test_an_interval_beyond_a_second_is_refused(stack: Stack) -> None:
    """A price that is older when it comes is none."""
    stream = (await stack.client("viewer")).watch_quotes(min_interval_ms=1001)
    with pytest.raises(errors.InvalidArgument) as caught:
        await anext(stream)
    assert [violation.field for violation in caught.value.violations] == ["min_interval_ms"]


async def test_quotes_are_filtered_by_symbol(stack: Stack) -> None:
    """A reader of one symbol is not woken with others."""
    call = await quotes(stack, symbols=["GBPUSD"])
    reading = asyncio.create_task(response(call))
    await stack.tick(1.1)
    await stack.tick(1.5, symbol="GBPUSD")
    assert [quote.symbol for quote in (await reading).quotes] == ["GBPUSD"]


async def test_a_score_speaks_for_both_sides_mirrored(stack: Stack) -> None:
    """A reported score is a BUY's; a SELL sees every part with the other sign; who said it is told."""
    parts = Score(structure=-2.0, momentum=-1.0, vwap_volume=0.5)
    await stack.call("feed", ReportScoreRequest(symbol="EURUSD", score=parts, valid_ms=60_000))
    buy = (await stack.call("viewer", GetScoreRequest(symbol="EURUSD", side=trade_pb2.SIDE_BUY))).score
    sell = (await stack.call("viewer", GetScoreRequest(symbol="EURUSD", side=trade_pb2.SIDE_SELL))).score
    assert (buy.total, buy.structure, buy.momentum, buy.vwap_volume) == (-2.5, -2.0, -1.0, 0.5)
    assert (sell.total, sell.structure, sell.momentum, sell.vwap_volume) == (2.5, 2.0, 1.0, -0.5)
    assert (buy.reported_by, sell.reported_by) == ("feed", "feed")
    assert buy.thresholds == sell.thresholds


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ReportScoreRequest(score=Score(total=1), valid_ms=1), "symbol"),
        (ReportScoreRequest(symbol="EURUSD", valid_ms=1), "score"),
        (ReportScoreRequest(symbol="EURUSD", score=Score(total=1)), "valid_ms"),
        (ReportScoreRequest(symbol="EURUSD", score=Score(total=1), valid_ms=3_600_001), "valid_ms"),
        (ReportScoreRequest(symbol="EURUSD", score=Score(total=10.6), valid_ms=1), "score.total"),
        (ReportScoreRequest(symbol="EURUSD", score=Score(total=math.nan), valid_ms=1), "score.total"),
        (ReportScoreRequest(symbol="EURUSD", score=Score(momentum=-11), valid_ms=1), "score.momentum"),
    ],
)
async def test_a_score_out_of_range_is_refused_by_field(stack: Stack, request_: Any, field: str) -> None:
    """INVALID_ARGUMENT names the part."""
    with pytest.raises(errors.InvalidArgument) as refused:
        await stack.call("feed", request_)
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_there_is_no_score_before_the_first_price(stack: Stack) -> None:
    """NOT_FOUND for a symbol without a price, and for one that nobody knows; a side must be said."""
    for symbol in ("GBPUSD", "NOPE"):
        with pytest.raises(errors.NotFound) as unknown:
            await stack.call("viewer", GetScoreRequest(symbol=symbol, side=trade_pb2.SIDE_BUY))
        assert unknown.value.reason == "SYMBOL_UNKNOWN"
    with pytest.raises(errors.InvalidArgument):
        await stack.call("viewer", GetScoreRequest(symbol="EURUSD"))
