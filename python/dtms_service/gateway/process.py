"""``dtms gateway`` with the paper broker: the process that owns the account and drives a history past the service."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from dtms.v1 import gateway_service_pb2
from dtms_client import AsyncClient, DtmsError
from dtms_client._channel import target
from dtms_service import gateway_messages as messages
from dtms_service.errors import DtmsError as Undecided
from dtms_service.errors import FatalError
from dtms_service.gateway.link import AttachmentLost, GatewayLink
from dtms_service.replay.job import HistoryJob, HistoryRun, RunResult, open_run
from dtms_service.replay.trader import Trader


class Exit(IntEnum):
    """How the process ends."""

    DONE = 0
    REFUSED = 1  # a wrong argument, a corrupt file, a call that the service refused
    LOST = 3  # the stream to the service ended before the history did; a supervisor may start the process again
    ORPHANED = 4  # the service that started this process is gone


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """``service`` is host:port; ``root_certificates`` is a PEM file, None without TLS.

    ``token_file`` holds the credential with the role GATEWAY, ``trader_token_file`` that of the entry bot (MANAGER),
    which registers what it opens.
    """

    service: str
    token_file: Path
    trader_token_file: Path
    root_certificates: Path | None
    job: HistoryJob


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
    """Attach, drive the history, say that it has ended. Raises AttachmentLost, what the service refuses (DtmsError of
    ``dtms_client``), HistoryInvalid, OSError and ValueError for files and arguments."""
    roots = options.root_certificates.read_bytes() if options.root_certificates is not None else None
    to = target(options.service, token=None, token_file=options.token_file, root_certificates=roots)
    with open_run(options.job) as run:
        trader = AsyncClient(options.service, token_file=options.trader_token_file, root_certificates=roots)
        async with trader, to.open_aio() as channel:
            link = GatewayLink(channel, to, await _hello(run), run.door, Trader(trader, run.account_id))
            async with link:
                result = await run.drive(link)
                await link.end()
                return result


async def _hello(run: HistoryRun) -> gateway_service_pb2.GatewayHello:
    return gateway_service_pb2.GatewayHello(
        account_id=run.account_id,
        account=messages.account_to_wire(await run.door.account(run.account_id)),
        symbols=[messages.symbol_to_wire(run.job.spec)],
        lockstep=True,
    )


def _end(code: Exit, error: Exception) -> int:
    print(f"dtms gateway: {error}", file=sys.stderr)  # noqa: T201  # a process's last word, when no log may be open
    return code
