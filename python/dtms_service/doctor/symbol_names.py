"""Names of a broker that may be meant by one that it does not have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final

SUGGESTED_MOST: Final = 5


def close_names(wanted: str, names: Sequence[str]) -> list[str]:
    """First those that are the wanted name with another prefix, suffix or case, shortest first; else similar ones."""
    plain = _letters(wanted)
    alike = [name for name in names if plain and (plain in _letters(name) or _is_core(_letters(name), plain))]
    if alike:
        return sorted(alike, key=lambda name: (len(name), name))[:SUGGESTED_MOST]
    by_upper = {name.upper(): name for name in names}
    return [by_upper[name] for name in difflib.get_close_matches(wanted.upper(), by_upper, SUGGESTED_MOST)]


def _letters(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _is_core(name: str, wanted: str) -> bool:
    """Whether the wanted name is this one with something before or behind: EURUSD of EURUSDm."""
    return len(name) >= 3 and len(wanted) - len(name) <= 4 and name in wanted
