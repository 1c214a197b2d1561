"""The news calendar: what a file must look like, and which times it keeps free of new risk."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtms_service import symbols
from dtms_service.errors import ConfigInvalid
from dtms_service.news import Announcement, blackouts, fingerprint, read

S = 1_000_000_000
NOON_NS = 1_704_456_000 * S  # 2024-01-05 12:00 UTC


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "news.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_calendar_is_read_as_people_write_it(tmp_path: Path) -> None:
    """Columns in any order, further ones, any case, offsets and empty lines; without an offset times are UTC."""
    path = written(
        tmp_path,
        "\ufeffTitle,Currency,Time,Forecast,Impact\n"
        '"Payrolls, non-farm",usd,2024-01-05T12:00:00,170K,High\n'
        "\n"
        "Rates,EUR,2024-01-05T13:00:00+01:00,,medium\n",
    )
    assert read(path) == (
        Announcement(NOON_NS, "USD", "high", "Payrolls, non-farm"),
        Announcement(NOON_NS, "EUR", "medium", "Rates"),
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", ["line 1"]),
        ("time,currency,title\n", ["line 1, impact"]),
        (
            "time,currency,impact,title\n2024-01-05T12:00:00,USD,high,fine\nnoon,US,hgih,\n",
            ["line 3, time", "line 3, currency", "line 3, impact", "line 3, title"],
        ),
        ("time,currency,impact,title\n2024-01-05T12:00:00,USD\n", ["line 2, impact", "line 2, title"]),
    ],
    ids=["empty", "column", "values", "short"],
)
def test_what_cannot_be_used_is_named_by_line_and_field(tmp_path: Path, text: str, fields: list[str]) -> None:
    """A row that would protect nothing is refused, with its place."""
    with pytest.raises(ConfigInvalid) as caught:
        read(written(tmp_path, text))
    assert [violation.field for violation in caught.value.violations] == fields
    assert str(tmp_path) in str(caught.value)


def test_a_calendar_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    """The refusal names the key of the configuration."""
    with pytest.raises(ConfigInvalid, match="news_calendar: No such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "news.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigInvalid, match="news_calendar: is not UTF-8"):
        read(tmp_path / "news.csv")


def test_a_file_written_again_has_another_fingerprint(tmp_path: Path) -> None:
    """What was replaced, even by as many bytes, is seen."""
    path = written(tmp_path, "one")
    before = fingerprint(path)
    other = tmp_path / "other"
    other.write_text("two", encoding="utf-8")
    other.replace(path)
    assert fingerprint(path) != before


def test_blackouts_are_of_the_symbols_currencies_and_the_impacts_that_count() -> None:
    """Half an hour before, a quarter after, in order of time; 0 and 0 is none at all."""
    announced = [
        Announcement(NOON_NS + 3600 * S, "USD", "high", "Speech"),
        Announcement(NOON_NS, "USD", "high", "Payrolls"),
        Announcement(NOON_NS, "USD", "low", "Redbook"),
        Announcement(NOON_NS, "CHF", "high", "Rates"),
    ]
    told = blackouts(announced, {"EUR", "USD"}, ("high",), before_s=1800, after_s=900)
    assert told == [
        (NOON_NS - 1800 * S, NOON_NS + 900 * S, "USD Payrolls at 2024-01-05 12:00 UTC"),
        (NOON_NS + 1800 * S, NOON_NS + 4500 * S, "USD Speech at 2024-01-05 13:00 UTC"),
    ]
    assert blackouts(announced, {"USD"}, ("high",), before_s=0, after_s=0) == []


@pytest.mark.parametrize(
    ("name", "profit", "expected"),
    [
        ("EURUSD", "USD", {"EUR", "USD"}),
        ("XAUUSDm", "USD", {"XAU", "USD"}),
        ("BTCUSD.r", "USD", {"BTC", "USD"}),
        ("eurjpyc", "JPY", {"EUR", "JPY"}),
        ("NAS100", "USD", {"USD"}),
        ("USD", "USD", {"USD"}),
    ],
)
def test_news_move_base_and_profit_currency(name: str, profit: str, expected: set[str]) -> None:
    """Whatever the broker appends to the name; an index has no base currency."""
    assert symbols.currencies(name, profit, ("c", "m", ".r")) == expected
