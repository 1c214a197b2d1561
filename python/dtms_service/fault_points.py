"""The places where a crash would hurt most, by name, so that tests can crash the process exactly there.

``reach`` is called at each write, sync and send. It does nothing unless the process was armed, by a test that starts it
(``DTMS_FAULT_POINT``, ``DTMS_FAULT_POINTS_PASSED``) or by one that runs in it (``hook``).

``DTMS_FAULT_POINT=NAME:N``          kill -9 of this process at the N-th passage
``DTMS_FAULT_POINT=NAME:N:ERROR``    raise OSError at the N-th passage and all later ones; ERROR as EIO, ENOSPC
``DTMS_FAULT_POINTS_PASSED=FILE``    append the name of each point to the file as it is passed
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

KILL_VARIABLE: Final = "DTMS_FAULT_POINT"
PASSED_VARIABLE: Final = "DTMS_FAULT_POINTS_PASSED"
FAULT_VARIABLES: Final = frozenset({KILL_VARIABLE, PASSED_VARIABLE})


class Point(StrEnum):
    """All of them. Each is reached in one place; tests/process/test_fault_kills.py says which run dies of it."""

    LOCK_WRITE = "lock.write"
    # The journal's thread. WRITE, SYNC and SYNCED are those of its files, inside of SQLite.
    JOURNAL_BEGIN = "journal.begin"
    JOURNAL_INSERTED = "journal.inserted"
    JOURNAL_WRITE = "journal.write"
    JOURNAL_SYNC = "journal.sync"
    JOURNAL_SYNCED = "journal.synced"
    JOURNAL_COMMITTED = "journal.committed"
    JOURNAL_CHECKPOINT = "journal.checkpoint"
    JOURNAL_CHECKPOINTED = "journal.checkpointed"
    SNAPSHOT_WRITE = "snapshot.write"
    SNAPSHOT_WRITTEN = "snapshot.written"
    COMPACT_WRITE = "compact.write"
    COMPACT_WRITTEN = "compact.written"
    # The service's loop.
    REPLAYED = "recovery.replayed"
    COMPARED = "recovery.compared"
    PUBLISH = "publish"
    PUBLISHED = "published"
    COMMAND = "command"  # its intent is durable; the door has not been asked
    MESSAGE_SENT = "message.sent"  # a command or a query, handed to a gateway's stream
    OUTCOME = "outcome"  # the door has answered; nobody else knows
    OUTCOME_KEPT = "outcome.kept"  # handed to the journal, not durable
    ANSWER = "answer"  # a call's answer is made; the client has nothing
    # Before each message of a stream, a point a method: what was sent before is on its way.
    WATCH_SEND = "watch.send"
    QUOTES_SEND = "quotes.send"
    BARS_SEND = "bars.send"
    TICKS_ANSWER = "ticks.answer"
    BARS_ANSWER = "bars.answer"
    BACKUP_SEND = "backup.send"
    ATTACH_SEND = "attach.send"
    JOIN_SEND = "join.send"
    NOTICE_SEND = "notice.send"  # on the thread of a target of notifications
    NOTICE_SENT = "notice.sent"
    CREDENTIAL_WRITE = "credential.write"
    BARS_WRITE = "bars.write"
    BARS_WRITTEN = "bars.written"
    # The books of a paper account and of a shadow run.
    BOOKS_SAVE = "books.save"
    BOOKS_WRITE = "books.write"
    BOOKS_SYNC = "books.sync"
    BOOKS_SAVED = "books.saved"
    BROKER_LOG = "broker_log"
    # A backup: of a service that runs by its own process, else by the command's.
    BACKUP_STEP = "backup.step"
    BACKUP_SYNC = "backup.sync"
    BACKUP_MARK = "backup.mark"
    BACKUP_MARKED = "backup.marked"
    # How far a run in lockstep is; and at its gateway, what the broker was commanded.
    BOOKMARK = "bookmark"
    BOOKMARK_WRITE = "bookmark.write"
    BOOKMARK_SYNC = "bookmark.sync"
    BOOKMARK_PUT = "bookmark.put"
    COMMAND_LOG = "commands.log"
    COMMAND_LOG_WRITE = "commands.write"
    COMMAND_LOG_SYNC = "commands.sync"
    COMMAND_LOGGED = "commands.logged"
    # The gateway. SEND: before a message of this kind.
    HELLO_SEND = "gateway.hello"
    TICKS_SEND = "gateway.ticks"
    POSITIONS_SEND = "gateway.positions"
    ACCOUNT_SEND = "gateway.account"
    TERMINAL_SEND = "gateway.terminal"
    RECALL_SEND = "gateway.recall"
    READY_SEND = "gateway.ready"
    END_SEND = "gateway.end"
    COMMAND_RECEIVED = "gateway.command"
    FENCE_RAISE = "fence.raise"
    FENCE_WRITE = "fence.write"
    FENCE_SYNC = "fence.sync"
    FENCE_RAISED = "fence.raised"
    ORDER_SEND = "gateway.order_send"
    ORDER_SENT = "gateway.order_sent"
    RESULT_SEND = "gateway.result"
    RESULT_SENT = "gateway.result_sent"
    QUERY_RECEIVED = "gateway.query"
    QUERY_SEND = "gateway.query_result"
    SERVER_TIME_WRITE = "server_time.write"


Hook = Callable[[Point], None]


def reach(point: Point) -> None:
    """Whoever armed the process hears of it here; it may not come back, or raise."""
    if _hook is not None:
        _hook(point)


def is_armed() -> bool:
    return _hook is not None


@contextmanager
def hook(called: Hook) -> Iterator[None]:
    """``called`` gets each point of this process that is reached meanwhile, on the thread that reaches it."""
    global _hook  # noqa: PLW0603  one process, one switch
    before, _hook = _hook, called
    try:
        yield
    finally:
        _hook = before


def from_environment(environ: Mapping[str, str]) -> Hook | None:
    """None where neither variable is set. Raises ValueError for what is no point."""
    called: list[Hook] = []
    if file := environ.get(PASSED_VARIABLE):
        called.append(_recorder(Path(file)))
    if text := environ.get(KILL_VARIABLE):
        called.append(_fault(text))
    if not called:
        return None

    def both(point: Point) -> None:
        for each in called:
            each(point)

    return both


def _recorder(path: Path) -> Hook:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return lambda point: (os.write(fd, f"{point}\n".encode()), None)[1]


def _fault(text: str) -> Hook:
    name, passage, *error = text.split(":")
    wanted, first = Point(name), int(passage)
    number = getattr(errno, error[0]) if error else None
    passed = 0
    turn = threading.Lock()

    def fault(point: Point) -> None:
        nonlocal passed
        if point is not wanted:
            return
        with turn:
            passed += 1
            if passed < first:
                return
        if number is not None:
            raise OSError(number, f"{os.strerror(number)} (fault point {text})")
        os.write(sys.stderr.fileno(), f"fault point {text}\n".encode())
        # Where there is no SIGKILL (Windows), nothing is cleaned up either.
        if sys.platform == "win32":
            os._exit(137)
        os.kill(os.getpid(), signal.SIGKILL)

    return fault


_hook: Hook | None = from_environment(os.environ)
