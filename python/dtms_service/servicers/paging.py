"""Pages, and what is required of a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dtms_service.desk import TradeKey
from dtms_service.errors import DtmsError, FieldViolation, invalid, invalid_fields

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


def page_size_of(page_size: int, max_page_size: int) -> int:
    """The size meant: 0 means the default."""
    if not 0 <= page_size <= max_page_size:
        raise invalid("page_size", f"must be 0 to {max_page_size}")
    return page_size or min(DEFAULT_PAGE, max_page_size)


def keys_after(keys: Sequence[TradeKey], page_token: str) -> Sequence[TradeKey]:
    """What follows the trade that the token names. Trades that come, close or go meanwhile move nothing."""
    if not page_token:
        return keys
    ticket, _, account_id = page_token.partition("@")
    if not ticket.isdecimal():
        raise invalid("page_token", "was not given out by this service")
    last = (account_id, int(ticket))
    if last not in keys:
        raise invalid("page_token", f"trade {ticket} at the end of the page before is not registered now: list again")
    return keys[keys.index(last) + 1 :]


def token_of(key: TradeKey) -> str:
    """The token of a page that ends with this trade."""
    account_id, ticket = key
    return f"{ticket}@{account_id}"
