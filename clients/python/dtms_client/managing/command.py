"""Command lines of managers: what all of them take, and how they start, run and end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from dtms_client._collector import spare_what_stays
from dtms_client.aio import AsyncClient
from dtms_client.errors import DtmsError, PermissionDenied, Unauthenticated
from dtms_client.managing import log
from dtms_client.managing.brain import Brain
from dtms_client.managing.live import Live
from dtms_client.managing.lockstep import Lockstep
from dtms_client.managing.state_source import Limits

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
REFUSED: Final = 3

# In lockstep both ends are started together; a recovery of the service may come first.
CONNECT_S: Final = 30.0

logger = logging.getLogger("dtms_client.managing")


def parser(*, program: str, description: str, name: str) -> argparse.ArgumentParser:
    """The options that every manager has; `name` is what the manager is called unless told otherwise."""
    command = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Logs JSON lines to stderr. Ends with 0 on SIGTERM or at the end of a replay, 1 after an error, "
        "2 when called wrongly, 3 when the credential is refused.",
    )
    command.add_argument("--address", required=True, metavar="HOST:PORT", help="where DTMS serves")
    command.add_argument("--token-file", required=True, type=Path, metavar="FILE", help="the manager's token")
    command.add_argument("--root-certificates", type=Path, metavar="FILE", help="PEM; needed off this machine (TLS)")
    command.add_argument("--lockstep", action="store_true", help="take part in a replay in virtual time")
    command.add_argument("--name", default=name, help="name of the manager that the token is for (%(default)s)")
    command.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return command


def run(
    arguments: argparse.Namespace,
    brain: Callable[[argparse.Namespace], Brain],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Runs until SIGTERM, SIGINT or the end of the replay; returns the exit code.

    `brain` makes the manager of the arguments; it raises OSError or ValueError for those that are wrong.
    `loop_factory` gives a faster event loop than that of asyncio, where there is one.
    """
    with log.to_stderr(arguments.log_level):
        try:
            manager = brain(arguments)
            roots = arguments.root_certificates.read_bytes() if arguments.root_certificates else None
            client = AsyncClient(arguments.address, token_file=arguments.token_file, root_certificates=roots)
        except (OSError, ValueError) as error:
            logger.critical("cannot start: %s", error)
            return MISUSED
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                return runner.run(_run(client, manager, lockstep=arguments.lockstep))
        except (Unauthenticated, PermissionDenied) as refused:
            logger.critical("the service refuses the credential in %s: %s", arguments.token_file, refused)
            return REFUSED
        except DtmsError as failed:
            logger.critical("the service cannot be used: %s", failed)
            return FAILED


async def _run(client: AsyncClient, manager: Brain, *, lockstep: bool) -> int:
    """Races the manager against a signal."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        logger.info("asked to stop", extra={"facts": {"signal": signal.Signals(number).name}})
        loop.call_soon_threadsafe(stop.set)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        async with client:
            spare_what_stays()
            logger.info("started", extra={"facts": {"manager": manager.name, "lockstep": lockstep}})
            work = asyncio.create_task(_work(client, manager, lockstep=lockstep))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            work.cancel()
            await asyncio.wait((work,))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    logger.info("stopped", extra={"facts": manager.tally.facts()})
    if not work.cancelled():
        work.result()
    return DONE


async def _work(client: AsyncClient, manager: Brain, *, lockstep: bool) -> None:
    if lockstep:
        await Lockstep(client, manager).run(connect_s=CONNECT_S)
    else:
        live = Live(client, manager, monotonic=time.monotonic, now_ns=time.time_ns, limits=Limits())
        await live.run()
