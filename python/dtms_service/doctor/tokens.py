"""Tokens as files: are they there, are they tokens, can others read them?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dtms_service.credentials import CREDENTIALS_FOLDER, check_private, read_token
from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, fail, ok, skipped
from dtms_service.errors import CredentialUnsafe

FOLDER_CHECK: Final = "tokens.folder"
FILE_CHECK: Final = "tokens.file"


def examine(case: Case) -> Iterator[Finding]:
    yield from _folder(case.directory / CREDENTIALS_FOLDER if case.directory is not None else None)
    if case.token_file is None:
        yield skipped(FILE_CHECK, "--token-file", "none was given")
        return
    wrong = _why_wrong(case.token_file)
    yield wrong if wrong is not None else ok(FILE_CHECK, str(case.token_file), "a token, and this user's alone")


def _folder(folder: Path | None) -> Iterator[Finding]:
    if folder is None:
        yield skipped(FOLDER_CHECK, CREDENTIALS_FOLDER, "no data directory is known on this machine")
        return
    if not folder.exists():
        yield ok(FOLDER_CHECK, str(folder), "not there yet: a first start makes it")
        return
    at = str(folder)
    try:
        check_private(folder, folder.lstat())
    except CredentialUnsafe as error:
        yield fail(FOLDER_CHECK, at, error.why, _mend(error))
        return
    files = sorted(folder.glob("*.token"))
    found = [wrong for file in files if (wrong := _why_wrong(file)) is not None]
    yield from found
    if not found:
        yield ok(FOLDER_CHECK, at, f"{len(files)} tokens, this user's alone")


def _why_wrong(file: Path) -> Finding | None:
    at = str(file)
    try:
        read_token(file)
    except CredentialUnsafe as error:
        return fail(FILE_CHECK, at, error.why, _mend(error))
    except FileNotFoundError:
        mend = "copy it from the service's data directory, credentials/NAME.token; a first start makes it"
        return fail(FILE_CHECK, at, "is not there", mend)
    except OSError as error:
        return fail(FILE_CHECK, at, f"cannot be read: {error.strerror}", "a plain file that belongs to this user")
    return None


def _mend(error: CredentialUnsafe) -> str:
    if "chmod" in error.why:
        return error.why.partition("run: ")[2]
    if "belongs to user" in error.why:
        return f"run this as that user, or: chown USER {error.path}"
    return "copy the token again; or delete it in the service's credentials folder and restart the service"
