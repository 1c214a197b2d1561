"""One validator for each guarantee of docs/guarantees.md: facts of a run that break it, in words.

They judge what a run left behind (witness.py) and the naive model of it (model.py); nothing of the engine. What the
outside checker proves over logs is taken from there; the rest needs the whole view that only a simulation has.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, TypeAlias

from dtms.v1.action_pb2 import (
    OUTCOME_STATUS_CONFIRMED,
    OUTCOME_STATUS_REJECTED,
    OUTCOME_STATUS_UNKNOWN,
)
from dtms.v1.event_pb2 import Event
from dtms.v1.ownership_pb2 import GRANT_CAUSE_ACQUIRED
from dtms.v1.trade_pb2 import (
    ORIGIN_CLIENT,
    ORIGIN_EXTERNAL,
    STATE_PHASE_CONFIRMED,
    TRADE_STATE_CLOSED,
    TRADE_STATE_HEALTHY,
    TRADE_STATE_HEDGED,
    TRADE_STATE_RECOVERING,
    TRADE_STATE_WARNING_L1,
    TRADE_STATE_WARNING_L2,
)
from dtms.v1.trade_status_service_pb2 import Progress, WatchFilter
from dtms_client.watch import Interrupted, Listed, Relisted
from dtms_service.interceptors import ACCESS
from tests.checker import guarantees as outside
from tests.checker.evidence import DONE, DTMS, Call, Key
from tests.sim.model import Facts, Model, differences
from tests.sim.world import SLOW_MARKS_MS, World

Found: TypeAlias = Iterator[str]

REPORTED_S: Final = 3.0  # within one poll (0.5 s here), and the ways there
LAG_S: Final = 1.0  # from the disk to a watcher that nothing troubles
SLACK_S: Final = 0.6  # of a progress mark's interval
MARK_S: Final = 1.0  # the interval that the viewers ask for
LIES: Final = ("broker answers None, empty, stale, or misses one ticket",)
H, L1, L2, HG, R, C = (
    TRADE_STATE_HEALTHY,
    TRADE_STATE_WARNING_L1,
    TRADE_STATE_WARNING_L2,
    TRADE_STATE_HEDGED,
    TRADE_STATE_RECOVERING,
    TRADE_STATE_CLOSED,
)
EDGES: Final = frozenset(
    {(H, L1), (H, H), (L1, H), (L1, L2), (L2, L1), (L2, HG), (HG, R), (HG, L2), (R, H), (R, L2)}
    | {(state, C) for state in (H, L1, L2, HG, R)}
)


# ---- ownership --------------------------------------------------------------------------------------------------


def i01_grants_do_not_overlap(world: World) -> Found:
    """I1. Whoever decides or acts does so under the grant in force; one change of a trade after the other."""
    yield from outside.one_holder_at_a_time(world.witness.evidence())


def i02_tokens_rise(world: World) -> Found:
    """I2. Tokens of a trade rise, over restarts too, and a grant is on disk before it is answered."""
    witness = world.witness
    yield from outside.tokens_rise(witness.evidence())
    on_disk_s = {
        (event.account_id, event.ticket, event.ownership_granted.owner_epoch): witness.durable_s.get(event.revision)
        for event in _bodies(world, "ownership_granted")
    }
    for call in _answers(world, "AcquireOwnership"):
        if call.response.granted:
            owned = call.response.ownership
            at_s = on_disk_s.get((owned.account_id, owned.ticket, owned.owner_epoch))
            if at_s is None or at_s > (call.ended_s or 0):
                yield f"{call.client} was granted {owned.ticket} under {owned.owner_epoch} before the disk had it"


def i03_a_stale_token_reaches_nobody(world: World) -> Found:
    """I3. What was decided under an old token has no intent and no order; tokens at the broker never fall."""
    yield from outside.stale_tokens_reach_nobody(world.witness.evidence())
    for call in _answers(world, "Propose"):
        asked, owner_epoch = call.request.owner_epoch, call.response.decision.owner_epoch
        if call.response.decision.granted and asked != owner_epoch:
            yield f"{call.client}'s {call.request.request_id} showed {asked} and was granted at {owner_epoch}"


def i04_only_rank_preempts(world: World) -> Found:
    """I4. Only a strictly higher rank takes a trade; what is granted obeys the table of authority."""
    yield from outside.only_rank_preempts(world.witness.evidence())


def i05_defence_ends_in_one_step(world: World) -> Found:
    """I5. Leaving WARNING_L2 or HEDGED drops DTMS's rank in that step, and the displaced owner is told."""
    yield from outside.defence_ends_in_one_step(world.witness.evidence())


