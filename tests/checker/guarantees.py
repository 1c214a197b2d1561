"""One validator for each guarantee that can be seen from outside: facts that break it, in words.

What stands in docs/guarantees.md is checked as far as clients and broker can see it, which is as far as it matters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from dtms.v1.action_pb2 import (
    ACTION_KIND_ACQUIRE,
    ACTION_KIND_CLOSE,
    ACTION_KIND_PARTIAL_CLOSE,
    ACTION_KIND_STOP,
    ACTION_KIND_TARGET,
    DENIAL_CODE_STALE_EPOCH,
    OUTCOME_STATUS_CONFIRMED,
    OUTCOME_STATUS_REJECTED,
    Action,
    Decision,
)
from dtms.v1.event_pb2 import Event, IntentRecorded, LegKind, SymbolSpec, TradeRegistered
from dtms.v1.ownership_pb2 import (
    GRANT_CAUSE_ACQUIRED,
    GRANT_CAUSE_EXPIRED,
    GRANT_CAUSE_RELEASED,
    GRANT_CAUSE_RETURNED,
    RANK_DTMS_DEFENSIVE,
    RANK_DTMS_NORMAL,
    RANK_PROFIT_PROTECTION,
    RANK_STRATEGY,
    GrantCause,
    Rank,
)
from dtms.v1.trade_pb2 import SIDE_BUY, TRADE_STATE_CLOSED, TradeState
from tests.checker.evidence import DEFENSIVE, DONE, DTMS, Call, Evidence, Grant, Key, Moment

Found: TypeAlias = Iterator[str]

UNIVERSAL: Final = "universal_sl_tp_manager"
MODIFY, DEAL = "SLTP", "DEAL"
UNNAMED: Final = ", which it does not name"
ALREADY_SO: Final = frozenset({10025, 10036})
"""Retcodes of an order that had nothing left to do: NO_CHANGES, POSITION_CLOSED."""
PRICE_DUST: Final = 1e-9  # doubles of one price, computed twice
OWNED_BY_NONE: Final = Grant(0, "", 0, Rank.RANK_UNSPECIFIED)


class Violation(NamedTuple):
    """``guarantee`` as docs/guarantees.md numbers it."""

    guarantee: str
    fact: str


# ---- ownership --------------------------------------------------------------------------------------------------


def one_holder_at_a_time(evidence: Evidence) -> Found:
    """I1. Whoever decides or acts does so under the grant in force; changes of a trade follow one another.

    Two holders at once would show as a decision, an intent or an answered claim under a grant that was not the last
    one, or as a change that begins before the one before has ended.
    """
    holder: dict[tuple[Key, int], str] = {}
    for key, moments in evidence.trades().items():
        for moment in moments:
            event, grant = moment.event, moment.grant or OWNED_BY_NONE
            where = f"{_name(key)} at {event.revision}"
            if moment.body == "ownership_granted":
                granted = event.ownership_granted
                holder[key, granted.owner_epoch] = granted.managed_by
                lost = grant.managed_by not in {"", DTMS, granted.managed_by}
                if granted.displaced not in {"", grant.managed_by} or (lost and not granted.displaced):
                    yield f"{where}: displaces {granted.displaced!r}, though {grant.managed_by!r} held it"
            elif moment.body == "decision_made":
                decision = event.decision_made.decision
                if (decision.owner, decision.owner_epoch) != (grant.managed_by, grant.epoch):
                    yield f"{where}: decided under {decision.owner_epoch}, in force was {grant.epoch}"
            elif moment.body == "intent_recorded":
                if event.intent_recorded.owner_epoch != grant.epoch:
                    yield f"{where}: acts under {event.intent_recorded.owner_epoch}, in force was {grant.epoch}"
                if moment.in_flight:
                    yield f"{where}: intent {event.intent_recorded.intent_id} while {moment.in_flight} are in flight"
    for call in evidence.named("AcquireOwnership"):
        if call.response is not None and call.response.granted:
            owned = call.response.ownership
            known = holder.get(((owned.account_id, owned.ticket), owned.owner_epoch))
            if known != call.client or owned.managed_by != call.client:
                yield f"{call.client} was told to hold {owned.ticket} under {owned.owner_epoch}, which {known!r} does"


def tokens_rise(evidence: Evidence) -> Found:
    """I2. Tokens rise with every grant of a trade, restarts or not, and an answered token is on the journal's stream.

    An answer shows a token of the past if another answer, received before this question was asked, showed a higher one.
    """
    granted: defaultdict[Key, list[int]] = defaultdict(list)
    for event in evidence.bodies("ownership_granted"):
        key, epoch = (event.account_id, event.ticket), event.ownership_granted.owner_epoch
        if granted[key] and epoch <= granted[key][-1]:
            yield f"{_name(key)} at {event.revision}: token {epoch} after {granted[key][-1]}"
        granted[key].append(epoch)
    answered = sorted(
        (call for call in evidence.calls if call.response is not None), key=lambda call: call.ended_s or 0
    )
    newest: dict[Key, int] = {}
    place = 0
    for call in evidence.calls:
        while place < len(answered) and (answered[place].ended_s or 0) < call.sent_s:
            for key, epoch in _shown(answered[place]):
                newest[key] = max(epoch, newest.get(key, 0))
            place += 1
        for key, epoch in _shown(call):
            if epoch not in granted[key]:
                yield f"{call.client} was shown token {epoch} of {_name(key)}, which was never granted"
            if epoch < newest.get(key, 0) and call.name != "Propose":  # a repeat is answered as it was before
                yield f"{call.client} was shown token {epoch} of {_name(key)} after {newest[key]} had been shown"


def _shown(call: Call) -> Iterator[tuple[Key, int]]:
    """Tokens in an answer."""
    response = call.response
    match call.name if response is not None else "":
        case "AcquireOwnership" | "ReleaseOwnership" | "GetOwnership":
            owned = [response.ownership]
        case "RenewOwnership":
            owned = list(response.renewed)
        case "RegisterTrade" | "GetTrade":
            owned = [response.trade]
        case "BatchGetTrades" | "ListTrades":
            owned = list(response.trades)
        case "Propose":
            owned = [response.decision]
        case _:
            owned = []
    for item in owned:
        if item.owner_epoch:
            yield (item.account_id, item.ticket), item.owner_epoch


def stale_tokens_reach_nobody(evidence: Evidence) -> Found:
    """I3. What was decided under an old token is refused, and the broker never hears of it.

    A refused proposal has no intent and no order; each order carries the token of its intent; at the broker the tokens
    of a trade never fall.
    """
    acted_on = {event.intent_recorded.decision_id for event in evidence.intents().values()}
    for event in evidence.bodies("decision_made"):
        decision = event.decision_made.decision
        if decision.action.kind == ACTION_KIND_ACQUIRE:
            continue  # a claim shows no token
        stale = decision.asked_epoch != decision.owner_epoch and bool(decision.owner_epoch)
        if stale and (decision.granted or decision.denial > DENIAL_CODE_STALE_EPOCH):
            yield f"decision {decision.decision_id}: {decision.asked_epoch} was shown, {decision.owner_epoch} holds"
        if not decision.granted and decision.decision_id in acted_on:
            yield f"decision {decision.decision_id} was denied, and acted on"
    for call in evidence.named("Propose"):
        if call.reason == "STALE_EPOCH" and int(call.metadata.get("decision_id", 0)) in acted_on:
            yield f"{call.client}: {call.request.request_id} was stale, and acted on"
    intents, highest = evidence.intents(), dict[int, int]()
    for order in evidence.orders():
        known = intents.get(order["intent_id"])
        if known is not None and known.intent_recorded.owner_epoch != order["token"]:
            yield f"order {order['seq']} carries token {order['token']}, its intent another"
        if order["token"] < highest.get(order["ticket"], 0):
            yield f"order {order['seq']} carries token {order['token']} after {highest[order['ticket']]}"
        highest[order["ticket"]] = max(order["token"], highest.get(order["ticket"], 0))


def only_rank_preempts(evidence: Evidence) -> Found:
    """I4. The rank of asker and owner is that of the state in force, and only a strictly higher one takes a trade.

    Grants go where their cause sends them, and what is granted obeys the table of domain.md.
    """
    ranks = _Ranks()
    for key, moments in evidence.trades().items():
        breakeven = False
        for moment in moments:
            event = moment.event
            where = f"{_name(key)} at {event.revision}"
            if moment.body == "ownership_granted":
                granted = event.ownership_granted
                if granted.rank != ranks.of(granted.managed_by, event.state):
                    yield f"{where}: {granted.managed_by} has rank {granted.rank} in state {event.state}"
                yield from (f"{where}: {fact}" for fact in _misplaced(moment, ranks))
            elif moment.body == "decision_made":
                decision = event.decision_made.decision
                if decision.rank != ranks.of(decision.manager, moment.state):
                    yield f"{where}: {decision.manager} is judged by rank {decision.rank} in state {moment.state}"
                if decision.defensive != moment.defensive:
                    yield f"{where}: judged as defensive={decision.defensive} in state {moment.state}"
                owner = (moment.grant or OWNED_BY_NONE).managed_by
                if decision.granted and not _may_act(decision, owner, moment, breakeven=breakeven, ranks=ranks):
                    yield f"{where}: {decision.manager} was granted a change of a trade of {owner!r}"
            breakeven = breakeven or moment.body == "breakeven_triggered"


class _Ranks:
    """DTMS's rank is its state's, a manager's is one for ever: that of domain.md, or the one it showed first."""

    def __init__(self) -> None:
        self._known: dict[str, Rank.ValueType] = {UNIVERSAL: RANK_STRATEGY}

    def of(self, manager: str, state: TradeState.ValueType) -> Rank.ValueType:
        if manager == DTMS:
            return RANK_DTMS_DEFENSIVE if state in DEFENSIVE else RANK_DTMS_NORMAL
        return self._known.get(manager, RANK_PROFIT_PROTECTION if manager else Rank.RANK_UNSPECIFIED)


