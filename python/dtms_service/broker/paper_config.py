"""What a paper account and its symbols are. Nothing that touches money has a default."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from dtms_service.broker.door import SymbolSpec
from dtms_service.broker.mt5_enums import CalcMode, DayOfWeek, Execution, FillingFlag, OrderFlag, SwapMode, TradeMode

_ACCOUNT_ID = re.compile(r"(?P<login>[0-9]+)@(?P<server>.+)")
STEP_TOLERANCE = 1e-7  # |volume / step - round(volume / step)| that still counts as on the step (mt5.md 4.5)


class SlippageModel(Enum):
    """Where a stop (loss or out) fills. Take profits always fill at their level: "level or better", and in the
    recorded account all of them exactly at it."""

    NONE = "none"  # the triggering tick's bid or ask, so a gap slips in full
    NEXT_TICK = "next_tick"  # the symbol's next tick; the position is locked in between
    FIXED_POINTS = "fixed_points"  # the triggering tick's price, worsened by a fixed number of points


@dataclass(frozen=True, slots=True)
class Slippage:
    model: SlippageModel
    points: int

    def __post_init__(self) -> None:
        if self.points < 0 or (self.points > 0) != (self.model is SlippageModel.FIXED_POINTS):
            raise ValueError(f"slippage: {self.points} points do not fit the model {self.model.value}")


@dataclass(frozen=True, slots=True)
class Session:
    """One trading session of a week day, in seconds of the server's day: ``[open_s, close_s)``."""

    day: DayOfWeek
    open_s: int
    close_s: int


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """One account. Percentages are margin levels; a limit of 0 means the broker sets none.

    ``commission_per_lot_side`` is a cost in account currency, charged on every deal. ``conversion_rates`` gives, for a
    currency that no symbol of the broker quotes against the account currency, its value in account currency.
    ``first_order`` and ``first_deal`` are the first tickets of two independent counters.
    """

    account_id: str
    hedging: bool
    hedge_prohibited: bool
    fifo_close: bool
    currency: str
    currency_digits: int
    leverage: int
    balance: float
    margin_call_percent: float
    stop_out_percent: float
    commission_per_lot_side: float
    conversion_rates: Mapping[str, float]
    limit_positions: int
    requests_per_second: int
    slippage: Slippage
    first_order: int
    first_deal: int
    server_utc_offset_s: int

    def __post_init__(self) -> None:
        if _ACCOUNT_ID.fullmatch(self.account_id) is None:
            raise ValueError(f"account_id: {self.account_id!r} is not login@server")
        for name in ("leverage", "first_order", "first_deal"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, is {getattr(self, name)}")
        for name in ("balance", "margin_call_percent", "stop_out_percent", "commission_per_lot_side"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}: must be a finite number >= 0, is {getattr(self, name)}")
        for name in ("currency_digits", "limit_positions", "requests_per_second"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must be >= 0, is {getattr(self, name)}")
        for currency, rate in self.conversion_rates.items():
            if not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"conversion_rates[{currency}]: must be a finite number > 0, is {rate}")

    @property
    def login(self) -> int:
        return int(self.account_id.partition("@")[0])

    @property
    def server(self) -> str:
        return self.account_id.partition("@")[2]


@dataclass(frozen=True, slots=True)
class SymbolTrading:
    """How a symbol trades. ``margin_hedged`` is the contract size charged per lot of a hedged pair (0: none);
    ``volume_limit`` the lots allowed in one direction (0: none); swaps are points or account currency per lot and
    night, by ``swap_mode``. No ``sessions`` means the symbol trades always."""

    execution: Execution
    filling: FillingFlag
    trade_mode: TradeMode
    order_mode: OrderFlag
    calc_mode: CalcMode
    currency_base: str
    currency_margin: str
    margin_hedged: float
    volume_limit: float
    swap_mode: SwapMode
    swap_long: float
    swap_short: float
    swap_rollover3days: DayOfWeek
    swap_on_weekend: bool
    sessions: tuple[Session, ...]

    def __post_init__(self) -> None:
        for name in ("margin_hedged", "volume_limit"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name}: must be a finite number >= 0, is {getattr(self, name)}")
        for name in ("swap_long", "swap_short"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}: must be finite, is {getattr(self, name)}")


def check_spec(spec: SymbolSpec) -> None:
    """Raise ValueError naming the field that no market can have."""
    for name in ("point", "tick_size", "contract_size", "volume_min", "volume_max", "volume_step"):
        value = getattr(spec, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{spec.name}: {name} must be a finite number > 0, is {value}")
    for name in ("volume_min", "volume_max"):
        if volume_steps(spec, getattr(spec, name)) is None:
            raise ValueError(f"{spec.name}: {name} {getattr(spec, name)} is not a multiple of {spec.volume_step}")
    if abs(spec.tick_size / spec.point - round(spec.tick_size / spec.point)) > STEP_TOLERANCE:
        raise ValueError(f"{spec.name}: tick_size {spec.tick_size} is not a multiple of point {spec.point}")
    if min(spec.stops_level, spec.freeze_level) < 0:
        raise ValueError(f"{spec.name}: stops_level and freeze_level must be >= 0")


def volume_steps(spec: SymbolSpec, volume: float) -> int | None:
    """The volume as a whole number of steps, or None if it is off the step or not a number."""
    steps = volume / spec.volume_step
    if not math.isfinite(steps) or abs(steps - round(steps)) > STEP_TOLERANCE:
        return None
    return round(steps)
