"""``dtms gateway`` with the paper broker: the process that owns the account and drives a history past the service."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from dtms.v1 import gateway_service_pb2
from dtms_client import AsyncClient, DtmsError
from dtms_client._channel import Backoff, target
from dtms_service import gateway_messages as messages
from dtms_service.broker.command_log import COMMANDS, CommandLog
from dtms_service.broker.paper import PaperBroker
from dtms_service.errors import DtmsError as Undecided
from dtms_service.errors import FatalError
from dtms_service.gateway.link import AttachmentLost
from dtms_service.gateway.lockstep_link import LockstepLink
from dtms_service.journal.lock import DataDirectoryLock
from dtms_service.replay.job import HistoryJob, RunResult, open_run
from dtms_service.replay.trader import Trader


class Exit(IntEnum):
    """How the process ends."""

    DONE = 0
    REFUSED = 1  # a wrong argument, a corrupt file, a call that the service refused
    LOST = 3  # the service was away for longer than it is waited for; started again, the process goes on with the run
    ORPHANED = 4  # the service that started this process is gone


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """``service`` is host:port; ``root_certificates`` is a PEM file, None without TLS.

    ``token_file`` holds the credential with the role GATEWAY, ``trader_token_file`` that of the entry bot (MANAGER),
    which registers what it opens. ``patience_s`` is how long a service that is away is waited for, None for ever.
    """

    service: str
    token_file: Path
    trader_token_file: Path
    root_certificates: Path | None
    job: HistoryJob
    patience_s: float | None = None


def run_gateway(options: GatewayOptions) -> int:
    """Run the history and answer with the exit code; what went wrong stands on stderr, in one line."""
    try:
        asyncio.run(drive_gateway(options))
    except AttachmentLost as error:
        return _end(Exit.LOST, error)
    except (DtmsError, Undecided, FatalError, OSError, ValueError) as error:
        return _end(Exit.REFUSED, error)
    return Exit.DONE


async def drive_gateway(options: GatewayOptions) -> RunResult:
    """Attach, drive the history, say that it has ended; a service that is away is dialled again, and the run goes on.

    A run that another process had begun in the folder goes on too, if it is the service's. Raises AttachmentLost, what
    the service refuses (DtmsError of ``dtms_client``), DataDirectoryBusy, HistoryInvalid, OSError and ValueError for
    files and arguments.
    """
    options.job.out.mkdir(parents=True, exist_ok=True)
    lock = DataDirectoryLock(options.job.out)
    try:
        with closing(CommandLog(options.job.out / COMMANDS)) as commands:
            return await _again_and_again(options, commands)
    finally:
        lock.release()


async def _again_and_again(options: GatewayOptions, commands: CommandLog) -> RunResult:
    roots = options.root_certificates.read_bytes() if options.root_certificates is not None else None
    to = target(options.service, token=None, token_file=options.token_file, root_certificates=roots)
    backoff, waited_s = Backoff(), 0.0
    while True:
        try:
            trader = AsyncClient(options.service, token_file=options.trader_token_file, root_certificates=roots)
            async with trader, to.open_aio() as channel:
                own = Trader(trader, options.job.account.account_id)
                async with LockstepLink(channel, to, _hello(options.job, commands), own, commands) as link:
                    backoff.reset()
                    waited_s = 0.0
                    return await _drive(options.job, link, commands)
        except AttachmentLost as lost:
            pause_s = backoff.pause_s(None)
            waited_s += pause_s
            if options.patience_s is not None and waited_s > options.patience_s:
                raise
            print(f"dtms gateway: {lost}; again in {pause_s:g} s", file=sys.stderr)  # noqa: T201  # there is no log
        await asyncio.sleep(pause_s)


async def _drive(job: HistoryJob, link: LockstepLink, commands: CommandLog) -> RunResult:
    if link.place.fresh:
        commands.begin()
    with open_run(job, commands, goes_on=not link.place.fresh) as run:
        link.begin(run)
        result = await run.drive(link)
        await link.end()
        return result


def _hello(job: HistoryJob, commands: CommandLog) -> gateway_service_pb2.GatewayHello:
    return gateway_service_pb2.GatewayHello(
        account_id=job.account.account_id,
        account=messages.account_to_wire(PaperBroker(job.account).account()),
        symbols=[messages.symbol_to_wire(job.spec)],
        lockstep=True,
        run_id=commands.run_id,
    )


def _end(code: Exit, error: Exception) -> int:
    print(f"dtms gateway: {error}", file=sys.stderr)  # noqa: T201  # a process's last word, when no log may be open
    return code
