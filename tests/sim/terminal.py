"""The terminal of the world: MetaTrader 5's functions over the paper broker, with the lies that a terminal can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dtms_service.broker import recorded
from dtms_service.broker.broker_log import BrokerLog
from dtms_service.broker.door import Command, Outcome
from dtms_service.broker.mt5_api import PaperMt5
from dtms_service.broker.mt5_door import Mt5Door
from dtms_service.broker.mt5_thread import NeverStarted, OwnerThread, Unanswered, Wanted, Watch
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.retcodes import LAST_ERROR_TEXTS, LastError

T = TypeVar("T")


@dataclass
class Lies:
    """``none``: functions that answer None. ``empty``: that show nothing. ``hidden``: positions that are not shown.

    ``login``: another account is logged in. ``odd_ticks``: the price of every tick. ``slow_s``: how long a call takes
    before and after its effect.
    """

    none: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    hidden: set[int] = field(default_factory=set)
    login: int | None = None
    odd_ticks: float | None = None
    slow_s: tuple[float, float] = (0.0, 0.0)

    def cease(self) -> None:
        self.none.clear()
        self.empty.clear()
        self.hidden.clear()
        self.login, self.odd_ticks, self.slow_s = None, None, (0.0, 0.0)


class LyingMt5:
    """What the adapter takes for the package MetaTrader5."""

    def __init__(self, broker: PaperBroker, lies: Lies) -> None:
        self._mt5, self._lies = PaperMt5(broker), lies
        self._error: tuple[int, str] | None = None

    def last_error(self) -> tuple[int, str]:
        return self._error or self._mt5.last_error()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._mt5, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._error = None
            if name in self._lies.none:
                self._error = (int(LastError.FAIL), LAST_ERROR_TEXTS[LastError.FAIL])
                return None
            answer = function(*arguments, **options)
            if answer is None:
                return None
            if name in self._lies.empty:
                return ()
            if name == "positions_get":
                return tuple(held for held in answer if held.ticket not in self._lies.hidden)
            if name == "copy_ticks_from" and self._lies.odd_ticks is not None:
                answer = answer.copy()
                answer["bid"] = answer["ask"] = self._lies.odd_ticks
            if name == "account_info" and self._lies.login is not None:
                return type(answer)([self._lies.login, *tuple(answer)[1:]])
            return answer

        return call


class VirtualOwner(OwnerThread):
    """The terminal's thread as a task: one step at a time, each as slow as the terminal is."""

    slowness: Callable[[], tuple[float, float]] = staticmethod(lambda: (0.0, 0.0))

    def __init__(self, name: str, watch: Watch = nullcontext) -> None:  # noqa: ARG002
        self._turn = asyncio.Lock()
        self._is_closed = False

    async def run(self, work: Callable[[Wanted], T], deadline_s: float) -> T:
        if self._is_closed:
            raise NeverStarted("closed")
        started, before_s, after_s = False, *self.slowness()
        try:
            async with asyncio.timeout(deadline_s), self._turn:
                if before_s:
                    await asyncio.sleep(before_s)
                started = True
                answer = work(lambda: True)
                if after_s:
                    await asyncio.sleep(after_s)
                return answer
        except TimeoutError:
            if started:
                raise Unanswered(f"no answer within {deadline_s:g} s") from None
            raise NeverStarted(f"no turn within {deadline_s:g} s") from None

    def close(self, last: Callable[[], None]) -> None:
        if not self._is_closed:
            self._is_closed = True
            last()


class MarkedDoor(Mt5Door):
    """Marks its commands for the broker's log, as ``RecordedDoor`` does."""

    async def execute(self, command: Command) -> Outcome:
        marked = recorded._carried_out.set(command)
        try:
            return await super().execute(command)
        finally:
            recorded._carried_out.reset(marked)


class MemoryLog(BrokerLog):
    """The broker's log as a list; ``told`` is called with each line."""

    def __init__(self, told: Callable[[dict[str, Any]], None]) -> None:
        self._entry_magic, self._seq, self._told = None, 0, told

    def write(self, line: Mapping[str, object]) -> None:
        self._seq += 1
        self._told({"seq": self._seq, **line})

    def close(self) -> None:
        """Nothing to close."""
