"""The rules of each strategy as a table, and what is frozen of them for a trade: docs/strategies.md says why.

Rules are frozen once, by strategy, symbol and session. The manager leaves them at DTMS as its memo on the trade and
reads them there from then on: neither a restart nor another table changes a trade that is running.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from dtms_client.managing.brain import NANOS

MEMO_VERSION: Final = 1


class Trailing(StrEnum):
    """What the stop follows once breakeven has happened."""

    STRUCTURE = "structure"
    """Behind the last confirmed swing."""
    ATR = "atr"
    """So many ATR behind the price."""
    HYBRID = "hybrid"
    """Structure or ATR, the closer one."""
    MICRO_CHOCH = "micro_choch"
    """Behind the leg that changed the character of the market in the trade's favour, else ATR."""
    DISPLACEMENT = "displacement"
    """Behind the impulse candle, else structure, else ATR."""
    NONE = "none"
    """It stays at breakeven."""


class Frame(StrEnum):
    """A timeframe, by what it is in a profile."""

    MICRO = "micro"
    FAST = "fast"
    SLOW = "slow"


class Session(StrEnum):
    """Part of the trading day, UTC."""

    ASIAN = "ASIAN"
    LONDON = "LONDON"
    OVERLAP = "OVERLAP"
    NEW_YORK = "NEW_YORK"
    OFF = "OFF"


# Ends of the sessions, hours UTC: those of the score (docs/domain.md).
_SESSION_ENDS_H: Final = ((8, Session.ASIAN), (13, Session.LONDON), (16, Session.OVERLAP), (21, Session.NEW_YORK))

PROFILES: Final[Mapping[str, Mapping[Frame, int]]] = MappingProxyType(
    {
        "intraday": MappingProxyType({Frame.MICRO: 60, Frame.FAST: 300, Frame.SLOW: 900}),
        "swing": MappingProxyType({Frame.MICRO: 3_600, Frame.FAST: 3_600, Frame.SLOW: 14_400}),
    }
)
"""Lengths of the bars of each profile, s; as the service's profile of that name."""

SUFFIXES: Final = ("c", "m", ".r", ".raw", ".ecn", ".pro", "+")
"""What brokers append to names of symbols; the service's default."""

# An average bar and a half: where the table only says "else ATR".
_ELSE_ATR: Final = 1.5
# A quarter of an average bar: more than the noise at a level, less than what would make it another level.
_BUFFER: Final = 0.25


