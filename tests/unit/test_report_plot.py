"""Scales, ticks and labels of the charts, and the figures behind the verdict."""

from __future__ import annotations

import pytest

from dtms_service.report import plot
from dtms_service.report.figures import Curve, Effect, curve, effect
from dtms_service.report.inputs import compare
from tests.unit.report_world import result


def test_scale_turns_upwards() -> None:
    """The largest value is at the top of the box, the smallest at its foot; x runs to the right."""
    up = plot.values([1.0, 3.0], 0.0)
    assert (up(3.0), up(1.0), up(2.0)) == (0.0, 1000.0, 500.0)
    right = plot.along(0, 4)
    assert (right(0), right(1), right(4)) == (0.0, 250.0, 1000.0)


def test_scale_of_one_value() -> None:
    """A flat line has a scale too, around its value."""
    scale = plot.values([1.1, 1.1], 0.05)
    assert scale.low < 1.1 < scale.high
    assert plot.values([0.0], 0.05)(0.0) == 500.0


@pytest.mark.parametrize(
    ("low", "high", "ticks", "digits"),
    [
        (-13.0, 21.0, [-10, 0, 10, 20], 0),
        (1.0532, 1.0708, [1.055, 1.06, 1.065, 1.07], 3),
        (-0.9, 0.9, [-0.5, 0.0, 0.5], 1),
        (0.0, 1.1, [0, 0.25, 0.5, 0.75, 1.0], 2),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float], digits: int) -> None:
    """Ticks are round numbers inside of the scale, with the digits that tell them apart."""
    made = plot.ticks(plot.Scale(low, high, rising=True), 5)
    assert made == pytest.approx(ticks)
    assert plot.decimals(made) == digits


def test_labels_keep_clear() -> None:
    """Labels that stand out are moved apart, plain ones in their way are dropped, others stay."""
    panel = plot.Panel("price", "", line_height=60)
    panel.gutter(500, "plain", "")
    panel.gutter(510, "stop", "tag")
    panel.gutter(500, "entry", "tag")
    panel.gutter(900, "far", "")
    html = panel.html()
    assert "plain" not in html
    assert 'top:50%">entry' in html
    assert 'top:56%">stop' in html
    assert 'top:90%">far' in html


def test_equal_boxes_become_one() -> None:
    """Neighbours of equal height are drawn as one box, so that a year of bars stays small."""
    assert plot.boxes([(0, 1, 5, 9), (1, 2, 5, 9), (2, 3, 5, 8)]) == "M0 5H2V9H0zM2 5H3V8H2z"


def test_stairs_hold_their_value() -> None:
    """A step keeps its value until the next, the last one until the end."""
    assert plot.stairs([(0, 10), (5, 20)], 9) == "M0 10H5V20H9"


def test_curve() -> None:
    """Drawdown is the deepest fall from a high of the running sum, the start included."""
    assert curve([-1.0, 2.0, -0.5, -1.0, 0.5]) == Curve(total=0.0, drawdown=1.5, worst=-1.0, best=2.0, winners=2)
    assert curve([-1.0, -1.0]).drawdown == 2.0


def test_effect() -> None:
    """Saved and cost are sums of what protection made better and worse; the difference of both is the whole effect."""
    pairs = compare([result(1, 0.5, -1.0), result(2, 0.5, 3.0), result(3, 1.0, 1.001), result(4, 1.0, None)])
    assert effect(pairs) == Effect(helped=1, saved=1.5, hurt=1, cost=2.5, unchanged=1)
