"""Values of the broker door <-> messages of GatewayService, for both ends of the stream.

Reading raises FIELD_INVALID where the other end sent what the door cannot mean; the path names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar

from dtms.v1 import action_pb2, event_pb2, gateway_service_pb2, market_data_service_pb2, trade_pb2
from dtms_service.bars import ClosedBar
from dtms_service.broker.door import (
    AccountInfo,
    CloseReason,
    ClosingDeal,
    Command,
    CommandKind,
    OrderFate,
    OrderRecord,
    Outcome,
    OutcomeStatus,
    Position,
    Side,
    SymbolSpec,
)
from dtms_service.errors import invalid

_E = TypeVar("_E", bound=Enum)
_N = TypeVar("_N", bound=int)

# The door's enums and the wire's, in one place each: their numbers agree today, and nothing relies on it.
SIDE: Final = {Side.BUY: trade_pb2.SIDE_BUY, Side.SELL: trade_pb2.SIDE_SELL}
COMMAND_KIND: Final = {
    CommandKind.MODIFY: gateway_service_pb2.COMMAND_KIND_MODIFY,
    CommandKind.CLOSE: gateway_service_pb2.COMMAND_KIND_CLOSE,
    CommandKind.OPEN: gateway_service_pb2.COMMAND_KIND_OPEN,
}
OUTCOME_STATUS: Final = {
    OutcomeStatus.CONFIRMED: action_pb2.OUTCOME_STATUS_CONFIRMED,
    OutcomeStatus.REJECTED: action_pb2.OUTCOME_STATUS_REJECTED,
    OutcomeStatus.UNKNOWN: action_pb2.OUTCOME_STATUS_UNKNOWN,
}
_FATE: Final = {
    OrderFate.WORKING: gateway_service_pb2.ORDER_FATE_WORKING,
    OrderFate.FILLED: gateway_service_pb2.ORDER_FATE_FILLED,
    OrderFate.DROPPED: gateway_service_pb2.ORDER_FATE_DROPPED,
}
_FATE_OF = {number: fate for fate, number in _FATE.items()}
_SIDE_OF = {number: side for side, number in SIDE.items()}
_KIND_OF = {number: kind for kind, number in COMMAND_KIND.items()}
_REASON_OF = {reason.value: reason for reason in CloseReason}
_STATUS_OF = {number: status for status, number in OUTCOME_STATUS.items()}


def _known(field: str, table: Mapping[_N, _E], number: _N) -> _E:
    value = table.get(number)
    if value is None:
        raise invalid(field, f"{number} is none of {sorted(table)}")
    return value


# --- commands ---


def command_to_wire(call_id: int, command: Command) -> gateway_service_pb2.GatewayCommand:
    return gateway_service_pb2.GatewayCommand(
        call_id=call_id,
        intent_id=command.intent_id,
        account_id=command.account_id,
        ticket=command.ticket,
        token=command.token,
        kind=COMMAND_KIND[command.kind],
        symbol=command.symbol,
        position=command.position,
        side=SIDE[command.side],
        volume=command.volume,
        sl=command.sl,
        tp=command.tp,
        deviation_points=command.deviation_points,
        magic=command.magic,
        comment=command.comment,
        keeps_sl=command.keeps_sl,
        keeps_tp=command.keeps_tp,
    )


def command_from_wire(message: gateway_service_pb2.GatewayCommand) -> Command:
    return Command(
        intent_id=message.intent_id,
        account_id=message.account_id,
        ticket=message.ticket,
        token=message.token,
        kind=_known("command.kind", _KIND_OF, message.kind),
        symbol=message.symbol,
        position=message.position,
        side=_known("command.side", _SIDE_OF, message.side),
        volume=message.volume,
        sl=message.sl if message.HasField("sl") else None,
        tp=message.tp if message.HasField("tp") else None,
        deviation_points=message.deviation_points,
        magic=message.magic,
        comment=message.comment,
        keeps_sl=message.keeps_sl,
        keeps_tp=message.keeps_tp,
    )


def outcome_to_wire(command: Command, outcome: Outcome) -> action_pb2.Outcome:
    """Only a trade server's retcode fits the wire: a code of the terminal itself (negative) moves into the text."""
    retcode, comment = outcome.retcode, outcome.comment
    if retcode < 0:
        retcode, comment = 0, f"({retcode}) {comment}"
    return action_pb2.Outcome(
        intent_id=command.intent_id,
        status=OUTCOME_STATUS[outcome.status],
        retcode=retcode,
        comment=comment,
        price=outcome.price,
        volume=outcome.volume,
        sl=outcome.sl,
        tp=outcome.tp,
        opened_ticket=outcome.order if command.kind is CommandKind.OPEN else 0,
    )


def outcome_from_wire(message: action_pb2.Outcome) -> Outcome:
    """``order`` is the position that the command opened; order and deal of other commands do not travel."""
    return Outcome(
        status=_known("command_result.outcome.status", _STATUS_OF, message.status),
        retcode=message.retcode,
        comment=message.comment,
        order=message.opened_ticket,
        price=message.price if message.HasField("price") else None,
        volume=message.volume if message.HasField("volume") else None,
        sl=message.sl if message.HasField("sl") else None,
        tp=message.tp if message.HasField("tp") else None,
    )


