"""Every error that DTMS raises on purpose, with its facts.

::

    Exception
    ├── DtmsError              a request that could not be decided: reason + metadata, becomes one gRPC status
    └── FatalError             the process must stop, or must not start
        ├── BooksFailed            the disk refused a paper account's books, or a gateway's fence
        ├── ConfigInvalid          a key is unknown, missing or out of range
        ├── CredentialUnsafe       a secret that others can read, or that is no secret
        ├── DataDirectoryBusy      another service owns the data directory
        ├── HistoryInvalid         a price file breaks a rule, at a line and column
        ├── JournalDamaged         recorded history does not verify, at a revision
        ├── JournalModeDiffers     a shadow run's journal for a live service, or the other way round
        ├── JournalFailed          the disk refused: nothing later is durable
        ├── JournalVersionUnknown  written by a newer DTMS, or not by DTMS at all
        ├── PortBusy               the address cannot be bound
        └── RunDiffers             a run in lockstep that was cut off does not repeat what it had recorded

The texts may change; reasons, attributes and metadata keys may not.
A denial ("no, because ...") is an answer and never raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Reason(StrEnum):
    """Why a request could not be decided. The value is the wire's ErrorInfo.reason."""

    FIELD_INVALID = "FIELD_INVALID"
    CREDENTIAL_MISSING = "CREDENTIAL_MISSING"
    ROLE_FORBIDDEN = "ROLE_FORBIDDEN"
    TRADE_UNKNOWN = "TRADE_UNKNOWN"
    ACCOUNT_UNKNOWN = "ACCOUNT_UNKNOWN"
    SYMBOL_UNKNOWN = "SYMBOL_UNKNOWN"
    TRADE_DIFFERS = "TRADE_DIFFERS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    STALE_EPOCH = "STALE_EPOCH"
    TRADE_CLOSED = "TRADE_CLOSED"
    NOT_LEADER = "NOT_LEADER"
    COMPACTED = "COMPACTED"
    FUTURE_REVISION = "FUTURE_REVISION"
    LIMIT_REACHED = "LIMIT_REACHED"
    RATE_EXCEEDED = "RATE_EXCEEDED"
    RECOVERING = "RECOVERING"
    DRAINING = "DRAINING"
    BROKER_DISCONNECTED = "BROKER_DISCONNECTED"
    CORE_PANIC = "CORE_PANIC"
    MODE_UNSUPPORTED = "MODE_UNSUPPORTED"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks a rule. ``field`` is its path in the request or file, as the caller wrote it."""

    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.field}: {self.why}"


class DtmsError(Exception):
    """A request that could not be decided.

    ``metadata`` holds the facts as text (``oldest_revision``, ``limit`` ...); ``violations`` is set for FIELD_INVALID;
    ``retry_after_s`` is the earliest time at which a repeat may help, in seconds, or None if waiting cannot help.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


def invalid(field: str, why: str) -> DtmsError:
    """FIELD_INVALID for one field. Raise it: ``raise invalid("volume", "must be a multiple of 0.01")``."""
    return invalid_fields([FieldViolation(field, why)])


def invalid_fields(violations: Sequence[FieldViolation]) -> DtmsError:
    """FIELD_INVALID for all the fields that break a rule, in the order of the request."""
    return DtmsError(Reason.FIELD_INVALID, "; ".join(map(str, violations)), violations=violations)


def compacted(asked: int, oldest_revision: int) -> DtmsError:
    """COMPACTED: the history before ``oldest_revision`` is gone; the reader must list again."""
    return DtmsError(
        Reason.COMPACTED,
        f"revision {asked} was compacted away; the oldest kept is {oldest_revision}",
        metadata={"oldest_revision": str(oldest_revision)},
    )


def unreadable(revision: int, readable_from: int, why: str) -> DtmsError:
    """COMPACTED: a recorded event does not verify; what lies before ``readable_from`` cannot be read past it."""
    return DtmsError(
        Reason.COMPACTED,
        f"revision {revision} is damaged on the disk ({why}); the journal can be read from {readable_from} on",
        metadata={"oldest_revision": str(readable_from), "damaged_revision": str(revision)},
    )


