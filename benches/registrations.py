"""100 registrations at once, each durable before its answer, against a server of nothing but grpc.aio."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import uvloop

from benches import paper_trades, sampling
from benches.bare_server import SERVICE, pack
from benches.figures import Baseline, Figure
from benches.paper_trades import BID, DONE, SYMBOL, VOLUME
from benches.processes import Served, server, service, token
from dtms.v1 import registry_service_pb2, trade_pb2
from dtms.v1 import trade_status_service_pb2 as pb
from dtms_client import AsyncClient, Registrar
from dtms_client.registrar import UNDELIVERED_LIMIT

FEED: Final = "feed"
BARE: Final = "grpc.aio echo, as many at once"
STOP: Final = 0.01  # below the price; no tick comes near
DEADLINE_S: Final = 30.0

Registration = registry_service_pb2.Registration
Echo = grpc.aio.UnaryUnaryMultiCallable[pb.GetTradeRequest, pb.GetTradeResponse]


@dataclass(frozen=True, slots=True)
class Size:
    at_once: int
    rounds: int


FULL: Final = Size(at_once=100, rounds=3)
QUICK: Final = Size(at_once=10, rounds=1)


@dataclass(slots=True)
class Times:
    """Latencies of all rounds, us; the three by turns, so that what disturbs the machine disturbs all alike."""

    client: list[float] = field(default_factory=list)
    registrar: list[float] = field(default_factory=list)
    handed_over: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


def measure(quick: bool) -> list[Figure]:
    """Three rounds of 100 by AsyncClient, by a Registrar and against the bare server; one of 10 when quick."""
    size = QUICK if quick else FULL
    assert size.at_once <= UNDELIVERED_LIMIT, "more would be refused"
    with (
        tempfile.TemporaryDirectory(prefix="bench-registrations-") as name,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        folder = Path(name)
        with service(folder) as served:
            registrations = runner.run(_open(served, folder, size))
            answer = runner.run(_answer(served, folder, registrations.pop()))
            (folder / "answers").write_bytes(pack([answer]))
            with server("benches.bare_server", str(folder / "answers"), log=folder / "bare.log") as bare:
                times = runner.run(_run(served, bare, folder, registrations, size))
    return _figures(times, size)


def _figures(times: Times, size: Size) -> list[Figure]:
    p50, p99 = (Baseline(BARE, sampling.quantile(times.bare, q)) for q in (0.50, 0.99))
    return [
        Figure(
            f"registration p50, {size.at_once} at once, AsyncClient", "us", sampling.quantile(times.client, 0.50), p50
        ),
        Figure("registration p99", "us", sampling.quantile(times.client, 0.99), p99),
        Figure(
            f"registration p50, {size.at_once} at once, Registrar", "us", sampling.quantile(times.registrar, 0.50), p50
        ),
        Figure("registration p99, Registrar", "us", sampling.quantile(times.registrar, 0.99), p99),
        Figure("auto_register p99: what the caller waits", "us", sampling.quantile(times.handed_over, 0.99)),
    ]


async def _open(served: Served, folder: Path, size: Size) -> list[Registration]:
    """Positions that nobody has registered: for both ways to do it, one to warm up, one to look at the answer."""
    async with AsyncClient(served.address, token_file=token(folder, FEED)) as feed:
        price = paper_trades.Feed(feed, 1_699_999_200_000)
        await price.tick(BID, after_ms=0)
        await price.close()
        registrations = []
        for _ in range(2 * size.rounds * size.at_once + 2):
            opened = await feed.open_position(SYMBOL, trade_pb2.SIDE_BUY, VOLUME, sl=BID - STOP, timeout_s=DEADLINE_S)
            if opened.retcode != DONE:
                raise RuntimeError(f"the paper broker refused a position: {opened}")
            held = opened.position
            registrations.append(
                Registration(
                    ticket=held.ticket,
                    symbol=SYMBOL,
                    side=trade_pb2.SIDE_BUY,
                    entry_price=held.price_open,
                    volume=held.volume,
                    sl=held.sl,
                )
            )
        return registrations


async def _answer(served: Served, folder: Path, registration: Registration) -> bytes:
    """What the bare server is to answer: a trade as a registration shows it."""
    async with AsyncClient(served.address, token_file=token(folder, FEED)) as feed:
        trade = (await feed.register_trade(registration)).trade
        return pb.GetTradeResponse(trade=trade).SerializeToString()


async def _run(served: Served, bare: Served, folder: Path, registrations: Sequence[Registration], size: Size) -> Times:
    times = Times()
    credential = token(folder, FEED)
    with Registrar(served.address, token_file=credential) as registrar:
        async with (
            AsyncClient(served.address, token_file=credential) as client,
            grpc.aio.insecure_channel(bare.address) as channel,
        ):
            echo: Echo = channel.unary_unary(
                f"/{SERVICE}/Echo",
                request_serializer=pb.GetTradeRequest.SerializeToString,
                response_deserializer=pb.GetTradeResponse.FromString,
            )

            async def register(registration: Registration) -> None:
                assert (await client.register_trade(registration, timeout_s=DEADLINE_S)).created

            async def hand_over(registration: Registration) -> None:
                started = time.perf_counter()
                pending = registrar.auto_register(registration)
                times.handed_over.append((time.perf_counter() - started) * 1e6)
                assert (await pending).created

            async def call_bare(registration: Registration) -> None:
                await echo(pb.GetTradeRequest(ticket=registration.ticket), timeout=DEADLINE_S)

            # Connections and threads are there before the clock starts; registering again changes nothing.
            first = registrations[0]
            await register(first)
            await registrar.register_trade(first)
            await call_bare(first)
            turns = _batches(registrations[1:], size.at_once)
            for by_client, by_registrar in zip(turns, turns, strict=True):
                times.client += await _timed(register, by_client)
                times.registrar += await _timed(hand_over, by_registrar)
                times.bare += await _timed(call_bare, by_client)
    return times


def _batches(registrations: Sequence[Registration], count: int) -> Iterator[Sequence[Registration]]:
    return (registrations[start : start + count] for start in range(0, len(registrations), count))


async def _timed(do: Callable[[Registration], Awaitable[None]], these: Sequence[Registration]) -> list[float]:
    """All at once; how long each took, us."""

    async def one(registration: Registration) -> float:
        started = time.perf_counter()
        await do(registration)
        return (time.perf_counter() - started) * 1e6

    with sampling.quiet_heap():
        return list(await asyncio.gather(*map(one, these)))
