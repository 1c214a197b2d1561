"""The page's vocabulary: states, managers, causes and numbers in the words of a trader."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from dtms_service.report.summary import EXTERNAL

ENTRY = "entry"  # pseudo-manager: levels that came with the order

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Term:
    """``css`` is a class of the style sheet; it exists for every term, the colours stand there."""

    css: str
    label: str
    meaning: str


STATES: dict[str, Term] = {
    "HEALTHY": Term("healthy", "Healthy", "Nothing speaks against the trade. Managers may work on it."),
    "WARNING_L1": Term("warn1", "Warning 1", "The score turned against the trade. DTMS pulls the stop closer."),
    "WARNING_L2": Term(
        "warn2", "Warning 2", "It got worse. DTMS alone acts: it closes a part, once, and moves the stop to breakeven."
    ),
    "HEDGED": Term("hedged", "Hedged", "Worse still. A smaller opposite position holds the rest."),
    "RECOVERING": Term(
        "recovering",
        "Recovering",
        "The hedge is gone. The trade has to prove itself in time.",
    ),
    "CLOSED": Term("closed", "Closed", "Over, hedge included."),
}

_MANAGERS: dict[str, Term] = {
    ENTRY: Term("by-entry", "Entry order", "The stop that the order was opened with."),
    "dtms_manager": Term("by-dtms", "DTMS", "Defence: acts when the score turns against the trade."),
    "intelligent_exit_manager": Term(
        "by-exit", "Exit manager", "Profit protection: breakeven, partial close, trailing stop."
    ),
    "universal_sl_tp_manager": Term("by-universal", "Universal manager", "Trailing by the rules of the strategy."),
    EXTERNAL: Term("by-external", "By hand", "Moved at the broker, outside of DTMS."),
}

PARTS: dict[str, Term] = {
    "structure": Term("p0", "Structure", "Breaks of swings with or against the trade, ±3"),
    "vwap_volume": Term("p1", "VWAP and volume", "Side and slope of the session VWAP, share of volume, ±2"),
    "momentum": Term("p2", "Momentum", "RSI level and slope, MACD histogram, ±2"),
    "ema_alignment": Term("p3", "Trend", "Slopes of EMA 50 and EMA 200, ±1.5"),
    "delta_pressure": Term("p4", "Tick pressure", "Signed tick volume, ±1"),
    "candle_conviction": Term("p5", "Candle", "Conviction of the last bar, ±1"),
}

DENIALS: dict[str, str] = {
    "TRADE_UNKNOWN": "no such trade",
    "TRADE_CLOSED": "the trade was already closed",
    "HALTED": "trading was halted, or a kill switch held",
    "STALE_EPOCH": "the trade had changed hands since the manager last looked",
    "DTMS_DEFENSIVE": "DTMS was defending the trade; nobody else may act",
    "OWNED_BY_OTHER": "another manager owned the trade",
    "IN_FLIGHT": "a change was already on its way to the broker",
    "COOLDOWN": "too soon after the manager's last change",
    "LOOSENS": "it would have moved the stop away from price",
    "RISK_BUDGET": "it would have risked more than the trade began with",
    "INVALID_STOP": "the level was on the wrong side of price, or too close to it",
    "FROZEN": "price was too close to a level; the broker allows no change there",
    "MIN_VOLUME": "the part, or what is left, would be below the smallest volume",
    "NO_CHANGE": "the stop stood there already",
}

CAUSES: dict[str, str] = {
    "SCORE_WORSE": "the score fell",
    "SCORE_BETTER": "a better score held long enough",
    "FLIP": "VWAP and volume both flipped against the trade",
    "BOS": "structure broke in the trade's direction",
    "CHOCH": "structure changed against the trade",
    "FLAT_TIMER": "time ran out without a turn",
    "RECOVERY_TIMER": "the recovery was not confirmed in time",
    "RECOVERY_CONFIRMED": "the recovery was confirmed",
    "HEDGE_STOPPED": "the hedge was stopped out: price turned the trade's way",
    "HEDGE_CLOSED_BY_HAND": "the hedge was closed by hand",
    "BROKER_CLOSED": "the broker closed the position",
    "HEDGE_IMPOSSIBLE": "the hedge could not be opened",
    "CLOSED_BY_MANAGER": "a manager closed it",
    "CLOSED_BY_OPERATOR": "an operator closed everything",
}

GRANTS: dict[str, str] = {
    "ACQUIRED": "asked for it",
    "DEFENSIVE": "it needs defence",
    "RETURNED": "the danger is over",
    "RELEASED": "its owner let it go",
    "EXPIRED": "its owner's lease ran out",
    "KILLED": "an operator's kill switch",
}

SKIPS: dict[str, str] = {
    "MIN_VOLUME": "below the smallest volume",
    "NO_CHANGE": "it stands there already, or better",
    "NOT_LEGAL": "the level is not legal yet",
    "SUPERSEDED": "something later took its place",
    "DENIED": "arbitration said no",
    "NO_ATR": "no ATR yet for the hedge's stop",
    "RISK_BUDGET": "over the risk budget",
    "ALREADY_DONE": "done before; once in a trade's life",
    "NO_RISK": "R is not known",
    "NOTHING_TO_DO": "nothing to act on",
    "REJECTED": "the broker refused it for good",
}

ACTIONS: dict[str, str] = {
    "STOP": "move the stop",
    "TARGET": "move the target",
    "PARTIAL_CLOSE": "close a part",
    "CLOSE": "close the trade",
    "OPEN_HEDGE": "open the hedge",
    "CLOSE_HEDGE": "close the hedge",
    "RE_ADD": "re-add volume",
    "CLOSE_RE_ADD": "close the re-added part",
    "CLOSE_STRAY": "close a position that came too late",
    "ACQUIRE": "take the trade over",
}

LEGS: dict[str, str] = {"MAIN": "Position", "HEDGE": "Hedge", "RE_ADD": "Re-added part", "STRAY": "Late position"}

CLOSES: dict[str, str] = {
    "CLIENT": "by hand",
    "DTMS": "through DTMS",
    "STOP_LOSS": "at its stop",
    "TAKE_PROFIT": "at its target",
    "STOP_OUT": "by margin stop-out",
}


def manager(name: str) -> Term:
    """A custom manager keeps its own name."""
    return _MANAGERS.get(name) or Term("by-custom", name or "Nobody", "A custom manager.")


def r(value: float) -> str:
    """Signed multiple of initial risk: ``+1.25 R``."""
    return f"{signed(value)}\u00a0R"


def signed(value: float, digits: int = 2) -> str:
    text = f"{value:+.{digits}f}"
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def tone(value: float) -> str:
    """Class for the colour of a gain or a loss; the sign is always written too."""
    return "gain" if value > 0 else "loss" if value < 0 else "even"


def moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // _NS, UTC).strftime("%d %b %Y %H:%M")


def short_moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // _NS, UTC).strftime("%d %b %H:%M")


def date(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%d %b")


def clock(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%H:%M")


def day(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // _NS, UTC).strftime("%d %b %Y")


def duration(span_ns: int) -> str:
    minutes = span_ns // (60 * _NS)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def count(number: int, noun: str) -> str:
    """``1 trade``, ``1,200 trades``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def text(value: object) -> str:
    """Anything as text inside HTML or an attribute."""
    return escape(str(value))
