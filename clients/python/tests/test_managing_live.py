"""Managers on a live service: a real gRPC server with scripted answers, and a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from dtms.v1.action_pb2 import OUTCOME_STATUS_CONFIRMED, Decision, Outcome
from dtms.v1.arbitration_service_pb2 import ProposeRequest, ProposeResponse
from dtms.v1.event_pb2 import Event, StateChanged, TradeRegistered
from dtms.v1.market_data_service_pb2 import Quote, WatchQuotesResponse
from dtms.v1.ownership_pb2 import RANK_DTMS_NORMAL
from dtms.v1.trade_pb2 import (
    SIDE_BUY,
    STATE_PHASE_CONFIRMED,
    TRADE_STATE_CLOSED,
    TRADE_STATE_HEALTHY,
    ConfirmedLevels,
    Trade,
)
from dtms.v1.trade_status_service_pb2 import BatchGetTradesResponse, SnapshotChunk, WatchResponse
from dtms_client import AsyncClient, errors
from dtms_client.exit_manager.brain import ExitManager
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.exit_manager.vix import VixSources
from dtms_client.managing.brain import NANOS
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits
from dtms_client.testing import Context, ScriptedService, refuse

ACCOUNT = "1@Demo"


def trade(**changes: Any) -> Trade:
    facts: dict[str, Any] = {
        "account_id": ACCOUNT,
        "ticket": 7,
        "symbol": "EURUSD",
        "side": SIDE_BUY,
        "entry_price": 1.1,
        "volume": 0.1,
        "confirmed": ConfirmedLevels(sl=1.09),
        "risk_distance": 0.01,
        "state": TRADE_STATE_HEALTHY,
        "phase": STATE_PHASE_CONFIRMED,
        "owner_epoch": 3,
        "owner_rank": RANK_DTMS_NORMAL,
        "revision": 1,
    }
    return Trade(**(facts | changes))


class Dtms:
    """The scripted service: one trade, quotes and events from queues, answers to proposals from a list."""

    def __init__(self, service: ScriptedService) -> None:
        self.trade = trade()
        self.quotes: asyncio.Queue[float] = asyncio.Queue()
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.proposals: asyncio.Queue[ProposeRequest] = asyncio.Queue()
        self.asked: asyncio.Queue[list[int]] = asyncio.Queue()
        self.down = False
        self.refusals: list[tuple[grpc.StatusCode, str]] = []
        service.on("Watch", self.watch)
        service.on("WatchQuotes", self.watch_quotes)
        service.on("BatchGetTrades", self.batch_get_trades)
        service.on("Propose", self.propose)

    async def watch(self, _request: Any, _context: Context) -> AsyncIterator[WatchResponse]:
        yield WatchResponse(snapshot=SnapshotChunk(trades=[self.trade], complete_at_revision=1))
        while True:
            yield WatchResponse(events=[await self.events.get()])

    async def watch_quotes(self, _request: Any, _context: Context) -> AsyncIterator[WatchQuotesResponse]:
        while True:
            bid = await self.quotes.get()
            yield WatchQuotesResponse(
                quotes=[
                    Quote(
                        account_id=ACCOUNT,
                        symbol="EURUSD",
                        bid=bid,
                        ask=bid + 0.0001,
                        point=0.00001,
                        volume_min=0.01,
                        volume_step=0.01,
                    )
                ]
            )

    async def batch_get_trades(self, request: Any, context: Context) -> BatchGetTradesResponse:
        self.asked.put_nowait(list(request.tickets))
        if self.down:
            await refuse(context, grpc.StatusCode.INTERNAL, "CORE_PANIC")
        return BatchGetTradesResponse(trades=[self.trade])

    async def propose(self, request: ProposeRequest, context: Context) -> ProposeResponse:
        self.proposals.put_nowait(request)
        if self.refusals:
            await refuse(context, *self.refusals.pop(0))
        self.trade = trade(confirmed=ConfirmedLevels(sl=request.action.stop), breakeven_triggered=True, revision=4)
        return ProposeResponse(
            decision=Decision(granted=True, revision=2),
            outcome=Outcome(status=OUTCOME_STATUS_CONFIRMED, sl=request.action.stop),
        )


class Running:
    """A manager at work on the scripted service."""

    def __init__(self, client: AsyncClient, dtms: Dtms) -> None:
        self.dtms = dtms
        self.now_s = 1_000.0
        self.manager = ExitManager(RuleBook(default=ExitRules()), name="intelligent_exit_manager", vix=VixSources())
        live = Live(
            client,
            self.manager,
            monotonic=lambda: self.now_s,
            now_ns=lambda: round(self.now_s * NANOS),
            limits=Limits(deadline_s=0.3),
        )
        self.task = asyncio.create_task(live.run())


@pytest.fixture
async def running() -> AsyncGenerator[Running, None]:
    async with ScriptedService() as service:
        dtms = Dtms(service)
        async with AsyncClient(service.address, token="t") as client:
            running = Running(client, dtms)
            yield running
            running.task.cancel()
            with contextlib.suppress(asyncio.CancelledError, errors.DtmsError):
                await running.task


async def test_breakeven_is_proposed_once_and_confirmed(running: Running) -> None:
    """At 0.2 R the stop is proposed under the trade's epoch; on what it changed nothing more is wished."""
    running.dtms.quotes.put_nowait(1.102)
    request = await running.dtms.proposals.get()
    assert (request.ticket, request.owner_epoch, request.action.stop) == (7, 3, 1.10021)
    # Its own change makes the manager read the trade again.
    assert await running.dtms.asked.get() == [7]
    running.dtms.events.put_nowait(Event(revision=5, account_id=ACCOUNT, ticket=7, state=TRADE_STATE_HEALTHY))
    assert await running.dtms.asked.get() == [7]
    assert running.dtms.proposals.empty()
    assert running.manager.tally.confirmed == 1


