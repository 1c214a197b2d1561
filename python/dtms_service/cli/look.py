"""What people look at: `dtms status`, `watch`, `explain`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.live import Live
from rich.table import Table

from dtms.v1.event_pb2 import Event
from dtms.v1.trade_status_service_pb2 import Progress
from dtms_client.watch import Interrupted, Listed, Relisted, WatchItem
from dtms_service.cli.common import (
    DEFAULT_ADDRESS,
    Address,
    DataDir,
    RootCertificates,
    TokenFile,
    client_of,
    console,
    errors,
    fail,
)
from dtms_service.describe import describe, status_rows
from dtms_service.live_table import LiveTable


def status(
    *,
    address: Address = DEFAULT_ADDRESS,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    root_certificates: RootCertificates = None,
) -> None:
    """Show what the service does and how it is."""
    with client_of(address, token_file, data_dir, root_certificates) as client:
        answer = client.system_status()
    table = Table(show_header=False, box=None)
    for name, value in status_rows(answer):
        table.add_row(name, value)
    console.print(table)


def watch(
    *,
    address: Address = DEFAULT_ADDRESS,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    root_certificates: RootCertificates = None,
    from_revision: Annotated[int, Parameter(help="start here instead of with the trades as they are")] = 0,
    plain: Annotated[bool, Parameter(help="one line an event instead of a live table")] = False,
) -> None:
    """Follow all trades live; resumes by itself after an outage."""
    table = LiveTable(f"DTMS {address}")
    with client_of(address, token_file, data_dir, root_certificates) as client:
        items = client.watch(start_revision=from_revision, snapshot=not from_revision)
        if plain or not console.is_terminal:
            for item in items:
                if isinstance(item, Listed | Relisted) and client.system_status().shadow:
                    console.print("SHADOW: nothing of this is sent to the broker")
                _print_item(item)
            return
        with Live(table, console=console, refresh_per_second=8) as live:
            for item in items:
                match item:
                    case Listed(trades=trades) | Relisted(trades=trades):
                        table.shadow = client.system_status().shadow
                        table.show_trades(trades)
                    case Interrupted(error=error):
                        table.footer = f"interrupted: {error}"
                    case Event() as event:
                        table.show_event(event)
                        if event.ticket:
                            table.show_trades([client.get_trade(event.ticket, account_id=event.account_id)])
                    case Progress() as mark:
                        table.footer = f"revision {mark.revision}"
                live.refresh()


def _print_item(item: WatchItem) -> None:
    match item:
        case Listed(trades=trades, revision=revision) | Relisted(trades=trades, revision=revision):
            console.print(f"{len(trades)} trades as of revision {revision}")
        case Interrupted(error=error):
            errors.print(f"interrupted: {error}; resuming")
        case Event() as event:
            console.print(describe(event), soft_wrap=True)
        case Progress():
            pass


def explain(
    *,
    revision: Annotated[int | None, Parameter(help="an event of the journal")] = None,
    decision: Annotated[int | None, Parameter(help="a decision's number")] = None,
    request_id: Annotated[str | None, Parameter(help="a proposal's key; needs --manager")] = None,
    manager: Annotated[str, Parameter(help="whose request_id")] = "",
    address: Address = DEFAULT_ADDRESS,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    root_certificates: RootCertificates = None,
) -> None:
    """Say why a proposal was decided as it was, or what led to an event."""
    if [revision, decision, request_id].count(None) != 2:
        fail("give one of --revision, --decision, --request-id")
    with client_of(address, token_file, data_dir, root_certificates) as client:
        answer = client.explain(decision_id=decision, revision=revision, request_id=request_id, manager=manager)
    console.print(answer.summary, soft_wrap=True)
    if answer.rule:
        console.print(f"rule: {answer.rule}", soft_wrap=True)
    if answer.winner:
        console.print(f"winner: {answer.winner}", soft_wrap=True)
    for loser in answer.losers:
        decision_made = f", decision {loser.decision_id}" if loser.decision_id else ""
        console.print(f"loser: {loser.manager}{decision_made}: {loser.why}", soft_wrap=True)
    for event in answer.events[1:]:
        console.print(f"  {describe(event)}", soft_wrap=True)