class Partial(NamedTuple):
    """A part that is closed once."""

    at_r: float
    fraction: float = 0.5
    """Of the volume at registration."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A row of the table."""

    breakeven_r: float
    trailing: Trailing
    frame: Frame | None
    cooldown_s: int
    breakeven_asian_r: float | None = None
    """Of a trade that was opened in the Asian session, where it differs."""
    atr_x: float = _ELSE_ATR
    """ATR behind the price, where the trailing uses ATR."""
    buffer_atr: float = _BUFFER
    """ATR between a level of the market and the stop behind it."""
    partial: Partial | None = None
    step_r: float = 0.1
    """The stop moves by at least so many R."""
    frames: Mapping[str, Frame] = field(default_factory=dict)
    """By group of symbols, where it differs from `frame`."""


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        # Given.
        "breakout_ib_volatility_trap": Strategy(
            breakeven_r=1.0,
            breakeven_asian_r=0.75,
            trailing=Trailing.HYBRID,
            frame=Frame.FAST,
            frames={"BTC": Frame.MICRO, "GOLD": Frame.FAST},
            partial=Partial(1.5),
            cooldown_s=20,
        ),
        "trend_continuation_pullback": Strategy(
            breakeven_r=1.0, trailing=Trailing.STRUCTURE, frame=Frame.FAST, buffer_atr=0.5, cooldown_s=45
        ),
        "liquidity_sweep_reversal": Strategy(
            breakeven_r=0.5, trailing=Trailing.MICRO_CHOCH, frame=Frame.MICRO, cooldown_s=15
        ),
        "order_block_rejection": Strategy(
            breakeven_r=1.0,
            breakeven_asian_r=0.75,
            trailing=Trailing.DISPLACEMENT,
            frame=Frame.FAST,
            cooldown_s=30,
        ),
        "mean_reversion_range_scalp": Strategy(breakeven_r=0.5, trailing=Trailing.NONE, frame=None, cooldown_s=10),
        "default_standard": Strategy(
            breakeven_r=1.0, trailing=Trailing.ATR, frame=Frame.SLOW, atr_x=2.0, cooldown_s=60
        ),
        # Our own; each has its paragraph in docs/strategies.md.
        # A block that failed after it had raided liquidity: the raid is paid for, the way is left by displacement.
        "breaker_block": Strategy(
            breakeven_r=1.0,
            breakeven_asian_r=0.75,
            trailing=Trailing.DISPLACEMENT,
            frame=Frame.FAST,
            partial=Partial(2.0),
            cooldown_s=30,
        ),
        # The first leg of a new trend: room for the retest of the shift, and no part sold early.
        "market_structure_shift": Strategy(
            breakeven_r=1.0,
            trailing=Trailing.DISPLACEMENT,
            frame=Frame.FAST,
            buffer_atr=0.5,
            cooldown_s=45,
        ),
        # A pullback into the gap of an impulse: its end is the first target, about 1.5 R away.
        "fvg_retracement": Strategy(
            breakeven_r=1.0, trailing=Trailing.STRUCTURE, frame=Frame.FAST, partial=Partial(1.5), cooldown_s=30
        ),
        # A breaker without the raid: the liquidity behind the trade is still there, so it is protected early.
        "mitigation_block": Strategy(
            breakeven_r=0.75,
            breakeven_asian_r=0.5,
            trailing=Trailing.HYBRID,
            frame=Frame.FAST,
            partial=Partial(1.5),
            cooldown_s=30,
        ),
        # The trap has sprung: the market turns at once, or the idea is wrong.
        "inducement_reversal": Strategy(
            breakeven_r=0.5,
            trailing=Trailing.MICRO_CHOCH,
            frame=Frame.MICRO,
            partial=Partial(1.5),
            cooldown_s=15,
        ),
        # Bought cheap in a wide range: the middle of it is about 1 R away, and the way there is slow.
        "premium_discount_array": Strategy(
            breakeven_r=1.0,
            trailing=Trailing.STRUCTURE,
            frame=Frame.SLOW,
            buffer_atr=0.5,
            partial=Partial(1.0),
            cooldown_s=60,
        ),
        # A run from one end of a session's range to the other: fast, and over when it is there.
        "session_liquidity_run": Strategy(
            breakeven_r=0.75,
            breakeven_asian_r=0.5,
            trailing=Trailing.HYBRID,
            frame=Frame.FAST,
            partial=Partial(1.5),
            cooldown_s=20,
        ),
        # Entered for the hour, not for a level: only the size of the moves says how far to follow.
        "kill_zone": Strategy(
            breakeven_r=0.75,
            breakeven_asian_r=0.5,
            trailing=Trailing.ATR,
            frame=Frame.FAST,
            partial=Partial(1.5),
            cooldown_s=20,
        ),
    }
)


class Override(NamedTuple):
    """What holds for a group of symbols whatever the strategy: their ATR distance, pace and step."""

    atr_x: float
    atr_frame: Frame
    cooldown_s: int
    step_r: float


OVERRIDES: Final[Mapping[str, Override]] = MappingProxyType(
    {
        "BTC": Override(atr_x=1.7, atr_frame=Frame.FAST, cooldown_s=30, step_r=0.05),
        "GOLD": Override(atr_x=1.3, atr_frame=Frame.SLOW, cooldown_s=60, step_r=0.12),
    }
)

