"""A MetaTrader 5 terminal behind its Python package, for the two things that may be done without DTMS.

Runs in a process of its own (`python -m dtms_client.exit_manager.terminal MODULE`): the package holds the GIL through
blocking calls without a timeout. One JSON object a line comes in, one goes out; see `serve`. The rules of the package
that are obeyed here, each learned from somebody's loss:

- None is a failure, never "no positions"; an answer is believed only as far as its retcode goes;
- a change of the stop sends both levels, for an omitted one is deleted; they are read just before;
- a close names its position, or it opens another one; its fill mode is one that the symbol allows;
- numbers are `float` and `int` exactly, comments have at most 29 characters;
- stops level and freeze level are read before each change, for they move.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, Final, Protocol, TypeAlias, cast

from dtms_client.managing.points import points

# Numbers of the package's protocol; a bridge to a terminal elsewhere need not export the names.
TRADE_ACTION_DEAL: Final = 1
TRADE_ACTION_SLTP: Final = 6
ORDER_TYPE_BUY: Final = 0
ORDER_TYPE_SELL: Final = 1
ORDER_TIME_GTC: Final = 0
FILLING_FOK: Final = 0
FILLING_IOC: Final = 1
FILLING_RETURN: Final = 2
FLAG_FOK: Final = 1
FLAG_IOC: Final = 2
EXECUTION_MARKET: Final = 2
EXECUTION_EXCHANGE: Final = 3
DEAL_ENTRY_OUT: Final = 1
DONE: Final = 10009
DONE_PARTIAL: Final = 10010
NO_CHANGES: Final = 10025
# The server may have done it, or may do it yet: cancelled by timeout, processing error, placed.
UNCERTAIN: Final = frozenset({10008, 10011, 10012})
# Below that the pipe to the terminal is gone: the package does not open it again by itself.
PIPE_ERRORS: Final = -10_000

COMMENT: Final = "dtms direct partial"
DEVIATION_POINTS: Final = 20
"""How far the price of a market order may be off, as DTMS itself has it."""


class Mt5(Protocol):
    """The functions of the MetaTrader5 package that are used here."""

    initialize: Callable[..., bool]
    last_error: Callable[[], tuple[int, str]]
    terminal_info: Callable[[], Any]
    account_info: Callable[[], Any]
    symbol_info: Callable[[str], Any]
    symbol_info_tick: Callable[[str], Any]
    positions_get: Callable[..., Any]
    history_deals_get: Callable[..., Any]
    order_send: Callable[..., Any]


class Failed(Exception):
    """The terminal did not answer, or not as it must. Nothing was changed, unless `uncertain`."""

    def __init__(self, why: str, *, uncertain: bool = False) -> None:
        self.uncertain = uncertain
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Held:
    """A position and its market, read in one go. Prices as the broker has them, levels in points."""

    account_id: str
    ticket: int
    symbol: str
    sign: int
    entry: float
    volume: float
    stop: float | None
    target: float | None
    bid: float
    ask: float
    point: float
    tick_size: float
    volume_min: float
    volume_step: float
    stops_level: int
    freeze_level: int

    @property
    def frozen(self) -> bool:
        """So near to a level that the broker changes and closes nothing."""
        price = self.bid if self.sign > 0 else self.ask
        return self.freeze_level > 0 and any(
            abs(points(price - level, self.point)) <= self.freeze_level
            for level in (self.stop, self.target)
            if level is not None
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a request: `retcode` and text of the broker; `done` when it was executed."""

    done: bool
    retcode: int
    comment: str


