"""The report of a shadow run on a terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from dtms_service.describe import clock
from dtms_service.report.shadow import Ending, ShadowReport, ShadowTrade, ShadowWrite
from dtms_service.report.words import DENIALS
from dtms_service.shadow.record import ChangeKind, RealChange


def show_shadow_report(report: ShadowReport, console: Console) -> None:
    """Trades both ways, what would have been written, totals, denials."""
    console.print(_trades(report))
    for trade in report.trades:
        if trade.writes:
            console.print(_story(trade))
    console.print(_totals(report))


def _trades(report: ShadowReport) -> Table:
    table = Table(title="What the account did, and what it would have done under DTMS", title_justify="left")
    for column in ("trade", "account", "shadow", "gain", "writes"):
        table.add_column(column, justify="left" if column in {"trade", "writes"} else "right")
    for trade in report.trades:
        by_manager = Counter(write.manager for write in trade.writes)
        table.add_row(
            f"{trade.side} {trade.symbol} {trade.ticket}\n{trade.volume:g} lot",
            f"{_both(trade.account.money, trade.account.r)}\n{_end(trade.account)}",
            f"{_both(trade.shadow.money, trade.shadow.r)}\n{_end(trade.shadow)}",
            _both(trade.gain_money, trade.gain_r),
            "\n".join(f"{manager} {n}" for manager, n in by_manager.items()) or "none",
        )
    return table


def _story(trade: ShadowTrade) -> Table:
    """Left what DTMS and the managers changed in the shadow, right what happened on the account, each in its order."""
    table = Table(title=f"{trade.side} {trade.symbol} {trade.ticket}", title_justify="left", box=None, pad_edge=False)
    table.add_column("would have been written")
    table.add_column("happened on the account")
    written = [_write_words(write) for write in trade.writes]
    happened = [_change_words(change) for change in trade.on_the_account]
    for index in range(max(len(written), len(happened))):
        table.add_row(written[index] if index < len(written) else "", happened[index] if index < len(happened) else "")
    return table


def _totals(report: ShadowReport) -> Table:
    totals = report.totals
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "trades": f"{totals.trades}, {totals.compared} with money known both ways",
        "account": _both(totals.account_money, totals.account_r),
        "shadow": _both(totals.shadow_money, totals.shadow_r),
        "gain": _both(totals.shadow_money - totals.account_money, totals.shadow_r - totals.account_r),
        "better, worse, same": f"{totals.better}, {totals.worse}, {totals.same}",
        "writes": f"{totals.writes}, {totals.writes_that_differ} of them nowhere on the account",
        "by manager": "; ".join(
            f"{manager}: {', '.join(f'{kind} {n}' for kind, n in kinds.items())}"
            for manager, kinds in report.writes.items()
        )
        or "none",
        "decisions granted": str(report.granted),
        "decisions denied": "; ".join(f"{code} {n} ({DENIALS.get(code, code)})" for code, n in report.denied.items())
        or "none",
        "positions without a trade": str(report.unregistered),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _both(money: float | None, r: float | None) -> str:
    return f"{'?' if money is None else f'{money:+.2f}'}, {'?' if r is None else f'{r:+.2f}'} R"


def _end(ending: Ending) -> str:
    if ending.is_open:
        return "open"
    return f"{ending.reason} at {ending.price:g}" if ending.reason else "-"


def _write_words(write: ShadowWrite) -> str:
    if write.volume is None:
        what = f"{write.kind} {'none' if write.level is None else f'{write.level:g}'}"
    else:
        what = f"{write.kind} {write.volume:g}" + (f" at {write.price:g}" if write.price is not None else "")
    there = "" if write.differs else " (there as well)"
    return f"{clock(write.time_ns)} {write.manager}: {what} ({write.purpose}){there}"


def _change_words(change: RealChange) -> str:
    levels = f"stop {_level(change.sl)}, target {_level(change.tp)}"
    deal = f"{change.volume:g} at {change.price:g}"
    what = {
        ChangeKind.OPENED: f"opened {deal}, {levels}",
        ChangeKind.LEVELS: levels,
        ChangeKind.ADDED: f"added {deal}",
        ChangeKind.REDUCED: f"closed {deal}, {change.reason}",
        ChangeKind.CLOSED: f"closed the rest, {deal}, {change.reason}",
    }
    return f"{clock(change.time_msc * 1_000_000)} {what[change.kind]}"


def _level(price: float | None) -> str:
    return "none" if price is None else f"{price:g}"
