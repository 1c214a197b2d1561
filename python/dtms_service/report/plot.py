"""Drawing: an SVG that stretches to its box, with labels in HTML on top, so that text keeps its size on every screen.

The SVG has a view box of 1000 x 1000 and no aspect ratio; strokes do not scale (style sheet). Labels and glyphs are
placed in percent of the same box. x runs over bars (weekends take no room) or over time, as the caller's scale says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dtms_service.report.words import text

_BOX = 1000.0
_DIGITS_MOST = 8  # of a price at any broker
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps ``low..high`` to the box, upwards (``rising``) for values and to the right for x."""

    low: float
    high: float
    rising: bool

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _BOX * (1 - share if self.rising else share)

    def percent(self, value: float) -> float:
        return self(value) / _BOX * 100


def values(numbers: Iterable[float], margin: float) -> Scale:
    """A scale upwards that holds all numbers, with a share of their range as air above and below."""
    numbers = list(numbers)
    low, high = min(numbers), max(numbers)
    span = (high - low) or abs(high) * 1e-3 or 1.0
    return Scale(low - span * margin, high + span * margin, rising=True)


def along(low: float, high: float) -> Scale:
    return Scale(low, high if high > low else low + 1, rising=False)


def ticks(scale: Scale, about: int) -> list[float]:
    """Round numbers inside the scale, about as many as asked."""
    raw = (scale.high - scale.low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * s for s in _STEPS if power * s >= raw * (1 - 1e-9))
    first = math.ceil(scale.low / step)
    return [n * step for n in range(first, math.floor(scale.high / step) + 1)]


def decimals(numbers: Sequence[float]) -> int:
    """The fewest digits that write ticks, as :func:`ticks` makes them, without rounding."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else abs(numbers[0]) if numbers else 1.0
    exact = (d for d in range(_DIGITS_MOST) if all(abs(round(n, d) - n) <= step * 1e-6 for n in numbers))
    return next(exact, _DIGITS_MOST)


@dataclass(slots=True)
class _Label:
    y: float
    text: str
    css: str


@dataclass(slots=True)
class Panel:
    """One drawing with its labels. Shapes are painted in the order in which they are added."""

    css: str
    title: str  # what is seen, for those who do not see it
    line_height: float = 65.0  # of a label in the gutter, in units of the box, on the smallest screen
    _gutter: list[_Label] = field(default_factory=list)
    _shapes: list[str] = field(default_factory=list)
    _labels: list[str] = field(default_factory=list)

    def path(self, d: str, css: str, tip: str = "") -> None:
        if d:
            title = f"<title>{text(tip)}</title>" if tip else ""
            self._shapes.append(f'<path class="{css}" d="{d}">{title}</path>')

    def line(self, points: Sequence[Point], css: str, tip: str = "") -> None:
        self.path(polyline(points), css, tip)

    def across(self, y: float, css: str) -> None:
        self.path(f"M0 {_n(y)}H{_BOX:g}", css)

    def down(self, x: float, css: str) -> None:
        self.path(f"M{_n(x)} 0V{_BOX:g}", css)

    def band(self, x0: float, x1: float, css: str, tip: str = "") -> None:
        self.path(f"M{_n(x0)} 0H{_n(x1)}V{_BOX:g}H{_n(x0)}z", css, tip)

    def gutter(self, y: float, label: str, css: str = "") -> None:
        """A label in the margin on the right, at the height y of the box.

        Those with a class stand out: they are moved apart where they would cover one another, and plain ones give way.
        """
        self._gutter.append(_Label(y, label, css))

    def under(self, x: float, label: str, css: str = "") -> None:
        """A label below the box, at x."""
        self._labels.append(f'<span class="under {css}" style="left:{_n(x / 10)}%">{text(label)}</span>')

    def glyph(self, at: Point, css: str, tip: str, inside: str = "") -> None:
        x, y = at
        style = f"left:{_n(x / 10)}%;top:{_n(y / 10)}%"
        self._labels.append(f'<span class="glyph {css}" style="{style}" title="{text(tip)}">{text(inside)}</span>')

    def note(self, at: Point, label: str, css: str, width: float = 0.0) -> None:
        """Text that begins at a point; cut off after ``width``, where one is given."""
        x, y = at
        style = f"left:{_n(x / 10)}%;top:{_n(y / 10)}%" + (f";max-width:{_n(width / 10)}%" if width else "")
        self._labels.append(f'<span class="note {css}" style="{style}">{text(label)}</span>')

    def _gutter_html(self) -> str:
        tags = sorted((label for label in self._gutter if label.css), key=lambda label: label.y)
        for above, below in pairwise(tags):
            below.y = max(below.y, above.y + self.line_height)
        plain = [
            label
            for label in self._gutter
            if not label.css and all(abs(label.y - tag.y) >= self.line_height for tag in tags)
        ]
        return "".join(
            f'<span class="gutter {label.css}" style="top:{_n(label.y / 10)}%">{text(label.text)}</span>'
            for label in [*plain, *tags]
        )

    def html(self) -> str:
        return (
            f'<div class="panel {self.css}"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
            f'aria-label="{text(self.title)}">{"".join(self._shapes)}</svg>{self._gutter_html()}{"".join(self._labels)}</div>'
        )


def polyline(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points) if points else ""


def stairs(points: Sequence[Point], end: float) -> str:
    """Each value holds until the next x; the last one until ``end``."""
    if not points:
        return ""
    x0, y0 = points[0]
    return f"M{_n(x0)} {_n(y0)}" + "".join(f"H{_n(x)}V{_n(y)}" for x, y in points[1:]) + f"H{_n(end)}"


def boxes(rows: Iterable[tuple[float, float, float, float]]) -> str:
    """One path of rectangles (x0, x1, y0, y1); touching ones with equal y become one."""
    merged: list[tuple[float, float, float, float]] = []
    for x0, x1, y0, y1 in rows:
        if merged and merged[-1][1] == x0 and merged[-1][2:] == (y0, y1):
            merged[-1] = (merged[-1][0], x1, y0, y1)
        else:
            merged.append((x0, x1, y0, y1))
    return "".join(f"M{_n(x0)} {_n(y0)}H{_n(x1)}V{_n(y1)}H{_n(x0)}z" for x0, x1, y0, y1 in merged)


def wicks(rows: Iterable[tuple[float, float, float]]) -> str:
    """One path of upright strokes (x, y0, y1)."""
    return "".join(f"M{_n(x)} {_n(y0)}V{_n(y1)}" for x, y0, y1 in rows)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
