"""GetTrade of a whole service against a server of nothing but grpc.aio: server CPU per call."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from benches import paper_trades
from benches.bare_server import SERVICE, pack
from benches.figures import Baseline, Figure, Target
from benches.processes import Loaded, Served, load, server, service, token
from dtms.v1 import trade_status_service_pb2 as pb
from dtms_client import AsyncClient

METHOD: Final = "/dtms.v1.TradeStatusService/GetTrade"
VIEWER: Final = "viewer"


@dataclass(frozen=True, slots=True)
class Size:
    calls: int
    at_once: int
    rounds: int


FULL: Final = Size(calls=20_000, at_once=32, rounds=3)
QUICK: Final = Size(calls=200, at_once=8, rounds=1)


def measure(quick: bool) -> list[Figure]:
    """20,000 calls a round, 32 at once, servers by turns; 200 when quick."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="bench-get-trade-") as name:
        folder = Path(name)
        with service(folder) as served:
            request, answer = asyncio.run(_prepare(served, folder))
            (folder / "answers").write_bytes(pack([answer]))
            with server("benches.bare_server", str(folder / "answers"), log=folder / "bare.log") as bare:
                return _compare(served, bare, request, token(folder, VIEWER), size, answer_bytes=len(answer))


async def _prepare(served: Served, folder: Path) -> tuple[bytes, bytes]:
    """A registered trade: the request for it, and the answer as it comes over the wire."""
    async with AsyncClient(served.address, token_file=token(folder, "feed")) as feed:
        trade = (await paper_trades.open_and_register(feed, 1))[0]
        request = pb.GetTradeRequest(ticket=trade.ticket).SerializeToString()
        channel: grpc.aio.Channel = feed.channel
        get: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        answer = await get(request, metadata=feed.metadata, timeout=5)
    return request, answer


def _compare(
    served: Served, bare: Served, request: bytes, viewer: Path, size: Size, *, answer_bytes: int
) -> list[Figure]:
    options = ["--token-file", str(viewer), "--calls", str(size.calls), "--at-once", str(size.at_once)]
    methods = {
        METHOD: served,
        f"/{SERVICE}/Echo": bare,
        f"/{SERVICE}/EchoBytes": bare,
    }
    runs: dict[str, list[Loaded]] = {method: [] for method in methods}
    for _ in range(size.rounds):  # by turns: what disturbs the machine disturbs all alike
        for method, at in methods.items():
            runs[method].append(load("unary", at, method, request, *options))
    ours, echo, echo_bytes = runs.values()

    def cpu_us(loads: Sequence[Loaded]) -> float:
        # A quick run may end within one step of the CPU clock: then it used at most that.
        return max(statistics.median(run.cpu_s for run in loads), 0.01) / size.calls * 1e6

    def per_s(loads: Sequence[Loaded]) -> float:
        return size.calls / statistics.median(run.wall_s for run in loads)

    return [
        Figure(
            f"server CPU a call, {answer_bytes} bytes of answer",
            "us",
            cpu_us(ours),
            Baseline("grpc.aio echo of the same messages, generated code", cpu_us(echo)),
            Target("ratio", "at most", 1.25),
        ),
        Figure(
            "the same",
            "us",
            cpu_us(ours),
            Baseline("grpc.aio echo of bytes, nothing encoded", cpu_us(echo_bytes)),
        ),
        Figure(
            f"calls, {size.at_once} at once",
            "calls/s",
            per_s(ours),
            Baseline("grpc.aio echo of the same messages, generated code", per_s(echo)),
        ),
    ]
