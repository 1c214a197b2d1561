"""What the commands share: consoles, options, the client of a service on this machine, the event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

from cyclopts import Parameter
from rich.console import Console

from dtms_client import Client
from dtms_client import DtmsError as ClientError
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.errors import DtmsError, FatalError

if sys.platform == "win32":  # a gateway runs beside its terminal, where there is no uvloop
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

LOOP_FACTORY: Final = new_event_loop

T = TypeVar("T")

MENDABLE: Final = (FatalError, DtmsError, ClientError, FileNotFoundError)
"""Errors that the user can mend."""

console = Console()
errors = Console(stderr=True)

DEFAULT_ADDRESS = "127.0.0.1:50051"
VIEWER, OPERATOR = "viewer", "operator"  # identities that every service has
Profile = Literal["intraday", "swing"]
Level = Literal["debug", "info", "warning", "error"]

Address = Annotated[str, Parameter(env_var="DTMS_ADDRESS", help="host:port of the service")]
TokenFile = Annotated[
    Path | None,
    Parameter(env_var="DTMS_TOKEN_FILE", help="the caller's token; default: DATA_DIR/credentials/viewer.token"),
]
OperatorTokenFile = Annotated[
    Path | None,
    Parameter(env_var="DTMS_TOKEN_FILE", help="the caller's token; default: DATA_DIR/credentials/operator.token"),
]
RootCertificates = Annotated[
    Path | None, Parameter(env_var="DTMS_ROOT_CERTIFICATES", help="PEM file that vouches for the service, for TLS")
]
Scope = Annotated[Literal["account", "symbol", "manager"], Parameter(help="what the switch covers")]
DataDir = Annotated[Path | None, Parameter(env_var="DTMS_DATA_DIR", help="journal, credentials and lock")]


def client_of(
    address: str,
    token_file: Path | None,
    data_dir: Path | None,
    root_certificates: Path | None,
    *,
    identity: str = VIEWER,
) -> Client:
    if token_file is None:
        if data_dir is None:
            fail("give --token-file, or --data-dir of a service on this machine")
        token_file = token_path(data_dir / CREDENTIALS_FOLDER, identity)
    roots = root_certificates.read_bytes() if root_certificates is not None else None
    return Client(address, token_file=token_file, root_certificates=roots)


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=LOOP_FACTORY) as runner:
        return runner.run(work)


def fail(message: str) -> NoReturn:
    errors.print(f"dtms: {message}", style="bold red", soft_wrap=True, highlight=False)
    sys.exit(2)
