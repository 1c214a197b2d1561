"""The folder that a gateway keeps (`dtms gateway --out`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dtms_service.broker.server_time import ServerTime
from dtms_service.doctor.case import Case
from dtms_service.doctor.directories import why_not_writable
from dtms_service.doctor.finding import Finding, fail, ok, skipped
from dtms_service.gateway.live import FENCE_FILE, TIME_FILE
from dtms_service.journal.lock import holder

CHECK: Final = "gateway.folder"


def examine(case: Case) -> Iterator[Finding]:
    folder = case.out
    if folder is None:
        yield skipped(CHECK, "a gateway's folder", "no --out was given")
        return
    at = str(folder)
    if not folder.exists():
        yield ok(CHECK, at, "not there yet; the gateway makes it")
        return
    if (why := why_not_writable(folder)) is not None:
        yield fail(CHECK, at, why, "give the gateway a folder that its user may write")
        return
    try:
        offset_s = ServerTime(folder / TIME_FILE).offset_s
    except (ValueError, OSError) as error:
        yield fail(CHECK, at, str(error), f"delete {folder / TIME_FILE} while the gateway is stopped; it is found anew")
        return
    pid = holder(folder)
    state = f"server time {'not known yet' if offset_s is None else f'UTC{offset_s / 3600:+g} h'}"
    fence = "with" if (folder / FENCE_FILE).exists() else "without"
    state = f"{state}, {fence} tokens"
    used = "not in use" if pid is None else f"in use by process {pid or 'unknown'}: a second gateway would be refused"
    yield ok(CHECK, at, f"{used}; {state}")
