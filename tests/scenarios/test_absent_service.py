"""Scenario G: the service is away for longer than anybody may trust what it said last. A minute is seconds here."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from dtms.v1.action_pb2 import OUTCOME_STATUS_CONFIRMED, OUTCOME_STATUS_REJECTED, PURPOSE_BREAKEVEN, PURPOSE_TRAIL
from dtms_client.errors import DeadlineExceeded
from tests.checker.evidence import Evidence
from tests.scenarios.behind_gateway import behind_a_gateway
from tests.scenarios.world import market, world
from tests.stack import EXIT_MANAGER, UNIVERSAL, stop_at

ATTEMPTS = 5  # of half a second each: longer than the exit manager trusts what it heard last
GRACE_S = 1.0
"""What a busy machine may add to a deadline."""


def in_time(evidence: Evidence) -> list[str]:
    """Calls that took longer than their deadline."""
    return [
        f"{call.client} waited {call.ended_s - call.sent_s:.1f} s for {call.name}"
        for call in evidence.calls
        if call.deadline_s is not None and call.ended_s is not None
        if call.ended_s - call.sent_s > call.deadline_s + GRACE_S
    ]


@pytest.mark.timeout(120)  # five starts, on a machine that may have more to do
async def test_g_a_proposal_expires_while_the_service_is_dead_and_is_decided_anew(tmp_path: Path) -> None:
    """The exit manager's proposal is at the broker when service and gateway die; it waits, gives the proposal up, and
    proposes anew under a new key once the service is back and has found out that nothing was done."""
    async with behind_a_gateway(tmp_path) as (outside, trade):
        here = outside.here
        manager = await here.program(EXIT_MANAGER, "tests.scenarios.brisk_exit_manager")
        await manager.logged("trades listed")
        await outside.gateway.do("hold", "holding", leg="request")
        # The service may ask the gateway something before it calls the tick done, behind the order that is held.
        ticking = asyncio.create_task(outside.tick(1.1013))
        await outside.gateway.tells("held")
        await here.service.kill()
        await outside.gateway.kill()
        await asyncio.gather(ticking, return_exceptions=True)
        expired = await manager.logged("expired")
        await outside.restart_service()
        await outside.attach()
        async with market(outside.tick, 1.1013):
            moved = await here.told.moved(EXIT_MANAGER, PURPOSE_BREAKEVEN)
        assert moved.ticket == trade.ticket
        assert manager.process.returncode is None
        evidence = await here.check()
        assert in_time(evidence) == []
        keys = [decision.request_id for decision in here.told.decisions(EXIT_MANAGER, trade.ticket)]
        assert len(keys) == len(set(keys)) >= 2
        first = next(event for event in evidence.bodies("outcome_recorded"))
        assert first.outcome_recorded.outcome.status == OUTCOME_STATUS_REJECTED
        assert first.outcome_recorded.outcome.settled
        (order,) = evidence.orders()
        assert order["intent_id"] == moved.outcome_recorded.outcome.intent_id, expired


async def test_g_nobody_hangs_on_a_frozen_service_and_nothing_is_written_for_those_who_gave_up(tmp_path: Path) -> None:
    """SIGSTOP: every call ends at its deadline. When the service wakes, what its callers gave up is not decided."""
    async with world(tmp_path) as here:
        await here.warm_up()
        trade = await here.open()
        manager = await here.program(EXIT_MANAGER, "tests.scenarios.brisk_exit_manager")
        await manager.logged("trades listed")
        client = await here.client(UNIVERSAL)
        held = (await client.acquire_ownership(trade.ticket)).ownership
        here.service.process.send_signal(signal.SIGSTOP)
        started_s = time.monotonic()
        stop = round(trade.confirmed.sl + 0.001, 5)
        for attempt in range(ATTEMPTS):
            with pytest.raises(DeadlineExceeded):
                await client.propose(
                    request_id=f"into the void {attempt}",
                    ticket=trade.ticket,
                    owner_epoch=held.owner_epoch,
                    action=stop_at(stop, PURPOSE_TRAIL),
                    timeout_s=0.5,
                )
        assert time.monotonic() - started_s < ATTEMPTS * 0.5 + GRACE_S
        here.service.process.send_signal(signal.SIGCONT)
        anew = await client.propose(
            request_id="on its return",
            ticket=trade.ticket,
            owner_epoch=held.owner_epoch,
            action=stop_at(round(stop + 0.0001, 5), PURPOSE_TRAIL),
        )
        assert anew.outcome.status == OUTCOME_STATUS_CONFIRMED
        async with market(here.tick, 1.1013):
            await here.told.moved(EXIT_MANAGER, PURPOSE_BREAKEVEN)
        evidence = await here.check()
        assert in_time(evidence) == []
        assert [decision.request_id for decision in here.told.decisions(UNIVERSAL)] == ["on its return"]
