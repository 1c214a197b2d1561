"""Which rules hold for which trade: defaults, by symbol, by ticket; from a TOML file.

::

    breakeven_at_r = 0.2          # for all trades

    [symbols.XAUUSD]              # for those of a symbol
    trail_atr = 2.0

    [trades.123456]               # for one ticket
    partial_fraction = 0.25
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Self

from dtms_client.exit_manager.rules import ExitRules
from dtms_client.managing.views import TradeView

NAMES = frozenset(each.name for each in fields(ExitRules))


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Rules by ticket, else by symbol, else the default. Tables of tickets and symbols change the default each."""

    default: ExitRules
    symbols: Mapping[str, ExitRules] = field(default_factory=dict)
    trades: Mapping[int, ExitRules] = field(default_factory=dict)

    def rules(self, trade: TradeView) -> ExitRules:
        """The rules for a trade."""
        return self.trades.get(trade.ticket) or self.symbols.get(trade.symbol) or self.default

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
