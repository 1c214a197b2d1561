"""Why was this decided so? Every decision is on record and can be asked for by each of its keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, arbitration_service_pb2
from dtms.v1.arbitration_service_pb2 import ExplainRequest, ListDecisionsRequest
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client import errors
from dtms_service.broker.faults import Gate, Leg
from dtms_service.describe import RULES
from tests.grpc.watching import events_until
from tests.stack import DTMS, EXIT_MANAGER, UNIVERSAL, Stack, running, stop_at


def bodies(answer: arbitration_service_pb2.ExplainResponse) -> list[str | None]:
    return [event.WhichOneof("body") for event in answer.events]


async def test_a_grant_is_explained_by_each_of_its_keys(stack: Stack) -> None:
    """decision_id, request_id and revision lead to the same story: decision, intent, outcome, in order."""
    trade = await stack.trade()
    decision = (await stack.propose(trade, stop_at(1.0961), request_id="the key")).decision
    keys = [
        (EXIT_MANAGER, ExplainRequest(request_id="the key")),
        ("viewer", ExplainRequest(decision_id=decision.decision_id)),
        ("viewer", ExplainRequest(revision=decision.revision)),
        ("viewer", ExplainRequest(request_id="the key", manager=EXIT_MANAGER)),
    ]
    answers = [await stack.call(caller, request) for caller, request in keys]
    assert all(answer == answers[0] for answer in answers)
    told = answers[0]
    assert told.decision == decision
    assert told.rule == RULES[action_pb2.DENIAL_CODE_UNSPECIFIED]
    assert bodies(told) == ["decision_made", "intent_recorded", "outcome_recorded"]
    assert told.events[1].intent_recorded.decision_id == decision.decision_id
    assert EXIT_MANAGER in told.summary
    assert "granted" in told.summary


async def test_a_denial_is_explained_with_its_rule(stack: Stack) -> None:
    """The answer names the code's rule and the inputs it was decided on; nothing follows a denial."""
    trade = await stack.trade()
    decision = (await stack.propose(trade, stop_at(1.0941))).decision
    told = await stack.call("viewer", ExplainRequest(decision_id=decision.decision_id))
    assert told.rule == RULES[action_pb2.DENIAL_CODE_LOOSENS]
    assert "LOOSENS" in told.summary
    assert (told.decision.bid, told.decision.confirmed_sl) == (1.1, 1.0951)
    assert bodies(told) == ["decision_made"]


async def test_a_state_change_is_explained_with_what_came_of_it(stack: Stack) -> None:
    """By its revision: the event, then the commands of its actions and their outcomes."""
    trade = await stack.trade()
    await stack.tick(1.1021)
    await stack.report_score(-3.0)
    shown = await stack.get_trade(trade.ticket)
    assert shown.last_score.total == -3.0
    watch = await stack.stream("viewer", WatchRequest(start_revision=trade.revision + 1))
    entered = (await events_until(watch, lambda event: event.HasField("state_changed")))[-1]
    changed = await stack.call("viewer", ExplainRequest(revision=entered.revision))
    assert bodies(changed)[:3] == ["state_changed", "intent_recorded", "outcome_recorded"]
    assert "WARNING_L1" in changed.summary
    assert not changed.HasField("decision")


@pytest.mark.parametrize(
    ("request_", "error", "reason"),
    [
        (ExplainRequest(), errors.InvalidArgument, "FIELD_INVALID"),
        (ExplainRequest(revision=10_000), errors.OutOfRange, "FUTURE_REVISION"),
        (ExplainRequest(decision_id=10_000), errors.OutOfRange, "COMPACTED"),
        (ExplainRequest(request_id="never"), errors.OutOfRange, "COMPACTED"),
    ],
)
async def test_what_cannot_be_explained_says_why(
    stack: Stack, request_: ExplainRequest, error: type[errors.DtmsError], reason: str
) -> None:
    """No key, a revision of the future and a decision that is not kept are three different errors."""
    with pytest.raises(error) as refused:
        await stack.call("viewer", request_)
    assert refused.value.reason == reason


@pytest.mark.parametrize("request_", [ExplainRequest(revision=0), ExplainRequest(decision_id=0)])
async def test_a_key_of_zero_is_refused_by_field(stack: Stack, request_: ExplainRequest) -> None:
    """Revisions and decisions count from 1: zero is a field left out, not the first of history."""
    with pytest.raises(errors.InvalidArgument) as refused:
        await stack.call("viewer", request_)
    assert [violation.field for violation in refused.value.violations] == [request_.WhichOneof("key")]


async def listed(stack: Stack, request: ListDecisionsRequest) -> list[int]:
    return [decision.decision_id for decision in (await stack.call("viewer", request)).decisions]


async def test_decisions_are_listed_newest_first_through_filters(stack: Stack) -> None:
    """By ticket, manager, denial and account; each decision carries the revision of its event."""
    first = await stack.trade()
    second = await stack.trade(strategy_type="breakout_ib_volatility_trap")
    asked = [
        await stack.propose(first, stop_at(1.0961)),
        await stack.propose(first, stop_at(1.0941)),
        await stack.propose(second, stop_at(1.0961), manager=UNIVERSAL),
        await stack.propose(second, stop_at(1.1051), manager=UNIVERSAL),
    ]
    a, b, c, d = [answer.decision.decision_id for answer in asked]
    assert await listed(stack, ListDecisionsRequest()) == [d, c, b, a]
    assert await listed(stack, ListDecisionsRequest(ticket=first.ticket)) == [b, a]
    assert await listed(stack, ListDecisionsRequest(manager=UNIVERSAL)) == [d, c]
    assert await listed(stack, ListDecisionsRequest(denied_only=True)) == [d, b]
    assert await listed(stack, ListDecisionsRequest(denial=action_pb2.DENIAL_CODE_LOOSENS)) == [b]
    assert await listed(stack, ListDecisionsRequest(account_id="1000@paper", ticket=second.ticket)) == [d, c]
    page = await stack.call("viewer", ListDecisionsRequest())
    revisions = {decision.decision_id: decision.revision for decision in page.decisions}
    assert revisions == {answer.decision.decision_id: answer.decision.revision for answer in asked}
    with pytest.raises(errors.NotFound):
        await listed(stack, ListDecisionsRequest(account_id="1@else"))


