"""Somebody else on the account: a hand on the phone, another program. Magic 0, reason CLIENT, no terminal of ours."""

from __future__ import annotations

from dtms_service.broker.door import Side
from dtms_service.broker.mt5_enums import Action, DealReason, OrderType
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_rules import default_filling
from dtms_service.broker.structs import OrderSendResult


class ForeignActor:
    """Trades straight at the server, under the same rules; every method answers the server's result."""

    def __init__(self, broker: PaperBroker) -> None:
        self._broker = broker

    def open(self, symbol: str, side: Side, volume: float, sl: float, tp: float) -> OrderSendResult:
        """Levels of 0.0 mean none."""
        return self._deal(symbol, side, volume, position=0, sl=sl, tp=tp)

    def close(self, ticket: int, volume: float) -> OrderSendResult:
        position = self._broker.book.positions[ticket]
        return self._deal(position.market.spec.name, position.side.opposite, volume, position=ticket, sl=0.0, tp=0.0)

    def modify(self, ticket: int, sl: float, tp: float) -> OrderSendResult:
        """Levels of 0.0 are removed."""
        position = self._broker.book.positions[ticket]
        return self._broker.order_send(
            {"action": Action.SLTP, "symbol": position.market.spec.name, "position": ticket, "sl": sl, "tp": tp},
            reason=DealReason.CLIENT,
        )

    def _deal(self, symbol: str, side: Side, volume: float, *, position: int, sl: float, tp: float) -> OrderSendResult:
        market = self._broker.market(symbol)
        return self._broker.order_send(
            {
                "action": Action.DEAL,
                "symbol": symbol,
                "volume": volume,
                "type": OrderType.BUY if side is Side.BUY else OrderType.SELL,
                "type_filling": default_filling(market),
                "price": market.open_price(side),
                "position": position,
                "sl": sl,
                "tp": tp,
            },
            reason=DealReason.CLIENT,
        )
