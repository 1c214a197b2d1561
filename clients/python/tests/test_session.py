"""Ownership sessions: held is what the service confirmed within the lease, counted from when it was asked.

Each test runs with both sessions. Most run against a scripted service in a time that stands still; the last ones
against a real service.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from dtms.v1.action_pb2 import DENIAL_CODE_OWNED_BY_OTHER
from dtms.v1.arbitration_service_pb2 import (
    AcquireOwnershipResponse,
    Grant,
    ReleaseOwnershipResponse,
    RenewOwnershipRequest,
    RenewOwnershipResponse,
)
from dtms.v1.event_pb2 import Event
from dtms.v1.ownership_pb2 import GRANT_CAUSE_EXPIRED, Ownership
from dtms.v1.trade_pb2 import Trade
from dtms.v1.trade_status_service_pb2 import BatchGetTradesResponse, Progress
from dtms_client import AsyncClient, Client, errors
from dtms_client.aio_session import AsyncOwnershipSession
from dtms_client.holdings import Lost
from dtms_client.session import OwnershipSession
from dtms_client.testing import Context, ManualTime, ScriptedService, never, refuse
from tests.stack import DTMS, UNIVERSAL, Stack, running

ACCOUNT = "1@Demo"
LEASE_S = 30.0
MANAGED = "breakout_ib_volatility_trap"

both = pytest.mark.parametrize("threads", [False, True], ids=["asyncio", "threads"])


def owned(ticket: int, epoch: int = 3, *, account_id: str = ACCOUNT, lease_s: float = LEASE_S) -> Ownership:
    """A trade of ours with a full lease."""
    return Ownership(
        account_id=account_id,
        ticket=ticket,
        managed_by="me",
        owner_epoch=epoch,
        lease_remaining_ms=round(lease_s * 1e3),
    )


def grant(ticket: int, epoch: int = 3) -> Grant:
    """What names it."""
    return Grant(account_id=ACCOUNT, ticket=ticket, owner_epoch=epoch)


class Session:
    """Either session under the methods of the one for asyncio, and the trades that it lost."""

    def __init__(self, session: OwnershipSession | AsyncOwnershipSession, lost: asyncio.Queue[Lost]) -> None:
        self.session = session
        self.lost = lost

    async def do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A method that asks the service."""
        if isinstance(self.session, AsyncOwnershipSession):
            return await getattr(self.session, method)(*args, **kwargs)
        return await asyncio.to_thread(getattr(self.session, method), *args, **kwargs)


@asynccontextmanager
async def session_on(
    address: str, *, threads: bool, time: ManualTime | None, token: dict[str, Any] | None = None
) -> AsyncIterator[Session]:
    """A session with a client of its own."""
    loop = asyncio.get_running_loop()
    lost: asyncio.Queue[Lost] = asyncio.Queue()
    credential = token or {"token": "t"}
    if not threads:
        async with AsyncClient(address, **credential) as client:
            alarm = None if time is None else time.async_alarm()
            async with AsyncOwnershipSession(client, on_lost=lost.put_nowait, alarm=alarm) as session:
                yield Session(session, lost)
        return
    with Client(address, **credential) as client_of_threads:
        session_of_threads = OwnershipSession(
            client_of_threads,
            on_lost=lambda each: loop.call_soon_threadsafe(lost.put_nowait, each),
            alarm=None if time is None else time.alarm(),
        )
        try:
            yield Session(session_of_threads, lost)
        finally:
            await asyncio.to_thread(session_of_threads.close)


class Dtms:
    """The scripted service: renews what `ours` says, takes back what is released."""

    def __init__(self, service: ScriptedService) -> None:
        self.ours: Callable[[Grant], bool] = lambda _grant: True
        self.down = False
        self.owner = "dtms_manager"
        service.on("RenewOwnership", self.renew)
        service.on("AcquireOwnership", self.acquire)
        service.on("ReleaseOwnership", self.release)
        service.on("BatchGetTrades", self.trades)

    async def renew(self, request: RenewOwnershipRequest, context: Context) -> RenewOwnershipResponse:
        if self.down:
            await refuse(context, grpc.StatusCode.INTERNAL, "CORE_PANIC")
        answer = RenewOwnershipResponse()
        for each in request.grants:
            if self.ours(each):
                answer.renewed.append(owned(each.ticket, each.owner_epoch, account_id=each.account_id or ACCOUNT))
            else:
                answer.lost.append(each)
        return answer

    async def acquire(self, request: Any, _context: Context) -> AcquireOwnershipResponse:
        if self.ours(Grant(ticket=request.ticket)):
            return AcquireOwnershipResponse(granted=True, ownership=owned(request.ticket))
        return AcquireOwnershipResponse(denial=DENIAL_CODE_OWNED_BY_OTHER)

    async def release(self, _request: Any, context: Context) -> ReleaseOwnershipResponse:
        if self.down:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "DRAINING")
        return ReleaseOwnershipResponse(ownership=Ownership(managed_by=self.owner))

    async def trades(self, request: Any, _context: Context) -> BatchGetTradesResponse:
        return BatchGetTradesResponse(
            trades=[Trade(account_id=ACCOUNT, ticket=ticket, managed_by=self.owner) for ticket in request.tickets]
        )