def _misplaced(moment: Moment, ranks: _Ranks) -> Found:
    """Grants that their cause does not allow."""
    event, granted = moment.event, moment.event.ownership_granted
    before = (moment.grant or OWNED_BY_NONE).managed_by
    match granted.cause:
        case GrantCause.GRANT_CAUSE_ACQUIRED:
            if ranks.of(granted.managed_by, moment.state) <= ranks.of(before, moment.state) or moment.defensive:
                yield f"{granted.managed_by} takes it from {before!r}, who is no lower"
        case GrantCause.GRANT_CAUSE_DEFENSIVE:
            if granted.managed_by != DTMS or event.state not in DEFENSIVE:
                yield f"{granted.managed_by} defends it in state {event.state}"
        case GrantCause.GRANT_CAUSE_EXPIRED | GrantCause.GRANT_CAUSE_RELEASED | GrantCause.GRANT_CAUSE_KILLED:
            if granted.managed_by != DTMS:
                yield f"it falls to {granted.managed_by} instead of DTMS"
        case GrantCause.GRANT_CAUSE_RESTORED:
            if granted.managed_by != before:
                yield f"a restore gives it to {granted.managed_by}"
        case GrantCause.GRANT_CAUSE_RETURNED:
            if event.state in DEFENSIVE:
                yield "it is given back while DTMS defends it"
        case _:
            if moment.grant is not None and granted.cause != GrantCause.GRANT_CAUSE_REGISTERED:
                yield f"it has no cause: {granted.cause}"