def i06_leases_last(world: World) -> Found:
    """I6. A lease lasts as promised and no longer, whatever the wall clock does; a write in flight is settled first."""
    yield from outside.leases_last(world.witness.evidence())
    yield from _held_too_long(world)


def _held_too_long(world: World) -> Found:
    """Leases that outlive their last sign of life, where the service was in no trouble."""
    ttl_s = world.config.engine.lease_ttl_ms / 1000
    alive: defaultdict[tuple[Key, int], list[float]] = defaultdict(list)
    for call in world.witness.calls:
        # Whether it was answered or not: the service may have heard it, at the end of its time at the latest.
        if call.name == "RenewOwnership":
            for owned in call.request.grants:
                heard_s = max(call.ended_s or 0.0, call.sent_s + (call.deadline_s or 0.0) if call.code else 0.0)
                alive[(owned.account_id or world.account_id, owned.ticket), owned.owner_epoch].append(heard_s)
    starts = [begun for begun, _ in world.serving_intervals()]
    holds: dict[Key, tuple[str, int, float]] = {}
    ends: list[tuple[Key, str, int, float, float]] = []
    for event in world.witness.events:
        key, at_s = (event.account_id, event.ticket), world.witness.durable_s.get(event.revision, world.ended_s)
        over = event.HasField("ownership_granted") or (event.HasField("state_changed") and event.state == C)
        if over and key in holds:
            ends.append((key, *holds.pop(key), at_s))
        held = event.HasField("ownership_granted") and event.state != C
        if held and event.ownership_granted.managed_by not in {"", DTMS}:
            holds[key] = event.ownership_granted.managed_by, event.ownership_granted.owner_epoch, at_s
    ends += [(key, *held, world.ended_s) for key, held in holds.items()]
    for key, manager, epoch, begun_s, ended_s in ends:
        signs = [begun_s, *alive[key, epoch], *(start for start in starts if start <= ended_s)]
        last_s = max(sign for sign in signs if sign <= ended_s)
        if ended_s - last_s > ttl_s + LAG_S and world.is_quiet(last_s, ended_s):
            yield f"{manager} held {key[1]} under {epoch} for {ended_s - last_s:.1f} s after its last sign of life"


def i07_no_write_without_authority(world: World) -> Found:
    """I7. Every order is one intent's, every intent one granted decision's, every decision answers what was sent."""
    yield from outside.no_write_without_authority(world.witness.evidence(by_hand=False))
    for line in world.witness.broker:
        # Hands and the entry adviser sign nothing.
        if line["event"] == "request" and line["actor"] == "other" and line["comment"]:
            yield f"order {line['seq']} of {line['comment']!r} went past DTMS"


def i08_changes_by_hand_are_reported(world: World) -> Found:
    """I8. What a hand changes at the broker is told as external within one poll, where nothing is in trouble."""
    changes = [
        line
        for line in world.witness.broker
        if line["event"] == "request" and line["retcode"] in DONE and (line["position"] or line["actor"] == "dtms")
    ]
    by_deal = [(line["at_s"], line["position"]) for line in world.witness.broker if line["event"] == "deal"]
    touched = sorted([(line["at_s"], line["position"]) for line in changes] + by_deal)
    mains = _mains(world)
    told = defaultdict(list)
    for event in world.witness.events:
        body = event.WhichOneof("body")
        if (body == "position_changed" and event.position_changed.external) or body == "leg_closed":
            told[event.ticket].append(world.witness.durable_s.get(event.revision, 0.0))
    for line in changes:
        if line["actor"] != "other" or line["before"] == line["after"]:
            continue
        at_s, position = line["at_s"], line["position"]
        registered_s, ended_s = mains.get(position, (float("inf"), 0.0))
        alone = sum(ticket == position and at_s - 1 <= when <= at_s + REPORTED_S for when, ticket in touched) == 1
        if not (registered_s < at_s < ended_s - REPORTED_S and alone and world.is_quiet(at_s - 1, at_s + REPORTED_S)):
            continue
        if not any(at_s <= when <= at_s + REPORTED_S for when in told[position]):
            yield f"a hand changed {position} at {at_s:.3f} s ({line['before']} -> {line['after']}), and nobody said so"


