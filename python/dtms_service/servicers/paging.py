"""Pages, and what is required of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dtms_service.errors import invalid

T = TypeVar("T")

DEFAULT_PAGE = 100
MAX_BATCH = 500  # trades or grants named in one request: about 150 KB of answer, far below gRPC's 4 MiB


def require(field: str, given: object) -> None:
    if not given:
        raise invalid(field, "required")


def page_of(items: Sequence[T], page_size: int, page_token: str, max_page_size: int) -> tuple[Sequence[T], str]:
    """The page that the token points at, and the next token. Items keep their order, so a token is a position."""
    if not 0 <= page_size <= max_page_size:
        raise invalid("page_size", f"must be 0 to {max_page_size}")
    if page_token and not page_token.isdecimal():
        raise invalid("page_token", "was not given out by this service")
    start = int(page_token or 0)
    end = start + (page_size or DEFAULT_PAGE)
    return items[start:end], str(end) if end < len(items) else ""
