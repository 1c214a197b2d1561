"""The live table of `dtms watch` and `dtms demo`: trades as they are, managers as they act, events as they come."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, trade_pb2
from dtms_service.describe import RULES, action_words, clock, describe, enum_name
from dtms_service.report.summary import is_takeover

EVENTS_SHOWN = 10
TRADES_SHOWN = 12  # with managers and events that is what fits into 40 lines
MANAGERS_SHOWN = 8  # three are built in; a terminal has room for a few more

STATE_STYLES = {
    trade_pb2.TRADE_STATE_HEALTHY: "green",
    trade_pb2.TRADE_STATE_WARNING_L1: "yellow",
    trade_pb2.TRADE_STATE_WARNING_L2: "dark_orange",
    trade_pb2.TRADE_STATE_HEDGED: "red",
    trade_pb2.TRADE_STATE_RECOVERING: "cyan",
    trade_pb2.TRADE_STATE_CLOSED: "dim",
}
_QUIET = frozenset(
    {
        "decision_made",
        "intent_recorded",
        "hold_changed",
        "symbol_defined",
        "account_defined",
        "account_marked",
        "memo_set",
    }
)


@dataclass(slots=True)
class _Doings:
    """What one manager has done since the table began to watch, and the last of it."""

    asked: int = 0
    granted: int = 0
    denied: Counter[str] = field(default_factory=Counter)
    takeovers: int = 0
    last: str = ""


class LiveTable:
    """Fed with trades and events, rendered by rich. Keeps the newest ones only."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._trades: OrderedDict[tuple[str, int], trade_pb2.Trade] = OrderedDict()
        self._managers: dict[str, _Doings] = {}
        self._events: deque[Text] = deque(maxlen=EVENTS_SHOWN)
        self.footer = ""
        self.virtual_time = ""
        self.shadow = False

    def show_trades(self, trades: Iterable[trade_pb2.Trade]) -> None:
        for trade in trades:
            key = (trade.account_id, trade.ticket)
            self._trades[key] = trade
            self._trades.move_to_end(key)
        while len(self._trades) > TRADES_SHOWN:
            oldest = next((k for k, t in self._trades.items() if t.state == trade_pb2.TRADE_STATE_CLOSED), None)
            self._trades.pop(oldest if oldest is not None else next(iter(self._trades)))

    def show_event(self, event: event_pb2.Event) -> None:
        known = self._trades.get((event.account_id, event.ticket))
        if known is not None and event.state:
            known.state = event.state  # a trade that closes is listed no more: its last event says so
        match event.WhichOneof("body"):
            case "decision_made":
                self._decided(event, event.decision_made.decision)
            case "ownership_granted":
                self._granted(event, event.ownership_granted)
            case _:
                pass
        if event.WhichOneof("body") not in _QUIET:
            line = Text(f"{clock(event.time_ns)}  ", style="dim")
            line.append(describe(event), style=STATE_STYLES.get(event.state, ""))
            self._events.appendleft(line)

    def _decided(self, event: event_pb2.Event, decision: action_pb2.Decision) -> None:
        doings = self._managers.setdefault(decision.manager, _Doings())
        doings.asked += 1
        action = action_words(decision.action)
        if decision.granted:
            doings.granted += 1
            doings.last = f"{_place(event)}: {action}, granted to {_rank(decision.rank)}"
        else:
            code = enum_name(action_pb2.DenialCode, decision.denial)
            doings.denied[code] += 1
            doings.last = f"{_place(event)}: {action}, denied {code}: {RULES[decision.denial]}"

    def _granted(self, event: event_pb2.Event, grant: event_pb2.OwnershipGranted) -> None:
        if not is_takeover(grant):
            return
        doings = self._managers.setdefault(grant.managed_by, _Doings())
        doings.takeovers += 1
        cause = enum_name(ownership_pb2.GrantCause, grant.cause)
        doings.last = f"{_place(event)}: took it from {grant.displaced} ({cause})"

    def _doings(self) -> Table:
        table = Table(title="managers", expand=True, title_justify="left")
        for column in ("manager", "asked", "granted", "denied", "takeovers", "last: what and why"):
            table.add_column(column, justify="right" if column in ("asked", "granted", "takeovers") else "left")
        for name in sorted(self._managers)[:MANAGERS_SHOWN]:
            doings = self._managers[name]
            denied = ", ".join(f"{code} {n}" for code, n in sorted(doings.denied.items())) or "0"
            table.add_row(
                name, str(doings.asked), str(doings.granted), denied, str(doings.takeovers), Text(doings.last)
            )
        return table

    def __rich__(self) -> RenderableType:
        title = f"{self._title}  SHADOW: nothing of this is sent to the broker" if self.shadow else self._title
        table = Table(title=title, expand=True, title_justify="left")
        for column in (
            "ticket",
            "symbol",
            "side",
            "lots",
            "state",
            "owner",
            "entry",
            "confirmed stop",
            "R",
            "hedge",
            "rev",
        ):
            table.add_column(
                column, justify="right" if column in ("lots", "entry", "confirmed stop", "R", "rev") else "left"
            )
        for trade in reversed(self._trades.values()):
            table.add_row(*_row(trade))
        events = Panel(Group(*self._events), title="events", title_align="left", height=EVENTS_SHOWN + 2)
        return Group(table, self._doings(), events, Text(self.footer, style="dim"))


def _place(event: event_pb2.Event) -> str:
    return f"{event.symbol} {event.ticket}"


def _rank(rank: ownership_pb2.Rank.ValueType) -> str:
    return enum_name(ownership_pb2.Rank, rank)


def _row(trade: trade_pb2.Trade) -> list[str | Text]:
    state = Text(enum_name(trade_pb2.TradeState, trade.state), style=STATE_STYLES.get(trade.state, ""))
    if trade.phase == trade_pb2.STATE_PHASE_PENDING:
        state.append(" …")
    return [
        str(trade.ticket),
        trade.symbol,
        enum_name(trade_pb2.Side, trade.side),
        f"{trade.volume:g}",
        state,
        f"{trade.managed_by or '-'} ({_rank(trade.owner_rank)})",
        f"{trade.entry_price:g}",
        f"{trade.confirmed.sl:g}" if trade.confirmed.HasField("sl") else "none",
        f"{trade.risk_distance:g}" if trade.HasField("risk_distance") else "?",
        f"{trade.hedge.volume:g} @ {trade.hedge.entry_price:g}" if trade.HasField("hedge") else "",
        str(trade.revision),
    ]
