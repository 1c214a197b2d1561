"""What a trader sees on the terminal."""

from __future__ import annotations

from rich.console import Console

from dtms.v1.event_pb2 import Event
from dtms.v1.trade_pb2 import TRADE_STATE_CLOSED, TRADE_STATE_HEALTHY, Trade
from dtms_service.live_table import LiveTable


def test_a_trade_that_has_closed_is_shown_closed() -> None:
    """Lists name open trades only, so the event of the close changes the row that stands."""
    table = LiveTable("test")
    table.show_trades([Trade(account_id="1@x", ticket=7, symbol="EURUSD", state=TRADE_STATE_HEALTHY)])
    table.show_event(Event(revision=9, account_id="1@x", ticket=7, symbol="EURUSD", state=TRADE_STATE_CLOSED))
    table.show_trades([])
    console = Console(width=160, record=True, quiet=False)
    with console.capture() as shown:
        console.print(table)
    row = next(line for line in shown.get().splitlines() if "7" in line and "EURUSD" in line)
    assert "CLOSED" in row
    assert "HEALTHY" not in row
