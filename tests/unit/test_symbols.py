"""The shipped table of symbols and what a broker may have different."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dtms_service import symbols
from dtms_service.errors import ConfigInvalid, DtmsError, Reason

WHOLE: dict[str, Any] = {
    "digits": 4,
    "point": 0.0001,
    "tick_size": 0.0001,
    "contract_size": 1000.0,
    "volume_min": 0.1,
    "volume_max": 10.0,
    "volume_step": 0.1,
    "stops_level": 10,
    "freeze_level": 5,
    "currency_profit": "EUR",
    "vwap_slope_threshold": 0.001,
}


@pytest.mark.parametrize("name", symbols.known())
def test_every_shipped_symbol_is_consistent(name: str) -> None:
    """point is 10^-digits, volumes lie on the step, the profit currency is the quote currency of a pair."""
    spec = symbols.load(name, {}).spec
    assert math.isclose(spec.point, 10**-spec.digits)
    assert math.isclose(spec.volume_min % spec.volume_step, 0, abs_tol=1e-12)
    assert name.endswith(spec.currency_profit) or name in {"US30", "NAS100"}


def test_fifteen_common_symbols_are_shipped() -> None:
    """The table covers the pairs, metals, coins and indices that the issue names."""
    assert len(symbols.known()) == 15


@pytest.mark.parametrize(
    ("name", "threshold"),
    [("XAUUSD", 0.001), ("BTCUSD", 0.002), ("EURUSD", 0.0005), ("GBPUSD", 0.0005), ("GBPJPY", 0.0007), ("US30", 0.001)],
)
def test_slope_thresholds_are_those_of_the_domain(name: str, threshold: float) -> None:
    """docs: XAUUSD 0.001, BTC 0.002, EURUSD and GBPUSD 0.0005, JPY pairs 0.0007, else 0.001."""
    assert symbols.load(name, {}).vwap_slope_threshold == threshold


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("EURUSD", "EURUSD"),
        ("EURUSDc", "EURUSD"),
        ("XAUUSD.r", "XAUUSD"),
        ("btcusdM", "BTCUSD"),
        ("EURUSD.raw", "EURUSD"),
        ("DAX40c", "DAX40c"),
        ("EURUSDx", "EURUSDx"),
        ("", ""),
    ],
)
def test_names_are_normalised(name: str, plain: str) -> None:
    """The longest configured suffix that leaves a known name is taken off, in any case; the rest stays."""
    assert symbols.normalise(name, ["c", "m", ".r", "r", ".raw"]) == plain


def test_the_answer_keeps_the_brokers_name() -> None:
    """Orders go out under the broker's own name, with the rules of the plain one."""
    symbol = symbols.load("XAUUSDm", {}, ["m"])
    assert (symbol.spec.name, symbol.spec.contract_size) == ("XAUUSDm", 100.0)


def test_overrides_lie_over_the_table() -> None:
    """The plain name's override holds for every suffix, the full name's over that."""
    overrides = {"XAUUSD": {"stops_level": 50, "freeze_level": 7}, "XAUUSDm": {"stops_level": 60}}
    spec = symbols.load("XAUUSDm", overrides, ["m"]).spec
    assert (spec.stops_level, spec.freeze_level, spec.digits) == (60, 7, 3)


def test_a_symbol_outside_the_table_needs_every_field() -> None:
    """A full description makes any symbol known; a partial one names what is missing."""
    assert symbols.load("DAX40", {"DAX40": WHOLE}).spec.currency_profit == "EUR"
    with pytest.raises(ConfigInvalid) as caught:
        symbols.load("DAX40", {"DAX40": {"digits": 1}})
    assert {violation.field for violation in caught.value.violations} == set(WHOLE) - {"digits"}


def test_an_unknown_symbol_is_refused() -> None:
    """No rules are guessed: SYMBOL_UNKNOWN names the symbol."""
    with pytest.raises(DtmsError) as caught:
        symbols.load("NOSUCH", {})
    assert (caught.value.reason, caught.value.metadata) == (Reason.SYMBOL_UNKNOWN, {"symbol": "NOSUCH"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("point", 0.001),
        ("point", 0.0),
        ("digits", 4.5),
        ("contract_size", -1.0),
        ("contract_size", math.nan),
        ("volume_min", 0.15),
        ("volume_min", 20.0),
        ("volume_step", 0.3),
        ("tick_size", 0.00015),
        ("stops_level", -1),
        ("currency_profit", ""),
        ("colour", 1),
    ],
)
def test_rules_that_cannot_be_are_refused(field: str, value: object) -> None:
    """A wrong field is named; nothing is rounded into shape."""
    with pytest.raises(ConfigInvalid) as caught:
        symbols.load("DAX40", {"DAX40": WHOLE | {field: value}})
    assert caught.value.violations
