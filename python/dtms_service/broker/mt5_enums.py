"""MetaTrader 5 numbers that the paper broker speaks; the member names are the package's constants without prefix.

``FillingFlag`` and ``OrderFlag`` are bits of ``symbol_info`` masks and are *not* in the package; the request's
``type_filling`` is :class:`Filling`, whose numbers differ from the mask's.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Action(IntEnum):
    """TRADE_ACTION_*"""

    DEAL = 1
    PENDING = 5
    SLTP = 6
    MODIFY = 7
    REMOVE = 8
    CLOSE_BY = 10


class OrderType(IntEnum):
    """ORDER_TYPE_* (POSITION_TYPE_BUY/SELL and DEAL_TYPE_BUY/SELL have the same numbers)."""

    BUY = 0
    SELL = 1
    CLOSE_BY = 8


class OrderState(IntEnum):
    """ORDER_STATE_*"""

    STARTED = 0
    PLACED = 1
    CANCELED = 2
    PARTIAL = 3
    FILLED = 4
    REJECTED = 5


class OrderTime(IntEnum):
    """ORDER_TIME_*"""

    GTC = 0
    DAY = 1
    SPECIFIED = 2
    SPECIFIED_DAY = 3


class Filling(IntEnum):
    """ORDER_FILLING_*"""

    FOK = 0
    IOC = 1
    RETURN = 2
    BOC = 3


class FillingFlag(IntFlag):
    """Bits of ``symbol_info.filling_mode``."""

    FOK = 1
    IOC = 2
    BOC = 4


class OrderFlag(IntFlag):
    """Bits of ``symbol_info.order_mode``."""

    MARKET = 1
    LIMIT = 2
    STOP = 4
    STOP_LIMIT = 8
    SL = 16
    TP = 32
    CLOSE_BY = 64


class Execution(IntEnum):
    """SYMBOL_TRADE_EXECUTION_*"""

    REQUEST = 0
    INSTANT = 1
    MARKET = 2
    EXCHANGE = 3


class TradeMode(IntEnum):
    """SYMBOL_TRADE_MODE_*"""

    DISABLED = 0
    LONGONLY = 1
    SHORTONLY = 2
    CLOSEONLY = 3
    FULL = 4


class CalcMode(IntEnum):
    """SYMBOL_CALC_MODE_* (those the paper broker can compute)."""

    FOREX = 0
    CFD = 2
    CFDLEVERAGE = 4
    FOREX_NO_LEVERAGE = 5


class SwapMode(IntEnum):
    """SYMBOL_SWAP_MODE_* (those the paper broker can compute)."""

    DISABLED = 0
    POINTS = 1
    CURRENCY_DEPOSIT = 4


class DayOfWeek(IntEnum):
    """DAY_OF_WEEK_*"""

    SUNDAY = 0
    MONDAY = 1
    TUESDAY = 2
    WEDNESDAY = 3
    THURSDAY = 4
    FRIDAY = 5
    SATURDAY = 6


class DealType(IntEnum):
    """DEAL_TYPE_*"""

    BUY = 0
    SELL = 1
    BALANCE = 2


class DealEntry(IntEnum):
    """DEAL_ENTRY_*"""

    IN = 0
    OUT = 1
    INOUT = 2
    OUT_BY = 3


class DealReason(IntEnum):
    """DEAL_REASON_* (ORDER_REASON_* has the same numbers; a position's reason is CLIENT or EXPERT)."""

    CLIENT = 0
    MOBILE = 1
    WEB = 2
    EXPERT = 3
    SL = 4
    TP = 5
    SO = 6


class Timeframe(IntEnum):
    """TIMEFRAME_*, those whose bars are kept."""

    M1 = 1
    M5 = 5
    M15 = 15
    H1 = 0x4001
    H4 = 0x4004


class MarginMode(IntEnum):
    """ACCOUNT_MARGIN_MODE_*"""

    RETAIL_NETTING = 0
    EXCHANGE = 1
    RETAIL_HEDGING = 2
