"""Scenario D: two managers want the same trade at the same moment."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

from dtms.v1.action_pb2 import (
    DENIAL_CODE_IN_FLIGHT,
    DENIAL_CODE_LOOSENS,
    DENIAL_CODE_NO_CHANGE,
    OUTCOME_STATUS_CONFIRMED,
    PURPOSE_TRAIL,
)
from dtms.v1.arbitration_service_pb2 import ProposeResponse
from dtms.v1.trade_pb2 import Trade
from dtms_client import AsyncClient
from tests.scenarios.world import world
from tests.stack import EXIT_MANAGER, UNIVERSAL, stop_at

TRADES, ROUNDS = 5, 200
POINT = 0.00001


async def test_d_a_thousand_proposals_in_the_same_millisecond_never_meet_at_the_broker(tmp_path: Path) -> None:
    """The owner and the exit manager propose on one trade a thousand times at once: one change at a time, in order.

    200 rounds on each of five trades; each is sent within one millisecond. Whoever is denied is told why, one of the
    two at least is granted, and the stop at the broker only tightens.
    """
    async with world(tmp_path) as here:
        await here.warm_up()
        owner, other = await here.client(UNIVERSAL), await here.client(EXIT_MANAGER)

        async def contend(trade: Trade) -> list[tuple[ProposeResponse, ProposeResponse]]:
            async def propose(client: AsyncClient, round_: int, points: int) -> ProposeResponse:
                return await client.propose(
                    request_id=f"{trade.ticket} round {round_}",
                    ticket=trade.ticket,
                    owner_epoch=trade.owner_epoch,
                    action=stop_at(round(trade.confirmed.sl + points * POINT, 5), PURPOSE_TRAIL),
                )

            return [
                await asyncio.gather(propose(owner, round_, 2 * round_), propose(other, round_, 2 * round_ + 1))
                for round_ in range(1, ROUNDS + 1)
            ]

        trades = [await here.open(strategy_type="trend_continuation_pullback") for _ in range(TRADES)]
        pairs = [pair for pairs in await asyncio.gather(*map(contend, trades)) for pair in pairs]
        assert len(pairs) == 1000
        assert all(any(answer.decision.granted for answer in pair) for pair in pairs)
        denials = [answer.decision.denial for pair in pairs for answer in pair if not answer.decision.granted]
        assert set(denials) <= {DENIAL_CODE_IN_FLIGHT, DENIAL_CODE_NO_CHANGE, DENIAL_CODE_LOOSENS}
        assert denials.count(DENIAL_CODE_IN_FLIGHT) > len(pairs) // 2
        granted = [answer for pair in pairs for answer in pair if answer.decision.granted]
        assert {answer.outcome.status for answer in granted} == {OUTCOME_STATUS_CONFIRMED}
        evidence = await here.check()
        sent: defaultdict[str, list[float]] = defaultdict(list)
        for call in evidence.named("Propose"):
            sent[call.request.request_id].append(call.sent_s)
        apart = sorted(abs(one - two) for one, two in sent.values())
        assert apart[len(apart) * 9 // 10] < 0.001
        assert len([order for order in evidence.orders() if order["retcode"] == 10009]) == len(granted)
