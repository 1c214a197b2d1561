"""What a trader sees on the terminal."""

from __future__ import annotations

from rich.console import Console

from dtms.v1.action_pb2 import (
    ACTION_KIND_STOP,
    DENIAL_CODE_IN_FLIGHT,
    DENIAL_CODE_OWNED_BY_OTHER,
    PURPOSE_TRAIL,
    Action,
    Decision,
)
from dtms.v1.event_pb2 import AccountMarked, DecisionMade, Event, OwnershipGranted, TradeArmed
from dtms.v1.ownership_pb2 import GRANT_CAUSE_DEFENSIVE, RANK_STRATEGY
from dtms.v1.trade_pb2 import TRADE_STATE_CLOSED, TRADE_STATE_HEALTHY, Trade
from dtms_service.live_table import LiveTable


def shown(table: LiveTable) -> list[str]:
    console = Console(width=200, record=True, quiet=False)
    with console.capture() as printed:
        console.print(table)
    return printed.get().splitlines()


def decided(manager: str, **fields: object) -> Event:
    action = Action(kind=ACTION_KIND_STOP, purpose=PURPOSE_TRAIL, stop=1.09)
    decision = Decision(manager=manager, action=action, **fields)  # type: ignore[arg-type]  # fields by name
    return Event(revision=9, ticket=7, symbol="EURUSD", decision_made=DecisionMade(decision=decision))


def test_a_trade_that_has_closed_is_shown_closed() -> None:
    """Lists name open trades only, so the event of the close changes the row that stands."""
    table = LiveTable("test")
    table.show_trades([Trade(account_id="1@x", ticket=7, symbol="EURUSD", state=TRADE_STATE_HEALTHY)])
    table.show_event(Event(revision=9, account_id="1@x", ticket=7, symbol="EURUSD", state=TRADE_STATE_CLOSED))
    table.show_trades([])
    row = next(line for line in shown(table) if "7" in line and "EURUSD" in line)
    assert "CLOSED" in row
    assert "HEALTHY" not in row


def test_each_manager_has_its_counts_and_its_last_action_with_the_reason() -> None:
    """Asked, granted, denied by code and takeovers are counted by manager; the last line says what it was and why."""
    table = LiveTable("test")
    table.show_event(decided("exit", granted=True))
    table.show_event(decided("exit", denial=DENIAL_CODE_IN_FLIGHT))
    table.show_event(decided("exit", denial=DENIAL_CODE_OWNED_BY_OTHER))
    table.show_event(decided("universal", granted=True, rank=RANK_STRATEGY))
    taken = OwnershipGranted(managed_by="dtms_manager", displaced="universal", cause=GRANT_CAUSE_DEFENSIVE)
    table.show_event(Event(revision=12, ticket=7, symbol="EURUSD", ownership_granted=taken))
    rows = {line.split("│")[1].strip(): line for line in shown(table) if "EURUSD 7:" in line and line.startswith("│")}
    cells = {name: [cell.strip() for cell in row.split("│")[2:-1]] for name, row in rows.items()}
    why = "EURUSD 7: STOP (TRAIL) stop 1.09, denied OWNED_BY_OTHER: the owner has the higher rank"
    assert cells["exit"] == ["3", "1", "IN_FLIGHT 1, OWNED_BY_OTHER 1", "0", why]
    assert cells["universal"] == ["1", "1", "0", "0", "EURUSD 7: STOP (TRAIL) stop 1.09, granted to STRATEGY"]
    assert cells["dtms_manager"] == ["0", "0", "0", "1", "EURUSD 7: took it from universal (DEFENSIVE)"]


def test_an_hour_that_begins_pushes_no_event_off_the_table() -> None:
    """Marks of the account come every hour of a history; what happened to trades stays readable."""
    table = LiveTable("test")
    table.show_event(Event(revision=3, symbol="EURUSD", ticket=7, trade_armed=TradeArmed()))
    for revision in range(4, 30):
        table.show_event(Event(revision=revision, account_id="1@x", account_marked=AccountMarked()))
    assert any("trade armed" in line for line in shown(table))
