"""Reading Watch streams in tests: always until something is there, never for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc.aio

from dtms.v1.event_pb2 import Event
from dtms_client.errors import DtmsError, from_rpc

PATIENCE_S = 20.0  # on a busy machine; a test that needs it has failed


async def response(call: grpc.aio.UnaryStreamCall[Any, Any]) -> Any:
    """The next message. Raises the client's errors; EOFError at a stream that ended without one."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            message = await call.read()
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, method="Watch") from error
    if message is grpc.aio.EOF:
        raise EOFError("the stream ended")
    return message


async def events_until(call: grpc.aio.UnaryStreamCall[Any, Any], last: Callable[[Event], bool]) -> list[Event]:
    """Events up to the first for which ``last`` is true; what follows in the same message is passed over."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):  # marks keep an idle stream talking
        while True:
            for event in (await response(call)).events:
                events.append(event)
                if last(event):
                    return events


async def all_until(call: grpc.aio.UnaryStreamCall[Any, Any], revision: int) -> list[Event]:
    """Every event that the stream gives until it has told of everything up to ``revision``."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        while True:
            message = await response(call)
            events.extend(message.events)
            if message.progress.revision >= revision or (events and events[-1].revision >= revision):
                return events


async def refusal(call: grpc.aio.UnaryStreamCall[Any, Any]) -> DtmsError:
    """The error that ends the stream, whatever comes before it."""
    while True:
        try:
            await response(call)
        except DtmsError as error:
            return error
