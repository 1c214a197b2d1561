"""`dtms serve`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dtms_service import logs
from dtms_service.cli.common import Level, Profile, run
from dtms_service.service import SERVING
from dtms_service.service import serve as run_service
from dtms_service.settings import configuration


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
    reread = partial(configuration, config, paper=paper, given=given)
    run(
        run_service(
            reread(),
            managers_in_lockstep=None if lockstep is None else frozenset(lockstep),
            traders=tuple(trader or ()),
            reread=reread,
            ready=lambda server: print(f"{SERVING}{server.address}", flush=True),  # noqa: T201  for whoever started us
        )
    )