GROUPS: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("BTC", "BTCUSD", "BTCUSDT", "BTCEUR", "XBTUSD"), "BTC")
    | dict.fromkeys(("GOLD", "XAUUSD", "XAUEUR"), "GOLD")
)
"""Group of a symbol by its plain name."""


@dataclass(frozen=True, slots=True)
class FrozenRules:
    """What holds for one trade, to its end. Distances in ATR or R, times in s."""

    strategy: str
    session: Session
    breakeven_r: float
    trailing: Trailing
    structure_s: int | None
    """Length of the bars whose swings, breaks and impulses count; None where nothing is followed."""
    atr_s: int | None
    """Length of the bars whose ATR is the distance to the price, and whose volatility counts."""
    atr_x: float
    buffer_atr: float
    partial_r: float | None
    partial_fraction: float
    cooldown_s: int
    step_r: float
    breakeven_extra: float = 0.0001
    """What breakeven adds to entry and spread, as a share of the entry price."""
    wide_above: float = 1.5
    """ATR above so many times its mean widens the trail ..."""
    wide_x: float = 1.2
    """... so many times,"""
    early_above: float = 1.2
    """and above so many times its mean the partial is taken ..."""
    early_x: float = 0.8
    """... at so much of its R."""

    def memo(self) -> str:
        """As DTMS keeps it: JSON with a version."""
        return json.dumps({"version": MEMO_VERSION, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def of(cls, memo: str) -> Self:
        """What `memo` wrote. Raises ValueError for anything else, such as the memo of a later version."""
        try:
            said = json.loads(memo)
            version = said.pop("version")
            if version != MEMO_VERSION or said.keys() != {each.name for each in fields(cls)}:
                raise ValueError(f"version {version}")
            said["session"] = Session(said["session"])
            said["trailing"] = Trailing(said["trailing"])
            return cls(**said)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the rules of version {MEMO_VERSION}: {error}") from error


def session_at(time_ns: int) -> Session:
    """The session of a moment, ns UTC."""
    hour = dt.datetime.fromtimestamp(time_ns // NANOS, tz=dt.UTC).hour
    return next((session for end_h, session in _SESSION_ENDS_H if hour < end_h), Session.OFF)


def group_of(symbol: str, suffixes: Sequence[str] = SUFFIXES) -> str | None:
    """The group of a broker's symbol, in any case and with at most one suffix; None for most symbols."""
    plain = symbol.upper()
    names = [plain, *(plain.removesuffix(suffix.upper()) for suffix in suffixes)]
    return next((GROUPS[name] for name in names if name in GROUPS), None)


def freeze(
    strategy_type: str,
    symbol: str,
    session: Session,
    profile: Mapping[Frame, int],
    *,
    suffixes: Sequence[str] = SUFFIXES,
) -> FrozenRules:
    """The rules of a trade. Raises KeyError for a strategy without rules: there is no silent default."""
    strategy = STRATEGIES[strategy_type]
    group = group_of(symbol, suffixes)
    override = OVERRIDES.get(group) if group else None
    frame = strategy.frames.get(group, strategy.frame) if group else strategy.frame
    atr_frame = override.atr_frame if override and frame else frame
    asian = session is Session.ASIAN and strategy.breakeven_asian_r is not None
    breakeven_r = strategy.breakeven_asian_r if asian else strategy.breakeven_r
    assert breakeven_r is not None
    return FrozenRules(
        strategy=strategy_type,
        session=session,
        breakeven_r=breakeven_r,
        trailing=strategy.trailing,
        structure_s=profile[frame] if frame else None,
        atr_s=profile[atr_frame] if atr_frame else None,
        atr_x=override.atr_x if override else strategy.atr_x,
        buffer_atr=strategy.buffer_atr,
        partial_r=strategy.partial.at_r if strategy.partial else None,
        partial_fraction=strategy.partial.fraction if strategy.partial else 0.0,
        cooldown_s=override.cooldown_s if override else strategy.cooldown_s,
        step_r=override.step_r if override else strategy.step_r,
    )
