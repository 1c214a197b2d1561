"""The terminal's process as the exit manager sees it: one call at a time, each with a deadline."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from dtms_client.exit_manager.terminal import Failed, Held, Sent

# The package waits for the server's acceptance: some 100 ms by day, seconds on a bad line. Beyond that it hangs.
DEADLINE_S: Final = 10.0
# An import, the terminal's start, a login.
START_S: Final = 60.0


class TerminalProcess:
    """Starts the process with the first call, and anew after one that was killed. Every method raises Failed."""

    def __init__(self, module: str, *, deadline_s: float = DEADLINE_S, start_s: float = START_S) -> None:
        """`module` is the operator's name for the package: see `terminal.load`."""
        self._module = module
        self._deadline_s = deadline_s
        self._start_s = start_s
        self._process: asyncio.subprocess.Process | None = None

    async def see(self, ticket: int) -> Held | None:
        """As `Terminal.see`."""
        answer = await self._ask("see", ticket)
        return None if answer is None else Held(**answer)

    async def protect(self, ticket: int, stop: float) -> Sent:
        """As `Terminal.protect`."""
        return Sent(**await self._ask("protect", ticket, stop))

    async def take_part(self, ticket: int, volume: float, of: float) -> Sent:
        """As `Terminal.take_part`."""
        return Sent(**await self._ask("take_part", ticket, volume, of))

    async def part_taken(self, ticket: int) -> bool:
        """As `Terminal.part_taken`."""
        return bool(await self._ask("part_taken", ticket))

    async def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
        if process is not None:
            await process.wait()

    async def _ask(self, call: str, *arguments: float) -> Any:  # noqa: ANN401  what JSON can say
        fresh = self._process is None
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        line = json.dumps({"call": call, "arguments": arguments}) + "\n"
        try:
            async with asyncio.timeout(self._start_s if fresh else self._deadline_s):
                process.stdin.write(line.encode())
                await process.stdin.drain()
                answer = await process.stdout.readline()
        except (TimeoutError, OSError) as error:
            await self.close()
            raise Failed(f"{call}: no answer, {type(error).__name__}", uncertain=True) from error
        except asyncio.CancelledError:
            await self.close()
            raise
        if not answer:
            await self.close()
            raise Failed(f"{call}: the terminal's process has ended, see its last words above", uncertain=True)
        said = json.loads(answer)
        if "failed" in said:
            raise Failed(said["failed"], uncertain=said["uncertain"])
        return said["answer"]

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "dtms_client.exit_manager.terminal",
                    self._module,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            except OSError as error:
                raise Failed(f"the terminal's process does not start: {error}") from error
        return self._process
