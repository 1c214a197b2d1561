"""Defects of the exit manager that this one replaces: each must be impossible here.

The exit manager runs as it ships (client, live loop, rules) against the real service and its broker.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, trade_pb2
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules, decide, deferral
from dtms_client.managing.state_source import Limits, StateSource
from dtms_client.managing.testing import quote
from dtms_client.managing.views import TradeView
from dtms_service.broker.retcodes import Retcode
from tests.conftest import REPO
from tests.desk import BREAKEVEN, HALF_WAY, Desk, known, nothing_for, purposes, until
from tests.process.market import Market
from tests.process.service_process import serving
from tests.stack import EXIT_MANAGER, SYMBOL, T0_MSC, UNIVERSAL, Stack, stop_at

BUY, SELL = trade_pb2.SIDE_BUY, trade_pb2.SIDE_SELL
FAR_AHEAD = {BUY: 1.1045, SELL: 1.0955}
STRATEGY = "default_standard"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    await desk.vanish()


async def test_d21_a_state_is_read_where_it_is_written(stack: Stack) -> None:
    """The API nested the state under `trade_info`, the reader looked beside it and took the nothing for not defensive.

    One message for both sides: a HEDGED trade is seen as defensive by every reader, and the exit manager defers.
    """
    await stack.warm_up()
    trade = await stack.trade()
    await stack.tick(1.1021)
    await stack.report_score(-9.0)
    client = await stack.client(EXIT_MANAGER)
    source = StateSource(client.batch_get_trades, monotonic=asyncio.get_running_loop().time, limits=Limits())
    answer = await source.state((trade.account_id, trade.ticket))
    assert answer.trade is not None
    assert (answer.defensive, answer.trade.state) == (True, trade_pb2.TRADE_STATE_HEDGED)
    view = TradeView.of(answer.trade, manager=EXIT_MANAGER)
    assert deferral(view) == "defensive"
    assert decide(view, quote(1.109), ExitRules(), vix=None) == []


async def test_d22_nothing_is_written_while_the_state_cannot_be_asked_for(desk: Desk) -> None:
    """With the API down it waited, answered "not defensive" and modified: fail-open, and called conservative.

    No authority, no write: DTMS away, last known expired, the price far beyond breakeven, and the broker hears nothing.
    """
    stack = await desk.serve()
    trade = await stack.trade()
    async with desk.manager() as brain:
        await known(stack, trade.ticket)
        await desk.vanish()
        assert desk.account is not None
        broker = desk.account.broker
        broker.on_tick(SYMBOL, broker.now_msc + 1000, HALF_WAY, HALF_WAY + 0.0001)
        before = broker.change_count
        await nothing_for(1.0, lambda: broker.change_count != before)
        assert (desk.held.sl, desk.held.volume) == (1.0951, 1.0)
        assert brain.tally.confirmed == 0


async def test_d23_an_owner_is_honoured_and_a_failure_to_ask_denies(stack: Stack) -> None:
    """The registry held a dataclass, the code called `.get`; the AttributeError was swallowed and a ticket of the
    Universal Manager modified.

    After breakeven a strategy's trade is left alone by the rules, and a proposal all the same is denied, with no order.
    """
    trade = await stack.trade(strategy_type=STRATEGY)
    await stack.tick(1.1045)
    await stack.propose(trade, stop_at(1.1005, action_pb2.PURPOSE_BREAKEVEN), manager=UNIVERSAL)
    owned = await stack.get_trade(trade.ticket)
    assert (owned.managed_by, owned.breakeven_triggered) == (UNIVERSAL, True)
    assert decide(TradeView.of(owned, manager=EXIT_MANAGER), quote(1.109), ExitRules(), vix=None) == []
    before = stack.held()
    answer = await stack.propose(owned, stop_at(1.102))
    assert answer.decision.denial == action_pb2.DENIAL_CODE_OWNED_BY_OTHER
    assert stack.held() == before


@pytest.mark.parametrize("side", [BUY, SELL], ids=["buy", "sell"])
async def test_d27_breakeven_reaches_the_broker_on_both_sides(desk: Desk, side: trade_pb2.Side.ValueType) -> None:
    """A better stop beyond the entry was taken for more risk, so no BUY and no SELL ever got its breakeven.

    Ahead by more than 0.2 R, the stop goes to the other side of the entry, where the trade can lose nothing more.
    """
    stack = await desk.serve()
    trade = await stack.trade(side)
    sign = 1 if side == BUY else -1
    async with desk.manager():
        await known(stack, trade.ticket)
        await stack.tick(round(1.1 + sign * 0.0016, 5))
        await until(lambda: sign * (desk.held.sl - trade.entry_price) > 0)
    assert (await stack.get_trade(trade.ticket)).breakeven_triggered
    assert desk.held.tp == trade.initial_tp


async def test_d32_a_partial_that_failed_is_not_taken(desk: Desk) -> None:
    """A failed partial was marked as taken, and the pair (False, message) as success.

    What counts is the broker's outcome: refused, it is not taken and is tried again; done, it is taken once.
    """
    stack = await desk.serve()
    trade = await stack.trade()
    async with desk.manager(book=RuleBook(default=ExitRules(trail_atr=100.0))) as brain:
        await known(stack, trade.ticket)
        await stack.tick(1.1013)
        await until(lambda: desk.held.sl == BREAKEVEN)
        stack.faults.inject(Retcode.MARKET_CLOSED)
        await stack.tick(HALF_WAY)
        await until(lambda: brain.tally.rejected)
        refused = await stack.get_trade(trade.ticket)
        assert not any(record.partial_taken for record in refused.managers)
        assert desk.held.volume == 1.0
        while desk.held.volume == 1.0:
            await stack.tick(HALF_WAY)
        for _ in range(20):
            await stack.tick(HALF_WAY)
        taken = await stack.get_trade(trade.ticket)
        assert [record.partial_taken for record in taken.managers if record.manager == EXIT_MANAGER] == [True]
        assert desk.held.volume == 0.5


async def test_d40_a_log_that_cannot_be_written_stops_no_trade(tmp_path: Path) -> None:
    """Sixteen writes went to a folder of one developer's machine; without it trailing ended before the modify.

    With its log broken and nothing in its working directory the exit manager moves the stop; no path of a machine
    stands in the sources.
    """
    bare = tmp_path / "bare"
    bare.mkdir()
    reader, writer = os.pipe()
    os.close(reader)
    async with (
        serving(tmp_path / "data") as service,
        service.client("feed") as feed,
        service.client("viewer") as viewer,
    ):
        market = Market(feed, viewer, T0_MSC)
        await market.tick(1.1)
        trade = await market.buy()
        arguments = ("--address", service.address, "--token-file", str(service.token(EXIT_MANAGER)))
        manager = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dtms_client.exit_manager",
            *arguments,
            "--log-level",
            "debug",
            stderr=writer,
            cwd=bare,
        )
        os.close(writer)
        try:
            await market.tick(1.1013)
            await market.outcome(EXIT_MANAGER, trade.revision, action_pb2.PURPOSE_BREAKEVEN)
            assert manager.returncode is None
        finally:
            manager.kill()
            await manager.wait()
    of_a_machine = re.compile(r"[A-Za-z]:\\\\|/home/|/Users/|/tmp/")
    sources = (REPO / "clients" / "python" / "dtms_client").rglob("*.py")
    assert [source.name for source in sources if of_a_machine.search(source.read_text(encoding="utf-8"))] == []


async def test_d41_the_rules_of_a_trade_survive_a_restart(desk: Desk) -> None:
    """The trailing multiplier was not saved: 2.5 became 1.5 with the next start, and the stop moved up by an ATR.

    Rules are left with DTMS as a memo; the manager that comes after with other defaults trails at 2.5 ATR. That every
    number comes back to the last bit is a property test of the rule book.
    """
    stack = await desk.serve()
    trade = await stack.trade()
    async with desk.manager(book=RuleBook(default=ExitRules(trail_atr=2.5, partial_at=0.9))):
        await known(stack, trade.ticket)
    async with desk.manager():
        await stack.tick(1.1013)
        await until(lambda: desk.held.sl >= BREAKEVEN)
        await stack.tick(1.1062)
        await until(lambda: desk.held.sl > BREAKEVEN)
        await nothing_for(0.3, lambda: desk.held.sl > 1.1062 - 2 * 0.001)
    assert desk.held.sl == pytest.approx(1.1062 - 2.5 * 0.001, abs=1e-5)
    assert desk.held.volume == 1.0


async def test_d42_a_stop_is_widened_by_policy_and_never_beyond_the_budget(desk: Desk) -> None:
    """The VIX rule moved stops away by up to twice their distance, and nothing capped what that could lose.

    With VIX at 80 the stop of a trade at its budget stays, and nothing is even asked; an operator's larger budget is
    its end; a stop beyond it, or a wider one that does not say so, is denied by DTMS whoever asks.
    """
    stack = await desk.serve()
    await stack.tick(1.1)
    feed, operator = await stack.client("feed"), await stack.client("operator")
    trade = await stack.trade(sl=1.0991, tp=1.12)
    async with desk.manager() as brain:
        await known(stack, trade.ticket)
        await feed.report_index("VIX", 80.0, valid_ms=60_000)
        await stack.tick(1.1001)
        await nothing_for(0.3, lambda: brain.tally.proposals)
        await operator.set_risk_budget(trade.ticket, 2.0, reason="a nervous week")
        await until(lambda: desk.held.sl == 1.0981)
        await stack.tick(1.1)
        await nothing_for(0.3, lambda: desk.held.sl != 1.0981)
        assert await purposes(stack) == {action_pb2.PURPOSE_WIDEN}
    now = await stack.get_trade(trade.ticket)
    silent = await stack.propose(now, stop_at(1.0980, action_pb2.PURPOSE_WIDEN))
    beyond = await stack.propose(now, stop_at(1.0980, action_pb2.PURPOSE_WIDEN, allow_loosen=True))
    assert [each.decision.denial for each in (silent, beyond)] == [
        action_pb2.DENIAL_CODE_LOOSENS,
        action_pb2.DENIAL_CODE_RISK_BUDGET,
    ]
    assert desk.held.sl == 1.0981
