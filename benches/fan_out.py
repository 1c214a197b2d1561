"""Watch of 100 watchers against a bare stream that sends the same bytes."""

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

METHOD: Final = "/dtms.v1.TradeStatusService/Watch"
PER_MESSAGE: Final = 10  # events; the limit is configured so that every message is full
AT_ONCE: Final = 64  # proposals under way while events are made
EXIT_MANAGER: Final = "intelligent_exit_manager"
QUIET_MS: Final = 60_000  # no progress marks among the messages


@dataclass(frozen=True, slots=True)
class Size:
    watchers: int
    messages: int
    rounds: int


FULL: Final = Size(watchers=100, messages=1_500, rounds=3)
QUICK: Final = Size(watchers=5, messages=10, rounds=1)


def measure(quick: bool) -> list[Figure]:
    """100 watchers that each read 15,000 events, 10 a message; 5 and 100 when quick."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="bench-fan-out-") as name:
        folder = Path(name)
        with service(folder, ["[limits]", f"max_batch_events = {PER_MESSAGE}"]) as served:
            request, messages = asyncio.run(_prepare(served, folder, size))
            (folder / "messages").write_bytes(pack(messages))
            with server("benches.bare_server", str(folder / "messages"), log=folder / "bare.log") as bare:
                mean_bytes = sum(map(len, messages)) / len(messages)
                return _compare(served, bare, request, token(folder, "viewer"), size, mean_bytes=mean_bytes)


async def _prepare(served: Served, folder: Path, size: Size) -> tuple[bytes, list[bytes]]:
    """Makes the events (denied proposals: one decision each); the watch request and what one watcher gets."""
    async with (
        AsyncClient(served.address, token_file=token(folder, "feed")) as feed,
        AsyncClient(served.address, token_file=token(folder, EXIT_MANAGER)) as manager,
    ):
        trade = (await paper_trades.open_and_register(feed, 1))[0]
        start = (await feed.system_status()).revision + 1
        left = iter(range(size.messages * PER_MESSAGE))

        async def propose() -> None:
            for _ in left:
                await paper_trades.propose_no_change(manager, trade)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(propose())
        request = pb.WatchRequest(start_revision=start, progress_interval_ms=QUIET_MS).SerializeToString()
        channel: grpc.aio.Channel = feed.channel
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(METHOD)
        call = watch(request, metadata=feed.metadata)
        messages: list[bytes] = []
        async for message in call:
            messages.append(message)
            if len(messages) == size.messages:
                break
        call.cancel()
    for message in messages:
        if len(pb.WatchResponse.FromString(message).events) != PER_MESSAGE:
            raise AssertionError("a message is not full")
    return request, messages


def _compare(
    served: Served, bare: Served, request: bytes, viewer: Path, size: Size, *, mean_bytes: float
) -> list[Figure]:
    options = ["--token-file", str(viewer), "--watchers", str(size.watchers), "--messages", str(size.messages)]
    ours: list[Loaded] = []
    bares: list[Loaded] = []
    for _ in range(size.rounds):
        ours.append(load("watch", served, METHOD, request, *options))
        bares.append(load("watch", bare, f"/{SERVICE}/Stream", request, *options))
    total = size.watchers * size.messages

    def per_s(loads: Sequence[Loaded]) -> float:
        return total / statistics.median(run.wall_s for run in loads)

    def cpu_us(loads: Sequence[Loaded]) -> float:
        # A quick run may end within one step of the CPU clock: then it used at most that.
        return max(statistics.median(run.cpu_s for run in loads), 0.01) / total * 1e6

    name = "bare grpc.aio stream, same bytes"
    return [
        Figure(
            f"{size.watchers} watchers, {mean_bytes:.0f} bytes a message",
            "messages/s",
            per_s(ours),
            Baseline(name, per_s(bares)),
            Target("ratio", "at least", 0.8),
        ),
        Figure(
            f"the same in events, {PER_MESSAGE} a message",
            "events/s",
            per_s(ours) * PER_MESSAGE,
            Baseline(name, per_s(bares) * PER_MESSAGE),
        ),
        Figure("server CPU a message", "us", cpu_us(ours), Baseline(name, cpu_us(bares))),
    ]
