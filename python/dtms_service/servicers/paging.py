"""Pages, and what is required of a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from dtms_service.errors import DtmsError, FieldViolation, invalid, invalid_fields

T = TypeVar("T")

DEFAULT_PAGE = 100
MAX_BATCH = 500  # trades or grants named in one request: about 150 KB of answer, far below gRPC's 4 MiB


def require(field: str, given: object) -> None:
    if not given:
        raise invalid(field, "required")


@contextmanager
def inside(message: str) -> Iterator[None]:
    """Fields that are refused in here are named by their path in the request: ``message.field``."""
    try:
        yield
    except DtmsError as error:
        if not error.violations:
            raise
        raise invalid_fields([FieldViolation(f"{message}.{v.field}", v.why) for v in error.violations]) from None


def page_of(items: Sequence[T], page_size: int, page_token: str, max_page_size: int) -> tuple[Sequence[T], str]:
    """The page that the token points at, and the next token. Items keep their order, so a token is a position."""
    if not 0 <= page_size <= max_page_size:
        raise invalid("page_size", f"must be 0 to {max_page_size}")
    if page_token and not page_token.isdecimal():
        raise invalid("page_token", "was not given out by this service")
    start = int(page_token or 0)
    end = start + (page_size or DEFAULT_PAGE)
    return items[start:end], str(end) if end < len(items) else ""
