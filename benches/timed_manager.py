"""A manager as it is. ``python -m benches.timed_manager exit|universal ADDRESS TOKEN_FILE``.

Says READY when it knows the trades; at the end of stdin it prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from benches.load import READY
from dtms_client import AsyncClient
from dtms_client._collector import spare_what_stays
from dtms_client.exit_manager import command as exit_manager
from dtms_client.managing.brain import Brain
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits
from dtms_client.universal_manager import command as universal_manager

COMMANDS: dict[str, Any] = {"exit": exit_manager, "universal": universal_manager}


class _Ready(logging.Handler):
    """Tells the parent once when the trades are listed."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "trades listed":
            print(READY, flush=True)


async def main(kind: str, address: str, token_file: Path) -> None:
    command = COMMANDS[kind]
    options = command.parser().parse_args(["--address", address, "--token-file", str(token_file)])
    brain: Brain = command._manager(options)  # noqa: SLF001  the program's own brain, with all of its defaults
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncClient(address, token_file=token_file) as client:
        spare_what_stays()  # as the program does
        live = Live(client, brain, monotonic=time.monotonic, now_ns=time.time_ns, limits=Limits())
        work, ended = asyncio.create_task(live.run()), asyncio.create_task(lines.read())
        await asyncio.wait((work, ended), return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        await asyncio.wait((work,))
    print(json.dumps(brain.tally.facts()), flush=True)


if __name__ == "__main__":
    client_logs = logging.getLogger("dtms_client")
    client_logs.setLevel(logging.INFO)
    client_logs.addHandler(_Ready())
    client_logs.propagate = False
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `dtms exit-manager` does
        runner.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