# --- what queries answer ---


def account_to_wire(account: AccountInfo) -> gateway_service_pb2.BrokerAccount:
    return gateway_service_pb2.BrokerAccount(
        account_id=account.account_id,
        hedging=account.hedging,
        currency=account.currency,
        leverage=account.leverage,
        balance=account.balance,
        equity=account.equity,
        margin=account.margin,
        margin_free=account.margin_free,
    )


def account_from_wire(message: gateway_service_pb2.BrokerAccount) -> AccountInfo:
    return AccountInfo(
        account_id=message.account_id,
        hedging=message.hedging,
        currency=message.currency,
        leverage=message.leverage,
        balance=message.balance,
        equity=message.equity,
        margin=message.margin,
        margin_free=message.margin_free,
    )


def symbol_to_wire(spec: SymbolSpec) -> event_pb2.SymbolSpec:
    """What the wire has a field for: the profit currency stays behind, thresholds of the score are the service's."""
    return event_pb2.SymbolSpec(
        symbol=spec.name,
        digits=spec.digits,
        point=spec.point,
        tick_size=spec.tick_size,
        contract_size=spec.contract_size,
        volume_min=spec.volume_min,
        volume_max=spec.volume_max,
        volume_step=spec.volume_step,
        stops_level=spec.stops_level,
        freeze_level=spec.freeze_level,
    )


def symbol_from_wire(message: event_pb2.SymbolSpec, profit_currency: str) -> SymbolSpec:
    return SymbolSpec(
        name=message.symbol,
        digits=message.digits,
        point=message.point,
        tick_size=message.tick_size,
        contract_size=message.contract_size,
        volume_min=message.volume_min,
        volume_max=message.volume_max,
        volume_step=message.volume_step,
        stops_level=message.stops_level,
        freeze_level=message.freeze_level,
        currency_profit=profit_currency,
    )


def position_to_wire(position: Position) -> gateway_service_pb2.BrokerPosition:
    return gateway_service_pb2.BrokerPosition(
        ticket=position.ticket,
        symbol=position.symbol,
        side=SIDE[position.side],
        volume=position.volume,
        price_open=position.price_open,
        sl=position.sl,
        tp=position.tp,
        time_msc=position.time_msc,
        magic=position.magic,
        comment=position.comment,
        profit=position.profit,
        swap=position.swap,
    )


def position_from_wire(message: gateway_service_pb2.BrokerPosition) -> Position:
    return Position(
        ticket=message.ticket,
        symbol=message.symbol,
        side=_known("query_result.positions.side", _SIDE_OF, message.side),
        volume=message.volume,
        price_open=message.price_open,
        sl=message.sl if message.HasField("sl") else None,
        tp=message.tp if message.HasField("tp") else None,
        time_msc=message.time_msc,
        magic=message.magic,
        comment=message.comment,
        profit=message.profit,
        swap=message.swap,
    )


def bar_to_wire(bar: ClosedBar) -> market_data_service_pb2.Bar:
    return market_data_service_pb2.Bar(**bar._asdict())


def bar_from_wire(message: market_data_service_pb2.Bar) -> ClosedBar:
    return ClosedBar(message.time_s, message.open, message.high, message.low, message.close, message.volume)


def deal_to_wire(deal: ClosingDeal) -> gateway_service_pb2.BrokerDeal:
    return gateway_service_pb2.BrokerDeal(
        deal=deal.deal,
        position=deal.position,
        symbol=deal.symbol,
        reason=deal.reason.value,
        volume=deal.volume,
        price=deal.price,
        profit=deal.profit,
        commission=deal.commission,
        swap=deal.swap,
        time_msc=deal.time_msc,
        comment=deal.comment,
        remaining=deal.remaining,
    )


def order_to_wire(order: OrderRecord) -> gateway_service_pb2.BrokerOrder:
    return gateway_service_pb2.BrokerOrder(
        order=order.order,
        position=order.position,
        fate=_FATE[order.fate],
        volume=order.volume,
        price=order.price,
        deal=order.deal,
        time_msc=order.time_msc,
    )


def order_from_wire(message: gateway_service_pb2.BrokerOrder) -> OrderRecord:
    return OrderRecord(
        order=message.order,
        position=message.position,
        fate=_known("query_result.orders.fate", _FATE_OF, message.fate),
        volume=message.volume,
        price=message.price,
        deal=message.deal,
        time_msc=message.time_msc,
    )


def deal_from_wire(message: gateway_service_pb2.BrokerDeal) -> ClosingDeal:
    return ClosingDeal(
        deal=message.deal,
        position=message.position,
        symbol=message.symbol,
        reason=_known("query_result.deals.reason", _REASON_OF, message.reason),
        volume=message.volume,
        price=message.price,
        profit=message.profit,
        commission=message.commission,
        swap=message.swap,
        time_msc=message.time_msc,
        comment=message.comment,
        remaining=message.remaining,
    )
