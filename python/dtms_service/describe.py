"""Events, decisions and actions in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.json_format import MessageToDict

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms.v1.admin_service_pb2 import (
    EngagedRail,
    GatewayState,
    GatewayStatus,
    GetSystemStatusResponse,
    KillSwitch,
    Latency,
    ServiceStage,
)
from dtms.v1.gateway_service_pb2 import TerminalState

# The row of the arbitration table, or the check, behind each denial (domain.md).
RULES: dict[int, str] = {
    action_pb2.DENIAL_CODE_UNSPECIFIED: "granted: the rank allows it and every check passed",
    action_pb2.DENIAL_CODE_TRADE_UNKNOWN: "only registered trades can be changed",
    action_pb2.DENIAL_CODE_TRADE_CLOSED: "a closed trade is final",
    action_pb2.DENIAL_CODE_HALTED: "the trading state, a kill switch, a safety rail or quarantine forbids it",
    action_pb2.DENIAL_CODE_STALE_EPOCH: "what was decided under an older grant is refused",
    action_pb2.DENIAL_CODE_DTMS_DEFENSIVE: "in WARNING_L2 and HEDGED only DTMS acts",
    action_pb2.DENIAL_CODE_OWNED_BY_OTHER: "the owner has the higher rank",
    action_pb2.DENIAL_CODE_IN_FLIGHT: "one modification per trade at a time",
    action_pb2.DENIAL_CODE_COOLDOWN: "too soon after the manager's last change",
    action_pb2.DENIAL_CODE_LOOSENS: "a stop loosens only if the proposal says so and no higher rank set it",
    action_pb2.DENIAL_CODE_RISK_BUDGET: "the loss at the stops may not exceed the initial risk",
    action_pb2.DENIAL_CODE_INVALID_STOP: "the level must be on the right side, off the stops level, a whole tick",
    action_pb2.DENIAL_CODE_FROZEN: "inside the freeze level nothing can be modified",
    action_pb2.DENIAL_CODE_MIN_VOLUME: "part and rest must be multiples of the step and at least the minimum volume",
    action_pb2.DENIAL_CODE_NO_CHANGE: "it stands there already",
}


def describe(event: event_pb2.Event) -> str:
    """One line in words."""
    what = event.WhichOneof("body") or "nothing"
    where = f"{event.symbol} {event.ticket}" if event.ticket else event.symbol or event.account_id
    return f"r{event.revision} {where}: {_DESCRIBE.get(what, _plain)(event)}".replace("  ", " ")


def notice(event: event_pb2.Event) -> str:
    """The event for somebody who is not at a terminal: what happened, and where. Without its revision."""
    what = event.WhichOneof("body") or "nothing"
    ticket = f"ticket {event.ticket}" if event.ticket else ""
    where = ", ".join(filter(None, [event.symbol, ticket, event.account_id and f"account {event.account_id}"]))
    words = _DESCRIBE.get(what, _plain)(event)
    return f"{where}: {words}" if where else words


def _plain(event: event_pb2.Event) -> str:
    return (event.WhichOneof("body") or "nothing").replace("_", " ")


def _state(event: event_pb2.Event) -> str:
    changed = event.state_changed
    states = [enum_name(trade_pb2.TradeState, state) for state in (getattr(changed, "from"), changed.to)]
    cause = enum_name(event_pb2.TransitionCause, changed.cause)
    actions = ", ".join(enum_name(action_pb2.Purpose, action.purpose) for action in changed.actions)
    return f"{' -> '.join(states)} by {cause}, score {changed.score.total:+.2f}" + (
        f"; then {actions}" if actions else ""
    )


def _decision(event: event_pb2.Event) -> str:
    decision = event.decision_made.decision
    verdict = "granted" if decision.granted else f"denied, {enum_name(action_pb2.DenialCode, decision.denial)}"
    rank = enum_name(ownership_pb2.Rank, decision.rank)
    situation = f"owner {decision.owner or 'nobody'}, epoch {decision.owner_epoch}"
    return (
        f"{decision.manager} ({rank}) asked for {action_words(decision.action)}: {verdict}; {situation}"
        + (", defensive" if decision.defensive else "")
        + (f", by {decision.halted_by}" if decision.halted_by else "")
    )


def _intent(event: event_pb2.Event) -> str:
    intent = event.intent_recorded
    kind, purpose = enum_name(action_pb2.ActionKind, intent.kind), enum_name(action_pb2.Purpose, intent.purpose)
    return f"{intent.manager} sends {kind} ({purpose})"


def _outcome(event: event_pb2.Event) -> str:
    outcome = event.outcome_recorded.outcome
    status = enum_name(action_pb2.OutcomeStatus, outcome.status)
    return f"intent {outcome.intent_id} {status} {outcome.retcode} {outcome.comment}"


def _owner(event: event_pb2.Event) -> str:
    granted = event.ownership_granted
    because = f", for the lease of {granted.displaced} ran out" * (granted.cause == ownership_pb2.GRANT_CAUSE_EXPIRED)
    return f"owner is {granted.managed_by or 'nobody'}, epoch {granted.owner_epoch}{because}"


def _alarm(event: event_pb2.Event) -> str:
    alarm = event.alarm_raised
    return f"ALARM {enum_name(event_pb2.AlarmCode, alarm.code)}: {alarm.detail}"


def _trading_state(event: event_pb2.Event) -> str:
    changed = event.trading_state_changed
    return f"trading is {enum_name(event_pb2.TradingState, changed.trading_state)}, by {changed.by}: {changed.reason}"


def _kill_switch(event: event_pb2.Event) -> str:
    changed = event.kill_switch_changed
    what = f"{enum_name(event_pb2.KillScope, changed.scope)} {changed.value}"
    flatten = ", everything is closed" if changed.flatten else ""
    verb = "engaged" if changed.engaged else "released"
    return f"kill switch {what} {verb}{flatten}, by {changed.by}: {changed.reason}"


def _quarantine(event: event_pb2.Event) -> str:
    if event.quarantine_changed.quarantined:
        return "in quarantine: not at the broker, and not proven closed"
    return "out of quarantine: found again"


def _memo(event: event_pb2.Event) -> str:
    return f"{event.memo_set.manager} {'left' if event.memo_set.memo else 'took away'} a memo"


def _index(event: event_pb2.Event) -> str:
    reported = event.index_reported
    return f"{reported.index.name} is {reported.index.value:g}, says {reported.by}"


def _budget(event: event_pb2.Event) -> str:
    changed = event.risk_budget_changed
    return f"risk budget {changed.budget_r:g} R by {changed.by}: {changed.reason}"


def _rail(event: event_pb2.Event) -> str:
    changed = event.rail_changed
    verb = "tripped" if changed.engaged else "released"
    return f"rail {enum_name(event_pb2.Rail, changed.rail)} {verb}: {changed.detail}"


def _mark(event: event_pb2.Event) -> str:
    marked = event.account_marked
    return f"{enum_name(event_pb2.Span, marked.span)} begins at {clock(marked.start_ns)} with equity {marked.equity:g}"


def _restored(event: event_pb2.Event) -> str:
    restored = event.backup_restored
    return f"goes on from the backup of {clock(restored.made_ns)}; tokens begin after {restored.last_epoch}"


def _leg_found(event: event_pb2.Event) -> str:
    found = event.leg_found
    kind = enum_name(event_pb2.LegKind, found.leg)
    return f"position {found.position} of intent {found.intent_id}, of a lost time, is its {kind}"


def _rules(event: event_pb2.Event) -> str:
    changed = event.rules_changed
    others = [f"{one.key} {one.before:g} to {one.value:g}" for one in changed.numbers if one.HasField("before")]
    what = ", ".join(others) or "as the service was started"
    return f"{what}; by {changed.by}" if changed.by else what


KINDS: Final = frozenset(field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["body"].fields)
"""Names of the facts that an event may be."""

_DESCRIBE = {
    "alarm_raised": _alarm,
    "trading_state_changed": _trading_state,
    "kill_switch_changed": _kill_switch,
    "quarantine_changed": _quarantine,
    "state_changed": _state,
    "decision_made": _decision,
    "intent_recorded": _intent,
    "outcome_recorded": _outcome,
    "ownership_granted": _owner,
    "memo_set": _memo,
    "index_reported": _index,
    "risk_budget_changed": _budget,
    "rail_changed": _rail,
    "account_marked": _mark,
    "backup_restored": _restored,
    "leg_found": _leg_found,
    "rules_changed": _rules,
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which recorded events somebody wants, and what is said of them. None and empty mean all."""

    account_id: str | None
    tickets: frozenset[int]
    kinds: frozenset[str]
    in_words: bool

    def __call__(self, body: bytes) -> dict[str, object] | None:
        """What to say of an event besides its bytes; None for one that is not wanted."""
        event = event_pb2.Event.FromString(body)
        wanted = (
            self.account_id in {None, event.account_id}
            and (not self.tickets or event.ticket in self.tickets)
            and (not self.kinds or event.WhichOneof("body") in self.kinds)
        )
        if not wanted:
            return None
        return {"event": MessageToDict(event, preserving_proto_field_name=True)} if self.in_words else {}