class Terminal:
    """What may be asked of the terminal. Every method raises Failed."""

    def __init__(self, mt5: Mt5) -> None:
        self._mt5 = mt5

    def see(self, ticket: int) -> Held | None:
        """The position with its market; None when the terminal says that there is none."""
        self._reach()
        row = self._position(ticket)
        if row is None:
            return None
        account = self._some(self._mt5.account_info(), "account_info")
        symbol = self._some(self._mt5.symbol_info(row.symbol), "symbol_info")
        tick = self._some(self._mt5.symbol_info_tick(row.symbol), "symbol_info_tick")
        return Held(
            account_id=f"{account.login}@{account.server}",
            ticket=int(row.ticket),
            symbol=str(row.symbol),
            sign=1 if row.type == ORDER_TYPE_BUY else -1,
            entry=float(row.price_open),
            volume=float(row.volume),
            stop=float(row.sl) or None,
            target=float(row.tp) or None,
            bid=float(tick.bid),
            ask=float(tick.ask),
            point=float(symbol.point),
            tick_size=float(symbol.trade_tick_size),
            volume_min=float(symbol.volume_min),
            volume_step=float(symbol.volume_step),
            stops_level=int(symbol.trade_stops_level),
            freeze_level=int(symbol.trade_freeze_level),
        )

    def protect(self, ticket: int, stop: float) -> Sent:
        """Moves the stop to a better level and keeps the target; a stop that is as good already stays."""
        held = self._fresh(ticket)
        if held.stop is not None and held.sign * (stop - held.stop) <= 0:
            return Sent(done=False, retcode=NO_CHANGES, comment="the stop is as good already")
        return self._send(
            {
                "action": TRADE_ACTION_SLTP,
                "position": ticket,
                "symbol": held.symbol,
                "sl": float(stop),
                "tp": float(held.target or 0.0),
            }
        )

    def take_part(self, ticket: int, volume: float, of: float) -> Sent:
        """Closes a part of the position, if it still has the volume that the part is `of`."""
        held = self._fresh(ticket)
        if abs(held.volume - of) > held.volume_step / 2:
            raise Failed(f"position {ticket} has {held.volume} lots, not {of}: somebody was faster")
        buys = held.sign < 0
        return self._send(
            {
                "action": TRADE_ACTION_DEAL,
                "position": ticket,
                "symbol": held.symbol,
                "volume": float(volume),
                "type": ORDER_TYPE_BUY if buys else ORDER_TYPE_SELL,
                "price": held.ask if buys else held.bid,
                "deviation": DEVIATION_POINTS,
                "type_filling": self._filling(held.symbol),
                "type_time": ORDER_TIME_GTC,
                "comment": COMMENT,
            }
        )

    def part_taken(self, ticket: int) -> bool:
        """A part of the position was closed by `take_part`, in this life or an earlier one: its deal says so."""
        self._reach()
        deals = self._some(self._mt5.history_deals_get(position=ticket), "history_deals_get")
        return any(deal.entry == DEAL_ENTRY_OUT and deal.comment == COMMENT for deal in deals)

    def _fresh(self, ticket: int) -> Held:
        held = self.see(ticket)
        if held is None:
            raise Failed(f"position {ticket} is gone")
        if held.frozen:
            raise Failed(f"position {ticket} is inside the freeze level")
        return held

    def _position(self, ticket: int) -> Any:  # noqa: ANN401  a struct of the package
        rows = self._some(self._mt5.positions_get(ticket=ticket), "positions_get")
        return next((row for row in rows if row.ticket == ticket), None)

    def _filling(self, name: str) -> int:
        """The fill mode of a market order; `filling_mode` is a mask with numbers of its own."""
        symbol = self._some(self._mt5.symbol_info(name), "symbol_info")
        if symbol.trade_exemode == EXECUTION_EXCHANGE:
            return FILLING_RETURN
        if symbol.trade_exemode != EXECUTION_MARKET:
            return FILLING_FOK
        if symbol.filling_mode & FLAG_IOC:
            return FILLING_IOC
        if symbol.filling_mode & FLAG_FOK:
            return FILLING_FOK
        raise Failed(f"{name}: no fill mode for market orders in mask {symbol.filling_mode}")

    def _send(self, request: dict[str, object]) -> Sent:
        result = self._mt5.order_send(request)
        if result is None:
            code, text = self._mt5.last_error()
            # A request that the package refuses never left; on a broken pipe it may have.
            raise Failed(f"order_send: {code} {text}", uncertain=code <= PIPE_ERRORS)
        retcode = int(result.retcode)
        if retcode in UNCERTAIN:
            raise Failed(f"order_send: {retcode} {result.comment}", uncertain=True)
        return Sent(done=retcode in (DONE, DONE_PARTIAL), retcode=retcode, comment=str(result.comment))

    def _reach(self) -> None:
        """Opens the pipe where it is closed. Without its server the terminal would answer with what it saw last."""
        info = self._mt5.terminal_info()
        if info is None:
            if not self._mt5.initialize():
                raise Failed(f"initialize: {self._mt5.last_error()}")
            info = self._some(self._mt5.terminal_info(), "terminal_info")
        if not info.connected:
            raise Failed("the terminal has no connection to its server")

    def _some(self, answer: Any, call: str) -> Any:  # noqa: ANN401  structs of the package
        if answer is None:
            raise Failed(f"{call}: {self._mt5.last_error()}")
        return answer


Answer: TypeAlias = Held | Sent | bool | None


def serve(mt5: Mt5, lines: IO[str], answers: IO[str]) -> None:
    """Answers `{"call": name, "arguments": [...]}` with `{"answer": ...}` or `{"failed": why, "uncertain": ...}`."""
    terminal = Terminal(mt5)
    calls: dict[str, Callable[..., Answer]] = {
        "see": terminal.see,
        "protect": terminal.protect,
        "take_part": terminal.take_part,
        "part_taken": terminal.part_taken,
    }
    for line in lines:
        request = json.loads(line)
        said: dict[str, object]
        try:
            answer = calls[request["call"]](*request["arguments"])
            said = {"answer": asdict(answer) if isinstance(answer, Held | Sent) else answer}
        except Failed as failed:
            said = {"failed": str(failed), "uncertain": failed.uncertain}
        except Exception as error:  # noqa: BLE001  a bridge to another machine raises what it likes: in the answer, not lost
            said = {"failed": f"{type(error).__name__}: {error}", "uncertain": True}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


def load(name: str) -> Mt5:
    """`package.module`, or `package.module:name` for an object in it. Raises ImportError, AttributeError."""
    module, _, attribute = name.partition(":")
    found: object = importlib.import_module(module)
    return cast("Mt5", getattr(found, attribute) if attribute else found)


def main(argv: Sequence[str]) -> int:
    """Serves on stdin and stdout until stdin ends."""
    # The manager ends this process; a Ctrl-C at the terminal is meant for the manager.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # Whatever the package prints must not stand between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    (name,) = argv
    serve(load(name), sys.stdin, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
