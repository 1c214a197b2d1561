"""A paper account to test with: plain numbers, every field stated, and short words for the usual requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dtms_service.broker.door import ClosingDeal, SymbolSpec
from dtms_service.broker.mt5_enums import (
    Action,
    CalcMode,
    DayOfWeek,
    Execution,
    Filling,
    FillingFlag,
    OrderFlag,
    OrderType,
    SwapMode,
    TradeMode,
)
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_config import PaperConfig, Slippage, SlippageModel, SymbolTrading
from dtms_service.broker.structs import OrderSendResult

T0 = 1_483_437_600_000  # Tuesday 2017-01-03 10:00:00 UTC
HOUR = 3_600_000
POINT = 0.00001

CONFIG = PaperConfig(
    account_id="7001@Paper",
    hedging=True,
    hedge_prohibited=False,
    fifo_close=False,
    currency="USD",
    currency_digits=2,
    leverage=100,
    balance=10_000.0,
    margin_call_percent=100.0,
    stop_out_percent=50.0,
    commission_per_lot_side=0.0,
    conversion_rates={},
    limit_positions=0,
    requests_per_second=0,
    slippage=Slippage(SlippageModel.NONE, 0),
    first_order=186_000_001,
    first_deal=162_000_001,
    server_utc_offset_s=0,
)
SPEC = SymbolSpec(
    name="EURUSD",
    digits=5,
    point=POINT,
    tick_size=POINT,
    contract_size=100_000.0,
    volume_min=0.01,
    volume_max=50.0,
    volume_step=0.01,
    stops_level=10,
    freeze_level=0,
    currency_profit="USD",
)
TRADING = SymbolTrading(
    execution=Execution.MARKET,
    filling=FillingFlag.FOK | FillingFlag.IOC,
    trade_mode=TradeMode.FULL,
    order_mode=OrderFlag.MARKET | OrderFlag.SL | OrderFlag.TP | OrderFlag.CLOSE_BY,
    calc_mode=CalcMode.FOREX,
    currency_base="EUR",
    currency_margin="EUR",
    margin_hedged=100_000.0,
    volume_limit=0.0,
    swap_mode=SwapMode.DISABLED,
    swap_long=0.0,
    swap_short=0.0,
    swap_rollover3days=DayOfWeek.WEDNESDAY,
    swap_on_weekend=False,
    sessions=(),
)


class World:
    """One account with EURUSD quoted 1.10000 / 1.10010 at T0 (no quote with ``quoted=False``)."""

    def __init__(
        self,
        *,
        quoted: bool = True,
        config: dict[str, Any] | None = None,
        spec: dict[str, Any] | None = None,
        trading: dict[str, Any] | None = None,
    ) -> None:
        self.config = replace(CONFIG, **(config or {}))
        self.broker = PaperBroker(self.config)
        self.broker.add_symbol(replace(SPEC, **(spec or {})), replace(TRADING, **(trading or {})))
        self.now = T0
        if quoted:
            self.tick(1.10000, 1.10010)

    def tick(self, bid: float, ask: float, after_ms: int = 1000, symbol: str = "EURUSD") -> list[ClosingDeal]:
        self.now += after_ms
        return self.broker.on_tick(symbol, self.now, bid, ask)

    def send(self, **fields: object) -> OrderSendResult:
        return self.broker.order_send(fields)

    def buy(self, volume: float = 0.10, **fields: object) -> OrderSendResult:
        return self.deal(OrderType.BUY, volume, **fields)

    def sell(self, volume: float = 0.10, **fields: object) -> OrderSendResult:
        return self.deal(OrderType.SELL, volume, **fields)

    def deal(self, kind: int, volume: float, **fields: object) -> OrderSendResult:
        base: dict[str, object] = {
            "action": Action.DEAL,
            "symbol": "EURUSD",
            "type": kind,
            "volume": volume,
            "type_filling": Filling.FOK,
        }
        return self.broker.order_send(base | fields)

    def sltp(self, ticket: int, sl: float, tp: float, **fields: object) -> OrderSendResult:
        base: dict[str, object] = {
            "action": Action.SLTP,
            "symbol": "EURUSD",
            "position": ticket,
            "sl": sl,
            "tp": tp,
        }
        return self.broker.order_send(base | fields)

    def change(self, spec: dict[str, Any] | None = None, trading: dict[str, Any] | None = None) -> None:
        market = self.broker.market("EURUSD")
        self.broker.change_symbol(replace(market.spec, **(spec or {})), replace(market.trading, **(trading or {})))

    @property
    def balance(self) -> float:
        return self.broker.account().balance
