"""A command as a MetaTrader 5 request: strict types, both levels always, closes with their position, fill mode by mask.

And what is known to be refused before it is sent: levels inside the stops level, positions inside the freeze level.
Prices are quote currency, distances points (multiples of ``point``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dtms_service.broker.door import Command, Side
from dtms_service.broker.mt5_enums import Action, Execution, Filling, FillingFlag, OrderTime, OrderType
from dtms_service.broker.mt5_inferences import FILLING_WITHOUT_MASK, LEAST_STOP_DISTANCE, judged_level
from dtms_service.broker.retcodes import Retcode
from dtms_service.broker.structs import SymbolInfo, TradePosition

LOT_DIGITS: Final = 8  # no broker's volume step is finer; takes the noise off a sum of steps

Request = dict[str, object]


@dataclass(frozen=True, slots=True)
class Quoted:
    """A symbol's rules and its last quote, read for this one order. 0 means no quote yet."""

    info: SymbolInfo
    bid: float
    ask: float

    def points(self, price: float) -> int:
        return round(price / self.info.point)

    def level(self, price: float | None) -> float:
        """A level as it is sent: on the symbol's digits, 0.0 for none."""
        return 0.0 if price is None else round(float(price), self.info.digits)

    def opening(self, side: Side) -> float:
        return float(self.ask if side is Side.BUY else self.bid)

    def closing(self, side: Side) -> float:
        return float(self.bid if side is Side.BUY else self.ask)


def side_of(position: TradePosition) -> Side:
    return Side.BUY if position.type == OrderType.BUY else Side.SELL


def modify_request(command: Command, quoted: Quoted) -> Request:
    """Both levels: one that is left out would be removed (mt5.md 0.7)."""
    return {
        "action": int(Action.SLTP),
        "symbol": command.symbol,
        "position": int(command.position),
        "sl": quoted.level(command.sl),
        "tp": quoted.level(command.tp),
        "magic": int(command.magic),
        "comment": command.comment,
    }


def close_request(command: Command, quoted: Quoted, held: TradePosition | None) -> Request:
    """Always with ``position``: without it the order would open an opposite one (mt5.md 0.8)."""
    side = (side_of(held) if held is not None else command.side).opposite
    return _deal(command, quoted, side) | {"sl": 0.0, "tp": 0.0, "position": int(command.position)}


def open_request(command: Command, quoted: Quoted) -> Request:
    return _deal(command, quoted, command.side) | {"sl": quoted.level(command.sl), "tp": quoted.level(command.tp)}


def _deal(command: Command, quoted: Quoted, side: Side) -> Request:
    return {
        "action": int(Action.DEAL),
        "symbol": command.symbol,
        "volume": on_step(command.volume, quoted.info.volume_step),
        "type": int(OrderType.BUY if side is Side.BUY else OrderType.SELL),
        "price": quoted.opening(side),
        "deviation": int(command.deviation_points),
        "type_filling": int(filling(quoted.info)),
        "type_time": int(OrderTime.GTC),
        "magic": int(command.magic),
        "comment": command.comment,
    }


def on_step(volume: float, step: float) -> float:
    """The volume without the noise of floating point; one that is truly off the step is left to the server's word."""
    on = round(round(volume / step) * step, LOT_DIGITS) if step > 0 else float(volume)
    return on if abs(on - volume) < step * 1e-6 else float(volume)


def filling(info: SymbolInfo) -> Filling:
    """The mode that the symbol allows, by its execution and mask, read for every order (mt5.md 2.2).

    The mask's bits are not the mode's numbers.
    """
    if info.trade_exemode == Execution.EXCHANGE:
        return Filling.RETURN
    if info.trade_exemode == Execution.MARKET:
        if info.filling_mode & FillingFlag.IOC:
            return Filling.IOC
        return Filling.FOK if info.filling_mode & FillingFlag.FOK else FILLING_WITHOUT_MASK
    return Filling.FOK


# --- what is refused before it is sent (mt5.md 2.4) ------------------------------------------------------------------


def frozen(quoted: Quoted, held: TradePosition) -> bool:
    """The price is within the freeze level of one of the position's levels: it can be neither modified nor closed."""
    freeze = quoted.info.trade_freeze_level
    sl, tp = quoted.points(held.sl), quoted.points(held.tp)
    to_sl, to_tp = _distances(quoted, side_of(held), sl, tp)
    return bool(freeze) and ((sl != 0 and to_sl <= freeze) or (tp != 0 and to_tp <= freeze))


def modify_refusal(command: Command, quoted: Quoted, held: TradePosition) -> Retcode | None:
    """FROZEN or INVALID_STOPS, as the server would say; None to ask it."""
    if frozen(quoted, held):
        return Retcode.FROZEN
    sl = judged_level(quoted.points(command.sl or 0.0), quoted.points(held.sl))
    tp = judged_level(quoted.points(command.tp or 0.0), quoted.points(held.tp))
    return _stops_refusal(quoted, side_of(held), sl, tp)


def open_refusal(command: Command, quoted: Quoted) -> Retcode | None:
    return _stops_refusal(quoted, command.side, quoted.points(command.sl or 0.0), quoted.points(command.tp or 0.0))


def close_refusal(quoted: Quoted, held: TradePosition) -> Retcode | None:
    return Retcode.FROZEN if frozen(quoted, held) else None


def _stops_refusal(quoted: Quoted, side: Side, sl: int, tp: int) -> Retcode | None:
    least = max(quoted.info.trade_stops_level, LEAST_STOP_DISTANCE)
    to_sl, to_tp = _distances(quoted, side, sl, tp)
    refused = (sl != 0 and to_sl < least) or (tp != 0 and to_tp < least)
    return Retcode.INVALID_STOPS if refused else None


def _distances(quoted: Quoted, side: Side, sl: int, tp: int) -> tuple[int, int]:
    """Points from the price that would close the position to its stop and to its target; negative beyond it."""
    price, sign = quoted.points(quoted.closing(side)), 1 if side is Side.BUY else -1
    return (price - sl) * sign, (tp - price) * sign
