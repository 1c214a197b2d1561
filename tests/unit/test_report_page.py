"""The page: whole, harmless, self-contained, and honest about what it shows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms_service.report import Bar, TradeResult, write_report
from dtms_service.report.page import render
from tests.unit.report_world import DTMS, EXIT, RUN, UNIVERSAL, Journal, bars, result

VOID = {"meta", "path", "br"}


class Outline(HTMLParser):
    """Checks that every tag is closed in order, and collects ids, links and addresses of anything outside."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID or tag == "path":
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name in {"src", "href"} and not (value or "").startswith("#"):
                self.outside.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


@pytest.fixture
def journal() -> Journal:
    """Trade 1 lives through a warning, a hedge and two managers' stops; trade 2 is still open."""
    journal = Journal()
    journal.hour = 5
    journal.register(1, trade_pb2.SIDE_BUY, 1.1, 1.098, 1.1005)
    journal.hour = 8.5
    journal.stop(1, EXIT, 1.0985)
    journal.hour = 10
    journal.change(
        1, trade_pb2.TRADE_STATE_WARNING_L1, event_pb2.TRANSITION_CAUSE_SCORE_WORSE, (5, action_pb2.ACTION_KIND_STOP)
    )
    journal.end(1, journal.intend(1, DTMS, action_id=5), sl=1.0992)
    journal.hour = 12
    journal.decide(1, EXIT, action_pb2.DENIAL_CODE_DTMS_DEFENSIVE)
    partial = journal.intend(1, DTMS, action_pb2.ACTION_KIND_PARTIAL_CLOSE)
    journal.end(1, partial, price=1.0995, volume=0.05)
    hedge = journal.intend(1, DTMS, action_pb2.ACTION_KIND_OPEN_HEDGE)
    journal.end(1, hedge, price=1.0994, volume=0.02, opened_ticket=901)
    journal.hour = 20
    journal.close(1, 1.0992, event_pb2.CLOSE_REASON_STOP_LOSS)
    journal.hour = 21
    journal.register(2, trade_pb2.SIDE_SELL, 1.1001, 1.102, 1.05)
    return journal


def page_of(journal: Journal, results: Sequence[TradeResult], prices: Sequence[Bar] | None = None) -> str:
    return render(journal.events, bars(30) if prices is None else prices, results, RUN, None)


def words_of(page: str) -> str:
    body = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body))).replace("\u00a0", " ")


def test_well_formed_and_alone(journal: Journal) -> None:
    """Every tag is closed in order, every link has its goal, ids are unique, and nothing is loaded from outside."""
    page = page_of(journal, [result(1, -0.4, -1.0), result(2, 0.1, 0.1)])
    outline = Outline(page)
    assert outline.open == []
    assert outline.outside == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {"#t1", "#t2"} == set(outline.links) <= {f"#{name}" for name in outline.ids}
    assert not re.search(r"url\(|@import|https?://", page)


def test_equal_inputs_equal_bytes(journal: Journal, tmp_path: Path) -> None:
    """Two reports of the same run are the same file, and the path is answered."""
    results = [result(1, -0.4, -1.0)]
    path = write_report(tmp_path, journal.events, bars(30), results, RUN)
    first = path.read_bytes()
    assert path == tmp_path / "report.html"
    assert write_report(tmp_path, journal.events, bars(30), results, RUN).read_bytes() == first


def test_texts_are_escaped(journal: Journal) -> None:
    """Words from outside (the name of the source, an alarm) never become markup."""
    journal.write(1, alarm_raised=event_pb2.AlarmRaised(detail="<script>alert(1)</script>"))
    page = page_of(journal, [result(1, 0.0, 0.0)])
    assert "<hourly>" not in page
    assert "alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("r", "original", "verdict", "trade"),
    [
        (0.5, -1.0, "Protection added 1.50 R : +0.50 R with DTMS, −1.00 R with the same trades", "1.50 R better."),
        (0.5, 3.0, "Protection cost 2.50 R : +0.50 R with DTMS, +3.00 R with the same trades", "2.50 R worse."),
        (1.0, 1.0, "Protection made no difference to the sum: +1.00 R with DTMS", "would have given the same."),
    ],
)
def test_says_which_was_better(journal: Journal, r: float, original: float, verdict: str, trade: str) -> None:
    """The page says in words that protection helped, cost, or made no difference, for the run and for the trade."""
    words = words_of(page_of(journal, [result(1, r, original)]))
    assert verdict in words
    assert trade in words


def test_story_of_a_trade(journal: Journal) -> None:
    """The facts of a trade name who did what, and why another was refused."""
    words = words_of(page_of(journal, [result(1, -0.4, -1.0)]))
    for fact in (
        "Long 0.1 lots at 1.10000; stop 1.09800.",
        "Exit manager moved the stop to 1.09850.",
        "Warning 1: the score fell (score −3.2).",
        "DTMS moved the stop to 1.09920.",
        "Exit manager wanted to move the stop: denied, DTMS was defending the trade; nobody else may act.",
        "DTMS closed 0.05 lots at 1.09950.",
        "DTMS hedged 0.02 lots at 1.09940.",
        "Position closed at a stop set by DTMS, at 1.09920.",
    ):
        assert fact in words


def test_stop_steps_are_coloured_by_mover(journal: Journal) -> None:
    """The chart has one step for each level of the stop, in the class of who set it."""
    page = page_of(journal, [result(1, -0.4, -1.0)])
    steps = re.findall(r'<path class="stop (by-\w+)"[^>]*><title>Stop (\S+)', page)
    assert steps == [("by-entry", "1.09800"), ("by-exit", "1.09850"), ("by-dtms", "1.09920")]


