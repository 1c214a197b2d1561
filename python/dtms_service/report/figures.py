"""Figures of the page that are no part of `summary.json`: what protection saved and cost, drawdowns, who is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dtms_service.report.inputs import Comparison, TradeResult, compare
from dtms_service.report.story import Story
from dtms_service.report.summary import total

EVEN_R = 0.005  # below it two results print alike


@dataclass(frozen=True, slots=True)
class Curve:
    """One way of running the same trades. All in R; ``drawdown`` is the deepest fall of the sum from a high, >= 0."""

    total: float
    drawdown: float
    worst: float
    best: float
    winners: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What protection did, trade by trade. ``saved`` and ``cost`` are sums of R, both >= 0."""

    helped: int
    saved: float
    hurt: int
    cost: float
    unchanged: int


def curve(rs: Sequence[float]) -> Curve:
    """``rs`` in order of closing, at least one."""
    high = deepest = running = 0.0
    for r in rs:
        running += r
        high = max(high, running)
        deepest = max(deepest, high - running)
    return Curve(total(rs), deepest, min(rs), max(rs), sum(r > 0 for r in rs))


def effect(pairs: Iterable[Comparison]) -> Effect:
    gains = [pair.gain for pair in pairs]
    better = [gain for gain in gains if gain >= EVEN_R]
    worse = [-gain for gain in gains if gain <= -EVEN_R]
    return Effect(len(better), total(better), len(worse), total(worse), len(gains) - len(better) - len(worse))


def most_telling(stories: Sequence[tuple[Story, TradeResult]], limit: int) -> list[tuple[Story, TradeResult]]:
    """The trades that show most of DTMS (states, hands on the stop, difference made), in order of opening."""

    def telling(pair: tuple[Story, TradeResult]) -> tuple[float, int]:
        story, result = pair
        shown = 2.0 * len(story.states_seen) + 1.5 * len(set(story.stop_movers)) + 0.1 * min(len(story.stops), 20)
        made = sum(abs(pair.gain) for pair in compare([result]))
        return -(shown + min(made, 3.0)), story.ticket

    return sorted(sorted(stories, key=telling)[:limit], key=lambda pair: (pair[0].opened_ns, pair[0].ticket))
