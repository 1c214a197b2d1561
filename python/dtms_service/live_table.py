"""The live table of `dtms watch` and `dtms demo`: trades as they are, events as they come."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dtms.v1 import event_pb2, ownership_pb2, trade_pb2
from dtms_service.describe import clock, describe, enum_name

EVENTS_SHOWN = 10
TRADES_SHOWN = 20

STATE_STYLES = {
    trade_pb2.TRADE_STATE_HEALTHY: "green",
    trade_pb2.TRADE_STATE_WARNING_L1: "yellow",
    trade_pb2.TRADE_STATE_WARNING_L2: "dark_orange",
    trade_pb2.TRADE_STATE_HEDGED: "red",
    trade_pb2.TRADE_STATE_RECOVERING: "cyan",
    trade_pb2.TRADE_STATE_CLOSED: "dim",
}
_QUIET = frozenset({"decision_made", "intent_recorded", "hold_changed", "symbol_defined", "account_defined"})


class LiveTable:
    """Fed with trades and events, rendered by rich. Keeps the newest ones only."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._trades: OrderedDict[tuple[str, int], trade_pb2.Trade] = OrderedDict()
        self._events: deque[Text] = deque(maxlen=EVENTS_SHOWN)
        self.footer = ""
        self.virtual_time = ""

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
        if event.WhichOneof("body") not in _QUIET:
            line = Text(f"{clock(event.time_ns)}  ", style="dim")
            line.append(describe(event), style=STATE_STYLES.get(event.state, ""))
            self._events.appendleft(line)

    def __rich__(self) -> RenderableType:
        table = Table(title=self._title, expand=True, title_justify="left")
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
        return Group(table, events, Text(self.footer, style="dim"))


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
        f"{trade.managed_by or '-'} ({enum_name(ownership_pb2.Rank, trade.owner_rank)})",
        f"{trade.entry_price:g}",
        f"{trade.confirmed.sl:g}" if trade.confirmed.HasField("sl") else "none",
        f"{trade.risk_distance:g}" if trade.HasField("risk_distance") else "?",
        f"{trade.hedge.volume:g} @ {trade.hedge.entry_price:g}" if trade.HasField("hedge") else "",
        str(trade.revision),
    ]
