"""The exit manager as a process of its own against a real service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, trade_pb2
from dtms.v1.score_pb2 import Score
from tests.process.market import Market, manager_of
from tests.process.service_process import Process, Service, serving
from tests.stack import EXIT_MANAGER, SYMBOL, T0_MSC


async def exit_manager(service: Service) -> Process:
    return await manager_of(service, "exit-manager", EXIT_MANAGER)


@pytest.mark.timeout(90)
async def test_a_trade_is_brought_to_breakeven_cut_and_trailed_through_a_restart_of_the_service(tmp_path: Path) -> None:
    """Breakeven at 0.2 R, half off once at half the way, trailing at 1.5 ATR, though the service is killed in between.

    The manager goes on by itself, repeats nothing that was done, and ends with 0 on SIGTERM.
    """
    async with serving(tmp_path) as service, service.client("feed") as feed, service.client("viewer") as viewer:
        market = Market(feed, viewer, T0_MSC)
        await market.warm_up()
        await market.tick(1.1)
        manager = await exit_manager(service)
        try:
            trade = await market.buy()
            await market.tick(1.1013)
            breakeven = await market.outcome(EXIT_MANAGER, trade.revision, action_pb2.PURPOSE_BREAKEVEN)
            assert breakeven.outcome_recorded.outcome.sl == pytest.approx(1.1001 + 0.0001 + 0.00011, abs=2e-5)
            assert (await viewer.get_trade(trade.ticket)).breakeven_triggered
            await market.tick(1.1052)
            part = await market.outcome(EXIT_MANAGER, trade.revision, action_pb2.PURPOSE_PARTIAL)
            assert part.outcome_recorded.outcome.volume == pytest.approx(0.5)

            await service.kill()
            port = int(service.address.rpartition(":")[2])
            async with serving(tmp_path, port=port) as _again:
                await market.warm_up()
                await market.tick(1.1062)
                trailed = await market.outcome(EXIT_MANAGER, part.revision, action_pb2.PURPOSE_TRAIL)
                stop = trailed.outcome_recorded.outcome.sl
                while stop < 1.1062 - 1.5 * 0.0012:
                    trailed = await market.outcome(EXIT_MANAGER, trailed.revision, action_pb2.PURPOSE_TRAIL)
                    stop = trailed.outcome_recorded.outcome.sl
                now = await viewer.get_trade(trade.ticket)
                assert (now.volume, now.confirmed.tp) == (0.5, 1.1101)
                assert now.confirmed.sl == stop
                assert await manager.terminate() == 0, manager.text()
        finally:
            await manager.kill()
            print(manager.text())  # noqa: T201  shown when the test fails
        assert not any("Traceback" in str(line) for line in manager.log), manager.text()


async def test_it_keeps_its_hands_off_while_dtms_defends(tmp_path: Path) -> None:
    """In WARNING_L2 and HEDGED it proposes nothing, while a healthy trade beside it is looked after."""
    async with serving(tmp_path) as service, service.client("feed") as feed, service.client("viewer") as viewer:
        market = Market(feed, viewer, T0_MSC)
        await market.warm_up()
        await market.tick(1.1)
        defended = await market.buy()
        await market.tick(1.1008)
        await feed.report_score(SYMBOL, Score(total=0.001), valid_ms=60_000)
        in_force = (await viewer.get_score(SYMBOL, trade_pb2.SIDE_BUY)).score.thresholds
        between = Score(total=(in_force.warn2 + in_force.critical) / 2)
        await feed.report_score(SYMBOL, between, valid_ms=60_000)
        assert (await viewer.get_trade(defended.ticket)).state == trade_pb2.TRADE_STATE_WARNING_L2
        manager = await exit_manager(service)
        try:
            await feed.report_score(SYMBOL, Score(total=0.001), valid_ms=60_000)
            healthy = await market.buy()
            await market.tick(1.1033)
            await market.outcome(EXIT_MANAGER, healthy.revision, action_pb2.PURPOSE_BREAKEVEN)
            decisions = [d async for d in viewer.list_decisions(ticket=defended.ticket, manager=EXIT_MANAGER)]
            assert decisions == []
            assert await manager.terminate() == 0
        finally:
            await manager.kill()


async def test_a_refused_credential_ends_it_with_a_code_of_its_own(tmp_path: Path) -> None:
    """3 says: the token, not the service, is wrong."""
    async with serving(tmp_path) as service:
        wrong = tmp_path / "wrong.token"
        wrong.write_text("x" * 43)
        manager = await Process.start("exit-manager", "--address", service.address, "--token-file", wrong)
        try:
            async with asyncio.timeout(20):
                assert await manager.ended() == 3, manager.text()
        finally:
            await manager.kill()
