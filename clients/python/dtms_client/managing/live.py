"""A manager on a running service: follows prices and events, proposes, and stays alive through outages."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from dtms.v1.arbitration_service_pb2 import ProposeResponse
from dtms.v1.event_pb2 import Event
from dtms.v1.trade_pb2 import TRADE_STATE_CLOSED, Trade
from dtms.v1.trade_status_service_pb2 import Progress
from dtms_client._channel import Backoff
from dtms_client.aio import AsyncClient
from dtms_client.errors import LOST, DtmsError, PermissionDenied, Unauthenticated
from dtms_client.managing.brain import Brain, Memo, Proposal, Standby
from dtms_client.managing.owning import Owning
from dtms_client.managing.state_source import Answer, Limits, Source, StateSource
from dtms_client.managing.views import Instrument, Key, TradeView
from dtms_client.requests import new_request_id
from dtms_client.watch import Interrupted, Listed, Relisted

# At the first start every open trade gets its memo: no reason to hold anybody else up.
MEMOS_AT_ONCE: Final = 2

QUOTES_EVERY_MS: Final = 50
"""Prices come no more often, conflated: a stop that follows so much later is no worse."""
PIECE: Final = 32
"""Trades that are looked at in one go, about a millisecond: whoever needs the core next waits no longer than that."""
REST: Final = 19.0
"""A manager rests so many times as long as it looked: that takes a twentieth of a core, however many trades there are.

