"""How a symbol trades on the embedded paper account: what nearly every retail hedging account has."""

from __future__ import annotations

from collections.abc import Iterable

from dtms_service.broker.door import SymbolSpec
from dtms_service.broker.mt5_enums import (
    CalcMode,
    DayOfWeek,
    Execution,
    FillingFlag,
    OrderFlag,
    SwapMode,
    TradeMode,
)
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_config import SymbolTrading

_CURRENCY_CHARS = 3  # EURUSD: the pair's two currencies by name


def list_symbols(broker: PaperBroker, specs: Iterable[SymbolSpec]) -> None:
    """Lists the symbols under the standard rules, those that convert the account's currency first.

    Raises ValueError naming the symbol that no listed symbol and no conversion rate converts.
    """
    account = broker.config.currency
    for spec in sorted(specs, key=lambda spec: (account not in spec.name, spec.name)):
        broker.add_symbol(spec, standard_trading(spec))


def standard_trading(spec: SymbolSpec) -> SymbolTrading:
    """Market execution, IOC and FOK, both directions, always open, no swap; a hedged pair binds one side's margin.

    Margin is counted in the base currency of a pair (EURUSD: EUR), and in the profit currency of anything else.
    """
    base = spec.name[:_CURRENCY_CHARS]
    is_pair = spec.name[_CURRENCY_CHARS : 2 * _CURRENCY_CHARS] == spec.currency_profit and base.isalpha()
    currency = base if is_pair else spec.currency_profit
    return SymbolTrading(
        execution=Execution.MARKET,
        filling=FillingFlag.FOK | FillingFlag.IOC,
        trade_mode=TradeMode.FULL,
        order_mode=OrderFlag.MARKET | OrderFlag.SL | OrderFlag.TP | OrderFlag.CLOSE_BY,
        calc_mode=CalcMode.FOREX if is_pair else CalcMode.CFDLEVERAGE,
        currency_base=currency,
        currency_margin=currency,
        margin_hedged=spec.contract_size,
        volume_limit=0.0,
        swap_mode=SwapMode.DISABLED,
        swap_long=0.0,
        swap_short=0.0,
        swap_rollover3days=DayOfWeek.WEDNESDAY,
        swap_on_weekend=False,
        sessions=(),
    )
