"""Direct mode of the exit manager: a real service that goes away, and a terminal on the same paper account."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dtms.v1 import trade_pb2
from dtms.v1.action_pb2 import PURPOSE_BREAKEVEN, PURPOSE_TRAIL
from dtms_client.exit_manager.rule_book import read_memo
from dtms_client.exit_manager.terminal import COMMENT, Failed
from dtms_client.exit_manager.terminal_process import TerminalProcess
from dtms_service.broker.foreign import ForeignActor
from tests.conftest import REPO
from tests.desk import BREAKEVEN, HALF_WAY, Desk, known, nothing_for, price, purposes, until
from tests.stack import EXIT_MANAGER, SYMBOL


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    await desk.vanish()


async def test_while_dtms_is_away_the_trade_is_protected_and_cut_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breakeven, then one partial, at the terminal; back with DTMS nothing is repeated, and trailing goes on there."""
    stack = await desk.serve()
    trade = await stack.trade()
    with desk.terminal(monkeypatch) as terminal:
        async with desk.manager(direct=True):
            await known(stack, trade.ticket)
            await desk.vanish()
            price(terminal, 1.1013)
            await until(lambda: desk.held.sl == BREAKEVEN)
            assert (desk.held.tp, desk.held.volume) == (1.1101, 1.0)
            price(terminal, HALF_WAY)
            await until(lambda: desk.held.volume == 0.5)
            price(terminal, 1.1062)
            await nothing_for(0.3, lambda: len(terminal.orders) > 2)
            assert (desk.held.sl, desk.held.tp) == (BREAKEVEN, 1.1101)
            stack = await desk.serve()
            await stack.tick(1.1062)
            await until(lambda: desk.held.sl > BREAKEVEN)
            mended = await stack.get_trade(trade.ticket)
            (own,) = [record for record in mended.managers if record.manager == EXIT_MANAGER]
            assert (read_memo(own.memo).part, own.partial_taken) == (True, False)
            assert (mended.volume, desk.held.tp) == (0.5, 1.1101)
            assert await purposes(stack) == {PURPOSE_TRAIL}
    assert [(order["position"], order.get("comment")) for order in terminal.orders] == [
        (trade.ticket, None),
        (trade.ticket, COMMENT),
    ]


async def test_a_part_taken_past_dtms_is_not_repeated_by_a_manager_without_memory(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before DTMS was back, started without direct mode: the volume that nobody took through DTMS tells."""
    stack = await desk.serve()
    trade = await stack.trade()
    with desk.terminal(monkeypatch) as terminal:
        async with desk.manager(direct=True):
            await known(stack, trade.ticket)
            await desk.vanish()
            price(terminal, HALF_WAY)
            await until(lambda: desk.held.volume == 0.5)
    stack = await desk.serve()
    async with desk.manager() as brain:
        await stack.tick(1.1062)
        await until(lambda: brain.tally.confirmed)
        await stack.tick(1.1082)
        await until(lambda: brain.tally.confirmed > 1)
    assert await purposes(stack) <= {PURPOSE_TRAIL, PURPOSE_BREAKEVEN}
    assert desk.held.volume == 0.5


async def test_without_a_word_of_dtms_in_this_life_nothing_is_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal shows a position that calls for breakeven; who owns it and in what state, nobody has said."""
    await (await desk.serve()).trade()
    await desk.vanish()
    with desk.terminal(monkeypatch) as terminal:
        async with desk.manager(direct=True):
            price(terminal, HALF_WAY)
            await until(lambda: terminal.calls)
            await nothing_for(0.5, lambda: terminal.orders)


async def test_what_dtms_defended_or_somebody_has_cut_is_left_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last known in WARNING_L2: nothing. Cut by hand in the meantime: protected, but not cut again."""
    stack = await desk.serve()
    defended = await stack.trade()
    await stack.tick(1.1008)
    await stack.report_score(0.001)
    in_force = (await (await stack.client("viewer")).get_score(SYMBOL, trade_pb2.SIDE_BUY)).score.thresholds
    await stack.report_score((in_force.warn2 + in_force.critical) / 2)
    assert (await stack.get_trade(defended.ticket)).state == trade_pb2.TRADE_STATE_WARNING_L2
    await stack.report_score(0.001)
    cut = await stack.trade()
    with desk.terminal(monkeypatch) as terminal:
        async with desk.manager(direct=True):
            for trade in (defended, cut):
                await known(stack, trade.ticket)
            await desk.vanish()
            with terminal.lock:
                ForeignActor(terminal.broker).close(cut.ticket, 0.5)
            price(terminal, HALF_WAY)
            await until(lambda: terminal.orders)
            await nothing_for(0.3, lambda: len(terminal.orders) > 1)
    assert [order["position"] for order in terminal.orders] == [cut.ticket]
    assert "volume" not in terminal.orders[0]


async def test_a_terminal_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call ends at its deadline as uncertain, the process is gone, and the manager's own loop never stood still."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    terminal = TerminalProcess("tests.stuck_terminal", start_s=0.5, deadline_s=0.5)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    pulse = asyncio.create_task(beat())
    started_s = asyncio.get_running_loop().time()
    with pytest.raises(Failed) as caught:
        await terminal.protect(1, 1.1)
    pulse.cancel()
    assert asyncio.get_running_loop().time() - started_s < 5
    assert (caught.value.uncertain, beats > 10) == (True, True)
    await terminal.close()


async def test_a_module_that_does_not_exist_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """The terminal's process names it and ends; the call fails, nothing else does."""
    terminal = TerminalProcess("no_such_terminal")
    with pytest.raises(Failed, match="has ended"):
        await terminal.see(1)
    await terminal.close()
    assert "no_such_terminal" in capfd.readouterr().err


async def test_a_process_that_cannot_start_is_a_failure_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory, no such program: the manager works on."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Failed, match="does not start"):
        await TerminalProcess("MetaTrader5").see(1)
