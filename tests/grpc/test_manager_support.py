"""What DTMS keeps and streams for managers: memos, indices, closed bars, and the risk budget of an operator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dtms.v1 import action_pb2
from dtms.v1.admin_service_pb2 import SetTradingStateRequest
from dtms.v1.event_pb2 import TRADING_STATE_HALTED
from dtms.v1.market_data_service_pb2 import Bar, ClosedBar, StreamBarsRequest, StreamTicksRequest, Tick
from dtms_client.errors import InvalidArgument, NotFound, PermissionDenied
from dtms_client.watch import Interrupted, Quotes
from tests.stack import EXIT_MANAGER, SYMBOL, T0_MSC, UNIVERSAL, Stack, running, stop_at

MINUTE_MS = 60_000


def halt() -> SetTradingStateRequest:
    """An operator's order."""
    return SetTradingStateRequest(trading_state=TRADING_STATE_HALTED, reason="test")


async def first_quotes(stack: Stack) -> Quotes:
    """What a new follower of quotes is told first."""
    client = await stack.client("viewer")
    async for item in client.watch_quotes():
        assert isinstance(item, Quotes)
        return item
    raise AssertionError("unreachable")


async def minutes(stack: Stack, first: int, count: int) -> None:
    """Four prices in each of so many minutes: open, high, low, close."""
    ticks = [
        Tick(time_msc=T0_MSC + (first + minute) * MINUTE_MS + quarter * 15_000, bid=bid, ask=bid + 0.0001)
        for minute in range(count)
        for quarter, bid in enumerate((1.1, 1.1 + 0.0001 * (first + minute + 1), 1.0995, 1.1002))
    ]
    await stack.feed(StreamTicksRequest(symbol=SYMBOL, ticks=ticks))


async def test_a_memo_is_found_again_after_a_restart_and_belongs_to_its_manager(tmp_path: Path) -> None:
    """Each manager has one memo a trade; the same again is no event, an empty one takes it away."""
    async with running(tmp_path) as stack:
        trade = await stack.trade()
        exits, universal = await stack.client(EXIT_MANAGER), await stack.client(UNIVERSAL)
        first = await exits.set_memo(trade.ticket, "mine")
        await universal.set_memo(trade.ticket, '{"rules": 1}')
        again = await exits.set_memo(trade.ticket, "mine")
        assert again.revision == first.revision + 1
    async with running(tmp_path) as stack:
        shown = await stack.get_trade(trade.ticket)
        assert {record.manager: record.memo for record in shown.managers} == {
            EXIT_MANAGER: "mine",
            UNIVERSAL: '{"rules": 1}',
        }
        await (await stack.client(EXIT_MANAGER)).set_memo(trade.ticket, "")
        shown = await stack.get_trade(trade.ticket)
        assert {record.manager: record.memo for record in shown.managers} == {
            EXIT_MANAGER: "",
            UNIVERSAL: '{"rules": 1}',
        }


async def test_a_memo_needs_a_trade_a_manager_and_a_bound(tmp_path: Path) -> None:
    """Unknown trades, other roles and more than 2048 characters are refused by name."""
    async with running(tmp_path) as stack:
        trade = await stack.trade()
        manager = await stack.client(EXIT_MANAGER)
        with pytest.raises(NotFound):
            await manager.set_memo(trade.ticket + 1, "x")
        with pytest.raises(InvalidArgument) as caught:
            await manager.set_memo(trade.ticket, "x" * 2049)
        assert [violation.field for violation in caught.value.violations] == ["memo"]
        with pytest.raises(PermissionDenied):
            await (await stack.client("viewer")).set_memo(trade.ticket, "x")


async def test_an_index_reaches_who_follows_now_and_who_comes_after_a_restart(tmp_path: Path) -> None:
    """The last report of each index is in the first answer, every further one as it comes."""
    async with running(tmp_path) as stack:
        feed, viewer = await stack.client("feed"), await stack.client("viewer")
        await feed.report_index("VIX", 17.5, valid_ms=60_000)
        stream = viewer.watch_quotes()
        item = await anext(stream)
        assert isinstance(item, Quotes)
        assert [(index.name, index.value) for index in item.indices] == [("VIX", 17.5)]
        await feed.report_index("VIX", 21.0, valid_ms=60_000)
        item = await anext(stream)
        assert isinstance(item, Quotes)
        assert [(index.name, index.value) for index in item.indices] == [("VIX", 21.0)]
        await stream.aclose()
    async with running(tmp_path) as stack:
        known = (await first_quotes(stack)).indices
        assert [(index.name, index.value) for index in known] == [("VIX", 21.0)]
        assert known[0].valid_until_ns - known[0].time_ns == 60_000_000_000


@pytest.mark.parametrize(
    ("name", "value", "valid_ms", "field"),
    [("", 1.0, 1, "name"), ("X" * 33, 1.0, 1, "name"), ("VIX", float("nan"), 1, "value"), ("VIX", 1.0, 0, "valid_ms")],
)
async def test_an_index_that_makes_no_sense_is_refused_by_field(
    tmp_path: Path, name: str, value: float, valid_ms: int, field: str
) -> None:
    """Nothing is stored that a manager could not act on."""
    async with running(tmp_path) as stack:
        with pytest.raises(InvalidArgument) as caught:
            await (await stack.client("feed")).report_index(name, value, valid_ms=valid_ms)
        assert [violation.field for violation in caught.value.violations] == [field]


