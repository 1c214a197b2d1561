"""Wire <-> domain: the only module that sees both the messages of ``dtms.v1`` and the values of the core.

The core speaks dicts whose keys are the proto's field names, so conversion is generic: fields are listed nowhere twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from dtms.v1 import action_pb2, event_pb2, market_data_service_pb2, ownership_pb2, trade_pb2
from dtms_service import _core
from dtms_service.bars import Closed
from dtms_service.broker.door import (
    CloseReason,
    ClosingDeal,
    Command,
    CommandKind,
    Outcome,
    OutcomeStatus,
    Side,
    SymbolSpec,
)
from dtms_service.event_log import Entry
from dtms_service.quotes import Quoted

_FIRST_FIELD = b"\x0a"  # field 1, length-delimited: WatchResponse.events, GetTradeResponse.trade

# Numbers of the wire that the desk and what drives it decide on.
OUTCOME_UNKNOWN = action_pb2.OUTCOME_STATUS_UNKNOWN
DENIED_STALE_EPOCH = action_pb2.DENIAL_CODE_STALE_EPOCH
ALARM_NEWS_CALENDAR = event_pb2.ALARM_CODE_NEWS_CALENDAR
ALARM_TRADING_DISABLED = event_pb2.ALARM_CODE_TRADING_DISABLED
ALARM_GATEWAY_FAILED = event_pb2.ALARM_CODE_GATEWAY_FAILED
ALARM_BROKER_LINK_LOST = event_pb2.ALARM_CODE_BROKER_LINK_LOST
ALARM_JOURNAL_DAMAGED = event_pb2.ALARM_CODE_JOURNAL_DAMAGED
ALARM_LOST_LEG = event_pb2.ALARM_CODE_LOST_LEG
ALARM_ACCOUNT_SWITCHED = event_pb2.ALARM_CODE_ACCOUNT_SWITCHED
ORIGIN_CLIENT, ORIGIN_EXTERNAL = trade_pb2.ORIGIN_CLIENT, trade_pb2.ORIGIN_EXTERNAL
CLOSE_REASONS: dict[CloseReason, int] = {
    CloseReason.CLIENT: event_pb2.CLOSE_REASON_CLIENT,
    CloseReason.EXPERT: event_pb2.CLOSE_REASON_CLIENT,
    CloseReason.STOP_LOSS: event_pb2.CLOSE_REASON_STOP_LOSS,
    CloseReason.TAKE_PROFIT: event_pb2.CLOSE_REASON_TAKE_PROFIT,
    CloseReason.STOP_OUT: event_pb2.CLOSE_REASON_STOP_OUT,
}

_BY_SOMEBODY = {CloseReason.CLIENT, CloseReason.EXPERT}
_COMMENT_WORD = "dtms"

Reader = Callable[[Any], object]

# Of a kind of message: values of what is not set, names of lists, and who reads which field number.
_Plan = tuple[dict[str, object], list[str], dict[int, Reader]]
_plans: dict[object, _Plan] = {}


def encode_event(event: Mapping[str, Any]) -> bytes:
    """One core event as the bytes that are stored and streamed."""
    return event_pb2.Event(**event).SerializeToString(deterministic=True)


def decode_event(body: bytes) -> dict[str, Any]:
    """The inverse of :func:`encode_event`, for ``Engine.apply``. CoreError for what is no event of this version."""
    return _core.decode_event(body)


def decision_of(revision: int, body: bytes) -> dict[str, Any]:
    """The decision that an encoded event records, with its revision."""
    return {**to_dict(event_pb2.Event.FromString(body).decision_made.decision), "revision": revision}


def event_message(body: bytes) -> event_pb2.Event:
    return event_pb2.Event.FromString(body)


def frame(body: bytes) -> bytes:
    """An encoded event as a piece of a WatchResponse: pieces can be joined without encoding anything again."""
    return as_first_field(body)


def as_first_field(body: bytes) -> bytes:
    """A message whose field 1 is the encoded message ``body``, without encoding it again."""
    return _FIRST_FIELD + _varint(len(body)) + body


def entry_of_trade(view: trade_pb2.Trade) -> Entry:
    """A trade as a filter sees it."""
    return Entry(view.revision, view.account_id, view.ticket, view.symbol, view.state, b"")


def to_dict(message: Message) -> dict[str, Any]:
    """Fields by name; enums as ints; absent optional fields and messages are left out, plain scalars never are."""
    defaults, lists, readers = _plans.get(message.DESCRIPTOR) or _plan(message)
    out = defaults.copy()
    for name in lists:
        out[name] = []
    for field, value in message.ListFields():
        read = readers.get(field.number)
        out[field.name] = value if read is None else read(value)
    return out


def _plan(message: Message) -> _Plan:
    fields = message.DESCRIPTOR.fields
    defaults = {f.name: f.default_value for f in fields if not f.has_presence and not f.is_repeated}
    readers = {f.number: read for f in fields if (read := _READERS[f.is_repeated, f.message_type is not None])}
    plan = _plans[message.DESCRIPTOR] = (defaults, [f.name for f in fields if f.is_repeated], readers)
    return plan


def _messages(items: Iterable[Message]) -> list[dict[str, Any]]:
    return [to_dict(item) for item in items]


def _scalars(items: Iterable[object]) -> list[object]:
    return list(items)


# By (repeated, message); a plain value is read as it is.
_READERS: dict[tuple[bool, bool], Reader | None] = {
    (False, False): None,
    (False, True): to_dict,
    (True, False): _scalars,
    (True, True): _messages,
}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def entry(revision: int, body: bytes) -> Entry:
    """A journal event as the event log holds it."""
    event = event_pb2.Event.FromString(body)
    return Entry(revision, event.account_id, event.ticket, event.symbol, event.state, frame(body))


def alarm_name(code: int) -> str:
    return str(event_pb2.AlarmCode.Name(event_pb2.AlarmCode.ValueType(code)))


def quote(quoted: Quoted) -> market_data_service_pb2.Quote:
    """A quote with the rules of its symbol."""
    spec = quoted.spec
    return market_data_service_pb2.Quote(
        account_id=quoted.account_id,
        symbol=spec.name,
        point=spec.point,
        volume_min=spec.volume_min,
        volume_step=spec.volume_step,
        stops_level=spec.stops_level,
        tick_size=spec.tick_size,
        freeze_level=spec.freeze_level,
        **quoted.view,
    )


def index(view: Mapping[str, Any]) -> event_pb2.Index:
    return event_pb2.Index(**view)


def closed_bar(closed: Closed) -> market_data_service_pb2.ClosedBar:
    return market_data_service_pb2.ClosedBar(
        account_id=closed.account_id,
        symbol=closed.symbol,
        timeframe_s=closed.timeframe_s,
        bar=market_data_service_pb2.Bar(**closed.bar._asdict()),
    )


def trade(view: Mapping[str, Any]) -> trade_pb2.Trade:
    return trade_pb2.Trade(**view)


def ownership(view: Mapping[str, Any]) -> ownership_pb2.Ownership:
    return ownership_pb2.Ownership(**view)


def decision(view: Mapping[str, Any]) -> action_pb2.Decision:
    return action_pb2.Decision(**view)


def outcome_message(view: Mapping[str, Any] | None) -> action_pb2.Outcome | None:
    return None if view is None else action_pb2.Outcome(**view)


# Intent (core) -> command (door). The deal that an action becomes:
_COMMAND_OF_KIND = {
    action_pb2.ACTION_KIND_STOP: CommandKind.MODIFY,
    action_pb2.ACTION_KIND_TARGET: CommandKind.MODIFY,
    action_pb2.ACTION_KIND_PARTIAL_CLOSE: CommandKind.CLOSE,
    action_pb2.ACTION_KIND_CLOSE: CommandKind.CLOSE,
    action_pb2.ACTION_KIND_CLOSE_HEDGE: CommandKind.CLOSE,
    action_pb2.ACTION_KIND_CLOSE_RE_ADD: CommandKind.CLOSE,
    action_pb2.ACTION_KIND_CLOSE_STRAY: CommandKind.CLOSE,
    action_pb2.ACTION_KIND_OPEN_HEDGE: CommandKind.OPEN,
    action_pb2.ACTION_KIND_RE_ADD: CommandKind.OPEN,
}


def command(intent: Mapping[str, Any], *, deviation_points: int, magic: int) -> Command:
    """The broker command of an IntentRecorded body with its account_id, ticket and symbol.

    A netting account has no second position: the core then records a hedge as a reduction of the trade's own position,
    which is a CLOSE.
    """
    kind = _COMMAND_OF_KIND[intent["kind"]]
    if intent["kind"] == action_pb2.ACTION_KIND_OPEN_HEDGE and intent["position"]:
        kind = CommandKind.CLOSE
    return Command(
        intent_id=intent["intent_id"],
        account_id=intent["account_id"],
        ticket=intent["ticket"],
        token=intent["owner_epoch"],
        kind=kind,
        symbol=intent["symbol"],
        position=intent["position"],
        side=Side(intent["side"]),
        volume=intent["volume"],
        sl=intent.get("sl"),
        tp=intent.get("tp"),
        deviation_points=deviation_points,
        magic=magic,
        comment=intent_comment(intent["intent_id"]),
        keeps_sl=intent["kind"] == action_pb2.ACTION_KIND_TARGET,
        keeps_tp=intent["kind"] == action_pb2.ACTION_KIND_STOP,
    )


def intent_comment(intent_id: int) -> str:
    """The comment that links a deal to its intent: an opened position is found by it after a lost reply."""
    return f"{_COMMENT_WORD} {intent_id}"


def intent_of(comment: str) -> int | None:
    """The intent whose order left this comment; None for anybody else's."""
    word, _, number = comment.partition(" ")
    return int(number) if word == _COMMENT_WORD and number.isascii() and number.isdecimal() else None


