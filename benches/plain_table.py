"""The state table in plain Python: what the batch evaluation of the core is measured against, and a twin to check it.

Small on purpose: states, arming, guards, timers and holds as in domain.md, in the integers of the core. What the core
does besides (plans, commands, ownership, events of its own) is left out, which is to the twin's advantage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final, NamedTuple

NS_PER_S: Final = 1_000_000_000
BUY: Final = 1
SELL: Final = 2


class State(IntEnum):
    """Numbers of the wire."""

    HEALTHY = 1
    WARNING_L1 = 2
    WARNING_L2 = 3
    HEDGED = 4
    RECOVERING = 5
    CLOSED = 6


class Guard(IntEnum):
    """What can happen to a trade, from its own side."""

    CHOCH = auto()
    CHOCH_CONFIRMED = auto()
    SCORE_WORSE = auto()
    FLIP = auto()
    FLAT_TIMER_ENDED = auto()
    RECOVERY_CONFIRMED = auto()
    RECOVERY_FAILED = auto()
    BOS = auto()
    BETTER_HELD = auto()
    HEDGE_STOPPED = auto()
    HEDGE_CLOSED_BY_HAND = auto()
    HEDGE_IMPOSSIBLE = auto()
    GONE = auto()


class Timer(IntEnum):
    FLAT = 1
    RECOVERY = 2


_BETTER: Final = frozenset({Guard.BOS, Guard.BETTER_HELD, Guard.RECOVERY_CONFIRMED})
_OPEN: Final = tuple(state for state in State if state is not State.CLOSED)

EDGES: Final[dict[tuple[State, Guard], tuple[State, Timer | None]]] = {
    (State.HEALTHY, Guard.SCORE_WORSE): (State.WARNING_L1, Timer.FLAT),
    (State.HEALTHY, Guard.BOS): (State.HEALTHY, None),
    (State.WARNING_L1, Guard.SCORE_WORSE): (State.WARNING_L2, None),
    (State.WARNING_L1, Guard.BETTER_HELD): (State.HEALTHY, None),
    (State.WARNING_L1, Guard.FLAT_TIMER_ENDED): (State.CLOSED, None),
    (State.WARNING_L2, Guard.SCORE_WORSE): (State.HEDGED, Timer.FLAT),
    (State.WARNING_L2, Guard.FLIP): (State.HEDGED, Timer.FLAT),
    (State.WARNING_L2, Guard.BETTER_HELD): (State.WARNING_L1, None),
    (State.HEDGED, Guard.BOS): (State.RECOVERING, Timer.RECOVERY),
    (State.HEDGED, Guard.HEDGE_STOPPED): (State.RECOVERING, Timer.RECOVERY),
    (State.HEDGED, Guard.HEDGE_CLOSED_BY_HAND): (State.WARNING_L2, None),
    (State.HEDGED, Guard.FLAT_TIMER_ENDED): (State.CLOSED, None),
    (State.HEDGED, Guard.CHOCH_CONFIRMED): (State.CLOSED, None),
    (State.HEDGED, Guard.HEDGE_IMPOSSIBLE): (State.CLOSED, None),
    (State.RECOVERING, Guard.SCORE_WORSE): (State.WARNING_L2, None),
    (State.RECOVERING, Guard.RECOVERY_CONFIRMED): (State.HEALTHY, None),
    (State.RECOVERING, Guard.RECOVERY_FAILED): (State.CLOSED, None),
    (State.RECOVERING, Guard.CHOCH): (State.CLOSED, None),
    **{(state, Guard.GONE): (State.CLOSED, None) for state in _OPEN},
}
"""(state, guard) -> (next state, timer started); a pair that is missing means nothing."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The numbers of the table; names and units of the configuration's engine section."""

    arm_gain_r: float
    arm_loss_r: float
    arm_after_s: int
    hold_s: int
    flat_timer_s: int
    recovery_timer_s: int
    hedge_pause_s: int
    max_hedges: int
    close_on_flat_timer_l1: bool


class View(NamedTuple):
    """A symbol's market from one side; thresholds already carry the regime's multiplier. ``total`` None: no score."""

    total: float | None
    warn1: float
    warn1_recovered: float
    warn2: float
    warn2_eased: float
    critical: float
    recovery_confirmed: float
    flip: bool = False
    bos: bool = False
    choch: bool = False
    choch_confirmed: bool = False


class Transition(NamedTuple):
    """One edge taken."""

    ticket: int
    source: State
    target: State
    guard: Guard
    time_ns: int


@dataclass(slots=True)
class PlainTrade:
    """Prices in points; ``risk`` is R in points."""

    ticket: int
    side: int
    entry: int
    risk: int
    opened_ns: int
    arm_above: int
    arm_below: int
    state: State = State.HEALTHY
    armed: bool = False
    flat_timer_ends_ns: int | None = None
    recovery_timer_ends_ns: int | None = None
    better_since_ns: int | None = None
    hedges: int = 0
    hedge_ended_ns: int | None = None


def register(ticket: int, side: int, entry: int, *, risk: int, opened_ns: int, rules: Rules) -> PlainTrade:
    """A trade with its arming levels, as closing prices."""
    gain = math.ceil(rules.arm_gain_r * risk - 1e-9)
    loss = math.ceil(-rules.arm_loss_r * risk - 1e-9)
    above, below = (gain, loss) if side == BUY else (loss, gain)
    return PlainTrade(ticket, side, entry, risk, opened_ns, entry + above, entry - below)


