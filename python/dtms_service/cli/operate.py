"""What operators do: `dtms notify-test`, `trading-state`, `kill`, `release`, `reload`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from dtms.v1.admin_service_pb2 import ConfigurationChange
from dtms.v1.event_pb2 import KillScope, TradingState
from dtms_client import Client
from dtms_service.cli.common import (
    DEFAULT_ADDRESS,
    OPERATOR,
    Address,
    DataDir,
    OperatorTokenFile,
    RootCertificates,
    Scope,
    client_of,
    console,
    fail,
)
from dtms_service.notify import check, open_senders
from dtms_service.settings import configuration
from dtms_service.system import TITLE


def notify_test(
    *,
    config: Annotated[Path | None, Parameter(help="TOML file; environment DTMS_... lies over it")] = None,
) -> None:
    """Send one message to each target of the section [notifications]; say which of them did not take it."""
    told = configuration(config, paper=False, given={"data_dir": Path()}).notifications
    if not told.urls:
        fail("no urls in the section [notifications]: set DTMS_NOTIFICATIONS__URLS")
    check(told)
    failed = False
    for sender in open_senders(told.urls, told.timeout_s):
        why = sender(TITLE, "Test: notifications of DTMS arrive here.")
        failed |= why is not None
        console.print(f"{sender.label}: {'delivered' if why is None else f'FAILED: {why}'}", soft_wrap=True)
    if failed:
        sys.exit(1)


def trading_state(
    state: Annotated[Literal["ACTIVE", "REDUCING", "HALTED"], Parameter(help="the new state")],
    *,
    reason: Annotated[str, Parameter(help="why; recorded")],
    address: Address = DEFAULT_ADDRESS,
    token_file: OperatorTokenFile = None,
    data_dir: DataDir = None,
    root_certificates: RootCertificates = None,
) -> None:
    """Allow everything (ACTIVE), nothing that adds risk (REDUCING), or managers only to close (HALTED)."""
    with client_of(address, token_file, data_dir, root_certificates, identity=OPERATOR) as client:
        answer = client.set_trading_state(TradingState.Value(f"TRADING_STATE_{state}"), reason=reason)
    console.print(f"{state} as of revision {answer.revision}")


def kill(
    scope: Scope,
    value: Annotated[str, Parameter(help="account, symbol or manager")],
    *,
    reason: Annotated[str, Parameter(help="why; recorded")],
    flatten: Annotated[bool, Parameter(help="close the trades of the account or symbol at once", negative="")] = False,
    address: Address = DEFAULT_ADDRESS,
    token_file: OperatorTokenFile = None,
    data_dir: DataDir = None,
    root_certificates: RootCertificates = None,
) -> None:
    """Throw a kill switch: it stops managers and takes the trades it covers from them."""
    _switch(
        scope,
        value,
        reason,
        client_of(address, token_file, data_dir, root_certificates, identity=OPERATOR),
        flatten=flatten,
    )


def release(
    scope: Scope,
    value: Annotated[str, Parameter(help="account, symbol or manager")],
    *,
    reason: Annotated[str, Parameter(help="why; recorded")],
    address: Address = DEFAULT_ADDRESS,
    token_file: OperatorTokenFile = None,
    data_dir: DataDir = None,
    root_certificates: RootCertificates = None,
) -> None:
    """Release a kill switch; the trades stay with DTMS until a manager acquires them."""
    _switch(
        scope,
        value,
        reason,
        client_of(address, token_file, data_dir, root_certificates, identity=OPERATOR),
        engaged=False,
    )


def reload(
    *,
    reason: Annotated[str, Parameter(help="why; logged")],
    check: Annotated[bool, Parameter(help="say what would change, and change nothing", negative="")] = False,
    address: Address = DEFAULT_ADDRESS,
    token_file: OperatorTokenFile = None,
    data_dir: DataDir = None,
    root_certificates: RootCertificates = None,
) -> None:
    """Make the service read its configuration, tokens and certificates again and take what can change while it runs."""
    with client_of(address, token_file, data_dir, root_certificates, identity=OPERATOR) as client:
        answer = client.reload_configuration(reason=reason, validate_only=check)
    for change in answer.changed:
        _show(change, "would change" if check else "changed")
    for change in answer.needs_restart:
        _show(change, "needs a restart, left as it was")
    if answer.streams_ended:
        console.print(f"{answer.streams_ended} streams ended: their token is none any more")
    if not answer.changed:
        console.print("nothing else" if answer.needs_restart else "nothing is different")
    elif not check:
        console.print(f"holds as of revision {answer.revision}")


def _show(change: ConfigurationChange, what: str) -> None:
    console.print(f"{change.key}: {change.before or 'none'} -> {change.after or 'none'} ({what})", soft_wrap=True)


def _switch(
    scope: str, value: str, reason: str, opened: Client, *, engaged: bool = True, flatten: bool = False
) -> None:
    number = KillScope.Value(f"KILL_SCOPE_{scope.upper()}")
    with opened as client:
        answer = client.set_kill_switch(number, value, engaged=engaged, reason=reason, flatten=flatten)
    done = "thrown, everything is closed" if flatten else "thrown" if engaged else "released"
    console.print(f"kill switch {scope} {value} {done} as of revision {answer.revision}", soft_wrap=True)
