"""Runs over histories and at terminals: `dtms replay`, `demo`, `gateway`, `shadow-report`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.progress import Progress as ProgressBar

from dtms_service import logs
from dtms_service.cli.common import Level, Profile, console, fail, run
from dtms_service.demo.run import run_demo
from dtms_service.gateway.live import LiveOptions, run_live
from dtms_service.gateway.process import GatewayOptions, run_gateway
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
from dtms_service.settings import SPEC_SYNTAX, configuration, spec_override
from dtms_service.supervisor import PASSWORD

EVERY_HELP = "open both sides at every whole so many s UTC, instead of the Turtle rule's breakouts"


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
        finished = run(
            run_replay(
                options,
                settings,
                managers=managers,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        )
    show_trades(finished.trades, console)
    show_summary(finished, console)


def demo(*, out: Annotated[Path, Parameter(help="where the report goes")] = Path("demo-report")) -> None:
    """Replay a year of real EURUSD prices through service, paper broker and managers; show and report it."""
    show_summary(run(run_demo(out, console)), console)


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
    supervised: Annotated[bool, Parameter(help="mt5: end when standard input ends", negative="")] = False,
    log_level: Level = "info",
) -> None:
    """Run a broker as a process of its own: a MetaTrader 5 terminal, or the paper broker on a history in lockstep."""
    if broker == "mt5":
        logs.configure(log_level)
        if account is None or "@" not in account:
            fail("--broker mt5 needs --account LOGIN@SERVER")
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
                    supervised=supervised,
                )
            )
        )
    if trader_token_file is None or len(symbol) != 1:
        fail("--broker paper needs --trader-token-file and one --symbol")
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
