"""JSON lines on stderr, with the correlation id of the call."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TextIO, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer


class Unbreakable:
    """A stream whose reader may go away: a log that nobody can read stops no defence of a trade.

    Swallows OSError on purpose; the record is the journal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(level: str) -> None:
    """``level`` is debug, info, warning or error. gRPC's own C log is kept to errors."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            # Never locals: a frame may hold a token.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Unbreakable(sys.stderr))),
        cache_logger_on_first_use=True,
    )
