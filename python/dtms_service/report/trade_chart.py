"""The chart of one trade: price with stop steps and states behind it, and the parts of the score below."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dtms_service.report import plot, words
from dtms_service.report.inputs import PARTS, Bar
from dtms_service.report.plot import Panel, Point, Scale
from dtms_service.report.story import MarkKind, Story

_NS = 1_000_000_000
_LEAD_BARS = 10  # bars before the entry, at least: what the trade came from
_TAIL_BARS = 4  # bars after the end: what it was spared, or missed
_CANDLES_MAX = 260  # beyond it a candle is thinner than its outline, and a line says more
_TARGET_STRETCH = 1.7  # a target that would squeeze the prices more than this is named at the edge instead
_SCORE_LIMIT = 10.5
_STATE_NAME_LEAST = 80.0  # of 1000: room for the word on a wide screen; a narrow one may cut it
_UNITS_S = (86400, 6 * 3600, 3600, 900)
_LABELS_LEAST, _LABELS_MOST = 3, 9  # fewer do not orient, more do not fit the width

_GLYPHS = {
    MarkKind.OPEN: "",  # drawn as an arrow in the trade's direction
    MarkKind.PARTIAL: "½",
    MarkKind.HEDGE: "H",
    MarkKind.HEDGE_END: "h",
    MarkKind.RE_ADD: "+",
    MarkKind.CLOSE: "×",
}


@dataclass(frozen=True, slots=True)
class _Window:
    """The bars of one trade; x counts them, so that hours without trading take no room."""

    bars: Sequence[Bar]
    start_s: int
    period_s: int
    end_x: float  # where the trade ended, or the history

    def x(self, time_ns: int) -> float:
        time_s = time_ns / _NS
        index = bisect_right(self.bars, time_s, key=lambda bar: bar.time_s) - 1
        if index < 0:
            return 0.0
        inside = (time_s - self.bars[index].time_s) / self.period_s
        return index + min(max(inside, 0.0), 1.0)


def trade_chart(story: Story, bars: Sequence[Bar], period_s: int) -> str:
    """HTML of the chart; empty when no bar of the history (of ``period_s`` each) lies in the trade's life."""
    window = _window(story, bars, period_s)
    if window is None:
        return ""
    across = plot.along(0, len(window.bars))
    price = _price_panel(story, window, across)
    score = _score_panel(story, window, across)
    return (
        f'<div class="chart" data-hover="{words.text(_hover(story, window))}">{price.html()}'
        f'{_state_strip(story, window, across).html()}{score.html()}<output class="readout"></output></div>'
    )


