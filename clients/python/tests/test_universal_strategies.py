"""The table of strategies, and what is frozen of it for a trade."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dtms_client.managing.brain import NANOS
from dtms_client.universal_manager.strategies import (
    PROFILES,
    STRATEGIES,
    FrozenRules,
    Session,
    Trailing,
    freeze,
    group_of,
    session_at,
)

INTRADAY, SWING = PROFILES["intraday"], PROFILES["swing"]
LONDON, ASIAN = Session.LONDON, Session.ASIAN

# breakeven R (Asia), trailing, bars s, ATR x, partial R, cooldown s, step R; "-" in the design is None here.
GIVEN: dict[str, tuple[float, float, Trailing, int | None, float | None, float | None, int, float]] = {
    "breakout_ib_volatility_trap": (1.0, 0.75, Trailing.HYBRID, 300, 1.5, 1.5, 20, 0.1),
    "trend_continuation_pullback": (1.0, 1.0, Trailing.STRUCTURE, 300, None, None, 45, 0.1),
    "liquidity_sweep_reversal": (0.5, 0.5, Trailing.MICRO_CHOCH, 60, None, None, 15, 0.1),
    "order_block_rejection": (1.0, 0.75, Trailing.DISPLACEMENT, 300, None, None, 30, 0.1),
    "mean_reversion_range_scalp": (0.5, 0.5, Trailing.NONE, None, None, None, 10, 0.1),
    "default_standard": (1.0, 1.0, Trailing.ATR, 900, 2.0, None, 60, 0.1),
}


def frozen(strategy: str = "default_standard", symbol: str = "EURUSD", session: Session = LONDON) -> FrozenRules:
    return freeze(strategy, symbol, session, INTRADAY)


@pytest.mark.parametrize("strategy", GIVEN)
def test_a_given_strategy_has_the_given_numbers(strategy: str) -> None:
    """The six rows of the design, column by column, for a symbol without rules of its own."""
    breakeven, asian, trailing, bars_s, atr_x, partial_r, cooldown_s, step_r = GIVEN[strategy]
    rules = frozen(strategy)
    assert (rules.breakeven_r, frozen(strategy, session=ASIAN).breakeven_r) == (breakeven, asian)
    assert (rules.trailing, rules.structure_s, rules.atr_s) == (trailing, bars_s, bars_s)
    assert (rules.partial_r, rules.cooldown_s, rules.step_r) == (partial_r, cooldown_s, step_r)
    if atr_x is not None:
        assert rules.atr_x == atr_x
    if partial_r is not None:
        assert rules.partial_fraction == 0.5


def test_the_pullback_keeps_half_an_atr_behind_the_swing() -> None:
    """The buffer of the design."""
    assert frozen("trend_continuation_pullback").buffer_atr == 0.5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_rules_that_make_sense(strategy: str) -> None:
    """Positive distances, a part that leaves something, and bars wherever something is followed."""
    rules = frozen(strategy)
    assert 0 < frozen(strategy, session=ASIAN).breakeven_r <= rules.breakeven_r <= 1
    assert (rules.structure_s is None) is (rules.atr_s is None) is (rules.trailing is Trailing.NONE)
    assert rules.atr_x > 0
    assert rules.buffer_atr > 0
    assert rules.cooldown_s > 0
    assert rules.step_r > 0
    assert rules.partial_r is None or (rules.partial_r >= rules.breakeven_r and 0 < rules.partial_fraction < 1)


def test_the_eight_others_are_no_copies_of_the_default() -> None:
    """Each of our own rows differs from the default and from all others."""
    rows = list(STRATEGIES.values())
    assert len(rows) == 14
    assert all(rows.count(row) == 1 for row in rows)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bitcoin_and_gold_have_their_own_distance_and_pace(strategy: str) -> None:
    """BTC 1.7 ATR(M5), 30 s, 0.05 R; gold 1.3 ATR(M15), 60 s, 0.12 R, whatever the strategy."""
    none = STRATEGIES[strategy].trailing is Trailing.NONE
    btc, gold = frozen(strategy, "BTCUSD"), frozen(strategy, "XAUUSD")
    assert (btc.atr_x, btc.atr_s, btc.cooldown_s, btc.step_r) == (1.7, None if none else 300, 30, 0.05)
    assert (gold.atr_x, gold.atr_s, gold.cooldown_s, gold.step_r) == (1.3, None if none else 900, 60, 0.12)


def test_a_breakout_reads_structure_on_the_bars_of_its_symbol() -> None:
    """M1 for Bitcoin, M5 for gold; the ATR of the symbol's override has bars of its own."""
    btc, gold = (frozen("breakout_ib_volatility_trap", symbol) for symbol in ("BTCUSD", "XAUUSD"))
    assert (btc.structure_s, btc.atr_s) == (60, 300)
    assert (gold.structure_s, gold.atr_s) == (300, 900)