def _may_act(decision: Decision, owner: str, moment: Moment, *, breakeven: bool, ranks: _Ranks) -> bool:
    """The table of authority in domain.md. In CLOSED nobody owns anything, and DTMS clears up."""
    strategy = ranks.of(owner, moment.state) == RANK_STRATEGY
    if decision.manager == DTMS:
        return moment.defensive or not strategy or moment.state == TRADE_STATE_CLOSED
    if moment.defensive:
        return False
    if decision.manager == owner:
        return True
    if ranks.of(decision.manager, moment.state) == RANK_STRATEGY:
        return False
    return owner in {"", DTMS} or (strategy and not breakeven)


def defence_ends_in_one_step(evidence: Evidence) -> Found:
    """I5. Leaving WARNING_L2 or HEDGED drops DTMS's rank in the same step, and a displaced owner hears of both.

    Same step: no other event of the trade lies between the change of state and the grant, save for actions that the
    change made pointless. Told: no stream of the displaced one passes over the grant.
    """
    heard = defaultdict(list)
    for stream in evidence.streams:
        seen = [revision for message in stream.messages for revision in message.revisions]
        if not stream.filtered and seen:
            heard[stream.client].append((min(seen), max(seen), frozenset(seen)))
    for key, moments in evidence.trades().items():
        left_at = 0
        for moment in moments:
            event = moment.event
            if left_at and moment.body != "action_skipped":
                cause = event.ownership_granted.cause if moment.body == "ownership_granted" else None
                if cause != GRANT_CAUSE_RETURNED:
                    yield f"{_name(key)}: defence ended at {left_at}, and {moment.body} came before the rank dropped"
                left_at = 0
            if moment.body == "state_changed":
                change = event.state_changed
                if getattr(change, "from") in DEFENSIVE and change.to not in DEFENSIVE:
                    left_at = event.revision
            if moment.body == "ownership_granted":
                granted = event.ownership_granted
                for told in {granted.displaced, granted.managed_by} - {"", DTMS}:
                    if any(
                        low < event.revision < high and event.revision not in seen for low, high, seen in heard[told]
                    ):
                        yield f"{_name(key)}: the stream of {told} passes over its grant at {event.revision}"
        if left_at:
            yield f"{_name(key)}: defence ended at {left_at}, and its rank never dropped"