# ---- writes -----------------------------------------------------------------------------------------------------


def i09_the_intent_comes_first(world: World) -> Found:
    """I9. An intent is on disk before its order is sent; CONFIRMED and REJECTED are what the broker did; UNKNOWN is
    settled in the end."""
    witness = world.witness
    recorded = {event.intent_recorded.intent_id: event.revision for event in _bodies(world, "intent_recorded")}
    for line in witness.broker:
        if line["event"] == "request" and line["actor"] == "dtms":
            revision = recorded.get(line["intent_id"])
            if revision is None or witness.durable_s.get(revision, float("inf")) > line["at_s"]:
                yield f"order {line['seq']} of intent {line['intent_id']} was sent before the intent was on disk"
    without_order = {
        event.outcome_recorded.outcome.intent_id
        for event in _bodies(world, "outcome_recorded")
        if event.outcome_recorded.outcome.retcode in outside.ALREADY_SO  # injected before the order reached the broker
    }
    for fact in outside.outcomes_are_the_brokers(witness.evidence()):
        intent_id = int(fact.split()[1])
        if intent_id not in without_order and not _misled(world, intent_id):
            yield fact
    ended = set()
    for event in _bodies(world, "outcome_recorded"):
        if event.outcome_recorded.outcome.status != OUTCOME_STATUS_UNKNOWN:
            ended.add(event.outcome_recorded.outcome.intent_id)
    yield from (f"intent {intent} never ended" for intent in sorted(recorded.keys() - ended))


def i10_once_is_once(world: World) -> Found:
    """I10. One key: one answer and one order; another body under it is refused."""
    asked: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in world.witness.calls:
        if call.name == "Propose":
            asked[call.client, call.request.request_id].append(call)
    decisions = {
        event.decision_made.decision.decision_id: event.decision_made.decision
        for event in _bodies(world, "decision_made")
    }
    for (client, request_id), calls in asked.items():
        answers = [call for call in calls if call.response is not None]
        first = {call.response.decision.decision_id for call in answers}
        if len(first) > 1:
            yield f"{client}'s {request_id} has {len(first)} decisions"
        for call in answers:
            decided = decisions.get(call.response.decision.decision_id)
            if decided is not None and decided.action != call.request.action:
                yield f"{client}'s {request_id} was answered with the decision on another body"
        outcomes = {
            (call.response.outcome.status, call.response.outcome.retcode)
            for call in answers
            if call.response.HasField("outcome")
            and call.response.outcome.status != OUTCOME_STATUS_UNKNOWN
            and not world.was_troubled(0.0, world.ended_s, *LIES)  # what was told by a liar may be told anew
        }
        if len(outcomes) > 1:
            yield f"{client}'s {request_id} has {len(outcomes)} outcomes"
    of_decision: defaultdict[int, list[int]] = defaultdict(list)
    for event in _bodies(world, "intent_recorded"):
        if event.intent_recorded.manager != DTMS:
            of_decision[event.intent_recorded.decision_id].append(event.intent_recorded.intent_id)
    yield from (f"decision {key} has intents {ids}" for key, ids in of_decision.items() if len(ids) > 1)


def i11_stops_do_not_loosen(world: World) -> Found:
    """I11. Stops loosen only by word, policy and budget; on their side, off the stops level; one field at a time."""
    orders = {line["seq"]: line["at_s"] for line in world.witness.broker}
    for fact in outside.stops_do_not_loosen(world.witness.evidence()):
        at_s = orders[int(fact.split()[1])]
        # Who was shown an old stop does not know that he loosens.
        if not fact.endswith(outside.UNNAMED) and _after_a_hand(world, int(fact.split()[1])):
            continue
        if not world.was_troubled(at_s - REPORTED_S, at_s, *LIES):
            yield fact


