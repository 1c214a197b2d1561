"""The look at a MetaTrader 5 terminal: reads only, in a process of its own, because a call may never come back.

It opens the pipe without a login, so that the terminal stays logged in as it is, selects no symbol and sends no order.
A terminal that is not running is started by MetaTrader5's own ``initialize``; there is no way to ask without that.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from dtms_service.broker.mt5_package import Load, Mt5Package, loader
from dtms_service.broker.retcodes import LastError
from dtms_service.broker.structs import SymbolInfo
from dtms_service.doctor.sights import (
    MARK,
    AccountSeen,
    Failed,
    Job,
    SymbolSeen,
    TerminalSeen,
    TickSeen,
    begun,
    failed,
    seen,
)

POLL_S = 0.05
TICKS_WANTED = 3

T = TypeVar("T")


class Stopped(Exception):
    """A call failed: the rest cannot be seen."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def look(
    job: Job,
    load: Callable[[str], Load],
    say: Callable[[str], None],
    now_msc: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Take every step that can be taken and say what each one saw."""
    step = "load"

    def take(name: str, work: Callable[[], T]) -> T:
        nonlocal step
        step = name
        say(begun(name))
        what = work()
        say(seen(name, what))
        return what

    try:
        say(begun(step))
        mt5 = load(job.package)()
        say(seen(step, _version_of(job.package)))
        take("open", lambda: _open(mt5, job))
        take("terminal", lambda: _terminal(mt5))
        take("account", lambda: _account(mt5))
        symbols = take("symbols", lambda: [_symbol(mt5, name) for name in job.symbols])
        there = [symbol.name for symbol in symbols if symbol.exists]
        take("ticks", lambda: _ticks(mt5, there, job.watch_s, now_msc, pause))
        mt5.shutdown()
    except Stopped as error:
        say(failed(Failed(step, error.code, error.text)))
    except (ImportError, AttributeError, ValueError, OSError, EOFError) as error:
        # A module that is not there or is none, or a bridge over the network that lost its other end.
        say(failed(Failed(step, 0, str(error), type(error).__name__)))


def _version_of(package: str) -> str:
    module = sys.modules.get(package.partition(":")[0])
    return f"{package} {getattr(module, '__version__', '')}".strip()


def _answer(mt5: Mt5Package, answer: T | None) -> T:
    if answer is None or answer is False:
        code, text = mt5.last_error()
        raise Stopped(int(code), str(text))
    return answer


def _open(mt5: Mt5Package, job: Job) -> str:
    path = () if job.terminal is None else (job.terminal,)
    _answer(mt5, mt5.initialize(*path, timeout=job.timeout_ms))
    return "open"


def _terminal(mt5: Mt5Package) -> TerminalSeen:
    shown = _answer(mt5, mt5.terminal_info())
    return TerminalSeen(
        path=str(shown.path),
        build=int(shown.build),
        connected=bool(shown.connected),
        trade_allowed=bool(shown.trade_allowed),
        tradeapi_disabled=bool(shown.tradeapi_disabled),
    )


def _account(mt5: Mt5Package) -> AccountSeen:
    shown = _answer(mt5, mt5.account_info())
    return AccountSeen(
        login=int(shown.login),
        server=str(shown.server),
        margin_mode=int(shown.margin_mode),
        fifo_close=bool(shown.fifo_close),
        trade_allowed=bool(shown.trade_allowed),
        trade_expert=bool(shown.trade_expert),
    )


def _symbol(mt5: Mt5Package, name: str) -> SymbolSeen:
    info = mt5.symbol_info(name)
    if info is None:
        code, text = mt5.last_error()
        if code != LastError.NOT_FOUND:
            raise Stopped(int(code), str(text))
        return SymbolSeen(name, exists=False, names=_all_names(mt5))
    return SymbolSeen(name, exists=True, selected=bool(info.select), trade_mode=int(info.trade_mode))


def _all_names(mt5: Mt5Package) -> tuple[str, ...]:
    """Only suggestions come of it: a module without the function, or a call that fails, has none."""
    symbols_get: Callable[[], Sequence[SymbolInfo] | None] = getattr(mt5, "symbols_get", lambda: None)
    return tuple(str(each.name) for each in symbols_get() or ())


def _ticks(
    mt5: Mt5Package, symbols: Sequence[str], watch_s: float, now_msc: Callable[[], int], pause: Callable[[float], None]
) -> list[TickSeen]:
    """The first ticks that come while we watch; what stood there before proves nothing about the clock."""
    stood: dict[str, int] = {}
    came: list[TickSeen] = []
    for _ in range(round(watch_s / POLL_S) + 1):
        for name in symbols:
            tick = mt5.symbol_info_tick(name)
            if tick is None:
                continue  # not in the Market Watch, or no price yet
            msc = int(tick.time_msc)
            if stood.setdefault(name, msc) != msc:
                stood[name] = msc
                came.append(TickSeen(name, msc, now_msc()))
        if len(came) >= TICKS_WANTED or not symbols:
            break
        pause(POLL_S)
    return came


def main() -> None:
    """The child process: a job as JSON on stdin, sights as lines on stdout."""
    given = json.load(sys.stdin)
    job = Job(**given | {"symbols": tuple(given["symbols"])})
    look(job, loader, lambda line: print(MARK + line, flush=True))  # noqa: T201  # the parent reads it


if __name__ == "__main__":
    main()
