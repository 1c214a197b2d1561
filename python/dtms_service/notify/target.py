"""One target of notifications and the thread that delivers to it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from prometheus_client import Counter

from dtms_service.fault_points import Point, reach

MESSAGE_CHARS: Final = 1800
"""What waits is joined up to this length: Discord takes 2,000 characters, and chats throttle messages, not lines."""
BACKOFF_S: Final = (1.0, 4.0, 15.0)
"""Pauses before a message is tried again; then it is given up, for what it tells is old."""

MESSAGES = Counter("dtms_notification_messages_total", "Messages to targets, each of one or more facts", ["result"])
LOST = Counter("dtms_notifications_dropped_total", "Facts that a target was never told", ["why"])

log = structlog.get_logger(__name__)


class Sender(Protocol):
    """Delivers to one target, and blocks for as long as that takes."""

    @property
    def label(self) -> str:
        """Names the target in logs, without a secret."""

    def __call__(self, title: str, text: str) -> str | None:
        """Why it was not delivered; None when it was."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One fact in words; ``revision`` is that of its event."""

    text: str
    revision: int


class Target:
    """A bounded queue and its thread. ``offer`` never waits; what cannot be delivered is counted, logged and said.

    ``max_waiting`` notices may wait; when a target is that slow, the later ones are dropped: the first of a flood tell
    its cause. The thread is a daemon: a target that hangs never keeps the process alive.
    """

    def __init__(self, sender: Sender, title: str, *, max_waiting: int, backoff_s: Sequence[float] = BACKOFF_S) -> None:
        self._sender, self._title = sender, title
        self._max_waiting, self._backoff_s = max_waiting, tuple(backoff_s)
        self._waiting: deque[Notice] = deque()
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._unsaid = 0  # notices lost since the last delivered message, the first of them of this revision
        self._unsaid_from = 0
        self._thread = threading.Thread(target=self._deliver, name=f"notify {sender.label}", daemon=True)
        self._thread.start()

    @property
    def label(self) -> str:
        return self._sender.label

    def offer(self, notice: Notice) -> None:
        with self._news:
            if len(self._waiting) < self._max_waiting and not self._closing.is_set():
                self._waiting.append(notice)
                self._news.notify()
                return
            is_first = not self._unsaid
            self._lose([notice], "queue full")
        if is_first:  # a flood is logged once; how many they were is said with the next message, and counted
            log.error("notifications_dropped", target=self.label, why="queue full", first_revision=notice.revision)

    def close(self, within_s: float) -> None:
        """Blocks until what waits is delivered, or so long; what then still waits is lost, and said in the log."""
        with self._news:
            self._closing.set()
            self._news.notify()
        self._thread.join(within_s)
        with self._news:
            left, self._waiting = list(self._waiting), deque()
            self._lose(left, "stopped")
        if left or self._thread.is_alive():
            hangs = self._thread.is_alive()
            log.error("notifications_dropped", target=self.label, why="stopped", facts=len(left), last_one_hangs=hangs)

    # ---- on the thread

    def _deliver(self) -> None:
        while batch := self._next():
            text, unsaid = self._text(batch)
            why = self._send(text)
            if why is None:
                MESSAGES.labels("sent").inc()
                with self._news:
                    self._unsaid -= unsaid
            else:
                with self._news:
                    self._lose(batch, "not delivered")
                log.error("notifications_dropped", target=self.label, why=why, facts=len(batch))

    def _next(self) -> list[Notice]:
        """What goes into the next message; empty at the end."""
        with self._news:
            while not self._waiting and not self._closing.is_set():
                self._news.wait()
            batch: list[Notice] = []
            room = MESSAGE_CHARS
            while self._waiting and (not batch or room >= len(self._waiting[0].text)):
                batch.append(self._waiting.popleft())
                room -= len(batch[-1].text) + 1
            return batch

    def _text(self, batch: Sequence[Notice]) -> tuple[str, int]:
        with self._news:
            unsaid, first = self._unsaid, self._unsaid_from
        lines = [notice.text for notice in batch]
        if unsaid:
            lines.append(f"{unsaid} earlier facts were not told here: dtms watch --from-revision {first}")
        return "\n".join(lines), unsaid

    def _send(self, text: str) -> str | None:
        """Tries until it is delivered or the pauses are used up; while stopping once."""
        pauses = iter(self._backoff_s)
        while True:
            reach(Point.NOTICE_SEND)
            why = self._sender(self._title, text)
            reach(Point.NOTICE_SENT)
            if why is None:
                return None
            MESSAGES.labels("failed").inc()
            pause_s = next(pauses, None)
            if pause_s is None or self._closing.is_set():
                return why
            log.warning("notification_failed", target=self.label, why=why, again_in_s=pause_s)
            self._closing.wait(pause_s)

    def _lose(self, notices: Sequence[Notice], why: str) -> None:
        """Under the lock."""
        if notices:
            self._unsaid_from = self._unsaid_from if self._unsaid else notices[0].revision
            self._unsaid += len(notices)
            LOST.labels(why).inc(len(notices))
