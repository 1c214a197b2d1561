"""The driver: order of what happens at a tick, entries as an adviser makes them, and what the results say."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from dtms_service.bars import ClosedBar
from dtms_service.broker.door import ClosingDeal, CommandKind, OutcomeStatus, Side
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.retcodes import Retcode
from dtms_service.errors import DtmsError
from dtms_service.history import Tick
from dtms_service.replay.driver import HistoryDriver, Refusal, Registration, RunPlan, ScoreReading, Trade
from dtms_service.replay.entries import Scheduled, parse_trades
from dtms_service.replay.job import HistoryRun, RunResult, open_run
from tests.unit.paper_world import CONFIG, SPEC, T0, TRADING
from tests.unit.replay_world import Reaction, ServicePart, command, hedge, job, ticks

AT = "2017-01-03T10:00:0{second}"


def buy(second: int, levels: str = "sl=1.09900,tp=1.10300") -> str:
    return f"BUY@{AT.format(second=second)},0.10,{levels}".rstrip(",")


async def drive(
    out: Path,
    history: list[Tick],
    trades: list[str],
    reactions: dict[int, Reaction] | None = None,
    path_period_s: int | None = None,
    *,
    strategy_types: tuple[str, ...] = ("",),
) -> tuple[RunResult, ServicePart]:
    described = job(out, history, parse_trades(trades), path_period_s=path_period_s)
    with open_run(replace(described, strategy_types=strategy_types)) as run:
        service = ServicePart(run, reactions)
        return await run.drive(service), service


async def test_equity_is_told_while_positions_are_open_once_a_second(tmp_path: Path) -> None:
    """With the tick that opened the first, then each second of virtual time, and once more when the last is closed."""
    prices = [1.1] * 4 + [1.1001] * 8 + [1.1030] * 8
    _, service = await drive(tmp_path / "run", ticks(prices, step_ms=250), [buy(1)])
    told = {index: equity for index, equity in enumerate(service.equities) if equity is not None}
    assert list(told) == [4, 8, 12]
    assert told[4] < CONFIG.balance < told[12]


async def test_a_trade_is_registered_before_the_tick_that_opened_it_is_evaluated(tmp_path: Path) -> None:
    """The position is at the broker, then registered, then its tick goes to the service, with a new change count."""
    _, service = await drive(tmp_path / "run", ticks([1.1, 1.1001, 1.1002]), [buy(1)])
    (trade,) = service.registered
    assert service.calls == [("tick", T0), ("register", trade.ticket), ("tick", T0 + 1000), ("tick", T0 + 2000)]
    assert service.change_counts[0] < service.change_counts[1] == service.change_counts[2]
    assert trade == Registration(
        account_id="7001@Paper",
        ticket=trade.ticket,
        symbol="EURUSD",
        side=Side.BUY,
        entry_price=1.1002,
        volume=0.10,
        sl=1.099,
        tp=1.103,
        strategy_type="",
        opened_ns=(T0 + 1000) * 1_000_000,
    )


async def test_the_trades_of_each_side_take_the_strategy_types_in_turn(tmp_path: Path) -> None:
    """A side walks the types on its own, round and round; a trade that names its own type takes a turn as well."""
    trades = [buy(0, ""), buy(0, "").replace("BUY", "SELL"), buy(1, "strategy=breaker_block"), buy(2, ""), buy(3, "")]
    _, service = await drive(tmp_path / "run", ticks([1.1] * 5), trades, strategy_types=("", "kill_zone"))
    assert [(trade.side.name, trade.strategy_type) for trade in service.registered] == [
        ("BUY", ""),
        ("SELL", ""),
        ("BUY", "breaker_block"),
        ("BUY", ""),
        ("BUY", "kill_zone"),
    ]


async def test_the_broker_triggers_before_the_service_sees_the_tick(tmp_path: Path) -> None:
    """A stop that the tick reaches is filled before the service decides on that tick."""
    held: list[bool] = []

    async def look(run: HistoryRun, trade: Registration, _: Tick) -> None:
        held.append(run.broker.find_position(trade.ticket) is not None)

    await drive(tmp_path / "run", ticks([1.1, 1.1, 1.0985]), [buy(0)], {1: look, 2: look})
    assert held == [True, False]


async def test_the_score_is_read_once_for_each_closed_bar_after_the_tick_that_closed_it(tmp_path: Path) -> None:
    """The reading follows the first tick of the later bar; the bar that is still forming has none."""
    result, service = await drive(tmp_path / "run", ticks([1.1, 1.2, 1.15], step_ms=60_000), [])
    assert [name for name, _ in service.calls] == ["tick", "tick", "score", "tick", "score"]
    assert (result.figures.bars, result.figures.ticks) == (2, 3)


async def test_what_dtms_did_not_do_is_what_the_shadow_shows(tmp_path: Path) -> None:
    """A stop that was moved up saves the trade a loss; the shadow keeps the original stop and takes it whole."""

    async def tighten(run: HistoryRun, trade: Registration, _: Tick) -> None:
        outcome = await run.door.execute(command(trade, CommandKind.MODIFY, 1, sl=1.0998, tp=trade.tp))
        assert outcome.status is OutcomeStatus.CONFIRMED

    result, _ = await drive(tmp_path / "run", ticks([1.1, 1.1005, 1.0998, 1.099]), [buy(0)], {1: tighten})
    (trade,) = result.trades
    assert trade.risk_money == pytest.approx(11.0)  # 11 points of 1.1001 - 1.0990, 10 000 units
    assert (trade.profit, trade.unprotected_profit) == (-3.0, -11.0)
    assert trade.r == pytest.approx(-3 / 11)
    assert trade.unprotected_r == pytest.approx(-1.0)
    assert (trade.open_at_end, trade.unprotected_open_at_end) == (False, False)
    assert trade.closed_ns == (T0 + 2000) * 1_000_000


async def test_profit_includes_every_leg_of_the_trade(tmp_path: Path) -> None:
    """The hedge's result belongs to its trade, and a stranger's position to nobody's."""

    async def open_hedge(run: HistoryRun, trade: Registration, _: Tick) -> None:
        await run.door.execute(hedge(trade, 5, 0.05))
        run.broker.order_send(
            {"action": 1, "symbol": "EURUSD", "volume": 0.2, "type": 0, "type_filling": 1, "magic": 99}
        )

    result, _ = await drive(tmp_path / "run", ticks([1.1, 1.0995, 1.0989]), [buy(0)], {1: open_hedge})
    (trade,) = result.trades
    (leg,) = trade.legs
    assert (leg.side, leg.volume, leg.open_at_end) == ("SELL", 0.05, True)
    assert leg.profit == pytest.approx((1.0995 - 1.0990) * 0.05 * 100_000)
    assert trade.profit == pytest.approx(-12.0 + 2.5)
    assert trade.unprotected_profit == pytest.approx(-12.0)


