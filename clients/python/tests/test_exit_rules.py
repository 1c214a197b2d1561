"""The rules of the exit manager, by golden vectors. Every vector is tried for a BUY and, mirrored, for a SELL."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtms.v1.action_pb2 import (
    ACTION_KIND_PARTIAL_CLOSE,
    ACTION_KIND_STOP,
    PURPOSE_BREAKEVEN,
    PURPOSE_PARTIAL,
    PURPOSE_TRAIL,
    PURPOSE_WIDEN,
    Action,
    PlannedAction,
)
from dtms.v1.market_data_service_pb2 import Quote
from dtms.v1.ownership_pb2 import RANK_DTMS_NORMAL, RANK_PROFIT_PROTECTION, RANK_STRATEGY
from dtms.v1.trade_pb2 import (
    SIDE_SELL,
    STATE_PHASE_CONFIRMED,
    STATE_PHASE_PENDING,
    TRADE_STATE_CLOSED,
    TRADE_STATE_HEALTHY,
    TRADE_STATE_HEDGED,
    TRADE_STATE_RECOVERING,
    TRADE_STATE_UNSPECIFIED,
    TRADE_STATE_WARNING_L1,
    TRADE_STATE_WARNING_L2,
    ConfirmedLevels,
    ManagerRecord,
    Trade,
)
from dtms_client.exit_manager.rules import ExitRules, decide, decide_alone, deferral
from dtms_client.managing.testing import BUY, mirrored_quote, mirrored_stop, mirrored_trade, quote
from dtms_client.managing.views import QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop, TakePartial, Wish

RULES = ExitRules()

SAFE = replace(BUY, breakeven_triggered=True, stop=1.10021)


NARROW = replace(BUY, stop=1.099, target=None)
AFFORDED = replace(NARROW, risk_budget_r=1.2)
OWN = replace(NARROW, stop_rank=RANK_PROFIT_PROTECTION)


def breakeven(stop: float) -> MoveStop:
    return MoveStop(PURPOSE_BREAKEVEN, stop)


def trail(stop: float) -> MoveStop:
    return MoveStop(PURPOSE_TRAIL, stop)


def widen(stop: float) -> MoveStop:
    return MoveStop(PURPOSE_WIDEN, stop, allow_loosen=True)


@dataclass(frozen=True)
class Vector:
    fact: str
    trade: TradeView
    quote: QuoteView
    wishes: list[Wish]
    vix: float | None = None
    rules: ExitRules = RULES


VECTORS = [
    Vector("nothing before 0.2 R", BUY, quote(1.10199), []),
    Vector(
        "breakeven at 0.2 R: entry + 10 points of spread + 11 points of 0.01 %", BUY, quote(1.102), [breakeven(1.10021)]
    ),
    Vector("a wider spread moves breakeven", BUY, quote(1.102, ask=1.1025), [breakeven(1.10061)]),
    Vector(
        "a level between two points is rounded away from the price",
        replace(BUY, entry=1.10005),
        quote(1.1022),
        [breakeven(1.10026)],
    ),
    Vector("breakeven waits while it is inside the stops level", BUY, quote(1.102, stops_level=180), []),
    Vector("breakeven is legal at the stops level", BUY, quote(1.102, stops_level=179), [breakeven(1.10021)]),
    Vector("a stop at the price is none", replace(BUY, risk=0.001), quote(1.10021), []),
    Vector("no stop yet: breakeven sets one", replace(BUY, stop=None), quote(1.102), [breakeven(1.10021)]),
    Vector("R unknown: the rules in R wait", replace(BUY, risk=None, target=None), quote(1.12), []),
    Vector("a stop at breakeven already, whoever put it there", replace(BUY, stop=1.10021), quote(1.102, atr=None), []),
    Vector(
        "a stop one point short of breakeven is moved", replace(BUY, stop=1.1002), quote(1.102), [breakeven(1.10021)]
    ),
    Vector("no partial before half of the way", SAFE, quote(1.11499, atr=None), []),
    Vector("half of the volume at half of the way", SAFE, quote(1.115, atr=None), [TakePartial(0.05)]),
    Vector("the stop comes before the partial", BUY, quote(1.115), [breakeven(1.10021), TakePartial(0.05)]),
    Vector("the partial is taken once", replace(SAFE, partial_taken=True), quote(1.115, atr=None), []),
    Vector("no target, no partial", replace(SAFE, target=None), quote(1.115, atr=None), []),
    Vector(
        "0.03 lots: 0.01 of them, down to the step",
        replace(SAFE, volume=0.03),
        quote(1.115, atr=None),
        [TakePartial(0.01)],
    ),
    Vector("0.01 lots cannot be divided", replace(SAFE, volume=0.01), quote(1.115, atr=None), []),
    Vector("the part must reach the minimum volume", SAFE, quote(1.115, atr=None, volume_min=0.06), []),
    Vector(
        "coarse steps",
        replace(SAFE, volume=3.0),
        quote(1.115, atr=None, volume_step=1.0, volume_min=1.0),
        [TakePartial(1.0)],
    ),
    Vector("trails 1.5 ATR behind the price", SAFE, quote(1.105), [trail(1.102)]),
    Vector("a step below 0.05 R is not worth a change", SAFE, quote(1.1037, atr=0.002), []),
    Vector("a step of 0.05 R is", SAFE, quote(1.10371, atr=0.002), [trail(1.10071)]),
    Vector("never loosens", replace(SAFE, stop=1.103), quote(1.105), []),
    Vector("keeps the stops level while trailing", SAFE, quote(1.105, stops_level=350), [trail(1.1015)]),
    Vector("no trailing before breakeven", replace(BUY, risk=0.1), quote(1.105), []),
    Vector("no trailing without ATR", SAFE, quote(1.105, atr=None), []),
    Vector("stops are multiples of the tick size", SAFE, quote(1.10503, tick_size=0.0001), [trail(1.1020)]),
    Vector("VIX at 18 widens nothing", NARROW, quote(1.1), [], vix=18.0),
    Vector(
        "VIX above 18: 1.5 ATR below entry, and 1 % more for each tenth", NARROW, quote(1.1), [widen(1.0964)], vix=20.0
    ),
    Vector("VIX at 28 doubles the room", NARROW, quote(1.1), [widen(1.094)], vix=28.0),
    Vector("and never more than doubles it", NARROW, quote(1.1), [widen(1.094)], vix=80.0),
    Vector("VIX unknown widens nothing", NARROW, quote(1.1), [], vix=None),
    Vector("ATR unknown widens nothing", NARROW, quote(1.1, atr=None), [], vix=40.0),
    Vector("never nearer: a stop that is further away stays", BUY, quote(1.1), [], vix=28.0),
    Vector("a step below 0.05 R is no reason to widen", replace(NARROW, stop=1.09449), quote(1.1), [], vix=28.0),
    Vector("a step of 0.05 R is", replace(NARROW, stop=1.0945), quote(1.1), [widen(1.094)], vix=28.0),
    Vector("the risk budget ends the room", NARROW, quote(1.1, atr=0.005), [widen(1.09)], vix=28.0),
    Vector(
        "an operator's larger budget",
        replace(NARROW, risk_budget_r=1.2),
        quote(1.1, atr=0.005),
        [widen(1.088)],
        vix=28.0,
    ),
    Vector(
        "half of the volume may lose twice as far",
        replace(NARROW, volume=0.05),
        quote(1.1, atr=0.005),
        [widen(1.085)],
        vix=28.0,
    ),
    Vector("at the end of the budget nothing is asked", BUY, quote(1.1, atr=0.005), [], vix=28.0),
    Vector("no stop is given room: DTMS invents none", replace(NARROW, stop=None), quote(1.1), [], vix=28.0),
    Vector("without R there is no budget", replace(NARROW, risk=None), quote(1.1), [], vix=28.0),
    Vector("breakeven comes before room", replace(NARROW, risk=0.005), quote(1.102), [breakeven(1.10021)], vix=28.0),
    Vector("after breakeven no room is given", replace(SAFE, stop=1.1037), quote(1.105), [], vix=28.0),
    Vector("a stop of DTMS stays", replace(NARROW, stop_rank=RANK_DTMS_NORMAL), quote(1.1), [], vix=28.0),
    Vector("a stop of the strategy stays", replace(NARROW, stop_rank=RANK_STRATEGY), quote(1.1), [], vix=28.0),
    Vector(
        "its own may be given room",
        replace(NARROW, stop_rank=RANK_PROFIT_PROTECTION),
        quote(1.1),
        [widen(1.094)],
        vix=28.0,
    ),
    Vector("a warned trade gets no room", replace(NARROW, state=TRADE_STATE_WARNING_L1), quote(1.1), [], vix=28.0),
    Vector("nor one that recovers", replace(NARROW, state=TRADE_STATE_RECOVERING), quote(1.1), [], vix=28.0),
    Vector(
        "the room is rounded away from the price",
        NARROW,
        quote(1.1, atr=0.002003, tick_size=0.0001),
        [widen(1.0939)],
        vix=28.0,
    ),
    Vector(
        "the budget is rounded towards it",
        replace(NARROW, risk=0.00995),
        quote(1.1, atr=0.005, tick_size=0.0001),
        [widen(1.0901)],
        vix=28.0,
    ),
    Vector(
        "rules of a trade's own",
        NARROW,
        quote(1.1),
        [widen(1.0955)],
        vix=27.5,
        rules=replace(RULES, vix_above=25.0, vix_span=5.0, widen_atr=1.5, widen_most=3.0),
    ),
    Vector("a narrower trail of its own", SAFE, quote(1.105), [trail(1.1038)], rules=replace(RULES, trail_atr=0.6)),
    Vector(
        "a smaller part of its own",
        SAFE,
        quote(1.112, atr=None),
        [TakePartial(0.02)],
        rules=replace(RULES, partial_at=0.4, partial_fraction=0.25),
    ),
    Vector(
        "a later breakeven of its own", BUY, quote(1.1049), [], rules=replace(RULES, breakeven_at_r=0.5, partial_at=0.9)
    ),
    Vector("a fraction of a point is rounded away from the price", SAFE, quote(1.105, atr=0.002003), [trail(1.10199)]),
]


def mirrored(vector: Vector) -> Vector:
    """The same for a SELL."""
    wishes: list[Wish] = [
        mirrored_stop(vector.trade, wish) if isinstance(wish, MoveStop) else wish for wish in vector.wishes
    ]
    return replace(
        vector, trade=mirrored_trade(vector.trade), quote=mirrored_quote(vector.trade, vector.quote), wishes=wishes
    )


@pytest.mark.parametrize("vector", VECTORS, ids=[vector.fact for vector in VECTORS])
def test_golden_vector_for_a_buy(vector: Vector) -> None:
    """The id of the case is the fact."""
    assert decide(vector.trade, vector.quote, vector.rules, vix=vector.vix) == vector.wishes


@pytest.mark.parametrize("vector", VECTORS, ids=[vector.fact for vector in VECTORS])
def test_golden_vector_for_a_sell(vector: Vector) -> None:
    """A SELL in the mirrored market gets the mirrored answer."""
    seen = mirrored(vector)
    assert decide(seen.trade, seen.quote, vector.rules, vix=vector.vix) == seen.wishes


@pytest.mark.parametrize(
    "changes",
    [
        {"state": TRADE_STATE_WARNING_L2},
        {"state": TRADE_STATE_HEDGED},
        {"state": TRADE_STATE_CLOSED},
        {"state": TRADE_STATE_UNSPECIFIED},
        {"quarantined": True},
        {"pending": True},
        {"owner_rank": RANK_STRATEGY, "breakeven_triggered": True},
    ],
    ids=str,
)
def test_hands_off(changes: dict[str, Any]) -> None:
    """In defence, quarantine, with DTMS at work, or after breakeven of a strategy's trade nothing is proposed."""
    trade = replace(BUY, **changes)
    assert deferral(trade) is not None
    assert decide(trade, quote(1.12), RULES, vix=None) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"state": TRADE_STATE_WARNING_L1},
        {"state": TRADE_STATE_RECOVERING},
        {"owner_rank": RANK_STRATEGY},
        {"owner_rank": RANK_PROFIT_PROTECTION},
    ],
    ids=str,
)
def test_may_act(changes: dict[str, Any]) -> None:
    """In the first warning, in recovery, and on a strategy's trade before breakeven it works on."""
    assert decide(replace(BUY, **changes), quote(1.102), RULES, vix=None) == [breakeven(1.10021)]


