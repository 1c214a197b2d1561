"""A manager of two lines: it takes a trade and moves the stop by a point, again and again, as fast as it is answered.

Says each answer on stdout. Ends with 0 when it is told that its grant is gone. It trusts nothing but its own memory of
the grant: nothing but DTMS keeps it from writing after it was frozen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

from dtms.v1.action_pb2 import ACTION_KIND_STOP, PURPOSE_TRAIL, Action
from dtms.v1.arbitration_service_pb2 import Grant
from dtms_client import AsyncClient, new_request_id
from dtms_client.errors import StaleEpoch

POINT = 0.00001


def say(**fact: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(fact).encode() + b"\n")


async def trail(client: AsyncClient, ticket: int) -> None:
    held = (await client.acquire_ownership(ticket)).ownership
    say(kind="acquired", epoch=held.owner_epoch)
    first = (await client.get_trade(ticket)).confirmed.sl
    for step in count(1):
        stop = round(first + step * POINT, 5)
        try:
            await client.renew_ownership([Grant(ticket=ticket, owner_epoch=held.owner_epoch)])
            answer = await client.propose(
                request_id=new_request_id(),
                ticket=ticket,
                owner_epoch=held.owner_epoch,
                action=Action(kind=ACTION_KIND_STOP, purpose=PURPOSE_TRAIL, stop=stop),
            )
        except StaleEpoch as refused:
            say(kind="refused", reason=refused.reason, epoch=int(refused.metadata["owner_epoch"]), stop=stop)
            return
        say(kind="moved", granted=answer.decision.granted, stop=stop)


async def main() -> None:
    command = argparse.ArgumentParser()
    command.add_argument("--address", required=True)
    command.add_argument("--token-file", required=True, type=Path)
    command.add_argument("--ticket", required=True, type=int)
    arguments = command.parse_args()
    async with AsyncClient(arguments.address, token_file=arguments.token_file) as client:
        await trail(client, arguments.ticket)


if __name__ == "__main__":
    asyncio.run(main())
