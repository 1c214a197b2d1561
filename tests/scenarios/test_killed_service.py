"""Scenario F: the service is killed between its decision and the broker's answer, and comes back."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from dtms.v1.action_pb2 import OUTCOME_STATUS_CONFIRMED, OUTCOME_STATUS_REJECTED, PURPOSE_TRAIL, OutcomeStatus
from dtms_client.errors import Unavailable
from tests.scenarios.behind_gateway import behind_a_gateway
from tests.stack import EXIT_MANAGER, stop_at


@pytest.mark.parametrize(
    ("leg", "outcome"),
    [
        ("reply", OUTCOME_STATUS_CONFIRMED),
        # Scenario G goes the same way, and is in the fast suite.
        pytest.param("request", OUTCOME_STATUS_REJECTED, marks=pytest.mark.slow),
    ],
)
async def test_f_a_write_that_was_under_way_is_settled_by_reading_the_broker(
    tmp_path: Path, leg: str, outcome: OutcomeStatus.ValueType
) -> None:
    """kill -9 while an order is at the broker: what the broker did is found to be done, what it never got is not.

    ``reply``: the broker has moved the stop, and the answer meets a dead service. ``request``: the gateway dies with
    the order before the broker sees it. Either way nothing is sent again, and a repeat of the proposal is answered by
    what became of it.
    """
    async with behind_a_gateway(tmp_path) as (outside, trade):
        here, executed = outside.here, leg == "reply"
        stop = round(trade.confirmed.sl + 0.001, 5)
        propose = partial(
            (await here.client(EXIT_MANAGER)).propose,
            request_id="in the middle of it",
            ticket=trade.ticket,
            owner_epoch=trade.owner_epoch,
            action=stop_at(stop, PURPOSE_TRAIL),
        )
        await outside.gateway.do("hold", "holding", leg=leg)
        under_way = asyncio.create_task(propose())
        await outside.gateway.tells("held")
        await here.service.kill()
        with pytest.raises(Unavailable):
            await under_way
        told = len(outside.gateway.said)
        if executed:
            await outside.gateway.do("release", "released")
            await outside.restart_service()
            await outside.gateway.tells("attached", since=told)
        else:
            await outside.gateway.kill()
            await outside.restart_service()
            await outside.attach()
        answer = await propose()
        assert answer.decision.granted
        assert (answer.outcome.status, answer.outcome.settled) == (outcome, True)
        now = await here.trade(trade.ticket)
        assert now.confirmed.sl == (stop if executed else trade.confirmed.sl)
        assert now.owner_epoch == trade.owner_epoch
        await outside.tick(1.1)
        evidence = await here.check()
        assert [order["intent_id"] for order in evidence.orders()] == [1] * executed