async def test_decisions_come_in_pages(stack: Stack) -> None:
    """Page by page nothing is left out and nothing comes twice."""
    trade = await stack.trade()
    asked = [(await stack.propose(trade, stop_at(1.0941))).decision.decision_id for _ in range(5)]
    found: list[int] = []
    token = ""
    while True:
        page = await stack.call("viewer", ListDecisionsRequest(page_size=2, page_token=token))
        found += [decision.decision_id for decision in page.decisions]
        if not (token := page.next_page_token):
            break
    assert found == asked[::-1]


async def test_pages_stand_still_while_decisions_are_made(stack: Stack) -> None:
    """Newest come first, so a token must not slide: what was decided between two pages repeats nothing."""
    trade = await stack.trade()
    asked = [(await stack.propose(trade, stop_at(1.0941))).decision.decision_id for _ in range(4)]
    first = await stack.call("viewer", ListDecisionsRequest(page_size=2))
    await stack.propose(trade, stop_at(1.0941))
    second = await stack.call("viewer", ListDecisionsRequest(page_size=2, page_token=first.next_page_token))
    found = [decision.decision_id for page in (first, second) for decision in page.decisions]
    assert found == asked[::-1]


async def test_any_decision_of_the_journal_is_explained(tmp_path: Path) -> None:
    """The list ends with the decisions kept in memory; an older one is found in the journal by its number."""
    async with running(tmp_path / "data", {"engine.decisions_kept": 3}) as stack:
        trade = await stack.trade()
        asked = [(await stack.propose(trade, stop_at(1.0941), request_id=f"key {n}")).decision for n in range(9)]
        assert await listed(stack, ListDecisionsRequest()) == [d.decision_id for d in asked[:5:-1]]
        for decision in asked:
            assert (await stack.call("viewer", ExplainRequest(decision_id=decision.decision_id))).decision == decision
        told = await stack.call(EXIT_MANAGER, ExplainRequest(request_id="key 0"))
        assert told.decision == asked[0]


async def test_decisions_survive_a_restart(tmp_path: Path) -> None:
    """What was decided before a restart is listed and explained after it, from the journal."""
    async with running(tmp_path / "data", {"journal.snapshot_every_events": 1}) as stack:
        trade = await stack.trade()
        before = [
            (await stack.propose(trade, stop_at(1.0961))).decision,
            (await stack.propose(trade, stop_at(1.0941), request_id="the key")).decision,
        ]
    async with running(tmp_path / "data") as stack:
        page = await stack.call("viewer", ListDecisionsRequest())
        assert list(page.decisions) == before[::-1]
        told = await stack.call(EXIT_MANAGER, ExplainRequest(request_id="the key"))
        assert told.decision == before[1]


async def test_a_denial_names_whom_it_gave_way_to(stack: Stack) -> None:
    """While DTMS defends a trade the owner's proposal loses against it, and both are named."""
    trade = await stack.trade(strategy_type="default_standard")
    await stack.tick(1.1021)
    await stack.report_score(-5.0)
    defended = await stack.get_trade(trade.ticket)
    refused = (await stack.propose(defended, stop_at(1.0961), manager=UNIVERSAL)).decision
    assert refused.denial == action_pb2.DENIAL_CODE_DTMS_DEFENSIVE
    told = await stack.call("viewer", ExplainRequest(decision_id=refused.decision_id))
    assert told.winner == DTMS
    assert [(loser.manager, loser.decision_id) for loser in told.losers] == [(UNIVERSAL, refused.decision_id)]
    assert "DTMS_DEFENSIVE" in told.losers[0].why


async def test_a_grant_names_those_denied_while_it_was_at_the_broker(stack: Stack) -> None:
    """Both sides of a race can be asked for: the winner lists the loser, the loser names the winner."""
    trade = await stack.trade(strategy_type="default_standard")
    gate = stack.faults.latency = Gate("execute", Leg.REQUEST)
    first = asyncio.create_task(stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL))
    await gate.arrived.wait()
    second = (await stack.propose(trade, stop_at(1.0971))).decision
    assert second.denial == action_pb2.DENIAL_CODE_IN_FLIGHT
    gate.open()
    granted = (await first).decision
    told = await stack.call("viewer", ExplainRequest(decision_id=granted.decision_id))
    assert told.winner == UNIVERSAL
    assert [(loser.manager, loser.decision_id) for loser in told.losers] == [(EXIT_MANAGER, second.decision_id)]
    assert (await stack.call("viewer", ExplainRequest(decision_id=second.decision_id))).winner == UNIVERSAL


async def test_a_preemption_names_who_was_displaced(stack: Stack) -> None:
    """The event of a grant tells who took the trade from whom."""
    trade = await stack.trade(strategy_type="default_standard")
    watch = await stack.stream("viewer", WatchRequest(start_revision=trade.revision + 1))
    await stack.tick(1.1021)
    await stack.report_score(-5.0)
    granted = (await events_until(watch, lambda event: event.HasField("ownership_granted")))[-1]
    told = await stack.call("viewer", ExplainRequest(revision=granted.revision))
    assert told.winner == DTMS
    assert [loser.manager for loser in told.losers] == [UNIVERSAL]
    assert "DEFENSIVE" in told.losers[0].why