async def taken(stream: AsyncIterator[tuple[ClosedBar, ...] | Interrupted], count: int) -> list[ClosedBar]:
    """So many bars of a stream."""
    bars: list[ClosedBar] = []
    async with asyncio.timeout(10):
        while len(bars) < count:
            item = await anext(stream)
            assert not isinstance(item, Interrupted)
            bars += item
    return bars


async def test_bars_close_once_each_and_longer_ones_are_made_of_shorter_ones(tmp_path: Path) -> None:
    """History first, then each bar as it closes; the one under way when the service began is none."""
    async with running(tmp_path) as stack:
        await minutes(stack, 0, 11)
        stream = (await stack.client("viewer")).watch_bars(timeframes_s=(60, 300), symbols=[SYMBOL])
        bars = await taken(stream, 10)
        starts = [(bar.timeframe_s, (bar.bar.time_s * 1000 - T0_MSC) // MINUTE_MS) for bar in bars]
        assert starts == [*((60, minute) for minute in range(1, 10)), (300, 5)]
        five = bars[-1].bar
        assert (five.open, five.high, five.low, five.close, five.volume) == pytest.approx(
            (1.1, 1.101, 1.0995, 1.1002, 20)
        )
        await minutes(stack, 11, 1)
        await minutes(stack, 12, 1)
        more = await taken(stream, 2)
        assert [(bar.bar.time_s * 1000 - T0_MSC) // MINUTE_MS for bar in more] == [10, 11]
        await stream.aclose()


async def test_bars_that_are_fed_fill_up_what_was_before(tmp_path: Path) -> None:
    """Closed bars through StreamBars are history for managers too; late and repeated ones change nothing."""
    async with running(tmp_path) as stack:
        start_s = T0_MSC // 1000 - 3 * 300
        fed = [
            Bar(time_s=start_s + index * 300, open=1.1, high=1.2, low=1.0, close=1.1, volume=5) for index in range(3)
        ]
        request = StreamBarsRequest(symbol=SYMBOL, timeframe_s=300, bars=[*fed, fed[1]])
        await stack.feed(request)
        stream = (await stack.client("viewer")).watch_bars(timeframes_s=(300,), history=2)
        assert [bar.bar for bar in await taken(stream, 2)] == fed[1:]
        await stream.aclose()


async def test_a_length_of_bars_that_is_not_kept_is_refused(tmp_path: Path) -> None:
    """The message names the lengths there are."""
    async with running(tmp_path) as stack:
        stream = (await stack.client("viewer")).watch_bars(timeframes_s=(60, 61))
        with pytest.raises(InvalidArgument) as caught:
            await anext(stream)
        assert "14400" in str(caught.value)


async def test_an_operator_raises_the_risk_budget_and_a_stop_may_widen_within_it(tmp_path: Path) -> None:
    """Without it a wider stop exceeds the initial risk; only operators may, and the event says who and why."""
    async with running(tmp_path) as stack:
        trade = await stack.trade()
        wider = stop_at(1.0941, action_pb2.PURPOSE_WIDEN, allow_loosen=True)
        denied = await stack.propose(trade, wider)
        assert denied.decision.denial == action_pb2.DENIAL_CODE_RISK_BUDGET
        with pytest.raises(PermissionDenied):
            await (await stack.client(EXIT_MANAGER)).set_risk_budget(trade.ticket, 1.5, reason="because")
        await (await stack.client("operator")).set_risk_budget(trade.ticket, 1.5, reason="volatile week")
        assert (await stack.get_trade(trade.ticket)).risk_budget_r == 1.5
        assert (await stack.propose(trade, wider)).decision.granted
        too_wide = stop_at(1.0920, action_pb2.PURPOSE_WIDEN, allow_loosen=True)
        assert (await stack.propose(trade, too_wide)).decision.denial == action_pb2.DENIAL_CODE_RISK_BUDGET


@pytest.mark.parametrize("budget_r", [0.5, 11.0, float("nan")])
async def test_a_risk_budget_outside_of_one_to_ten_is_refused(tmp_path: Path, budget_r: float) -> None:
    """A slip of the hand must not open the account."""
    async with running(tmp_path) as stack:
        trade = await stack.trade()
        with pytest.raises(InvalidArgument) as caught:
            await (await stack.client("operator")).set_risk_budget(trade.ticket, budget_r, reason="slip")
        assert [violation.field for violation in caught.value.violations] == ["budget_r"]


async def test_a_halted_denial_names_what_halts(tmp_path: Path) -> None:
    """HALTED says whether trading state or which kill switch stands behind it."""
    async with running(tmp_path) as stack:
        trade = await stack.trade()
        operator = await stack.client("operator")
        await stack.call("operator", halt())
        denied = await stack.propose(trade, stop_at(1.0960))
        assert (denied.decision.denial, denied.decision.halted_by) == (
            action_pb2.DENIAL_CODE_HALTED,
            "trading state HALTED",
        )
        explained = await operator.explain(decision_id=denied.decision.decision_id)
        assert "trading state HALTED" in explained.summary
