"""Safety rails, trading state and kill switches through the whole service: what trips them, what they stop."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, event_pb2, trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client.errors import InvalidArgument
from dtms_service.broker.faults import Leg
from dtms_service.cli import app
from dtms_service.errors import ConfigInvalid
from dtms_service.system import System
from tests.grpc.watching import events_until
from tests.stack import DTMS, EXIT_MANAGER, SYMBOL, UNIVERSAL, Stack, close_all, part_of, running, stop_at, target_at
from tests.virtual import virtual

DAY_S = 86_400
MONDAY_S = 1_700_438_400  # 2023-11-20 00:00 UTC
NOON_S = MONDAY_S + DAY_S // 2
CALENDAR = "time,currency,impact,title\n2023-11-20T12:40:00,USD,high,Payrolls\n2023-11-20T12:40:00,CHF,high,Rates\n"
HALTED = action_pb2.DENIAL_CODE_HALTED


async def rail_edge(stack: Stack, rail: event_pb2.Rail.ValueType, *, engaged: bool) -> Event:
    """The first edge of the rail, whenever it comes."""
    watch = await stack.stream("viewer", WatchRequest(start_revision=1))

    def is_edge(event: Event) -> bool:
        changed = event.rail_changed
        return event.HasField("rail_changed") and (changed.rail, changed.engaged) == (rail, engaged)

    return (await events_until(watch, is_edge))[-1]


async def test_a_loss_trips_blocks_new_risk_and_survives_a_restart(tmp_path: Path) -> None:
    """Figures come in the background; loosening is HALTED by the rail, what reduces risk is not; a restart keeps it."""
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade(volume=5.0, sl=1.09, tp=1.12)
        await stack.propose(trade, part_of(1.0))  # room in the risk budget
        await stack.marked()
        await stack.tick(1.096)  # 4 lots, 41 pips: 1.6 % of 100,000
        edge = (await rail_edge(stack, event_pb2.RAIL_HOURLY_LOSS, engaged=True)).rail_changed
        assert (1.5 < edge.value < 2, edge.limit) == (True, 1)
        loosened = stop_at(1.0895, allow_loosen=True)
        denied = (await stack.propose(trade, loosened)).decision
        assert denied.denial == HALTED
        assert re.fullmatch(r"rail HOURLY_LOSS 1\.\d+ % of 1 %", denied.halted_by)
        for action in (stop_at(1.091), target_at(1.13), part_of(1.0)):
            assert (await stack.propose(trade, action)).decision.granted, action
    async with running(tmp_path / "data") as stack:
        status = await (await stack.client("viewer")).system_status()
        assert [(it.account_id, it.symbol, it.rail) for it in status.rails] == [
            ("1000@paper", "", event_pb2.RAIL_HOURLY_LOSS)
        ]
        await stack.tick(1.0961, after_ms=10_000)
        trade = await stack.get_trade(trade.ticket)
        assert (await stack.propose(trade, stop_at(1.0905, allow_loosen=True))).decision.denial == HALTED
        assert (await stack.propose(trade, close_all())).decision.granted


async def test_midnight_releases_what_the_day_has_tripped(tmp_path: Path) -> None:
    """In virtual time figures are asked for in order; the day's rail holds until the next day, the hour's an hour."""
    async with virtual(tmp_path / "data") as run:
        await run.tick(NOON_S, 1.1)
        await run.trade(volume=10.0)
        await run.tick(NOON_S + 1, 1.1)
        await run.tick(NOON_S + 60, 1.0977)
        assert [rail["rail"] for rail in run.rails()] == [event_pb2.RAIL_DAILY_LOSS, event_pb2.RAIL_HOURLY_LOSS]
        await run.tick(NOON_S + 3600, 1.0977)
        assert [rail["rail"] for rail in run.rails()] == [event_pb2.RAIL_DAILY_LOSS]
        await run.tick(MONDAY_S + DAY_S - 1, 1.0977)
        await run.tick(MONDAY_S + DAY_S, 1.0977)
        assert run.rails() == []
        marks = [event.account_marked for event in await run.events("account_marked")]
        days = [mark for mark in marks if mark.span == event_pb2.SPAN_DAY]
        assert [mark.start_ns // 1_000_000_000 for mark in days] == [MONDAY_S, MONDAY_S + DAY_S]
        assert days[1].equity < days[0].equity - 2000


async def test_figures_that_cannot_be_had_change_nothing(tmp_path: Path) -> None:
    """A broker that does not answer is no account without money: no mark, no rail, and the tick is decided."""
    async with virtual(tmp_path / "data") as run:
        await run.tick(NOON_S, 1.1)
        await run.trade(volume=10.0)
        run.paper.broker.faults.kill_terminal()
        await run.tick(NOON_S + 1, 1.05)
        assert await run.events("account_marked") == []
        run.paper.broker.faults.start_terminal()
        await run.tick(NOON_S + 2, 1.05)
        assert len(await run.events("account_marked")) == 2
        assert run.rails() == []


async def test_a_broker_that_tells_its_equity_is_not_asked(tmp_path: Path) -> None:
    """Figures that come with the ticks count before the tick is decided, and spare the question."""
    asked: list[str] = []

    async def note(operation: str, leg: Leg) -> None:
        if (operation, leg) == ("account", Leg.REQUEST):
            asked.append(operation)

    async with virtual(tmp_path / "data") as run:
        await run.tick(NOON_S, 1.1)
        await run.trade()
        run.paper.broker.faults.latency = note
        await run.tick(NOON_S + 1, 1.1, 10_000)
        await run.tick(NOON_S + 2, 1.1)
        await run.tick(NOON_S + 3, 1.1, 9_850)
        assert [rail["detail"] for rail in run.rails()] == ["1.5 % of 1 %"]
        assert asked == []


async def test_a_silent_broker_delays_no_tick(stack: Stack) -> None:
    """In real time a question for figures waits beside the ticks: they are decided while it has no answer."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def hold(operation: str, leg: Leg) -> None:
        if (operation, leg) == ("account", Leg.REQUEST):
            asked.set()
            await answered.wait()

    await stack.trade()
    stack.faults.latency = hold
    async with asyncio.timeout(10):
        await asked.wait()
        for pips in range(5):
            await stack.tick(1.1 + pips / 10_000)
    answered.set()
    await stack.marked()


