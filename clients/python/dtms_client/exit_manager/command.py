"""The command line of the exit manager."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from dtms_client.exit_manager.brain import MANAGER, ExitManager
from dtms_client.exit_manager.direct import Direct
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.exit_manager.terminal_process import TerminalProcess
from dtms_client.exit_manager.vix import HOUR_NS, VixDays, VixSources
from dtms_client.managing import command
from dtms_client.managing.brain import NANOS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = command.parser(
        program="python -m dtms_client.exit_manager",
        description="Intelligent Exit Manager: proposes breakeven, a partial, trailing and, while VIX is high, room.",
        name=MANAGER,
    )
    options.add_argument("--rules", type=Path, metavar="FILE.toml", help="rules other than the documented ones")
    vix = options.add_argument_group("VIX", "a report (ReportIndex) wins over a quote, a quote over the file")
    vix.add_argument("--vix-index", default="VIX", metavar="NAME", help="name of reports (%(default)s)")
    vix.add_argument("--vix-symbol", default="", metavar="NAME", help="symbol whose quotes are VIX")
    vix.add_argument("--vix-quote-max-age-s", type=positive, default=3_600.0, metavar="S", help="(%(default)g)")
    vix.add_argument("--vix-file", type=Path, metavar="FILE.csv", help="daily values: date,...,close; plain or .gz")
    vix.add_argument("--vix-file-max-age-h", type=positive, default=96.0, metavar="H", help="(%(default)g)")
    options.add_argument(
        "--direct",
        metavar="MODULE",
        help="off unless given: while DTMS is away, breakeven and partial go past it to this module with the functions "
        "of MetaTrader5 (or MODULE:NAME for an object); trailing and widening never do",
    )
    return options


def positive(text: str) -> float:
    """A number above 0. Raises ValueError."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


def main(
    argv: Sequence[str] | None = None, *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> int:
    """Runs until SIGTERM, SIGINT or the end of the replay; returns the exit code."""
    return command.run(parser().parse_args(argv), _manager, loop_factory=loop_factory)


def _manager(arguments: argparse.Namespace) -> ExitManager:
    book = RuleBook.read(arguments.rules) if arguments.rules else RuleBook(default=ExitRules())
    vix = VixSources(
        index=arguments.vix_index,
        symbol=arguments.vix_symbol,
        quote_max_age_ns=round(arguments.vix_quote_max_age_s * NANOS),
        days=VixDays.read(arguments.vix_file) if arguments.vix_file else None,
        days_max_age_ns=round(arguments.vix_file_max_age_h * HOUR_NS),
    )
    if arguments.direct and arguments.lockstep:
        raise ValueError("--direct: not in lockstep, where DTMS is never away")
    direct = Direct(TerminalProcess(arguments.direct), book) if arguments.direct else None
    return ExitManager(book, name=arguments.name, vix=vix, direct=direct)
