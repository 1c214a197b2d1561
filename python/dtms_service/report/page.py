"""The report: one HTML file that needs nothing else, for screens of any size, light or dark, and for paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from dtms.v1 import event_pb2
from dtms_service.report import managers, overview, trades, words
from dtms_service.report.disputes import disputes
from dtms_service.report.figures import most_telling
from dtms_service.report.inputs import Bar, BrokerWrite, Run, TradeResult, compare
from dtms_service.report.story import Story, tell
from dtms_service.report.summary import summarise

FILE_NAME = "report.html"

_FEATURED = 12  # a dozen charts can be read in one sitting
_CHARTS_MOST = 250  # about 20 kB each: beyond it a phone takes long to open the page; the table still has all trades


def write_report(
    out_dir: Path,
    events: Sequence[event_pb2.Event],
    bars: Sequence[Bar],
    results: Sequence[TradeResult],
    run: Run,
    *,
    broker_log: Iterable[BrokerWrite] | None = None,
) -> Path:
    """Writes ``report.html`` into the folder, which exists, and answers with its path.

    ``events`` is the whole run in order of revision, ``bars`` its bars in order of time; both may be empty.
    """
    path = out_dir / FILE_NAME
    path.write_text(render(events, bars, results, run, broker_log), encoding="utf-8")
    return path


def render(
    events: Sequence[event_pb2.Event],
    bars: Sequence[Bar],
    results: Sequence[TradeResult],
    run: Run,
    broker_log: Iterable[BrokerWrite] | None,
) -> str:
    """The page as text; equal for equal inputs."""
    summary = summarise(events, results, run, broker_log)
    stories = tell(events)
    by_ticket = {story.ticket: story for story in stories.values()}
    told = [(by_ticket[r.ticket], r) for r in sorted(results, key=lambda r: (r.opened_ns, r.ticket))]
    featured = most_telling(told, _FEATURED)
    rest = [pair for pair in told if pair not in featured]
    charted = {result.ticket for _story, result in [*featured, *rest[: _CHARTS_MOST - len(featured)]]}
    disputed, shown = disputes(events), {key: story for key, story in stories.items() if story.ticket in charted}
    charts = trades.Charts(bars, _period_s(bars))
    sections = [
        overview.head(summary, results, run),
        overview.curves(compare(results)),
        managers.who_did_what(summary),
        managers.decisions(summary, disputed.examples, shown),
        managers.takeovers(disputed.takeovers, shown),
        overview.states(summary, _state_hours(stories.values(), bars)),
        trades.reading(),
        trades.featured(featured, charts),
        trades.table(told),
        trades.others(rest, charts, _CHARTS_MOST - len(featured)),
        overview.foot(summary, run),
    ]
    title = words.text(f"DTMS: {run.symbol}, {words.count(summary['trades'], 'trade')}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title><style>{_asset("style.css")}</style>'
        f"</head><body><main>{''.join(sections)}</main><script>{_asset('hover.js')}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return files("dtms_service.report").joinpath(name).read_text(encoding="utf-8")


def _period_s(bars: Sequence[Bar]) -> int:
    return min((after.time_s - before.time_s for before, after in pairwise(bars)), default=1)


def _state_hours(stories: Iterable[Story], bars: Sequence[Bar]) -> dict[str, float]:
    """Hours that all trades together spent in each state, by the clock of the history."""
    hours: dict[str, float] = {}
    end_ns = bars[-1].time_s * 1_000_000_000 if bars else 0
    for story in stories:
        times = [step.time_ns for step in story.states] + [story.ended_ns or max(end_ns, story.states[-1].time_ns)]
        for step, until in zip(story.states, times[1:], strict=True):
            if step.state != "CLOSED":
                hours[step.state] = hours.get(step.state, 0.0) + max(until - step.time_ns, 0) / 3.6e12
    return hours
