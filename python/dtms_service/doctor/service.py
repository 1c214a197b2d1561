"""What the service itself answers: is it one, how is it, who are we to it, and is it of our version?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from dtms.v1.admin_service_pb2 import (
    GATEWAY_STATE_ATTACHED,
    GatewayState,
    GatewayStatus,
    GetSystemStatusResponse,
    ServiceStage,
)
from dtms_client import Client, DtmsError
from dtms_client.errors import DeadlineExceeded, Unauthenticated, Unavailable, Unexpected
from dtms_service.clock import SystemClock
from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, fail, ok, skipped, warn
from dtms_service.doctor.server_clock import SET_CLOCK

CHECKS: Final = {
    "service": "GetSystemStatus",
    "service.role": "who the token is",
    "service.version": "its version against this one",
    "service.account": "the accounts that it serves",
    "service.gateways": "the gateways that it knows",
    "clock.service": "its clock against this machine's",
}
TIMEOUT_S: Final = 5.0
CLOCK_OFF_MOST_S: Final = 2.0


def examine(case: Case) -> Iterator[Finding]:
    if not case.listening or case.address is None:
        yield from (skipped(check, at, "nobody listens") for check, at in CHECKS.items())
        return
    if case.token is None:
        yield from (skipped(check, at, "no token to ask with: give --token-file") for check, at in CHECKS.items())
        return
    answer = _ask(case, case.address, case.token)
    if isinstance(answer, Finding):
        yield answer
        yield from (skipped(check, at, "not reached: service") for check, at in list(CHECKS.items())[1:])
        return
    yield from judge(case, answer)


def judge(case: Case, status: GetSystemStatusResponse) -> Iterator[Finding]:
    """What the answer of a service is worth to the case."""
    yield _stage(case, status)
    yield _role(case, status)
    yield _version(status)
    yield _account(case, status)
    yield from map(_gateway, status.gateways)
    if not status.gateways:
        yield ok("service.gateways", CHECKS["service.gateways"], "none has attached, none is configured")
    yield _clock(status)


def _ask(case: Case, address: str, token: Path) -> GetSystemStatusResponse | Finding:
    check, at = "service", f"GetSystemStatus at {address}"
    try:
        roots = case.root_certificates.read_bytes() if case.root_certificates is not None else None
        with Client(address, token_file=token, root_certificates=roots) as client:
            return client.system_status(timeout_s=TIMEOUT_S)
    except Unauthenticated:
        mend = "copy credentials/NAME.token of this service's data directory: this one was replaced, or is another's"
        return fail(check, at, f"the service does not know the token in {token}", mend)
    except (Unavailable, DeadlineExceeded, Unexpected) as error:
        mend = (
            "another program listens there, or it speaks TLS (give --root-certificates), or it hangs: look at its log"
        )
        return fail(check, at, f"no answer as of a DTMS service: {error}", mend)
    except (DtmsError, ValueError, OSError) as error:
        return fail(check, at, str(error), "correct --service, --token-file and --root-certificates")


def _stage(case: Case, status: GetSystemStatusResponse) -> Finding:
    check, at = "service", f"GetSystemStatus at {case.address}"
    stage = ServiceStage.Name(status.stage).removeprefix("SERVICE_STAGE_")
    words = f"{stage} at revision {status.revision}{', SHADOW: nothing is sent' if status.shadow else ''}"
    if stage == "SERVING":
        return ok(check, at, words)
    mend = "wait, and start the gateways that it waits for" if stage == "RECOVERING" else "wait for its restart"
    return warn(check, at, f"{words}: {status.recovery_detail}".rstrip(": "), mend)


def _role(case: Case, status: GetSystemStatusResponse) -> Finding:
    check, at = "service.role", str(case.token)
    words = f"{status.caller}, {status.caller_role}"
    wanted = case.wanted_role
    if wanted is not None and status.caller_role != wanted:
        mend = f"take the token of an identity with the role {wanted}; docs/operations.md, Tokens and roles"
        return fail(check, at, f"{words}; {wanted} is wanted", mend)
    return ok(check, at, words)


def _version(status: GetSystemStatusResponse) -> Finding:
    check, at = "service.version", "its version against this one"
    ours, theirs = version("dtms-service"), status.version
    if ours != theirs:
        mend = "bring both to one version: drain the service, install, start; then its gateways and managers"
        return warn(check, at, f"the service is {theirs}, this is {ours}", mend)
    return ok(check, at, f"both {ours}")


def _account(case: Case, status: GetSystemStatusResponse) -> Finding:
    check, at, served = "service.account", "the accounts that it serves", list(status.account_ids)
    if case.account is None or case.account in served:
        return ok(check, at, ", ".join(served) or "none yet")
    found = f"{case.account} was never attached; known are: {', '.join(served) or 'none'}"
    return warn(check, at, found, "nothing before the first start of its gateway; else correct --account")


def _gateway(gateway: GatewayStatus) -> Finding:
    check, at, account_id = "service.gateways", CHECKS["service.gateways"], gateway.account_id
    state, terminal = GatewayState.Name(gateway.state).removeprefix("GATEWAY_STATE_"), gateway.terminal
    words = f"{state}, started again {gateway.restarts} times" if gateway.supervised else state
    trouble = terminal.trouble if gateway.HasField("terminal") else ""
    if gateway.state != GATEWAY_STATE_ATTACHED or trouble:
        why = trouble or gateway.last_error or "it does not say why"
        mend = "look at its lines in the log, and at its terminal: dtms doctor with its account on its machine"
        return replace(warn(check, at, f"{words}: {why}", mend), about=account_id)
    if gateway.HasField("terminal"):
        switches = ("linked", "terminal_trades", "account_trades", "experts_trade")
        off = [name for name in switches if not getattr(terminal, name)]
        if off:
            mend = "dtms doctor with its account on its machine says what to switch on"
            return replace(warn(check, at, f"{words}; its terminal: not {', not '.join(off)}", mend), about=account_id)
    return replace(ok(check, at, words), about=account_id)


def _clock(status: GetSystemStatusResponse) -> Finding:
    check, at = "clock.service", "its clock against this machine's"
    if status.lockstep:
        return skipped(check, at, "the service runs in virtual time")
    off_s = (SystemClock().now_ns() - status.time_ns) / 1e9
    words = f"this machine is {off_s:+.1f} s ahead of the service, the answer's way included"
    return ok(check, at, words) if abs(off_s) <= CLOCK_OFF_MOST_S else warn(check, at, words, SET_CLOCK)
