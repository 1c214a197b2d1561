"""Scenarios A, B and C: everybody works; DTMS defends and the others defer; afterwards they go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dtms.v1.action_pb2 import (
    ACTION_KIND_OPEN_HEDGE,
    DENIAL_CODE_DTMS_DEFENSIVE,
    OUTCOME_STATUS_CONFIRMED,
    PURPOSE_HEDGE,
    PURPOSE_PARTIAL,
    PURPOSE_TIGHTEN,
    PURPOSE_TRAIL,
)
from dtms.v1.event_pb2 import Event
from dtms.v1.ownership_pb2 import GRANT_CAUSE_RETURNED
from dtms.v1.trade_pb2 import SIDE_SELL, TRADE_STATE_HEDGED, TRADE_STATE_RECOVERING, TRADE_STATE_WARNING_L2, Trade
from tests.checker.evidence import DEFENSIVE, Evidence
from tests.scenarios.world import World, world
from tests.stack import DTMS, EXIT_MANAGER, UNIVERSAL, stop_at

MANAGED = "default_standard"
LEASE_MS = 600_000  # nobody renews here: leases are scenario E


async def test_a_all_three_work_side_by_side_without_a_conflict(tmp_path: Path) -> None:
    """Exit manager, Universal Manager and DTMS each change trades of one symbol at once; nobody is denied anything."""
    async with world(tmp_path, engine__lease_ttl_ms=LEASE_MS) as here:
        await here.warm_up()
        protected, managed = await here.open(), await here.open(strategy_type=MANAGED)
        managers = await here.exit_manager(), await here.universal_manager()
        await here.tick(1.1013)
        for trade in (protected, managed):
            await here.told.event(at_breakeven(trade.ticket))
        await here.tick(1.1053)
        part = await here.told.moved(EXIT_MANAGER, PURPOSE_PARTIAL)
        assert part.ticket == protected.ticket
        trailed = await here.told.moved(UNIVERSAL, PURPOSE_TRAIL)
        assert trailed.ticket == managed.ticket
        plain = await here.open()
        await here.score(0.001)
        limits = await here.thresholds()
        await here.score((limits.warn1 + limits.warn2) / 2)
        tightened = await here.told.moved(DTMS, PURPOSE_TIGHTEN)
        assert tightened.ticket == plain.ticket
        for manager in managers:
            assert await manager.terminate() == 0, manager.text()
        await here.check()
        for name in (EXIT_MANAGER, UNIVERSAL):
            decisions = here.told.decisions(name)
            assert decisions
            assert all(decision.granted for decision in decisions), decisions


@dataclass(frozen=True, slots=True)
class Defended:
    """Two buys that DTMS defends by a hedge: one was the Universal Manager's, one nobody's. From ``since`` on only DTMS
    acts on them."""

    strategy: Trade
    plain: Trade
    since: int

    @property
    def tickets(self) -> set[int]:
        return {self.strategy.ticket, self.plain.ticket}


async def defended(here: World) -> Defended:
    """In profit, with both managers at work; then the market turns, in two steps."""
    await here.warm_up()
    strategy, plain = await here.open(strategy_type=MANAGED), await here.open()
    await here.exit_manager()
    await here.universal_manager()
    await here.tick(1.1013)
    for ticket in (strategy.ticket, plain.ticket):
        await here.told.event(at_breakeven(ticket))
    await here.score(0.001)
    limits = await here.thresholds()
    await here.score((limits.warn2 + limits.critical) / 2)
    warned = [
        await here.told.event(entered(ticket, TRADE_STATE_WARNING_L2)) for ticket in (strategy.ticket, plain.ticket)
    ]
    # All of this tempts the managers: half of the way to the target, and room to trail.
    await here.tick(1.1053)
    await here.tick(1.1030)
    await here.score(limits.critical - 0.5)
    for ticket in (strategy.ticket, plain.ticket):
        await here.told.event(entered(ticket, TRADE_STATE_HEDGED))
        await here.told.event(hedged(here, ticket))
    return Defended(strategy, plain, max(event.revision for event in warned))


def entered(ticket: int, state: int) -> Callable[[Event], bool]:
    return lambda event: event.ticket == ticket and event.state_changed.to == state


def at_breakeven(ticket: int) -> Callable[[Event], bool]:
    return lambda event: event.ticket == ticket and event.HasField("breakeven_triggered")


def hedged(here: World, ticket: int) -> Callable[[Event], bool]:
    """The broker holds the hedge."""

    def is_it(event: Event) -> bool:
        outcome = event.outcome_recorded.outcome
        intents = (each.intent_recorded for each in here.told.events)
        hedges = {each.intent_id for each in intents if each.kind == ACTION_KIND_OPEN_HEDGE}
        done = outcome.status == OUTCOME_STATUS_CONFIRMED
        return event.ticket == ticket and done and outcome.intent_id in hedges

    return is_it


def actors(evidence: Evidence, tickets: set[int], since: int) -> set[str]:
    """Who changed these trades while DTMS defended them."""
    return {
        event.intent_recorded.manager
        for event in evidence.intents().values()
        if event.ticket in tickets and event.revision > since and event.state in DEFENSIVE
    }


async def test_b_both_clients_defer_while_dtms_defends(tmp_path: Path) -> None:
    """In WARNING_L2 and HEDGED DTMS acts alone: partial, breakeven, hedge.

    Both managers are alive (the exit manager looks after a healthy trade meanwhile) and propose nothing; whoever tries
    all the same, under the name of the strategy manager, is told DTMS_DEFENSIVE.
    """
    async with world(tmp_path, engine__lease_ttl_ms=LEASE_MS) as here:
        trades = await defended(here)
        healthy = await here.open(SIDE_SELL)
        await here.tick(1.1015)
        await here.told.event(at_breakeven(healthy.ticket))
        owner = await here.client(UNIVERSAL)
        trade = await owner.get_trade(trades.strategy.ticket)
        assert (trade.state, trade.managed_by, trade.displaced_owner) == (TRADE_STATE_HEDGED, DTMS, UNIVERSAL)
        tried = await owner.propose(
            request_id="in spite of it",
            ticket=trade.ticket,
            owner_epoch=trade.owner_epoch,
            action=stop_at(round(trade.confirmed.sl + 0.0001, 5), PURPOSE_TRAIL),
        )
        assert tried.decision.denial == DENIAL_CODE_DTMS_DEFENSIVE
        evidence = await here.check()
        for ticket in trades.tickets:
            assert here.told.decisions(EXIT_MANAGER, ticket) != []
            assert here.told.decisions(EXIT_MANAGER, ticket, after=trades.since) == []
        asked = here.told.decisions(UNIVERSAL, after=trades.since)
        assert [decision.request_id for decision in asked] == [tried.decision.request_id]
        assert actors(evidence, trades.tickets, trades.since) == {DTMS}
        purposes = {
            event.intent_recorded.purpose
            for event in evidence.intents().values()
            if event.ticket == trades.plain.ticket
        }
        assert purposes >= {PURPOSE_PARTIAL, PURPOSE_HEDGE}


async def test_c_after_recovery_the_exit_manager_resumes_and_the_owner_is_back(tmp_path: Path) -> None:
    """The hedge is stopped out: RECOVERING. The Universal Manager gets its trade back and trails it under the new
    token; the exit manager trails the other one."""
    async with world(tmp_path, engine__lease_ttl_ms=LEASE_MS) as here:
        trades = await defended(here)
        await here.score(0.001)
        await here.tick(1.1048)
        for ticket in trades.tickets:
            await here.told.event(entered(ticket, TRADE_STATE_RECOVERING))
        back = await here.told.event(
            lambda event: (
                event.ticket == trades.strategy.ticket and event.ownership_granted.cause == GRANT_CAUSE_RETURNED
            )
        )
        assert back.ownership_granted.managed_by == UNIVERSAL
        await here.tick(1.1065)
        for manager, ticket in ((UNIVERSAL, trades.strategy.ticket), (EXIT_MANAGER, trades.plain.ticket)):
            resumed = await here.told.moved(manager, PURPOSE_TRAIL, after=back.revision)
            assert resumed.ticket == ticket
        evidence = await here.check()
        assert actors(evidence, trades.tickets, trades.since) == {DTMS}
        last = [event for event in evidence.intents().values() if event.intent_recorded.manager == UNIVERSAL][-1]
        assert last.intent_recorded.owner_epoch == back.ownership_granted.owner_epoch
