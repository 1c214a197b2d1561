"""The figures of a run, each one counted by hand on a small journal."""

from __future__ import annotations

import random

import pytest

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms_service.report import BrokerWrite, ReportInputInvalid, summarise
from dtms_service.report.intents import Write
from tests.unit.report_world import ACCOUNT, DTMS, EXIT, HOUR_NS, RUN, Journal, at, result

BUY, SELL = trade_pb2.SIDE_BUY, trade_pb2.SIDE_SELL
HEALTHY, WARN1, WARN2 = (
    trade_pb2.TRADE_STATE_HEALTHY,
    trade_pb2.TRADE_STATE_WARNING_L1,
    trade_pb2.TRADE_STATE_WARNING_L2,
)
WORSE = event_pb2.TRANSITION_CAUSE_SCORE_WORSE
STOP, PARTIAL = action_pb2.ACTION_KIND_STOP, action_pb2.ACTION_KIND_PARTIAL_CLOSE
REJECTED, UNKNOWN = action_pb2.OUTCOME_STATUS_REJECTED, action_pb2.OUTCOME_STATUS_UNKNOWN


@pytest.fixture
def journal() -> Journal:
    """Two open trades: 1 long from 1.10000, 2 short from 1.20000."""
    journal = Journal()
    journal.register(1, BUY, 1.1, 1.098, 1.106)
    journal.register(2, SELL, 1.2, 1.202, 1.194)
    return journal


def test_whole_summary(journal: Journal) -> None:
    """Every figure of a journal with one of each kind of fact equals the count made by hand."""
    journal.stop(1, EXIT, 1.1002)
    journal.stop(1, EXIT, 1.1002)  # the same level again is no change
    journal.decide(1, EXIT, action_pb2.DENIAL_CODE_NO_CHANGE)
    journal.decide(1, EXIT, kind=PARTIAL)
    journal.end(1, journal.intend(1, EXIT, PARTIAL), volume=0.05)
    journal.end(1, journal.intend(1, EXIT, PARTIAL), REJECTED)  # what the broker refuses is no partial
    journal.change(1, WARN1, WORSE, (11, STOP))
    journal.decide(1, DTMS)
    first = journal.intend(1, DTMS, action_id=11)
    journal.end(1, first, REJECTED, retry_at_ns=at(2))
    journal.end(1, journal.intend(1, DTMS, action_id=11), sl=1.1004)
    journal.grant(1, DTMS, EXIT, ownership_pb2.GRANT_CAUSE_DEFENSIVE)
    journal.change(1, WARN2, WORSE, (12, PARTIAL))
    skipped = event_pb2.ActionSkipped(
        action=action_pb2.PlannedAction(action_id=12), reason=action_pb2.SKIP_REASON_MIN_VOLUME
    )
    journal.write(1, action_skipped=skipped)
    journal.decide(1, EXIT, action_pb2.DENIAL_CODE_DTMS_DEFENSIVE)
    journal.decide(1, EXIT, action_pb2.DENIAL_CODE_DTMS_DEFENSIVE)
    journal.close(1, 1.1004, event_pb2.CLOSE_REASON_STOP_LOSS)
    journal.change(2, HEALTHY, event_pb2.TRANSITION_CAUSE_BOS)
    moved = event_pb2.PositionChanged(leg=event_pb2.LEG_KIND_MAIN, volume=0.1, sl=1.201, tp=1.194, external=True)
    journal.write(2, position_changed=moved)

    assert summarise(journal.events, [result(1, 0.2, -1.0), result(2, 0.1, 3.0)], RUN) == {
        "bars": 48,
        "trades": 2,
        "transitions": {
            "HEALTHY->HEALTHY": 1,
            "HEALTHY->WARNING_L1": 1,
            "WARNING_L1->WARNING_L2": 1,
            "WARNING_L2->CLOSED": 1,
        },
        "states_visited": ["HEALTHY", "WARNING_L1", "WARNING_L2", "CLOSED"],
        "decisions": {"granted": 4, "denied": {"DTMS_DEFENSIVE": 2, "NO_CHANGE": 1}},
        "per_manager": {
            DTMS: {
                "proposals": 1,
                "granted": 1,
                "denied": {},
                "preemptions": 1,
                "stop_changes": 1,
                "partials": 0,
            },
            EXIT: {
                "proposals": 6,
                "granted": 3,
                "denied": {"DTMS_DEFENSIVE": 2, "NO_CHANGE": 1},
                "preemptions": 0,
                "stop_changes": 1,
                "partials": 1,
            },
        },
        "stop_changes": {DTMS: 1, "external": 1, EXIT: 1},
        "conflicting_writes": 0,
        "unconfirmed_actions": 0,
        "total_r": 0.3,
        "unprotected_total_r": 2.0,
        "tick_to_decision_us": {"p50": 12.5, "p99": 80.0},
        "journal_sha256": "c0ffee",
    }