def action_words(action: action_pb2.Action) -> str:
    """An action in words: kind, purpose if it has one, and the numbers that belong to it."""
    kind, purpose = enum_name(action_pb2.ActionKind, action.kind), enum_name(action_pb2.Purpose, action.purpose)
    numbers = [f"{f} {getattr(action, f):g}" for f in ("stop", "target", "volume") if action.HasField(f)]
    return " ".join([kind, *[f"({purpose})"] * (action.purpose != 0), *numbers])


class _Enum(Protocol):
    @property
    def DESCRIPTOR(self) -> EnumDescriptor: ...  # noqa: N802  protobuf's name


def enum_name(enum: _Enum, number: int) -> str:
    """The value's name without the enum's prefix."""
    descriptor = enum.DESCRIPTOR
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = "".join("_" + c if c.isupper() else c for c in descriptor.name).lstrip("_").upper() + "_"
    return str(value.name.removeprefix(prefix))


def status_rows(status: GetSystemStatusResponse) -> list[tuple[str, str]]:
    """The system status as names and words."""
    return [
        ("version", status.version),
        ("stage", " ".join([enum_name(ServiceStage, status.stage), status.recovery_detail]).strip()),
        ("running since", clock(status.started_ns)),
        ("mode", "SHADOW: decides and records, sends nothing to the broker" if status.shadow else "live"),
        ("time", "virtual (lockstep)" if status.lockstep else "real"),
        ("accounts", ", ".join(status.account_ids) or "none"),
        ("trading", enum_name(event_pb2.TradingState, status.trading_state)),
        ("kill switches", ", ".join(map(_switch, status.kill_switches)) or "none"),
        ("rails", "; ".join(map(_engaged, status.rails)) or "none"),
        ("trades", ", ".join(f"{count.state} {count.trades}" for count in status.states) or "none"),
        ("revisions", f"{status.oldest_revision} to {status.revision}"),
        ("journal", status.journal_sha256 + _damage(status.damaged_revisions)),
        ("watchers", str(status.watchers)),
        *((f"gateway {gateway.account_id}", _gateway(gateway)) for gateway in status.gateways),
        ("tick to decision", _latency(status.tick_to_decision)),
        ("tick to durable", _latency(status.tick_to_durable)),
        ("broker call", _latency(status.broker_call)),
    ]