async def test_a_leg_whose_reply_was_lost_or_whose_fill_came_later_still_belongs_to_its_trade(tmp_path: Path) -> None:
    """An unknown outcome names no position: the command's magic and comment do."""

    async def lose_reply(run: HistoryRun, trade: Registration, _: Tick) -> None:
        run.broker.faults.lose_replies()
        assert (await run.door.execute(hedge(trade, 5, 0.02))).order == 0

    async def fill_later(run: HistoryRun, trade: Registration, _: Tick) -> None:
        run.broker.faults.place(delay_ms=500)
        assert (await run.door.execute(hedge(trade, 6, 0.03))).status is OutcomeStatus.UNKNOWN

    history = ticks([1.1, 1.1, 1.1, 1.1])
    result, _ = await drive(tmp_path / "run", history, [buy(0)], {1: lose_reply, 2: fill_later})
    assert [leg.volume for leg in result.trades[0].legs] == [0.02, 0.03]


async def test_a_trade_open_at_the_end_is_valued_and_stays_open(tmp_path: Path) -> None:
    """The last quote values it; at the broker nothing is closed."""
    with open_run(job(tmp_path / "run", ticks([1.1, 1.1011]), parse_trades([buy(0)]))) as run:
        result = await run.drive(ServicePart(run))
        (trade,) = result.trades
        assert (trade.open_at_end, trade.profit) == (True, 10.0)
        assert run.broker.find_position(trade.ticket) is not None
        assert run.broker.account().balance == CONFIG.balance


