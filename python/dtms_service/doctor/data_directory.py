"""The service's data directory: rights, lock, room on the disk, the journal's format and mode."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dtms_service.doctor.case import Case
from dtms_service.doctor.directories import why_not_writable
from dtms_service.doctor.finding import Finding, fail, ok, skipped, warn
from dtms_service.journal.lock import holder
from dtms_service.journal.sqlite import APPLICATION_ID, FORMAT, JOURNAL_NAME, SHADOW_APPLICATION_ID

CHECKS: Final = ("data_directory", "data_directory.lock", "data_directory.space", "data_directory.journal")

# An event takes about 250 bytes: 1 GiB is months of work, 128 MiB is what the log and one checkpoint may take at once.
FREE_WARN: Final = 1 << 30
FREE_FAIL: Final = 128 << 20

# SQLite's file header (sqlite.org/fileformat.html, 1.3).
_HEADER_BYTES: Final = 100
_MAGIC: Final = b"SQLite format 3\0"
_SCHEMA_AT: Final = 40
_VERSION_AT: Final = 60
_APPLICATION_AT: Final = 68


def examine(case: Case) -> Iterator[Finding]:
    directory = case.directory
    if directory is None:
        yield from (skipped(check, "the data directory", "none is known on this machine") for check in CHECKS)
        return
    at = str(directory)
    if not directory.exists():
        yield from _missing(directory)
        return
    if (why := why_not_writable(directory)) is not None:
        mend = "give it to the user that runs the service (chown, chmod 700), or take another data_dir"
        yield fail("data_directory", at, why, mend)
        yield from (skipped(check, at, "not reached: data_directory") for check in CHECKS[1:])
        return
    yield ok("data_directory", at, "there, and this user's")
    yield _lock(directory)
    yield _space(directory)
    yield _journal(directory, shadow=case.config.shadow if case.config is not None else None)


def _missing(directory: Path) -> Iterator[Finding]:
    at = str(directory)
    parent = next(folder for folder in directory.absolute().parents if folder.exists())
    if (why := why_not_writable(parent)) is not None:
        mend = f"make {directory} as root and give it to the user that runs the service (chown, chmod 700)"
        yield fail("data_directory", at, f"is not there, and {parent}: {why}", mend)
    else:
        mend = "nothing for a first start, which makes it; else correct data_dir: a journal elsewhere is not found"
        yield warn("data_directory", at, "is not there", mend)
    yield from (skipped(check, at, "not there") for check in CHECKS[1:2])
    yield _space(parent)
    yield skipped(CHECKS[3], at, "not there")


def _lock(directory: Path) -> Finding:
    """Whether somebody answers for the holder is the port's check."""
    pid = holder(directory)
    words = "nobody holds it" if pid is None else f"held by process {pid or 'unknown'}: a second service is refused"
    return ok("data_directory.lock", str(directory / "dtms.lock"), words)


def _space(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    check, at, words = "data_directory.space", str(directory), f"{free / (1 << 30):.1f} GiB free"
    mend = "make room, or move the data directory while the service is stopped; a full disk ends the service"
    if free < FREE_FAIL:
        return fail(check, at, words, mend)
    if free < FREE_WARN:
        return warn(check, at, words, mend)
    return ok(check, at, words)


def _journal(directory: Path, *, shadow: bool | None) -> Finding:
    """By the file's header alone: a journal in use must not be opened. ``shadow`` is as configured, None: not known."""
    path = directory / JOURNAL_NAME
    check, at = "data_directory.journal", str(path)
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return ok(check, at, "not there yet: a first start makes it")
    except OSError as error:
        return fail(check, at, f"cannot be read: {error.strerror}", "give it to the user that runs the service (chown)")
    if header and not header.startswith(_MAGIC):
        return fail(check, at, "is not a DTMS journal", "move it away, or take another data_dir")
    schema, found, application = (
        int.from_bytes(header[where : where + 4], "big") for where in (_SCHEMA_AT, _VERSION_AT, _APPLICATION_AT)
    )
    if not schema and not application:
        return ok(check, at, "new: what it is stands in its log as yet")
    if application not in {APPLICATION_ID, SHADOW_APPLICATION_ID}:
        return fail(check, at, "is another program's file", "move it away, or take another data_dir")
    if found > FORMAT:
        words = f"format {found}, this version reads up to {FORMAT}"
        return fail(check, at, words, "start the version that wrote it, or a newer one")
    is_shadow = application == SHADOW_APPLICATION_ID
    if shadow is not None and shadow != is_shadow:
        whose = "a shadow run" if is_shadow else "a live service"
        return fail(check, at, f"belongs to {whose}", "--shadow (or shadow = true) as it was, or another data_dir")
    return ok(check, at, f"format {found}{', shadow' if is_shadow else ''}")