def _after_a_hand(world: World, seq: int) -> bool:
    """Whether a hand had changed the order's position within the last poll."""
    order = next(line for line in world.witness.broker if line["seq"] == seq)
    return any(
        line["event"] == "request"
        and line["actor"] == "other"
        and line["position"] == order["position"]
        and order["at_s"] - REPORTED_S <= line["at_s"] <= order["at_s"]
        for line in world.witness.broker
    )


# ---- state ------------------------------------------------------------------------------------------------------


def i12_only_edges_of_the_table(world: World) -> Found:
    """I12. Each change of state begins where the one before ended, is an edge of the table, and CLOSED is the end. It
    is decided by the numbers that its trade was registered with, however often they were others since."""
    state: dict[Key, int] = {}
    now: dict[str, float] = {}
    kept: dict[Key, dict[str, float]] = {}
    for event in world.witness.events:
        key = (event.account_id, event.ticket)
        if event.HasField("rules_changed"):
            now = {one.key: one.value for one in event.rules_changed.numbers}
        elif event.HasField("trade_unregistered"):
            kept.pop(key, None)
        elif event.HasField("trade_registered"):
            state.setdefault(key, H)
            kept.setdefault(key, now)
        elif event.HasField("state_changed"):
            change = event.state_changed
            before = getattr(change, "from")
            if before != state.get(key):
                yield f"{event.ticket} at {event.revision}: leaves {before}, was in {state.get(key)}"
            if (before, change.to) not in EDGES:
                yield f"{event.ticket} at {event.revision}: {before} -> {change.to} is no edge"
            yield from _other_numbers(event, kept[key])
            state[key] = change.to
        elif event.ticket and key in state and event.state != state[key] and event.state:
            yield f"{event.ticket} at {event.revision}: says state {event.state}, which is {state[key]}"


def _other_numbers(event: Event, kept: Mapping[str, float]) -> Found:
    """What a change of state says of the numbers behind it, where it is not what its trade keeps."""
    change = event.state_changed
    if change.score.HasField("thresholds"):
        said = change.score.thresholds
        for name in ("warn1", "warn1_recovered", "warn2", "warn2_eased", "critical", "recovery_confirmed"):
            if getattr(said, name) != kept[name] * said.multiplier:
                yield f"{event.ticket} at {event.revision}: {name} is {getattr(said, name)}, not {kept[name]}"
    if change.HasField("flat_timer_ends_ns"):
        length_s = (change.flat_timer_ends_ns - event.time_ns) / 1e9
        if length_s != kept["flat_timer_slow_bars"] * kept["slow_s"]:
            yield f"{event.ticket} at {event.revision}: the flat timer takes {length_s} s"


def i13_hedges_are_there_or_gone(world: World) -> Found:
    """I13. HEDGED is confirmed with its hedge at the broker, CLOSED with no leg left; at the end no hedge is alone."""
    model = Model()
    for event in world.witness.events:
        model.take(event)
        if not event.HasField("state_confirmed"):
            continue
        trade = model.trades[event.account_id, event.ticket]
        held = world.held_at.get(event.revision)
        if held is None:
            continue
        confirmed = event.state_confirmed.confirmed_state
        legs = [leg[0] for leg in (trade["hedge"], trade["readd"]) if leg is not None]
        if confirmed == HG and trade["hedge"] is not None:
            hedge = world.side_of(trade["hedge"][0])
            if hedge is not None and hedge == world.side_of(event.ticket):
                yield f"{event.ticket} at {event.revision}: its hedge {trade['hedge'][0]} is on its own side"
        if confirmed == HG and (trade["hedge"] is None or not world.was_held(trade["hedge"][0], event)):
            yield f"{event.ticket} at {event.revision}: HEDGED is confirmed, its hedge {trade['hedge']} is not there"
        if confirmed == C and any(leg in held for leg in legs):
            yield f"{event.ticket} at {event.revision}: CLOSED is confirmed, and {legs} are open"
    open_now = {position.ticket: position for position in world.last_held}
    owners = {trade[name][0]: key for key, trade in model.trades.items() for name in ("hedge", "readd") if trade[name]}
    owners |= {ticket: key for key, trade in model.trades.items() for ticket, _ in trade["strays"]}
    for ticket, position in open_now.items():
        if position.comment.startswith("dtms ") and ticket not in owners and not _is_main(model, ticket):
            yield f"position {ticket} ({position.comment}) is nobody's"
        owner = owners.get(ticket)
        if owner is not None and model.trades[owner]["state"] == C:
            yield f"leg {ticket} outlives its trade {owner[1]}"


