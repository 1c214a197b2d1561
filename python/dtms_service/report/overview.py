"""The first part of the page: the verdict, the headline numbers, and what happened over the whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dtms_service.report import words
from dtms_service.report.figures import EVEN_R, Curve, Effect, curve, effect
from dtms_service.report.inputs import Comparison, Run, TradeResult, compare
from dtms_service.report.overview_charts import difference_chart, equity_chart
from dtms_service.report.summary import Summary
from dtms_service.report.words import text


def head(summary: Summary, results: Sequence[TradeResult], run: Run) -> str:
    period = ""
    if results:
        first = min(result.opened_ns for result in results)
        period = f", {words.day(first)} to {words.day(max(result.closed_ns for result in results))}"
    about = (
        f'<p class="about">{text(run.source)}{period}; {words.count(summary["bars"], "bar")}. '
        f"Entries: {text(run.entry_rule)}. DTMS opens nothing; it defends what is open.</p>"
    )
    lines = [
        '<header><p class="eyebrow">DTMS run report</p>',
        f"<h1>{text(run.symbol)}: {words.count(summary['trades'], 'defended trade')}</h1>",
        about,
    ]
    if not results:
        return "".join([*lines, '<p class="verdict">No trade was opened, so there was nothing to defend.</p></header>'])
    pairs = compare(sorted(results, key=lambda result: (result.closed_ns, result.ticket)))
    if pairs:
        with_dtms, without = curve([pair.r for pair in pairs]), curve([pair.original_r for pair in pairs])
        lines.append(_verdict(with_dtms, without, effect(pairs)))
        tiles = _result_tiles(with_dtms, without, len(pairs))
    else:
        lines.append('<p class="verdict">No trade has a known risk, so no result can be told in R.</p>')
        tiles = []
    lines.append(_tiles([*tiles, *_service_tiles(summary)]))
    if len(pairs) < len(results):
        apart = words.count(len(results) - len(pairs), "trade")
        lines.append(f'<p class="fine">Not in the sums: {apart} whose R is not known both ways.</p>')
    still_open = sum(result.open_at_end for result in results)
    if still_open:
        lines.append(
            f'<p class="fine">{words.count(still_open, "trade")} still open at the end, counted at the last price.</p>'
        )
    return "".join([*lines, "</header>"])


def _verdict(with_dtms: Curve, without: Curve, made: Effect) -> str:
    gain = with_dtms.total - without.total
    if gain >= EVEN_R:
        claim = f'Protection added <b class="gain">{_plain_r(gain)}</b>'
    elif gain <= -EVEN_R:
        claim = f'Protection cost <b class="loss">{_plain_r(-gain)}</b>'
    else:
        claim = "Protection made <b>no difference</b> to the sum"
    shallower = without.drawdown - with_dtms.drawdown
    calm = "shallower" if shallower >= EVEN_R else "deeper" if shallower <= -EVEN_R else "the same"
    return (
        f'<p class="verdict">{claim}: {words.r(with_dtms.total)} with DTMS, {words.r(without.total)} with the same '
        f"trades left to their original stops and targets.</p>"
        f"<p>It helped {words.count(made.helped, 'trade')} by {_plain_r(made.saved)} together, hurt "
        f"{words.count(made.hurt, 'trade')} by {_plain_r(made.cost)}, and left {made.unchanged} as they were. The "
        f"deepest fall from a high was {calm}: {_plain_r(with_dtms.drawdown)} against {_plain_r(without.drawdown)}. "
        "1\u00a0R is what a trade risks between its entry and its first stop.</p>"
    )


Tile = tuple[str, str, str, str]  # name, value, note, class


def _result_tiles(with_dtms: Curve, without: Curve, trades: int) -> list[Tile]:
    original = "original only"
    winners = f"{with_dtms.winners} of {trades}; {original} {without.winners / trades:.0%}"
    return [
        ("Result with DTMS", words.r(with_dtms.total), f"{original} {words.r(without.total)}", ""),
        ("Deepest drawdown", _plain_r(with_dtms.drawdown), f"{original} {_plain_r(without.drawdown)}", ""),
        ("Worst trade", words.r(with_dtms.worst), f"{original} {words.r(without.worst)}", ""),
        ("Winners", f"{with_dtms.winners / trades:.0%}", winners, ""),
    ]


def _service_tiles(summary: Summary) -> list[Tile]:
    granted, denied = summary["decisions"]["granted"], sum(summary["decisions"]["denied"].values())
    conflicts, unconfirmed = summary["conflicting_writes"], summary["unconfirmed_actions"]
    latency = summary["tick_to_decision_us"]
    return [
        ("Changes asked for", f"{granted + denied:,}", f"{granted:,} granted, {denied:,} denied", ""),
        ("Conflicting writes", f"{conflicts:,}", "two managers on one trade at once", _health(conflicts)),
        ("Unconfirmed actions", f"{unconfirmed:,}", "without an answer of the broker", _health(unconfirmed)),
        ("Tick to decision", f"{latency['p99']:,.0f}\u00a0µs", f"99 of 100; median {latency['p50']:,.0f}\u00a0µs", ""),
    ]


def _tiles(tiles: Sequence[Tile]) -> str:
    items = "".join(
        f'<div class="tile {css}"><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>'
        for name, value, note, css in tiles
    )
    return f'<dl class="tiles">{items}</dl>'


def _plain_r(size: float) -> str:
    return f"{size:.2f}\u00a0R"


def _health(faults: int) -> str:
    return "bad" if faults else "good"


def curves(pairs: Sequence[Comparison]) -> str:
    if not pairs:
        return ""
    return (
        "<section><h2>Earned R, trade by trade</h2>"
        '<p class="legend"><span class="key with">with DTMS</span>'
        '<span class="key without">original stops and targets only</span></p>'
        f"{equity_chart(pairs)}<h3>What protection did to each trade</h3>"
        '<p class="fine">One bar a trade: its R with DTMS minus its R without. Up helped, down hurt.</p>'
        f"{difference_chart(pairs)}</section>"
    )


def states(summary: Summary, hours: Mapping[str, float]) -> str:
    entered: dict[str, int] = {"HEALTHY": summary["trades"]}
    for edge, number in summary["transitions"].items():
        before, after = edge.split("->")
        if before != after:
            entered[after] = entered.get(after, 0) + number
    whole = sum(hours.values()) or 1.0
    rows = "".join(
        f'<tr><th scope="row"><span class="chip {term.css}">{term.label}</span>'
        f"<small>{term.meaning}</small></th>"
        f"<td>{entered.get(state, 0):,}</td><td>{_share(hours.get(state, 0.0) / whole, state)}</td></tr>"
        for state, term in words.STATES.items()
    )
    edges = "".join(f"<tr>{_edge(edge)}<td>{number:,}</td></tr>" for edge, number in summary["transitions"].items())
    return (
        "<section><h2>The six states</h2>"
        "<p>The score says, from the side of the trade, how the market looks: six readings added up, from "
        f"{words.signed(-10.5, 1)} to {words.signed(10.5, 1)}; below zero speaks against the trade. When it falls far "
        "enough DTMS changes the state, and each state has its defence.</p>"
        '<div class="wide"><table class="numbers states"><thead><tr><th>State</th>'
        f"<th>Entered</th><th>Time</th></tr></thead><tbody>{rows}</tbody></table></div>"
        '<h3>Every step taken</h3><div class="wide"><table class="numbers edges"><thead><tr><th>From</th><th>To</th>'
        f"<th>Times</th></tr></thead><tbody>{edges}</tbody></table></div></section>"
    )


def _share(share: float, state: str) -> str:
    return "" if state == "CLOSED" else f"{share:.1%}"


def _edge(edge: str) -> str:
    before, after = (words.STATES[name] for name in edge.split("->"))
    goal = f'<span class="chip {after.css}">{after.label}</span>'
    if before == after:
        goal += " <small>stop trails structure</small>"
    return f'<td><span class="chip {before.css}">{before.label}</span></td><td>{goal}</td>'


def foot(summary: Summary, run: Run) -> str:
    return (
        "<footer><p>Every number and line on this page is read from the journal, the broker's results and the history. "
        "The same history gives the same journal, byte for byte; only the two latencies are wall clock.</p>"
        f"<p>Journal SHA-256 <code>{text(summary['journal_sha256'])}</code></p><p>{text(run.source)}</p></footer>"
    )
