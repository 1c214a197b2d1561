"""Backups: a folder that `dtms serve` takes for its data directory, made of a running service or of one that is not.

In it are the journal, marked as a copy, and the books of paper and shadow accounts. They are copied after the journal:
a broker may have gone on, and recovery finds that out; it never has less than the journal says. Tokens are secrets and
bars are a cache: neither is part of it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from dtms_service.clock import Clock
from dtms_service.errors import DtmsError, Reason
from dtms_service.journal import JOURNAL_NAME, CommitQueue, JournalReader, Progress, VerifyReport, backup
from dtms_service.shadow.store import SHADOW_FOLDER

PAPER_STORE: Final = "paper.db"
DRAFT_PREFIX: Final = ".backup-draft-"
"""Of a folder below the data directory in which a copy is made; no name that anybody gives a backup."""
PIECE_BYTES: Final = 1 << 18

_making = asyncio.Lock()

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of a file of the backup."""

    file: str  # below the folder, with / between its parts
    data: bytes


def files_of(folder: Path) -> list[Path]:
    """What belongs into a backup of a data directory, as it is there: the journal first."""
    books = [folder / PAPER_STORE, *sorted((folder / SHADOW_FOLDER).glob("*.db"))]
    return [folder / JOURNAL_NAME, *(path for path in books if path.exists())]


@asynccontextmanager
async def made(commits: CommitQueue, data_dir: Path, clock: Clock) -> AsyncIterator[tuple[Path, VerifyReport]]:
    """A folder with a backup of a running service, and what its journal holds; gone afterwards. One at a time.

    Nothing waits longer than for a step of the copy. LIMIT_REACHED without room on the disk, or while another is made.
    """
    if _making.locked():
        raise DtmsError(Reason.LIMIT_REACHED, "a backup is being made", metadata={"limit": "backups", "value": "1"})
    async with _making:
        with TemporaryDirectory(prefix=DRAFT_PREFIX, dir=data_dir) as draft:
            folder = Path(draft)
            await commits.copy(folder / JOURNAL_NAME)
            report = await asyncio.to_thread(_finish, data_dir, folder, clock.now_ns())
            yield folder, report


def remove_drafts(data_dir: Path) -> None:
    """What a crash in the middle of a backup left. For whoever holds the directory's lock."""
    for draft in data_dir.glob(f"{DRAFT_PREFIX}*"):
        try:
            shutil.rmtree(draft)
        except OSError as error:
            log.warning("draft_stays", path=str(draft), why=str(error))


def make(data_dir: Path, folder: Path, clock: Clock, progress: Progress) -> VerifyReport:
    """The same of a service that does not run, into a folder that is there. FileNotFoundError without a journal,
    DataDirectoryBusy while one runs, JournalDamaged: of a damaged journal there is no backup."""
    with JournalReader.open(data_dir, progress) as journal:
        journal.verify(progress)
        journal.copy(folder / JOURNAL_NAME)
        return _finish(data_dir, folder, clock.now_ns())


def pieces(folder: Path) -> Iterator[Piece]:
    """Every file in the folder, each in at least one piece."""
    for path in files_of(folder):
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            data = file.read(PIECE_BYTES)
            yield Piece(name, data)
            while data := file.read(PIECE_BYTES):
                yield Piece(name, data)


def _finish(data_dir: Path, folder: Path, made_ns: int) -> VerifyReport:
    """Put the books beside the copied journal, mark it, and read it once more."""
    for book in files_of(data_dir)[1:]:
        target = folder / book.relative_to(data_dir)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        backup.copy_database(book, target)
    backup.mark(folder / JOURNAL_NAME, made_ns)
    with JournalReader.open(folder, _silent) as journal:
        return journal.verify(_silent)


def _silent(_what: str, _done: int, _total: int) -> None:
    """Nobody looks."""
