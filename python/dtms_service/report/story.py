"""What happened to each trade, told from the events: stop steps, states, deals, and one line a fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms_service.report import words
from dtms_service.report.intents import Ledger, TradeKey, Write
from dtms_service.report.summary import EXTERNAL, is_takeover, state_name


class MarkKind(Enum):
    """A deal on the chart; the value is its class in the style sheet."""

    OPEN = "open"
    PARTIAL = "partial"
    HEDGE = "hedge"
    HEDGE_END = "hedge-end"
    RE_ADD = "re-add"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class StopStep:
    """From ``time_ns`` on the broker held this stop (None: none), as ``by`` had asked."""

    time_ns: int
    stop: float | None
    by: str


@dataclass(frozen=True, slots=True)
class StateStep:
    time_ns: int
    state: str


@dataclass(frozen=True, slots=True)
class TargetStep:
    time_ns: int
    target: float | None


@dataclass(frozen=True, slots=True)
class Mark:
    time_ns: int
    kind: MarkKind
    price: float
    label: str


@dataclass(frozen=True, slots=True)
class Fact:
    time_ns: int
    text: str


class Deed(Enum):
    """What a manager does to a trade; the value is its name in words."""

    STOP = "stop"
    TARGET = "target"
    PARTIAL = "part closed"
    HEDGE = "hedge"
    RE_ADD = "re-add"
    CLOSE = "close"
    TAKEOVER = "takeover"
    DENIED = "denied"


_DEEDS = {
    action_pb2.ACTION_KIND_TARGET: Deed.TARGET,
    action_pb2.ACTION_KIND_PARTIAL_CLOSE: Deed.PARTIAL,
    action_pb2.ACTION_KIND_CLOSE: Deed.CLOSE,
    action_pb2.ACTION_KIND_OPEN_HEDGE: Deed.HEDGE,
    action_pb2.ACTION_KIND_RE_ADD: Deed.RE_ADD,
}


@dataclass(slots=True)
class Story:
    """One trade. Everything is in order of time; the first stop, target and state are those of the entry."""

    account_id: str
    ticket: int
    symbol: str
    digits: int  # decimals of a price
    buy: bool
    entry_price: float
    opened_ns: int
    ended_ns: int | None = None  # when the trade's own position was gone
    ending: str = ""  # how, in words
    stops: list[StopStep] = field(default_factory=list)
    targets: list[TargetStep] = field(default_factory=list)
    states: list[StateStep] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    strategy_type: str = ""
    deeds: dict[str, Counter[Deed]] = field(default_factory=dict)  # by manager, in order of its first

    def price(self, price: float | None) -> str:
        return "none" if price is None else f"{price:.{self.digits}f}"

    @property
    def states_seen(self) -> set[str]:
        return {step.state for step in self.states}

    def did(self, manager: str, deed: Deed) -> None:
        self.deeds.setdefault(manager, Counter())[deed] += 1

    @property
    def stop_movers(self) -> list[str]:
        """Who moved the stop, once for each move."""
        return [step.by for step in self.stops[1:]]


def tell(events: Iterable[event_pb2.Event]) -> dict[TradeKey, Story]:
    """The stories of all registered trades, in order of registration. Events begin with the first of the journal."""
    teller = _Teller()
    for event in events:
        teller.add(event)
    return teller.stories


class _Teller:
    def __init__(self) -> None:
        self.stories: dict[TradeKey, Story] = {}
        self._ledger = Ledger()
        self._digits: dict[str, int] = {}

    def add(self, event: event_pb2.Event) -> None:
        ended = self._ledger.add(event)
        if event.WhichOneof("body") == "symbol_defined":
            self._digits[event.symbol_defined.spec.symbol] = event.symbol_defined.spec.digits
        if event.WhichOneof("body") == "trade_registered":
            self._registered(event)
        story = self.stories.get((event.account_id, event.ticket))
        if story is None:
            return
        match event.WhichOneof("body"):
            case "state_changed":
                self._state(story, event)
            case "outcome_recorded" if ended is not None:
                self._outcome(story, event.time_ns, ended)
            case "decision_made" if not event.decision_made.decision.granted:
                self._denied(story, event)
            case "ownership_granted":
                self._owner(story, event)
            case "action_skipped":
                self._skipped(story, event)
            case "leg_closed":
                self._closed(story, event)
            case "position_changed":
                self._external(story, event)
            case "alarm_raised":
                story.facts.append(Fact(event.time_ns, f"Alarm: {event.alarm_raised.detail}"))
            case _:
                pass

    def _registered(self, event: event_pb2.Event) -> None:
        body = event.trade_registered
        opened_ns = body.opened_ns or event.time_ns
        buy = body.side == trade_pb2.SIDE_BUY
        story = Story(
            event.account_id, event.ticket, event.symbol, self._digits[event.symbol], buy, body.entry_price, opened_ns
        )
        story.stops.append(StopStep(opened_ns, body.sl if body.HasField("sl") else None, words.ENTRY))
        story.targets.append(TargetStep(opened_ns, body.tp if body.HasField("tp") else None))
        story.states.append(StateStep(opened_ns, state_name(event.state)))
        direction = "Long" if buy else "Short"
        entry = f"{direction} {body.volume:g} lots at {story.price(body.entry_price)}"
        story.strategy_type = body.strategy_type
        story.marks.append(Mark(opened_ns, MarkKind.OPEN, body.entry_price, entry))
        as_what = f" Registered as {body.strategy_type}." if body.strategy_type else ""
        story.facts.append(Fact(opened_ns, f"{entry}; stop {story.price(story.stops[0].stop)}.{as_what}"))
        self.stories[event.account_id, event.ticket] = story

    def _state(self, story: Story, event: event_pb2.Event) -> None:
        change = event.state_changed
        cause = event_pb2.TransitionCause.Name(change.cause).removeprefix("TRANSITION_CAUSE_")
        why = words.CAUSES.get(cause, cause)
        if change.HasField("score"):
            why += f" (score {words.signed(change.score.total, 1)})"
        if getattr(change, "from") == change.to:
            story.facts.append(Fact(event.time_ns, f"The stop may follow: {why}."))
            return
        state = state_name(change.to)
        story.states.append(StateStep(event.time_ns, state))
        story.facts.append(Fact(event.time_ns, f"{words.STATES[state].label}: {why}."))

    def _outcome(self, story: Story, time_ns: int, write: Write) -> None:
        intent, outcome = write.intent, write.outcome
        who = words.manager(intent.manager).label
        if outcome is None or not write.confirmed:
            retcode = outcome.retcode if outcome else 0
            again = "; it is tried again" if write.retried else ""
            story.facts.append(Fact(time_ns, f"The broker refused {who}'s command ({retcode}){again}."))
            return
        price = outcome.price if outcome.HasField("price") else None
        if intent.kind in _DEEDS:
            story.did(intent.manager, _DEEDS[intent.kind])
        match intent.kind:
            case action_pb2.ACTION_KIND_STOP:
                self._stop(story, time_ns, outcome.sl if outcome.HasField("sl") else None, intent.manager)
            case action_pb2.ACTION_KIND_TARGET:
                target = outcome.tp if outcome.HasField("tp") else None
                story.targets.append(TargetStep(time_ns, target))
                story.facts.append(Fact(time_ns, f"{who} moved the target to {story.price(target)}."))
            case action_pb2.ACTION_KIND_PARTIAL_CLOSE:
                _deal(story, time_ns, MarkKind.PARTIAL, price, f"{who} closed {outcome.volume:g} lots")
            case action_pb2.ACTION_KIND_OPEN_HEDGE:
                _deal(story, time_ns, MarkKind.HEDGE, price, f"{who} hedged {outcome.volume:g} lots")
            case action_pb2.ACTION_KIND_RE_ADD:
                _deal(story, time_ns, MarkKind.RE_ADD, price, f"{who} took {outcome.volume:g} lots up again")
            case _:
                pass  # closes are told by the LegClosed that follows

    def _stop(self, story: Story, time_ns: int, stop: float | None, by: str) -> None:
        if story.stops[-1].stop != stop:
            story.stops.append(StopStep(time_ns, stop, by))
            story.did(by, Deed.STOP)
            story.facts.append(Fact(time_ns, f"{words.manager(by).label} moved the stop to {story.price(stop)}."))

    def _denied(self, story: Story, event: event_pb2.Event) -> None:
        decision = event.decision_made.decision
        code = action_pb2.DenialCode.Name(decision.denial).removeprefix("DENIAL_CODE_")
        story.did(decision.manager, Deed.DENIED)
        wish = words.ACTIONS.get(action_pb2.ActionKind.Name(decision.action.kind).removeprefix("ACTION_KIND_"), "act")
        why = words.DENIALS.get(code, code)
        story.facts.append(
            Fact(event.time_ns, f"{words.manager(decision.manager).label} wanted to {wish}: denied, {why}.")
        )

    def _owner(self, story: Story, event: event_pb2.Event) -> None:
        grant = event.ownership_granted
        if grant.managed_by == grant.displaced or grant.cause == ownership_pb2.GRANT_CAUSE_REGISTERED:
            return
        who, before = words.manager(grant.managed_by).label, words.manager(grant.displaced).label
        if is_takeover(grant):
            story.did(grant.managed_by, Deed.TAKEOVER)
            story.facts.append(Fact(event.time_ns, f"{who} took the trade over from {before}."))
        else:
            cause = ownership_pb2.GrantCause.Name(grant.cause).removeprefix("GRANT_CAUSE_")
            story.facts.append(Fact(event.time_ns, f"The trade is {who}'s: {words.GRANTS.get(cause, cause)}."))

    def _skipped(self, story: Story, event: event_pb2.Event) -> None:
        skipped = event.action_skipped
        kind = action_pb2.ActionKind.Name(skipped.action.kind).removeprefix("ACTION_KIND_")
        reason = action_pb2.SkipReason.Name(skipped.reason).removeprefix("SKIP_REASON_")
        what = words.ACTIONS.get(kind, kind)
        story.facts.append(Fact(event.time_ns, f"Not done: {what} ({words.SKIPS.get(reason, reason)})."))

    def _closed(self, story: Story, event: event_pb2.Event) -> None:
        closed = event.leg_closed
        leg = words.LEGS.get(event_pb2.LegKind.Name(closed.leg).removeprefix("LEG_KIND_"), "Position")
        reason = event_pb2.CloseReason.Name(closed.reason).removeprefix("CLOSE_REASON_")
        how = words.CLOSES.get(reason, "for a reason unknown")
        if closed.leg == event_pb2.LEG_KIND_MAIN:
            by = story.stops[-1].by
            if closed.reason == event_pb2.CLOSE_REASON_STOP_LOSS:
                how = "at its original stop" if by == words.ENTRY else f"at a stop set by {words.manager(by).label}"
            story.ended_ns, story.ending = event.time_ns, how
        kind = MarkKind.HEDGE_END if closed.leg == event_pb2.LEG_KIND_HEDGE else MarkKind.CLOSE
        _deal(story, event.time_ns, kind, closed.price, f"{leg} closed {how},")

    def _external(self, story: Story, event: event_pb2.Event) -> None:
        changed = event.position_changed
        if changed.leg == event_pb2.LEG_KIND_MAIN:
            self._stop(story, event.time_ns, changed.sl if changed.HasField("sl") else None, EXTERNAL)
            target = changed.tp if changed.HasField("tp") else None
            if story.targets[-1].target != target:
                story.targets.append(TargetStep(event.time_ns, target))
        story.facts.append(Fact(event.time_ns, f"Changed outside of DTMS: now {changed.volume:g} lots."))


def _deal(story: Story, time_ns: int, kind: MarkKind, price: float | None, what: str) -> None:
    if price is not None:
        what += f" at {story.price(price)}"
        story.marks.append(Mark(time_ns, kind, price, what))
    story.facts.append(Fact(time_ns, f"{what}."))
