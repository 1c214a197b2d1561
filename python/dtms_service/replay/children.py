"""The processes of a run: each with a log of its own, and one that is killed is started again.

What a process ends with says what to do. A signal is not its own doing: it is started again, and goes on where it was
(service and gateway from their disks, a manager from what the service keeps for it). So is one that was asked to end
before the history has ended. Any other code is its own: the run ends with its last words.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dtms_service.errors import FatalError

STOP_DEADLINE_S = 20.0
AGAIN_AT_MOST = 5  # times in a row without the run going on: then something kills it on purpose, or itself
END_S = 2.0  # between the ends of processes that end together
LAST_WORDS = 5  # lines of the log
CRASH_ON_WINDOWS = 137  # what a fault point ends a process with where there are no signals


class ProcessFailed(FatalError):
    """One of a run's processes ended before its time."""

    def __init__(self, name: str, why: str, log: Path | None) -> None:
        super().__init__(f"{name} {why}" + (f": see {log}{_last_words(log)}" if log is not None else ""))


def _last_words(log: Path) -> str:
    with suppress(OSError):
        if lines := log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_WORDS:]:
            return "\n  " + "\n  ".join(lines)
    return ""


@dataclass(slots=True)
class Child:
    """One process after the other under one name. ``pid`` is that of the one that runs."""

    name: str
    arguments: tuple[str, ...]
    process: asyncio.subprocess.Process
    output: asyncio.Future[str]
    """The first line on its standard output."""
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Well, and of itself."""


@dataclass(slots=True)
class Children:
    """``logs`` is a folder for a log each; None lets them write to this process's stderr.

    ``progress`` is anything that changes while the run goes on; ``notice`` is told of each restart.
    """

    logs: Path | None
    progress: Callable[[], object] = lambda: None
    notice: Callable[[str], None] = lambda _words: None
    # What a test arms a process with: its name, and how often it was started again.
    environ: Callable[[str, int], Mapping[str, str] | None] = lambda _name, _restarts: None
    restarts: Counter[str] = field(default_factory=Counter)
    running: dict[str, Child] = field(default_factory=dict)
    # Set: a child that ends well has done its work.
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    _failed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _in_vain: dict[str, tuple[object, int]] = field(default_factory=dict)

    async def start(self, name: str, *arguments: str, is_last: bool = False) -> Child:
        """A process of this Python. With the end of the one that ``is_last`` the others may end too."""
        process = await self._spawn(name, arguments)
        child = Child(name, arguments, process, asyncio.get_running_loop().create_future())
        self.running[name] = child
        self._keepers.append(asyncio.create_task(self._keep(child, is_last=is_last), name=f"keeper of {name}"))
        return child

    async def until(self, event: asyncio.Event) -> None:
        """Until the event is set. Raises ProcessFailed when a child fails before."""
        waiting = asyncio.create_task(event.wait())
        first: list[asyncio.Future[object]] = [waiting, self._failed]  # type: ignore[list-item]  # of what does not matter
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not event.is_set():
            self._failed.result()

    async def first_line(self, name: str, within_s: float) -> str:
        """What the child says first. Raises ProcessFailed, also for one that says nothing in time."""
        said = asyncio.Event()
        self.running[name].output.add_done_callback(lambda _output: said.set())
        try:
            async with asyncio.timeout(within_s):
                await self.until(said)
        except TimeoutError:
            raise self._failure(name, f"did not come up within {within_s:g} s") from None
        return self.running[name].output.result()

    async def stop(self) -> None:
        """Ends those that still run, the last started first."""
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        for child in reversed(self.running.values()):
            process = child.process
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                with suppress(TimeoutError):
                    async with asyncio.timeout(STOP_DEADLINE_S):
                        await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        if not self._failed.done():
            self._failed.cancel()

    async def _spawn(self, name: str, arguments: tuple[str, ...]) -> asyncio.subprocess.Process:
        program, piped = (sys.executable, *arguments), asyncio.subprocess.PIPE
        environ = self.environ(name, self.restarts[name])
        if self.logs is None:
            return await asyncio.create_subprocess_exec(*program, stdout=piped, env=environ)
        with (self.logs / f"{name}.log").open("ab" if self.restarts[name] else "wb") as log:
            return await asyncio.create_subprocess_exec(*program, stdout=piped, stderr=log, env=environ)

    async def _keep(self, child: Child, *, is_last: bool) -> None:
        while True:
            listening = asyncio.create_task(self._listen(child))
            code = await child.process.wait()
            await listening
            is_crash = code < 0 or code == CRASH_ON_WINDOWS
            if code == 0 and is_last:
                self.may_end.set()
            if code == 0 and await self._is_time_to_end():
                child.has_ended.set()
                return
            if not is_crash and code != 0:
                self._fail(self._failure(child.name, f"ended with code {code}"))
                return
            seen = self.progress()
            before, times = self._in_vain.get(child.name, (None, 0))
            times = times + 1 if seen == before else 1
            self._in_vain[child.name] = seen, times
            if times > AGAIN_AT_MOST:
                self._fail(self._failure(child.name, f"ended {times} times without the run going on"))
                return
            self.restarts[child.name] += 1
            how = f"was killed (signal {-code})" if code < 0 else "ended" if not code else "crashed"
            self.notice(f"{child.name} {how}: started again")
            child.process = await self._spawn(child.name, child.arguments)

    async def _is_time_to_end(self) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.may_end.wait(), END_S)
        return self.may_end.is_set()

    @staticmethod
    async def _listen(child: Child) -> None:
        """Reads all that it says, and keeps the first line."""
        assert child.process.stdout is not None, "started with a pipe"
        while line := await child.process.stdout.readline():
            if not child.output.done():
                child.output.set_result(line.decode().rstrip("\n"))

    def _fail(self, error: ProcessFailed) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # nobody may be waiting yet

    def _failure(self, name: str, why: str) -> ProcessFailed:
        return ProcessFailed(name, why, None if self.logs is None else self.logs / f"{name}.log")
