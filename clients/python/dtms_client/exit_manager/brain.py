"""The exit manager: its rules on the cycle that all managers share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dtms.v1.event_pb2 import Index
from dtms.v1.market_data_service_pb2 import Quote
from dtms_client.exit_manager.rule_book import RuleBook, memo_of
from dtms_client.exit_manager.rules import decide
from dtms_client.exit_manager.vix import Vix, VixSources
from dtms_client.managing.brain import Brain
from dtms_client.managing.views import Instrument, QuoteView, TradeView
from dtms_client.managing.wishes import Wish

MANAGER: Final = "intelligent_exit_manager"


class ExitManager(Brain):
    """Protects profit; owns nothing."""

    def __init__(self, book: RuleBook, *, name: str, vix: VixSources) -> None:
        super().__init__(name)
        self._book = book
        self._vix = Vix(vix)

    def take_quotes(self, quotes: Iterable[Quote]) -> list[Instrument]:
        """Remembers quotes, that of VIX too; returns whose they are."""
        quotes = tuple(quotes)
        self._vix.take_quotes(quotes)
        return super().take_quotes(quotes)

    def take_indices(self, indices: Iterable[Index]) -> bool:
        """Takes VIX."""
        return self._vix.take_indices(indices)

    def wishes(self, trade: TradeView, quote: QuoteView, *, now_ns: int) -> list[Wish]:
        """Breakeven, partial, trailing, room in a nervous market."""
        return decide(trade, quote, self._book.rules(trade), vix=self._vix.at(now_ns))

    def memo(self, trade: TradeView, *, now_ns: int) -> str:  # noqa: ARG002
        """The rules in force: after a restart the trade goes on with them, whatever the rule file says then."""
        return memo_of(self._book.rules(trade))