With a few trades it looks at each whenever prices come, with a thousand about twice a second.
"""
LONGEST_REST_S: Final = 0.25
"""After one piece, however slow the machine is."""

logger = logging.getLogger(__name__)


class Live:
    """Runs one Brain on one client, in one event loop.

    `monotonic` gives seconds that never go back, `now_ns` event time (ns UTC).
    """

    def __init__(
        self,
        client: AsyncClient,
        brain: Brain,
        *,
        monotonic: Callable[[], float],
        now_ns: Callable[[], int],
        limits: Limits,
    ) -> None:
        self._client = client
        self._brain = brain
        self._monotonic = monotonic
        self._now_ns = now_ns
        self._limits = limits
        self._states = StateSource(client.batch_get_trades, monotonic=monotonic, limits=limits)
        self._symbols: dict[Key, str] = {}
        self._views: dict[Key, tuple[Trade, TradeView]] = {}
        self._open: defaultdict[Instrument, set[Key]] = defaultdict(set)
        """Open trades by instrument, as the stream tells."""
        self._touched: set[Instrument] = set()
        self._work = asyncio.Event()
        self._busy: set[Key] = set()
        """Trades with a proposal of ours under way."""
        self._noting: set[Key] = set()
        """Trades with a memo of ours under way."""
        self._memo_gate = asyncio.Semaphore(MEMOS_AT_ONCE)
        self._assuming = False
        self._owning = Owning(client, brain, monotonic=monotonic, changed=self._reread)

    async def run(self) -> None:
        """Until cancelled. Raises what no repeat can mend, a refused credential above all."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_events(), name="events")
                tasks.create_task(self._follow_quotes(), name="quotes")
                if self._brain.timeframes_s:
                    tasks.create_task(self._follow_bars(), name="bars")
                tasks.create_task(self._propose_all(tasks), name="proposals")
                if self._brain.standby is not None:
                    tasks.create_task(self._stand_by(self._brain.standby), name="standby")
        except BaseExceptionGroup as group:
            failed, others = group.split(DtmsError)
            if failed is None or others is not None:
                raise
            # The tasks share one client: they fail for one reason, and the first to notice ends the others.
            raise _first(failed) from group
        finally:
            await self._owning.close()

    # ---- what comes in

    async def _follow_events(self) -> None:
        async for item in self._client.watch(snapshot=True):
            match item:
                case Listed() | Relisted():
                    self._relist(item.trades)
                    logger.info("trades listed", extra={"facts": {"open": len(item.trades), "revision": item.revision}})
                case Event():
                    self._heed(item)
                case Interrupted():
                    logger.warning("events interrupted", extra={"facts": {"error": str(item.error)}})
                case Progress():
                    pass

    async def _follow_quotes(self) -> None:
        async for item in self._client.watch_quotes(min_interval_ms=QUOTES_EVERY_MS):
            if isinstance(item, Interrupted):
                logger.warning("quotes interrupted", extra={"facts": {"error": str(item.error)}})
            else:
                self._touch(self._brain.take_quotes(item.quotes))
                if self._brain.take_indices(item.indices):
                    self._touch(self._open)

    async def _follow_bars(self) -> None:
        async for item in self._client.watch_bars(timeframes_s=self._brain.timeframes_s):
            if isinstance(item, Interrupted):
                logger.warning("bars interrupted", extra={"facts": {"error": str(item.error)}})
            else:
                self._touch(self._brain.take_bars(item))

    def _relist(self, trades: tuple[Trade, ...]) -> None:
        listed = {(trade.account_id, trade.ticket): trade for trade in trades if trade.state != TRADE_STATE_CLOSED}
        for key in self._symbols.keys() - listed.keys():
            self._drop(key)
        for key, trade in listed.items():
            self._add(key, trade.symbol)
            self._states.put(trade)
        self._touch(self._open)

    def _heed(self, event: Event) -> None:
        key = (event.account_id, event.ticket)
        if not event.ticket:
            return
        if event.state == TRADE_STATE_CLOSED or event.HasField("trade_unregistered"):
            self._drop(key)
            return
        if event.HasField("trade_registered"):
            self._add(key, event.symbol)
        if event.HasField("decision_made") and not event.decision_made.decision.granted:
            return  # a "no" to anybody leaves the trade as it was
        if key in self._symbols:
            self._states.invalidate(key, event.revision)
            self._touch([(event.account_id, self._symbols[key])])

    def _add(self, key: Key, symbol: str) -> None:
        self._symbols[key] = symbol
        self._open[key[0], symbol].add(key)

    def _drop(self, key: Key) -> None:
        symbol = self._symbols.pop(key, None)
        if symbol is not None:
            self._open[key[0], symbol].discard(key)
        self._views.pop(key, None)
        self._states.forget(key)
        self._owning.forget(key)
        self._brain.forget(key)

    def _touch(self, instruments: list[Instrument] | defaultdict[Instrument, set[Key]]) -> None:
        self._touched.update(instruments)
        self._work.set()

    def _reread(self, key: Key) -> None:
        """After a change of our own: what is known of the trade is old."""
        if key in self._symbols:
            self._states.doubt(key)
            self._touch([(key[0], self._symbols[key])])

    # ---- while DTMS is away

    async def _stand_by(self, standby: Standby) -> None:
        """Asks for all trades now and then, and hands those over that DTMS no longer answers for."""
        try:
            await standby.prepare()
            while True:
                await asyncio.sleep(standby.every_s)
                await self._states.read(self._symbols, max_age_s=self._limits.state_s)
                for key in tuple(self._symbols):
                    # Looked up one by one: DTMS may be back in the middle of it.
                    trade = self._states.outlived(key)
                    if trade is not None and key not in self._busy:
                        await self._hand_over(standby, trade)
        finally:
            await standby.close()

    async def _hand_over(self, standby: Standby, trade: Trade) -> None:
        view = TradeView.of(trade, manager=self._brain.name)
        self._busy.add(view.key)
        try:
            await standby.act(view, now_ns=self._now_ns())
        finally:
            self._busy.discard(view.key)
        self._touch([view.instrument])

    # ---- what goes out

    async def _propose_all(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._work.wait()
            began_s = self._monotonic()
            self._work.clear()
            touched, self._touched = self._touched, set()
            keys = sorted(key for instrument in touched for key in self._open[instrument] - self._busy)
            stale, asked = await self._states.refresh(keys, max_age_s=self._limits.ownership_s)
            assumed = 0
            for start in range(0, len(keys), PIECE):
                worked_s = self._monotonic()
                piece = [key for key in keys[start : start + PIECE] if key not in self._busy]
                answers = self._states.answers(piece, stale, asked).values()
                assumed += sum(answer.source is Source.ASSUMED for answer in answers)
                self._propose(answers, tasks)
                await _rest(self._monotonic() - worked_s)
            self._tell_of(assumed)
            self._brain.tally.cycle(self._monotonic() - began_s)

    def _propose(self, answers: Iterable[Answer], tasks: asyncio.TaskGroup) -> None:
        """Looks at a few trades, and starts what they need."""
        views = [self._view(answer.trade) for answer in answers if answer.trade is not None and not answer.doubted]
        if due := self._owning.due(views):
            tasks.create_task(self._owning.take(due), name="ownership")
        now_ns = self._now_ns()
        for proposal in self._brain.propose(views, now_ns=now_ns):
            self._busy.add(proposal.key)
            tasks.create_task(self._carry_out(proposal), name=f"propose {proposal.trade.ticket}")
        for memo in self._brain.memos((view for view in views if view.key not in self._noting), now_ns=now_ns):
            self._noting.add(memo.trade.key)
            tasks.create_task(self._leave(memo), name=f"memo {memo.trade.ticket}")

    def _view(self, trade: Trade) -> TradeView:
        """The view of a trade, made once for as long as the very same trade is remembered."""
        key = (trade.account_id, trade.ticket)
        seen, view = self._views.get(key, (None, None))
        if view is None or seen is not trade:
            view = TradeView.of(trade, manager=self._brain.name)
            self._views[key] = trade, view
        return view

    def _tell_of(self, assumed: int) -> None:
        """Says it once when states are no longer known, and once when they are again."""
        if bool(assumed) is not self._assuming:
            self._assuming = bool(assumed)
            facts = {"source": Source.ASSUMED, "trades": assumed}
            logger.warning(
                "states assumed, nothing is written" if assumed else "states known again", extra={"facts": facts}
            )

    async def _carry_out(self, proposal: Proposal) -> None:
        try:
            response = await self._send(proposal)
        except (Unauthenticated, PermissionDenied):
            raise
        except DtmsError as error:
            # Whatever it was, the trade is not what it seemed: read it again, decide anew.
            self._brain.undecided(proposal, error.reason or type(error).__name__, now_ns=self._now_ns())
        else:
            if response is None:
                self._brain.expired(proposal)
            else:
                outcome = response.outcome if response.HasField("outcome") else None
                self._brain.decided(proposal, response.decision, outcome, now_ns=self._now_ns())
        finally:
            self._busy.discard(proposal.key)
        self._reread(proposal.key)

    async def _leave(self, memo: Memo) -> None:
        """Sends a memo once; what is lost is decided anew, after a pause."""
        request = memo.request()
        try:
            async with self._memo_gate:
                began_s = self._monotonic()
                await self._client.set_memo(request.ticket, request.memo, account_id=request.account_id)
                await _rest(self._monotonic() - began_s)
        except (Unauthenticated, PermissionDenied):
            raise
        except DtmsError as error:
            logger.warning("memo lost", extra={"facts": {"ticket": request.ticket, "error": str(error)}})
            await asyncio.sleep(Backoff.LONGEST_S if error.retry_after_s is None else error.retry_after_s)
        finally:
            self._noting.discard(memo.trade.key)
        self._reread(memo.trade.key)

    async def _send(self, proposal: Proposal) -> ProposeResponse | None:
        """The answer, or None when DTMS did not answer for too long. Repeats carry the same request_id."""
        request = proposal.request(new_request_id())
        # No longer than the state that it was decided on may be acted on.
        expires_s = self._monotonic() + self._limits.last_known_s
        backoff = Backoff()
        while True:
            try:
                return await self._client.propose(
                    request_id=request.request_id,
                    account_id=request.account_id,
                    ticket=request.ticket,
                    owner_epoch=request.owner_epoch,
                    action=request.action,
                )
            except LOST as error:
                pause_s = backoff.pause_s(error.retry_after_s)
                if self._monotonic() + pause_s >= expires_s:
                    return None
                logger.warning("proposal waits", extra={"facts": proposal.facts() | {"error": str(error)}})
            await asyncio.sleep(pause_s)


async def _rest(worked_s: float) -> None:
    """With few trades this is nothing; with a thousand the service and the others need the core as well."""
    await asyncio.sleep(min(REST * worked_s, LONGEST_REST_S))


def _first(group: BaseExceptionGroup[DtmsError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
