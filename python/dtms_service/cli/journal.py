"""What is recorded: `dtms journal verify`, `export`, `backup`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from rich.progress import Progress as ProgressBar

from dtms_client import Client
from dtms_service import backup as backups
from dtms_service.audit import Audit, audit
from dtms_service.cli.common import (
    DEFAULT_ADDRESS,
    OPERATOR,
    Address,
    OperatorTokenFile,
    RootCertificates,
    client_of,
    console,
    errors,
    fail,
)
from dtms_service.clock import SystemClock
from dtms_service.config import Config
from dtms_service.describe import KINDS, Chosen
from dtms_service.errors import DataDirectoryBusy, JournalDamaged
from dtms_service.journal import JOURNAL_NAME, Progress, export_journal
from dtms_service.journal.backup import sync
from dtms_service.settings import configuration

app = cyclopts.App(name="journal", help="Prove, export and copy what is recorded.")

RecordDir = Annotated[Path, Parameter(env_var="DTMS_DATA_DIR", help="of a service, or a backup")]
ConfigFile = Annotated[Path | None, Parameter(help="TOML file of the service, where it has one")]


@app.command
def verify(*, data_dir: RecordDir, config: ConfigFile = None) -> None:
    """Prove every event: the chain, that each can be read, and that they are one history.

    Ends with 0 if all of it holds, with 1 if not: then it says from which revision on the journal cannot be trusted.
    For a service that is stopped; of one that runs, verify a backup.
    """
    try:
        with _progress() as progress:
            found = audit(data_dir, _settings(config, data_dir), progress)
    except JournalDamaged as damaged:
        errors.print(f"dtms: {damaged}", style="bold red", soft_wrap=True, highlight=False)
        sys.exit(1)
    except DataDirectoryBusy as busy:
        fail(f"{busy}; it runs: verify a backup of it (dtms journal backup)")
    _tell(found)


@app.command
def export(
    out: Annotated[Path | None, Parameter(help="file for the JSON lines; default: standard output")] = None,
    *,
    data_dir: RecordDir,
    first: Annotated[int, Parameter(name="--from", help="first revision")] = 1,
    last: Annotated[int | None, Parameter(name="--to", help="last revision")] = None,
    account: Annotated[str | None, Parameter(help="only events of this account")] = None,
    ticket: Annotated[list[int] | None, Parameter(help="only events of these trades", negative="")] = None,
    kind: Annotated[
        list[str] | None, Parameter(help="only events of these kinds, such as state_changed", negative="")
    ] = None,
    raw: Annotated[bool, Parameter(help="leave out the event in words; its bytes are enough", negative="")] = False,
) -> None:
    """Write the events as JSON lines: revision, chain value, the event as it was recorded (base64) and in words.

    Everything is verified before the first line. Consecutive lines prove themselves: chain = sha256(chain before ||
    body). For a service that is stopped; of one that runs, export a backup.
    """
    if unknown := set(kind or ()) - KINDS:
        fail(f"no such kind of event: {', '.join(sorted(unknown))}")
    chosen = Chosen(account, frozenset(ticket or ()), frozenset(kind or ()), in_words=not raw)
    with _progress() as progress:
        if out is None:
            report, written = export_journal(data_dir, sys.stdout, progress, first=first, last=last, choose=chosen)
            sys.stdout.flush()
        else:
            draft = _draft_of(out)
            with draft.open("w", encoding="utf-8") as file:
                report, written = export_journal(data_dir, file, progress, first=first, last=last, choose=chosen)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(out)
    errors.print(f"{written} events of revisions {report.oldest_revision} to {report.newest_revision}", highlight=False)


@app.command
def backup(
    out: Annotated[Path, Parameter(help="folder to make; it must not exist")],
    *,
    data_dir: Annotated[Path | None, Parameter(env_var="DTMS_DATA_DIR", help="of a service on this machine")] = None,
    address: Address = DEFAULT_ADDRESS,
    token_file: OperatorTokenFile = None,
    root_certificates: RootCertificates = None,
    config: ConfigFile = None,
) -> None:
    """Make a folder that `dtms serve --data-dir` can go on from: journal and books, verified. The service may run.

    Without --data-dir, or where a service runs on it, the service is asked at --address, under the operator's token.
    """
    if out.exists():
        fail(f"{out} exists already")
    draft = _draft_of(out)
    draft.mkdir(mode=0o700, parents=True)
    try:
        with _progress() as progress:
            if data_dir is None or not _copy_at_rest(data_dir, draft, progress):
                _fetch(draft, client_of(address, token_file, data_dir, root_certificates, identity=OPERATOR))
            found = audit(draft, _settings(config, draft), progress)
    except BaseException:
        shutil.rmtree(draft)
        raise
    for left in ("dtms.lock", f"{JOURNAL_NAME}-wal"):  # of the audit; the log is empty
        (draft / left).unlink(missing_ok=True)
    sync(draft)
    draft.rename(out)
    sync(out)
    _tell(found)
    files = ", ".join(path.relative_to(out).as_posix() for path in backups.files_of(out))
    console.print(f"in {out}: {files}", soft_wrap=True, highlight=False)


def _copy_at_rest(data_dir: Path, into: Path, progress: Progress) -> bool:
    """False if a service runs on it."""
    try:
        backups.make(data_dir, into, SystemClock(), progress)
    except DataDirectoryBusy:
        return False
    return True


def _fetch(into: Path, opened: Client) -> None:
    """Raises what the service answers. A backup that ends before its end is none."""
    revision = 0
    with opened as client:
        for piece in client.backup():
            revision = piece.revision
            if piece.file:
                path = into.joinpath(*_parts(piece.file))
                path.parent.mkdir(mode=0o700, exist_ok=True)
                with path.open("ab") as file:
                    file.write(piece.data)
    for path in backups.files_of(into):
        sync(path)
    if not (into / JOURNAL_NAME).exists() or not revision:
        fail("the service ended before its backup was whole")


def _parts(name: str) -> list[str]:
    """Of a path below the folder. A service that names another is not believed."""
    parts = name.split("/")
    if not all(part and part not in {".", ".."} and not set(part) & set("\\:") for part in parts):
        fail(f"the service names a file outside of the backup: {name!r}")
    return parts


def _settings(file: Path | None, data_dir: Path) -> Config:
    return configuration(file, paper=True, given={"data_dir": data_dir})


def _tell(found: Audit) -> None:
    journal = found.journal
    console.print(f"revisions {journal.oldest_revision} to {journal.newest_revision}", highlight=False)
    console.print(f"chain {journal.chain_head}", soft_wrap=True, highlight=False)
    source = f"the snapshot of revision {found.folded_from} and {found.folded}" if found.folded_from else found.folded
    console.print(f"{found.trades} trades, {found.open_trades} open, from {source} events", highlight=False)
    if journal.torn_revisions:
        torn = ", ".join(map(str, journal.torn_revisions))
        console.print(f"unfinished last events, never acknowledged: {torn}; the next start sets them aside")


def _draft_of(out: Path) -> Path:
    """Under this name until it is whole; what an earlier try left is in the way and is named."""
    draft = out.with_name(f"{out.name}.partial")
    if draft.exists():
        fail(f"{draft} is left from an earlier try: remove it")
    return draft


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on the terminal, and nothing where there is none."""
    with ProgressBar(console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("")

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield show
