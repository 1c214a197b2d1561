"""Which rules hold for a trade: from the file, and from what DTMS keeps of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtms_client.exit_manager.brain import ExitManager
from dtms_client.exit_manager.rule_book import RuleBook, read_memo, write_memo
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.exit_manager.vix import VixSources
from dtms_client.managing.testing import BUY, NOW_NS

above_0 = st.floats(min_value=1e-9, max_value=1e9)
from_0 = st.floats(min_value=0, max_value=1e9)
shares = st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True)
any_rules = st.builds(
    ExitRules,
    breakeven_at_r=above_0,
    breakeven_extra=from_0,
    partial_at=shares,
    partial_fraction=shares,
    trail_atr=above_0 | st.integers(1, 9),
    trail_step_r=from_0,
    vix_above=from_0,
    vix_span=above_0,
    widen_atr=above_0,
    widen_most=st.floats(min_value=1, max_value=1e9),
    widen_step_r=from_0,
)


@given(any_rules)
def test_rules_come_back_from_a_memo_as_they_were(rules: ExitRules) -> None:
    """Every number, to the last bit, in at most the 2048 characters that DTMS keeps."""
    assert read_memo(write_memo(rules, part=False)).rules == rules
    assert len(write_memo(rules, part=False)) <= 2048


@given(any_rules, any_rules)
def test_a_restart_changes_no_rules_of_a_running_trade(began_with: ExitRules, other: ExitRules) -> None:
    """Another file, or none at all, after the restart: the trade goes on with what it began with."""
    before = ExitManager(RuleBook(default=began_with), name="m", vix=VixSources())
    (memo,) = before.memos([BUY], now_ns=NOW_NS)
    kept = replace(BUY, memo=memo.text)
    assert RuleBook(default=other).rules(kept) == began_with
    assert RuleBook(default=other).rules(BUY) == other
    after = ExitManager(RuleBook(default=other), name="m", vix=VixSources())
    assert after.memos([kept], now_ns=NOW_NS) == []


def test_a_ticket_in_the_file_wins_over_the_memo() -> None:
    """The operator's word for this very trade is newer; it becomes the memo."""
    named = RuleBook(default=ExitRules(), trades={7: ExitRules(trail_atr=3.0)})
    kept = replace(BUY, memo=write_memo(ExitRules(trail_atr=2.0), part=False))
    assert named.rules(kept).trail_atr == 3.0
    (memo,) = ExitManager(named, name="m", vix=VixSources()).memos([kept], now_ns=NOW_NS)
    assert read_memo(memo.text).rules == ExitRules(trail_atr=3.0)


@pytest.mark.parametrize(
    "memo", ["", "no JSON", "[]", "3", "{}", '{"rules": 3}', '{"rules": {"trail": 1}}', '{"rules": {"trail_atr": -1}}']
)
def test_a_memo_that_makes_no_sense_is_none(memo: str) -> None:
    """Then the rules are those of the file, and the memo is written anew."""
    book = RuleBook(default=ExitRules(trail_atr=2.0))
    trade = replace(BUY, memo=memo)
    assert book.rules(trade) == book.default
    (anew,) = ExitManager(book, name="m", vix=VixSources()).memos([trade], now_ns=NOW_NS)
    assert read_memo(anew.text).rules == book.default


def test_a_memo_of_an_older_version_keeps_what_it_says() -> None:
    """A number that it does not know is the documented one."""
    assert read_memo('{"rules": {"trail_atr": 2.5}}').rules == ExitRules(trail_atr=2.5)


def test_a_rule_book_reads_defaults_symbols_and_tickets(tmp_path: Path) -> None:
    """The ticket's table wins over the symbol's, that over the default; what is not said stays as documented."""
    file = tmp_path / "rules.toml"
    file.write_text("breakeven_at_r = 0.3\n[symbols.EURUSD]\ntrail_atr = 2.0\n[trades.8]\npartial_at = 0.4\n")
    book = RuleBook.read(file)
    assert book.default == ExitRules(breakeven_at_r=0.3)
    assert book.rules(BUY) == ExitRules(breakeven_at_r=0.3, trail_atr=2.0)
    assert book.rules(replace(BUY, ticket=8)) == ExitRules(breakeven_at_r=0.3, partial_at=0.4)
    assert book.rules(replace(BUY, symbol="XAUUSD")) == book.default


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("breakeven = 1", "breakeven"),
        ("[symbols.EURUSD]\ntrail = 1", "symbols.EURUSD"),
        ("[trades.x]\n", "trades.x"),
        ("trail_atr = 0", "trail_atr"),
        ("trail_atr = 'far'", "trail_atr"),
        ("symbols = 3", "symbols"),
        ("= 3", "rules.toml"),
    ],
)
def test_a_wrong_rule_file_names_the_place(tmp_path: Path, text: str, named: str) -> None:
    """An unknown key, a wrong value and bad TOML are errors that say where."""
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=named):
        RuleBook.read(file)