def evaluate_all(
    trades: Iterable[PlainTrade], views: Sequence[View], *, bid: int, ask: int, rules: Rules, now_ns: int
) -> list[Transition]:
    """What one price, score or moment means to every trade of a symbol. ``views``: for BUY, for SELL."""
    buy, sell = views
    made: list[Transition] = []
    for trade in trades:
        if trade.side == BUY:
            made.extend(evaluate(trade, buy, bid, rules, now_ns))
        else:
            made.extend(evaluate(trade, sell, ask, rules, now_ns))
    return made


def evaluate(trade: PlainTrade, view: View, exit_price: int, rules: Rules, now_ns: int) -> Iterator[Transition]:
    """Arms the trade and follows the table: worse at once and repeatedly, better one step and only by itself."""
    if not trade.armed and not _arms(trade, exit_price, rules, now_ns):
        return
    trade.armed = True
    may_improve = True
    while True:
        guard = _first(trade, view, rules, now_ns, may_improve)
        if guard is not None:
            yield enter(trade, guard, rules, now_ns)
            may_improve = False
            if guard not in _BETTER:
                continue
        elif trade.state is State.WARNING_L1 and _ended(trade.flat_timer_ends_ns, now_ns):
            trade.flat_timer_ends_ns = None
            continue
        began = _note_hold(trade, view, now_ns)
        if not (began and may_improve):
            return


def enter(trade: PlainTrade, guard: Guard, rules: Rules, now_ns: int) -> Transition:
    """Takes the edge of ``guard``. KeyError where the table has none."""
    source = trade.state
    target, timer = EDGES[source, guard]
    if target is not source:
        trade.state = target
        trade.flat_timer_ends_ns = now_ns + rules.flat_timer_s * NS_PER_S if timer is Timer.FLAT else None
        trade.recovery_timer_ends_ns = now_ns + rules.recovery_timer_s * NS_PER_S if timer is Timer.RECOVERY else None
        trade.better_since_ns = None
    return Transition(trade.ticket, source, target, guard, now_ns)


def _arms(trade: PlainTrade, exit_price: int, rules: Rules, now_ns: int) -> bool:
    return trade.state is not State.CLOSED and (
        exit_price >= trade.arm_above
        or exit_price <= trade.arm_below
        or now_ns - trade.opened_ns >= rules.arm_after_s * NS_PER_S
    )


def _first(trade: PlainTrade, view: View, rules: Rules, now_ns: int, may_improve: bool) -> Guard | None:
    state = trade.state
    if (against := _against(state, view)) is not None and (
        state is not State.WARNING_L2 or _may_hedge(trade, rules, now_ns)
    ):
        return against
    if _ended(trade.flat_timer_ends_ns, now_ns) and (state is State.HEDGED or rules.close_on_flat_timer_l1):
        return Guard.FLAT_TIMER_ENDED
    if _ended(trade.recovery_timer_ends_ns, now_ns):
        confirmed = view.total is not None and view.total >= view.recovery_confirmed
        return Guard.RECOVERY_CONFIRMED if confirmed else Guard.RECOVERY_FAILED
    if not may_improve:
        return None
    if view.bos and state in {State.HEALTHY, State.HEDGED}:
        return Guard.BOS
    held = trade.better_since_ns is not None and now_ns - trade.better_since_ns >= rules.hold_s * NS_PER_S
    return Guard.BETTER_HELD if held and _is_better(state, view) else None


def _may_hedge(trade: PlainTrade, rules: Rules, now_ns: int) -> bool:
    ended = trade.hedge_ended_ns
    return trade.hedges < rules.max_hedges and (ended is None or now_ns - ended >= rules.hedge_pause_s * NS_PER_S)


def _against(state: State, view: View) -> Guard | None:
    if state is State.HEDGED:
        return Guard.CHOCH_CONFIRMED if view.choch_confirmed else None
    if state is State.RECOVERING and view.choch:
        return Guard.CHOCH
    if _is_worse(state, view):
        return Guard.SCORE_WORSE
    return Guard.FLIP if state is State.WARNING_L2 and view.flip else None


def _is_worse(state: State, view: View) -> bool:
    if view.total is None:
        return False
    match state:
        case State.HEALTHY:
            return view.total <= view.warn1
        case State.WARNING_L1 | State.RECOVERING:
            return view.total <= view.warn2
        case State.WARNING_L2:
            return view.total <= view.critical
        case State.HEDGED | State.CLOSED:
            return False


def _is_better(state: State, view: View) -> bool:
    if view.total is None:
        return False
    match state:
        case State.WARNING_L1:
            return view.total >= view.warn1_recovered
        case State.WARNING_L2:
            return view.total >= view.warn2_eased
        case State.HEALTHY | State.HEDGED | State.RECOVERING | State.CLOSED:
            return False


def _note_hold(trade: PlainTrade, view: View, now_ns: int) -> bool:
    """Begins or ends the hold of a better score; True when it began."""
    better = _is_better(trade.state, view)
    if better == (trade.better_since_ns is not None):
        return False
    trade.better_since_ns = now_ns if better else None
    return better


def _ended(timer_ns: int | None, now_ns: int) -> bool:
    return timer_ns is not None and timer_ns <= now_ns
