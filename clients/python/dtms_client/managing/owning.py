"""The trades that a manager should own: those it has are kept alive, those it lost are asked for again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from dtms.v1.action_pb2 import DenialCode
from dtms.v1.arbitration_service_pb2 import Grant
from dtms_client._channel import Backoff
from dtms_client.aio import AsyncClient
from dtms_client.aio_session import AsyncOwnershipSession
from dtms_client.errors import DtmsError, PermissionDenied, Unauthenticated
from dtms_client.managing.brain import Brain
from dtms_client.managing.views import Key, TradeView

# After a "no": whoever owns it now does not give it back in a moment. Each further "no" doubles the pause, for a kill
# switch may hold for a day.
PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0

logger = logging.getLogger(__name__)


class Owning:
    """One ownership session for one Brain. `changed` is called for each trade whose owner has changed."""

    def __init__(
        self,
        client: AsyncClient,
        brain: Brain,
        *,
        monotonic: Callable[[], float],
        changed: Callable[[Key], None],
    ) -> None:
        self._brain = brain
        self._monotonic = monotonic
        self._changed = changed
        self._session = AsyncOwnershipSession(
            client, on_lost=lambda lost: changed((lost.grant.account_id, lost.grant.ticket))
        )
        self._under_way: set[Key] = set()
        self._not_before_s: dict[Key, float] = {}
        self._pause_s: dict[Key, float] = {}

    def due(self, trades: Iterable[TradeView]) -> list[TradeView]:
        """Trades that it claims and does not hold; each once, until `take` is done with it."""
        now_s = self._monotonic()
        due = [
            trade
            for trade in trades
            if trade.key not in self._under_way
            and self._brain.claims(trade)
            and not self._holds(trade)
            and now_s >= self._not_before_s.get(trade.key, now_s)
        ]
        self._under_way.update(trade.key for trade in due)
        return due

    async def take(self, due: Sequence[TradeView]) -> None:
        """Adopts what it owns already, asks for the rest. Raises only what no repeat can mend."""
        try:
            await self._adopt([trade for trade in due if trade.managed_by == self._brain.name])
            for trade in due:
                if trade.managed_by != self._brain.name:
                    await self._acquire(trade)
        except (Unauthenticated, PermissionDenied):
            raise
        except DtmsError as error:
            logger.warning("ownership waits", extra={"facts": {"trades": len(due), "error": str(error)}})
            await asyncio.sleep(Backoff.LONGEST_S if error.retry_after_s is None else error.retry_after_s)
        finally:
            self._under_way.difference_update(trade.key for trade in due)
        for trade in due:
            self._changed(trade.key)

    async def close(self) -> None:
        """Gives back what it holds: the trades fall to DTMS at once, not when their leases end."""
        await self._session.close()

    def forget(self, key: Key) -> None:
        """The trade is closed: there is nothing to keep alive or to give back."""
        self._session.forget(key[1], account_id=key[0])
        self._not_before_s.pop(key, None)
        self._pause_s.pop(key, None)

    def _holds(self, trade: TradeView) -> bool:
        grant = self._session.grant(trade.ticket, account_id=trade.account_id)
        return grant is not None and grant.owner_epoch >= trade.owner_epoch

    async def _adopt(self, owned: Sequence[TradeView]) -> None:
        if not owned:
            return
        grants = [Grant(account_id=each.account_id, ticket=each.ticket, owner_epoch=each.owner_epoch) for each in owned]
        kept = {(grant.account_id, grant.ticket) for grant in await self._session.adopt(*grants)}
        for trade in owned:
            if trade.key in kept:
                self._pause_s.pop(trade.key, None)
            else:
                self._pause(trade, "lost before it was adopted")
        logger.info("trades adopted", extra={"facts": {"trades": len(kept)}})

    async def _acquire(self, trade: TradeView) -> None:
        response = await self._session.acquire(trade.ticket, account_id=trade.account_id)
        if response.granted:
            self._pause_s.pop(trade.key, None)
            facts = {"ticket": trade.ticket, "owner_epoch": response.ownership.owner_epoch}
            logger.info("trade acquired", extra={"facts": facts})
        else:
            self._pause(trade, DenialCode.Name(response.denial).removeprefix("DENIAL_CODE_"))

    def _pause(self, trade: TradeView, why: str) -> None:
        pause_s = self._pause_s.get(trade.key, PAUSE_S)
        self._pause_s[trade.key] = min(2 * pause_s, LONGEST_PAUSE_S)
        self._not_before_s[trade.key] = self._monotonic() + pause_s
        logger.info("trade not owned", extra={"facts": {"ticket": trade.ticket, "why": why}})
