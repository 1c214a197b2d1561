"""A service in virtual time without managers, its paper account beside it: the clock is the time of the last tick."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import Tick
from dtms_service import convert
from dtms_service.broker.door import Side
from dtms_service.paper_account import PaperAccount
from dtms_service.service import paper_account
from dtms_service.settings import configuration
from dtms_service.system import System

SYMBOL = "EURUSD"
DONE = 10009


@dataclass(slots=True)
class Virtual:
    """``system`` without gRPC. Prices are bids; the spread is one pip."""

    system: System
    paper: PaperAccount

    async def tick(self, time_s: float, bid: float, equity: float | None = None) -> None:
        """One price, and all that follows; ``equity`` as a gateway tells it."""
        tick = Tick(time_msc=round(time_s * 1000), bid=bid, ask=round(bid + 0.0001, 5))
        self.paper.on_tick(SYMBOL, tick)
        await self.system.monitor.tick(self.paper.account_id, SYMBOL, tick, self.paper.change_count, equity)

    async def trade(self, volume: float = 1.0, *, sl: float = 0.0, tp: float = 0.0) -> int:
        """A registered BUY at the last price; its ticket."""
        result = self.paper.by_hand(lambda actor: actor.open(SYMBOL, Side.BUY, volume, sl, tp))
        assert result.retcode == DONE, result
        held = self.paper.position(result.order)
        assert held is not None
        body = {
            "symbol": SYMBOL,
            "side": 1,
            "entry_price": held.price_open,
            "volume": held.volume,
            "sl": held.sl,
            "tp": held.tp,
            "strategy_type": "",
            "opened_ns": held.time_msc * 1_000_000,
        }
        key = (self.paper.account_id, held.ticket)
        await self.system.desk.register(key, body, convert.ORIGIN_CLIENT, "test")
        return held.ticket

    async def events(self, kind: str) -> list[Event]:
        """All events of one kind, in order."""
        await self.system.desk.settled()
        stored = await self.system.desk.commits.read(1, 1_000_000)
        found = [convert.event_message(body) for _revision, body in stored]
        return [event for event in found if event.WhichOneof("body") == kind]

    def rails(self) -> list[dict[str, Any]]:
        """Those that hold."""
        rails: list[dict[str, Any]] = self.system.desk.engine.status()["rails"]
        return rails


@asynccontextmanager
async def virtual(data_dir: Path, settings: Mapping[str, object] | None = None) -> AsyncIterator[Virtual]:
    """On ``data_dir``; what was left there is recovered."""
    config = configuration(None, paper=True, given={"data_dir": data_dir, **(settings or {})})
    assert config.paper is not None
    system = await System.open(config, frozenset())
    system.paper = paper_account(config, config.paper)
    try:
        await system.attach(system.paper.account_id, system.paper, [SYMBOL])
        yield Virtual(system, system.paper)
    finally:
        await system.close()
