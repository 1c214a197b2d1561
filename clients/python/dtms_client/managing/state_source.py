"""The state of trades as far as it can be known: asked for, cached, remembered, or at last assumed.

Never waits beyond its deadlines and never raises on an outage; each answer says where it comes from.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from dtms.v1.trade_pb2 import Trade
from dtms.v1.trade_status_service_pb2 import BatchGetTradesResponse
from dtms_client.errors import LOST
from dtms_client.managing.views import DEFENSIVE, Key

# The service takes 500 tickets in one call; fewer at a time leave it room for others in between (a millisecond each).
BATCH: Final = 100
AT_ONCE: Final = 2
# The second deadline ends by itself, with its own error, where this machine is not too busy for it.
SLACK_S: Final = 0.1


class Source(StrEnum):
    """Where an answer comes from."""

    FRESH = "FRESH"
    """Just asked."""
    CACHED = "CACHED"
    """Asked a moment ago, and the stream told of no change since."""
    LAST_KNOWN = "LAST_KNOWN"
    """DTMS does not answer; what it said last is still young enough to act on."""
    ASSUMED = "ASSUMED"
    """DTMS does not answer and nothing young is known: taken as not defensive, which allows no write through DTMS."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait and to trust, seconds."""

    deadline_s: float = 2.0
    """For one question; asked twice at most."""
    state_s: float = 10.0
    """A state is believed for so long without a word from the stream."""
    ownership_s: float = 5.0
    """Ownership moves faster than states do."""
    last_known_s: float = 30.0
    """After that a state says nothing about the present."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a trade. `trade` is None when DTMS does not know it, or on ASSUMED."""

    trade: Trade | None
    source: Source
    age_s: float
    doubted: bool
    """The trade has changed since, and how is not known: no ground for a proposal."""

    @property
    def defensive(self) -> bool:
        """Only DTMS acts. False on ASSUMED."""
        return self.trade is not None and self.trade.state in DEFENSIVE


class Ask(Protocol):
    """Asks DTMS, as `AsyncClient.batch_get_trades` does."""

    async def __call__(
        self, tickets: Sequence[int], *, account_id: str, timeout_s: float
    ) -> BatchGetTradesResponse: ...


@dataclass(frozen=True, slots=True)
class _Memory:
    trade: Trade | None
    asked_at_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Doubt:
    """A change was told of; a trade of this revision, or an answer to a later question, settles it."""

    revision: int


