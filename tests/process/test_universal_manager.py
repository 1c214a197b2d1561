"""The Universal Manager as a process of its own against a real service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.score_pb2 import Score
from dtms_client import AsyncClient
from dtms_client.universal_manager.strategies import PROFILES, FrozenRules, Session, freeze
from tests.process.market import Market, manager_of
from tests.process.service_process import Process, Service, serving
from tests.stack import DTMS, SYMBOL, T0_MSC, UNIVERSAL

INTRADAY = PROFILES["intraday"]
FAST_S = 300
# Written by an earlier table: no cooldown, which the present one has.
EARLIER = replace(freeze("fvg_retracement", SYMBOL, Session.LONDON, INTRADAY), cooldown_s=0)


async def universal_manager(service: Service) -> Process:
    return await manager_of(service, "universal-manager", UNIVERSAL)


def memo_of(trade: trade_pb2.Trade) -> str:
    """What the manager has left on it."""
    return next((record.memo for record in trade.managers if record.manager == UNIVERSAL), "")


async def memo_left(viewer: AsyncClient, ticket: int) -> str:
    """The memo of a trade, as soon as there is one."""
    async for item in viewer.watch(start_revision=1):
        if isinstance(item, Event) and item.ticket == ticket and item.HasField("memo_set"):
            return item.memo_set.memo
    raise AssertionError("unreachable")


async def partials(viewer: AsyncClient, ticket: int) -> int:
    """How many partial closes of the manager were granted."""
    decisions = [each async for each in viewer.list_decisions(ticket=ticket, manager=UNIVERSAL)]
    return sum(each.granted and each.action.kind == action_pb2.ACTION_KIND_PARTIAL_CLOSE for each in decisions)


@pytest.mark.timeout(120)
async def test_a_trade_is_looked_after_by_its_strategy_through_restarts_of_both_sides(tmp_path: Path) -> None:
    """Breakeven at 1.0 R, half off once at 1.5 R, then behind each confirmed swing.

    First the manager is killed, then the service: frozen rules, the partial and the ownership survive both.
    """
    async with serving(tmp_path) as service, service.client("feed") as feed, service.client("viewer") as viewer:
        market = Market(feed, viewer, T0_MSC)
        await market.warm_up(FAST_S)
        await market.tick(1.1)
        await feed.report_score(SYMBOL, Score(total=0.001), valid_ms=3_600_000)
        trade = await market.buy("fvg_retracement", tp=1.1301)
        new = await market.buy("default_standard", sl=1.05, tp=1.1901)
        async with service.client(UNIVERSAL) as earlier:
            await earlier.set_memo(trade.ticket, EARLIER.memo())

        manager = await universal_manager(service)
        try:
            frozen = FrozenRules.of(await memo_left(viewer, new.ticket))
            assert frozen == freeze("default_standard", SYMBOL, Session.OFF, INTRADAY)
            await market.tick(1.1052)
            breakeven = await market.outcome(UNIVERSAL, trade.revision, action_pb2.PURPOSE_BREAKEVEN)
            assert breakeven.ticket == trade.ticket
            assert breakeven.outcome_recorded.outcome.sl == pytest.approx(1.1001 + 0.0001 + 0.00011, abs=2e-5)
            assert (await viewer.get_trade(trade.ticket)).breakeven_triggered
            await market.tick(1.1077)
            part = await market.outcome(UNIVERSAL, breakeven.revision, action_pb2.PURPOSE_PARTIAL)
            assert part.outcome_recorded.outcome.volume == pytest.approx(0.5)

            await manager.kill()
            manager = await universal_manager(service)
            await market.bars([1.1090, 1.1090, 1.1088, 1.1086, 1.1080, 1.1084, 1.1086], FAST_S)
            trailed = await market.outcome(UNIVERSAL, part.revision, action_pb2.PURPOSE_TRAIL)
            assert 1.1072 < trailed.outcome_recorded.outcome.sl < 1.1080

            await service.kill()
            port = int(service.address.rpartition(":")[2])
            async with serving(tmp_path, port=port) as _again:
                await market.bars([1.1120, 1.1120, 1.1118, 1.1116, 1.1110, 1.1114, 1.1116], FAST_S)
                trailed = await market.outcome(UNIVERSAL, trailed.revision, action_pb2.PURPOSE_TRAIL)
                assert 1.1100 < trailed.outcome_recorded.outcome.sl < 1.1110
                now = await viewer.get_trade(trade.ticket)
                assert (now.volume, now.confirmed.tp, now.managed_by) == (0.5, 1.1301, UNIVERSAL)
                assert memo_of(now) == EARLIER.memo()
                assert await partials(viewer, trade.ticket) == 1
                # An ordered end gives the trades back at once.
                assert await manager.terminate() == 0, manager.text()
                assert (await viewer.get_trade(trade.ticket)).managed_by == DTMS
        finally:
            await manager.kill()
            print(manager.text())  # noqa: T201  shown when the test fails
        assert not any("Traceback" in str(line) for line in manager.log), manager.text()