def leases_last(evidence: Evidence) -> Found:
    """I6. A lease lasts at least as long as it was promised, by the clock of the machine; a write in flight is settled
    before the trade goes to somebody else; what has expired is not renewed.

    The promise counts from when it was asked for: the service gave it at that moment or later.
    """
    promised: dict[tuple[Key, int], float] = {}
    for call in evidence.calls:
        for owned in _leased(call):
            until = call.sent_s + owned.lease_remaining_ms / 1000
            at = (owned.account_id, owned.ticket), owned.owner_epoch
            promised[at] = max(until, promised.get(at, 0.0))
    ended: dict[tuple[Key, int], float] = {}
    for key, moments in evidence.trades().items():
        for moment in moments:
            if moment.body != "ownership_granted" or moment.grant is None:
                continue
            event, cause = moment.event, moment.event.ownership_granted.cause
            seen_s = evidence.first_seen_s[event.revision]
            if cause in {GRANT_CAUSE_EXPIRED, GRANT_CAUSE_RELEASED, GRANT_CAUSE_ACQUIRED} and moment.in_flight:
                yield f"{_name(key)} changes hands at {event.revision} while {moment.in_flight} are in flight"
            if cause == GRANT_CAUSE_EXPIRED:
                early_s = promised.get((key, moment.grant.epoch), 0.0) - seen_s
                if early_s > 0:
                    yield f"{_name(key)}: the lease of {moment.grant.epoch} ended {early_s:.3f} s early"
            ended[key, moment.grant.epoch] = seen_s
    for call in evidence.named("RenewOwnership"):
        for owned in _leased(call):
            over_s = ended.get(((owned.account_id, owned.ticket), owned.owner_epoch))
            if over_s is not None and over_s < call.sent_s:
                yield f"{call.client} renewed {owned.ticket} under {owned.owner_epoch} after it had ended"