def test_crosshair_data(journal: Journal) -> None:
    """What the crosshair reads is on the chart: bars in order, the score from the trade's side, stops by mover."""
    page = page_of(journal, [result(1, -0.4, -1.0), result(2, 0.1, 0.1)])
    long, short = (json.loads(unescape(data)) for data in re.findall(r'data-hover="([^"]*)"', page))
    assert [step[1:] for step in long["stops"]] == [[1.098, "Entry order"], [1.0985, "Exit manager"], [1.0992, "DTMS"]]
    assert [minutes for minutes, *_ in long["bars"][:3]] == [0, 60, 120]
    assert long["bars"][0][2] is None  # no score yet
    assert (long["bars"][6][2], long["bars"][-1][2]) == (6.0, -6.0)
    assert short["bars"][-1][2] == 6.0  # the same hour, seen by a short


def test_open_trade(journal: Journal) -> None:
    """A trade that is open at the end is told as open, whatever its figures."""
    assert "Still open at the end." in words_of(page_of(journal, [result(2, 0.3, 0.3)]))


def test_without_known_r(journal: Journal) -> None:
    """A trade without R is listed, says so, and is left out of the sums in words."""
    words = words_of(page_of(journal, [result(1, 0.5, -1.0), result(2, None, None)]))
    assert "Not in the sums: 1 trade whose R is not known both ways." in words
    assert "R not known" in words
    assert "No trade has a known risk" in words_of(page_of(journal, [result(1, None, None)]))


def test_without_trades() -> None:
    """A run that opened nothing still has a page, which says so."""
    journal = Journal()
    page = page_of(journal, [], [])
    assert Outline(page).open == []
    assert "No trade was opened" in words_of(page)


def test_history_that_misses_a_trade(journal: Journal) -> None:
    """A trade outside of the bars given has its facts, and a sentence in place of the chart."""
    words = words_of(page_of(journal, [result(2, 0.1, 0.1)], bars(4)[:0]))
    assert "The history has no bars for the life of this trade." in words


def test_faults_stand_out(journal: Journal) -> None:
    """A conflicting write is not hidden among the good figures."""
    first, second = journal.intend(2, EXIT), journal.intend(2, DTMS)
    journal.end(2, first)
    journal.end(2, second)
    page = page_of(journal, [result(2, 0.1, 0.1)])
    assert re.search(r'<div class="tile bad"><dt>Conflicting writes</dt><dd>1<', page)
    assert re.search(r'<div class="tile good"><dt>Unconfirmed actions</dt><dd>0<', page)


def test_each_denial_has_whom_it_met_and_why(journal: Journal) -> None:
    """Every code is told with its count, who met it, and the first example with the inputs of the answer."""
    decision = action_pb2.Decision(
        manager=EXIT,
        denial=action_pb2.DENIAL_CODE_STALE_EPOCH,
        action=action_pb2.Action(
            kind=action_pb2.ACTION_KIND_STOP, purpose=action_pb2.PURPOSE_TRAIL, stop=1.0987, allow_loosen=False
        ),
        owner=DTMS,
        owner_epoch=4,
        asked_epoch=3,
        bid=1.1002,
        confirmed_sl=1.0992,
        gave_way_to=DTMS,
    )
    journal.write(1, decision_made=event_pb2.DecisionMade(decision=decision))
    journal.decide(1, EXIT, action_pb2.DENIAL_CODE_STALE_EPOCH)
    words = words_of(page_of(journal, [result(1, -0.4, -1.0)]))
    assert "STALE_EPOCH 2 Exit manager 2" in words
    assert (
        "Long 1 Exit manager wanted to move the stop to 1.09870 (trail). State Closed; owner DTMS; "
        "token 3 shown, 4 in force; stop 1.09920; bid 1.10020; gave way to DTMS." in words
    )
    assert "DTMS_DEFENSIVE 1 Exit manager 1" in words


def test_takeovers_are_listed_with_when_the_trade_came_back(journal: Journal) -> None:
    """Who took which trade from whom, why, and when it was given back; no takeover is said as well."""
    assert "No manager had to take a trade" in words_of(page_of(journal, []))
    journal.hour = 22
    journal.grant(2, DTMS, UNIVERSAL, ownership_pb2.GRANT_CAUSE_DEFENSIVE)
    journal.hour = 23
    journal.grant(2, UNIVERSAL, DTMS, ownership_pb2.GRANT_CAUSE_RETURNED)
    journal.hour = 24
    journal.grant(2, UNIVERSAL, EXIT, ownership_pb2.GRANT_CAUSE_ACQUIRED)
    words = words_of(page_of(journal, [result(2, 0.1, 0.1)]))
    assert "15 Jul 00:40 Short 2 DTMS Universal manager defence: Healthy 15 Jul 01:40" in words
    assert (
        "Short 2 Universal manager Exit manager asked for it, with the higher rank not by the end of the run" in words
    )
    assert "DTMS took the trade over from Universal manager." in words
    assert "The trade is Universal manager's: the danger is over." in words


def test_says_who_did_what_to_each_trade(journal: Journal) -> None:
    """A trade's row names each manager's stops, parts, hedges and denials; a manager's row its sums."""
    words = words_of(page_of(journal, [result(1, -0.4, -1.0)]))
    assert "Exit manager 1 stop, 1 denied DTMS 1 stop, 1 part closed, 1 hedge" in words
    assert "Defence: acts when the score turns against the trade. 0 0 0 1 1 0" in words