def i14_confirmed_when_done(world: World) -> Found:
    """I14. A state is confirmed when every one of its actions is settled, and pending until then."""
    model = Model()
    for event in world.witness.events:
        model.take(event)
        key = (event.account_id, event.ticket)
        trade = model.trades.get(key)
        if trade is None:
            continue
        owed = model.owed[key]
        if event.HasField("state_confirmed") and owed:
            yield f"{event.ticket} at {event.revision}: confirmed while actions {sorted(owed)} are not done"
        if event.HasField("state_changed") and event.state_changed.actions and trade["phase"] == STATE_PHASE_CONFIRMED:
            yield f"{event.ticket} at {event.revision}: shown as confirmed with {sorted(owed)} to do"
    for key, trade in model.trades.items():
        if trade["phase"] != STATE_PHASE_CONFIRMED and not trade["quarantined"]:
            yield f"{key[1]} is pending still, long after all trouble has ended: {sorted(model.owed[key])}"


# ---- streams ----------------------------------------------------------------------------------------------------


def i15_streams_have_no_gap(world: World) -> Found:
    """I15. Revisions are gapless; each stream tells each event once, in order, byte for byte what is on the disk."""
    yield from outside.nothing_is_missing(world.witness.evidence())
    if not world.is_serving_at_the_end:
        yield "long after all trouble has ended the service does not serve"
    for name, items in world.watched.items():
        wanted = _wanted(world, name)
        revision = world.watched_from[name] - 1
        for _, item in items:
            if isinstance(item, Event):
                if item.revision != _next(wanted, revision):
                    yield f"{name} was told {item.revision} after {revision}, due was {_next(wanted, revision)}"
                revision = item.revision
            elif isinstance(item, (Listed, Relisted)):
                revision = item.revision
            elif isinstance(item, Progress):
                if (due := _next(wanted, revision)) is not None and due <= item.revision:
                    yield f"{name} was told that it has all up to {item.revision}, and {due} was left out"
                revision = max(revision, item.revision)
        due = _next(wanted, revision)
        told_s = None if due is None else world.witness.durable_s.get(due)
        is_owed = told_s is not None and told_s + LAG_S < world.ended_s and name not in world.slow
        if is_owed and told_s is not None and world.is_quiet(told_s - LAG_S, world.ended_s, "viewer"):
            yield f"{name} stands at {revision} and was never told {due}"
        if name == "viewer" and revision != world.last_revision:
            yield f"{name} ends at {revision}, the journal at {world.last_revision}"


def _wanted(world: World, name: str) -> list[int]:
    """The revisions of the journal that a watcher wants, by a look of our own at its filter."""
    wanted = world.wanted.get(name, WatchFilter())
    return [
        event.revision
        for event in world.witness.events
        if (not wanted.account_ids or event.account_id in wanted.account_ids)
        and (not wanted.symbols or event.symbol in wanted.symbols)
        and (not wanted.tickets or event.ticket in wanted.tickets)
        and (not wanted.states or event.state in wanted.states)
    ]


def _next(wanted: list[int], revision: int) -> int | None:
    """The first that is wanted behind a revision."""
    place = bisect_right(wanted, revision)
    return wanted[place] if place < len(wanted) else None


def i16_nobody_misses_in_silence(world: World) -> Found:
    """I16. Whoever resumes behind a compaction is told what it missed: from where to where, and the trades instead."""
    for name, items in world.watched.items():
        revision = world.watched_from[name] - 1
        for _, item in items:
            if isinstance(item, (Event, Progress)):
                revision = max(revision, item.revision)
            elif isinstance(item, Relisted):
                if item.missed_from != revision + 1:
                    yield f"{name} stood at {revision} and was told that it missed {item.missed_from}"
                revision = item.revision
            elif isinstance(item, Listed):
                yield f"{name} was listed anew at {item.revision}, and not told what it missed"
    for name, answer in world.compacted_answers:
        if answer:
            yield f"{name} asked for compacted history and was answered with {answer}"


