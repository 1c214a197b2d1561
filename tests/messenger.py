"""A target of notifications: an HTTP server on loopback that takes what apprise's json:// sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.process.service_process import PATIENCE_S

OK, REFUSED = 200, 500


@dataclass(slots=True)
class Messenger:
    """``messages`` are those that arrived, answered or not. It hangs while ``open`` is not set."""

    port: int = 0
    status: int = OK
    messages: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/a-secret-path"

    @property
    def texts(self) -> list[str]:
        return [message["message"] for message in self.messages]

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(reached)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            self.messages.append(json.loads(await reader.readexactly(length)))
            await self._tell()
            await self.open.wait()
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % self.status)
            await writer.drain()
            self.answered += 1
            await self._tell()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the sender gave up
        finally:
            writer.close()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def messenger(*, hangs: bool = False, status: int = OK) -> AsyncIterator[Messenger]:
    """A running target; one that ``hangs`` takes messages and answers when ``open`` is set."""
    target = Messenger(status=status)
    if not hangs:
        target.open.set()
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0)
    target.port = server.sockets[0].getsockname()[1]
    try:
        yield target
    finally:
        target.open.set()
        server.close()
        await server.wait_closed()