def test_empty_run() -> None:
    """A run without any event or trade has figures, all zero."""
    summary = summarise([], [], RUN)
    assert (summary["trades"], summary["transitions"], summary["states_visited"]) == (0, {}, [])
    assert (summary["total_r"], summary["unconfirmed_actions"], summary["conflicting_writes"]) == (0.0, 0, 0)


def test_returned_trade_is_no_preemption(journal: Journal) -> None:
    """Only a trade taken from another manager counts as preempted; one given back or registered does not."""
    journal.grant(1, EXIT, DTMS, ownership_pb2.GRANT_CAUSE_RETURNED)
    journal.grant(1, DTMS, DTMS, ownership_pb2.GRANT_CAUSE_DEFENSIVE)
    journal.grant(1, DTMS, "", ownership_pb2.GRANT_CAUSE_ACQUIRED)
    assert summarise(journal.events, [], RUN)["per_manager"] == {}


class TestUnconfirmed:
    def test_intent_without_outcome(self, journal: Journal) -> None:
        """An intent whose outcome never came is one unconfirmed action."""
        journal.intend(1, EXIT)
        assert summarise(journal.events, [], RUN)["unconfirmed_actions"] == 1

    def test_unknown_is_not_final(self, journal: Journal) -> None:
        """UNKNOWN leaves an intent open until a settled outcome arrives."""
        intent_id = journal.intend(1, EXIT)
        journal.end(1, intent_id, UNKNOWN)
        assert summarise(journal.events, [], RUN)["unconfirmed_actions"] == 1
        journal.end(1, intent_id, sl=1.0995, settled=True)
        assert summarise(journal.events, [], RUN)["unconfirmed_actions"] == 0

    def test_planned_action_is_counted_once(self, journal: Journal) -> None:
        """A planned action and the open intent that carries it are one unconfirmed action, not two."""
        journal.change(1, WARN1, WORSE, (11, STOP))
        assert summarise(journal.events, [], RUN)["unconfirmed_actions"] == 1
        journal.intend(1, DTMS, action_id=11)
        assert summarise(journal.events, [], RUN)["unconfirmed_actions"] == 1

    def test_announced_retry_never_made(self, journal: Journal) -> None:
        """A refusal that announces another try settles nothing; a final refusal does."""
        journal.change(1, WARN1, WORSE, (11, STOP))
        journal.end(1, journal.intend(1, DTMS, action_id=11), REJECTED, retry_at_ns=at(3))
        assert summarise(journal.events, [], RUN)["unconfirmed_actions"] == 1
        journal.end(1, journal.intend(1, DTMS, action_id=11), REJECTED)
        assert summarise(journal.events, [], RUN)["unconfirmed_actions"] == 0


