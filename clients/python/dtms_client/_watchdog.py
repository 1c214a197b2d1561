"""A limit on the silence of a stream that is read by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from dtms.v1.trade_status_service_pb2 import WatchResponse

ResponseT_co = TypeVar("ResponseT_co", bound=Message, covariant=True)


class Stream(Protocol[ResponseT_co]):
    """A stream as gRPC hands it to a thread."""

    def __iter__(self) -> Iterator[ResponseT_co]: ...
    def __next__(self) -> ResponseT_co: ...
    def cancel(self) -> object: ...


class Watchdog:
    """Cancels a stream whose next message takes longer than `silence_s`.

    A thread of its own, because a blocking read has no timeout. Not on guard while the consumer is at work.
    """

    def __init__(self, stream: Stream[WatchResponse], silence_s: float) -> None:
        self._stream = stream
        self._silence_s = silence_s
        self._changed = threading.Condition()
        self._waiting_since: float | None = None
        self._over = False
        self.fired = False
        threading.Thread(target=self._guard, name="dtms-watchdog", daemon=True).start()

    def responses(self) -> Iterator[WatchResponse]:
        """The stream's messages, under guard."""
        while True:
            self._set(time.monotonic())
            try:
                response = next(self._stream)
            except StopIteration:
                return
            finally:
                self._set(None)
            yield response

    def stop(self) -> None:
        """Ends the stream and the guard."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._stream.cancel()

    def _set(self, waiting_since: float | None) -> None:
        with self._changed:
            self._waiting_since = waiting_since
            self._changed.notify()

    def _guard(self) -> None:
        with self._changed:
            while not self._over:
                if self._waiting_since is None:
                    self._changed.wait()
                    continue
                left_s = self._waiting_since + self._silence_s - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                self.fired = self._over = True
                self._stream.cancel()