def _leased(call: Call) -> list[Any]:
    """Leases that an answer promises to the caller."""
    if call.response is None:
        return []
    match call.name:
        case "AcquireOwnership":
            owned = [call.response.ownership] if call.response.granted else []
        case "RenewOwnership":
            owned = list(call.response.renewed)
        case _:
            owned = []
    return [item for item in owned if item.HasField("lease_remaining_ms")]


def no_write_without_authority(evidence: Evidence) -> Found:
    """I7. Every order at the broker is one intent's, every intent one granted decision's, every decision of a manager
    answers a proposal that this manager sent, word for word; what was done by hand was asked for by hand.

    So a client that is cut off, displaced, frozen or dead changes nothing, and nothing is done twice.
    """
    intents = evidence.intents()
    decisions = {
        event.decision_made.decision.decision_id: event.decision_made.decision
        for event in evidence.bodies("decision_made")
    }
    proposed = defaultdict(list)
    for call in evidence.named("Propose"):
        proposed[call.client, call.request.request_id].append(call)
    claimed = {(call.client, call.request.ticket) for call in evidence.named("AcquireOwnership")}
    for event in intents.values():
        intent = event.intent_recorded
        decision = decisions.get(intent.decision_id)
        if decision is None or not decision.granted or decision.manager != intent.manager:
            yield f"intent {intent.intent_id} of {intent.manager} has no granted decision"
    for decision in decisions.values():
        if decision.action.kind == ACTION_KIND_ACQUIRE:
            if decision.granted or (decision.manager, decision.ticket) not in claimed:
                yield f"decision {decision.decision_id}: {decision.manager} never claimed {decision.ticket} so"
        elif decision.manager != DTMS:
            asked = proposed[decision.manager, decision.request_id]
            if not any(_asks_for(call, decision) for call in asked):
                yield f"decision {decision.decision_id}: {decision.manager} never sent {decision.request_id!r} so"
    sent = set[int]()
    for order in evidence.orders():
        known = intents.get(order["intent_id"])
        if known is None:
            yield f"order {order['seq']}: nobody knows intent {order['intent_id']}"
        elif not _carries_out(order, known):
            yield f"order {order['seq']} is not what intent {order['intent_id']} says"
        if order["intent_id"] in sent:
            yield f"order {order['seq']}: intent {order['intent_id']} reaches the broker again"
        sent.add(order["intent_id"])
    yield from _by_hand(evidence)


def _asks_for(call: Call, decision: Decision) -> bool:
    asked = call.request
    return bool(
        (asked.ticket, asked.owner_epoch, asked.action) == (decision.ticket, decision.asked_epoch, decision.action)
        and asked.account_id in {"", decision.account_id}
    )


def _carries_out(order: Mapping[str, Any], event: Event) -> bool:
    intent = event.intent_recorded
    if (order["ticket"], order["comment"]) != (event.ticket, f"dtms {intent.intent_id}"):
        return False
    if intent.kind in {ACTION_KIND_STOP, ACTION_KIND_TARGET}:
        # MetaTrader 5 takes both levels: the one that is not named is as it was known, or as it stands there.
        named, other = ("sl", "tp") if intent.kind == ACTION_KIND_STOP else ("tp", "sl")
        stands = (order["before"] or {}).get(other) or 0.0
        return (
            (order["action"], order["position"]) == (MODIFY, intent.position)
            and _same((order[named],), (getattr(intent, named),))
            and any(_same((order[other],), (level,)) for level in (getattr(intent, other), stands))
        )
    return order["action"] == DEAL and _same((order["volume"],), (intent.volume,))


def _same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) < PRICE_DUST for a, b in zip(one, other, strict=True))


