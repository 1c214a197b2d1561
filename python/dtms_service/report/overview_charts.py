"""Charts of the whole run: the two curves of earned R, and what protection did to each trade."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from dtms_service.report import plot, words
from dtms_service.report.inputs import Comparison
from dtms_service.report.plot import Panel, Scale

_NS = 1_000_000_000
_LABELS_LEAST, _LABELS_MOST = 3, 12  # fewer do not orient, more do not fit the width


def equity_chart(pairs: Sequence[Comparison]) -> str:
    """Sum of R over time, each trade booked when it closed: with DTMS, and with original stops and targets only."""
    ordered = sorted(pairs, key=lambda pair: (pair.result.closed_ns, pair.result.ticket))
    with_dtms = [0.0, *accumulate(pair.r for pair in ordered)]
    without = [0.0, *accumulate(pair.original_r for pair in ordered)]
    first = min(pair.result.opened_ns for pair in ordered)
    times = [first, *(pair.result.closed_ns for pair in ordered)]
    across = plot.along(first, times[-1])
    scale = plot.values([*with_dtms, *without], 0.08)
    panel = Panel(
        "equity",
        f"Sum of R over time: {words.r(with_dtms[-1])} with DTMS, {words.r(without[-1])} with original stops only",
    )
    _grid(panel, scale)
    for time_ns, label, css in _calendar(first, times[-1]):
        panel.down(across(time_ns), "grid")
        panel.under(across(time_ns), label, css)
    for sums, css, name in ((without, "without", "original only"), (with_dtms, "with", "with DTMS")):
        points = [(across(time_ns), scale(value)) for time_ns, value in zip(times, sums, strict=True)]
        panel.path(plot.stairs(points, 1000), f"curve {css}", name)
        panel.gutter(scale(sums[-1]), words.signed(sums[-1], 1), f"tag {css}")
    return f'<div class="chart">{panel.html()}</div>'


def difference_chart(pairs: Sequence[Comparison]) -> str:
    """For each trade in order of opening: R with DTMS minus R without; up is what protection brought."""
    ordered = sorted(pairs, key=lambda pair: (pair.result.opened_ns, pair.result.ticket))
    gains = [pair.gain for pair in ordered]
    across = plot.along(0, len(ordered))
    scale = plot.values([0.0, *gains], 0.08)
    panel = Panel("difference", "Difference that protection made to each trade, in R")
    _grid(panel, scale)
    for css, side in (("gain", 1), ("loss", -1)):
        rows = [
            (across(index + 0.15), across(index + 0.85), scale(0), scale(gain))
            for index, gain in enumerate(gains)
            if gain * side > 0
        ]
        panel.path(plot.boxes(rows), f"bar {css}")
    panel.under(across(0), "first trade", "start")
    panel.under(across(len(ordered)), "last trade", "end")
    return f'<div class="chart">{panel.html()}</div>'


def _grid(panel: Panel, scale: Scale) -> None:
    levels = plot.ticks(scale, 5)
    for level in levels:
        zero = abs(level) < 1e-9
        panel.across(scale(level), "zero" if zero else "grid")
        panel.gutter(scale(level), words.signed(level, plot.decimals(levels)))


def _calendar(first_ns: int, last_ns: int) -> list[tuple[int, str, str]]:
    """Where months begin (days, in a short history): time, label, class; `minor` ones give way on a narrow screen."""
    first, last = (datetime.fromtimestamp(ns // _NS, UTC) for ns in (first_ns, last_ns))
    days = [date for n in range((last - first).days + 2) if (date := _midnight(first) + timedelta(days=n)) > first]
    starts = [date for date in days if date.day == 1 and date <= last]
    form = "%b"
    if len(starts) < _LABELS_LEAST:
        starts, form = [date for date in days if date <= last], "%d %b"
    starts = starts[:: math.ceil(len(starts) / _LABELS_MOST) or 1]
    return [
        (int(date.timestamp()) * _NS, date.strftime(form), "minor" if index % 2 else "")
        for index, date in enumerate(starts)
    ]


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