class StateSource:
    """States of trades for one event loop.

    `monotonic` gives seconds that never go back. What is remembered is bounded by the trades that are not forgotten:
    call `forget` when one is closed.
    """

    def __init__(self, ask: Ask, *, monotonic: Callable[[], float], limits: Limits) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._limits = limits
        self._memory: dict[Key, _Memory] = {}
        self._doubts: dict[Key, _Doubt] = {}

    async def state(self, key: Key) -> Answer:
        """The defensive state; believed for `state_s`."""
        return (await self.read([key], max_age_s=self._limits.state_s))[key]

    async def ownership(self, key: Key) -> Answer:
        """Owner, token and breakeven of the trade; believed for `ownership_s`."""
        return (await self.read([key], max_age_s=self._limits.ownership_s))[key]

    async def read(self, keys: Iterable[Key], *, max_age_s: float) -> dict[Key, Answer]:
        """Several trades at once, asked for together.

        Takes two deadlines at most, however many trades. Raises what no repeat can mend (a refused credential).
        """
        wanted = list(dict.fromkeys(keys))
        stale, asked = await self.refresh(wanted, max_age_s=max_age_s)
        return self.answers(wanted, stale, asked)

    async def refresh(self, keys: Iterable[Key], *, max_age_s: float) -> tuple[set[Key], set[Key]]:
        """Asks for those that are not believed any more; returns them, and those of them that were answered.

        Takes two deadlines at most. Raises what no repeat can mend (a refused credential).
        """
        now_s = self._monotonic()
        stale = [key for key in keys if not self._believed(key, max_age_s=max_age_s, now_s=now_s)]
        return set(stale), await self._refresh_all(stale) if stale else set()

    def answers(self, keys: Iterable[Key], stale: AbstractSet[Key], asked: AbstractSet[Key]) -> dict[Key, Answer]:
        """What is known now, after `refresh`."""
        now_s = self._monotonic()
        return {key: self._answer(key, fresh=key in asked, cached=key not in stale, now_s=now_s) for key in keys}

    def outlived(self, key: Key) -> Trade | None:
        """What DTMS said last of a trade, once that is too old to be LAST_KNOWN; None before, and where it never spoke.

        No ground for a proposal.
        """
        memory = self._memory.get(key)
        if memory is None or self._monotonic() - memory.asked_at_s <= self._limits.last_known_s:
            return None
        return memory.trade

    def put(self, trade: Trade) -> None:
        """Remembers a trade that the stream listed just now."""
        key = (trade.account_id, trade.ticket)
        self._remember(key, trade, self._monotonic())

    def invalidate(self, key: Key, revision: int) -> None:
        """The stream told of a change at `revision`: what is older is not believed any more."""
        doubt = self._doubts.get(key)
        self._doubts[key] = _Doubt(revision if doubt is None else max(revision, doubt.revision))

    def doubt(self, key: Key) -> None:
        """Believes nothing of the trade until it is asked for again, after a change of our own."""
        self._doubts[key] = _Doubt(sys.maxsize)

    def forget(self, key: Key) -> None:
        """The trade is gone."""
        self._memory.pop(key, None)
        self._doubts.pop(key, None)

    def _believed(self, key: Key, *, max_age_s: float, now_s: float) -> bool:
        memory = self._memory.get(key)
        return memory is not None and now_s - memory.asked_at_s <= max_age_s and key not in self._doubts

    async def _refresh_all(self, keys: Sequence[Key]) -> set[Key]:
        """Asks for all of them; those that were answered within two deadlines."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def refresh(account_id: str, tickets: Sequence[int]) -> set[Key]:
            async with gate:
                return await self._refresh(account_id, tickets)

        tasks = [asyncio.create_task(refresh(*group)) for group in _groups(keys)]
        try:
            done, _ = await asyncio.wait(tasks, timeout=2 * self._limits.deadline_s + SLACK_S)
        finally:
            for task in tasks:
                task.cancel()
        return {key for task in done for key in task.result()}

    async def _refresh(self, account_id: str, tickets: Sequence[int]) -> set[Key]:
        """Asks, once more after a failure; empty when DTMS does not answer."""
        try:
            return await self._ask_once(account_id, tickets)
        except LOST:
            pass
        try:
            return await self._ask_once(account_id, tickets)
        except LOST:
            return set()

    async def _ask_once(self, account_id: str, tickets: Sequence[int]) -> set[Key]:
        keys = [(account_id, ticket) for ticket in tickets]
        asked_at_s = self._monotonic()
        heard = {key: self._doubts.get(key) for key in keys}
        response = await self._ask(tickets, account_id=account_id, timeout_s=self._limits.deadline_s)
        found = {trade.ticket: trade for trade in response.trades}
        for key in keys:
            self._remember(key, found.get(key[1]), asked_at_s)
            # A change that the stream told of while the answer was on its way is not settled by it.
            if self._doubts.get(key) is heard[key]:
                self._doubts.pop(key, None)
        return set(keys)

    def _remember(self, key: Key, trade: Trade | None, asked_at_s: float) -> None:
        known = self._memory.get(key)
        newest = known.trade.revision if known is not None and known.trade is not None else 0
        if trade is not None and trade.revision < newest:
            return
        self._memory[key] = _Memory(trade, asked_at_s)
        doubt = self._doubts.get(key)
        if trade is not None and doubt is not None and trade.revision >= doubt.revision:
            self._doubts.pop(key)

    def _answer(self, key: Key, *, fresh: bool, cached: bool, now_s: float) -> Answer:
        memory = self._memory.get(key)
        age_s = now_s - memory.asked_at_s if memory is not None else 0.0
        if memory is None or (not fresh and age_s > self._limits.last_known_s):
            return Answer(trade=None, source=Source.ASSUMED, age_s=age_s, doubted=True)
        source = Source.FRESH if fresh else Source.CACHED if cached else Source.LAST_KNOWN
        return Answer(trade=memory.trade, source=source, age_s=age_s, doubted=key in self._doubts)


def _groups(keys: Sequence[Key]) -> list[tuple[str, list[int]]]:
    """Tickets by account, in pieces that fit a call."""
    accounts: defaultdict[str, list[int]] = defaultdict(list)
    for account_id, ticket in keys:
        accounts[account_id].append(ticket)
    return [
        (account_id, tickets[start : start + BATCH])
        for account_id, tickets in accounts.items()
        for start in range(0, len(tickets), BATCH)
    ]
