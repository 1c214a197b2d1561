"""The exit manager: its rules on the cycle that all managers share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from dtms.v1.event_pb2 import Index
from dtms.v1.market_data_service_pb2 import Quote
from dtms_client.exit_manager.direct import Direct
from dtms_client.exit_manager.rule_book import RuleBook, read_memo, write_memo
from dtms_client.exit_manager.rules import decide
from dtms_client.exit_manager.vix import Vix, VixSources
from dtms_client.managing.brain import Brain
from dtms_client.managing.views import Instrument, Key, QuoteView, TradeView
from dtms_client.managing.wishes import Wish

MANAGER: Final = "intelligent_exit_manager"


class ExitManager(Brain):
    """Protects profit; owns nothing."""

    def __init__(self, book: RuleBook, *, name: str, vix: VixSources, direct: Direct | None = None) -> None:
        """`direct` acts past DTMS while that is away; None, as it should be, lets nothing past it."""
        super().__init__(name)
        self.standby = self._direct = direct
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
        if self._took_part(trade):
            trade = replace(trade, partial_taken=True)
        return decide(trade, quote, self._book.rules(trade), vix=self._vix.at(now_ns))

    def memo(self, trade: TradeView, *, now_ns: int) -> str:  # noqa: ARG002
        """The rules in force, with which the trade goes on after a restart, whatever the rule file says then; and
        whether its partial was taken past DTMS."""
        return write_memo(self._book.rules(trade), part=self._took_part(trade))

    def forget(self, key: Key) -> None:
        """The trade is gone."""
        super().forget(key)
        if self._direct is not None:
            self._direct.forget(key)

    def _took_part(self, trade: TradeView) -> bool:
        """The partial of the trade was taken past DTMS, in this life or before."""
        return read_memo(trade.memo).part or (self._direct is not None and self._direct.took_part(trade.key))
