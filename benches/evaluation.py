"""Batch evaluation: what one price of every symbol costs per trade, and what a trade costs in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benches import plain_table, sampling, world
from benches.figures import Baseline, Figure, Target
from benches.plain_table import BUY, NS_PER_S, SELL, PlainTrade, Rules, View
from benches.world import ACCOUNT, PRICE, SEED, SPREAD, T0_NS
from dtms_service._core import Engine

NAME: Final = "plain Python table"
SWING: Final = (0, 7, 15, 20, 12, 3, -6, -14, -20, -9)  # points: ticks move, and stay short of every arming level
WORSE: Final = -2.5  # a score at which HEALTHY trades become WARNING_L1


@dataclass(frozen=True, slots=True)
class Size:
    trades: int
    symbols: int
    rounds: int
    plain_rounds: int


FULL: Final = Size(trades=1_000_000, symbols=50, rounds=30, plain_rounds=3)
QUICK: Final = Size(trades=1_000, symbols=5, rounds=2, plain_rounds=1)


@dataclass(slots=True)
class Core:
    """The engine under a clock that one round of ticks moves on by a second."""

    engine: Engine
    symbols: Sequence[str]
    seconds: int = 0

    def round(self) -> int:
        """One tick of every symbol; the number of ticks that made events."""
        self.seconds += 1
        now_ns = T0_NS + self.seconds * NS_PER_S
        bid = PRICE + SWING[self.seconds % len(SWING)]
        made = 0
        for symbol in self.symbols:
            prices = world.price(bid), world.price(bid + SPREAD)
            step = self.engine.on_tick(ACCOUNT, symbol, now_ns // 1_000_000, *prices, 1.0, now_ns)
            made += step is not None
        return made


@dataclass(slots=True)
class Plain:
    """The same in plain Python."""

    trades: dict[str, list[PlainTrade]]
    views: Sequence[View]
    rules: Rules
    seconds: int = 0

    def round(self) -> int:
        self.seconds += 1
        now_ns = T0_NS + self.seconds * NS_PER_S
        bid = PRICE + SWING[self.seconds % len(SWING)]
        return sum(
            bool(
                plain_table.evaluate_all(trades, self.views, bid=bid, ask=bid + SPREAD, rules=self.rules, now_ns=now_ns)
            )
            for trades in self.trades.values()
        )


def measure(quick: bool) -> list[Figure]:
    """1,000,000 trades over 50 symbols; 1,000 over 5 when quick."""
    size = QUICK if quick else FULL
    numbers, names = world.config(), world.symbol_names(size.symbols)
    rules = world.rules(numbers)

    core = Core(world.new_engine(numbers, size.symbols), names)
    before = sampling.resident_bytes()
    for position in world.positions(size.trades, size.symbols, SEED):
        world.register(core.engine, position)
    core_bytes = (sampling.resident_bytes() - before) / size.trades
    core.round()  # arms what is old enough

    before = sampling.resident_bytes()
    trades: dict[str, list[PlainTrade]] = {name: [] for name in names}
    for position in world.positions(size.trades, size.symbols, SEED):
        trades[position.symbol].append(world.plain_trade(position, rules))
    plain_bytes = (sampling.resident_bytes() - before) / size.trades
    views = [world.view_of(core.engine, names[0], side) for side in (BUY, SELL)]
    plain = Plain(trades, views, rules)
    plain.round()

    with sampling.quiet_heap():
        core_ns = sampling.least_ns(lambda: _must_be_quiet(core.round()), size.rounds) / size.trades
        plain_ns = sampling.least_ns(lambda: _must_be_quiet(plain.round()), size.plain_rounds) / size.trades
        wave, plain_wave = _wave(core, size, NS_PER_S * (core.seconds + 1)), _plain_wave(plain, size)
    return [
        Figure(
            "evaluate all trades for one price, nothing due",
            "ns/trade",
            core_ns,
            Baseline(NAME, plain_ns),
            Target("value", "at most", 100),
        ),
        Figure(
            "resident memory",
            "bytes/trade",
            core_bytes,
            Baseline(NAME, plain_bytes),
            Target("value", "at most", 1024),
        ),
        Figure(
            "HEALTHY -> WARNING_L1 with decision, intent and events",
            "ns/transition",
            wave,
            Baseline(f"{NAME}, the edge alone", plain_wave),
        ),
    ]


def _must_be_quiet(made: int) -> None:
    if made:
        raise AssertionError(f"{made} symbols made events where nothing is due")


def _armed_buys(size: Size) -> int:
    """Of the first symbol: those that were old enough at T0."""
    of_symbol = (p for p in world.positions(size.trades, size.symbols, SEED) if p.symbol == world.symbol_names(1)[0])
    return sum(position.side == BUY and position.opened_ns < T0_NS for position in of_symbol)


def _wave(core: Core, size: Size, after_ns: int) -> float:
    """A score that all armed BUY trades of one symbol answer: ns per trade. The events stay in Rust."""
    now_ns, revision = T0_NS + after_ns, core.engine.revision
    score = {"total": WORSE}
    started = time.thread_time_ns()
    core.engine.report_score(ACCOUNT, core.symbols[0], score, "bench", now_ns + NS_PER_S, now_ns)
    elapsed = time.thread_time_ns() - started
    armed = _armed_buys(size)
    if core.engine.revision - revision < 2 * armed:
        raise AssertionError("not every armed trade answered the score")
    return elapsed / armed


def _plain_wave(plain: Plain, size: Size) -> float:
    buy, sell = plain.views
    views = (buy._replace(total=WORSE), sell._replace(total=-WORSE))
    trades, now_ns = next(iter(plain.trades.values())), T0_NS + (plain.seconds + 1) * NS_PER_S
    started = time.thread_time_ns()
    made = plain_table.evaluate_all(trades, views, bid=PRICE, ask=PRICE + SPREAD, rules=plain.rules, now_ns=now_ns)
    elapsed = time.thread_time_ns() - started
    if len(made) != _armed_buys(size):
        raise AssertionError("the twin took another number of edges")
    return elapsed / len(made)
