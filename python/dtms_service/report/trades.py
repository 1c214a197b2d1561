"""The second part of the page: how to read a chart, the charts, and the table of all trades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtms_service.report import words
from dtms_service.report.figures import EVEN_R
from dtms_service.report.inputs import Bar, TradeResult, compare
from dtms_service.report.story import Story
from dtms_service.report.summary import EXTERNAL
from dtms_service.report.trade_chart import trade_chart
from dtms_service.report.words import text

Pair = tuple[Story, TradeResult]

_SEVERITY = ("HEDGED", "RECOVERING", "WARNING_L2", "WARNING_L1", "HEALTHY")


@dataclass(frozen=True, slots=True)
class Charts:
    """What every chart is drawn from: bars of ``period_s`` each."""

    bars: Sequence[Bar]
    period_s: int

    def of(self, story: Story) -> str:
        return trade_chart(story, self.bars, self.period_s)


def reading() -> str:
    """The legend of all charts."""
    states = "".join(
        f'<span class="chip {term.css}">{term.label}</span>' for name, term in words.STATES.items() if name != "CLOSED"
    )
    hands = "".join(
        f'<span class="key stop {term.css}">{text(term.label)}</span>'
        for term in map(
            words.manager,
            (words.ENTRY, "dtms_manager", "intelligent_exit_manager", "universal_sl_tp_manager", EXTERNAL),
        )
    )
    parts = "".join(
        f'<li><span class="key part {term.css}">{text(term.label)}</span> <small>{text(term.meaning)}</small></li>'
        for term in words.PARTS.values()
    )
    deals = (
        '<span class="deal"><i class="glyph open">▲</i> entry</span>'
        '<span class="deal"><i class="glyph partial">½</i> part closed</span>'
        '<span class="deal"><i class="glyph hedge">H</i> hedge opened</span>'
        '<span class="deal"><i class="glyph hedge-end">h</i> hedge closed</span>'
        '<span class="deal"><i class="glyph re-add">+</i> taken up again</span>'
        '<span class="deal"><i class="glyph close">×</i> closed</span>'
    )
    return (
        '<section id="reading"><h2>How to read the charts</h2><dl class="reading">'
        f"<div><dt>Background and strip: the state</dt><dd>{states}</dd></div>"
        f"<div><dt>Steps: the stop, by who moved it</dt><dd>{hands}</dd></div>"
        f"<div><dt>Signs: the deals</dt><dd>{deals}</dd></div>"
        '<div><dt>Below: the score, from the side of the trade</dt><dd><p class="fine">The line is the score. The '
        "stacks are its six parts: what is above zero favours the trade, below speaks against it, also for a short."
        f'</p><ul class="parts">{parts}</ul></dd></div></dl></section>'
    )


def featured(pairs: Sequence[Pair], charts: Charts) -> str:
    if not pairs:
        return ""
    cards = "".join(f'<article id="t{r.ticket}">{_title(s, r, "h3")}{_body(s, r, charts)}</article>' for s, r in pairs)
    return (
        f"<section><h2>{words.count(len(pairs), 'telling trade')}</h2>"
        '<p class="fine">Those with the most states, hands on the stop and difference made, for better or worse.</p>'
        f"{cards}</section>"
    )


def others(pairs: Sequence[Pair], charts: Charts, limit: int) -> str:
    """The other trades, folded; ``limit`` charts at most, the table names the rest."""
    if not pairs:
        return ""
    shown = pairs[:limit]
    folded = "".join(
        f'<details class="trade" id="t{r.ticket}"><summary>{_title(s, r, "span")}</summary>'
        f"{_body(s, r, charts)}</details>"
        for s, r in shown
    )
    left_out = len(pairs) - len(shown)
    note = f'<p class="fine">{words.count(left_out, "more trade")} only in the table.</p>' if left_out else ""
    return f"<section><h2>The other trades</h2>{folded}{note}</section>"


def table(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    rows = "".join(_row(story, result) for story, result in pairs)
    return (
        '<section><h2>All trades</h2><div class="wide"><table class="numbers all"><thead><tr><th>Trade</th>'
        "<th>Opened</th><th>Held</th><th>With DTMS</th><th>Original</th><th>Difference</th><th>Worst state</th>"
        f'<th class="words">Strategy</th><th class="words">Who did what</th><th class="words">Ended</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _row(story: Story, result: TradeResult) -> str:
    worst = words.STATES[next(name for name in _SEVERITY if name in story.states_seen)]
    return (
        f'<tr><th scope="row"><a href="#t{result.ticket}">{_direction(story)} {result.ticket}</a></th>'
        f"<td>{words.short_moment(result.opened_ns)}</td><td>{words.duration(result.closed_ns - result.opened_ns)}</td>"
        f"{_r_cell(result.r)}<td>{_signed(result.unprotected_r)}</td>{_r_cell(_gain(result))}"
        f'<td><span class="chip {worst.css}">{worst.label}</span></td>'
        f'<td class="words">{text(story.strategy_type.replace("_", " ")) or "none"}</td>'
        f'<td class="words">{_deeds(story)}</td>'
        f'<td class="words">{text(_ending(story, result).removeprefix("closed "))}</td></tr>'
    )


def _deeds(story: Story) -> str:
    """Who did what to the trade, one line a manager."""
    lines = "".join(
        f'<li class="{words.manager(name).css}"><b>{text(words.manager(name).label)}</b> '
        f"{text(', '.join(f'{n} {deed.value}' for deed, n in done.items()))}</li>"
        for name, done in story.deeds.items()
    )
    return f'<ul class="deeds">{lines}</ul>' if lines else "nobody anything"


def _r_cell(value: float | None) -> str:
    tone = words.tone(value) if value is not None and abs(value) >= EVEN_R else "even"
    return f'<td class="{tone}">{_signed(value)}</td>'


def _signed(value: float | None) -> str:
    return "–" if value is None else words.signed(value)


def _gain(result: TradeResult) -> float | None:
    return next((pair.gain for pair in compare([result])), None)


def _title(story: Story, result: TradeResult, tag: str) -> str:
    earned = "R not known" if result.r is None else words.r(result.r)
    return (
        f'<{tag} class="title"><span>{_direction(story)} {result.ticket}</span> '
        f'<b class="{words.tone(result.r or 0.0)}">{earned}</b> '
        f"<small>{words.short_moment(result.opened_ns)}, held {words.duration(result.closed_ns - result.opened_ns)}"
        f"</small></{tag}>"
    )


def _body(story: Story, result: TradeResult, charts: Charts) -> str:
    chart = charts.of(story) or '<p class="fine">The history has no bars for the life of this trade.</p>'
    facts = "".join(f"<li><time>{words.short_moment(f.time_ns)}</time> {text(f.text)}</li>" for f in story.facts)
    return (
        f'<p class="outcome">{text(_outcome(story, result))}</p>{_deeds(story) if story.deeds else ""}{chart}'
        f'<details class="facts"><summary>{words.count(len(story.facts), "fact")} from the journal</summary>'
        f"<ol>{facts}</ol></details>"
    )


def _outcome(story: Story, result: TradeResult) -> str:
    ending = _ending(story, result)
    ended = f"{ending[0].upper()}{ending[1:]}."
    gain = _gain(result)
    if gain is None or result.unprotected_r is None:
        return f"{ended} What its original stop and target would have made is not known."
    if abs(gain) < EVEN_R:
        return f"{ended} Its original stop and target would have given the same."
    better = "better" if gain > 0 else "worse"
    alone = words.r(result.unprotected_r)
    return f"{ended} Left to its original stop and target it would have made {alone}: {abs(gain):.2f}\u00a0R {better}."


def _ending(story: Story, result: TradeResult) -> str:
    if story.ended_ns is None or result.open_at_end:
        return "still open at the end"
    return f"closed {story.ending}"


def _direction(story: Story) -> str:
    return "Long" if story.buy else "Short"
