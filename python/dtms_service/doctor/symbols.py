"""The symbols that a gateway is to serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dtms_service.broker.mt5_enums import TradeMode
from dtms_service.doctor.finding import Finding, fail, ok, skipped, warn
from dtms_service.doctor.sights import SymbolSeen
from dtms_service.doctor.symbol_names import close_names

_RESTRICTED = {
    TradeMode.DISABLED: "trading is disabled",
    TradeMode.LONGONLY: "only long positions: a hedge of a long one is refused (10042)",
    TradeMode.SHORTONLY: "only short positions: a hedge of a short one is refused (10043)",
    TradeMode.CLOSEONLY: "positions can only be closed: no hedge, no re-add (10044)",
}


def judge(seen: Sequence[SymbolSeen]) -> Iterator[Finding]:
    if not seen:
        yield skipped("symbols", "symbol_info() of each --symbol", "no --symbol was given")
    for shown in seen:
        yield _judge_one(shown)


def _judge_one(shown: SymbolSeen) -> Finding:
    check, at = f"symbol.{shown.name}", f"symbol_info({shown.name!r})"
    if not shown.exists:
        close = close_names(shown.name, shown.names)
        meant = f"take the broker's own name; close to it are: {', '.join(close)}" if close else ""
        return fail(
            check,
            at,
            "the broker has no such symbol",
            meant or "look it up in the terminal's Market Watch (right click, Symbols) and write it as it stands there",
        )
    restricted = _RESTRICTED.get(TradeMode(shown.trade_mode)) if shown.trade_mode in set(TradeMode) else None
    if restricted is not None:
        return warn(check, at, restricted, "ask the broker, or take the account's tradable twin of the symbol")
    if not shown.selected:
        return ok(check, at, "there, not in the Market Watch; the gateway puts it there")
    return ok(check, at, "there, in the Market Watch")
