"""One cycle of a manager, here the exit manager: when it proposes, when it waits, what it counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dtms.v1.action_pb2 import (
    DENIAL_CODE_COOLDOWN,
    DENIAL_CODE_NO_CHANGE,
    OUTCOME_STATUS_CONFIRMED,
    OUTCOME_STATUS_REJECTED,
    PURPOSE_BREAKEVEN,
    Decision,
    Outcome,
)
from dtms.v1.market_data_service_pb2 import Quote
from dtms_client.exit_manager.brain import ExitManager
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.exit_manager.vix import VixSources
from dtms_client.managing.brain import FINAL_PAUSE_NS, PAUSE_NS, Proposal
from dtms_client.managing.testing import BUY as TRADE
from dtms_client.managing.testing import NOW_NS
from dtms_client.managing.wishes import MoveStop, TakePartial


def quote(bid: float, *, account_id: str = "1@Demo") -> Quote:
    return Quote(
        account_id=account_id,
        symbol="EURUSD",
        bid=bid,
        ask=bid + 0.0001,
        atr_slow=0.002,
        point=0.00001,
        volume_min=0.01,
        volume_step=0.01,
    )


@pytest.fixture
def manager() -> ExitManager:
    manager = ExitManager(RuleBook(default=ExitRules()), name="intelligent_exit_manager", vix=VixSources())
    manager.take_quotes([quote(1.102)])
    return manager


def first(manager: ExitManager, now_ns: int = NOW_NS) -> Proposal:
    (proposal,) = manager.propose([TRADE], now_ns=now_ns)
    return proposal


def test_a_quote_belongs_to_its_account(manager: ExitManager) -> None:
    """A trade of another account is not decided on this account's price."""
    assert manager.propose([replace(TRADE, account_id="2@Demo")], now_ns=NOW_NS) == []
    assert manager.take_quotes([quote(1.102, account_id="2@Demo")]) == [("2@Demo", "EURUSD")]
    assert len(manager.propose([replace(TRADE, account_id="2@Demo")], now_ns=NOW_NS)) == 1


def test_one_wish_a_trade_the_most_urgent_first(manager: ExitManager) -> None:
    """Stop and partial are due together: the stop is proposed, the partial on what it has changed."""
    manager.take_quotes([quote(1.115)])
    assert first(manager).wish == MoveStop(PURPOSE_BREAKEVEN, 1.10021)
    after = replace(TRADE, stop=1.10021, breakeven_triggered=True, risk=1.0)
    (proposal,) = manager.propose([after], now_ns=NOW_NS)
    assert proposal.wish == TakePartial(0.05)


def test_a_request_carries_the_epoch_that_was_decided_on(manager: ExitManager) -> None:
    """The token of the view goes out, so that a change of owner in between is noticed."""
    request = first(manager).request("r")
    assert (request.request_id, request.account_id, request.ticket, request.owner_epoch) == ("r", "1@Demo", 7, 3)
    assert request.action.stop == 1.10021


def test_a_denial_that_may_turn_is_asked_again_after_a_moment(manager: ExitManager) -> None:
    """A cooldown holds the same purpose back for 5 s, not longer."""
    manager.decided(first(manager), Decision(denial=DENIAL_CODE_COOLDOWN, retryable=True), None, now_ns=NOW_NS)
    assert manager.propose([TRADE], now_ns=NOW_NS + PAUSE_NS - 1) == []
    assert len(manager.propose([TRADE], now_ns=NOW_NS + PAUSE_NS)) == 1
    assert manager.tally.denied == {"COOLDOWN": 1}


def test_a_final_denial_of_the_same_wish_is_not_repeated_soon(manager: ExitManager) -> None:
    """What DTMS said will not turn is not asked every tick; another level of the same purpose after a moment."""
    manager.decided(first(manager), Decision(denial=DENIAL_CODE_NO_CHANGE), None, now_ns=NOW_NS)
    assert manager.propose([TRADE], now_ns=NOW_NS + PAUSE_NS) == []
    assert len(manager.propose([TRADE], now_ns=NOW_NS + FINAL_PAUSE_NS)) == 1
    wider = quote(1.103)
    wider.ask = 1.1034
    manager.take_quotes([wider])
    assert manager.propose([TRADE], now_ns=NOW_NS + PAUSE_NS - 1) == []
    assert len(manager.propose([TRADE], now_ns=NOW_NS + PAUSE_NS)) == 1


def test_a_changed_trade_is_decided_anew_at_once(manager: ExitManager) -> None:
    """A new owner_epoch lifts the pause: a stale proposal is re-decided without delay."""
    manager.undecided(first(manager), "STALE_EPOCH", now_ns=NOW_NS)
    assert manager.propose([TRADE], now_ns=NOW_NS) == []
    assert len(manager.propose([replace(TRADE, owner_epoch=4)], now_ns=NOW_NS)) == 1
    assert manager.tally.undecided == {"STALE_EPOCH": 1}


def test_a_rejection_by_the_broker_is_asked_again_after_a_moment(manager: ExitManager) -> None:
    """Requotes and the like pass; each attempt is an order at the broker."""
    outcome = Outcome(status=OUTCOME_STATUS_REJECTED, retcode=10004)
    manager.decided(first(manager), Decision(granted=True), outcome, now_ns=NOW_NS)
    assert manager.propose([TRADE], now_ns=NOW_NS + 1) == []
    assert len(manager.propose([TRADE], now_ns=NOW_NS + PAUSE_NS)) == 1


def test_a_forgotten_trade_has_no_pauses(manager: ExitManager) -> None:
    """What is gone takes its pauses along."""
    manager.decided(first(manager), Decision(denial=DENIAL_CODE_NO_CHANGE), None, now_ns=NOW_NS)
    manager.forget(("1@Demo", 7))
    assert len(manager.propose([TRADE], now_ns=NOW_NS)) == 1


def test_the_tally_counts_every_end(manager: ExitManager) -> None:
    """Each proposal ends in exactly one count."""
    proposal = first(manager)
    confirmed = Outcome(status=OUTCOME_STATUS_CONFIRMED)
    rejected = Outcome(status=OUTCOME_STATUS_REJECTED)
    for outcome in (confirmed, rejected, None):
        manager.decided(proposal, Decision(granted=True), outcome, now_ns=NOW_NS)
    manager.decided(proposal, Decision(denial=DENIAL_CODE_COOLDOWN), None, now_ns=NOW_NS)
    manager.undecided(proposal, "STALE_EPOCH", now_ns=NOW_NS)
    manager.expired(proposal)
    assert manager.tally.facts() == {
        "proposals": 1,
        "granted": 3,
        "confirmed": 1,
        "rejected": 1,
        "unknown": 1,
        "expired": 1,
        "denied": {"COOLDOWN": 1},
        "undecided": {"STALE_EPOCH": 1},
        "cycles": 0,
        "cycle_ms_p50": None,
        "cycle_ms_p99": None,
    }


def test_the_tally_knows_how_long_cycles_take(manager: ExitManager) -> None:
    """Median and 99 % of the last ones."""
    for took_ms in range(1, 101):
        manager.tally.cycle(took_ms / 1e3)
    assert (manager.tally.cycles, manager.tally.cycle_ms(0.5), manager.tally.cycle_ms(0.99)) == (100, 51.0, 100.0)