@pytest.mark.parametrize(
    ("symbol", "group"),
    [
        ("BTCUSD", "BTC"),
        ("btcusdm", "BTC"),
        ("BTCUSDc", "BTC"),
        ("XAUUSD.raw", "GOLD"),
        ("Gold+", "GOLD"),
        ("EURUSD", None),
        ("XAUUSD.mini", None),
        ("XAUUSDcc", None),
    ],
)
def test_symbols_are_known_under_the_names_of_brokers(symbol: str, group: str | None) -> None:
    """Any case, one suffix at most; what is not known has no override."""
    assert group_of(symbol) == group


def test_suffixes_are_the_operators_choice() -> None:
    """Those that are given replace the shipped ones."""
    assert group_of("XAUUSD.mini", [".mini"]) == "GOLD"
    assert group_of("XAUUSDc", [".mini"]) is None
    assert freeze("default_standard", "XAUUSD.mini", LONDON, INTRADAY, suffixes=[".mini"]).atr_x == 1.3


def test_a_swing_service_has_longer_bars() -> None:
    """Micro and fast are H1, slow is H4."""
    sweep, slow = (freeze(name, "EURUSD", LONDON, SWING) for name in ("liquidity_sweep_reversal", "default_standard"))
    assert (sweep.structure_s, slow.atr_s) == (3_600, 14_400)
    assert freeze("order_block_rejection", "EURUSD", LONDON, SWING).structure_s == 3_600


@pytest.mark.parametrize(
    ("hour", "session"),
    [
        (0, Session.ASIAN),
        (7, Session.ASIAN),
        (8, Session.LONDON),
        (12, Session.LONDON),
        (13, Session.OVERLAP),
        (15, Session.OVERLAP),
        (16, Session.NEW_YORK),
        (20, Session.NEW_YORK),
        (21, Session.OFF),
        (23, Session.OFF),
    ],
)
def test_sessions_are_hours_of_utc(hour: int, session: Session) -> None:
    """The first and the last hour of each."""
    midnight_ns = 1_700_006_400 * NANOS
    assert session_at(midnight_ns + (hour * 3_600 + 1_799) * NANOS) == session


def test_an_unknown_strategy_does_not_fall_to_the_default() -> None:
    """It has no rules, and says so."""
    with pytest.raises(KeyError, match="moon_phase"):
        frozen("moon_phase")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("symbol", ["EURUSD", "XAUUSD"])
def test_frozen_rules_survive_as_a_memo(strategy: str, symbol: str) -> None:
    """What DTMS keeps is read back as it was written, and fits what it keeps."""
    rules = frozen(strategy, symbol)
    assert FrozenRules.of(rules.memo()) == rules
    assert len(rules.memo()) < 1_024


def test_a_memo_and_not_the_table_says_what_holds() -> None:
    """Numbers of another table, written under the same version, are taken as they are."""
    other = replace(frozen(), breakeven_r=0.9, atr_x=3.3, wide_x=1.1)
    assert FrozenRules.of(other.memo()) == other


@pytest.mark.parametrize(
    "memo",
    [
        "",
        "{",
        "[]",
        "7",
        '{"version":1}',
        json.dumps({**json.loads(frozen().memo()), "version": 2}),
        json.dumps({**json.loads(frozen().memo()), "trailing": "moon"}),
        json.dumps({**json.loads(frozen().memo()), "more": 1}),
    ],
)
def test_a_memo_of_another_kind_is_refused(memo: str) -> None:
    """Rubbish, another version, a word or a field that is not known: an error, never a guess."""
    with pytest.raises(ValueError, match="not the rules of version 1"):
        FrozenRules.of(memo)
