"""MetaTrader 5 answer codes: trade server retcodes and ``last_error()`` codes, with the texts that go with them.

Numbers are those of the MetaTrader5 package 5.0.6231 (a contract test compares them); HEDGE_PROHIBITED is
documented by MetaQuotes but missing from the package. Texts of trade retcodes are the terminal's journal wording.
"""

from __future__ import annotations

from enum import IntEnum


class Retcode(IntEnum):
    REQUOTE = 10004
    REJECT = 10006
    CANCEL = 10007
    PLACED = 10008
    DONE = 10009
    DONE_PARTIAL = 10010
    ERROR = 10011
    TIMEOUT = 10012
    INVALID = 10013
    INVALID_VOLUME = 10014
    INVALID_PRICE = 10015
    INVALID_STOPS = 10016
    TRADE_DISABLED = 10017
    MARKET_CLOSED = 10018
    NO_MONEY = 10019
    PRICE_CHANGED = 10020
    PRICE_OFF = 10021
    INVALID_EXPIRATION = 10022
    ORDER_CHANGED = 10023
    TOO_MANY_REQUESTS = 10024
    NO_CHANGES = 10025
    SERVER_DISABLES_AT = 10026
    CLIENT_DISABLES_AT = 10027
    LOCKED = 10028
    FROZEN = 10029
    INVALID_FILL = 10030
    CONNECTION = 10031
    ONLY_REAL = 10032
    LIMIT_ORDERS = 10033
    LIMIT_VOLUME = 10034
    INVALID_ORDER = 10035
    POSITION_CLOSED = 10036
    INVALID_CLOSE_VOLUME = 10038
    CLOSE_ORDER_EXIST = 10039
    LIMIT_POSITIONS = 10040
    REJECT_CANCEL = 10041
    LONG_ONLY = 10042
    SHORT_ONLY = 10043
    CLOSE_ONLY = 10044
    FIFO_CLOSE = 10045
    HEDGE_PROHIBITED = 10046


COMMENTS: dict[Retcode, str] = {
    Retcode.REQUOTE: "Requote",
    Retcode.REJECT: "Request rejected",
    Retcode.CANCEL: "Request canceled by trader",
    Retcode.PLACED: "Order placed",
    Retcode.DONE: "Request executed",
    Retcode.DONE_PARTIAL: "Request executed partially",
    Retcode.ERROR: "Request processing error",
    Retcode.TIMEOUT: "Request timed out",
    Retcode.INVALID: "Invalid request",
    Retcode.INVALID_VOLUME: "Invalid volume",
    Retcode.INVALID_PRICE: "Invalid price",
    Retcode.INVALID_STOPS: "Invalid stops",
    Retcode.TRADE_DISABLED: "Trade is disabled",
    Retcode.MARKET_CLOSED: "Market closed",
    Retcode.NO_MONEY: "No money",
    Retcode.PRICE_CHANGED: "Price changed",
    Retcode.PRICE_OFF: "No prices",
    Retcode.INVALID_EXPIRATION: "Invalid expiration",
    Retcode.ORDER_CHANGED: "Order changed",
    Retcode.TOO_MANY_REQUESTS: "Too many requests",
    Retcode.NO_CHANGES: "No changes",
    Retcode.SERVER_DISABLES_AT: "AutoTrading disabled by server",
    Retcode.CLIENT_DISABLES_AT: "AutoTrading disabled by client",
    Retcode.LOCKED: "Request locked",
    Retcode.FROZEN: "Order or position frozen",
    Retcode.INVALID_FILL: "Unsupported filling mode",
    Retcode.CONNECTION: "No connection",
    Retcode.ONLY_REAL: "Only real accounts allowed",
    Retcode.LIMIT_ORDERS: "Orders limit reached",
    Retcode.LIMIT_VOLUME: "Volume limit reached",
    Retcode.INVALID_ORDER: "Invalid order",
    Retcode.POSITION_CLOSED: "Position doesn't exist",
    Retcode.INVALID_CLOSE_VOLUME: "Invalid close volume",
    Retcode.CLOSE_ORDER_EXIST: "Close order already exists",
    Retcode.LIMIT_POSITIONS: "Positions limit reached",
    Retcode.REJECT_CANCEL: "Order canceled",
    Retcode.LONG_ONLY: "Only long positions allowed",
    Retcode.SHORT_ONLY: "Only short positions allowed",
    Retcode.CLOSE_ONLY: "Only position closing allowed",
    Retcode.FIFO_CLOSE: "Position close only by FIFO",
    Retcode.HEDGE_PROHIBITED: "Hedge is prohibited",
}


class LastError(IntEnum):
    """First element of ``last_error()``."""

    OK = 1
    FAIL = -1
    INVALID_PARAMS = -2
    NO_MEMORY = -3
    NOT_FOUND = -4
    INVALID_VERSION = -5
    AUTH_FAILED = -6
    UNSUPPORTED = -7
    AUTO_TRADING_DISABLED = -8
    INTERNAL_FAIL = -10000
    INTERNAL_FAIL_SEND = -10001
    INTERNAL_FAIL_RECEIVE = -10002
    INTERNAL_FAIL_INIT = -10003
    INTERNAL_FAIL_CONNECT = -10004
    INTERNAL_FAIL_TIMEOUT = -10005


LAST_ERROR_TEXTS: dict[LastError, str] = {
    LastError.OK: "Success",
    LastError.FAIL: "Terminal: Call failed",
    LastError.INVALID_PARAMS: "Terminal: Invalid params",
    LastError.NO_MEMORY: "Terminal: Out of memory",
    LastError.NOT_FOUND: "Terminal: Not found",
    LastError.INVALID_VERSION: (
        "Terminal: Incompatible versions, please install the latest version of Terminal and Python module"
    ),
    LastError.AUTH_FAILED: "Terminal: Authorization failed",
    LastError.UNSUPPORTED: "Terminal: Unsupported function",
    LastError.AUTO_TRADING_DISABLED: "Auto-Trading using Python API disabled in Terminal",
    LastError.INTERNAL_FAIL: "IPC call failed",
    LastError.INTERNAL_FAIL_SEND: "IPC send failed",
    LastError.INTERNAL_FAIL_RECEIVE: "IPC recv failed",
    LastError.INTERNAL_FAIL_INIT: "IPC initialize failed",
    LastError.INTERNAL_FAIL_CONNECT: "No IPC connection",
    LastError.INTERNAL_FAIL_TIMEOUT: "IPC timeout",
}