@pytest.mark.parametrize(
    "changes",
    [
        {"bid": math.nan},
        {"bid": 0.0},
        {"ask": math.inf},
        {"bid": 1.2, "ask": 1.1},
        {"point": 0.0},
        {"volume_step": 0.0},
    ],
    ids=str,
)
def test_nothing_is_decided_on_rubbish(changes: dict[str, Any]) -> None:
    """A price that nobody can trade at moves nothing."""
    assert decide(BUY, replace(quote(1.12), **changes), RULES, vix=None) == []


def test_wishes_speak_the_language_of_the_wire() -> None:
    """A stop is sent with its purpose and price, a partial with its volume, and nothing else."""
    assert breakeven(1.1).action() == Action(kind=ACTION_KIND_STOP, purpose=PURPOSE_BREAKEVEN, stop=1.1)
    assert TakePartial(0.05).action() == Action(kind=ACTION_KIND_PARTIAL_CLOSE, purpose=PURPOSE_PARTIAL, volume=0.05)


def test_a_trade_is_seen_as_the_broker_confirmed_it() -> None:
    """Confirmed levels count, not those of the registration; partials of other managers are not mine."""
    trade = Trade(
        ticket=7,
        side=SIDE_SELL,
        initial_sl=1.2,
        initial_tp=1.0,
        confirmed=ConfirmedLevels(sl=1.15),
        state=TRADE_STATE_HEALTHY,
        phase=STATE_PHASE_CONFIRMED,
        managers=[ManagerRecord(manager="other", partial_taken=True), ManagerRecord(manager="mine")],
    )
    view = TradeView.of(trade, manager="mine")
    assert (view.sign, view.stop, view.target, view.risk) == (-1, 1.15, None, None)
    assert not view.pending
    assert not view.partial_taken
    assert TradeView.of(trade, manager="other").partial_taken
    trade.ClearField("confirmed")
    assert TradeView.of(trade, manager="mine").stop == 1.2


