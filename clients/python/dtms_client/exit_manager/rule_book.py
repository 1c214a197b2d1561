"""Which rules hold for which trade: from a TOML file, by default, by symbol, by ticket; and from the trade's memo.

::

    breakeven_at_r = 0.2          # for all trades

    [symbols.XAUUSD]              # for those of a symbol
    trail_atr = 2.0

    [trades.123456]               # for one ticket
    partial_fraction = 0.25

A trade keeps the rules that it began with: they are left with DTMS as the manager's memo. A change of the file holds
for trades that come later, and for those whose ticket it names.
"""

from __future__ import annotations

import functools
import json
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final, Self

from dtms_client.exit_manager.rules import ExitRules
from dtms_client.managing.views import TradeView

NAMES: Final = frozenset(each.name for each in fields(ExitRules))


# As many trades as are open at a time, generously: beyond, a memo is read again at each look.
MEMOS_READ: Final = 16_384

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Rules by ticket, else those that the trade began with, else by symbol, else the default.

    Tables of tickets and symbols change the default each.
    """

    default: ExitRules
    symbols: Mapping[str, ExitRules] = field(default_factory=dict)
    trades: Mapping[int, ExitRules] = field(default_factory=dict)

    def rules(self, trade: TradeView) -> ExitRules:
        """The rules for a trade."""
        named = self.trades.get(trade.ticket)
        return named or read_memo(trade.memo).rules or self.symbols.get(trade.symbol) or self.default

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file. Raises OSError, or ValueError that names the key at fault."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: {error}") from error
        symbols, trades = table.pop("symbols", {}), table.pop("trades", {})
        for name, each in (("symbols", symbols), ("trades", trades)):
            if not isinstance(each, dict) or not all(isinstance(rules, dict) for rules in each.values()):
                raise ValueError(f"{path}: {name}: expected tables, such as [{name}.NAME]")
        default = _rules(ExitRules(), table, where=str(path))
        return cls(
            default=default,
            symbols={name: _rules(default, each, where=f"{path}: symbols.{name}") for name, each in symbols.items()},
            trades={
                _ticket(name, path): _rules(default, each, where=f"{path}: trades.{name}")
                for name, each in trades.items()
            },
        )


@dataclass(frozen=True, slots=True)
class Noted:
    """What a memo says."""

    rules: ExitRules | None
    """None where it says nothing that makes sense."""
    part: bool
    """The partial was taken past DTMS."""


@functools.lru_cache(maxsize=MEMOS_READ)
def read_memo(memo: str) -> Noted:
    """What `write_memo` wrote; one that is not understood says nothing."""
    if not memo:
        return Noted(rules=None, part=False)
    try:
        said = json.loads(memo)
        return Noted(rules=_rules(ExitRules(), said["rules"], where="memo"), part=said.get("part") is True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("memo not understood", extra={"facts": {"memo": memo, "error": str(error)}})
        return Noted(rules=None, part=False)


@functools.lru_cache(maxsize=MEMOS_READ)
def write_memo(rules: ExitRules, *, part: bool) -> str:
    """All numbers of the rules, as text that `read_memo` reads back to the last bit."""
    said: dict[str, object] = {"rules": asdict(rules)}
    if part:
        said["part"] = True
    return json.dumps(said, separators=(",", ":"))


def _rules(base: ExitRules, changes: Mapping[str, float], *, where: str) -> ExitRules:
    if unknown := sorted(changes.keys() - NAMES):
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(NAMES))}")
    try:
        return replace(base, **changes)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _ticket(name: str, path: Path) -> int:
    if not name.isdecimal():
        raise ValueError(f"{path}: trades.{name}: not a ticket")
    return int(name)
