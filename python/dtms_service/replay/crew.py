"""The crew of a run: which managers take part, each as a process of its own, over gRPC."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dtms_service.credentials import token_path
from dtms_service.replay.children import Children

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
    """Children of this process; their logs go where this process's stderr goes. One that is killed is started again.

    ``progress`` is anything that changes while the run goes on.
    """

    members: tuple[Program, ...]
    progress: Callable[[], object] = lambda: None
    _children: Children = field(init=False)

    def __post_init__(self) -> None:
        self._children = Children(None, progress=self.progress, notice=_say)

    @property
    def restarts(self) -> Mapping[str, int]:
        return self._children.restarts

    async def start(self, address: str, tokens: Path) -> None:
        for program in self.members:
            await self._children.start(program.manager, *program.command(address, tokens, "warning"))

    async def until(self, complete: asyncio.Event) -> None:
        """Returns when the event is set. Raises ProcessFailed when a manager ends before by itself."""
        await self._children.until(complete)

    def may_end(self) -> None:
        """The history has ended: a manager that ends now has done its work."""
        self._children.may_end.set()

    async def ended(self) -> None:
        """Waits for all. Raises ProcessFailed for one that did not end well."""
        for program in self.members:
            await self._children.until(self._children.running[program.manager].has_ended)

    async def stop(self) -> None:
        """Ends those that still run."""
        await self._children.stop()


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201  # beside their logs
