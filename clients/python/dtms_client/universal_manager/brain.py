"""The Universal Manager: frozen rules and readings of bars on the cycle that all managers share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from dtms.v1.market_data_service_pb2 import ClosedBar
from dtms.v1.ownership_pb2 import RANK_DTMS_NORMAL
from dtms_client.managing.brain import Brain
from dtms_client.managing.views import OPEN_TO_OTHERS, Instrument, Key, QuoteView, TradeView
from dtms_client.managing.wishes import Wish
from dtms_client.universal_manager.indicators import Bar, Chart, Reading
from dtms_client.universal_manager.rules import decide
from dtms_client.universal_manager.strategies import (
    PROFILES,
    STRATEGIES,
    SUFFIXES,
    Frame,
    FrozenRules,
    freeze,
    session_at,
)

MANAGER: Final = "universal_sl_tp_manager"

logger = logging.getLogger(__name__)

frozen = lru_cache(maxsize=1024)(FrozenRules.of)
"""The rules in a memo; many trades share one text. Raises ValueError."""


class UniversalManager(Brain):
    """Owns the trades of the strategies that it has rules for."""

    def __init__(
        self,
        *,
        name: str = MANAGER,
        profile: Mapping[Frame, int] = PROFILES["intraday"],
        suffixes: Sequence[str] = SUFFIXES,
    ) -> None:
        super().__init__(name)
        self.timeframes_s = tuple(sorted(set(profile.values())))
        self._profile = profile
        self._suffixes = tuple(suffixes)
        self._charts: dict[Instrument, dict[int, Chart]] = {}
        self._readings: dict[Instrument, dict[int, Reading]] = {}
        self._left_alone: dict[Key, str] = {}

    def take_bars(self, bars: Iterable[ClosedBar]) -> list[Instrument]:
        """Reads closed bars; late and repeated ones change nothing."""
        touched: list[Instrument] = []
        for closed in bars:
            instrument = (closed.account_id, closed.symbol)
            chart = self._charts.setdefault(instrument, {}).setdefault(closed.timeframe_s, Chart())
            bar = closed.bar
            if chart.take(bar.time_s, Bar(bar.open, bar.high, bar.low, bar.close)):
                self._readings.setdefault(instrument, {})[closed.timeframe_s] = chart.reading
                touched.append(instrument)
        return touched

    def wishes(self, trade: TradeView, quote: QuoteView, *, now_ns: int) -> list[Wish]:
        """Nothing until DTMS keeps the trade's rules; then what they say."""
        rules = self._rules(trade)
        if rules is None:
            return []
        readings = self._readings.get(trade.instrument, {})
        return decide(trade, quote, rules, readings, manager=self.name, now_ns=now_ns)

    def memo(self, trade: TradeView, *, now_ns: int) -> str | None:  # noqa: ARG002
        """The rules of a trade that has none yet."""
        if trade.memo or not self._has_rules_for(trade):
            return None
        session = session_at(trade.opened_ns or trade.registered_ns)
        return freeze(trade.strategy_type, trade.symbol, session, self._profile, suffixes=self._suffixes).memo()

    def claims(self, trade: TradeView) -> bool:
        """A trade of a strategy with rules, while others than DTMS may act on it and no other manager owns it."""
        free = trade.managed_by in ("", self.name) or trade.owner_rank == RANK_DTMS_NORMAL
        if trade.quarantined or trade.state not in OPEN_TO_OTHERS or not free:
            return False
        return self._has_rules_for(trade) and (not trade.memo or self._rules(trade) is not None)

    def forget(self, key: Key) -> None:
        """The trade is gone."""
        super().forget(key)
        self._left_alone.pop(key, None)

    def _has_rules_for(self, trade: TradeView) -> bool:
        if trade.strategy_type in STRATEGIES:
            return True
        if trade.managed_by == self.name:
            self._leave_alone(trade, "no rules for its strategy")
        return False

    def _rules(self, trade: TradeView) -> FrozenRules | None:
        if not trade.memo:
            return None
        try:
            return frozen(trade.memo)
        except ValueError as error:
            self._leave_alone(trade, str(error))
            return None

    def _leave_alone(self, trade: TradeView, why: str) -> None:
        """Says once why nothing is done for a trade that this manager should look after."""
        if self._left_alone.get(trade.key) != why:
            self._left_alone[trade.key] = why
            facts = {"ticket": trade.ticket, "strategy_type": trade.strategy_type, "why": why}
            logger.error("left alone", extra={"facts": facts})
