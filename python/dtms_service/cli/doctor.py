"""`dtms doctor`. Imports little: it must run where packages do not fit together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.progress import SpinnerColumn, TextColumn

from dtms_service.credentials import Role
from dtms_service.doctor.case import Case
from dtms_service.doctor.examination import examine
from dtms_service.doctor.finding import EXIT_CODES, worst
from dtms_service.doctor.show import as_json, show

RoleName = Literal["MANAGER", "OPERATOR", "VIEWER", "FEED", "GATEWAY"]


def doctor(
    *,
    config: Annotated[Path | None, Parameter(help="TOML file of the service; environment DTMS_... over it")] = None,
    data_dir: Annotated[Path | None, Parameter(env_var="DTMS_DATA_DIR", help="data directory of the service")] = None,
    paper: Annotated[bool, Parameter(help="the service has the shipped play-money account", negative="")] = False,
    service: Annotated[str | None, Parameter(env_var="DTMS_ADDRESS", help="host:port; default: as configured")] = None,
    token_file: Annotated[
        Path | None, Parameter(env_var="DTMS_TOKEN_FILE", help="a token to look at and to ask the service with")
    ] = None,
    root_certificates: Annotated[
        Path | None, Parameter(env_var="DTMS_ROOT_CERTIFICATES", help="PEM file that vouches for the service, for TLS")
    ] = None,
    role: Annotated[RoleName | None, Parameter(help="what the token is wanted for; with a terminal: GATEWAY")] = None,
    account: Annotated[str | None, Parameter(help="LOGIN@SERVER that the terminal shall be logged in to")] = None,
    terminal: Annotated[str | None, Parameter(help="terminal64.exe, where the machine has several")] = None,
    mt5_module: Annotated[
        str | None,
        Parameter(name=("--mt5-module", "--package"), help="a module with MetaTrader5's functions, or MODULE:CLASS"),
    ] = None,
    symbol: Annotated[list[str] | None, Parameter(help="the broker's names that shall be served")] = None,
    server_utc_offset_s: Annotated[int | None, Parameter(help="as the gateway is given it")] = None,
    out: Annotated[Path | None, Parameter(help="folder of the gateway")] = None,
    deadline_s: Annotated[float, Parameter(help="how long the terminal may take in all")] = 60.0,
    json: Annotated[bool, Parameter(help="findings as JSON on stdout", negative="")] = False,
) -> None:
    """Find the usual faults and say how to mend each; exit code 0, 1 for warnings, 2 where something must be mended."""
    case = Case(
        config_file=config,
        data_dir=data_dir,
        paper=paper,
        service=service,
        token_file=token_file,
        root_certificates=root_certificates,
        role=None if role is None else Role(role),
        account=account,
        terminal=terminal,
        package=mt5_module,
        symbols=tuple(symbol or ()),
        offset_s=server_utc_offset_s,
        out=out,
        deadline_s=deadline_s,
    )
    waiting = ProgressBar(SpinnerColumn(), TextColumn("looking"), console=Console(stderr=True), transient=True)
    with waiting:
        waiting.add_task("looking", total=None)
        findings = list(examine(case))
    if json:
        print(as_json(findings))  # noqa: T201  for a program
    else:
        show(findings, Console())
    sys.exit(EXIT_CODES[worst(findings)])