def _damage(revisions: Sequence[int]) -> str:
    return f" DAMAGED at revision {', '.join(map(str, revisions))}" if revisions else ""


def clock(time_ns: int) -> str:
    """UTC, to the second."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _switch(switch: KillSwitch) -> str:
    return f"{enum_name(event_pb2.KillScope, switch.scope)} {switch.value}"


def _engaged(rail: EngagedRail) -> str:
    where = " ".join(filter(None, (rail.account_id, rail.symbol)))
    return f"{enum_name(event_pb2.Rail, rail.rail)} on {where}: {rail.detail}"


def _gateway(gateway: GatewayStatus) -> str:
    words = [enum_name(GatewayState, gateway.state) + (" (supervised)" if gateway.supervised else "")]
    if gateway.HasField("terminal"):
        words.append(_terminal(gateway.terminal))
    if gateway.restarts:
        words.append(f"started again {gateway.restarts} times")
    if gateway.ticks_merged:
        words.append(f"{gateway.ticks_merged} prices merged")
    if gateway.last_error:
        words.append(f"last trouble: {gateway.last_error}")
    return "; ".join(words)


def _terminal(terminal: TerminalState) -> str:
    """Only what is not as it should be, and the figures."""
    if terminal.other_account_id:
        return f"terminal is logged in to {terminal.other_account_id}"
    if terminal.trouble:
        return f"terminal fails: {terminal.trouble}"
    is_able = terminal.terminal_trades and terminal.account_trades and terminal.experts_trade
    offset = f", server time UTC{terminal.offset_s / 3600:+g} h" if terminal.HasField("offset_s") else ""
    link = "linked" if terminal.linked else "NO LINK to its server"
    return f"terminal {link}, trading {'on' if is_able else 'OFF'}, ping {terminal.ping_ms} ms{offset}"


def _latency(latency: Latency) -> str:
    if not latency.count:
        return "not measured yet"
    return f"p50 {latency.p50_us:.0f} us, p99 {latency.p99_us:.0f} us, longest {latency.max_us:.0f} us"
