"""Trading rules of common symbols from the shipped table, under the broker's own names."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final

from dtms_service.broker.door import SymbolSpec
from dtms_service.errors import ConfigInvalid, DtmsError, FieldViolation, Reason

_TABLE: Final = "symbols.toml"
_SPEC_FIELDS: Final = {field.name: field.type for field in fields(SymbolSpec) if field.name != "name"}
_FIELDS: Final = _SPEC_FIELDS | {"vwap_slope_threshold": "float"}
_MAY_BE_ZERO: Final = frozenset({"digits", "stops_level", "freeze_level"})
_STEP_TOLERANCE: Final = 1e-7  # of a step, as the paper broker and MT5 round


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol's trading rules and what the score needs to know of it.

    ``vwap_slope_threshold`` is the relative change of the session VWAP per bar that counts as a slope.
    """

    spec: SymbolSpec
    vwap_slope_threshold: float


@cache
def known() -> tuple[str, ...]:
    """Names in the shipped table."""
    return tuple(_table())


def normalise(name: str, suffixes: Sequence[str]) -> str:
    """The table's name of a broker's symbol: upper case, without the longest suffix that leaves a known name.

    A name that is not in the table, with or without a suffix, comes back unchanged. Suffixes match in any case.
    """
    plain = name.upper()
    if plain in _table():
        return plain
    for suffix in sorted(filter(None, suffixes), key=len, reverse=True):
        shorter = plain.removesuffix(suffix.upper())
        if shorter in _table():
            return shorter
    return name


def load(name: str, overrides: Mapping[str, Mapping[str, int | float | str]], suffixes: Sequence[str] = ()) -> Symbol:
    """Rules of the broker's symbol ``name``, which the answer keeps: the table's, with ``overrides`` laid over them.

    Overrides go by the name without suffix, then by the name as it is. A symbol outside the table needs all fields.
    DtmsError SYMBOL_UNKNOWN for a symbol nobody describes; ConfigInvalid for a field that is unknown, missing or wrong.
    """
    plain = normalise(name, suffixes)
    given = {**overrides.get(plain, {}), **overrides.get(name, {})}
    rules: dict[str, Any] = {**_table().get(plain, {}), **given}
    if not rules:
        raise DtmsError(Reason.SYMBOL_UNKNOWN, f"no rules for symbol {name}", metadata={"symbol": name})
    if violations := _violations(rules):
        raise ConfigInvalid(f"symbol {plain}", violations)
    numbers: dict[str, Any] = {field: float(rules[field]) for field, kind in _SPEC_FIELDS.items() if kind == "float"}
    others: dict[str, Any] = {field: rules[field] for field, kind in _SPEC_FIELDS.items() if kind != "float"}
    return Symbol(SymbolSpec(name=name, **numbers, **others), float(rules["vwap_slope_threshold"]))


def currencies(name: str, currency_profit: str, suffixes: Sequence[str]) -> frozenset[str]:
    """What news may move the symbol: its profit currency and, where the name ends with that, what stands before it."""
    plain = name.upper()
    for suffix in ("", *sorted(filter(None, suffixes), key=len, reverse=True)):
        shorter = plain.removesuffix(suffix.upper())
        base = shorter.removesuffix(currency_profit)
        if base and base != shorter:
            return frozenset({base, currency_profit})
    return frozenset({currency_profit})


@cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("dtms_service").joinpath(_TABLE).read_text(encoding="utf-8"))


def _violations(rules: Mapping[str, Any]) -> list[FieldViolation]:
    found = [FieldViolation(field, "is no field of a symbol") for field in rules if field not in _FIELDS]
    for field, kind in _FIELDS.items():
        value = rules.get(field)
        if value is None:
            found.append(FieldViolation(field, "is missing; a symbol outside the table needs every field"))
        elif why := _why_wrong(field, value, kind):
            found.append(FieldViolation(field, why))
    return found or _mismatches(rules)


def _why_wrong(field: str, value: object, kind: object) -> str:
    if kind == "str":
        return "" if isinstance(value, str) and value else "must be a text"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "must be a finite number"
    if kind == "int" and not isinstance(value, int):
        return "must be a whole number"
    if value < 0 or (value == 0 and field not in _MAY_BE_ZERO):
        return "must be positive" if field not in _MAY_BE_ZERO else "must not be negative"
    return ""


def _mismatches(rules: Mapping[str, Any]) -> list[FieldViolation]:
    found = []
    if Decimal(repr(float(rules["point"]))) != Decimal(1).scaleb(-rules["digits"]):
        found.append(FieldViolation("point", f"must be 10^-digits, with digits {rules['digits']}"))
    for field, unit in (("tick_size", "point"), ("volume_min", "volume_step"), ("volume_max", "volume_step")):
        steps = rules[field] / rules[unit]
        if round(steps) < 1 or abs(steps - round(steps)) > _STEP_TOLERANCE * max(1.0, steps):
            found.append(FieldViolation(field, f"must be a multiple of {unit}"))
    if rules["volume_min"] > rules["volume_max"]:
        found.append(FieldViolation("volume_min", "must not exceed volume_max"))
    return found
