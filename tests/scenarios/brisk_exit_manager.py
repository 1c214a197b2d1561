"""The exit manager with a minute's patience shortened to seconds: the same program, all of its limits divided."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from dtms_client import AsyncClient
from dtms_client.exit_manager import command
from dtms_client.managing import log
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits

LIMITS: Final = Limits(deadline_s=0.2, state_s=1.0, ownership_s=0.5, last_known_s=1.5)


async def main() -> None:
    arguments = command.parser().parse_args()
    manager = command._manager(arguments)
    async with AsyncClient(arguments.address, token_file=arguments.token_file) as client:
        await Live(client, manager, monotonic=time.monotonic, now_ns=time.time_ns, limits=LIMITS).run()


if __name__ == "__main__":
    with log.to_stderr("info"):
        asyncio.run(main())