async def test_a_stale_epoch_is_read_again_and_decided_anew(running: Running) -> None:
    """After STALE_EPOCH the trade is read, and the new proposal has its epoch and a request_id of its own."""
    running.dtms.events.put_nowait(Event(revision=2, account_id=ACCOUNT, ticket=7, state=TRADE_STATE_HEALTHY))
    assert await running.dtms.asked.get() == [7]
    running.dtms.refusals = [(grpc.StatusCode.ABORTED, "STALE_EPOCH")]
    running.dtms.trade = trade(owner_epoch=4, revision=3)
    running.dtms.quotes.put_nowait(1.102)
    stale, anew = await running.dtms.proposals.get(), await running.dtms.proposals.get()
    assert (stale.owner_epoch, anew.owner_epoch) == (3, 4)
    assert stale.request_id != anew.request_id
    assert running.manager.tally.undecided == {"STALE_EPOCH": 1}


async def test_a_lost_answer_is_repeated_with_the_same_request_id(running: Running) -> None:
    """When the service failed under the proposal its outcome is unknown: the very same request goes out again."""
    running.dtms.refusals = [(grpc.StatusCode.INTERNAL, "CORE_PANIC")]
    running.dtms.quotes.put_nowait(1.102)
    lost, repeated = await running.dtms.proposals.get(), await running.dtms.proposals.get()
    assert lost == repeated
    await running.dtms.asked.get()
    assert running.manager.tally.confirmed == 1


async def test_a_proposal_expires_and_is_decided_anew_on_return(running: Running) -> None:
    """Unanswered for longer than a state may be acted on, a proposal is dropped; then the trade is read first."""
    running.dtms.refusals = [(grpc.StatusCode.INTERNAL, "CORE_PANIC")] * 2
    running.dtms.quotes.put_nowait(1.102)
    first = await running.dtms.proposals.get()
    running.now_s += 30
    requests = [await running.dtms.proposals.get() for _ in range(2)]
    assert await running.dtms.asked.get() == [7]
    assert running.manager.tally.expired == 1
    assert requests[-1].request_id != first.request_id


async def test_nothing_is_written_on_an_assumption(running: Running) -> None:
    """With the state no longer known no proposal goes out, whatever the price does; known again, it does."""
    dtms = running.dtms
    dtms.events.put_nowait(Event(revision=2, account_id=ACCOUNT, ticket=7, state=TRADE_STATE_HEALTHY))
    assert await dtms.asked.get() == [7]
    dtms.down = True
    # The second question begins when the first answer has been taken in; it is refused, and so is its retry.
    dtms.events.put_nowait(Event(revision=3, account_id=ACCOUNT, ticket=7, state=TRADE_STATE_HEALTHY))
    for _ in range(2):
        assert await dtms.asked.get() == [7]
    running.now_s += 31
    dtms.quotes.put_nowait(1.102)
    # The quote is looked at in a cycle of its own, which asks again, or in the one that is just ending.
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await dtms.asked.get()
    assert dtms.proposals.empty()
    dtms.down = False
    dtms.quotes.put_nowait(1.102)
    assert (await dtms.proposals.get()).action.stop == 1.10021
    assert running.manager.tally.proposals == 1


async def test_a_trade_registered_later_is_followed(running: Running) -> None:
    """A registration on the stream is enough to be looked after."""
    running.dtms.quotes.put_nowait(1.102)
    first = await running.dtms.proposals.get()
    running.dtms.trade = trade(ticket=8, revision=6)
    registered = TradeRegistered(side=SIDE_BUY)
    running.dtms.events.put_nowait(
        Event(
            revision=6,
            account_id=ACCOUNT,
            ticket=8,
            symbol="EURUSD",
            state=TRADE_STATE_HEALTHY,
            trade_registered=registered,
        )
    )
    second = await running.dtms.proposals.get()
    assert (first.ticket, second.ticket) == (7, 8)


async def test_a_closed_trade_is_left_alone(running: Running) -> None:
    """After its close a trade is neither asked for nor proposed on."""
    running.dtms.events.put_nowait(
        Event(
            revision=2,
            account_id=ACCOUNT,
            ticket=7,
            state=TRADE_STATE_CLOSED,
            state_changed=StateChanged(to=TRADE_STATE_CLOSED),
        )
    )
    running.dtms.trade = trade(ticket=8, revision=3)
    running.dtms.events.put_nowait(
        Event(revision=3, account_id=ACCOUNT, ticket=8, symbol="EURUSD", trade_registered=TradeRegistered())
    )
    assert await running.dtms.asked.get() == [8]
    running.dtms.quotes.put_nowait(1.102)
    assert (await running.dtms.proposals.get()).ticket == 8
    assert running.dtms.proposals.empty()


async def test_a_refused_credential_ends_the_manager() -> None:
    """UNAUTHENTICATED is raised as itself, not as a group and not as an outage."""

    async def refused(_request: Any, context: Context) -> AsyncIterator[WatchResponse]:
        for nothing in list[WatchResponse]():
            yield nothing
        await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")

    async with ScriptedService() as service:
        dtms = Dtms(service)
        service.on("Watch", refused)
        async with AsyncClient(service.address, token="t") as client:
            with pytest.raises(errors.Unauthenticated):
                await Running(client, dtms).task
