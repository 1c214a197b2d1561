"""A gateway with the paper broker as a process of its own, in real time: it outlives the service, and holds on command.

python -m tests.scenarios.gateway ADDRESS TOKEN_FILE FOLDER

FOLDER gets the broker's books and its log. Commands are JSON lines on stdin, each answered by a line on stdout:
``{"do": "tick", "bid": 1.1}``, ``{"do": "open"}`` (one lot, bought), ``{"do": "hold", "leg": "request" | "reply"}``
(the next order waits, before or after the broker has decided it; answered, and said again as "held" when it is there),
``{"do": "release"}``. Says "attached" each time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from dtms.v1 import gateway_service_pb2, market_data_service_pb2
from dtms_client._channel import Backoff, Target, target
from dtms_client.errors import DtmsError
from dtms_service import gateway_messages as messages
from dtms_service.broker.broker_log import BrokerLog
from dtms_service.broker.door import Command, Outcome
from dtms_service.broker.faults import Gate, Leg
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.broker.paper_store import PaperStore
from dtms_service.broker.recorded import RecordedBroker, RecordedDoor
from dtms_service.gateway.link import Attachment, AttachmentLost
from dtms_service.history import Tick
from tests.scenarios.world import BROKER_LOG
from tests.stack import SYMBOL, T0_MSC
from tests.unit.paper_world import CONFIG, SPEC, TRADING

ENTRY_MAGIC = 7


class Door(RecordedDoor):
    """Keeps the books on disk as the broker changes them, before an answer is on its way."""

    def __init__(self, broker: RecordedBroker, store: PaperStore) -> None:
        super().__init__(PaperDoor({broker.config.account_id: broker}))
        self._broker, self._store = broker, store
        self.gate: Gate | None = None

    async def execute(self, command: Command) -> Outcome:
        if self.gate is not None:
            await self.gate("execute", Leg.REQUEST)
        outcome = await super().execute(command)
        self._store.save()
        if self.gate is not None:
            await self.gate("execute", Leg.REPLY)
        return outcome


class Gateway:
    def __init__(self, folder: Path) -> None:
        self.broker = RecordedBroker(CONFIG, BrokerLog(folder / BROKER_LOG, entry_magic=ENTRY_MAGIC, fresh=False))
        self.broker.add_symbol(SPEC, TRADING)
        self.store = PaperStore(folder / "books.db", self.broker)
        self.door = Door(self.broker, self.store)
        self.link: Attachment | None = None
        self._held: asyncio.Task[None] | None = None

    async def attach(self, to: Target) -> None:
        """Attaches, again and again."""
        backoff = Backoff()
        while True:
            hello = gateway_service_pb2.GatewayHello(
                account_id=CONFIG.account_id,
                account=messages.account_to_wire(await self.door.account(CONFIG.account_id)),
                symbols=[messages.symbol_to_wire(SPEC)],
            )
            try:
                async with to.open_aio() as channel, Attachment(channel, to, hello, self.door) as link:
                    self.link = link
                    say(what="attached", revision=link.attached_at_revision)
                    backoff.reset()
                    await asyncio.wait([link._reader])
            except (AttachmentLost, DtmsError):
                pass
            self.link = None
            await asyncio.sleep(backoff.pause_s(None))

    async def obey(self, command: dict[str, Any]) -> None:
        match command["do"]:
            case "tick":
                await self._tick(command["bid"])
                say(what="ticked")
            case "open":
                order = {"action": 1, "symbol": SYMBOL, "type": 0, "volume": 1.0, "magic": ENTRY_MAGIC}
                levels = {"sl": round(self.broker.market(SYMBOL).ask - 0.005, 5), "tp": 1.15}
                opened = self.broker.order_send({**order, **levels})
                self.store.save()
                held = self.broker.position(opened.order)
                assert held is not None, opened
                say(what="opened", ticket=held.ticket, price=held.price_open, volume=held.volume, **levels)
            case "hold":
                self.door.gate = Gate("execute", Leg(command["leg"]))
                self._held = asyncio.create_task(self._tell(self.door.gate))
                say(what="holding")
            case "release":
                assert self.door.gate is not None
                self.door.gate.open()
                self.door.gate = None
                say(what="released")
            case unknown:
                raise ValueError(f"no command: {unknown}")

    async def _tick(self, bid: float) -> None:
        tick = Tick(max(self.broker.now_msc, T0_MSC) + 1000, bid, round(bid + 0.0001, 5), 1.0)
        self.broker.on_tick(SYMBOL, tick.time_msc, tick.bid, tick.ask)
        self.store.save()
        if self.link is not None:
            told = market_data_service_pb2.Tick(**tick._asdict())
            await self.link.send(SYMBOL, (told,), self.broker.change_count, self.broker.account().equity)

    @staticmethod
    async def _tell(gate: Gate) -> None:
        await gate.arrived.wait()
        say(what="held")


def say(**fact: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(fact).encode() + b"\n")


async def main(address: str, token_file: Path, folder: Path) -> None:
    gateway = Gateway(folder)
    to = target(address, token=None, token_file=token_file, root_certificates=None)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    attaching = asyncio.create_task(gateway.attach(to))
    while line := await lines.readline():
        await gateway.obey(json.loads(line))
    attaching.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