def close_reason(deal: ClosingDeal) -> int:
    """Why the deal closed its position, as a CloseReason of the wire: DTMS's own deals bear its comment."""
    is_own = deal.reason in _BY_SOMEBODY and intent_of(deal.comment) is not None
    return event_pb2.CLOSE_REASON_DTMS if is_own else CLOSE_REASONS[deal.reason]


def outcome(sent: Command, answer: Outcome, *, settled: bool) -> dict[str, Any]:
    """A door's answer as the core takes it: absent values are left out, never zero.

    Codes below zero are the terminal's own (last_error), not the trade server's: they go into the text.
    """
    is_retcode = answer.retcode >= 0
    # The order of an UNKNOWN may be one that is only placed: no position has its ticket yet.
    opened = sent.kind is CommandKind.OPEN and answer.status is OutcomeStatus.CONFIRMED
    view: dict[str, Any] = {
        "intent_id": sent.intent_id,
        "status": answer.status.value,
        "retcode": answer.retcode if is_retcode else 0,
        "comment": answer.comment if is_retcode else f"{answer.retcode} {answer.comment}",
        "opened_ticket": answer.order if opened else 0,
        "settled": settled,
    }
    for name in ("price", "volume", "sl", "tp"):
        value = getattr(answer, name)
        if value is not None:
            view[name] = value
    return view


def symbol_spec(spec: SymbolSpec, vwap_slope_threshold: float) -> dict[str, Any]:
    """A broker's symbol as the core's SymbolSpec."""
    return {
        "symbol": spec.name,
        "digits": spec.digits,
        "point": spec.point,
        "tick_size": spec.tick_size,
        "contract_size": spec.contract_size,
        "volume_min": spec.volume_min,
        "volume_max": spec.volume_max,
        "volume_step": spec.volume_step,
        "stops_level": spec.stops_level,
        "freeze_level": spec.freeze_level,
        "vwap_slope_threshold": vwap_slope_threshold,
    }
