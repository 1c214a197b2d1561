"""The vocabulary of the page covers the protocol, and the style sheet covers the vocabulary."""

from __future__ import annotations

from importlib.resources import files

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from dtms.v1 import action_pb2, event_pb2, trade_pb2
from dtms_service.report import words
from dtms_service.report.inputs import PARTS
from dtms_service.report.story import MarkKind


@pytest.mark.parametrize(
    ("enum", "prefix", "terms"),
    [
        (trade_pb2.TradeState, "TRADE_STATE_", words.STATES),
        (action_pb2.DenialCode, "DENIAL_CODE_", words.DENIALS),
        (action_pb2.ActionKind, "ACTION_KIND_", words.ACTIONS),
        (action_pb2.SkipReason, "SKIP_REASON_", words.SKIPS),
        (event_pb2.TransitionCause, "TRANSITION_CAUSE_", words.CAUSES),
        (event_pb2.CloseReason, "CLOSE_REASON_", words.CLOSES),
        (event_pb2.LegKind, "LEG_KIND_", words.LEGS),
    ],
)
def test_every_value_has_words(enum: EnumTypeWrapper, prefix: str, terms: dict[str, object]) -> None:
    """Each value of the protocol's enum has its words, in the same order, and nothing else has."""
    assert list(terms) == [name.removeprefix(prefix) for name, number in enum.items() if number]


def test_parts_follow_the_columns() -> None:
    """The parts of the score have their words in the order of the columns."""
    assert tuple(words.PARTS) == PARTS


def test_every_class_has_a_style() -> None:
    """No state, manager, part or deal is drawn in a class that the style sheet does not know."""
    style = files("dtms_service.report").joinpath("style.css").read_text(encoding="utf-8")
    names = ["entry", "dtms_manager", "intelligent_exit_manager", "universal_sl_tp_manager", "external", "my_bot"]
    terms = [*words.STATES.values(), *words.PARTS.values(), *map(words.manager, names)]
    assert [term.css for term in terms if f".{term.css} {{ --c:" not in style] == []
    # An entry and a close look like the plain sign.
    assert [kind for kind in MarkKind if f".glyph.{kind.value}" not in style] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.256, "+1.26"), (-0.5, "−0.50"), (0.0, "0.00"), (-0.001, "0.00"), (0.004, "0.00"), (-12.0, "−12.00")],
)
def test_signed(value: float, text: str) -> None:
    """A figure has its sign, a true minus, and zero has none."""
    assert words.signed(value) == text


@pytest.mark.parametrize(
    ("minutes", "text"), [(0, "0 min"), (59, "59 min"), (60, "1 h"), (47 * 60, "47 h"), (49 * 60, "2 d 1 h")]
)
def test_duration(minutes: int, text: str) -> None:
    """Spans are told in the unit that fits."""
    assert words.duration(minutes * 60 * 1_000_000_000) == text