def _by_hand(evidence: Evidence) -> Found:
    """Orders past DTMS that no client of the paper account asked for."""
    asked: defaultdict[tuple[str, int], int] = defaultdict(int)
    for call in evidence.calls:
        match call.name:
            case "OpenPosition":
                asked[DEAL, 0] += 1
            case "ClosePosition":
                asked[DEAL, call.request.ticket] += 1
            case "ModifyPosition":
                asked[MODIFY, call.request.ticket] += 1
            case _:
                pass
    for line in evidence.broker:
        if line["event"] == "request" and line["actor"] == "other":
            what = line["action"], line["position"]
            asked[what] -= 1
            if asked[what] < 0:
                yield f"order {line['seq']}: nobody asked for this {what[0]} of position {what[1]}"


# ---- writes -----------------------------------------------------------------------------------------------------


def outcomes_are_the_brokers(evidence: Evidence) -> Found:
    """I9. A change is called done only if the broker did it, and refused only if the broker did not."""
    done = {order["intent_id"] for order in evidence.orders() if order["retcode"] in DONE}
    idle = {order["intent_id"] for order in evidence.orders() if order["retcode"] in ALREADY_SO}
    for event in evidence.bodies("outcome_recorded"):
        outcome = event.outcome_recorded.outcome
        if outcome.status == OUTCOME_STATUS_CONFIRMED and outcome.intent_id not in done | idle:
            yield f"intent {outcome.intent_id} is called done at {event.revision}, and the broker did not do it"
        if outcome.status == OUTCOME_STATUS_REJECTED and outcome.intent_id in done:
            yield f"intent {outcome.intent_id} is called refused at {event.revision}, and the broker did it"


def stops_do_not_loosen(evidence: Evidence) -> Found:
    """I11. At the broker, a stop moves away from the price only where the proposal said so, no higher rank had set it
    and the loss at it stays within the initial risk; it stands on its side of the price, beyond the stops level and not
    in the freeze zone; a change touches the field that it names, and no other.
    """
    specs = {event.symbol: event.symbol_defined.spec for event in evidence.bodies("symbol_defined")}
    trades = {(event.account_id, event.ticket): event for event in evidence.bodies("trade_registered")}
    decisions = {
        event.decision_made.decision.decision_id: event.decision_made.decision
        for event in evidence.bodies("decision_made")
    }
    raised = list(evidence.bodies("risk_budget_changed"))
    intents, set_by = evidence.intents(), defaultdict[int, int](int)
    for line in evidence.broker:
        if line["event"] != "request" or line["retcode"] not in DONE:
            continue
        if line["actor"] != "dtms":
            if line["action"] == MODIFY:
                set_by[line["position"]] = 0
            continue
        event = intents.get(line["intent_id"])
        trade = trades.get((event.account_id, event.ticket)) if event is not None else None
        if event is None or trade is None or event.intent_recorded.leg != LegKind.LEG_KIND_MAIN:
            continue
        intent, decision = event.intent_recorded, decisions.get(event.intent_recorded.decision_id, Decision())
        facts = [
            *_touches_more(line, intent),
            *_misplaced_stop(intent, decision, trade.trade_registered, specs.get(event.symbol, SymbolSpec()), line),
        ]
        if intent.kind == ACTION_KIND_STOP:
            budgets = [
                each.risk_budget_changed.budget_r
                for each in raised
                if (each.account_id, each.ticket) == (event.account_id, event.ticket) and each.revision < event.revision
            ]
            setter = set_by[line["position"]]
            facts += _loosens(
                line, decision.action, intent, trade.trade_registered, set_by=setter, budget_r=[1.0, *budgets][-1]
            )
            set_by[line["position"]] = intent.rank
        yield from (f"order {line['seq']} of {intent.manager}: {fact}" for fact in facts)


