"""`dtms serve` and other commands of dtms as real processes, awaited by what they say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dtms_client import AsyncClient
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.service import SERVING
from tests.conftest import REPO

PATIENCE_S = 30.0  # for a start on a busy machine: imports alone take a second

Line = dict[str, Any]


@dataclass(slots=True)
class Process:
    """A command of dtms. ``log`` has the JSON lines of stderr, ``said`` the lines of stdout, both as they come."""

    process: asyncio.subprocess.Process
    log: list[Line] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)
    _silent: int = 0

    @classmethod
    async def start(
        cls,
        *arguments: str | Path,
        env: dict[str, str] | None = None,
        module: str = "dtms_service",
        stdin: int = asyncio.subprocess.DEVNULL,
    ) -> Self:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DTMS_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *map(str, arguments),
            cwd=REPO,
            env=inherited | (env or {}),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        started = cls(process)
        assert process.stdout is not None
        assert process.stderr is not None
        started._readers = [
            asyncio.create_task(started._read(process.stdout, started.said.append)),
            asyncio.create_task(started._read(process.stderr, lambda line: started.log.append(_parsed(line)))),
        ]
        return started

    @property
    def pid(self) -> int:
        return self.process.pid

    async def until(self, found: Callable[[], Any]) -> Any:
        """What ``found`` gives once it gives something. Raises RuntimeError when the process ends before."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            while not (answer := found()):
                if self._silent == len(self._readers):
                    raise RuntimeError(f"ended with {self.process.returncode} before: {self.text()[-2000:]}")
                await self._news.wait()
            return answer

    async def logged(self, event: str) -> Line:
        """The first log line of an event."""
        line: Line = await self.until(lambda: next((line for line in self.log if line.get("event") == event), None))
        return line

    async def ended(self) -> int:
        """The exit code, once everything that was said is read."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._readers)
            return await self.process.wait()

    async def kill(self) -> None:
        """kill -9, if it still runs; returns when it is gone."""
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    def text(self) -> str:
        """Everything on stderr."""
        return "\n".join(str(line.get("raw") or json.dumps(line)) for line in self.log)

    async def _read(self, stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
        try:
            while line := await stream.readline():
                take(line.decode().rstrip("\n"))
                async with self._news:
                    self._news.notify_all()
        finally:
            self._silent += 1
            async with self._news:
                self._news.notify_all()


def _parsed(line: str) -> Line:
    try:
        parsed = json.loads(line)
    except json.JSONDecodeError:
        return {"raw": line}
    return parsed if isinstance(parsed, dict) else {"raw": line}


@dataclass(slots=True)
class Service(Process):
    """A `dtms serve` that says where it serves."""

    data_dir: Path = Path()
    address: str = ""

    def token(self, name: str) -> Path:
        return token_path(self.data_dir / CREDENTIALS_FOLDER, name)

    def client(self, name: str) -> AsyncClient:
        return AsyncClient(self.address, token_file=self.token(name))


async def serve(
    data_dir: Path,
    *,
    port: int = 0,
    env: dict[str, str] | None = None,
    arguments: tuple[str, ...] = ("--paper",),
) -> Service:
    """Starts a service, with the play-money account unless said otherwise, and waits until it can be called.

    With a ``port`` it is one that is back: channels of one process share what they know, and one that was refused
    refuses calls for up to five seconds, which is longer than a call's retries last.
    """
    command = ("serve", "--data-dir", str(data_dir), "--port", str(port), *arguments)
    service = await Service.start(*command, env=env)
    service.data_dir = data_dir
    try:
        line = await service.until(lambda: next((line for line in service.said if line.startswith(SERVING)), ""))
        service.address = line.removeprefix(SERVING)
        if port:
            async with service.client("viewer") as viewer, asyncio.timeout(PATIENCE_S):
                await viewer.channel.channel_ready()
    except BaseException:
        await service.kill()
        raise
    return service


@asynccontextmanager
async def serving(data_dir: Path, **options: Any) -> AsyncIterator[Service]:
    """A service that is gone afterwards, however the test ends."""
    service = await serve(data_dir, **options)
    try:
        yield service
    finally:
        await service.kill()
