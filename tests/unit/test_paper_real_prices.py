"""The paper broker on real ticks."""

from __future__ import annotations

import csv
import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtms_service.broker.ledger import Deal
from dtms_service.broker.paper import PaperBroker
from tests.unit.paper_world import CONFIG, SPEC, TRADING, World

TICKS_READ = 60_000  # enough for hours of the real week, half a second of work


def real_ticks(folder: Path) -> Iterator[tuple[int, float, float]]:
    path = folder / "eurusd_ticks_oanda_20140508_0512.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    with gzip.open(path, "rt") as lines:
        for index, row in enumerate(csv.DictReader(lines)):
            if index == TICKS_READ:
                return
            yield int(row["time_msc"]), float(row["bid"]), float(row["ask"])


def trade(ticks: list[tuple[int, float, float]]) -> list[Deal]:
    """Every 500th tick open both sides with stop and target of 60 points; half of each is closed 250 ticks later."""
    broker = PaperBroker(CONFIG)
    broker.add_symbol(SPEC, TRADING)
    for index, (time_msc, bid, ask) in enumerate(ticks):
        broker.on_tick("EURUSD", time_msc, bid, ask)
        if index % 500 == 0:
            for kind, sign in ((0, 1), (1, -1)):
                away = 60 * SPEC.point * sign
                request = {"action": 1, "symbol": "EURUSD", "type": kind, "volume": 0.02}
                broker.order_send(request | {"sl": bid - away, "tp": bid + away})
        elif index % 500 == 250:
            for position in broker.positions():
                kind = 1 if position.side.name == "BUY" else 0
                broker.order_send(
                    {"action": 1, "symbol": "EURUSD", "type": kind, "volume": 0.01, "position": position.ticket}
                )
    return broker.book.ledger.deals


def test_real_ticks_give_the_same_books_twice(shared_data: Path) -> None:
    """The same ticks and requests give the same deals; stops never fill better than their level, targets at it."""
    ticks = list(real_ticks(shared_data))
    first = trade(ticks)
    assert first == trade(ticks)
    assert {deal.reason.name for deal in first} >= {"SL", "TP", "EXPERT"}
    for deal in first:
        if deal.comment.startswith("["):
            level = float(deal.comment[4:-1])
            worse = (level - deal.price) * (1 if deal.type.name == "SELL" else -1)
            assert worse >= -1e-9 if deal.reason.name == "SL" else abs(worse) < 1e-9


def test_a_tick_costs_microseconds() -> None:
    """A tick with four open positions stays below 5 us here; the test allows ten times that on a loaded machine."""
    world = World()
    for kind in (0, 1, 0, 1):
        world.deal(kind, 0.1, sl=1.05 if kind == 0 else 1.15)
    broker, start_msc, count = world.broker, world.now, 20_000
    started = time.perf_counter()
    for index in range(count):
        broker.on_tick("EURUSD", start_msc + index, 1.1 + index % 7 * 1e-5, 1.1001 + index % 7 * 1e-5)
    assert (time.perf_counter() - started) / count < 50e-6