class TestConflicts:
    def test_overlap_of_two_managers(self, journal: Journal) -> None:
        """Two managers with writes under way on one trade at the same revision are one conflict."""
        first = journal.intend(1, EXIT)
        second = journal.intend(1, DTMS)
        journal.end(1, first, sl=1.099)
        journal.end(1, second, sl=1.0995)
        assert summarise(journal.events, [], RUN)["conflicting_writes"] == 1

    def test_open_end_overlaps_everything_after(self, journal: Journal) -> None:
        """A write that never ended conflicts with each later write of another manager."""
        journal.intend(1, EXIT)
        journal.stop(1, DTMS, 1.099)
        journal.stop(1, DTMS, 1.0995)
        assert summarise(journal.events, [], RUN)["conflicting_writes"] == 2

    def test_no_conflict(self, journal: Journal) -> None:
        """One after the other, the same manager twice, or two trades: none is a conflict."""
        journal.stop(1, EXIT, 1.099)
        journal.stop(1, DTMS, 1.0995)
        mine, again, other = journal.intend(1, EXIT), journal.intend(1, EXIT), journal.intend(2, DTMS)
        journal.end(1, mine)
        journal.end(1, again)
        journal.end(2, other)
        assert summarise(journal.events, [], RUN)["conflicting_writes"] == 0

    def test_sweep_equals_all_pairs(self) -> None:
        """On random journals the sweep finds exactly the pairs that comparing all with all finds."""
        seed = random.randrange(2**32)
        print(f"seed {seed}")  # noqa: T201 - shown by pytest when the test fails
        chance = random.Random(seed)
        for _ in range(50):
            journal = Journal()
            journal.register(1, BUY, 1.1, 1.098, 1.106)
            under_way: list[int] = []
            writes: list[Write] = []
            for _ in range(chance.randrange(2, 25)):
                if under_way and chance.random() < 0.5:
                    intent_id = under_way.pop(chance.randrange(len(under_way)))
                    journal.end(1, intent_id)
                    next(w for w in writes if w.intent.intent_id == intent_id).ended = len(journal.events)
                else:
                    under_way.append(journal.intend(1, chance.choice([EXIT, DTMS, "universal_sl_tp_manager"])))
                    recorded = journal.events[-1]
                    writes.append(Write((ACCOUNT, 1), recorded.intent_recorded, recorded.revision))
            naive = sum(
                a.overlaps(b) and a.intent.manager != b.intent.manager
                for index, a in enumerate(writes)
                for b in writes[index + 1 :]
            )
            assert summarise(journal.events, [], RUN)["conflicting_writes"] == naive

    def test_broker_log_agrees(self, journal: Journal) -> None:
        """A broker log that holds exactly the confirmed intents adds no conflict."""
        intent_id = journal.stop(1, EXIT, 1.099)
        log = [BrokerWrite(at(0), 1, intent_id)]
        assert summarise(journal.events, [], RUN, log)["conflicting_writes"] == 0

    @pytest.mark.parametrize("intent_id", [None, 9999])
    def test_broker_log_shows_a_bypass(self, journal: Journal, intent_id: int | None) -> None:
        """A change at the broker that no intent explains is a conflict, also when it claims an unknown intent."""
        log = [BrokerWrite(at(0) + HOUR_NS, 2, intent_id)]
        assert summarise(journal.events, [], RUN, log)["conflicting_writes"] == 1

    def test_broker_log_shows_a_double(self, journal: Journal) -> None:
        """One intent explains one change: the same command executed twice is a conflict."""
        intent_id = journal.stop(1, EXIT, 1.099)
        log = [BrokerWrite(at(0), 1, intent_id), BrokerWrite(at(0), 1, intent_id)]
        assert summarise(journal.events, [], RUN, log)["conflicting_writes"] == 1

    def test_positions_of_others(self, journal: Journal) -> None:
        """Positions that belong to no trade are nobody's conflict."""
        assert summarise(journal.events, [], RUN, [BrokerWrite(at(0), 555, None)])["conflicting_writes"] == 0


def test_unknown_r_is_left_out(journal: Journal) -> None:
    """Both sums run over the same trades: one without a twin is in neither."""
    summary = summarise(journal.events, [result(1, 0.5, -1.0), result(2, 2.0, None)], RUN)
    assert (summary["total_r"], summary["unprotected_total_r"]) == (0.5, -1.0)


def test_sum_is_exact(journal: Journal) -> None:
    """Ten times 0.1 R is 1 R, and results that cancel out are zero without a sign."""
    assert summarise(journal.events, [result(1, 0.1, -0.1)] * 10, RUN)["total_r"] == 1.0
    zero = summarise(journal.events, [result(1, 0.1, -0.1), result(1, -0.1, 0.1)], RUN)
    assert (str(zero["total_r"]), str(zero["unprotected_total_r"])) == ("0.0", "0.0")


def test_result_without_trade(journal: Journal) -> None:
    """A result of a ticket that was never registered is refused and named."""
    with pytest.raises(ReportInputInvalid) as error:
        summarise(journal.events, [result(77, 1.0, 1.0)], RUN)
    assert error.value.place == "ticket 77"
