"""The command `dtms`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.progress import Progress as ProgressBar
from rich.table import Table

from dtms.v1.event_pb2 import Event, KillScope, TradingState
from dtms.v1.trade_status_service_pb2 import Progress
from dtms_client import Client
from dtms_client import DtmsError as ClientError
from dtms_client.exit_manager.__main__ import main as exit_manager_main
from dtms_client.universal_manager.__main__ import main as universal_manager_main
from dtms_client.watch import Interrupted, Listed, Relisted, WatchItem
from dtms_service import logs
from dtms_service.credentials import token_path
from dtms_service.demo.run import run_demo
from dtms_service.describe import describe, status_rows
from dtms_service.errors import DtmsError, FatalError
from dtms_service.gateway.live import LiveOptions, run_live
from dtms_service.gateway.process import GatewayOptions, run_gateway
from dtms_service.live_table import LiveTable
from dtms_service.notify import check, open_senders
from dtms_service.replay.artefacts import write_json
from dtms_service.replay.command import fresh_data_dir
from dtms_service.replay.command import replay as run_replay
from dtms_service.replay.crew import programs
from dtms_service.replay.entries import TRADE_SYNTAX
from dtms_service.replay.options import ReplayOptions, job_of
from dtms_service.replay.shadow import read_shadow_run
from dtms_service.replay.strategies import STRATEGY_SYNTAX
from dtms_service.report.console import show_summary, show_trades
from dtms_service.report.shadow_table import show_shadow_report
from dtms_service.service import CREDENTIALS_FOLDER, SERVING
from dtms_service.service import serve as run_service
from dtms_service.settings import SPEC_SYNTAX, configuration, spec_override
from dtms_service.system import TITLE

if sys.platform == "win32":  # a gateway runs beside its terminal, where there is no uvloop
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

T = TypeVar("T")

app = cyclopts.App(
    name="dtms",
    help="Defensive Trade Management System: one authority over open MetaTrader 5 positions.",
    version_flags=["--version"],
)
console = Console()
errors = Console(stderr=True)

DEFAULT_ADDRESS = "127.0.0.1:50051"
VIEWER, OPERATOR = "viewer", "operator"  # identities that every service has
PASSWORD = "MT5_PASSWORD"  # noqa: S105  # the variable's name; a command line would show the password to everybody
Profile = Literal["intraday", "swing"]
Level = Literal["debug", "info", "warning", "error"]

EVERY_HELP = "open both sides at every whole so many s UTC, instead of the Turtle rule's breakouts"

Address = Annotated[str, Parameter(env_var="DTMS_ADDRESS", help="host:port of the service")]
TokenFile = Annotated[
    Path | None,
    Parameter(env_var="DTMS_TOKEN_FILE", help="the caller's token; default: DATA_DIR/credentials/viewer.token"),
]
OperatorTokenFile = Annotated[
    Path | None,
    Parameter(env_var="DTMS_TOKEN_FILE", help="the caller's token; default: DATA_DIR/credentials/operator.token"),
]
Scope = Annotated[Literal["account", "symbol", "manager"], Parameter(help="what the switch covers")]
DataDir = Annotated[Path | None, Parameter(env_var="DTMS_DATA_DIR", help="journal, credentials and lock")]


@app.command
def serve(
    *,
    config: Annotated[Path | None, Parameter(help="TOML file; environment DTMS_... lies over it")] = None,
    data_dir: Annotated[Path | None, Parameter(help="journal, credentials and lock")] = None,
    port: Annotated[int | None, Parameter(help="TCP port; 0 takes a free one")] = None,
    profile: Annotated[Profile | None, Parameter(help="intraday: M5 and M15; swing: H1 and H4")] = None,
    paper: Annotated[bool, Parameter(help="run the shipped play-money account, fed by StreamTicks")] = False,
    broker_log: Annotated[Path | None, Parameter(help="append every order at the paper account to this file")] = None,
    shadow: Annotated[bool, Parameter(help="decide and record, send nothing to the broker", negative="")] = False,
    lockstep: Annotated[
        list[str] | None,
        Parameter(help="run in virtual time with these managers (demo and tests)", consume_multiple=True),
    ] = None,
    trader: Annotated[list[str] | None, Parameter(help="further identities with the role MANAGER")] = None,
    log_level: Level = "info",
) -> None:
    """Run the service until SIGTERM. Says `serving at HOST:PORT` on stdout; logs are JSON lines on stderr."""
    logs.configure(log_level)
    given = {
        "data_dir": data_dir,
        "server.port": port,
        "profile": profile,
        "paper.broker_log": broker_log,
        "shadow": shadow or None,
    }
    settings = configuration(config, paper=paper, given=given)
    _run(
        run_service(
            settings,
            managers_in_lockstep=None if lockstep is None else frozenset(lockstep),
            traders=tuple(trader or ()),
            ready=lambda server: print(f"{SERVING}{server.address}", flush=True),  # noqa: T201  for whoever started us
        )
    )


@app.command
def replay(
    *history_files: Annotated[Path, Parameter(help="ticks or bars, plain or gzip; several in order of time")],
    symbol: Annotated[str, Parameter(help="as in the shipped table; its rules can be configured")],
    out: Annotated[Path, Parameter(help="where journal, logs, summary and report go")] = Path("replay-report"),
    trade: Annotated[list[str] | None, Parameter(help=TRADE_SYNTAX)] = None,
    volume: Annotated[float | None, Parameter(help="lots of each trade of the entry rule (without --trade)")] = None,
    entry_bar_s: Annotated[int | None, Parameter(help="length of the entry rule's bars, s")] = None,
    every_s: Annotated[int | None, Parameter(help=EVERY_HELP)] = None,
    spread_points: Annotated[int | None, Parameter(help="for files that have no spread")] = None,
    spec: Annotated[list[str] | None, Parameter(help=SPEC_SYNTAX)] = None,
    warm_up: Annotated[list[Path] | None, Parameter(help="older history that indicators and entry rule see")] = None,
    strategy_type: Annotated[list[str] | None, Parameter(help=STRATEGY_SYNTAX, consume_multiple=True)] = None,
    news: Annotated[Path | None, Parameter(help="news calendar, CSV with time, currency, impact, title")] = None,
    profile: Annotated[Profile | None, Parameter(help="intraday: M5 and M15; swing: H1 and H4")] = None,
    exit_manager: Annotated[bool, Parameter(help="run the exit manager beside the service")] = True,
    universal_manager: Annotated[bool, Parameter(help="run the Universal Manager beside the service")] = True,
    vix: Annotated[Path | None, Parameter(help="daily VIX for the exit manager: date,...,close; plain or gzip")] = None,
    config: Annotated[Path | None, Parameter(help="TOML file; environment DTMS_... lies over it")] = None,
    log_level: Level = "warning",
) -> None:
    """Run price history through the real service in virtual time; the same input gives the same journal."""
    logs.configure(log_level)
    options = ReplayOptions(
        files=history_files,
        symbol=symbol,
        trades=tuple(trade or ()),
        volume=volume,
        entry_bar_s=entry_bar_s,
        every_s=every_s,
        spread_points=spread_points,
        warm_up=tuple(warm_up or ()),
        strategy_types=tuple(strategy_type or ()),
        out=out,
    )
    given = {
        "data_dir": fresh_data_dir(out),
        "server.port": 0,
        "profile": profile,
        "rails.news_calendar": news,
        **spec_override(symbol, spec),
    }
    settings = configuration(config, paper=True, given=given)
    managers = programs(
        exit_manager=exit_manager, universal_manager=universal_manager, profile=settings.profile, vix=vix
    )
    with ProgressBar(console=console, transient=True) as bar:
        task = bar.add_task(f"replaying {symbol}", total=None)
        finished = _run(
            run_replay(
                options,
                settings,
                managers=managers,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        )
    show_trades(finished.trades, console)
    show_summary(finished, console)


@app.command
def demo(*, out: Annotated[Path, Parameter(help="where the report goes")] = Path("demo-report")) -> None:
    """Replay a year of real EURUSD prices through service, paper broker and managers; show and report it."""
    show_summary(_run(run_demo(out, console)), console)


@app.command
def gateway(
    *history_files: Annotated[Path, Parameter(help="paper: ticks or bars, plain or gzip; several in order of time")],
    service: Annotated[str, Parameter(help="host:port of the service")],
    token_file: Annotated[Path, Parameter(help="the gateway's token")],
    symbol: Annotated[list[str], Parameter(help="paper: one, as in the shipped table; mt5: the broker's names")],
    out: Annotated[Path, Parameter(help="a folder of its own: results (paper), tokens seen and server time (mt5)")],
    broker: Annotated[Literal["paper", "mt5"], Parameter(help="a history, or a MetaTrader 5 terminal")] = "paper",
    account: Annotated[str | None, Parameter(help="mt5: LOGIN@SERVER, the one account that is served")] = None,
    terminal: Annotated[str | None, Parameter(help="mt5: terminal64.exe, where the machine has several")] = None,
    password_file: Annotated[Path | None, Parameter(help=f"mt5: or {PASSWORD}; else what the terminal saved")] = None,
    mt5_module: Annotated[str, Parameter(help="mt5: a module with its functions, or MODULE:CLASS")] = "MetaTrader5",
    server_utc_offset_s: Annotated[int | None, Parameter(help="mt5: where no tick moves that would show it")] = None,
    trader_token_file: Annotated[Path | None, Parameter(help="paper: token of the entry bot")] = None,
    trade: Annotated[list[str] | None, Parameter(help=TRADE_SYNTAX)] = None,
    volume: Annotated[float | None, Parameter(help="lots of each trade of the entry rule (without --trade)")] = None,
    entry_bar_s: Annotated[int | None, Parameter(help="length of the entry rule's bars, s")] = None,
    every_s: Annotated[int | None, Parameter(help=EVERY_HELP)] = None,
    spread_points: Annotated[int | None, Parameter(help="for files that have no spread")] = None,
    spec: Annotated[list[str] | None, Parameter(help=SPEC_SYNTAX)] = None,
    strategy_type: Annotated[list[str] | None, Parameter(help=STRATEGY_SYNTAX, consume_multiple=True)] = None,
    profile: Annotated[Profile | None, Parameter(help="as the service's")] = None,
    root_certificates: Annotated[Path | None, Parameter(help="PEM file, for TLS")] = None,
    config: Annotated[Path | None, Parameter(help="TOML file; environment DTMS_... lies over it")] = None,
    log_level: Level = "info",
) -> None:
    """Run a broker as a process of its own: a MetaTrader 5 terminal, or the paper broker on a history in lockstep."""
    if broker == "mt5":
        logs.configure(log_level)
        if account is None or "@" not in account:
            _fail("--broker mt5 needs --account LOGIN@SERVER")
        password = password_file.read_text(encoding="utf-8").strip() if password_file else os.environ.get(PASSWORD)
        sys.exit(
            run_live(
                LiveOptions(
                    service=service,
                    token_file=token_file,
                    root_certificates=root_certificates,
                    data_dir=out,
                    account_id=account,
                    terminal=terminal,
                    password=password,
                    package=mt5_module,
                    symbols=tuple(symbol),
                    offset_s=server_utc_offset_s,
                )
            )
        )
    if trader_token_file is None or len(symbol) != 1:
        _fail("--broker paper needs --trader-token-file and one --symbol")
    options = ReplayOptions(
        files=history_files,
        symbol=symbol[0],
        trades=tuple(trade or ()),
        volume=volume,
        entry_bar_s=entry_bar_s,
        every_s=every_s,
        spread_points=spread_points,
        warm_up=(),
        strategy_types=tuple(strategy_type or ()),
        out=out,
    )
    settings = configuration(
        config, paper=True, given={"data_dir": out, "profile": profile, **spec_override(symbol[0], spec)}
    )
    job = job_of(options, settings, lambda _done, _total: None)
    sys.exit(run_gateway(GatewayOptions(service, token_file, trader_token_file, root_certificates, job)))


@app.command(name="shadow-report")
def show_shadow(
    *,
    data_dir: Annotated[Path, Parameter(env_var="DTMS_DATA_DIR", help="of a shadow run whose service has ended")],
    json_file: Annotated[Path | None, Parameter(name="--json", help="write everything to this file as well")] = None,
) -> None:
    """Show what a shadow run would have changed: its writes beside what the account did, and results both ways."""
    report = read_shadow_run(data_dir)
    if json_file is not None:
        write_json(json_file, report.document())
    show_shadow_report(report, console)


@app.command
def status(*, address: Address = DEFAULT_ADDRESS, token_file: TokenFile = None, data_dir: DataDir = None) -> None:
    """Show what the service does and how it is."""
    with _client(address, token_file, data_dir) as client:
        answer = client.system_status()
    table = Table(show_header=False, box=None)
    for name, value in status_rows(answer):
        table.add_row(name, value)
    console.print(table)


@app.command
def watch(
    *,
    address: Address = DEFAULT_ADDRESS,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    from_revision: Annotated[int, Parameter(help="start here instead of with the trades as they are")] = 0,
    plain: Annotated[bool, Parameter(help="one line an event instead of a live table")] = False,
) -> None:
    """Follow all trades live; resumes by itself after an outage."""
    table = LiveTable(f"DTMS {address}")
    with _client(address, token_file, data_dir) as client:
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


@app.command
def explain(
    *,
    revision: Annotated[int | None, Parameter(help="an event of the journal")] = None,
    decision: Annotated[int | None, Parameter(help="a decision's number")] = None,
    request_id: Annotated[str | None, Parameter(help="a proposal's key; needs --manager")] = None,
    manager: Annotated[str, Parameter(help="whose request_id")] = "",
    address: Address = DEFAULT_ADDRESS,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
) -> None:
    """Say why a proposal was decided as it was, or what led to an event."""
    if [revision, decision, request_id].count(None) != 2:
        _fail("give one of --revision, --decision, --request-id")
    with _client(address, token_file, data_dir) as client:
        answer = client.explain(decision_id=decision, revision=revision, request_id=request_id, manager=manager)
    console.print(answer.summary, soft_wrap=True)
    if answer.rule:
        console.print(f"rule: {answer.rule}", soft_wrap=True)
    for event in answer.events[1:]:
        console.print(f"  {describe(event)}", soft_wrap=True)


@app.command(name="notify-test")
def notify_test(
    *,
    config: Annotated[Path | None, Parameter(help="TOML file; environment DTMS_... lies over it")] = None,
) -> None:
    """Send one message to each target of the section [notifications]; say which of them did not take it."""
    told = configuration(config, paper=False, given={"data_dir": Path()}).notifications
    if not told.urls:
        _fail("no urls in the section [notifications]: set DTMS_NOTIFICATIONS__URLS")
    check(told)
    failed = False
    for sender in open_senders(told.urls, told.timeout_s):
        why = sender(TITLE, "Test: notifications of DTMS arrive here.")
        failed |= why is not None
        console.print(f"{sender.label}: {'delivered' if why is None else f'FAILED: {why}'}", soft_wrap=True)
    if failed:
        sys.exit(1)


@app.command(name="trading-state")
def trading_state(
    state: Annotated[Literal["ACTIVE", "REDUCING", "HALTED"], Parameter(help="the new state")],
    *,
    reason: Annotated[str, Parameter(help="why; recorded")],
    address: Address = DEFAULT_ADDRESS,
    token_file: OperatorTokenFile = None,
    data_dir: DataDir = None,
) -> None:
    """Allow everything (ACTIVE), nothing that adds risk (REDUCING), or managers only to close (HALTED)."""
    with _client(address, token_file, data_dir, identity=OPERATOR) as client:
        answer = client.set_trading_state(TradingState.Value(f"TRADING_STATE_{state}"), reason=reason)
    console.print(f"{state} as of revision {answer.revision}")


@app.command
def kill(
    scope: Scope,
    value: Annotated[str, Parameter(help="account, symbol or manager")],
    *,
    reason: Annotated[str, Parameter(help="why; recorded")],
    flatten: Annotated[bool, Parameter(help="close the trades of the account or symbol at once", negative="")] = False,
    address: Address = DEFAULT_ADDRESS,
    token_file: OperatorTokenFile = None,
    data_dir: DataDir = None,
) -> None:
    """Throw a kill switch: it stops managers and takes the trades it covers from them."""
    _switch(scope, value, reason, _client(address, token_file, data_dir, identity=OPERATOR), flatten=flatten)


@app.command
def release(
    scope: Scope,
    value: Annotated[str, Parameter(help="account, symbol or manager")],
    *,
    reason: Annotated[str, Parameter(help="why; recorded")],
    address: Address = DEFAULT_ADDRESS,
    token_file: OperatorTokenFile = None,
    data_dir: DataDir = None,
) -> None:
    """Release a kill switch; the trades stay with DTMS until a manager acquires them."""
    _switch(scope, value, reason, _client(address, token_file, data_dir, identity=OPERATOR), engaged=False)


def _switch(
    scope: str, value: str, reason: str, opened: Client, *, engaged: bool = True, flatten: bool = False
) -> None:
    number = KillScope.Value(f"KILL_SCOPE_{scope.upper()}")
    with opened as client:
        answer = client.set_kill_switch(number, value, engaged=engaged, reason=reason, flatten=flatten)
    done = "thrown, everything is closed" if flatten else "thrown" if engaged else "released"
    console.print(f"kill switch {scope} {value} {done} as of revision {answer.revision}", soft_wrap=True)


@app.command(name="exit-manager", help_flags=[])
def exit_manager(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Run the Intelligent Exit Manager against a service (its own --help says more)."""
    sys.exit(exit_manager_main(list(arguments)))


@app.command(name="universal-manager", help_flags=[])
def universal_manager(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Run the Universal Manager against a service (its own --help says more)."""
    sys.exit(universal_manager_main(list(arguments)))


def _client(address: str, token_file: Path | None, data_dir: Path | None, *, identity: str = VIEWER) -> Client:
    if token_file is None:
        if data_dir is None:
            _fail("give --token-file, or --data-dir of a service on this machine")
        token_file = token_path(data_dir / CREDENTIALS_FOLDER, identity)
    return Client(address, token_file=token_file)


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def _fail(message: str) -> NoReturn:
    errors.print(f"dtms: {message}", style="bold red", soft_wrap=True, highlight=False)
    sys.exit(2)


def main() -> None:
    """Errors that the user can mend are one line; anything else is a traceback."""
    try:
        app()
    except (FatalError, DtmsError, ClientError, FileNotFoundError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
