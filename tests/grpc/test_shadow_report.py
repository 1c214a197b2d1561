"""The report of a shadow run, counted by hand: 1 lot of EURUSD is 10 USD a pip, closing costs 3.50 USD a lot."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from rich.console import Console

from dtms.v1 import action_pb2
from dtms_service.cli import look, runs
from dtms_service.errors import DataDirectoryBusy, JournalModeDiffers
from dtms_service.replay.shadow import read_shadow_run
from dtms_service.report.shadow import ShadowTrade
from tests.grpc.test_course import HEDGED
from tests.shadow_world import close_by_hand, move_by_hand, shadowing
from tests.stack import EXIT_MANAGER, part_of, running, stop_at


def money(trade: ShadowTrade) -> tuple[float | None, float | None, float | None]:
    return trade.account.money, trade.shadow.money, trade.gain_money


async def test_four_trades_both_ways(tmp_path: Path) -> None:
    """A tighter stop saves 400, a part taken earlier brings 100, an untouched trade and an open one are the same."""
    async with shadowing(tmp_path) as stack:
        saved, parted, same = [await stack.trade() for _ in range(3)]  # all at 1.1001, stop 50 pips away: R is 500
        await stack.propose(saved, stop_at(1.0991))
        await stack.propose(same, stop_at(1.0961))
        await move_by_hand(stack, same.ticket, 1.0961, 1.1101)
        denied = await stack.propose(await stack.get_trade(same.ticket), stop_at(1.09))
        assert denied.decision.denial == action_pb2.DENIAL_CODE_LOOSENS
        await stack.tick(1.1041)
        await stack.propose(parted, part_of(0.5))
        await stack.tick(1.1021)
        await close_by_hand(stack, parted.ticket)
        await stack.tick(1.1011)
        await close_by_hand(stack, same.ticket)
        await stack.tick(1.0989)
        await stack.tick(1.0949)
        await stack.tick(1.1)
        still_open = await stack.trade()
        await stack.tick(1.1011)
    report = read_shadow_run(tmp_path / "data")
    trades = {trade.ticket: trade for trade in report.trades}

    assert money(trades[saved.ticket]) == (-523.5, -123.5, 400.0)
    assert trades[saved.ticket].risk_money == pytest.approx(500)
    assert trades[saved.ticket].account.r == pytest.approx(-1.047)
    assert trades[saved.ticket].shadow.r == pytest.approx(-0.247)
    assert (trades[saved.ticket].account.price, trades[saved.ticket].shadow.price) == (1.0949, 1.0989)
    assert money(trades[parted.ticket]) == (196.5, 296.5, 100.0)
    assert money(trades[same.ticket]) == (96.5, 96.5, 0.0)
    assert money(trades[still_open.ticket]) == (100.0, 100.0, 0.0)
    assert trades[still_open.ticket].shadow.is_open

    totals = report.totals
    assert (totals.account_money, totals.shadow_money) == (-130.5, 369.5)
    assert [totals.account_r, totals.shadow_r] == pytest.approx([-0.261, 0.739])
    assert (totals.trades, totals.better, totals.worse, totals.same) == (4, 2, 0, 2)
    assert (totals.writes, totals.writes_that_differ) == (3, 2)
    assert report.writes == {EXIT_MANAGER: {"PARTIAL_CLOSE": 1, "STOP": 2}}
    assert (report.granted, report.denied, report.unregistered) == (3, {"LOOSENS": 1}, 0)


async def test_a_hedge_counts_for_its_trade(tmp_path: Path) -> None:
    """Half taken at +20 pips, a hedge of 0.25 that is stopped out 11 pips later, the rest closed by hand at +30."""
    async with shadowing(tmp_path) as stack:
        await stack.warm_up()
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-10.5)
        now = await stack.get_trade(trade.ticket)
        assert (now.state, now.hedge.volume, now.hedge.entry_price) == (HEDGED, 0.25, 1.1021)
        assert now.hedge.sl < 1.1032
        await stack.report_score(0.0)
        await stack.tick(1.1031)
        await close_by_hand(stack, trade.ticket)
        await stack.tick(1.1031)
    (told,) = read_shadow_run(tmp_path / "data").trades
    part, hedge, rest = 100 - 1.75, -27.5 - 0.875, (300 - 3.5) / 2
    assert told.account.money == 296.5
    assert told.shadow.money == pytest.approx(part + hedge + rest, abs=0.011)
    assert [write.kind for write in told.writes] == ["PARTIAL_CLOSE", "STOP", "OPEN_HEDGE"]
    assert all(write.differs and write.manager == "dtms_manager" for write in told.writes)


async def test_only_a_stopped_shadow_run_is_read(tmp_path: Path) -> None:
    """Not while its service runs, not a live directory, and none that is not there."""
    async with shadowing(tmp_path) as stack:
        await stack.tick(1.1)
        with pytest.raises(DataDirectoryBusy):
            read_shadow_run(tmp_path / "data")
    async with running(tmp_path / "live"):
        pass
    with pytest.raises(JournalModeDiffers):
        read_shadow_run(tmp_path / "live")
    with pytest.raises(FileNotFoundError):
        read_shadow_run(tmp_path / "nowhere")


async def test_at_the_terminal(tmp_path: Path) -> None:
    """`dtms status` says SHADOW; `dtms shadow-report` shows a table, and writes the same figures as JSON."""
    data_dir, document = tmp_path / "data", tmp_path / "report.json"
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.propose(trade, stop_at(1.0991))
        await stack.tick(1.0989)
        token = stack.token("viewer")
        shown = await asyncio.to_thread(printed, look.status, address=stack.server.address, token_file=token)
    assert "SHADOW" in shown
    shown = printed(runs.show_shadow, data_dir=data_dir, json_file=document)
    assert "STOP 1.0991" in shown
    assert json.loads(document.read_text())["totals"]["shadow_money"] == -120.0


def printed(command: Callable[..., None], **arguments: Any) -> str:
    """What a command of dtms prints, on a wide terminal."""
    console = Console(width=250, record=True)
    with patch.object(sys.modules[command.__module__], "console", console), console.capture() as shown:
        command(**arguments)
    return shown.get()
