"""What the child process sees of a terminal, line by line, so that all seen before it hangs is known."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

STEPS: Final = ("load", "open", "terminal", "account", "symbols", "ticks")
"""In this order; each needs the ones before it."""
MARK: Final = "sight: "
"""Before each line: a module of somebody else may print on stdout too."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to look at. ``package`` is MODULE or MODULE:CLASS, ``terminal`` the executable, None for any.

    ``timeout_ms`` is for opening the terminal, which may have to start; ``watch_s`` for how long prices are watched.
    """

    package: str
    terminal: str | None
    symbols: tuple[str, ...]
    timeout_ms: int
    watch_s: float


@dataclass(frozen=True, slots=True)
class TerminalSeen:
    path: str
    build: int
    connected: bool
    trade_allowed: bool
    tradeapi_disabled: bool


@dataclass(frozen=True, slots=True)
class AccountSeen:
    login: int
    server: str
    margin_mode: int
    fifo_close: bool
    trade_allowed: bool
    trade_expert: bool


@dataclass(frozen=True, slots=True)
class SymbolSeen:
    """``exists`` False: the broker has no such name; ``names`` are then all that it has, as far as it tells."""

    name: str
    exists: bool
    selected: bool = False
    trade_mode: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TickSeen:
    """A tick that came while it was watched for: its time (ms, server) and this machine's then (ms UTC)."""

    symbol: str
    tick_msc: int
    now_msc: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The step that ended the look. ``code`` is of last_error(); 0 for what was raised, whose kind is in ``kind``."""

    step: str
    code: int
    text: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Sights:
    """``done`` are the steps that ended well; ``hung_in`` is the one that did not end in time, if there is one.

    ``unfinished`` is the one that was begun last and of which nothing more was said.
    """

    done: tuple[str, ...] = ()
    package: str = ""
    terminal: TerminalSeen | None = None
    account: AccountSeen | None = None
    symbols: tuple[SymbolSeen, ...] = ()
    ticks: tuple[TickSeen, ...] = ()
    failed: Failed | None = None
    hung_in: str | None = None
    unfinished: str | None = STEPS[0]


def begun(step: str) -> str:
    return json.dumps({"begun": step})


def seen(step: str, what: object) -> str:
    """``what`` is a text, one of the dataclasses above, or a list of them."""
    plain = [asdict(each) for each in what] if isinstance(what, list) else what
    return json.dumps({"done": step, "seen": plain if isinstance(plain, str | list) else asdict(plain)})  # type: ignore[call-overload]


def failed(failure: Failed) -> str:
    return json.dumps({"failed": asdict(failure)})


def read(lines: Iterable[str]) -> Sights:
    """The sights that the lines tell of."""
    found: dict[str, Any] = {"done": ()}
    for row in map(json.loads, lines):
        if "begun" in row:
            found["unfinished"] = row["begun"]
            continue
        found["unfinished"] = None
        if "failed" in row:
            found["failed"] = Failed(**row["failed"])
        else:
            found["done"] += (row["done"],)
            found |= _what(row["done"], row["seen"])
    return Sights(**found)


def _what(step: str, told: Any) -> Mapping[str, object]:  # noqa: ANN401  as JSON has it
    match step:
        case "load":
            return {"package": told}
        case "terminal":
            return {"terminal": TerminalSeen(**told)}
        case "account":
            return {"account": AccountSeen(**told)}
        case "symbols":
            return {"symbols": tuple(SymbolSeen(**row | {"names": tuple(row["names"])}) for row in told)}
        case "ticks":
            return {"ticks": tuple(TickSeen(**row) for row in told)}
        case _:
            return {}
