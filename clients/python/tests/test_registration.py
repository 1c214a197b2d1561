"""Registrations that nobody waits for: tried three times, told loudly, kept through an outage, delivered in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from dtms.v1.registry_service_pb2 import RegisterTradeRequest, RegisterTradeResponse, Registration
from dtms.v1.trade_pb2 import SIDE_BUY, Trade
from dtms_client import Registrar, RegistrationFailure, errors
from dtms_client.registrar import PAUSES_S, TRIES
from dtms_client.testing import Context, ManualTime, ScriptedService, never, refuse
from tests.stack import SYMBOL, Stack, running

OUTAGE = (grpc.StatusCode.DEADLINE_EXCEEDED, "")
"""A status that gRPC itself does not repeat, unlike UNAVAILABLE."""


def registration(ticket: int) -> Registration:
    return Registration(ticket=ticket, symbol=SYMBOL, side=SIDE_BUY, entry_price=1.1, volume=0.1)


class Dtms:
    """The scripted service: refuses by `trouble`, else registers; `registered` has the tickets in order."""

    def __init__(self, service: ScriptedService) -> None:
        self.trouble: tuple[grpc.StatusCode, str] | None = None
        self.trouble_of: dict[int, tuple[grpc.StatusCode, str]] = {}
        self.registered: list[int] = []
        service.on("RegisterTrade", self.register)

    async def register(self, request: RegisterTradeRequest, context: Context) -> RegisterTradeResponse:
        ticket = request.registration.ticket
        if trouble := self.trouble or self.trouble_of.get(ticket):
            await refuse(context, *trouble)
        self.registered.append(ticket)
        return RegisterTradeResponse(trade=Trade(ticket=ticket), created=True)


class World:
    """A registrar on a scripted service, in a time that stands still."""

    def __init__(self, service: ScriptedService, registrar: Registrar, time: ManualTime) -> None:
        self.service = service
        self.dtms = Dtms(service)
        self.registrar = registrar
        self.time = time
        self.told: asyncio.Queue[RegistrationFailure] = asyncio.Queue()

    async def tried(self, count: int) -> None:
        """Returns when the service was called so often in all, and the registrar has taken its answers."""

        def so() -> bool:
            worker = self.registrar._worker
            assert worker is not None
            return len(self.service.requests("RegisterTrade")) >= count and not worker._flying

        await self.time.until(so)


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    loop, time = asyncio.get_running_loop(), ManualTime()
    async with ScriptedService() as service:
        registrar = Registrar(
            service.address,
            token="t",
            alarm=time.alarm(),
            on_failure=lambda failure: loop.call_soon_threadsafe(made.told.put_nowait, failure),
            **options,
        )
        made = World(service, registrar, time)
        try:
            yield made
        finally:
            await asyncio.to_thread(registrar.close, 0.0)


async def settled(pending: Any) -> Any:
    """The last word on a registration, without blocking the loop that the scripted service needs."""
    return await asyncio.to_thread(pending.delivered, 20.0)


@contextmanager
def errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged as an error meanwhile."""
    lines: list[str] = []
    with caplog.at_level(logging.ERROR, logger="dtms_client.registrar"):
        caplog.clear()
        yield lines
        lines += [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


async def test_a_registration_is_tried_three_times_and_then_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """After 1 and 2 s it is tried again; the third failure is logged with its facts, called back, and raised."""
    with errors_logged(caplog) as logged:
        async with world() as it:
            it.dtms.trouble = OUTAGE
            pending = it.registrar.auto_register(registration(7))
            assert [await it.time.skip() for _ in range(2)] == list(PAUSES_S[:2])
            with pytest.raises(errors.DeadlineExceeded):
                await pending
            failure = await it.told.get()
            assert (failure.registration.ticket, failure.tries, failure.waits) == (7, TRIES, True)
            assert not pending._delivered.done()
            assert len(it.service.requests("RegisterTrade")) == TRIES
            it.dtms.trouble = None
            assert await it.time.skip() == PAUSES_S[2]
            assert (await settled(pending)).created
            assert not pending.waits
    [line] = logged
    assert "ticket=7, symbol=EURUSD, side=SIDE_BUY, volume=0.1, tries=3, waits=True" in line


async def test_an_outage_ends_in_the_order_of_the_registrations() -> None:
    """Twenty that failed, and five that came while they waited, are delivered in the order they were handed over."""
    async with world() as it:
        it.dtms.trouble = OUTAGE
        first = [it.registrar.auto_register(registration(ticket)) for ticket in range(1, 21)]
        await it.tried(20)
        await it.time.skip()
        await it.tried(40)
        await it.time.skip()
        await asyncio.gather(*(it.told.get() for _ in first))
        later = [it.registrar.auto_register(registration(ticket)) for ticket in range(21, 26)]
        await it.time.skip()
        # The try of the first one speaks for all behind it: they are told now, without tries of their own.
        told = await asyncio.gather(*(it.told.get() for _ in later))
        assert [(failure.registration.ticket, failure.tries) for failure in told] == [(n, 0) for n in range(21, 26)]
        assert len(it.service.requests("RegisterTrade")) == 61
        it.dtms.trouble = None
        await it.time.skip()
        for pending in (*first, *later):
            assert (await settled(pending)).created
    assert it.dtms.registered == list(range(1, 26))


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("INVALID_ARGUMENT", "FIELD_INVALID", errors.InvalidArgument),
        ("ALREADY_EXISTS", "TRADE_DIFFERS", errors.AlreadyExists),
        ("PERMISSION_DENIED", "ROLE_FORBIDDEN", errors.PermissionDenied),
        ("UNAUTHENTICATED", "CREDENTIAL_MISSING", errors.Unauthenticated),
        ("NOT_FOUND", "ACCOUNT_UNKNOWN", errors.NotFound),
        ("FAILED_PRECONDITION", "TRADE_CLOSED", errors.FailedPrecondition),
    ],
)
async def test_a_refusal_is_final_and_loud_at_once(
    code: str, reason: str, kind: type[errors.DtmsError], caplog: pytest.LogCaptureFixture
) -> None:
    """One try, one error, nothing kept; the registration beside it is not delayed."""
    with errors_logged(caplog) as logged:
        async with world() as it:
            it.dtms.trouble_of[7] = (grpc.StatusCode[code], reason)
            refused, fine = (it.registrar.auto_register(registration(ticket)) for ticket in (7, 8))
            with pytest.raises(kind) as caught:
                await settled(refused)
            assert caught.value.reason == reason
            assert (await fine).created
            failure = await it.told.get()
            assert (failure.registration.ticket, failure.tries, failure.waits) == (7, 1, False)
            assert not refused.waits
    assert len(logged) == 1


