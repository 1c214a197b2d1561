"""The exit manager with a minute's patience shortened to seconds: the same program, all of its limits divided."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Final

from dtms_client import AsyncClient
from dtms_client.exit_manager.brain import MANAGER, ExitManager
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.managing import log
from dtms_client.managing.live import Live
from dtms_client.managing.state_source import Limits

LIMITS: Final = Limits(deadline_s=0.2, state_s=1.0, ownership_s=0.5, last_known_s=1.5)


async def main() -> None:
    command = argparse.ArgumentParser()
    command.add_argument("--address", required=True)
    command.add_argument("--token-file", required=True, type=Path)
    arguments = command.parse_args()
    manager = ExitManager(RuleBook(default=ExitRules()), name=MANAGER)
    async with AsyncClient(arguments.address, token_file=arguments.token_file) as client:
        await Live(client, manager, monotonic=time.monotonic, now_ns=time.time_ns, limits=LIMITS).run()


if __name__ == "__main__":
    with log.to_stderr("info"):
        asyncio.run(main())
