"""A module with the functions of MetaTrader5 for a gateway's process: a paper account in the present time.

Its server's clock is two hours ahead, and every look at a price finds a new one.
"""

from __future__ import annotations

import time
from typing import Any

from dtms_service.broker.mt5_api import PaperMt5
from tests.unit.paper_world import World

OFFSET_S = 7200

world = World(quoted=False, config={"server_utc_offset_s": OFFSET_S})
_mt5 = PaperMt5(world.broker)


def now_msc() -> int:
    return time.time_ns() // 1_000_000


world.broker.on_tick("EURUSD", now_msc(), 1.1, 1.1001)
world.buy(sl=1.09, tp=1.12)
globals().update(_mt5.exports())


def symbol_info_tick(symbol: str, /) -> Any:
    world.broker.on_tick(symbol, max(now_msc(), world.broker.now_msc + 1), 1.1, 1.1001)
    return _mt5.symbol_info_tick(symbol)
