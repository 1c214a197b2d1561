"""Trades that a manager owns, kept alive together: for asyncio. `dtms_client.session` is the same for threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from dtms.v1.arbitration_service_pb2 import AcquireOwnershipResponse, Grant
from dtms.v1.ownership_pb2 import Ownership
from dtms.v1.trade_pb2 import Trade
from dtms_client._alarm import AsyncAlarm
from dtms_client.aio import AsyncClient
from dtms_client.errors import OUTAGE, Cancelled, DtmsError, closed
from dtms_client.holdings import Holdings, Lost, Owned, as_grants, batches

logger = logging.getLogger(__name__)

RELEASE_S: Final = 5.0
"""How long the end of a session may take; what is not given back by then falls to DTMS with its lease."""


class AsyncOwnershipSession:
    """Owns trades for as long as it is open, with one keep-alive for all of them, in one event loop.

    `on_lost` is called, in the loop, for each trade that it holds no more: taken by a higher rank, expired
    while the service was away, unknown by now. Lost is final: `adopt` a trade that comes back (under a new token).
    """

    def __init__(
        self, client: AsyncClient, *, on_lost: Callable[[Lost], object] | None = None, alarm: AsyncAlarm | None = None
    ) -> None:
        """`client` is the manager's; it stays open when the session ends. `alarm` is the clock."""
        self._client = client
        self._on_lost = on_lost
        self._alarm = alarm or AsyncAlarm()
        self._holdings = Holdings()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- what is held

    def grant(self, ticket: int, *, account_id: str = "") -> Grant | None:
        """The grant under which a trade is held now, None when it is not: no authority, no write.

        True at the moment of the question, also in a process that was stopped and has just gone on. Raises ValueError
        where several accounts have this ticket and none is named.
        """
        return self._holdings.grant(ticket, account_id, now_s=self._alarm.now_s())

    @property
    def held(self) -> tuple[Grant, ...]:
        """All grants that are held now."""
        return self._holdings.grants(now_s=self._alarm.now_s())

    # ---- taking and giving

    async def acquire(
        self, ticket: int, *, account_id: str = "", timeout_s: float | None = None
    ) -> AcquireOwnershipResponse:
        """Asks for a trade and holds it if granted; a denial is data in the response."""
        self._require_open()
        sent_s = self._alarm.now_s()
        response = await self._client.acquire_ownership(ticket, account_id=account_id, timeout_s=timeout_s)
        if response.granted:
            self._hold([response.ownership], sent_s=sent_s)
        return response

    async def adopt(self, *owned: Owned, timeout_s: float | None = None) -> tuple[Grant, ...]:
        """Holds trades that the manager owns already: by registration, given back after a defence, from the run before.

        Their leases are renewed at once. Returns what is held by it; what is missing there belongs to somebody else.
        """
        self._require_open()
        adopted: list[Grant] = []
        for batch in batches(as_grants(owned)):
            sent_s = self._alarm.now_s()
            response = await self._client.renew_ownership(batch, timeout_s=timeout_s)
            adopted += self._hold(response.renewed, sent_s=sent_s)
        return tuple(adopted)

    async def release(self, ticket: int, *, account_id: str = "", timeout_s: float | None = None) -> Ownership | None:
        """Gives a trade back and says who owns it then; None when it was not held.

        It is not held any more whatever becomes of the call. Raises StaleEpoch when it was lost already.
        """
        grant = self._holdings.grant(ticket, account_id, now_s=self._alarm.now_s())
        if grant is None or not self._holdings.drop(grant):
            return None
        return await self._client.release_ownership(grant, timeout_s=timeout_s)

    def forget(self, ticket: int, *, account_id: str = "") -> None:
        """The trade is closed: it is not held any more, and there is nobody to give it back to. Asks nobody."""
        grant = self._holdings.grant(ticket, account_id, now_s=self._alarm.now_s())
        if grant is not None:
            self._holdings.drop(grant)

    async def close(self, *, release: bool = True, wait_s: float = RELEASE_S) -> tuple[Grant, ...]:
        """Ends the keep-alive and gives everything back, or leaves it to its leases without `release`.

        Waits `wait_s` at most; returns the grants that could not be given back.
        """
        self._closed = True
        self._alarm.ring()
        until_s = self._alarm.now_s() + wait_s
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])
        grants = self.held
        for grant in grants:
            self._holdings.drop(grant)
        return await self._give_back(grants, until_s=until_s) if release else ()

    async def _give_back(self, grants: Sequence[Grant], *, until_s: float) -> tuple[Grant, ...]:
        for place, grant in enumerate(grants):
            try:
                await self._client.release_ownership(grant, timeout_s=max(until_s - self._alarm.now_s(), 0.0))
            except (*OUTAGE, Cancelled) as error:
                # The next ones would fare no better.
                left = tuple(grants[place:])
                facts = {"tickets": [each.ticket for each in left], "error": str(error)}
                logger.warning("trades left to their leases", extra={"facts": facts})
                return left
            except DtmsError as error:
                # Somebody else's by now.
                logger.warning("trade not given back", extra={"facts": {"ticket": grant.ticket, "error": str(error)}})
        return ()

    # ---- keeping alive

    async def _keep_alive(self) -> None:
        while not self._closed:
            now_s = self._alarm.now_s()
            self._report(self._holdings.expire(now_s=now_s))
            for batch in self._holdings.due(now_s=now_s):
                if not await self._renew(batch):
                    break
            await self._alarm.wait_until(self._holdings.wake_s())

    async def _renew(self, batch: Sequence[Grant]) -> bool:
        """False when the service does not answer: then there is no need to try the others."""
        sent_s = self._alarm.now_s()
        timeout_s = self._holdings.timeout_s(batch, now_s=sent_s)
        try:
            response = await self._client.renew_ownership(batch, timeout_s=timeout_s)
        except (*OUTAGE, Cancelled) as error:
            self._holdings.failed(error, now_s=self._alarm.now_s())
            return False
        except DtmsError as error:
            self._report(self._holdings.refused(batch, error))
            return True
        # Lost before the answer came is lost, though the service would have it otherwise.
        lost = self._holdings.expire(now_s=self._alarm.now_s())
        gone = self._holdings.renewed(batch, response, sent_s=sent_s)
        self._report([*lost, *await self._with_owners(gone)])
        return True

    async def _with_owners(self, gone: Sequence[Grant]) -> list[Lost]:
        """What was lost, with who owns it now as far as the service says."""
        lost: list[Lost] = []
        for batch in batches(gone):
            try:
                response = await self._client.batch_get_trades(
                    [grant.ticket for grant in batch], account_id=batch[0].account_id
                )
                trades = {trade.ticket: trade for trade in response.trades}
            except DtmsError as error:
                logger.warning("owners unknown", extra={"facts": {"error": str(error)}})
                trades = dict[int, Trade]()
            lost += [Lost(grant, trades.get(grant.ticket), None) for grant in batch]
        return lost

    # ---- wiring

    def _hold(self, owned: Iterable[Ownership], *, sent_s: float) -> list[Grant]:
        if self._closed:
            raise closed()
        grants = [self._holdings.put(each, sent_s=sent_s) for each in owned]
        if self._task is None and grants:
            self._task = asyncio.create_task(self._keep_alive(), name="dtms-ownership")
            self._task.add_done_callback(_hand_on_failure)
        self._alarm.ring()
        return grants

    def _require_open(self) -> None:
        if self._closed:
            raise closed()

    def _report(self, lost: Iterable[Lost]) -> None:
        for each in lost:
            logger.warning("trade lost", extra={"facts": each.facts})
            if self._on_lost is not None:
                try:
                    self._on_lost(each)
                except Exception as error:  # noqa: BLE001  the keep-alive of the others goes on
                    _hand_on(error)


def _hand_on(error: BaseException) -> None:
    """As if it had ended a callback of the loop."""
    asyncio.get_running_loop().call_exception_handler({"message": "a session of dtms_client", "exception": error})


def _hand_on_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _hand_on(error)
