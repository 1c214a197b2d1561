"""Ownership over the wire: claims, leases, and the fencing token that rises with every grant."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtms.v1 import action_pb2, arbitration_service_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms.v1.admin_service_pb2 import SetKillSwitchRequest, SetTradingStateRequest
from dtms.v1.arbitration_service_pb2 import Grant
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client import errors
from tests.grpc.watching import events_until
from tests.stack import DTMS, EXIT_MANAGER, UNIVERSAL, Stack, running, stop_at

MANAGED = "breakout_ib_volatility_trap"


async def acquire(stack: Stack, ticket: int, manager: str) -> arbitration_service_pb2.AcquireOwnershipResponse:
    return await (await stack.client(manager)).acquire_ownership(ticket)


async def test_a_strictly_higher_rank_preempts_and_no_other(stack: Stack) -> None:
    """I4: Universal takes the trade of DTMS; the exit manager, lower, is denied, and the token rose once."""
    trade = await stack.trade()
    denied = await acquire(stack, trade.ticket, EXIT_MANAGER)
    assert (denied.granted, denied.denial) == (False, action_pb2.DENIAL_CODE_OWNED_BY_OTHER)
    assert denied.ownership.owner_epoch == trade.owner_epoch
    taken = await acquire(stack, trade.ticket, UNIVERSAL)
    assert (taken.granted, taken.ownership.managed_by) == (True, UNIVERSAL)
    assert taken.ownership.owner_rank == ownership_pb2.RANK_STRATEGY
    assert taken.ownership.owner_epoch > trade.owner_epoch
    refused = await acquire(stack, trade.ticket, EXIT_MANAGER)
    assert (refused.granted, refused.ownership) != (True, taken.ownership)
    assert (await stack.get_trade(trade.ticket)).managed_by == UNIVERSAL


async def test_a_denied_claim_is_a_decision(stack: Stack) -> None:
    """It is listed with its inputs, explained with who prevailed, and a denial for what halts it names that."""
    trade = await stack.trade(strategy_type=MANAGED)
    denied = await acquire(stack, trade.ticket, EXIT_MANAGER)
    operator = await stack.client("operator")
    (listed,) = [each async for each in operator.list_decisions(denied_only=True)]
    assert (listed.decision_id, listed.manager, listed.owner) == (denied.decision_id, EXIT_MANAGER, UNIVERSAL)
    assert (listed.action.kind, listed.denial) == (
        action_pb2.ACTION_KIND_ACQUIRE,
        action_pb2.DENIAL_CODE_OWNED_BY_OTHER,
    )
    told = await operator.explain(decision_id=denied.decision_id)
    assert (told.winner, told.losers[0].manager) == (UNIVERSAL, EXIT_MANAGER)
    assert "asked for ACQUIRE: denied, OWNED_BY_OTHER" in told.summary
    await operator.set_kill_switch(event_pb2.KILL_SCOPE_MANAGER, UNIVERSAL, engaged=True, reason="test")
    halted = await acquire(stack, trade.ticket, UNIVERSAL)
    assert f"by kill switch manager {UNIVERSAL}" in (await operator.explain(decision_id=halted.decision_id)).summary
    before = halted.decision_id
    assert (await acquire(stack, trade.ticket, EXIT_MANAGER)).decision_id == before + 1


async def test_a_claim_is_no_proposal(stack: Stack) -> None:
    """Who would own a trade asks for it by its own call."""
    trade = await stack.trade()
    with pytest.raises(errors.InvalidArgument, match="AcquireOwnership"):
        await stack.propose(trade, action_pb2.Action(kind=action_pb2.ACTION_KIND_ACQUIRE))


async def test_asking_again_renews_and_changes_no_token(stack: Stack) -> None:
    """To its owner a claim is a renewal: same token, full lease."""
    trade = await stack.trade()
    first = (await acquire(stack, trade.ticket, UNIVERSAL)).ownership
    again = (await acquire(stack, trade.ticket, UNIVERSAL)).ownership
    assert again.owner_epoch == first.owner_epoch
    assert again.lease_remaining_ms <= stack.config.engine.lease_ttl_ms


async def test_renewals_name_what_was_lost(stack: Stack) -> None:
    """One call keeps many leases; what is wrong with one costs the others nothing, and it is named.

    A wrong token, a foreign trade, an unknown ticket, an account that was never attached.
    """
    mine = await stack.trade(strategy_type=MANAGED)
    foreign = await stack.trade()
    universal = await stack.client(UNIVERSAL)
    grants = [
        Grant(ticket=mine.ticket, owner_epoch=mine.owner_epoch),
        Grant(ticket=mine.ticket, owner_epoch=mine.owner_epoch + 1),
        Grant(ticket=foreign.ticket, owner_epoch=foreign.owner_epoch),
        Grant(ticket=999, owner_epoch=1),
        Grant(account_id="9@nowhere", ticket=mine.ticket, owner_epoch=mine.owner_epoch),
    ]
    answer = await universal.renew_ownership(grants)
    assert [held.ticket for held in answer.renewed] == [mine.ticket]
    assert 0 < answer.renewed[0].lease_remaining_ms <= stack.config.engine.lease_ttl_ms
    assert list(answer.lost) == grants[1:]
    with pytest.raises(errors.InvalidArgument):
        await universal.renew_ownership([])
    with pytest.raises(errors.InvalidArgument):
        await universal.renew_ownership([grants[0]] * 501)


async def test_a_released_trade_falls_to_dtms_under_a_new_token(stack: Stack) -> None:
    """The owner gives back; the old token is stale from then on."""
    trade = await stack.trade(strategy_type=MANAGED)
    universal = await stack.client(UNIVERSAL)
    grant = Grant(ticket=trade.ticket, owner_epoch=trade.owner_epoch)
    released = await universal.release_ownership(grant)
    assert released.managed_by == DTMS
    assert released.owner_epoch > trade.owner_epoch
    with pytest.raises(errors.StaleEpoch):
        await universal.release_ownership(grant)
    with pytest.raises(errors.InvalidArgument):
        await stack.call(UNIVERSAL, arbitration_service_pb2.ReleaseOwnershipRequest())


async def test_a_lease_that_runs_out_falls_to_dtms(tmp_path: Path) -> None:
    """Without a renewal the trade is DTMS's again, told on the stream as EXPIRED, and the old token is refused."""
    async with running(tmp_path / "data", {"engine.lease_ttl_ms": 300}) as stack:
        trade = await stack.trade(strategy_type=MANAGED)
        watch = await stack.stream("viewer", WatchRequest(start_revision=1))
        events = await events_until(watch, lambda event: event.ownership_granted.managed_by == DTMS)
        granted = events[-1].ownership_granted
        assert granted.cause == ownership_pb2.GRANT_CAUSE_EXPIRED
        assert (granted.displaced, granted.owner_epoch > trade.owner_epoch) == (UNIVERSAL, True)
        with pytest.raises(errors.StaleEpoch):
            await stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL)


