"""The same trades in the core and in the plain-Python twins, from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from benches import plain_table
from benches.plain_arbiter import Grid, OwnedTrade, PlainArbiter, Rank
from benches.plain_table import BUY, NS_PER_S, SELL, PlainTrade, Rules, State, View
from dtms_service._core import Engine
from dtms_service.config import BUILT_IN_MANAGERS, PROFILES, EngineConfig, RailsConfig

SEED: Final = 20_261_122
ACCOUNT: Final = "1@bench"
EXIT_MANAGER: Final = "intelligent_exit_manager"
T0_NS: Final = 1_699_999_200 * NS_PER_S  # the beginning of a quarter of an hour
POINTS: Final = 100_000
PRICE: Final = 110_000  # points, about which all prices stay
SPREAD: Final = 10
LEAST_RISK, GREATEST_RISK = 300, 900  # points: an arming level lies at least 60 points away, ticks stay within 20
FAR_NS: Final = 10**18
ORIGIN_CLIENT: Final = 1

SPEC: Final[dict[str, Any]] = {
    "digits": 5,
    "point": 1 / POINTS,
    "tick_size": 1 / POINTS,
    "contract_size": 100_000.0,
    "volume_min": 0.01,
    "volume_max": 100.0,
    "volume_step": 0.01,
    "stops_level": 0,
    "freeze_level": 0,
    "vwap_slope_threshold": 0.0005,
}
GRID: Final = Grid(points_per_price=POINTS, steps_per_lot=100, volume_min=1, stops_level=0, freeze_level=0)


@dataclass(frozen=True, slots=True)
class Position:
    """A trade before anybody knows it. Points and steps."""

    ticket: int
    symbol: str
    side: int
    entry: int
    risk: int
    opened_ns: int

    @property
    def sl(self) -> int:
        return self.entry - self.risk if self.side == BUY else self.entry + self.risk


def symbol_names(count: int) -> list[str]:
    return [f"SYM{index:02}" for index in range(count)]


def positions(count: int, symbols: int, seed: int) -> Iterator[Position]:
    """Both sides, symbols in turn; every second trade of a symbol and side is old enough to be armed by its age."""
    chance, names = random.Random(seed), symbol_names(symbols)
    for index in range(count):
        place = index // symbols
        yield Position(
            ticket=index + 1,
            symbol=names[index % symbols],
            side=BUY if place % 2 == 0 else SELL,
            entry=PRICE + chance.randint(-15, 15),
            risk=chance.randint(LEAST_RISK, GREATEST_RISK),
            opened_ns=T0_NS - 7200 * NS_PER_S if place % 4 < 2 else T0_NS,
        )


def price(points: int) -> float:
    return points / POINTS


def config() -> EngineConfig:
    return EngineConfig.model_validate(PROFILES["intraday"])


def rules(numbers: EngineConfig) -> Rules:
    """The same numbers for the twin."""
    return Rules(
        arm_gain_r=numbers.arm_gain_r,
        arm_loss_r=numbers.arm_loss_r,
        arm_after_s=numbers.arm_after_s,
        hold_s=numbers.hold_s,
        flat_timer_s=numbers.flat_timer_slow_bars * numbers.slow_s,
        recovery_timer_s=numbers.recovery_timer_slow_bars * numbers.slow_s,
        hedge_pause_s=numbers.hedge_pause_slow_bars * numbers.slow_s,
        max_hedges=numbers.max_hedges,
        close_on_flat_timer_l1=numbers.close_on_flat_timer_l1,
    )


def new_engine(numbers: EngineConfig, symbols: int) -> Engine:
    """Knows one hedging account and its symbols, priced, with a neutral score reported from outside."""
    engine = Engine(
        numbers.to_core() | RailsConfig().to_core(), {name: int(rank) for name, rank in BUILT_IN_MANAGERS.items()}, []
    )
    engine.define_account(ACCOUNT, True, "USD", T0_NS)
    for name in symbol_names(symbols):
        engine.define_symbol(ACCOUNT, {**SPEC, "symbol": name}, T0_NS)
        engine.on_tick(ACCOUNT, name, T0_NS // 1_000_000, price(PRICE), price(PRICE + SPREAD), 1.0, T0_NS)
        engine.report_score(ACCOUNT, name, {"total": 0.5}, "bench", T0_NS + FAR_NS, T0_NS)
    return engine


def register(engine: Engine, position: Position) -> None:
    engine.register(
        ACCOUNT,
        position.ticket,
        position.symbol,
        position.side,
        price(position.entry),
        1.0,
        price(position.sl),
        None,
        "",
        position.opened_ns,
        ORIGIN_CLIENT,
        EXIT_MANAGER,
        T0_NS,
        0,
    )


def plain_trade(position: Position, numbers: Rules) -> PlainTrade:
    return plain_table.register(
        position.ticket,
        position.side,
        position.entry,
        risk=position.risk,
        opened_ns=position.opened_ns,
        rules=numbers,
    )


def plain_arbiter(numbers: EngineConfig, symbols: int) -> PlainArbiter:
    names = symbol_names(symbols)
    return PlainArbiter(
        account_id=ACCOUNT,
        ranks={name: Rank(int(rank)) for name, rank in BUILT_IN_MANAGERS.items()},
        cooldown_ms=numbers.cooldown_ms,
        allow_loosen=numbers.allow_loosen,
        grids=dict.fromkeys(names, GRID),
        quotes=dict.fromkeys(names, (PRICE, PRICE + SPREAD)),
    )


def owned_trade(position: Position, epoch: int) -> OwnedTrade:
    """As the core has it right after registration."""
    return OwnedTrade(
        ticket=position.ticket,
        symbol=position.symbol,
        side=position.side,
        entry=position.entry,
        risk=position.risk,
        initial_volume=100,
        volume=100,
        sl=position.sl,
        tp=None,
        state=State.HEALTHY,
        managed_by="dtms_manager",
        owner_epoch=epoch,
    )


def view_of(engine: Engine, symbol: str, side: int, account_id: str = ACCOUNT) -> View:
    """What the core's trades of ``side`` are judged by, without edges. AssertionError before the first price."""
    score = engine.score(account_id, symbol, side)
    assert score is not None, f"{symbol} has no price yet"
    limits = score["thresholds"]
    return View(
        total=score["total"],
        warn1=limits["warn1"],
        warn1_recovered=limits["warn1_recovered"],
        warn2=limits["warn2"],
        warn2_eased=limits["warn2_eased"],
        critical=limits["critical"],
        recovery_confirmed=limits["recovery_confirmed"],
    )
