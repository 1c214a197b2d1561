"""A manager as it is, with a watch on its cycle. ``python -m benches.timed_manager exit|universal ADDRESS TOKEN_FILE``.

A cycle lasts from the first price that asks for it to the last proposal that comes of it, reading of states included.
Says READY when it knows the trades; at the end of stdin it prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import uvloop

from benches import sampling
from benches.load import READY
from dtms.v1.market_data_service_pb2 import Quote
from dtms_client import AsyncClient
from dtms_client.exit_manager import command as exit_manager
from dtms_client.managing.brain import Brain, Proposal
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits
from dtms_client.managing.views import Instrument, TradeView
from dtms_client.universal_manager import command as universal_manager

COMMANDS: dict[str, Any] = {"exit": exit_manager, "universal": universal_manager}


class Cycles:
    """Stands in front of a brain's two ends."""

    def __init__(self, brain: Brain) -> None:
        self.ms: list[float] = []
        self._since_s = 0.0
        self._take_quotes, self._propose = brain.take_quotes, brain.propose
        brain.take_quotes = self._quoted  # type: ignore[method-assign]
        brain.propose = self._proposed  # type: ignore[method-assign]

    def _quoted(self, quotes: Iterable[Quote]) -> list[Instrument]:
        self._since_s = self._since_s or time.perf_counter()
        return self._take_quotes(quotes)

    def _proposed(self, trades: Iterable[TradeView], *, now_ns: int) -> list[Proposal]:
        proposals = self._propose(trades, now_ns=now_ns)
        if self._since_s:
            self.ms.append(1000 * (time.perf_counter() - self._since_s))
            self._since_s = 0.0
        return proposals


class _Ready(logging.Handler):
    """Tells the parent once when the trades are listed."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "trades listed":
            print(READY, flush=True)


async def main(kind: str, address: str, token_file: Path) -> None:
    command = COMMANDS[kind]
    options = command.parser().parse_args(["--address", address, "--token-file", str(token_file)])
    brain: Brain = command._manager(options)  # noqa: SLF001  the program's own brain, with all of its defaults
    cycles = Cycles(brain)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncClient(address, token_file=token_file) as client:
        live = Live(client, brain, monotonic=time.monotonic, now_ns=time.time_ns, limits=Limits())
        work, ended = asyncio.create_task(live.run()), asyncio.create_task(lines.read())
        await asyncio.wait((work, ended), return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        await asyncio.wait((work,))
    quantiles = {f"p{q}": sampling.quantile(cycles.ms, q / 100) if cycles.ms else 0.0 for q in (50, 99)}
    print(json.dumps({"cycles": len(cycles.ms), **quantiles, **brain.tally.facts()}), flush=True)


if __name__ == "__main__":
    client_logs = logging.getLogger("dtms_client")
    client_logs.setLevel(logging.INFO)
    client_logs.addHandler(_Ready())
    client_logs.propagate = False
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `dtms exit-manager` does
        runner.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