async def test_tokens_rise_across_restarts(tmp_path: Path) -> None:
    """I2: after a restart the next grant has a token above every one that was given out before."""
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
        given = [trade.owner_epoch]
        for _ in range(3):
            held = (await acquire(stack, trade.ticket, UNIVERSAL)).ownership
            given.append(held.owner_epoch)
            universal = await stack.client(UNIVERSAL)
            grant = Grant(ticket=trade.ticket, owner_epoch=held.owner_epoch)
            given.append((await universal.release_ownership(grant)).owner_epoch)
    async with running(tmp_path / "data") as stack:
        assert (await stack.get_trade(trade.ticket)).owner_epoch == given[-1]
        given.append((await acquire(stack, trade.ticket, UNIVERSAL)).ownership.owner_epoch)
    assert given == sorted(set(given))


async def test_grants_of_a_trade_never_overlap(stack: Stack) -> None:
    """I1: each grant in the journal displaces exactly the owner of the one before."""
    trade = await stack.trade(strategy_type=MANAGED)
    await stack.tick(1.1021)
    await stack.report_score(-10.0)
    await stack.call(
        "operator",
        SetKillSwitchRequest(
            scope=event_pb2.KILL_SCOPE_MANAGER, value=UNIVERSAL, engaged=True, reason="grants for the test"
        ),
    )
    end = stack.system.desk.engine.revision
    watch = await stack.stream("viewer", WatchRequest(start_revision=1))
    events = await events_until(watch, lambda event: event.revision == end)
    owner, epoch, grants = "", 0, 0
    for event in events:
        if event.ticket == trade.ticket and event.HasField("ownership_granted"):
            granted = event.ownership_granted
            assert granted.owner_epoch > epoch
            assert granted.displaced in {owner, ""}
            owner, epoch, grants = granted.managed_by, granted.owner_epoch, grants + 1
    assert grants >= 2
    assert (await stack.get_trade(trade.ticket)).owner_epoch == epoch