def i17_a_slow_watcher_delays_nobody(world: World) -> Found:
    """I17. An event reaches a watcher in no trouble within a moment, whoever else reads or never reads."""
    for name, items in world.watched.items():
        if name in world.slow:
            continue
        began = False
        for at_s, item in items:
            if isinstance(item, Event):
                durable_s = world.witness.durable_s.get(item.revision)
                began = began or (durable_s is not None and at_s - durable_s < LAG_S)
                late = began and durable_s is not None and at_s - durable_s > LAG_S
                if late and durable_s is not None and world.is_quiet(durable_s - LAG_S, at_s, "viewer"):
                    yield f"{name} heard of {item.revision} {at_s - durable_s:.2f} s late"


def i18_views_are_the_fold(world: World) -> Found:
    """I18. Every trade that was ever shown, and every list, is the fold of the events up to its revision."""
    model, history = Model(), defaultdict[Key, list[tuple[int, Facts]]](list)
    for event in world.witness.events:
        model.take(event)
        key = (event.account_id, event.ticket)
        if (trade := model.trades.get(key)) is not None:
            history[key].append((event.revision, dict(trade)))
    seen: set[tuple[Key, int, bytes]] = set()
    for revision, trade in _shown(world):
        key = (trade.account_id, trade.ticket)
        mark = (key, min(revision, trade.revision), trade.SerializeToString(deterministic=True))
        if mark in seen:
            continue
        seen.add(mark)
        noted = history[key]
        place = bisect_right(noted, revision, key=lambda item: item[0])
        if not place:
            yield f"{trade.ticket} was shown at {revision}, before it was registered"
        elif wrong := differences(trade, noted[place - 1][1]):
            yield f"{trade.ticket} as shown at {revision} is not the fold: {wrong}"


def i19_marks_come(world: World) -> Found:
    """I19. A stream in no trouble is never silent for longer than its interval."""
    for name, items in world.watched.items():
        for at_s, item in items:
            silent = isinstance(item, Interrupted) and item.error.reason == "SILENT"
            if silent and world.is_quiet(at_s - 6 * MARK_S, at_s, "viewer"):
                yield f"{name} gave up a stream at {at_s:.2f} s that was silent for three intervals"
    for number, heard in world.witness.messages.items():
        call = world.witness.calls[number]
        interval_ms = call.request.progress_interval_ms
        if interval_ms == SLOW_MARKS_MS or call.client not in world.watched:
            continue
        for before, after in pairwise(heard):
            silent_s = after.at_s - before.at_s
            if silent_s > interval_ms / 1000 + SLACK_S and world.is_quiet(before.at_s, after.at_s, call.client):
                yield f"a stream of {call.client} was silent for {silent_s:.2f} s from {before.at_s:.2f} s on"


# ---- recovery ---------------------------------------------------------------------------------------------------


def i20_what_was_acknowledged_is_there(world: World) -> Found:
    """I20. After every kill the journal is the durable prefix, and what anybody was answered is in it."""
    decided = {event.decision_made.decision.decision_id for event in _bodies(world, "decision_made")}
    registered = {(event.account_id, event.ticket) for event in _bodies(world, "trade_registered")}
    outcomes = {
        (event.outcome_recorded.outcome.intent_id, event.outcome_recorded.outcome.status)
        for event in _bodies(world, "outcome_recorded")
    }
    for call in world.witness.calls:
        if call.response is None:
            continue
        if call.name == "Propose" and not call.request.dry_run:
            if call.response.decision.decision_id not in decided:
                yield f"{call.client}'s {call.request.request_id} was answered and is in no journal"
            told = call.response.outcome
            if call.response.HasField("outcome") and told.status and (told.intent_id, told.status) not in outcomes:
                yield f"{call.client}'s {call.request.request_id} was told an outcome that is in no journal"
        elif call.name == "RegisterTrade":
            key = (call.response.trade.account_id, call.response.trade.ticket)
            if key not in registered:
                yield f"trade {key[1]} was registered, as was said, and is in no journal"