def _window(story: Story, bars: Sequence[Bar], period_s: int) -> _Window | None:
    if not bars:
        return None
    first = bisect_right(bars, story.opened_ns // _NS, key=lambda bar: bar.time_s) - 1
    end_ns = story.ended_ns if story.ended_ns is not None else (bars[-1].time_s + period_s) * _NS
    last = bisect_right(bars, end_ns // _NS, key=lambda bar: bar.time_s) - 1
    if first < 0 or last < first:
        return None
    lead = max(_LEAD_BARS, (last - first) // 6)
    shown = bars[max(0, first - lead) : last + 1 + _TAIL_BARS]
    window = _Window(shown, shown[0].time_s, period_s, 0.0)
    return _Window(shown, shown[0].time_s, period_s, window.x(end_ns))


def _price_panel(story: Story, window: _Window, across: Scale) -> Panel:
    direction = "Long" if story.buy else "Short"
    panel = Panel("price", f"{direction} {story.symbol}: price, stop, states and deals over time")
    seen = [bar.low for bar in window.bars] + [bar.high for bar in window.bars] + [story.entry_price]
    seen += [step.stop for step in story.stops if step.stop is not None] + [mark.price for mark in story.marks]
    target = story.targets[-1].target
    scale = plot.values(seen, 0.06)
    if target is not None:
        stretched = plot.values([*seen, target], 0.06)
        if stretched.high - stretched.low <= (scale.high - scale.low) * _TARGET_STRETCH:
            scale = stretched
    for x0, x1, state in _spans(story, window):
        panel.band(across(x0), across(x1), f"state {words.STATES[state].css}", words.STATES[state].label)
    for x, _, _ in _time_labels(window):
        panel.down(across(x), "grid")
    levels = plot.ticks(scale, 5)
    places = min(story.digits, plot.decimals(levels))
    for level in levels:
        panel.across(scale(level), "grid")
        panel.gutter(scale(level), f"{level:.{places}f}")
    _prices(panel, window, across, scale)
    start = across(window.x(story.opened_ns))
    end = across(window.end_x)
    panel.path(f"M{start:.1f} {scale(story.entry_price):.1f}H{end:.1f}", "entry", "Entry")
    panel.gutter(scale(story.entry_price), story.price(story.entry_price), "tag entry")
    if target is not None:
        _target(panel, story.price(target), scale(target), (start, end))
    _stops(panel, story, window, (across, scale))
    for mark in story.marks:
        glyph = ("▲" if story.buy else "▼") if mark.kind is MarkKind.OPEN else _GLYPHS[mark.kind]
        at = (across(window.x(mark.time_ns)), scale(mark.price))
        panel.glyph(at, mark.kind.value, f"{words.short_moment(mark.time_ns)}: {mark.label}", glyph)
    return panel


def _prices(panel: Panel, window: _Window, across: Scale, scale: Scale) -> None:
    bars = window.bars
    if len(bars) > _CANDLES_MAX:
        panel.line([(across(i + 0.5), scale(bar.close)) for i, bar in enumerate(bars)], "close-line")
        return
    panel.path(plot.wicks((across(i + 0.5), scale(b.high), scale(b.low)) for i, b in enumerate(bars)), "wick")
    for css, rising in (("body up", True), ("body down", False)):
        rows = [
            (across(i + 0.2), across(i + 0.8), scale(bar.open), scale(bar.close))
            for i, bar in enumerate(bars)
            if (bar.close >= bar.open) == rising
        ]
        panel.path(plot.boxes(rows), css)


def _target(panel: Panel, label: str, y: float, reach: tuple[float, float]) -> None:
    """A line where the target is in sight, else a word at the edge towards it."""
    if 0 <= y <= 1000:
        panel.path(f"M{reach[0]:.1f} {y:.1f}H{reach[1]:.1f}", "target", "Target")
        panel.gutter(y, label, "tag target")
    elif y < 0:
        panel.note((reach[0], 0), f"target {label} ↑", "target top")
    else:
        panel.note((reach[0], 1000), f"target {label} ↓", "target bottom")


def _stops(panel: Panel, story: Story, window: _Window, axes: tuple[Scale, Scale]) -> None:
    across, scale = axes
    before: Point | None = None
    mover = words.ENTRY
    for index, step in enumerate(story.stops):
        x0 = window.x(step.time_ns)
        last = index + 1 == len(story.stops)
        x1 = window.end_x if last else window.x(story.stops[index + 1].time_ns)
        if step.stop is None:
            before = None
            continue
        term = words.manager(step.by)
        at = (across(x0), scale(step.stop))
        rise = f"M{at[0]:.1f} {before[1]:.1f}V{at[1]:.1f}" if before else f"M{at[0]:.1f} {at[1]:.1f}"
        tip = f"Stop {story.price(step.stop)} by {term.label}, {words.short_moment(step.time_ns)}"
        panel.path(f"{rise}H{across(x1):.1f}", f"stop {term.css}", tip)
        if step.by != mover:
            panel.glyph(at, f"mover {term.css}", tip, term.label[0])
        if last:
            panel.gutter(at[1], story.price(step.stop), f"tag stop {term.css}")
        before, mover = at, step.by


def _state_strip(story: Story, window: _Window, across: Scale) -> Panel:
    panel = Panel("strip", "States of the trade over time")
    for x0, x1, state in _spans(story, window):
        term = words.STATES[state]
        panel.band(across(x0), across(x1), f"state {term.css}", term.label)
        width = across(x1) - across(x0)
        if width >= _STATE_NAME_LEAST:
            panel.note((across(x0), 500), term.label, "state-name", width)
    return panel


def _score_panel(story: Story, window: _Window, across: Scale) -> Panel:
    panel = Panel("score", "Score of the trade and its six parts over time; below zero speaks against the trade")
    scale = Scale(-_SCORE_LIMIT, _SCORE_LIMIT, rising=True)
    for x, label, css in _time_labels(window):
        panel.down(across(x), "grid")
        panel.under(across(x), label, css)
    for level in (-8, -4, 0, 4, 8):
        panel.across(scale(level), "zero" if level == 0 else "grid")
        panel.gutter(scale(level), words.signed(level, 0))
    rows: list[list[tuple[float, float, float, float]]] = [[] for _ in PARTS]
    totals: list[Point] = []
    for index, bar in enumerate(window.bars):
        if bar.score is None:
            continue
        score = bar.score if story.buy else bar.score.mirrored()
        above = below = 0.0
        for row, part in zip(rows, score.parts, strict=True):
            base = above if part > 0 else below
            if part:
                row.append((across(index), across(index + 1), round(scale(base), 1), round(scale(base + part), 1)))
            above, below = (above + part, below) if part > 0 else (above, below + part)
        totals.append((across(index + 0.5), scale(score.total)))
    for name, row in zip(PARTS, rows, strict=True):
        panel.path(plot.boxes(row), f"part {words.PARTS[name].css}", words.PARTS[name].label)
    panel.line(totals, "total", "Score")
    for x0, _, state in _spans(story, window)[1:]:
        panel.down(across(x0), f"turn {words.STATES[state].css}")
    return panel


def _spans(story: Story, window: _Window) -> list[tuple[float, float, str]]:
    """From x to x, state; CLOSED has no span."""
    steps = [step for step in story.states if step.state != "CLOSED"]
    ends = [window.x(step.time_ns) for step in steps[1:]] + [window.end_x]
    spans = [(window.x(step.time_ns), end, step.state) for step, end in zip(steps, ends, strict=True)]
    return [span for span in spans if span[1] > span[0]]


def _time_labels(window: _Window) -> list[tuple[float, str, str]]:
    """Where days (hours, in a short trade) begin: x, label, class; `minor` ones are left out on a narrow screen."""
    unit_s, starts = _UNITS_S[0], _starts(window, _UNITS_S[0])
    for finer_s in _UNITS_S[1:]:
        if len(starts) < _LABELS_LEAST:
            unit_s, starts = finer_s, _starts(window, finer_s)
    least = len(window.bars) / _LABELS_MOST
    kept: list[tuple[float, int]] = []
    for x, time_s in starts:
        if (not kept or x - kept[-1][0] >= least) and x <= len(window.bars) * 0.97:
            kept.append((x, time_s))
    dates = {time_s for _, time_s in kept if unit_s == 86400 or time_s % 86400 == 0}
    major = dates if 2 <= len(dates) < len(kept) else {time_s for _, time_s in kept[::2]}
    return [
        (x, words.date(time_s) if time_s in dates else words.clock(time_s), "" if time_s in major else "minor")
        for x, time_s in kept
    ]


def _starts(window: _Window, unit_s: int) -> list[tuple[float, int]]:
    """x and time of the bars that begin a day, an hour, ..."""
    return [
        (float(index), after.time_s)
        for index, (before, after) in enumerate(pairwise(window.bars), start=1)
        if after.time_s // unit_s != before.time_s // unit_s
    ]


def _hover(story: Story, window: _Window) -> str:
    """What the crosshair says: bars as [minutes since the first, close, score], steps as [x, word]."""
    bars: list[list[float | None]] = []
    for bar in window.bars:
        score = None
        if bar.score is not None:
            score = round(bar.score.total if story.buy else -bar.score.total, 1)
        bars.append([(bar.time_s - window.start_s) // 60, round(bar.close, story.digits), score])
    return json.dumps(
        {
            "t0": window.start_s,
            "bars": bars,
            "digits": story.digits,
            "states": [[round(x0, 2), words.STATES[state].label] for x0, _, state in _spans(story, window)],
            "stops": [
                [round(window.x(step.time_ns), 2), step.stop, words.manager(step.by).label] for step in story.stops
            ],
            "end": round(window.end_x, 2),
        },
        separators=(",", ":"),
    )
