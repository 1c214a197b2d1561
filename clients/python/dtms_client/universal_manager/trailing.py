"""Where each kind of trailing wants the stop. Pure; in points, from the side of the trade (see `managing.seen`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Self

from dtms_client.managing.seen import Seen
from dtms_client.universal_manager.indicators import Reading
from dtms_client.universal_manager.strategies import FrozenRules, Trailing


@dataclass(frozen=True, slots=True)
class Ground:
    """What a stop can stand on. Levels have their buffer already; None: there is none, or the price is beyond it."""

    swing: float | None = None
    """Behind the last confirmed swing against the trade."""
    shift: float | None = None
    """Behind the leg that changed the character of the market in the trade's favour."""
    impulse: float | None = None
    """Behind the impulse candle in the trade's favour."""
    atr: float | None = None
    """So many ATR behind the price."""

    @classmethod
    def of(cls, seen: Seen, sign: int, rules: FrozenRules, structure: Reading, distance: Reading) -> Self:
        """From the readings of the bars of `rules.structure_s` and `rules.atr_s`."""
        wide = widening(rules, distance)
        buffer = None if structure.atr is None else rules.buffer_atr * wide * seen.span(structure.atr)

        def behind(low: float | None, high: float | None) -> float | None:
            bid = low if sign > 0 else high
            if bid is None or buffer is None:
                return None
            # Bars are of bids, but the stop of a SELL is hit by the ask.
            level = seen.level(bid) - (0 if sign > 0 else seen.spread)
            return level - buffer if level < seen.exit else None

        return cls(
            swing=behind(structure.swing_low, structure.swing_high),
            shift=behind(structure.shift_low, structure.shift_high),
            impulse=behind(structure.impulse_low, structure.impulse_high),
            atr=None if distance.atr is None else seen.exit - rules.atr_x * wide * seen.span(distance.atr),
        )


def volatility(reading: Reading) -> float | None:
    """ATR against its mean; None while that is not known."""
    if reading.atr is None or not reading.baseline:
        return None
    return reading.atr / reading.baseline


def widening(rules: FrozenRules, reading: Reading) -> float:
    """How much wider than usual the trail is."""
    now = volatility(reading)
    return rules.wide_x if now is not None and now > rules.wide_above else 1.0


def structure(ground: Ground) -> float | None:
    """Behind the last confirmed swing, nothing else."""
    return ground.swing


def atr(ground: Ground) -> float | None:
    """So many ATR behind the price."""
    return ground.atr


def hybrid(ground: Ground) -> float | None:
    """Structure or ATR, the closer one to the price."""
    return max((level for level in (ground.swing, ground.atr) if level is not None), default=None)


def micro_choch(ground: Ground) -> float | None:
    """Behind the change of character, else ATR."""
    return _first(ground.shift, ground.atr)


def displacement(ground: Ground) -> float | None:
    """Behind the impulse, else structure, else ATR."""
    return _first(ground.impulse, ground.swing, ground.atr)


def none(_ground: Ground) -> None:
    """It stays where it is."""


def _first(*levels: float | None) -> float | None:
    return next((level for level in levels if level is not None), None)


LEVELS: Final[Mapping[Trailing, Callable[[Ground], float | None]]] = MappingProxyType(
    {
        Trailing.STRUCTURE: structure,
        Trailing.ATR: atr,
        Trailing.HYBRID: hybrid,
        Trailing.MICRO_CHOCH: micro_choch,
        Trailing.DISPLACEMENT: displacement,
        Trailing.NONE: none,
    }
)
"""Each kind and its rule."""
