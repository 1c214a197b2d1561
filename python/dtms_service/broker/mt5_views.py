"""The paper broker's books as MetaTrader 5 struct sequences, in server time."""

from __future__ import annotations

from dtms_service.broker.door import AccountInfo, Side
from dtms_service.broker.ledger import Deal, Ledger, Order
from dtms_service.broker.market import Market, PaperPosition
from dtms_service.broker.mt5_enums import MarginMode, OrderState, OrderTime, OrderType
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.rates import TICK_FLAGS
from dtms_service.broker.structs import (
    Mt5AccountInfo,
    SymbolInfo,
    TerminalInfo,
    Tick,
    TradeDeal,
    TradeOrder,
    TradePosition,
)
from dtms_service.broker.valuation import NoRate

_ZEROS = {"float": 0.0, "int": 0, "bool": False, "str": ""}


def server_s(time_msc: int, offset_s: int) -> int:
    return time_msc // 1000 + offset_s if time_msc else 0


def server_msc(time_msc: int, offset_s: int) -> int:
    return time_msc + offset_s * 1000 if time_msc else 0


def position(broker: PaperBroker, held: PaperPosition) -> TradePosition:
    offset_s = broker.config.server_utc_offset_s
    return TradePosition.of(
        ticket=held.ticket,
        time=server_s(held.time_msc, offset_s),
        time_msc=server_msc(held.time_msc, offset_s),
        time_update=server_s(held.time_update_msc, offset_s),
        time_update_msc=server_msc(held.time_update_msc, offset_s),
        type=int(OrderType.BUY if held.side is Side.BUY else OrderType.SELL),
        magic=held.magic,
        identifier=held.identifier,
        reason=int(held.reason),
        volume=held.volume,
        price_open=held.price_open,
        sl=held.sl or 0.0,
        tp=held.tp or 0.0,
        price_current=held.market.close_price(held.side),
        swap=broker.book.ledger.major(held.swap_minor),
        profit=broker.book.floating(held),
        symbol=held.market.spec.name,
        comment=held.comment,
        external_id="",
    )


def order(record: Order, offset_s: int) -> TradeOrder:
    open_still = record.state is OrderState.PLACED
    return TradeOrder.of(
        ticket=record.ticket,
        time_setup=server_s(record.time_setup_msc, offset_s),
        time_setup_msc=server_msc(record.time_setup_msc, offset_s),
        time_done=server_s(record.time_done_msc, offset_s),
        time_done_msc=server_msc(record.time_done_msc, offset_s),
        time_expiration=0,
        type=int(record.type),
        type_time=int(OrderTime.GTC),
        type_filling=record.filling,
        state=int(record.state),
        magic=record.magic,
        position_id=record.position,
        position_by_id=record.position_by,
        reason=int(record.reason),
        volume_initial=record.volume_initial,
        volume_current=record.volume_initial if open_still else record.volume_current,
        price_open=record.price,
        sl=record.sl,
        tp=record.tp,
        price_current=record.price,
        price_stoplimit=0.0,
        symbol=record.symbol,
        comment=record.comment,
        external_id="",
    )


def deal(ledger: Ledger, record: Deal, offset_s: int) -> TradeDeal:
    return TradeDeal.of(
        ticket=record.ticket,
        order=record.order,
        time=server_s(record.time_msc, offset_s),
        time_msc=server_msc(record.time_msc, offset_s),
        type=int(record.type),
        entry=int(record.entry),
        magic=record.magic,
        position_id=record.position,
        reason=int(record.reason),
        volume=record.volume,
        price=record.price,
        commission=ledger.major(record.commission_minor),
        swap=ledger.major(record.swap_minor),
        profit=ledger.major(record.profit_minor),
        fee=0.0,
        symbol=record.symbol,
        comment=record.comment,
        external_id="",
    )


def tick(quote: tuple[int, float, float] | None, offset_s: int) -> Tick:
    time_msc, bid, ask = quote if quote is not None else (0, 0.0, 0.0)
    return Tick.of(
        time=server_s(time_msc, offset_s),
        bid=bid,
        ask=ask,
        last=0.0,
        volume=0,
        time_msc=server_msc(time_msc, offset_s),
        flags=TICK_FLAGS if time_msc else 0,
        volume_real=0.0,
    )


