"""Pages, and what is required of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dtms_service.errors import invalid

T = TypeVar("T")

DEFAULT_PAGE = 100
MAX_PAGE = 500  # about 150 KB of trades: far below gRPC's 4 MiB, small enough not to hold the loop


def require(field: str, given: object) -> None:
    if not given:
        raise invalid(field, "required")


def page_of(items: Sequence[T], page_size: int, page_token: str) -> tuple[Sequence[T], str]:
    """The page that the token points at, and the next token. Items keep their order, so a token is a position."""
    if not 0 <= page_size <= MAX_PAGE:
        raise invalid("page_size", f"must be 0 to {MAX_PAGE}")
    if page_token and not page_token.isdecimal():
        raise invalid("page_token", "was not given out by this service")
    start = int(page_token or 0)
    end = start + (page_size or DEFAULT_PAGE)
    return items[start:end], str(end) if end < len(items) else ""
