"""The broker door over a MetaTrader 5 terminal. All calls of its package run on one thread of their own.

The caller awaits each call with a deadline. A command that never got its turn is REJECTED (nothing was sent), one whose
answer did not come in time or was lost is UNKNOWN, a query then is BrokerUnavailable; an answer that comes later is
nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Final, TypeVar

from dtms_service.bars import ClosedBar
from dtms_service.broker.door import (
    AccountInfo,
    BrokerUnavailable,
    ClosingDeal,
    Command,
    OrderRecord,
    Outcome,
    OutcomeStatus,
    Position,
    Report,
    SymbolSpec,
)
from dtms_service.broker.fence import Fence
from dtms_service.broker.mt5_package import Load
from dtms_service.broker.mt5_prices import Look
from dtms_service.broker.mt5_session import Health, Login, Mt5Session
from dtms_service.broker.mt5_thread import NeverStarted, OwnerThread, Unanswered, Watch
from dtms_service.broker.retcodes import COMMENTS, LastError, Retcode
from dtms_service.broker.server_time import ServerTime

T = TypeVar("T")

# Shorter than the service's own deadline for a gateway (10 s), so that the service learns why.
DEADLINE_S: Final = 8.0


class Mt5Door:
    """Implements :class:`door.BrokerDoor` for the one account of ``login``. ``close`` does not wait for the terminal.

    ``load`` gives the module MetaTrader5 or an object with its functions; ``now_msc`` is UTC; ``watch`` is entered
    around each step on the owning thread; ``deadline_s`` holds for each call, from its asking to its answer.
    """

    def __init__(
        self,
        load: Load,
        login: Login,
        *,
        time: ServerTime,
        fence: Fence,
        now_msc: Callable[[], int],
        watch: Watch = nullcontext,
        deadline_s: float = DEADLINE_S,
        thread: type[OwnerThread] = OwnerThread,
    ) -> None:
        self._account_id = login.account_id
        self._session = Mt5Session(load, login, time, fence, now_msc)
        self._owner = thread(f"terminal {login.account_id}", watch)
        self._deadline_s = deadline_s

    def close(self) -> None:
        """No more calls. The pipe is closed behind those that wait, if they ever end."""
        self._owner.close(self._session.close)

    async def execute(self, command: Command) -> Outcome:
        """Send one command; a lost answer is UNKNOWN. Raises BrokerUnavailable for an unknown account only."""
        if command.account_id != self._account_id:
            raise BrokerUnavailable("execute", LastError.AUTH_FAILED, f"no account {command.account_id}")
        try:
            return await self._owner.run(lambda wanted: self._session.execute(command, wanted), self._deadline_s)
        except NeverStarted as error:
            text = f"{COMMENTS[Retcode.CONNECTION]}: {error}"
            return Outcome(OutcomeStatus.REJECTED, Retcode.CONNECTION, text)
        except Unanswered as error:
            return Outcome(OutcomeStatus.UNKNOWN, 0, str(error))

    async def account(self, account_id: str) -> AccountInfo:
        return await self._query("account", account_id, self._session.account)

    async def symbol(self, account_id: str, name: str) -> SymbolSpec:
        return await self._query("symbol", account_id, lambda: self._session.symbol(name))

    async def positions(self, account_id: str) -> list[Position]:
        return await self._query("positions", account_id, self._session.positions)

    async def report(self, account_id: str, since: int) -> Report:  # noqa: ARG002  # a terminal shows everything
        return Report(await self.positions(account_id), changed=None)

    async def closing_deals(self, account_id: str, position: int) -> list[ClosingDeal]:
        return await self._query("closing_deals", account_id, lambda: self._session.closing_deals(position))

    async def past_bars(self, account_id: str, symbol: str, timeframe_s: int, count: int) -> list[ClosedBar]:
        read = self._session.past_bars
        return await self._query("past_bars", account_id, lambda: read(symbol, timeframe_s, count))

    @property
    def settles_at_once(self) -> bool:
        """A terminal that hung may send what it was given, and a server execute what it accepted, a while later."""
        return False

    async def orders(self, account_id: str, comment: str, since_msc: int) -> list[OrderRecord]:
        return await self._query("orders", account_id, lambda: self._session.orders(comment, since_msc))

    # --- for the gateway ----------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Look who is there: terminal, account, link, switches. Raises BrokerUnavailable, also for the wrong ones."""
        return await self._query("health", self._account_id, self._session.health)

    async def look(self, symbols: Sequence[str]) -> Look:
        """The ticks since the last look and the change count. Raises BrokerUnavailable, also before the server's time
        offset is known."""
        return await self._query("look", self._account_id, lambda: self._session.look(symbols))

    async def observe(self, symbols: Sequence[str]) -> int | None:
        """Watch the symbols' ticks for the server's time; its offset, s, once it is known."""
        return await self._query("observe", self._account_id, lambda: self._session.observe(symbols))

    async def restart_prices(self) -> None:
        """The next look begins with the prices of now."""
        await self._query("look", self._account_id, self._session.prices.restart)

    async def _query(self, operation: str, account_id: str, read: Callable[[], T]) -> T:
        try:
            return await self._owner.run(
                lambda _wanted: self._session.query(operation, account_id, read), self._deadline_s
            )
        except (NeverStarted, Unanswered) as error:
            raise BrokerUnavailable(operation, LastError.INTERNAL_FAIL_TIMEOUT, str(error)) from None