def test_unsettled_actions_of_dtms_are_seen() -> None:
    """A pending phase or a planned action means that DTMS is at work."""
    assert TradeView.of(Trade(phase=STATE_PHASE_PENDING), manager="m").pending
    assert TradeView.of(Trade(phase=STATE_PHASE_CONFIRMED, pending_actions=[PlannedAction()]), manager="m").pending


def test_a_cold_quote_has_no_atr() -> None:
    """An absent ATR is None, never 0."""
    assert QuoteView.of(Quote(bid=1.0, ask=1.0)).atr is None
    assert QuoteView.of(Quote(atr_slow=0.5)).atr == 0.5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("breakeven_at_r", 0),
        ("trail_atr", -1),
        ("partial_fraction", 1),
        ("partial_at", math.nan),
        ("trail_step_r", True),
        ("vix_span", 0),
        ("vix_above", -1),
        ("widen_most", 0.9),
    ],
)
def test_a_rule_that_makes_no_sense_is_named(key: str, value: float) -> None:
    """Each number has its range, and the error names it."""
    with pytest.raises(ValueError, match=key):
        replace(RULES, **{key: value})


def test_alone_it_protects_and_takes_its_part_and_nothing_else() -> None:
    """Past DTMS breakeven comes first, then the partial; trailing and room never, in no market."""
    assert decide_alone(BUY, quote(1.115), RULES) == breakeven(1.10021)
    assert decide_alone(SAFE, quote(1.115), RULES) == TakePartial(0.05)
    assert decide_alone(replace(SAFE, partial_taken=True), quote(1.115), RULES) is None
    assert decide_alone(SAFE, quote(1.112), RULES) is None
    assert decide_alone(NARROW, quote(1.1), RULES) is None
    for state in (TRADE_STATE_WARNING_L2, TRADE_STATE_HEDGED, TRADE_STATE_CLOSED):
        assert decide_alone(replace(BUY, state=state), quote(1.115), RULES) is None