# ---- news ---------------------------------------------------------------------------------------------------------


async def test_news_keep_new_risk_away_for_their_time(tmp_path: Path) -> None:
    """Half an hour before the news of a currency of the symbol until a quarter of an hour after, in virtual time."""
    calendar = tmp_path / "news.csv"
    calendar.write_text(CALENDAR, encoding="utf-8")
    async with virtual(tmp_path / "data", {"rails.news_calendar": calendar}) as run:
        await run.tick(NOON_S + 599, 1.1)
        await run.trade()
        await run.tick(NOON_S + 599.5, 1.1)
        assert run.rails() == []
        await run.tick(NOON_S + 600, 1.1)
        assert [(rail["symbol"], rail["detail"]) for rail in run.rails()] == [
            (SYMBOL, "USD Payrolls at 2023-11-20 12:40 UTC")
        ]
        await run.tick(NOON_S + 2400 + 899, 1.1)
        assert len(run.rails()) == 1
        await run.tick(NOON_S + 2400 + 900, 1.1)
        assert run.rails() == []
        edges = [event.rail_changed for event in await run.events("rail_changed")]
        assert [(edge.engaged, edge.value) for edge in edges] == [(True, 2700), (False, 0)]


async def test_a_calendar_that_is_wrong_stops_the_start(tmp_path: Path) -> None:
    """The service does not begin with half a calendar, and leaves no journal behind."""
    calendar = tmp_path / "news.csv"
    calendar.write_text("time,currency,impact,title\nsoon,USD,high,Payrolls\n", encoding="utf-8")
    with pytest.raises(ConfigInvalid, match="line 2, time"):
        async with virtual(tmp_path / "data", {"rails.news_calendar": calendar}):
            pass
    assert not (tmp_path / "data").exists()


async def test_a_calendar_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A new version counts at once; a bad one, and one that is gone, is alarmed once and the one before holds."""
    calendar = tmp_path / "news.csv"
    calendar.write_text("time,currency,impact,title\n", encoding="utf-8")
    async with virtual(tmp_path / "data", {"rails.news_calendar": calendar}) as run:
        await run.tick(NOON_S + 700, 1.1)
        await run.trade()
        calendar.write_text(CALENDAR, encoding="utf-8")
        await run.system.news.look()
        assert len(run.rails()) == 1
        calendar.write_text(CALENDAR + "later,USD,high,Speech\n", encoding="utf-8")
        for _ in range(2):
            await run.system.news.look()
        calendar.unlink()
        for _ in range(2):
            await run.system.news.look()
        alarms = [event.alarm_raised for event in await run.events("alarm_raised")]
        assert {alarm.code for alarm in alarms} == {event_pb2.ALARM_CODE_NEWS_CALENDAR}
        assert "line 4, time" in alarms[0].detail
        assert "No such file" in alarms[1].detail
        assert len(alarms) == 2
        assert len(run.rails()) == 1
        calendar.write_text("time,currency,impact,title\n", encoding="utf-8")
        await run.system.news.look()
        assert run.rails() == []


async def test_a_service_without_a_calendar_looks_at_no_file(stack: Stack) -> None:
    """The timer's look is nothing then."""
    system: System = stack.system
    before = system.desk.engine.revision
    await system.news.look()
    assert system.desk.engine.revision == before


# ---- trading state and kill switches --------------------------------------------------------------------------------


