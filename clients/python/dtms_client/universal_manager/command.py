"""The command line of the Universal Manager."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence

from dtms_client.managing import command
from dtms_client.universal_manager.brain import MANAGER, UniversalManager
from dtms_client.universal_manager.strategies import PROFILES, SUFFIXES


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = command.parser(
        program="python -m dtms_client.universal_manager",
        description="Universal Manager: stops by the rules of each strategy, proposed to DTMS.",
        name=MANAGER,
    )
    options.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        default="intraday",
        help="intraday: bars of M1, M5, M15; swing: of H1, H4; as the service's (%(default)s)",
    )
    options.add_argument(
        "--suffix",
        action="append",
        metavar="TEXT",
        help=f"what the broker appends to names of symbols, each one; instead of {' '.join(SUFFIXES)}",
    )
    return options


def main(
    argv: Sequence[str] | None = None, *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> int:
    """Runs until SIGTERM, SIGINT or the end of the replay; returns the exit code."""
    return command.run(parser().parse_args(argv), _manager, loop_factory=loop_factory)


def _manager(arguments: argparse.Namespace) -> UniversalManager:
    return UniversalManager(
        name=arguments.name,
        profile=PROFILES[arguments.profile],
        suffixes=SUFFIXES if arguments.suffix is None else arguments.suffix,
    )