def test_a_part_that_is_gone_already_counts_as_taken() -> None:
    """Closed by hand or past DTMS: whoever it was, a second part is not taken; a part of DTMS is another matter."""
    assert decide(replace(SAFE, volume=0.05, part_off_outside=True), quote(1.115, atr=None), RULES, vix=None) == []
    trade = Trade(initial_volume=0.1, volume=0.05)
    assert TradeView.of(trade, manager="m").part_off_outside
    assert not TradeView.of(Trade(initial_volume=0.1, volume=0.1), manager="m").part_off_outside
    trade.partial_taken = True
    assert not TradeView.of(trade, manager="m").part_off_outside
    trade = Trade(initial_volume=0.1, volume=0.05, managers=[ManagerRecord(manager="other", partial_taken=True)])
    assert not TradeView.of(trade, manager="m").part_off_outside


levels = st.integers(-3000, 3000).map(lambda count: count / 1e5)


@given(
    gain=levels,
    spread=st.integers(0, 60),
    stop=st.none() | st.integers(1, 3000),
    target=st.none() | st.integers(1, 5000),
    risk=st.none() | st.integers(1, 3000),
    atr=st.none() | st.integers(1, 900),
    grid=st.sampled_from([1, 5, 10]),
    stops_level=st.integers(0, 200),
    volume=st.sampled_from([0.01, 0.05, 0.1]),
    triggered=st.booleans(),
    vix=st.none() | st.floats(10, 90),
)
def test_a_sell_in_the_mirrored_market_gets_the_mirrored_answer(
    *,
    gain: float,
    spread: int,
    stop: int | None,
    target: int | None,
    risk: int | None,
    atr: int | None,
    grid: int,
    stops_level: int,
    volume: float,
    triggered: bool,
    vix: float | None,
) -> None:
    """Whatever the trade, the market and VIX are; and what is asked never breaks the rule that it comes from."""
    trade = replace(
        BUY,
        stop=None if stop is None else round(1.1 - stop / 1e5, 5),
        target=None if target is None else round(1.1 + target / 1e5, 5),
        risk=None if risk is None else risk / 1e5,
        volume=volume,
        breakeven_triggered=triggered,
    )
    bid = round(1.1 + gain, 5)
    seen = quote(
        bid,
        ask=round(bid + spread / 1e5, 5),
        atr=None if atr is None else atr / 1e5,
        tick_size=grid / 1e5,
        stops_level=stops_level,
    )
    wishes = decide(trade, seen, RULES, vix=vix)
    other = decide(mirrored_trade(trade), mirrored_quote(trade, seen), RULES, vix=vix)
    assert other == [mirrored_stop(trade, wish) if isinstance(wish, MoveStop) else wish for wish in wishes]
    for wish in wishes:
        if isinstance(wish, MoveStop) and trade.stop is not None:
            assert (wish.stop < trade.stop) is wish.allow_loosen
        if isinstance(wish, MoveStop) and wish.allow_loosen:
            assert trade.risk is not None
            assert (1.1 - wish.stop) * volume <= trade.risk * 0.1 * (1 + 1e-9)
