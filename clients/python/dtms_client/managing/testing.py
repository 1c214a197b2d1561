"""A trade and its quotes as managers see them, and their mirror images, for tests of rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dtms.v1.ownership_pb2 import RANK_DTMS_NORMAL, RANK_UNSPECIFIED
from dtms.v1.trade_pb2 import TRADE_STATE_HEALTHY
from dtms_client.managing.brain import NANOS
from dtms_client.managing.views import QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop

NOW_NS = 1_700_000_000 * NANOS

# BUY 0.10 at 1.10000, stop 1.09000 (R = 1000 points), target 1.13000.
BUY = TradeView(
    account_id="1@Demo",
    ticket=7,
    symbol="EURUSD",
    sign=1,
    entry=1.1,
    initial_volume=0.1,
    volume=0.1,
    stop=1.09,
    stop_rank=RANK_UNSPECIFIED,
    target=1.13,
    risk=0.01,
    risk_budget_r=1.0,
    state=TRADE_STATE_HEALTHY,
    pending=False,
    quarantined=False,
    breakeven_triggered=False,
    managed_by="dtms_manager",
    owner_rank=RANK_DTMS_NORMAL,
    owner_epoch=3,
    strategy_type="",
    opened_ns=NOW_NS,
    registered_ns=NOW_NS,
    partial_taken=False,
    part_off_outside=False,
    last_change_ns=0,
    memo="",
)


def quote(bid: float, **changes: Any) -> QuoteView:  # noqa: ANN401  any field of the view
    """EURUSD at this bid, ask 10 points above, ATR 200 points."""
    base = QuoteView(
        bid=bid,
        ask=round(bid + 0.0001, 5),
        atr=0.002,
        atr_fast=None,
        swing_high=None,
        swing_low=None,
        point=0.00001,
        tick_size=0.00001,
        volume_min=0.01,
        volume_step=0.01,
        stops_level=0,
        freeze_level=0,
    )
    return replace(base, **changes)


def mirrored_trade(trade: TradeView) -> TradeView:
    """The same trade on the other side, around its entry, so that shares of the entry price stay the same."""
    return replace(trade, sign=-trade.sign, stop=_flip(trade, trade.stop), target=_flip(trade, trade.target))


def mirrored_quote(trade: TradeView, seen: QuoteView) -> QuoteView:
    """The quote around the trade's entry."""
    bid, ask = _flip(trade, seen.ask), _flip(trade, seen.bid)
    assert bid is not None
    assert ask is not None
    return replace(
        seen,
        bid=bid,
        ask=ask,
        swing_high=_flip(trade, seen.swing_low),
        swing_low=_flip(trade, seen.swing_high),
    )


def mirrored_stop(trade: TradeView, wish: MoveStop) -> MoveStop:
    """A wish around the trade's entry."""
    return replace(wish, stop=round(2 * trade.entry - wish.stop, 5))


def _flip(trade: TradeView, price: float | None) -> float | None:
    return None if price is None else round(2 * trade.entry - price, 8)