async def test_r_of_a_trade_without_a_stop_is_the_services(tmp_path: Path) -> None:
    """Without a stop the service's own R measures the trade."""
    result, service = await drive(tmp_path / "run", ticks([1.1, 1.1011]), [buy(0, "")])
    (trade,) = result.trades
    assert ("risk", trade.ticket) in service.calls
    assert trade.risk_money == pytest.approx(20.0)  # 0.002 on 10 000 units
    assert trade.r == pytest.approx(0.5)


async def test_a_refused_entry_is_told_and_registers_nothing(tmp_path: Path) -> None:
    """What the broker refuses is in the figures with its retcode; no trade comes of it."""
    result, service = await drive(tmp_path / "run", ticks([1.1, 1.1]), [buy(0, "sl=1.2"), buy(1, "sl=1.09995")])
    assert [refusal.retcode for refusal in result.figures.refusals] == [Retcode.INVALID_STOPS] * 2
    assert (service.registered, result.trades) == ([], [])


async def test_a_stop_inside_of_a_bar_fills_at_the_stop_and_a_gap_does_not(tmp_path: Path) -> None:
    """Between the ticks of one bar the price walks; from one bar to the next it jumps."""
    walk = ticks([1.1, 1.098, 1.1, 1.1], step_ms=15_000)
    result, _ = await drive(tmp_path / "walk", walk, [buy(0)], path_period_s=60)
    assert result.trades[0].profit == pytest.approx(-11.0)
    jump = ticks([1.1, 1.1, 1.1, 1.1, 1.098], step_ms=15_000)
    result, _ = await drive(tmp_path / "jump", jump, [buy(0)], path_period_s=60)
    assert result.trades[0].profit == pytest.approx(-21.0)


async def test_a_history_without_ticks_is_an_error(tmp_path: Path) -> None:
    """An empty run is not a successful one."""
    with pytest.raises(DtmsError, match="no ticks"):
        await drive(tmp_path / "run", [], [])


class Silent:
    """The cheapest peer: nothing follows from a tick."""

    async def register(self, registration: Registration) -> None:
        raise AssertionError(registration)

    async def tick(self, symbol: str, tick: Tick, change_count: int, equity: float | None) -> None:
        pass

    async def score(self, symbol: str) -> ScoreReading:
        raise AssertionError(symbol)

    async def risk_distance(self, ticket: int) -> float | None:
        raise AssertionError(ticket)


class Unobserved:
    """An observer that has nothing to see."""

    def deals(self, made: list[ClosingDeal]) -> None:
        raise AssertionError(made)

    def entered(self, trade: Trade) -> None:
        raise AssertionError(trade)

    def refused(self, refusal: Refusal) -> None:
        raise AssertionError(refusal)

    def bar(self, bar: ClosedBar, score: ScoreReading) -> None:
        raise AssertionError((bar, score))


async def test_an_idle_tick_costs_the_driver_microseconds() -> None:
    """With nothing to do a tick costs less than 15 us of processor time on top of the service's own."""
    brokers = [PaperBroker(CONFIG) for _ in range(2)]
    for broker in brokers:
        broker.add_symbol(SPEC, TRADING)
    history = ticks([1.1 + (index % 7) * 0.00001 for index in range(50_000)], step_ms=1)
    driver = HistoryDriver(
        broker=brokers[0],
        shadow=brokers[1],
        plan=RunPlan("EURUSD", ("",), 7, "entry", bar_s=3600, path_period_s=None),
        ticks=history,
        entries=Scheduled([]),
        link=Silent(),
        observer=Unobserved(),
    )
    started = time.process_time_ns()
    figures = await driver.run()
    each_us = (time.process_time_ns() - started) / figures.ticks / 1000
    print(f"{each_us:.1f} us a tick")  # noqa: T201  # the figure, for whoever reads the report
    assert each_us < 15