def test_the_sessions_have_equal_methods() -> None:
    """The sync and the async session offer the same methods with the same parameters."""

    def surface(of: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(of, inspect.isfunction)
            if not name.startswith("_")
        }

    assert surface(OwnershipSession) == surface(AsyncOwnershipSession)
    assert set(surface(OwnershipSession)) == {"acquire", "adopt", "release", "forget", "close", "grant"}


@both
async def test_one_keep_alive_renews_all_trades_at_a_third_of_the_lease(threads: bool) -> None:
    """1,001 trades take three calls each time, 500 grants at most in one, ten seconds after the last ones."""
    time = ManualTime()
    async with ScriptedService() as service:
        Dtms(service)
        async with session_on(service.address, threads=threads, time=time) as session:
            held = await session.do("adopt", *(owned(ticket) for ticket in range(1, 1002)))
            assert len(held) == 1001
            for round_ in range(1, 4):
                assert await time.skip() == pytest.approx(LEASE_S / 3, rel=0.01)
                await time.asleep()
                asked = [len(request.grants) for request in service.requests("RenewOwnership")]
                assert asked == [500, 500, 1] * (1 + round_)
            assert time.now_s > 1_000.0 + LEASE_S * 0.9
            assert len(session.session.held) == 1001
            assert session.session.grant(1001) == grant(1001)
            await session.do("close", release=False)
    assert session.lost.empty()


@both
async def test_a_granted_trade_is_held_and_a_denied_one_is_not(threads: bool) -> None:
    """The answer decides; what is given back is not held any more."""
    async with ScriptedService() as service:
        dtms = Dtms(service)
        dtms.ours = lambda each: each.ticket == 7
        async with session_on(service.address, threads=threads, time=ManualTime()) as session:
            assert (await session.do("acquire", 7)).granted
            assert (await session.do("acquire", 8)).denial == DENIAL_CODE_OWNED_BY_OTHER
            assert [each.ticket for each in session.session.held] == [7]
            assert session.session.grant(8) is None
            assert (await session.do("release", 7)).managed_by == "dtms_manager"
            assert not session.session.held
            assert await session.do("release", 7) is None
    assert [request.grant for request in service.requests("ReleaseOwnership")] == [grant(7)]


@both
async def test_a_lost_trade_is_told_with_who_owns_it_now(threads: bool) -> None:
    """What the service does not renew is lost at once, and the others go on."""
    time = ManualTime()
    async with ScriptedService() as service:
        dtms = Dtms(service)
        async with session_on(service.address, threads=threads, time=time) as session:
            await session.do("adopt", owned(7), owned(8))
            dtms.ours = lambda each: each.ticket == 8
            await time.skip()
            lost = await session.lost.get()
            assert (lost.grant, lost.error) == (grant(7), None)
            assert lost.trade is not None
            assert lost.trade.managed_by == "dtms_manager"
            assert session.session.held == (grant(8),)


@both
async def test_a_service_that_is_away_for_a_lease_has_taken_everything(threads: bool) -> None:
    """Renewals fail until the lease ends; then nothing is held, and each loss carries the failure."""
    time = ManualTime()
    async with ScriptedService() as service:
        dtms = Dtms(service)
        async with session_on(service.address, threads=threads, time=time) as session:
            await session.do("adopt", owned(7), owned(8))
            dtms.down = True
            while session.session.held:
                assert session.session.grant(7) == grant(7)
                await time.skip()
            assert time.now_s < 1_000.0 + LEASE_S
            lost = [await session.lost.get(), await session.lost.get()]
            assert {each.grant.ticket for each in lost} == {7, 8}
            assert all(isinstance(each.error, errors.Internal) and each.trade is None for each in lost)
            assert len(service.requests("RenewOwnership")) > 3
            dtms.down = False
            assert await session.do("adopt", owned(7)) == (grant(7),)
            assert session.session.held == (grant(7),)


@both
async def test_who_was_paused_past_the_lease_holds_nothing_on_waking(threads: bool) -> None:
    """The question reads the clock: it needs no worker that has noticed."""
    time = ManualTime()
    async with ScriptedService() as service:
        Dtms(service)
        async with session_on(service.address, threads=threads, time=time) as session:
            await session.do("adopt", owned(7))
            await time.asleep()
            service.on("RenewOwnership", never)
            time.advance(LEASE_S)
            assert session.session.grant(7) is None
            assert not session.session.held
            lost = await session.lost.get()
            assert lost.grant == grant(7)
            assert lost.error is not None


