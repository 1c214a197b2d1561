"""A client that only loads: bytes out, bytes in, nothing decoded. ``python -m benches.load unary|watch``.

Connects, says READY, waits for a line on stdin, then loads and prints the seconds that it took. It is a process of its
own, so that its work is not taken for the server's.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cyclopts
import grpc
import uvloop

READY: Final = "ready"
DEADLINE_S: Final = 5.0
WARM_UP: Final = 200  # calls before the clock starts
Metadata = Sequence[tuple[str, str]]
Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Watch = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]

app = cyclopts.App()


@dataclass(frozen=True, slots=True)
class Target:
    """What is called, with which bytes, and as whom."""

    address: str
    method: str
    request: bytes
    metadata: Metadata


@app.command
def unary(address: str, method: str, request: str, *, token_file: Path, calls: int, at_once: int) -> None:
    """``calls`` calls of ``method`` with the bytes ``request`` (hex), ``at_once`` under way at a time."""
    _run(_unary(_target(address, method, request, token_file), calls=calls, at_once=at_once))


@app.command
def watch(address: str, method: str, request: str, *, token_file: Path, watchers: int, messages: int) -> None:
    """``watchers`` streams of ``method``, each over a connection of its own and read up to ``messages`` messages."""
    _run(_watch(_target(address, method, request, token_file), watchers=watchers, messages=messages))


async def _unary(to: Target, *, calls: int, at_once: int) -> None:
    async with grpc.aio.insecure_channel(to.address) as channel:
        call: Call = channel.unary_unary(to.method)
        for _ in range(min(WARM_UP, calls)):
            await call(to.request, metadata=to.metadata, timeout=DEADLINE_S)
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                await call(to.request, metadata=to.metadata, timeout=DEADLINE_S)

        _await_go()
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(caller())
        print(time.perf_counter() - started, flush=True)


async def _watch(to: Target, *, watchers: int, messages: int) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(to.address, options=options) for _ in range(watchers)]
    for channel in channels:
        await channel.channel_ready()

    async def watcher(channel: grpc.aio.Channel) -> None:
        watch: Watch = channel.unary_stream(to.method)
        call = watch(to.request, metadata=to.metadata)
        for number in range(messages):
            if await call.read() is grpc.aio.EOF:
                raise RuntimeError(f"the stream ended after {number} of {messages} messages: {await call.details()}")
        call.cancel()

    _await_go()
    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for channel in channels:
            tasks.create_task(watcher(channel))
    print(time.perf_counter() - started, flush=True)
    for channel in channels:
        await channel.close()


def _await_go() -> None:
    """Blocks the loop on purpose: nothing runs before the measuring side has read its clocks."""
    print(READY, flush=True)
    sys.stdin.readline()


def _target(address: str, method: str, request: str, token_file: Path) -> Target:
    metadata = [("authorization", f"Bearer {token_file.read_text().strip()}")]
    return Target(address, method, bytes.fromhex(request), metadata)


def _run(load: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load)


if __name__ == "__main__":
    app()
