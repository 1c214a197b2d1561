"""What only the paper broker's own door has: calls that travel. What every door must do is in tests/contract."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from dtms_service.broker.door import Command, CommandKind, Side
from dtms_service.broker.faults import Gate, Leg
from dtms_service.broker.paper_door import PaperDoor
from tests.unit.paper_world import World

ACCOUNT = "7001@Paper"
Case = tuple[World, PaperDoor]


def doored(**changes: Any) -> Case:
    world = World(**changes)
    return world, PaperDoor({ACCOUNT: world.broker})


def command(kind: CommandKind, ticket: int, token: int = 1, **changes: Any) -> Command:
    base = Command(
        intent_id=1,
        account_id=ACCOUNT,
        ticket=ticket,
        token=token,
        kind=kind,
        symbol="EURUSD",
        position=ticket,
        side=Side.BUY,
        volume=0.10,
        sl=None,
        tp=None,
        deviation_points=20,
        magic=5,
        comment="dtms",
    )
    return replace(base, **changes)


async def test_a_paused_command_is_fenced_on_arrival() -> None:
    """A command held up on the way is judged when it arrives: by then a newer token has been seen."""
    world, door = doored()
    ticket = world.buy().order
    gate = world.broker.faults.latency = Gate("execute", Leg.REQUEST)
    late = asyncio.create_task(door.execute(command(CommandKind.MODIFY, ticket, token=1, sl=1.08)))
    await gate.arrived.wait()
    world.broker.faults.latency = None
    await door.execute(command(CommandKind.MODIFY, ticket, token=2, sl=1.09))
    gate.open()
    assert (await late).comment == "STALE_TOKEN"
    assert world.broker.positions()[0].sl == 1.09


async def test_a_slow_reply_is_already_executed() -> None:
    """While the reply travels the broker has acted."""
    world, door = doored()
    ticket = world.buy().order
    gate = world.broker.faults.latency = Gate("execute", Leg.REPLY)
    task = asyncio.create_task(door.execute(command(CommandKind.MODIFY, ticket, sl=1.09)))
    await gate.arrived.wait()
    assert world.broker.positions()[0].sl == 1.09
    assert not task.done()
    gate.open()
    assert (await task).sl == 1.09