@both
async def test_a_closed_trade_is_forgotten_without_a_call(threads: bool) -> None:
    """It is not renewed, not given back and not told as lost."""
    time = ManualTime()
    async with ScriptedService() as service:
        Dtms(service)
        async with session_on(service.address, threads=threads, time=time) as session:
            await session.do("adopt", owned(7), owned(8))
            session.session.forget(7)
            session.session.forget(9)
            assert [each.ticket for each in session.session.held] == [8]
            await time.skip()
            await time.asleep()
        assert [[each.ticket for each in r.grants] for r in service.requests("RenewOwnership")] == [[7, 8], [8]]
        assert [request.grant for request in service.requests("ReleaseOwnership")] == [grant(8)]
    assert session.lost.empty()


@both
async def test_a_lease_counts_from_when_it_was_asked_for(threads: bool) -> None:
    """An answer that was on its way for 20 s leaves 10 s of a lease of 30 s."""
    time = ManualTime()
    async with ScriptedService() as service:
        dtms = Dtms(service)

        async def slow(request: RenewOwnershipRequest, context: Context) -> RenewOwnershipResponse:
            time.advance(20.0)
            return await dtms.renew(request, context)

        service.on("RenewOwnership", slow)
        async with session_on(service.address, threads=threads, time=time) as session:
            await session.do("adopt", owned(7))
            service.on("RenewOwnership", never)
            assert session.session.grant(7) == grant(7)
            time.advance(9.9)
            assert session.session.grant(7) == grant(7)
            time.advance(0.1)
            assert session.session.grant(7) is None


@both
async def test_an_answer_that_comes_after_the_lease_brings_nothing_back(threads: bool) -> None:
    """Lost is final, though the service renewed in the end: the manager may have been told already."""
    time = ManualTime()
    async with ScriptedService() as service:
        dtms = Dtms(service)
        async with session_on(service.address, threads=threads, time=time) as session:
            await session.do("adopt", owned(7))

            async def late(request: RenewOwnershipRequest, context: Context) -> RenewOwnershipResponse:
                time.advance(LEASE_S)
                return await dtms.renew(request, context)

            service.on("RenewOwnership", late)
            await time.skip()
            assert (await session.lost.get()).grant == grant(7)
            assert not session.session.held


@both
async def test_the_end_of_a_session_gives_everything_back(threads: bool) -> None:
    """Each trade is released under its own grant; nothing can be acquired afterwards."""
    async with ScriptedService() as service:
        Dtms(service)
        async with session_on(service.address, threads=threads, time=ManualTime()) as session:
            await session.do("adopt", owned(7), owned(8, epoch=5))
        assert [request.grant for request in service.requests("ReleaseOwnership")] == [grant(7), grant(8, 5)]
        with pytest.raises(errors.Cancelled):
            await session.do("acquire", 7)


@both
async def test_what_cannot_be_given_back_is_named(threads: bool) -> None:
    """A service that is away costs one call, and the trades fall to DTMS with their leases."""
    async with ScriptedService() as service:
        dtms = Dtms(service)
        async with session_on(service.address, threads=threads, time=ManualTime()) as session:
            await session.do("adopt", owned(7), owned(8))
            dtms.down = True
            assert await session.do("close") == (grant(7), grant(8))
            assert not session.session.held
    assert len(service.requests("ReleaseOwnership")) == 1


@both
async def test_a_refused_credential_loses_everything_at_once(threads: bool) -> None:
    """What no repeat can mend is not repeated until the lease ends."""

    async def forbidden(_request: Any, context: Context) -> Any:
        await refuse(context, grpc.StatusCode.PERMISSION_DENIED, "ROLE_FORBIDDEN")

    time = ManualTime()
    async with ScriptedService() as service:
        Dtms(service)
        async with session_on(service.address, threads=threads, time=time) as session:
            await session.do("adopt", owned(7))
            service.on("RenewOwnership", forbidden)
            await time.skip()
            assert isinstance((await session.lost.get()).error, errors.PermissionDenied)
            assert not session.session.held


@both
async def test_a_ticket_of_two_accounts_needs_the_account(threads: bool) -> None:
    """No guess decides whose trade is written."""
    async with ScriptedService() as service:
        Dtms(service)
        async with session_on(service.address, threads=threads, time=ManualTime()) as session:
            await session.do("adopt", owned(7), owned(7, account_id="2@Demo"))
            assert session.session.grant(7, account_id=ACCOUNT) == grant(7)
            with pytest.raises(ValueError, match="2@Demo"):
                session.session.grant(7)


