"""A server of nothing but grpc.aio: methods that answer, one that streams. ``python -m benches.bare_server``.

Prints its address and serves until SIGTERM, on the same event loop as `dtms serve`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import cyclopts
import grpc
import uvloop

from dtms.v1 import trade_status_service_pb2 as pb
from dtms_service.service import SERVING

SERVICE: Final = "bench.Bare"
_LENGTH_BYTES: Final = 4
_PAGE: Final = bytes(4096)  # what the smallest commit of SQLite writes

Context = grpc.aio.ServicerContext[Any, Any]

app = cyclopts.App()


def pack(messages: list[bytes]) -> bytes:
    """Messages in one file, each behind its length."""
    return b"".join(len(message).to_bytes(_LENGTH_BYTES, "big") + message for message in messages)


def unpack(packed: bytes) -> list[bytes]:
    messages, place = [], 0
    while place < len(packed):
        start = place + _LENGTH_BYTES
        place = start + int.from_bytes(packed[place:start], "big")
        messages.append(packed[start:place])
    return messages


@app.default
def main(messages: Path) -> None:
    """``messages``: the answers, packed. Echo and EchoBytes answer the first, EchoSynced when a page more is on disk
    beside the file; Stream sends all."""
    with (
        messages.with_suffix(".synced").open("wb", buffering=0) as synced,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(unpack(messages.read_bytes()), synced.fileno()))


async def _serve(messages: list[bytes], file: int) -> None:
    answer = pb.GetTradeResponse.FromString(messages[0])

    async def echo(_request: pb.GetTradeRequest, _context: Context) -> pb.GetTradeResponse:
        return answer

    async def echo_bytes(_request: bytes, _context: Context) -> bytes:
        return messages[0]

    def sync() -> None:
        os.write(file, _PAGE)
        os.fdatasync(file)

    one_at_a_time = ThreadPoolExecutor(1)

    async def echo_synced(_request: bytes, _context: Context) -> bytes:
        await asyncio.get_running_loop().run_in_executor(one_at_a_time, sync)
        return messages[0]

    async def stream(_request: bytes, _context: Context) -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    methods = {
        "Echo": grpc.unary_unary_rpc_method_handler(
            echo,
            request_deserializer=pb.GetTradeRequest.FromString,
            response_serializer=pb.GetTradeResponse.SerializeToString,
        ),
        "EchoBytes": grpc.unary_unary_rpc_method_handler(echo_bytes),
        "EchoSynced": grpc.unary_unary_rpc_method_handler(echo_synced),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(f"{SERVING}127.0.0.1:{port}", flush=True)
    await stopped.wait()
    await server.stop(0)


if __name__ == "__main__":
    app()