async def test_defence_takes_the_trade_and_tells_who_was_displaced(stack: Stack) -> None:
    """I5: with the state the rank changes in the same step; the displaced owner is told, and gets the trade back."""
    trade = await stack.trade(strategy_type=MANAGED)
    await stack.tick(1.1021)
    watch = await stack.stream("viewer", WatchRequest(start_revision=trade.revision + 1))
    await stack.report_score(-10.5)
    events = await events_until(watch, lambda event: event.HasField("ownership_granted"))
    granted = events[-1]
    entered = next(event for event in reversed(events) if event.HasField("state_changed"))
    between = [event.WhichOneof("body") for event in events[events.index(entered) + 1 : -1]]
    assert entered.state_changed.to == trade_pb2.TRADE_STATE_WARNING_L2
    assert set(between) <= {"action_skipped"}
    assert granted.time_ns == entered.time_ns
    assert granted.ownership_granted.managed_by == DTMS
    assert granted.ownership_granted.displaced == UNIVERSAL
    assert granted.ownership_granted.rank == ownership_pb2.RANK_DTMS_DEFENSIVE
    assert (await stack.get_trade(trade.ticket)).displaced_owner == UNIVERSAL
    denied = await acquire(stack, trade.ticket, UNIVERSAL)
    assert denied.denial == action_pb2.DENIAL_CODE_DTMS_DEFENSIVE
    assert denied.ownership.defensive


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        (event_pb2.KILL_SCOPE_ACCOUNT, "1000@paper"),
        (event_pb2.KILL_SCOPE_SYMBOL, "EURUSD"),
        (event_pb2.KILL_SCOPE_MANAGER, UNIVERSAL),
    ],
)
async def test_a_kill_switch_takes_trades_away_and_denies_new_claims(
    stack: Stack, scope: event_pb2.KillScope.ValueType, value: str
) -> None:
    """Thrown, it fences what the manager had in hand; it shows in the status, and holds until it is released."""
    trade = await stack.trade(strategy_type=MANAGED)
    switch = SetKillSwitchRequest(scope=scope, value=value, engaged=True, reason="test")
    await stack.call("operator", switch)
    halted = await stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL)
    assert halted.decision.denial == action_pb2.DENIAL_CODE_HALTED
    status = await (await stack.client("viewer")).system_status()
    assert [(held.scope, held.value) for held in status.kill_switches] == [(scope, value)]
    denied = await acquire(stack, trade.ticket, UNIVERSAL)
    assert denied.denial == action_pb2.DENIAL_CODE_HALTED
    switch.engaged = False
    await stack.call("operator", switch)
    with pytest.raises(errors.StaleEpoch):
        await stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL)
    assert (await acquire(stack, trade.ticket, UNIVERSAL)).granted


async def test_a_halted_service_denies_every_manager_and_says_so(stack: Stack) -> None:
    """HALTED stops proposals and claims as data; setting the same state again writes nothing."""
    trade = await stack.trade()
    halt = SetTradingStateRequest(trading_state=event_pb2.TRADING_STATE_HALTED, reason="test")
    revision = (await stack.call("operator", halt)).revision
    assert (await stack.call("operator", halt)).revision == revision
    answer = await stack.propose(trade, stop_at(1.0961))
    assert answer.decision.denial == action_pb2.DENIAL_CODE_HALTED
    assert (await acquire(stack, trade.ticket, UNIVERSAL)).denial == action_pb2.DENIAL_CODE_HALTED
    status = await (await stack.client("viewer")).system_status()
    assert status.trading_state == event_pb2.TRADING_STATE_HALTED


async def test_an_unknown_trade_cannot_be_claimed(stack: Stack) -> None:
    """NOT_FOUND/TRADE_UNKNOWN: there is nothing to decide about."""
    with pytest.raises(errors.NotFound) as unknown:
        await acquire(stack, 999, UNIVERSAL)
    assert unknown.value.reason == "TRADE_UNKNOWN"