@both
async def test_a_callback_that_fails_costs_no_other_trade(threads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error goes where errors of threads and of the loop go, and the keep-alive lives on."""
    loop, handed_on = asyncio.get_running_loop(), list[str]()
    monkeypatch.setattr(threading, "excepthook", lambda args: handed_on.append(str(args.exc_value)))
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: handed_on.append(str(context["exception"])))
    time = ManualTime()

    def fail(_lost: Lost) -> None:
        raise RuntimeError("of the caller")

    try:
        async with ScriptedService() as service:
            dtms = Dtms(service)
            async with session_on(service.address, threads=threads, time=time) as session:
                session.session._on_lost = fail
                await session.do("adopt", owned(7), owned(8))
                dtms.ours = lambda each: each.ticket == 8
                await time.skip()
                await time.skip()
                await time.asleep()
                assert session.session.held == (grant(8),)
                assert len(service.requests("RenewOwnership")) == 3
    finally:
        loop.set_exception_handler(before)
    assert handed_on == ["of the caller"]


# ---- with a real service


# Short enough to wait for, long enough for a machine that is busy with other things.
LEASE = {"engine.lease_ttl_ms": 1_500}


@asynccontextmanager
async def real_session(stack: Stack, *, threads: bool) -> AsyncIterator[Session]:
    """A session of the Universal Manager in real time."""
    token = {"token_file": stack.token(UNIVERSAL)}
    async with session_on(stack.server.address, threads=threads, time=None, token=token) as session:
        yield session


async def test_registered_trades_are_kept_alive_over_leases(tmp_path: Path) -> None:
    """Two leases later every trade still has the owner and the token of its registration; then both are given back."""
    async with running(tmp_path / "data", LEASE) as stack:
        trades = [await stack.trade(strategy_type=MANAGED) for _ in range(4)]
        async with real_session(stack, threads=False) as task, real_session(stack, threads=True) as thread:
            assert len(await task.do("adopt", *trades[:2])) == len(await thread.do("adopt", *trades[2:])) == 2
            marks = 0
            async for item in (await stack.client("viewer")).watch(snapshot=True, progress_interval_ms=100):
                assert not (isinstance(item, Event) and item.HasField("ownership_granted")), item
                marks += isinstance(item, Progress)
                if marks == 32:
                    break
            for session, owned_by_it in ((task, trades[:2]), (thread, trades[2:])):
                assert session.lost.empty()
                epochs = {each.ticket: each.owner_epoch for each in session.session.held}
                assert epochs == {trade.ticket: trade.owner_epoch for trade in owned_by_it}
            for trade in trades:
                assert (await stack.get_trade(trade.ticket)).owner_epoch == trade.owner_epoch
        for trade in trades:
            assert (await stack.get_trade(trade.ticket)).managed_by == DTMS


@both
async def test_a_defended_trade_is_lost_and_adopted_again_when_it_comes_back(tmp_path: Path, threads: bool) -> None:
    """The loss names DTMS; the trade that is given back has a new token, under which it is held again."""
    async with running(tmp_path / "data", LEASE | {"engine.hold_s": 0}) as stack:
        trade = await stack.trade(strategy_type=MANAGED)
        await stack.tick(1.1021)
        async with real_session(stack, threads=threads) as session:
            assert len(await session.do("adopt", trade)) == 1
            await stack.report_score(-5.0)
            lost = await session.lost.get()
            assert lost.grant.owner_epoch == trade.owner_epoch
            assert lost.trade is not None
            assert (lost.trade.managed_by, lost.trade.displaced_owner) == (DTMS, UNIVERSAL)
            assert await session.do("adopt", trade) == ()
            for _ in range(2):  # the better score has to hold from one look to the next
                await stack.report_score(-1.0)
                await stack.tick(1.1021)
            back = await stack.get_trade(trade.ticket)
            assert back.managed_by == UNIVERSAL
            assert [each.owner_epoch for each in await session.do("adopt", back)] == [back.owner_epoch]


@both
async def test_no_authority_is_left_when_the_service_grants_anew(tmp_path: Path, threads: bool) -> None:
    """I7: cut off from DTMS, the session has given up before the trade has its next owner."""
    async with running(tmp_path / "data", LEASE) as stack:
        trade = await stack.trade(strategy_type=MANAGED)
        events = (await stack.client("viewer")).watch(start_revision=trade.revision + 1)
        async with real_session(stack, threads=threads) as session:
            await session.do("adopt", trade)
            closing = session.session._client.close()
            if closing is not None:
                await closing
            while True:
                event = await anext(events)
                if isinstance(event, Event) and event.HasField("ownership_granted"):
                    break
            assert session.session.grant(trade.ticket) is None
            assert (event.ownership_granted.cause, event.ownership_granted.managed_by) == (GRANT_CAUSE_EXPIRED, DTMS)
            assert isinstance((await session.lost.get()).error, errors.Cancelled)
        await events.aclose()
