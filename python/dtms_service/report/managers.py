"""The part of the page about the managers: who did how much, why some were refused, who took trades from whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dtms.v1 import action_pb2
from dtms_service.report import words
from dtms_service.report.disputes import Refusal, Takeover
from dtms_service.report.intents import TradeKey
from dtms_service.report.story import Story
from dtms_service.report.summary import Summary
from dtms_service.report.words import text

_TAKEOVERS_MOST = 40  # of one kind they tell nothing new beyond it

Stories = Mapping[TradeKey, Story]


def who_did_what(summary: Summary) -> str:
    """One row a manager, and the stop changes of each as bars."""
    moves = summary["stop_changes"]
    most = max(moves.values(), default=0)
    bars = "".join(
        f'<li class="{words.manager(name).css}"><span>{text(words.manager(name).label)}</span>'
        f'<i style="--share:{number / most:.4f}"></i><b>{number:,}</b></li>'
        for name, number in sorted(moves.items(), key=lambda item: -item[1])
    )
    rows = "".join(
        f'<tr><th scope="row">{text(words.manager(name).label)}<small>{text(words.manager(name).meaning)}</small></th>'
        f"<td>{m['proposals']:,}</td><td>{m['granted']:,}</td><td>{sum(m['denied'].values()):,}</td>"
        f"<td>{m['stop_changes']:,}</td><td>{m['partials']:,}</td><td>{m['preemptions']:,}</td></tr>"
        for name, m in summary["per_manager"].items()
    )
    return (
        "<section><h2>Who did what</h2>"
        '<p class="fine">Everyone asks DTMS first, DTMS itself too; one writes at a time. Stops and parts are those '
        "that the broker confirmed.</p>"
        '<div class="wide"><table class="numbers managers"><thead><tr><th>Manager</th><th>Asked</th><th>Granted</th>'
        "<th>Denied</th><th>Stops moved</th><th>Parts closed</th><th>Takeovers</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div><h3>Who moved the stop</h3>"
        f'<ul class="hbars">{bars or "<li>No stop was moved.</li>"}</ul></section>'
    )


def decisions(summary: Summary, examples: Sequence[Refusal], stories: Stories) -> str:
    """Grants and denials; each code with who met it and one example of why."""
    granted, denied = summary["decisions"]["granted"], summary["decisions"]["denied"]
    refused = sum(denied.values())
    told = {refusal.code: _example(refusal, stories) for refusal in examples}
    rows = "".join(
        f'<tr><th scope="row">{text(words.DENIALS.get(code, code)).capitalize()}<small>{text(code)}</small></th>'
        f'<td>{number:,}</td><td class="words">{text(_who_met(summary, code))}</td>'
        f'<td class="words">{told.get(code, "")}</td></tr>'
        for code, number in sorted(denied.items(), key=lambda item: -item[1])
    )
    table = (
        '<div class="wide"><table class="numbers denials"><thead><tr><th>Why not</th><th>Times</th>'
        f'<th class="words">Whom</th><th class="words">The first of them</th></tr></thead><tbody>{rows}</tbody>'
        "</table></div>"
        if rows
        else ""
    )
    return (
        f"<section><h2>“May I?”</h2><p>{words.count(granted + refused, 'change')} asked for: <b>{granted:,} granted"
        f"</b>, <b>{refused:,} denied</b>. Each answer is in the journal with its reason.</p>{table}</section>"
    )


def _who_met(summary: Summary, code: str) -> str:
    met = {name: m["denied"][code] for name, m in summary["per_manager"].items() if code in m["denied"]}
    return ", ".join(f"{words.manager(name).label} {n:,}" for name, n in met.items())


def _example(refusal: Refusal, stories: Stories) -> str:
    decision, story = refusal.decision, stories.get(refusal.trade)
    return (
        f"<time>{words.short_moment(refusal.time_ns)}</time> {_link(refusal.trade, story)} "
        f"{text(words.manager(decision.manager).label)} wanted to {text(_wish(decision.action, story))}. "
        f"{text(_because(refusal, story))}"
    )


def _wish(action: action_pb2.Action, story: Story | None) -> str:
    kind = action_pb2.ActionKind.Name(action.kind).removeprefix("ACTION_KIND_")
    wish = words.ACTIONS.get(kind, kind)
    if action.HasField("volume"):
        wish += f" of {action.volume:g} lots"
    if action.HasField("stop"):
        wish += f" to {_price(story, action.stop)}"
    if action.HasField("target"):
        wish += f" to {_price(story, action.target)}"
    purpose = action_pb2.Purpose.Name(action.purpose).removeprefix("PURPOSE_").lower()
    return wish if action.purpose == action_pb2.PURPOSE_UNSPECIFIED else f"{wish} ({purpose})"


def _because(refusal: Refusal, story: Story | None) -> str:
    """The inputs that the answer rests on."""
    decision = refusal.decision
    state = words.STATES[refusal.state].label if refusal.state in words.STATES else refusal.state
    parts = [f"State {state}", f"owner {words.manager(decision.owner).label}"]
    if decision.asked_epoch != decision.owner_epoch:
        parts.append(f"token {decision.asked_epoch} shown, {decision.owner_epoch} in force")
    if decision.HasField("confirmed_sl"):
        parts.append(f"stop {_price(story, decision.confirmed_sl)}")
    if decision.HasField("bid"):
        parts.append(f"bid {_price(story, decision.bid)}")
    if decision.gave_way_to:
        parts.append(f"gave way to {words.manager(decision.gave_way_to).label}")
    if decision.halted_by:
        parts.append(decision.halted_by)
    return "; ".join(parts) + "."


def _price(story: Story | None, value: float) -> str:
    return f"{value:g}" if story is None else story.price(value)


def _link(trade: TradeKey, story: Story | None) -> str:
    name = f"{'' if story is None else 'Long ' if story.buy else 'Short '}{trade[1]}"
    return f'<a href="#t{trade[1]}">{name}</a>' if story is not None else name


def takeovers(taken: Sequence[Takeover], stories: Stories) -> str:
    """Every trade that a manager took from another one."""
    if not taken:
        return (
            "<section><h2>Takeovers</h2><p>No manager had to take a trade from another one in this run.</p></section>"
        )
    rows = "".join(_taken(one, stories.get(one.trade)) for one in taken[:_TAKEOVERS_MOST])
    left_out = len(taken) - _TAKEOVERS_MOST
    note = f'<p class="fine">{words.count(left_out, "more takeover")} in the journal.</p>' if left_out > 0 else ""
    return (
        "<section><h2>Takeovers</h2><p>A higher rank took the trade, and the one that lost it was told on its stream."
        '</p><div class="wide"><table class="numbers takeovers"><thead><tr><th>When</th><th class="words">Trade</th>'
        '<th class="words">Who</th><th class="words">From</th><th class="words">Why</th>'
        f'<th class="words">Given back</th></tr></thead><tbody>{rows}</tbody></table></div>{note}</section>'
    )


def _taken(one: Takeover, story: Story | None) -> str:
    why = f"defence: {words.STATES[one.state].label}" if one.defensive else "asked for it, with the higher rank"
    is_over = story is not None and story.ended_ns is not None
    never = "no: it closed before" if is_over else "not by the end of the run"
    back = words.short_moment(one.returned_ns) if one.returned_ns is not None else never
    return (
        f'<tr><td>{words.short_moment(one.time_ns)}</td><td class="words">{_link(one.trade, story)}</td>'
        f'<td class="words">{text(words.manager(one.by).label)}</td>'
        f'<td class="words">{text(words.manager(one.displaced).label)}</td><td class="words">{text(why)}</td>'
        f'<td class="words">{back}</td></tr>'
    )