async def test_the_trading_state_stops_what_it_says_over_the_wire(stack: Stack) -> None:
    """REDUCING: nothing that adds risk. HALTED: managers only close. ACTIVE again: all of it. Each with its word."""
    operator = await stack.client("operator")
    trade = await stack.trade(volume=2.0)
    assert (await stack.propose(trade, part_of(1.0))).decision.granted
    rows = [stop_at(1.0945, allow_loosen=True), stop_at(1.0955), target_at(1.115), part_of(0.1)]
    states = {
        event_pb2.TRADING_STATE_REDUCING: [False, True, True, True],
        event_pb2.TRADING_STATE_HALTED: [False, False, False, True],
        event_pb2.TRADING_STATE_ACTIVE: [True, True, True, True],
    }
    for state, expected in states.items():
        await operator.set_trading_state(state, reason="a test")
        status = await operator.system_status()
        assert status.trading_state == state
        for action, is_granted in zip(rows, expected, strict=True):
            decision = (await stack.propose(trade, action, dry_run=True)).decision
            assert decision.granted == is_granted, (state, action, decision)
            name = event_pb2.TradingState.Name(state).removeprefix("TRADING_STATE_")
            assert decision.halted_by == ("" if is_granted else f"trading state {name}")


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        (event_pb2.KILL_SCOPE_ACCOUNT, "1000@paper"),
        (event_pb2.KILL_SCOPE_SYMBOL, SYMBOL),
        (event_pb2.KILL_SCOPE_MANAGER, UNIVERSAL),
    ],
    ids=["account", "symbol", "manager"],
)
async def test_a_kill_switch_holds_is_listed_and_released(
    stack: Stack, scope: event_pb2.KillScope.ValueType, value: str
) -> None:
    """It takes the trade from its manager and halts him, named in the decision; released, he may acquire it again."""
    operator, manager = await stack.client("operator"), await stack.client(UNIVERSAL)
    trade = await stack.trade(strategy_type="default_standard")
    assert trade.managed_by == UNIVERSAL
    await operator.set_kill_switch(scope, value, engaged=True, reason="it runs wild")
    listed = (await operator.system_status()).kill_switches
    assert [(switch.scope, switch.value) for switch in listed] == [(scope, value)]
    trade = await stack.get_trade(trade.ticket)
    assert trade.managed_by == DTMS
    decision = (await stack.propose(trade, stop_at(1.0955), manager=UNIVERSAL)).decision
    assert decision.denial == HALTED
    name = event_pb2.KillScope.Name(scope).removeprefix("KILL_SCOPE_").lower()
    assert decision.halted_by == f"kill switch {name} {value}"
    assert (await manager.acquire_ownership(trade.ticket)).denial == HALTED
    await operator.set_kill_switch(scope, value, engaged=False, reason="mended")
    assert not (await operator.system_status()).kill_switches
    assert (await manager.acquire_ownership(trade.ticket)).granted
    trade = await stack.get_trade(trade.ticket)
    assert (await stack.propose(trade, stop_at(1.0955), manager=UNIVERSAL)).decision.granted


async def test_operators_have_commands_for_it(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """`dtms trading-state`, `kill` and `release` act with the operator's token; `status` says it in words."""
    where = ["--address", stack.server.address, "--data-dir", str(stack.config.data_dir)]

    async def dtms(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(app, [*words, *where])
        assert ended.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    trade = await stack.trade()
    assert "REDUCING as of revision" in await dtms("trading-state", "REDUCING", "--reason", "a holiday")
    assert "kill switch manager bot thrown" in await dtms("kill", "manager", "bot", "--reason", "it runs wild")
    assert "everything is closed" in await dtms("kill", "symbol", SYMBOL, "--flatten", "--reason", "a flood")
    await stack.system.executor.idle()
    assert stack.held() == {}
    assert (await stack.get_trade(trade.ticket)).state == trade_pb2.TRADE_STATE_CLOSED
    assert "released" in await dtms("release", "symbol", SYMBOL, "--reason", "dry again")
    said = await dtms("status")
    assert "trading REDUCING" in said
    assert "kill switches MANAGER bot" in said
    assert "rails none" in said


async def test_flatten_closes_what_the_switch_covers(stack: Stack) -> None:
    """The operator's close is carried out at the broker and recorded with who and why; a manager's switch has none."""
    operator = await stack.client("operator")
    trade = await stack.trade()
    with pytest.raises(InvalidArgument, match="flatten"):
        await operator.set_kill_switch(
            event_pb2.KILL_SCOPE_MANAGER, EXIT_MANAGER, engaged=True, reason="no", flatten=True
        )
    await operator.set_kill_switch(event_pb2.KILL_SCOPE_SYMBOL, SYMBOL, engaged=True, reason="flood", flatten=True)
    watch = await stack.stream("viewer", WatchRequest(start_revision=1))
    events = await events_until(watch, lambda event: event.ticket == trade.ticket and event.HasField("state_confirmed"))
    assert stack.held() == {}
    (thrown,) = [event.kill_switch_changed for event in events if event.HasField("kill_switch_changed")]
    assert (thrown.flatten, thrown.by, thrown.reason) == (True, "operator", "flood")
    changed = next(event.state_changed for event in events if event.HasField("state_changed"))
    assert changed.cause == event_pb2.TRANSITION_CAUSE_CLOSED_BY_OPERATOR