def i21_silence_closes_nothing(world: World) -> Found:
    """I21. A position is called closed only when the broker closed it; a query without an answer is no answer."""
    for event in _bodies(world, "leg_closed"):
        deals = world.broker.closing_deals(event.leg_closed.position)
        durable_s = world.witness.durable_s.get(event.revision)
        told_msc = world.now_msc() if durable_s is None else world.msc_at(durable_s)
        if not deals or deals[-1].remaining or deals[-1].time_msc > told_msc:
            yield f"{event.ticket} at {event.revision}: {event.leg_closed.position} is called closed, the broker has it"
    for event in _bodies(world, "trade_unregistered"):
        yield f"trade {event.ticket} was unregistered by {event.trade_unregistered.by}, and nobody asked for it"


def i22_nothing_is_served_before_it_is_compared(world: World) -> Found:
    """I22. No command is decided between a start and the end of its comparison with the broker."""
    serving = world.serving_intervals()
    for call in world.witness.calls:
        access = ACCESS.get(call.method.removeprefix("/dtms.v1."))
        if call.response is None or access is None or not access.writes:
            continue
        if not any(begun <= (call.ended_s or 0) and call.sent_s <= ended for begun, ended in serving):
            yield f"{call.client}'s {call.name} was answered at {call.ended_s:.3f} s by a service that was not serving"
    for event in world.witness.events:
        at_s = world.witness.durable_s.get(event.revision)
        asked = (
            (event.HasField("decision_made") and event.decision_made.decision.manager != DTMS)
            or (event.HasField("trade_registered") and event.trade_registered.origin == ORIGIN_CLIENT)
            or (event.HasField("ownership_granted") and event.ownership_granted.cause == GRANT_CAUSE_ACQUIRED)
        )
        if event.revision in world.witness.inherited:
            continue
        if asked and at_s is not None and not any(begun <= at_s <= ended + 0.1 for begun, ended in serving):
            yield f"revision {event.revision} ({event.WhichOneof('body')}) was decided while recovering"


def i23_strangers_and_the_missing(world: World) -> Found:
    """I23. What only the broker has is adopted without a managed strategy; what only the journal has is in quarantine
    until it is found, or proven closed."""
    model = Model()
    for event in world.witness.events:
        model.take(event)
        if event.HasField("trade_registered") and event.trade_registered.origin == ORIGIN_EXTERNAL:
            if event.trade_registered.strategy_type:
                yield f"{event.ticket} was adopted as a trade of {event.trade_registered.strategy_type}"
            if event.trade_registered.registered_by:
                yield f"{event.ticket} was adopted in the name of {event.trade_registered.registered_by}"
    open_now = {position.ticket: position for position in world.last_held}
    legs = {trade[name][0] for trade in model.trades.values() for name in ("hedge", "readd") if trade[name]}
    legs |= {ticket for trade in model.trades.values() for ticket, _ in trade["strays"]}
    for ticket, position in open_now.items():
        key = (world.account_id, ticket)
        if key not in model.trades and ticket not in legs and position.time_msc < world.last_attached_msc:
            yield f"position {ticket} is nobody's trade, though the broker was compared since it was opened"
    for key, trade in model.trades.items():
        if trade["quarantined"] and key[1] in open_now:
            yield f"trade {key[1]} is in quarantine, and the broker shows it"
        if trade["state"] != C and key[1] not in open_now and not trade["quarantined"]:
            yield f"trade {key[1]} is open in the journal, and the broker has it no more"
        if trade["state"] != C and key[1] in open_now:
            held = open_now[key[1]]
            wrong = [
                f"{name} {noted} and not {there}"
                for name, noted, there in (
                    ("volume", trade["volume"], round(held.volume, 6)),
                    ("sl", trade["sl"], held.sl and round(held.sl, 6)),
                    ("tp", trade["tp"], held.tp and round(held.tp, 6)),
                )
                if noted != there
            ]
            if wrong:
                yield f"trade {key[1]} has {', '.join(wrong)} at the broker"
        if trade["state"] == C and key[1] in open_now and trade["phase"] == STATE_PHASE_CONFIRMED:
            yield f"trade {key[1]} is closed in the journal, and open at the broker"


