"""The folder that a gateway keeps (`dtms gateway --out`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from dtms_service.broker.server_time import ServerTime
from dtms_service.doctor.case import Case
from dtms_service.doctor.directories import why_not_writable
from dtms_service.doctor.finding import Finding, fail, ok, skipped
from dtms_service.doctor.terminals import terminals
from dtms_service.gateway.live import FENCE_FILE, TIME_FILE
from dtms_service.journal.lock import holder

CHECK: Final = "gateway.folder"


def examine(case: Case) -> Iterator[Finding]:
    folders = [(one.account or "", one.out) for one in terminals(case) or [case] if one.out is not None]
    if not folders:
        yield skipped(CHECK, "a gateway's folder", "no --out was given, and no gateway is configured")
    for account_id, folder in folders:
        yield replace(_look_at(folder), about=account_id)


def _look_at(folder: Path) -> Finding:
    at = str(folder)
    if not folder.exists():
        return ok(CHECK, at, "not there yet; the gateway makes it")
    if (why := why_not_writable(folder)) is not None:
        return fail(CHECK, at, why, "give the gateway a folder that its user may write")
    try:
        offset_s = ServerTime(folder / TIME_FILE).offset_s
    except (ValueError, OSError) as error:
        return fail(
            CHECK, at, str(error), f"delete {folder / TIME_FILE} while the gateway is stopped; it is found anew"
        )
    pid = holder(folder)
    state = f"server time {'not known yet' if offset_s is None else f'UTC{offset_s / 3600:+g} h'}"
    fence = "with" if (folder / FENCE_FILE).exists() else "without"
    state = f"{state}, {fence} tokens"
    used = "not in use" if pid is None else f"in use by process {pid or 'unknown'}: a second gateway would be refused"
    return ok(CHECK, at, f"{used}; {state}")
