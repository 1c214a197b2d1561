"""What positions are worth in account currency: conversion, profit, margin, swap.

Sources: the formulas of the MetaTrader 5 help ("Margin Calculation: Retail Forex, Futures") for margin, mt5.md section
4 for profit and swap. A rate that cannot be known yet (no quote) is :class:`NoRate`, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dtms_service.broker.door import Side
from dtms_service.broker.market import Leg, Market, PaperPosition
from dtms_service.broker.mt5_enums import CalcMode, SwapMode
from dtms_service.broker.paper_config import PaperConfig

_LEVERAGED = frozenset({CalcMode.FOREX, CalcMode.CFDLEVERAGE})
_BY_PRICE = frozenset({CalcMode.CFD, CalcMode.CFDLEVERAGE})
DAY_MS = 86_400_000


class NoRate(LookupError):
    """The conversion symbol has no quote yet."""


class Valuation:
    def __init__(self, config: PaperConfig, markets: Mapping[str, Market]) -> None:
        self._config, self._markets = config, markets
        self._direct: dict[str, Market] = {}  # currency -> market quoting it in account currency
        self._inverse: dict[str, Market] = {}  # currency -> market quoting the account currency in it

    def admit(self, market: Market) -> None:
        """Learn what the market converts; raise ValueError if its own currencies cannot be converted."""
        base, quote, account = market.trading.currency_base, market.spec.currency_profit, self._config.currency
        if quote == account and base != account:
            self._direct.setdefault(base, market)
        elif base == account and quote != account:
            self._inverse.setdefault(quote, market)
        for currency in (quote, market.trading.currency_margin):
            source = self._direct.get(currency) or self._inverse.get(currency)
            if source is not None:
                source.converts = True
            elif currency != account and currency not in self._config.conversion_rates:
                raise ValueError(
                    f"{market.spec.name}: no symbol and no conversion_rates entry converts {currency} to {account}"
                )

    def rate(self, currency: str, *, buying: bool) -> float:
        """Account currency for one unit: what it costs when ``buying`` it (losses, margin), else what it fetches."""
        if currency == self._config.currency:
            return 1.0
        source = self._direct.get(currency) or self._inverse.get(currency)
        if source is None:
            return self._config.conversion_rates[currency]
        if not source.quoted:
            raise NoRate(f"{source.spec.name} has no quote to convert {currency}")
        if currency in self._direct:
            return source.ask if buying else source.bid
        return 1.0 / (source.bid if buying else source.ask)

    def profit(self, market: Market, side: Side, lots: float, price_open: float, price_close: float) -> float:
        """Account currency, before swap and commission."""
        moved = (price_close - price_open) if side is Side.BUY else (price_open - price_close)
        return self._converted(market, moved * market.spec.contract_size * lots)

    def ready(self, market: Market) -> bool:
        """Whether the quote and the rates that value the symbol's positions are known; once they are, they stay."""
        if not market.ready:
            sources = [
                self._direct.get(currency) or self._inverse.get(currency)
                for currency in (market.spec.currency_profit, market.trading.currency_margin)
            ]
            market.ready = market.quoted and all(source is None or source.quoted for source in sources)
        return market.ready

    def floating(self, position: PaperPosition) -> float:
        """Floating profit; 0 while it cannot be known (a restored account before its first quotes)."""
        market = position.market
        if not self.ready(market):
            return 0.0
        return self.profit(
            market, position.side, position.volume, position.price_open, market.close_price(position.side)
        )

    def floating_each(self, market: Market) -> Iterator[float]:
        """:meth:`floating` of each of the symbol's positions, to the last bit; what they share is looked up once."""
        if not market.positions or not self.ready(market):
            return
        currency, size = market.spec.currency_profit, market.spec.contract_size
        gained, lost = self.rate(currency, buying=False), self.rate(currency, buying=True)
        lots: dict[int, float] = {}
        for position in market.positions.values():
            steps, opened = position.steps, position.price_open
            if steps not in lots:
                lots[steps] = market.lots(steps)
            moved = market.bid - opened if position.side is Side.BUY else opened - market.ask
            worth = moved * size * lots[steps]
            yield worth * (lost if worth < 0 else gained)

    def floating_sum(self, market: Market) -> float:
        """All positions of the symbol at once: :meth:`floating` summed, but for the rounding and the rate's spread."""
        if not self.ready(market):
            return 0.0
        market.refresh()
        long, short = market.long, market.short
        moved = market.bid * long.steps - long.value + short.value - market.ask * short.steps
        return self._converted(market, moved * market.spec.contract_size * market.spec.volume_step)

    def unit_margin(self, market: Market, side: Side, price: float) -> float:
        """Margin of one lot opened now at ``price``; a position keeps the rate of its opening."""
        trading = market.trading
        amount = market.spec.contract_size
        if trading.calc_mode in _BY_PRICE:
            amount *= price
        if trading.calc_mode in _LEVERAGED:
            amount /= self._config.leverage
        return amount * self.rate(trading.currency_margin, buying=side is Side.BUY)

    @staticmethod
    def margin(market: Market, long: Leg, short: Leg) -> float:
        """Margin of such legs: the uncovered volume at the larger side's average, each lot of a hedged pair at
        ``margin_hedged``."""
        larger, covered = (long, short.steps) if long.steps >= short.steps else (short, long.steps)
        if not larger.steps:
            return 0.0
        uncovered = (larger.steps - covered) * larger.worth / larger.steps
        average = (long.worth + short.worth) / (long.steps + short.steps)
        hedged = covered * average * market.trading.margin_hedged / market.spec.contract_size
        return (uncovered + hedged) * market.spec.volume_step

    def swap(self, position: PaperPosition, nights: int) -> float:
        """Account currency for holding the position over ``nights`` charged nights."""
        trading, spec = position.market.trading, position.market.spec
        per_lot = (trading.swap_long if position.side is Side.BUY else trading.swap_short) * position.volume * nights
        match trading.swap_mode:
            case SwapMode.DISABLED:
                return 0.0
            case SwapMode.POINTS:
                return self._converted(position.market, per_lot * spec.point * spec.contract_size)
            case SwapMode.CURRENCY_DEPOSIT:
                return per_lot

    def _converted(self, market: Market, amount: float) -> float:
        return amount * self.rate(market.spec.currency_profit, buying=amount < 0)


def server_day(time_msc: int, offset_s: int) -> int:
    """Days since 1970-01-01 on the server's wall clock."""
    return (time_msc + offset_s * 1000) // DAY_MS


def day_of_week(day: int) -> int:
    """DAY_OF_WEEK number of a day since 1970-01-01, which was a Thursday."""
    return (day + 4) % 7


def charged_nights(market: Market, day: int) -> int:
    """How many nights of swap the midnight that ends ``day`` charges: three on the rollover day, none at weekends
    unless the symbol trades there."""
    weekday = day_of_week(day)
    if market.trading.swap_on_weekend:
        return 1
    if weekday in (0, 6):
        return 0
    return 3 if weekday == market.trading.swap_rollover3days else 1