def i24_recovery_twice_is_recovery_once(world: World) -> Found:
    """I24. Two recoveries of the same files give the same journal, and a recovery of what one left adds nothing."""
    if not world.recoveries:
        return
    first, second, again = world.recoveries
    if first != second:
        yield f"two recoveries differ: {_digest(first)} and {_digest(second)} ({len(first)} and {len(second)} events)"
    if again != first:
        more = [event.WhichOneof("body") for event in again[len(first) :]]
        yield f"a recovery after a recovery adds {more or 'nothing, and changes what was there'}"


# ---- what they share --------------------------------------------------------------------------------------------


def _bodies(world: World, name: str) -> Iterator[Event]:
    return (event for event in world.witness.events if event.HasField(name))  # type: ignore[arg-type]


def _answers(world: World, name: str) -> Iterator[Call]:
    return (call for call in world.witness.calls if call.name == name and call.response is not None)


def _misled(world: World, intent_id: int) -> bool:
    """The broker itself showed that an order had not been carried out: it lied then, or the trace was gone by then.

    A change of levels leaves no trace but the levels: who closes or changes the position afterwards erases it.
    """
    order = next(
        (line for line in world.witness.broker if line["event"] == "request" and line.get("intent_id") == intent_id),
        None,
    )
    late = {
        event.outcome_recorded.outcome.status
        for event in _bodies(world, "outcome_recorded")
        if event.outcome_recorded.outcome.intent_id == intent_id
    }
    if order is None or {OUTCOME_STATUS_CONFIRMED, OUTCOME_STATUS_REJECTED} <= late:
        return order is not None  # executed late, found, and told
    told_s = next(
        world.witness.durable_s.get(event.revision, world.ended_s)
        for event in _bodies(world, "outcome_recorded")
        if event.outcome_recorded.outcome.intent_id == intent_id
        and event.outcome_recorded.outcome.status != OUTCOME_STATUS_UNKNOWN
    )
    erased = order["action"] == "SLTP" and any(
        line["position"] == order["position"] and line["seq"] > order["seq"] and line["at_s"] <= told_s
        for line in world.witness.broker
    )
    return erased or world.was_troubled(order["at_s"] - REPORTED_S, told_s, *LIES)


def _mains(world: World) -> dict[int, tuple[float, float]]:
    """When each trade was known, and when it was closed or the run ended, s."""
    spans: dict[int, tuple[float, float]] = {}
    for event in world.witness.events:
        at_s = world.witness.durable_s.get(event.revision, 0.0)
        if event.HasField("trade_registered"):
            spans.setdefault(event.ticket, (at_s, world.ended_s))
        elif event.HasField("state_changed") and event.state_changed.to == C:
            spans[event.ticket] = (spans[event.ticket][0], at_s + REPORTED_S + 1)
    return spans


def _is_main(model: Model, ticket: int) -> bool:
    return any(key[1] == ticket for key in model.trades)


def _shown(world: World) -> Iterator[tuple[int, Any]]:
    """(revision as of which, trade) of everything that anybody was shown."""
    for call in world.witness.calls:
        if call.response is None:
            continue
        match call.name:
            case "ListTrades":
                yield from ((call.response.revision, trade) for trade in call.response.trades)
            case "BatchGetTrades":
                yield from ((trade.revision, trade) for trade in call.response.trades)
            case "GetTrade" | "RegisterTrade":
                yield call.response.trade.revision, call.response.trade
            case _:
                pass
    for items in world.watched.values():
        for _, item in items:
            if isinstance(item, (Listed, Relisted)):
                yield from ((item.revision, trade) for trade in item.trades)


def _digest(events: list[Event]) -> str:
    return hashlib.sha256(b"".join(event.SerializeToString(deterministic=True) for event in events)).hexdigest()[:16]


VALIDATORS: Final[Mapping[str, Callable[[World], Found]]] = {
    f"I{int(name[1:3])}": function
    for name, function in sorted(globals().items())
    if name[:1] == "i" and name[1:3].isdigit()
}


def judge(world: World) -> list[tuple[str, str]]:
    """Every fact that breaks a guarantee, seen on the way or found now; empty for a clean run."""
    found = list(world.witness.found)
    for name, validator in VALIDATORS.items():
        found += [(name, fact) for fact in validator(world)]
    return found
