"""Scenario E: a manager is frozen past its lease, and wakes up in the belief that the trade is still its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from dtms.v1.action_pb2 import PURPOSE_TRAIL
from dtms.v1.ownership_pb2 import GRANT_CAUSE_EXPIRED
from tests.scenarios.world import world
from tests.stack import DTMS, EXIT_MANAGER, UNIVERSAL, stop_at

LEASE_MS = 700


async def test_e_a_manager_that_wakes_after_its_lease_writes_nothing(tmp_path: Path) -> None:
    """SIGSTOP in the middle of trailing: the lease runs out, the trade falls to DTMS, another manager works on it.

    The first thing that the woken one sends is refused with STALE_EPOCH, and its order never reaches the broker.
    """
    async with world(tmp_path, engine__lease_ttl_ms=LEASE_MS) as here:
        await here.warm_up()
        trade = await here.open()
        frozen = await here.program(UNIVERSAL, "tests.scenarios.trailing_manager", "--ticket", str(trade.ticket))
        await frozen.until(lambda: len(frozen.said) > 5)
        frozen.process.send_signal(signal.SIGSTOP)
        expired = await here.told.event(lambda event: event.ownership_granted.cause == GRANT_CAUSE_EXPIRED)
        assert (expired.ownership_granted.managed_by, expired.ownership_granted.displaced) == (DTMS, UNIVERSAL)
        trade = await here.trade(trade.ticket)
        moved = await (await here.client(EXIT_MANAGER)).propose(
            request_id="while it sleeps",
            ticket=trade.ticket,
            owner_epoch=trade.owner_epoch,
            action=stop_at(round(trade.confirmed.sl + 0.001, 5), PURPOSE_TRAIL),
        )
        assert moved.decision.granted
        frozen.process.send_signal(signal.SIGCONT)
        assert await frozen.ended() == 0, frozen.text()
        answers = [json.loads(line) for line in frozen.said]
        assert answers[-1]["kind"] == "refused"
        assert (answers[-1]["reason"], answers[-1]["epoch"]) == ("STALE_EPOCH", trade.owner_epoch)
        evidence = await here.check()
        late = [event.revision for event in evidence.events if event.intent_recorded.manager == UNIVERSAL]
        assert max(late) < expired.revision
        orders = [order["intent_id"] for order in evidence.orders()]
        assert len(orders) == len([answer for answer in answers if answer.get("granted")]) + 1
