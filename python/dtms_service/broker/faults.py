"""Fault switches of a paper broker's terminal: what can go wrong between a program and the trade server.

The server itself keeps working through all of them (stops included). Every switch is data that a test sets; a queue is
consumed one request at a time. Nothing here sleeps: latency is an awaitable that the test controls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from dtms_service.broker.door import AccountInfo
from dtms_service.broker.market import PaperPosition
from dtms_service.broker.retcodes import LastError, Retcode


class Leg(Enum):
    REQUEST = "request"  # on the way to the broker, nothing has happened yet
    REPLY = "reply"  # on the way back, it has happened


Latency = Callable[[str, Leg], Awaitable[None]]


class Gate:
    """A latency that holds calls until the test lets them go.

    ``arrived`` is set while at least one call waits; ``open`` lets all waiting and later calls through.
    """

    def __init__(self, operation: str, leg: Leg) -> None:
        self._operation, self._leg = operation, leg
        self._open = asyncio.Event()
        self.arrived = asyncio.Event()
        self.waiting = 0

    async def __call__(self, operation: str, leg: Leg) -> None:
        if (operation, leg) != (self._operation, self._leg) or self._open.is_set():
            return
        self.waiting += 1
        self.arrived.set()
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1
            if not self.waiting:
                self.arrived.clear()

    def open(self) -> None:
        self._open.set()


@dataclass(frozen=True, slots=True)
class Fill:
    """How an accepted market order is executed: after ``delay_ms`` of virtual time (retcode PLACED), and the share
    of its volume that finds a counterparty (below 1: DONE_PARTIAL, rounded down to a volume step, at least one)."""

    delay_ms: int
    fraction: float

    def __post_init__(self) -> None:
        if self.delay_ms < 0 or not 0 < self.fraction <= 1:
            raise ValueError(f"fill: delay {self.delay_ms} ms, fraction {self.fraction}")


AT_ONCE = Fill(delay_ms=0, fraction=1.0)


@dataclass(frozen=True, slots=True)
class Injected:
    """A retcode put in place of the server's. ``executes``: the request was carried out all the same."""

    retcode: Retcode
    executes: bool


@dataclass(frozen=True, slots=True)
class View:
    """What a terminal saw at a moment: copies of positions, last (time_msc, bid, ask) per symbol, the account."""

    time_msc: int
    positions: list[PaperPosition]
    quotes: dict[str, tuple[int, float, float]]
    account: AccountInfo


class Faults:
    """All switches are off at first.

    latency           awaited by the door on both legs of every call
    trade_allowed     False: 10027, the AutoTrading button of the terminal
    server_allows     False: 10026, automated trading switched off by the server
    tradeapi_disabled True: order_send answers None, last_error -8
    stale_positions_ms after each deal, positions show the state before it for so long (virtual time; 0: never)
    """

    def __init__(self, look: Callable[[], View]) -> None:
        self._look = look
        self.latency: Latency | None = None
        self.trade_allowed = True
        self.server_allows = True
        self.tradeapi_disabled = False
        self.stale_positions_ms = 0
        self.terminal_runs = True
        self.pipe_broken = False
        self.last_seen: View | None = None
        self._ipc: deque[LastError] = deque()
        self._retcodes: deque[Injected] = deque()
        self._fills: deque[Fill] = deque()
        self._lost_replies = 0
        self._stale: deque[tuple[int, View]] = deque()

    # --- set by the test ----------------------------------------------------------------------------------------------

    def fail_calls(self, code: LastError, count: int = 1) -> None:
        """The next calls of any kind answer None with this code and reach nobody."""
        self._ipc.extend([code] * count)

    def kill_terminal(self) -> None:
        """The next call fails with -10002, all later ones with -10004, until started and initialised again."""
        self.terminal_runs = False
        self.fail_calls(LastError.INTERNAL_FAIL_RECEIVE)

    def start_terminal(self) -> None:
        self.terminal_runs = True

    def disconnect(self) -> None:
        """Cut the terminal from the server: requests get 10031, reads answer with what it saw last."""
        self.last_seen = self._look()

    def reconnect(self) -> None:
        self.last_seen = None

    @property
    def connected(self) -> bool:
        return self.last_seen is None

    def inject(self, retcode: Retcode, count: int = 1, *, executes: bool = False) -> None:
        """Answer the next requests with this retcode."""
        self._retcodes.extend([Injected(retcode, executes)] * count)

    def place(self, delay_ms: int, count: int = 1) -> None:
        """Answer the next market orders with PLACED and fill them ``delay_ms`` of virtual time later."""
        self._fills.extend([Fill(delay_ms=delay_ms, fraction=1.0)] * count)

    def fill_partly(self, fraction: float, count: int = 1) -> None:
        """Fill only this share of the next market orders (DONE_PARTIAL)."""
        self._fills.extend([Fill(delay_ms=0, fraction=fraction)] * count)

    def lose_replies(self, count: int = 1) -> None:
        """Carry out the next requests and lose the answers (None, -10002)."""
        self._lost_replies += count

    # --- read by the terminal -----------------------------------------------------------------------------------------

    def take_ipc_failure(self) -> LastError | None:
        if self._ipc:
            if not self.terminal_runs:
                self.pipe_broken = True
            return self._ipc.popleft()
        return LastError.INTERNAL_FAIL_CONNECT if self.pipe_broken else None

    def take_retcode(self) -> Injected | None:
        return self._retcodes.popleft() if self._retcodes else None

    def take_fill(self) -> Fill:
        return self._fills.popleft() if self._fills else AT_ONCE

    def take_lost_reply(self) -> bool:
        if not self._lost_replies:
            return False
        self._lost_replies -= 1
        return True

    def before_deal(self) -> None:
        """Called by the server right before a deal changes anything."""
        if self.stale_positions_ms:
            view = self._look()
            self._stale.append((view.time_msc + self.stale_positions_ms, view))

    def stale_view(self, now_msc: int) -> View | None:
        """What positions_get still shows after a recent deal, or None when it shows the truth."""
        while self._stale and self._stale[0][0] <= now_msc:
            self._stale.popleft()
        return self._stale[0][1] if self._stale else None