def _touches_more(line: Mapping[str, Any], intent: IntentRecorded) -> Found:
    before, after = line["before"], line["after"]
    if before is None or after is None:
        return
    keeps = {
        ACTION_KIND_STOP: ("tp", "volume"),
        ACTION_KIND_TARGET: ("sl", "volume"),
        ACTION_KIND_PARTIAL_CLOSE: ("sl", "tp"),
        ACTION_KIND_CLOSE: ("sl", "tp"),
    }.get(intent.kind, ())
    for name in keeps:
        if before[name] != after[name]:
            yield f"it changes {name} from {before[name]} to {after[name]}{UNNAMED}"


def _loosens(
    line: Mapping[str, Any],
    asked: Action,
    intent: IntentRecorded,
    trade: TradeRegistered,
    *,
    set_by: int,
    budget_r: float,
) -> list[str]:
    before, after = line["before"]["sl"], line["after"]["sl"]
    sign = 1 if trade.side == SIDE_BUY else -1
    if before is None or (after is not None and sign * (after - before) >= -PRICE_DUST):
        return []
    facts = []
    if not asked.allow_loosen:
        facts.append(f"it loosens the stop from {before} to {after}, and did not say so")
    if set_by > intent.rank:
        facts.append(f"it loosens a stop that rank {set_by} has set")
    distance = trade.risk_distance if after is None else sign * (trade.entry_price - after)
    if distance * line["after"]["volume"] > budget_r * trade.risk_distance * trade.volume * (1 + PRICE_DUST):
        facts.append(f"at {after} it risks more than {budget_r} R")
    return facts


def _misplaced_stop(
    intent: IntentRecorded, decision: Decision, trade: TradeRegistered, spec: SymbolSpec, line: Mapping[str, Any]
) -> Found:
    level = {ACTION_KIND_STOP: ("sl", 1), ACTION_KIND_TARGET: ("tp", -1)}.get(intent.kind)
    if level is None or not decision.HasField("bid"):
        return
    sign = 1 if trade.side == SIDE_BUY else -1
    price = decision.bid if trade.side == SIDE_BUY else decision.ask
    name, behind = level
    if intent.HasField(name):  # type: ignore[arg-type]
        room = behind * sign * (price - getattr(intent, name))
        if room <= 0 or room < spec.stops_level * spec.point - PRICE_DUST:
            yield f"{name} {getattr(intent, name)} at a price of {price} is on the wrong side or too near"
    for name in ("sl", "tp"):
        stands = line["before"][name]
        if stands is not None and spec.freeze_level and abs(price - stands) < spec.freeze_level * spec.point:
            yield f"sent in the freeze zone: {name} stands at {stands}, the price at {price}"


# ---- streams ----------------------------------------------------------------------------------------------------


def nothing_is_missing(evidence: Evidence) -> Found:
    """I15. All streams together tell every revision from 1 on: what was not seen could not be checked.

    And each stream that asked for everything has every revision between its first and its last once, in order.
    """
    for place, event in enumerate(evidence.events, 1):
        if event.revision != place:
            yield f"nobody saw revision {place}"
            break
    for stream in evidence.streams:
        seen = [revision for message in stream.messages for revision in message.revisions]
        if not stream.filtered and seen and seen != list(range(seen[0], seen[0] + len(seen))):
            yield f"a stream of {stream.client} has a gap, a repeat or a step back"


def _name(key: Key) -> str:
    return f"trade {key[1]}"


VALIDATORS: Final[Mapping[str, Callable[[Evidence], Found]]] = {
    "I1": one_holder_at_a_time,
    "I2": tokens_rise,
    "I3": stale_tokens_reach_nobody,
    "I4": only_rank_preempts,
    "I5": defence_ends_in_one_step,
    "I6": leases_last,
    "I7": no_write_without_authority,
    "I9": outcomes_are_the_brokers,
    "I11": stops_do_not_loosen,
    "I15": nothing_is_missing,
}


def check(evidence: Evidence) -> list[Violation]:
    """Every fact that breaks a guarantee; empty for a clean run."""
    return [Violation(name, fact) for name, validator in VALIDATORS.items() for fact in validator(evidence)]
