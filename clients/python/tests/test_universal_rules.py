"""The rules of the Universal Manager, by golden vectors. Every vector is tried for a BUY and, mirrored, for a SELL."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dtms.v1.action_pb2 import PURPOSE_BREAKEVEN, PURPOSE_TRAIL
from dtms.v1.ownership_pb2 import RANK_STRATEGY
from dtms.v1.trade_pb2 import (
    TRADE_STATE_CLOSED,
    TRADE_STATE_HEDGED,
    TRADE_STATE_RECOVERING,
    TRADE_STATE_UNSPECIFIED,
    TRADE_STATE_WARNING_L1,
    TRADE_STATE_WARNING_L2,
)
from dtms_client.managing.brain import NANOS
from dtms_client.managing.testing import BUY, NOW_NS, mirrored_quote, mirrored_stop, mirrored_trade, quote
from dtms_client.managing.views import QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop, TakePartial, Wish
from dtms_client.universal_manager.indicators import Reading
from dtms_client.universal_manager.rules import decide, deferral
from dtms_client.universal_manager.strategies import PROFILES, STRATEGIES, FrozenRules, Session, Trailing, freeze
from dtms_client.universal_manager.trailing import LEVELS, Ground

MANAGER = "universal_sl_tp_manager"
SPREAD = 0.0001

# R is 1000 points, ATR 200 points. At 1.1001 (quote of 1.12: ATR stop at 1.1170 with 1.5 ATR).
OWNED = replace(BUY, managed_by=MANAGER, owner_rank=RANK_STRATEGY, strategy_type="default_standard")
SAFE = replace(OWNED, breakeven_triggered=True, stop=1.10021)
CALM = Reading(atr=0.002, baseline=0.002)
EVERYTHING = replace(CALM, swing_low=1.109, shift_low=1.108, impulse_low=1.107)


def rules(strategy: str = "default_standard", **changes: Any) -> FrozenRules:
    return replace(freeze(strategy, "EURUSD", Session.LONDON, PROFILES["intraday"]), **changes)


def following(trailing: Trailing, **changes: Any) -> FrozenRules:
    """Rules of one kind of trailing on M5: 1.5 ATR, buffer 0.25 ATR, steps of 0.1 R."""
    given: dict[str, Any] = {"structure_s": 300, "atr_s": 300, "atr_x": 1.5, "buffer_atr": 0.25, "cooldown_s": 60}
    return rules(trailing=trailing, **(given | changes))


def breakeven(stop: float) -> MoveStop:
    return MoveStop(PURPOSE_BREAKEVEN, stop)


def trail(stop: float) -> MoveStop:
    return MoveStop(PURPOSE_TRAIL, stop)


@dataclass(frozen=True)
class Vector:
    fact: str
    trade: TradeView
    quote: QuoteView
    rules: FrozenRules
    wishes: list[Wish]
    readings: dict[int, Reading] = field(default_factory=lambda: {300: EVERYTHING})
    now_ns: int = NOW_NS


AT = quote(1.112)
WILD = replace(EVERYTHING, baseline=0.00133)
BREAKOUT = rules("breakout_ib_volatility_trap")

VECTORS = [
    # Breakeven.
    Vector("no breakeven before its R", OWNED, quote(1.10999), rules(), []),
    Vector(
        "breakeven at 1 R: entry + 10 points of spread + 11 points of 0.01 %",
        OWNED,
        quote(1.11),
        rules(),
        [breakeven(1.10021)],
    ),
    Vector("at 0.5 R where the strategy says so", OWNED, quote(1.105), rules(breakeven_r=0.5), [breakeven(1.10021)]),
    Vector("at 0.75 R and not before", OWNED, quote(1.10749), rules(breakeven_r=0.75), []),
    Vector("breakeven waits while it is inside the stops level", OWNED, quote(1.11, stops_level=980), rules(), []),
    Vector("no stop yet: breakeven sets one", replace(OWNED, stop=None), quote(1.11), rules(), [breakeven(1.10021)]),
    Vector("R unknown: everything waits", replace(OWNED, risk=None), quote(1.14), BREAKOUT, []),
    Vector(
        "R unknown after breakeven: trailing waits too", replace(SAFE, risk=None), AT, following(Trailing.HYBRID), []
    ),
    Vector(
        "a stop beyond breakeven that others have put there is no breakeven: it goes on by the least step",
        replace(OWNED, stop=1.105),
        quote(1.11),
        rules(),
        [breakeven(1.10501)],
    ),
    Vector(
        "that step is a tick of the symbol",
        replace(OWNED, stop=1.105),
        quote(1.11, tick_size=0.0001),
        rules(),
        [breakeven(1.1051)],
    ),
    Vector(
        "no trailing before breakeven, however far ahead", replace(OWNED, risk=0.1), AT, following(Trailing.HYBRID), []
    ),
    # Each kind of trailing.
    Vector(
        "structure: behind the last confirmed swing by 0.25 ATR",
        SAFE,
        AT,
        following(Trailing.STRUCTURE),
        [trail(1.1085)],
    ),
    Vector(
        "structure: by half an ATR where the strategy says so",
        SAFE,
        AT,
        following(Trailing.STRUCTURE, buffer_atr=0.5),
        [trail(1.108)],
    ),
    Vector(
        "structure: no swing, no trail",
        SAFE,
        AT,
        following(Trailing.STRUCTURE),
        [],
        {300: replace(CALM, impulse_low=1.1)},
    ),
    Vector(
        "structure: a swing that the price is beyond is none", SAFE, quote(1.109), following(Trailing.STRUCTURE), []
    ),
    Vector("structure: no ATR, no buffer, no trail", SAFE, AT, following(Trailing.STRUCTURE), [], {300: Reading()}),
    Vector("ATR: 1.5 ATR behind the price", SAFE, AT, following(Trailing.ATR), [trail(1.109)]),
    Vector("ATR: 2 ATR where the strategy says so", SAFE, AT, following(Trailing.ATR, atr_x=2.0), [trail(1.108)]),
    Vector("ATR: cold, no trail", SAFE, AT, following(Trailing.ATR), [], {300: Reading(swing_low=1.109)}),
    Vector("hybrid: ATR where it is closer", SAFE, AT, following(Trailing.HYBRID), [trail(1.109)]),
    Vector("hybrid: structure where it is closer", SAFE, quote(1.111), following(Trailing.HYBRID), [trail(1.1085)]),
    Vector("hybrid: ATR alone without a swing", SAFE, AT, following(Trailing.HYBRID), [trail(1.109)], {300: CALM}),
    Vector("CHOCH: behind the leg that turned the market", SAFE, AT, following(Trailing.MICRO_CHOCH), [trail(1.1075)]),
    Vector(
        "CHOCH: ATR without one",
        SAFE,
        AT,
        following(Trailing.MICRO_CHOCH),
        [trail(1.109)],
        {300: replace(CALM, swing_low=1.11)},
    ),
    Vector(
        "CHOCH: one against the trade is none",
        SAFE,
        AT,
        following(Trailing.MICRO_CHOCH),
        [trail(1.109)],
        {300: replace(CALM, shift_high=1.115)},
    ),
    Vector("displacement: behind the impulse", SAFE, AT, following(Trailing.DISPLACEMENT), [trail(1.1065)]),
    Vector(
        "displacement: structure without an impulse",
        SAFE,
        AT,
        following(Trailing.DISPLACEMENT),
        [trail(1.1085)],
        {300: replace(EVERYTHING, impulse_low=None)},
    ),
    Vector("displacement: ATR without either", SAFE, AT, following(Trailing.DISPLACEMENT), [trail(1.109)], {300: CALM}),
    Vector("none: the stop stays at breakeven", SAFE, quote(1.15), rules("mean_reversion_range_scalp"), []),
    Vector(
        "structure and ATR of different bars",
        SAFE,
        AT,
        following(Trailing.HYBRID, structure_s=60, atr_s=900),
        [trail(1.1088)],
        {60: replace(CALM, atr=0.0008, swing_low=1.109), 900: replace(CALM, atr=0.003, baseline=0.003)},
    ),
    # Pace.
    Vector("a step below 0.1 R is not worth a change", replace(SAFE, stop=1.10801), AT, following(Trailing.ATR), []),
    Vector("a step of 0.1 R is", replace(SAFE, stop=1.108), AT, following(Trailing.ATR), [trail(1.109)]),
    Vector("never loosens", replace(SAFE, stop=1.1105), AT, following(Trailing.ATR), []),
    Vector(
        "no stop at the broker is none: trailing sets one",
        replace(SAFE, stop=None),
        AT,
        following(Trailing.ATR),
        [trail(1.109)],
    ),
    Vector(
        "too soon after its last change",
        replace(SAFE, last_change_ns=NOW_NS),
        AT,
        following(Trailing.ATR),
        [],
        now_ns=NOW_NS + 60 * NANOS - 1,
    ),
    Vector(
        "and after the cooldown",
        replace(SAFE, last_change_ns=NOW_NS),
        AT,
        following(Trailing.ATR),
        [trail(1.109)],
        now_ns=NOW_NS + 60 * NANOS,
    ),
    Vector("the stops level is kept", SAFE, quote(1.112, stops_level=400), following(Trailing.ATR), [trail(1.108)]),
    Vector(
        "a fraction of a point is rounded away from the price",
        SAFE,
        AT,
        following(Trailing.ATR),
        [trail(1.10899)],
        {300: replace(CALM, atr=0.002003)},
    ),
    # Volatility.
    Vector(
        "ATR above 1.5 of its mean widens the distance 1.2 times",
        SAFE,
        AT,
        following(Trailing.ATR),
        [trail(1.1084)],
        {300: WILD},
    ),
    Vector("and the buffer", SAFE, AT, following(Trailing.STRUCTURE), [trail(1.1084)], {300: WILD}),
    Vector(
        "1.5 of its mean is not above it",
        SAFE,
        AT,
        following(Trailing.ATR),
        [trail(1.109)],
        {300: replace(CALM, baseline=0.002 / 1.5)},
    ),
    # Partial.
    Vector("no partial before its R", SAFE, quote(1.11499), BREAKOUT, [], {}),
    Vector("half of the volume at 1.5 R", SAFE, quote(1.115), BREAKOUT, [TakePartial(0.05)], {}),
    Vector("the stop comes before the partial", OWNED, quote(1.115), BREAKOUT, [breakeven(1.10021), TakePartial(0.05)]),
    Vector("no partial where the strategy has none", SAFE, quote(1.14), rules(), [], {}),
    Vector("the partial is taken once", replace(SAFE, partial_taken=True), quote(1.115), BREAKOUT, [], {}),
    Vector(
        "at 0.8 of its R when ATR is above 1.2 of its mean",
        replace(SAFE, stop=1.111),
        quote(1.112),
        BREAKOUT,
        [TakePartial(0.05)],
        {300: replace(CALM, baseline=0.00166)},
    ),
    Vector(
        "1.2 of its mean is not above it",
        replace(SAFE, stop=1.111),
        quote(1.112),
        BREAKOUT,
        [],
        {300: replace(CALM, baseline=0.002 / 1.2)},
    ),
    Vector("what others have closed counts", replace(SAFE, volume=0.05), quote(1.115), BREAKOUT, [], {}),
    Vector(
        "a smaller part of others is made up to half",
        replace(SAFE, volume=0.07),
        quote(1.115),
        BREAKOUT,
        [TakePartial(0.02)],
        {},
    ),
    Vector(
        "0.03 lots: 0.01 of them, down to the step",
        replace(SAFE, initial_volume=0.03, volume=0.03),
        quote(1.115),
        BREAKOUT,
        [TakePartial(0.01)],
        {},
    ),
    Vector(
        "0.01 lots cannot be divided", replace(SAFE, initial_volume=0.01, volume=0.01), quote(1.115), BREAKOUT, [], {}
    ),
    Vector("the part must reach the minimum volume", SAFE, quote(1.115, volume_min=0.06), BREAKOUT, [], {}),
]


def mirrored_reading(trade: TradeView, seen: Reading) -> Reading:
    """Bars are of bids, so the mirrored high is a spread below the mirror image of the low."""

    def flip(price: float | None) -> float | None:
        return None if price is None else round(2 * trade.entry - price - SPREAD, 8)

    return replace(
        seen,
        swing_high=flip(seen.swing_low),
        swing_low=flip(seen.swing_high),
        shift_high=flip(seen.shift_low),
        shift_low=flip(seen.shift_high),
        impulse_high=flip(seen.impulse_low),
        impulse_low=flip(seen.impulse_high),
    )


def decided(vector: Vector) -> list[Wish]:
    return decide(vector.trade, vector.quote, vector.rules, vector.readings, manager=MANAGER, now_ns=vector.now_ns)


IDS = [vector.fact for vector in VECTORS]


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_golden_vector_for_a_buy(vector: Vector) -> None:
    """The id of the case is the fact."""
    assert decided(vector) == vector.wishes


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_golden_vector_for_a_sell(vector: Vector) -> None:
    """A SELL in the mirrored market gets the mirrored answer."""
    trade = vector.trade
    seen = replace(
        vector,
        trade=mirrored_trade(trade),
        quote=mirrored_quote(trade, vector.quote),
        readings={length: mirrored_reading(trade, reading) for length, reading in vector.readings.items()},
    )
    assert decided(seen) == [
        mirrored_stop(trade, wish) if isinstance(wish, MoveStop) else wish for wish in vector.wishes
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"state": TRADE_STATE_WARNING_L2},
        {"state": TRADE_STATE_HEDGED},
        {"state": TRADE_STATE_CLOSED},
        {"state": TRADE_STATE_UNSPECIFIED},
        {"quarantined": True},
        {"pending": True},
        {"managed_by": "dtms_manager"},
        {"managed_by": ""},
        {"managed_by": "another_strategy"},
    ],
    ids=str,
)
def test_hands_off(changes: dict[str, Any]) -> None:
    """In defence, quarantine, with DTMS at work, or while somebody else owns the trade nothing is proposed."""
    for trade in (replace(OWNED, **changes), replace(SAFE, **changes)):
        assert deferral(trade, manager=MANAGER) is not None
        assert decided(Vector("", trade, quote(1.12), BREAKOUT, [])) == []


@pytest.mark.parametrize("state", [TRADE_STATE_WARNING_L1, TRADE_STATE_RECOVERING])
def test_may_act(state: Any) -> None:
    """In the first warning and in recovery it works on."""
    assert decided(Vector("", replace(OWNED, state=state), quote(1.11), rules(), [])) == [breakeven(1.10021)]


@pytest.mark.parametrize(
    "changes", [{"bid": math.nan}, {"bid": 0.0}, {"ask": math.inf}, {"bid": 1.2, "ask": 1.1}, {"point": 0.0}], ids=str
)
def test_nothing_is_decided_on_rubbish(changes: dict[str, Any]) -> None:
    """A price that nobody can trade at moves nothing."""
    assert decided(Vector("", OWNED, replace(quote(1.12), **changes), BREAKOUT, [])) == []


def test_every_kind_of_trailing_has_its_rule() -> None:
    """No kind is forgotten, and on nothing none of them invents a stop."""
    assert LEVELS.keys() == set(Trailing)
    assert all(level(Ground()) is None for level in LEVELS.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_strategy_ever_loosens_or_touches_the_target(strategy: str) -> None:
    """Over many prices and stops each wish is a better stop or a smaller volume, legal at the broker."""
    held = rules(strategy)
    readings = dict.fromkeys((60, 300, 900), EVERYTHING)
    for points in range(-900, 3_000, 130):
        for stop in (None, 1.09, 1.10021, 1.106, 1.1095):
            for safe in (False, True):
                seen = quote(round(1.1 + points / 1e5, 5))
                trade = replace(OWNED, stop=stop, breakeven_triggered=safe)
                for wish in decide(trade, seen, held, readings, manager=MANAGER, now_ns=NOW_NS):
                    if isinstance(wish, MoveStop):
                        assert not wish.allow_loosen
                        assert wish.stop < seen.bid
                        assert stop is None or wish.stop > stop
                    else:
                        assert isinstance(wish, TakePartial)
                        assert 0 < wish.volume < trade.volume
