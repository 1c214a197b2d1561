"""Defects of the system that DTMS replaces, in its storage, its start and what it told: each must be impossible here.

The numbers are those of the list in docs/legacy-defects.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dtms.v1 import action_pb2, trade_pb2
from dtms.v1.arbitration_service_pb2 import ListDecisionsRequest, SetMemoRequest
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client import errors
from dtms_service.broker.door import Command
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.retcodes import LastError
from tests.grpc.watching import all_until
from tests.legacy.test_states_and_arbitration import HEDGED, hedged
from tests.stack import EXIT_MANAGER, SYMBOL, Stack, attach_paper, part_of, running, stop_at

HEALTHY = trade_pb2.TRADE_STATE_HEALTHY
REGISTRATIONS = 200


async def test_d01_every_action_has_the_numbers_of_its_trade(stack: Stack) -> None:
    """Actions got a status without price, volume or levels, took 0 for each of them, and all came to nothing.

    One typed trade: a command has no default for any of its numbers and names (what it keeps of a position it says),
    and each one sent bears levels or a volume.
    """
    assert not [
        field.name
        for field in dataclasses.fields(Command)
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in {"keeps_sl", "keeps_tp"}
    ]
    trade = await hedged(stack)
    watch = await stack.stream("viewer", WatchRequest(start_revision=1))
    events = await all_until(watch, stack.system.desk.engine.revision)
    intents = [event.intent_recorded for event in events if event.HasField("intent_recorded")]
    kinds = {intent.kind for intent in intents}
    assert kinds >= {
        action_pb2.ACTION_KIND_PARTIAL_CLOSE,
        action_pb2.ACTION_KIND_OPEN_HEDGE,
    }
    for intent in intents:
        if intent.kind == action_pb2.ACTION_KIND_STOP:
            assert intent.sl > 0
            assert intent.tp == trade.initial_tp
        else:
            assert intent.volume > 0
    assert (await stack.get_trade(trade.ticket)).phase == trade_pb2.STATE_PHASE_CONFIRMED


async def test_d07_nothing_is_forgotten_because_it_was_not_seen(tmp_path: Path) -> None:
    """An empty list, None or any exception at the start deleted the row ("assume invalid").

    A trade that the broker does not show stays, in quarantine once that is certain, with all that is known of it.
    """
    async with running(tmp_path, {"reconciliation.missing_ms": 0}) as stack:
        trade = await stack.trade()
    async with running(tmp_path, {"reconciliation.missing_ms": 0}, attach=False) as stack:
        assert stack.system.paper is not None
        broker = stack.system.paper.broker
        held = broker.book.positions.pop(trade.ticket)
        held.market.positions.pop(trade.ticket)  # an empty answer, and no deal that explains it
        stack.faults.fail_calls(LastError.INTERNAL_FAIL_TIMEOUT)
        await attach_paper(stack.system)
        await stack.tick(1.1)
        for _ in range(2):
            ForeignActor(broker).open(SYMBOL, held.side, 0.01, 0.0, 0.0)
            await stack.tick(1.1)
        now = await stack.get_trade(trade.ticket)
        assert (now.quarantined, now.state, now.volume) == (True, HEALTHY, 1.0)
        assert (now.confirmed.sl, now.managed_by) == (trade.confirmed.sl, trade.managed_by)


async def test_d08_registering_holds_up_nobody(tmp_path: Path) -> None:
    """In a store without its table saving called itself under a lock, and the whole event loop stood still.

    In a new data directory hundreds of registrations at once all end, and whoever asks meanwhile is answered.
    """
    async with running(tmp_path / "new") as stack:
        await stack.tick(1.1)
        bodies = [await stack.open_position(volume=0.01) for _ in range(REGISTRATIONS)]
        feed, viewer = await stack.client("feed"), await stack.client("viewer")
        async with asyncio.timeout(20):
            registering = asyncio.gather(*(feed.register_trade(body) for body in bodies))
            asked = 0
            while not registering.done():
                await viewer.system_status()
                asked += 1
            answers = await registering
    assert asked > 1
    assert len({answer.trade.ticket for answer in answers}) == REGISTRATIONS


async def test_d09_a_hedged_trade_restarts_as_it_was(tmp_path: Path) -> None:
    """State, timers and hedge were not stored: a hedged trade came back healthy, and its hedge was nobody's."""
    async with running(tmp_path) as stack:
        before = await hedged(stack)
    async with running(tmp_path) as stack:
        after = await stack.get_trade(before.ticket)
        assert after == before
        assert (after.state, after.HasField("hedge"), after.HasField("flat_timer_ends_ns")) == (HEDGED, True, True)
        assert set(stack.held()) == {before.ticket, before.hedge.ticket}


async def test_d35_what_is_not_well_does_not_say_so_with_a_success(tmp_path: Path) -> None:
    """An unhealthy service answered HTTP 200 with a list that said 503, and an unknown ticket was a 200 too."""
    async with running(tmp_path, attach=False) as stack:
        viewer = await stack.client("viewer")
        health = health_pb2_grpc.HealthStub(viewer.channel)
        sick = await health.Check(health_pb2.HealthCheckRequest())
        assert sick.status == health_pb2.HealthCheckResponse.NOT_SERVING
        await attach_paper(stack.system)
        well = await health.Check(health_pb2.HealthCheckRequest())
        assert well.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(errors.NotFound) as told:
            await viewer.get_trade(424242)
        assert told.value.reason == "TRADE_UNKNOWN"


async def test_d37_the_history_of_actions_is_the_journal(stack: Stack) -> None:
    """The list of actions was never appended to. Everything that was decided and done can be read back, in order."""
    trade = await stack.trade()
    await stack.propose(trade, stop_at(1.0961))
    await stack.propose(trade, part_of(0.4))
    await stack.propose(trade, stop_at(1.0900))
    listed = await stack.call("viewer", ListDecisionsRequest(ticket=trade.ticket))
    assert [decision.granted for decision in listed.decisions] == [False, True, True]
    watch = await stack.stream("viewer", WatchRequest(start_revision=1))
    events = await all_until(watch, stack.system.desk.engine.revision)
    told = [event.WhichOneof("body") for event in events if event.ticket == trade.ticket]
    assert told[told.index("decision_made") :] == [
        *("decision_made", "intent_recorded", "outcome_recorded"),
        *("decision_made", "intent_recorded", "outcome_recorded"),
        "decision_made",
    ]


async def test_d39_a_broker_that_fails_at_the_start_costs_no_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error of the terminal at the start deleted all rows of one manager and all rules of the other.

    The start waits for the terminal; trades, and the rules that managers keep with them, are there afterwards.
    """
    monkeypatch.setattr("dtms_service.recovery.RETRY_S", 0.02)
    async with running(tmp_path) as stack:
        trades = [await stack.trade() for _ in range(3)]
        for trade in trades:
            await stack.call(EXIT_MANAGER, SetMemoRequest(ticket=trade.ticket, memo="rules of a trade"))
    async with running(tmp_path, attach=False) as stack:
        stack.faults.fail_calls(LastError.INTERNAL_FAIL_CONNECT, count=5)
        await attach_paper(stack.system)
        for trade in trades:
            now = await stack.get_trade(trade.ticket)
            assert (now.state, now.quarantined) == (HEALTHY, False)
            assert [record.memo for record in now.managers] == ["rules of a trade"]
