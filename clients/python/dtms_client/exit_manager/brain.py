"""The exit manager: its rules on the cycle that all managers share."""

from __future__ import annotations

from typing import Final

from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import decide
from dtms_client.managing.brain import Brain
from dtms_client.managing.views import QuoteView, TradeView
from dtms_client.managing.wishes import Wish

MANAGER: Final = "intelligent_exit_manager"


class ExitManager(Brain):
    """Protects profit; owns nothing."""

    def __init__(self, book: RuleBook, *, name: str) -> None:
        super().__init__(name)
        self._book = book

    def wishes(self, trade: TradeView, quote: QuoteView, *, now_ns: int) -> list[Wish]:  # noqa: ARG002
        """Breakeven, partial, trailing."""
        return decide(trade, quote, self._book.rules(trade))
