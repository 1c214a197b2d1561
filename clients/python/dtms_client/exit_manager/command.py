"""The command line of the exit manager."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dtms_client.exit_manager.brain import MANAGER, ExitManager
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.managing import command


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = command.parser(
        program="python -m dtms_client.exit_manager",
        description="Intelligent Exit Manager: breakeven, partial and trailing, proposed to DTMS.",
        name=MANAGER,
    )
    options.add_argument("--rules", type=Path, metavar="FILE.toml", help="rules other than the documented ones")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM, SIGINT or the end of the replay; returns the exit code."""
    return command.run(parser().parse_args(argv), _manager)


def _manager(arguments: argparse.Namespace) -> ExitManager:
    book = RuleBook.read(arguments.rules) if arguments.rules else RuleBook(default=ExitRules())
    return ExitManager(book, name=arguments.name)