async def test_a_refusal_in_the_queue_lets_the_others_pass() -> None:
    """The first of the queue is refused for good when the service is back; the second is delivered at once."""
    async with world() as it:
        it.dtms.trouble = OUTAGE
        refused, fine = (it.registrar.auto_register(registration(ticket)) for ticket in (7, 8))
        for count in (2, 4):
            await it.tried(count)
            await it.time.skip()
        await asyncio.gather(it.told.get(), it.told.get())
        it.dtms.trouble, it.dtms.trouble_of[7] = None, (grpc.StatusCode.ALREADY_EXISTS, "TRADE_DIFFERS")
        await it.time.skip()
        with pytest.raises(errors.AlreadyExists):
            await settled(refused)
        assert (await settled(fine)).created
        assert (await it.told.get()).waits is False


async def test_a_failure_that_is_no_outage_is_not_kept() -> None:
    """A service that fails over this registration gets it three times, not for ever."""
    async with world() as it:
        it.dtms.trouble = (grpc.StatusCode.INTERNAL, "CORE_PANIC")
        pending = it.registrar.auto_register(registration(7))
        assert [await it.time.skip() for _ in range(2)] == list(PAUSES_S[:2])
        with pytest.raises(errors.Internal):
            await settled(pending)
        assert (await it.told.get()).waits is False
        assert len(it.service.requests("RegisterTrade")) == TRIES


async def test_a_pause_that_the_service_asks_for_is_kept() -> None:
    """RetryInfo of a flooded service wins over a shorter pause."""

    async def flooded(_request: Any, context: Context) -> Any:
        await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_EXCEEDED", retry_after_s=3.5)

    async with world() as it:
        it.service.on("RegisterTrade", flooded)
        it.registrar.auto_register(registration(7))
        assert [await it.time.skip() for _ in range(3)] == [3.5, 3.5, 4.0]


async def test_a_full_queue_refuses_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """The one too many is ResourceExhausted/LIMIT_REACHED at once, with the limit; room is made by deliveries."""
    with errors_logged(caplog) as logged:
        async with world(undelivered_limit=2) as it:
            it.dtms.trouble = OUTAGE
            kept = [it.registrar.auto_register(registration(ticket)) for ticket in (1, 2)]
            refused = it.registrar.auto_register(registration(3))
            with pytest.raises(errors.ResourceExhausted) as caught:
                refused.result(0)
            assert caught.value.reason == "LIMIT_REACHED"
            assert caught.value.metadata == {"limit": "undelivered_limit", "value": "2"}
            assert (await it.told.get()).registration.ticket == 3
            await it.tried(2)
            it.dtms.trouble = None
            await it.time.skip()
            for pending in kept:
                assert (await settled(pending)).created
            assert (await it.registrar.register_trade(registration(3))).created
    assert len(logged) == 1