def terminal_info(broker: PaperBroker, build: int) -> TerminalInfo:
    faults = broker.faults
    return TerminalInfo.of(
        **_blank(TerminalInfo)
        | {
            "connected": faults.connected,
            "trade_allowed": faults.trade_allowed,
            "tradeapi_disabled": faults.tradeapi_disabled,
            "build": build,
            "name": "DTMS paper terminal",
            "company": "DTMS",
            "language": "English",
        }
    )


def account_info(broker: PaperBroker, account: AccountInfo) -> Mt5AccountInfo:
    """``trade_mode`` is DEMO; what the account does not have (credit, assets) is zero."""
    config = broker.config
    return Mt5AccountInfo.of(
        **_blank(Mt5AccountInfo)
        | {
            "login": config.login,
            "leverage": config.leverage,
            "trade_allowed": True,
            "trade_expert": broker.faults.server_allows,
            "margin_mode": int(MarginMode.RETAIL_HEDGING if config.hedging else MarginMode.RETAIL_NETTING),
            "currency_digits": config.currency_digits,
            "fifo_close": config.fifo_close,
            "balance": account.balance,
            "profit": round(account.equity - account.balance, config.currency_digits),
            "equity": account.equity,
            "margin": account.margin,
            "margin_free": account.margin_free,
            "margin_level": 100 * account.equity / account.margin if account.margin else 0.0,
            "margin_so_call": config.margin_call_percent,
            "margin_so_so": config.stop_out_percent,
            "name": "DTMS paper account",
            "server": config.server,
            "currency": config.currency,
            "company": "DTMS",
        }
    )


def symbol_info(broker: PaperBroker, market: Market, quote: tuple[int, float, float] | None) -> SymbolInfo:
    spec, trading = market.spec, market.trading
    time_msc, bid, ask = quote if quote is not None else (0, 0.0, 0.0)
    bids, asks = [row[1] for row in market.ticks], [row[2] for row in market.ticks]
    return SymbolInfo.of(
        **_blank(SymbolInfo)
        | {
            "select": True,
            "visible": True,
            "time": server_s(time_msc, broker.config.server_utc_offset_s),
            "digits": spec.digits,
            "spread": market.points(ask) - market.points(bid),
            "spread_float": True,
            "trade_calc_mode": int(trading.calc_mode),
            "trade_mode": int(trading.trade_mode),
            "trade_stops_level": spec.stops_level,
            "trade_freeze_level": spec.freeze_level,
            "trade_exemode": int(trading.execution),
            "swap_mode": int(trading.swap_mode),
            "swap_rollover3days": int(trading.swap_rollover3days),
            "expiration_mode": 1,
            "filling_mode": int(trading.filling),
            "order_mode": int(trading.order_mode),
            "bid": bid,
            "bidhigh": max(bids, default=0.0),
            "bidlow": min(bids, default=0.0),
            "ask": ask,
            "askhigh": max(asks, default=0.0),
            "asklow": min(asks, default=0.0),
            "point": spec.point,
            "trade_tick_value": _tick_value(broker, market, gain=True),
            "trade_tick_value_profit": _tick_value(broker, market, gain=True),
            "trade_tick_value_loss": _tick_value(broker, market, gain=False),
            "trade_tick_size": spec.tick_size,
            "trade_contract_size": spec.contract_size,
            "volume_min": spec.volume_min,
            "volume_max": spec.volume_max,
            "volume_step": spec.volume_step,
            "volume_limit": trading.volume_limit,
            "swap_long": trading.swap_long,
            "swap_short": trading.swap_short,
            "margin_hedged": trading.margin_hedged,
            "currency_base": trading.currency_base,
            "currency_profit": spec.currency_profit,
            "currency_margin": trading.currency_margin,
            "description": spec.name,
            "name": spec.name,
            "path": f"Paper\\{spec.name}",
        }
    )


def _tick_value(broker: PaperBroker, market: Market, *, gain: bool) -> float:
    """Account currency for one tick of one lot; 0 while its currency cannot be converted, as terminals show it."""
    try:
        rate = broker.book.valuation.rate(market.spec.currency_profit, buying=not gain)
    except NoRate:
        return 0.0
    return market.spec.tick_size * market.spec.contract_size * rate


def _blank(struct: type[TerminalInfo | Mt5AccountInfo | SymbolInfo]) -> dict[str, object]:
    """Every field at its type's zero: what a paper broker has nothing to say about."""
    return {name: _ZEROS[struct.__annotations__[name]] for name in struct.names()}
