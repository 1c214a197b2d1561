"""The crew of a run: which managers take part, each as a process of its own, over gRPC."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dtms_service.credentials import token_path
from dtms_service.errors import DtmsError, Reason

EXIT_MANAGER, UNIVERSAL_MANAGER = "intelligent_exit_manager", "universal_sl_tp_manager"


@dataclass(frozen=True, slots=True)
class Program:
    """One manager: its name, which its credential bears, the Python module that runs it, and its own arguments."""

    manager: str
    module: str
    arguments: tuple[str, ...] = ()

    def command(self, address: str, tokens: Path, log_level: str) -> tuple[str, ...]:
        """The arguments of the interpreter. ``tokens`` is the service's folder of credentials."""
        to = ("--address", address, "--token-file", str(token_path(tokens, self.manager)))
        return ("-m", self.module, *to, "--lockstep", "--log-level", log_level, *self.arguments)


def programs(
    *, exit_manager: bool, universal_manager: bool, profile: Literal["intraday", "swing"], vix: Path | None
) -> tuple[Program, ...]:
    """The managers that take part. ``vix`` is a file of daily values for the exit manager."""
    chosen: list[Program] = []
    if exit_manager:
        own = ("--vix-file", str(vix)) if vix is not None else ()
        chosen.append(Program(EXIT_MANAGER, "dtms_client.exit_manager", own))
    if universal_manager:
        chosen.append(Program(UNIVERSAL_MANAGER, "dtms_client.universal_manager", ("--profile", profile)))
    return tuple(chosen)


def names(crew: Iterable[Program]) -> frozenset[str]:
    return frozenset(program.manager for program in crew)


@dataclass(slots=True)
class Crew:
    """Children of this process; their logs go where this process's stderr goes."""

    members: tuple[Program, ...]
    _children: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, address: str, tokens: Path) -> None:
        for program in self.members:
            self._children[program.manager] = await asyncio.create_subprocess_exec(
                sys.executable, *program.command(address, tokens, "warning")
            )

    async def until(self, complete: asyncio.Event) -> None:
        """Returns when the event is set. Raises MODE_UNSUPPORTED when a manager ends before."""
        joined = asyncio.create_task(complete.wait())
        ended = {asyncio.create_task(child.wait()): name for name, child in self._children.items()}
        await asyncio.wait({joined, *ended}, return_when=asyncio.FIRST_COMPLETED)
        for task in (joined, *ended):
            task.cancel()
        if not complete.is_set():
            raise self._failure(next(name for name, child in self._children.items() if child.returncode is not None))

    async def ended(self) -> None:
        """Waits for all. Raises MODE_UNSUPPORTED for one that did not end well."""
        for name, child in self._children.items():
            if await child.wait():
                raise self._failure(name)

    def stop(self) -> None:
        """Ends those that still run."""
        for child in self._children.values():
            if child.returncode is None:
                child.terminate()

    def _failure(self, name: str) -> DtmsError:
        return DtmsError(Reason.MODE_UNSUPPORTED, f"{name} ended with code {self._children[name].returncode}")
