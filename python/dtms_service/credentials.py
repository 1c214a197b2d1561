"""Who is calling: one secret per identity, made at first start, kept in files that only the owner can read."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from dtms_service.errors import CredentialUnsafe
from dtms_service.fault_points import Point, reach

IDENTITY_PATTERN: Final = r"^[a-z][a-z0-9_]{0,62}$"
IDENTITY_CHARS: Final = 63
"""Names are file names and go into logs and events: nothing that a path or a terminal would interpret."""
TOKEN_BYTES: Final = 32
"""256 bits: a token cannot be guessed, so it needs no salt and no slow hash."""
_TOKEN_CHARS: Final = 43  # 32 bytes in base64url
_SUFFIX: Final = ".token"
CREDENTIALS_FOLDER: Final = "credentials"
"""Where a service keeps them, in its data directory."""


class Role(StrEnum):
    """What an identity may do; the service's table of methods says which role each one needs."""

    MANAGER = "MANAGER"
    OPERATOR = "OPERATOR"
    VIEWER = "VIEWER"
    FEED = "FEED"
    GATEWAY = "GATEWAY"


BUILT_IN_IDENTITIES: Final[Mapping[str, Role]] = {
    "universal_sl_tp_manager": Role.MANAGER,
    "intelligent_exit_manager": Role.MANAGER,
    "operator": Role.OPERATOR,
    "viewer": Role.VIEWER,
    "feed": Role.FEED,
    "gateway": Role.GATEWAY,
}


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credential was recognised. ``name`` is what appears as asker and owner.

    ``account_id`` is the one account that a gateway of its own may serve, empty for any; ``digest`` the token's.
    """

    name: str
    role: Role
    account_id: str = ""
    digest: bytes = field(default=b"", repr=False, compare=False)


class Credentials:
    """The tokens of all identities, kept as hashes: neither a dump nor a comparison's timing gives one away."""

    def __init__(self, by_digest: Mapping[bytes, Principal]) -> None:
        self._by_digest = dict(by_digest)

    @classmethod
    def load_or_create(
        cls,
        directory: Path,
        identities: Mapping[str, Role],
        accounts: Mapping[str, str] = MappingProxyType({}),
        *,
        create: bool = True,
    ) -> Self:
        """Read ``<directory>/<name>.token`` of every identity, making those that are missing (if it may ``create``).

        ``accounts`` has those identities that are bound to an account.

        Directory and files are the owner's alone. A file of a name that is no identity opens nothing; deleting a file
        and starting again replaces its token. CredentialUnsafe for a directory or file that others can read or write,
        a token that is none, or one that two names share; OSError (ELOOP) for a link in place of a file.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(directory, directory.lstat())
        by_digest: dict[bytes, Principal] = {}
        for name, role in identities.items():
            if re.fullmatch(IDENTITY_PATTERN, name) is None:
                raise CredentialUnsafe(directory, f"{name!r} is no identity name ({IDENTITY_PATTERN})")
            path = token_path(directory, name)
            try:
                digest = _digest(_read_or_create(path) if create else read_token(path))
            except FileNotFoundError:
                if create:
                    raise
                continue
            if digest in by_digest:
                raise CredentialUnsafe(path, f"holds the token of {by_digest[digest].name} as well")
            by_digest[digest] = Principal(name, role, accounts.get(name, ""), digest)
        return cls(by_digest)

    def holds(self, principal: Principal) -> bool:
        """Whether the token of this principal is still its own."""
        return self._by_digest.get(principal.digest) == principal

    def changed_from(self, before: Credentials) -> dict[str, tuple[bool, bool]]:
        """Names whose token, role or account is another: whether there was one before, and whether there is one now."""
        old, new = set(before._all()), set(self._all())
        names = {name for name, _, _, _ in old ^ new}
        return {
            name: (any(name == one[0] for one in old), any(name == one[0] for one in new)) for name in sorted(names)
        }

    def _all(self) -> Iterator[tuple[str, Role, str, bytes]]:
        for digest, principal in self._by_digest.items():
            yield principal.name, principal.role, principal.account_id, digest

    def identify(self, token: str) -> Principal | None:
        """Whose token this is, None if nobody's. Takes the same time for every wrong token."""
        # What an attacker could time is the look-up of a hash he cannot steer, never the comparison of a secret.
        return self._by_digest.get(_digest(token))


def gateway_identity(account_id: str) -> str:
    """The identity of a gateway that is bound to an account: login and server in small letters."""
    words = "_".join(re.findall(r"[a-z0-9]+", account_id.lower()))
    return f"gateway_{words}"[:IDENTITY_CHARS]


def token_path(directory: Path, name: str) -> Path:
    """Where the token of an identity lies."""
    return directory / f"{name}{_SUFFIX}"


def read_token(path: Path) -> str:
    """The token in a file, after the checks of ``load_or_create``. FileNotFoundError if there is none."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(fd, "rb") as file:
        check_private(path, os.fstat(fd))
        text = file.read(_TOKEN_CHARS + 2).decode("ascii", "replace").strip()
    if re.fullmatch(rf"[A-Za-z0-9_-]{{{_TOKEN_CHARS}}}", text) is None:
        raise CredentialUnsafe(path, "is not a token; delete the file and start again to get a new one")
    return text


def _read_or_create(path: Path) -> str:
    try:
        return read_token(path)
    except FileNotFoundError:
        token = secrets.token_urlsafe(TOKEN_BYTES)
    # Under another name first: a crash in between must not leave half a token.
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(fd)
    reach(Point.CREDENTIAL_WRITE)
    unfinished.replace(path)
    return token


def check_private(path: Path, found: os.stat_result) -> None:
    """Raises CredentialUnsafe for a file or folder that is somebody else's, or that others can read or write."""
    if sys.platform == "win32":  # the mode says nothing there; a user's own folder is private by inheritance
        return
    if found.st_uid != os.geteuid():
        raise CredentialUnsafe(path, f"belongs to user {found.st_uid}, not to {os.geteuid()}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise CredentialUnsafe(path, f"is open to others (mode {mode:o}); run: chmod {wanted} {path}")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