async def test_nobody_waits_for_a_frozen_service() -> None:
    """auto_register returns while the service does not answer; so does the loop that called it."""
    async with world() as it:
        it.service.on("RegisterTrade", never)
        pending = it.registrar.auto_register(registration(7))
        assert not pending.done()
        with pytest.raises(TimeoutError):
            pending.result(0)


async def test_nothing_is_lost_when_nobody_keeps_the_result() -> None:
    """What is not held is not collected, and who stops waiting does not stop the delivery."""
    async with world() as it:
        answer = asyncio.Event()

        async def slow(request: RegisterTradeRequest, context: Context) -> RegisterTradeResponse:
            await answer.wait()
            return await it.dtms.register(request, context)

        it.service.on("RegisterTrade", slow)
        it.registrar.auto_register(registration(1))
        waiting = asyncio.create_task(it.registrar.register_trade(registration(2)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gc.collect()
        last = it.registrar.auto_register(registration(3))
        answer.set()
        await last
        await it.time.until(lambda: len(it.dtms.registered) == 3)
    assert sorted(it.dtms.registered) == [1, 2, 3]


async def test_the_end_delivers_what_it_can_and_names_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    """Pauses are cut short; what the service does not take within the bound is returned, raised and logged."""
    with errors_logged(caplog) as logged:
        async with world() as it:
            it.dtms.trouble = OUTAGE
            stuck, fine = (it.registrar.auto_register(registration(ticket)) for ticket in (7, 8))
            await it.tried(2)
            it.dtms.trouble, it.dtms.trouble_of[7] = None, OUTAGE
            closing = asyncio.create_task(asyncio.to_thread(it.registrar.close, 2.5))
            assert (await settled(fine)).created
            await it.tried(4)
            assert await it.time.skip() == PAUSES_S[1]
            await it.tried(5)
            assert await it.time.skip() == 0.5
            assert [each.ticket for each in await closing] == [7]
            with pytest.raises(errors.Cancelled):
                stuck.delivered(0)
            refused = it.registrar.auto_register(registration(9))
            with pytest.raises(errors.Cancelled) as caught:
                refused.result(0)
            assert caught.value.reason == "CLIENT_CLOSED"
    assert "ticket=7" in logged[-2]
    assert "ticket=9" in logged[-1]


async def test_a_callback_that_fails_stops_no_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error goes where the errors of threads go."""
    handed_on: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: handed_on.append(str(args.exc_value)))

    def fail(_failure: RegistrationFailure) -> None:
        raise RuntimeError("of the caller")

    async with ScriptedService() as service:
        dtms = Dtms(service)
        dtms.trouble_of[7] = (grpc.StatusCode.ALREADY_EXISTS, "TRADE_DIFFERS")
        registrar = Registrar(service.address, token="t", on_failure=fail)
        refused = registrar.auto_register(registration(7))
        with pytest.raises(errors.AlreadyExists):
            await refused
        assert (await registrar.register_trade(registration(8))).created
        await asyncio.to_thread(registrar.close)
    assert handed_on == ["of the caller"]


# ---- with a real service


async def positions(stack: Stack, count: int) -> list[Registration]:
    """Open positions at the paper account, and the registrations that fit them."""
    await stack.tick(1.1)
    return [await stack.open_position(volume=0.1) for _ in range(count)]


async def tickets(stack: Stack) -> list[int]:
    return [each.ticket async for each in (await stack.client("viewer")).list_registrations()]


async def test_every_place_in_a_program_can_register(tmp_path: Path) -> None:
    """A thread, a coroutine, synchronous code under a running loop, another loop, and twenty threads at once."""
    async with running(tmp_path / "data") as stack:
        opened = await positions(stack, 24)
        with Registrar(stack.server.address, token_file=stack.token("feed")) as registrar:
            thread, coroutine, under_loop, other_loop, *many = opened
            assert (await asyncio.to_thread(lambda: registrar.auto_register(thread).result(20))).created
            assert (await registrar.register_trade(coroutine)).created
            pending = registrar.auto_register(under_loop)
            assert (await pending).created
            assert (await asyncio.to_thread(lambda: asyncio.run(registrar.register_trade(other_loop)))).created
            barrier = threading.Barrier(len(many))

            def at_once(each: Registration) -> bool:
                barrier.wait(20)
                return registrar.auto_register(each).result(20).created

            loop = asyncio.get_running_loop()
            made: list[asyncio.Future[bool]] = [loop.create_future() for _ in many]
            for future, each in zip(made, many, strict=True):
                threading.Thread(
                    target=lambda future=future, each=each: loop.call_soon_threadsafe(future.set_result, at_once(each))
                ).start()
            assert all(await asyncio.gather(*made))
        assert sorted(await tickets(stack)) == sorted(each.ticket for each in opened)


async def test_d38_registering_again_resets_nothing(tmp_path: Path) -> None:
    """The repeat after a lost answer finds the trade as it is; another body under the ticket is refused."""
    async with running(tmp_path / "data") as stack:
        [opened] = await positions(stack, 1)
        with Registrar(stack.server.address, token_file=stack.token("feed")) as registrar:
            answers = await asyncio.gather(*(registrar.register_trade(opened) for _ in range(5)))
            assert sorted(answer.created for answer in answers) == [False] * 4 + [True]
            trade = await stack.get_trade(opened.ticket)
            assert not (await registrar.register_trade(opened)).created
            assert await stack.get_trade(opened.ticket) == trade
            other = Registration()
            other.CopyFrom(opened)
            other.strategy_type = "breaker_block"
            with pytest.raises(errors.AlreadyExists) as caught:
                await registrar.register_trade(other)
            assert caught.value.reason == "TRADE_DIFFERS"


# ---- the registrar of the process


def program(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program of its own, with nothing of ours in its environment but what is given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DTMS_")}
    prelude = """
import asyncio, logging, os, sys
import dtms_client
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.trade_pb2 import SIDE_BUY
def registration(ticket):
    return Registration(ticket=ticket, symbol="EURUSD", side=SIDE_BUY, entry_price=1.1001, volume=0.1)
"""
    return subprocess.run(
        [sys.executable, "-c", prelude + code],
        env=inherited | {"GRPC_VERBOSITY": "NONE"} | environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


async def test_the_environment_describes_the_registrar_of_the_process(tmp_path: Path) -> None:
    """auto_register and register_trade find it; what is on its way at the end of the program is delivered."""
    code = """
async def main():
    dtms_client.auto_register(registration(1))
    print((await dtms_client.register_trade(registration(2))).created)
asyncio.run(main())
assert dtms_client.default_registrar() is dtms_client.default_registrar()
dtms_client.auto_register(registration(3))
"""
    async with running(tmp_path / "data") as stack:
        await stack.tick(1.1)
        environment = {"DTMS_ADDRESS": stack.server.address, "DTMS_TOKEN_FILE": str(stack.token("feed"))}
        finished = await asyncio.to_thread(program, code, **environment)
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, "True\n", "")
        assert sorted(await tickets(stack)) == [1, 2, 3]


async def test_a_forked_child_is_refused_and_its_parent_goes_on(tmp_path: Path) -> None:
    """The child gets Cancelled/FORKED instead of a call that hangs, and ends without waiting; the parent delivers."""
    code = """
assert dtms_client.auto_register(registration(1)).result(20).created
child = os.fork()
if child == 0:
    pending = dtms_client.auto_register(registration(2))
    try:
        pending.result(5)
    except dtms_client.DtmsError as error:
        print(type(error).__name__, error.reason)
    sys.exit(0)
os.waitpid(child, 0)
print(dtms_client.auto_register(registration(3)).result(20).created)
"""
    async with running(tmp_path / "data") as stack:
        await stack.tick(1.1)
        environment = {"DTMS_ADDRESS": stack.server.address, "DTMS_TOKEN_FILE": str(stack.token("feed"))}
        finished = await asyncio.to_thread(program, code, PYTHONWARNINGS="ignore::DeprecationWarning", **environment)
        assert finished.stdout == "Cancelled FORKED\nTrue\n", finished.stderr
        assert sorted(await tickets(stack)) == [1, 3]


def test_no_service_and_no_configuration_break_no_trade_execution() -> None:
    """Nothing raises where the trade was made: the log says what is wrong, and so does the result."""
    code = """
pending = dtms_client.auto_register(registration(7))
print("executed")
try:
    pending.result(0)
except ValueError as error:
    print(error)
"""
    finished = program(code)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[0] == "executed"
    assert "DTMS_TOKEN_FILE" in finished.stdout
    assert "trade not registered: ticket=7" in finished.stderr
    away = program(code.replace("result(0)", "delivered(0)").replace("ValueError", "TimeoutError"), DTMS_TOKEN="t")
    assert away.returncode == 0, away.stderr
    assert away.stdout.splitlines()[0] == "executed"
    assert "trade not registered" in away.stderr
    assert "ticket=7" in away.stderr
