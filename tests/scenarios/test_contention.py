"""Scenario D: two managers want the same trade at the same moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dtms.v1.action_pb2 import (
    DENIAL_CODE_IN_FLIGHT,
    DENIAL_CODE_LOOSENS,
    DENIAL_CODE_NO_CHANGE,
    OUTCOME_STATUS_CONFIRMED,
    PURPOSE_TRAIL,
)
from dtms.v1.arbitration_service_pb2 import ProposeResponse
from dtms_client import AsyncClient
from tests.scenarios.world import world
from tests.stack import EXIT_MANAGER, UNIVERSAL, stop_at

ROUNDS = 1000
POINT = 0.00001


async def test_d_a_thousand_proposals_in_the_same_millisecond_never_meet_at_the_broker(tmp_path: Path) -> None:
    """The owner and the exit manager propose on one trade a thousand times at once: one change at a time, in order.

    Each round is sent within one millisecond. Whoever is denied is told why, one of the two at least is granted, and
    the stop at the broker only tightens.
    """
    async with world(tmp_path) as here:
        await here.warm_up()
        trade = await here.open(strategy_type="trend_continuation_pullback")
        owner, other = await here.client(UNIVERSAL), await here.client(EXIT_MANAGER)
        first = trade.confirmed.sl

        async def propose(client: AsyncClient, round_: int, points: int) -> ProposeResponse:
            stop = round(first + points * POINT, 5)
            return await client.propose(
                request_id=f"round {round_}",
                ticket=trade.ticket,
                owner_epoch=trade.owner_epoch,
                action=stop_at(stop, PURPOSE_TRAIL),
            )

        answers = []
        for round_ in range(ROUNDS):
            points = (round_ % 200 + 1) * 2
            if round_ and points == 2:  # the stop has come near the price: another trade of the same kind
                trade = await here.open(strategy_type="trend_continuation_pullback")
                first = trade.confirmed.sl
            answers.append(await asyncio.gather(propose(owner, round_, points), propose(other, round_, points + 1)))
        assert all(any(answer.decision.granted for answer in pair) for pair in answers)
        denials = [answer.decision.denial for pair in answers for answer in pair if not answer.decision.granted]
        assert set(denials) <= {DENIAL_CODE_IN_FLIGHT, DENIAL_CODE_NO_CHANGE, DENIAL_CODE_LOOSENS}
        assert denials.count(DENIAL_CODE_IN_FLIGHT) > ROUNDS // 2
        granted = [answer for pair in answers for answer in pair if answer.decision.granted]
        assert {answer.outcome.status for answer in granted} == {OUTCOME_STATUS_CONFIRMED}
        evidence = await here.check()
        sent = {(call.client, call.request.request_id): call.sent_s for call in evidence.named("Propose")}
        apart = sorted(
            abs(sent[UNIVERSAL, f"round {round_}"] - sent[EXIT_MANAGER, f"round {round_}"]) for round_ in range(ROUNDS)
        )
        assert apart[ROUNDS * 9 // 10] < 0.001
        assert len([order for order in evidence.orders() if order["retcode"] == 10009]) == len(granted)