def damage_of(error: DtmsError) -> tuple[int, int] | None:
    """(the damaged revision, where the journal can be read again) of an ``unreadable``; None for any other error."""
    damaged = error.metadata.get("damaged_revision")
    return None if damaged is None else (int(damaged), int(error.metadata["oldest_revision"]))


def future_revision(asked: int, newest_revision: int) -> DtmsError:
    """FUTURE_REVISION: nobody can have seen ``asked``; the reader holds a cursor of another history."""
    return DtmsError(
        Reason.FUTURE_REVISION,
        f"revision {asked} lies beyond the newest, {newest_revision}",
        metadata={"newest_revision": str(newest_revision)},
    )


class FatalError(Exception):
    """The process must stop, or must not start. Nothing was changed that would need undoing."""


class BooksFailed(FatalError):
    """The books of a paper account or the fence of a gateway could not be written: what follows from them must not
    happen."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: cannot be written: {why}")
        self.path, self.why = path, why


class ConfigInvalid(FatalError):
    """Configuration that breaks a rule. ``source`` is the file, the environment or the table it came from."""

    def __init__(self, source: str, violations: Sequence[FieldViolation]) -> None:
        super().__init__(f"{source}: " + "; ".join(map(str, violations)))
        self.source = source
        self.violations = tuple(violations)


class CredentialUnsafe(FatalError):
    """A credential file that does not keep its secret."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path, self.why = path, why


class DataDirectoryBusy(FatalError):
    """Another process owns the data directory. ``pid`` is 0 when the owner has not written its own yet."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"{path}: in use by process {pid or 'unknown'}; two services would fork one history")
        self.path, self.pid = path, pid


class HistoryInvalid(FatalError):
    """A price history that breaks a rule. ``line`` counts from 1 (the header); 0 means the file as a whole."""

    def __init__(self, path: Path, line: int, column: str, why: str) -> None:
        place = f"{path}:{line}" if line else str(path)
        super().__init__(f"{place}: {column}: {why}" if column else f"{place}: {why}")
        self.path, self.line, self.column, self.why = path, line, column, why


class JournalDamaged(FatalError):
    """Recorded history does not verify. ``revision`` is the first that cannot be trusted. Nothing was deleted."""

    def __init__(self, path: Path, revision: int, why: str) -> None:
        super().__init__(f"{path}: damaged at revision {revision}: {why}; nothing was changed, restore a copy")
        self.path, self.revision, self.why = path, revision, why


class JournalFailed(FatalError):
    """The journal could not write (disk full, failed fsync). The batch and all after it are not durable."""

    def __init__(self, path: Path, newest_revision: int, why: str) -> None:
        super().__init__(f"{path}: cannot write after revision {newest_revision}: {why}")
        self.path, self.newest_revision, self.why = path, newest_revision, why


class JournalModeDiffers(FatalError):
    """A journal of the other mode: what never happened must not be mixed with what did. ``shadow`` is the file's."""

    def __init__(self, path: Path, *, shadow: bool) -> None:
        whose = (
            "a shadow run: start with --shadow"
            if shadow
            else "a live service: a shadow run needs a directory of its own"
        )
        super().__init__(f"{path}: belongs to {whose}, or take another data directory")
        self.path, self.shadow = path, shadow


class JournalVersionUnknown(FatalError):
    """A journal of a format this version cannot read. ``found`` is 0 when it is not a DTMS journal."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        what = f"journal format {found}" if found else "not a DTMS journal"
        super().__init__(f"{path}: {what}; this version reads format {known}")
        self.path, self.found, self.known = path, found, known


class PortBusy(FatalError):
    """The address cannot be bound."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"{address}: cannot listen: {why}")
        self.address, self.why = address, why


class RunDiffers(FatalError):
    """A run in lockstep was cut off in the middle of a step, and the step, worked on once more, gives something else
    than was recorded. Somebody else wrote at the same time, or the run depends on more than it may."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the run cannot go on: {why}")
        self.why = why
