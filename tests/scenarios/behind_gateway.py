"""A service whose broker is a process of its own, so that either can go away while the other goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.trade_pb2 import SIDE_BUY, Trade
from tests.process.service_process import Process, serve
from tests.scenarios.world import World, opened
from tests.stack import SYMBOL

# A command that was lost on the way is not waited for: here nothing lies on the way.
IMPATIENT = {"DTMS_RECONCILIATION__SETTLE_MS": "500"}


class GatewayProcess(Process):
    """tests.scenarios.gateway with its commands."""

    async def do(self, what: str, answer: str, **facts: Any) -> dict[str, Any]:
        """Gives a command and waits for what it says."""
        assert self.process.stdin is not None
        told = len(self.said)
        self.process.stdin.write(json.dumps({"do": what, **facts}).encode() + b"\n")
        return await self.tells(answer, since=told)

    async def tells(self, what: str, *, since: int = 0) -> dict[str, Any]:
        """The first line after so many that says this."""
        found: dict[str, Any] = await self.until(
            lambda: next((fact for fact in map(json.loads, self.said[since:]) if fact["what"] == what), None)
        )
        return found


class Outside:
    """Service, gateway and a trade. Each of the two processes can be killed and started again."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.gateway: GatewayProcess

    async def attach(self) -> None:
        """A gateway with the books that an earlier one left."""
        self.gateway = await GatewayProcess.start(
            self.here.service.address,
            self.here.service.token("gateway"),
            self.here.folder,
            module="tests.scenarios.gateway",
            stdin=asyncio.subprocess.PIPE,
        )
        await self.gateway.tells("attached")

    async def tick(self, bid: float) -> None:
        await self.gateway.do("tick", "ticked", bid=bid)

    async def open(self) -> Trade:
        """One lot, bought at the price of now, stop 0.005 away."""
        held = await self.gateway.do("open", "opened")
        await self.tick(1.1)
        body = Registration(
            ticket=held["ticket"],
            symbol=SYMBOL,
            side=SIDE_BUY,
            entry_price=held["price"],
            volume=held["volume"],
            sl=held["sl"],
            tp=held["tp"],
        )
        return (await (await self.here.client("feed")).register_trade(body)).trade

    async def restart_service(self) -> None:
        """On the same port, with what lies on disk."""
        port = int(self.here.service.address.rpartition(":")[2])
        self.here.service = await serve(self.here.folder / "data", port=port, arguments=(), env=IMPATIENT)


@asynccontextmanager
async def behind_a_gateway(folder: Path) -> AsyncIterator[tuple[Outside, Trade]]:
    """All of it, priced and with a trade."""
    async with opened(folder, await serve(folder / "data", arguments=(), env=IMPATIENT)) as here:
        outside = Outside(here)
        await outside.attach()
        try:
            await outside.tick(1.1)
            yield outside, await outside.open()
        finally:
            await outside.gateway.kill()
