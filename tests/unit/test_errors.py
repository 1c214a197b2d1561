"""Errors carry facts, not prose."""

from __future__ import annotations

from pathlib import Path

from dtms_service import errors
from dtms_service.errors import DtmsError, FieldViolation, Reason


def test_an_invalid_field_is_named() -> None:
    """FIELD_INVALID carries the field and why, apart from the text."""
    error = errors.invalid("volume", "must be a multiple of 0.01")
    assert error.reason is Reason.FIELD_INVALID
    assert error.violations == (FieldViolation("volume", "must be a multiple of 0.01"),)


def test_all_bad_fields_are_named_at_once() -> None:
    """One answer names every field that breaks a rule, in order."""
    bad = [FieldViolation("sl", "is NaN"), FieldViolation("tp", "is negative")]
    assert errors.invalid_fields(bad).violations == tuple(bad)


def test_a_lost_reader_learns_where_history_starts() -> None:
    """COMPACTED and FUTURE_REVISION carry the revision from which the reader can go on."""
    assert errors.compacted(3, 10).metadata == {"oldest_revision": "10"}
    assert errors.future_revision(30, 10).metadata == {"newest_revision": "10"}


def test_metadata_is_the_errors_own() -> None:
    """Changing the mapping after the raise does not change the error."""
    facts = {"limit": "5"}
    error = DtmsError(Reason.LIMIT_REACHED, "too many", metadata=facts, retry_after_s=0.5)
    facts["limit"] = "6"
    assert (error.metadata, error.retry_after_s) == ({"limit": "5"}, 0.5)


def test_every_fatal_error_is_drawn_in_the_tree() -> None:
    """The tree in the module's docstring is complete; a process's own fatal errors stand with the process."""
    drawn = errors.__doc__ or ""
    ours = [error for error in errors.FatalError.__subclasses__() if error.__module__ == errors.__name__]
    for error in (*ours, DtmsError, errors.FatalError):
        assert error.__name__ in drawn


def test_fatal_errors_name_the_place() -> None:
    """A damaged journal names its revision, a bad history its line and column."""
    path = Path("x")
    assert errors.JournalDamaged(path, 7, "why").revision == 7
    assert "x:3: bid: is NaN" in str(errors.HistoryInvalid(path, 3, "bid", "is NaN"))
    assert "process 42" in str(errors.DataDirectoryBusy(path, 42))
