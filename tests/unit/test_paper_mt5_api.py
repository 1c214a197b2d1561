"""The facade with the manners of the MetaTrader5 C extension."""

from __future__ import annotations

import builtins
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from dtms_service.broker.mt5_api import FUNCTIONS, PaperMt5
from dtms_service.broker.retcodes import LastError
from dtms_service.broker.structs import OrderSendResult, SymbolInfo, TradePosition
from tests.unit.paper_world import HOUR, T0, World

BUY: dict[str, object] = {"action": 1, "symbol": "EURUSD", "type": 0, "volume": 0.1}
OFFSET = 7200


def opened(**changes: Any) -> tuple[World, PaperMt5]:
    world = World(config={"server_utc_offset_s": OFFSET}, **changes)
    mt5 = PaperMt5(world.broker)
    assert mt5.initialize()
    return world, mt5


def test_there_are_exactly_32_functions() -> None:
    """The names of the C extension, no more and no less."""
    _, mt5 = opened()
    assert len(FUNCTIONS) == 32
    assert all(callable(function) for function in mt5.exports().values())
    assert {n for n in dir(mt5) if not n.startswith("_")} == {*FUNCTIONS, "exports"}


def test_nothing_answers_before_initialize_or_after_shutdown() -> None:
    """Every read is None with -10004; types are still judged first."""
    mt5 = PaperMt5(World().broker)
    for _ in range(2):
        assert mt5.account_info() is None
        assert mt5.last_error() == (-10004, "No IPC connection")
        assert mt5.order_send(BUY) is None
        assert mt5.last_error()[0] == -10004
        assert mt5.order_send(BUY | {"volume": 1}) is None
        assert mt5.last_error() == (-2, 'Invalid "volume" argument')
        mt5.initialize()
        mt5.shutdown()


def test_another_login_is_refused() -> None:
    """Only the paper account's own login and server open it."""
    _, mt5 = opened()
    assert mt5.login(7001, password="x", server="Paper") is True
    assert mt5.login(7002) is False
    assert mt5.last_error()[0] == LastError.AUTH_FAILED
    assert mt5.initialize(login=1) is False


def test_struct_sequences_are_no_namedtuples() -> None:
    """Index, attribute and _asdict work; _replace, _fields and assignment do not exist."""
    _, mt5 = opened()
    result = mt5.order_send(BUY)
    assert isinstance(result, OrderSendResult)
    assert result[0] == result.retcode == result._asdict()["retcode"]
    assert result.request.symbol == "EURUSD"
    assert not hasattr(result, "_replace")
    assert not hasattr(result, "_fields")
    with pytest.raises(AttributeError):
        result.retcode = 1
    with pytest.raises(TypeError, match="sequence"):
        TradePosition((1, 2))
    assert "retcode=10009" in repr(result)


def test_struct_lengths() -> None:
    """The extension's field counts."""
    assert (len(SymbolInfo.names()), len(TradePosition.names()), len(OrderSendResult.names())) == (96, 19, 11)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.symbol_info(symbol="EURUSD"),
        lambda m: m.symbol_info_tick(symbol="EURUSD"),
        lambda m: m.symbol_select(symbol="EURUSD"),
        lambda m: m.copy_rates_from_pos(symbol="EURUSD", timeframe=1, start_pos=0, count=1),
        lambda m: m.order_calc_margin(action=0, symbol="EURUSD", volume=1.0, price=1.1),
        lambda m: m.history_deals_total(date_from=0, date_to=1),
        lambda m: m.positions_get("EURUSD"),
        lambda m: m.orders_get("EURUSD"),
    ],
)
def test_positional_and_keyword_rules(call: Any) -> None:
    """Positional-only functions refuse keywords, keyword-only ones positions: TypeError."""
    with pytest.raises(TypeError):
        call(opened()[1])


def test_order_send_takes_one_dict_or_keywords() -> None:
    """A dict or the same fields as keywords; anything else is None and -2."""
    _, mt5 = opened()
    assert mt5.order_send(**BUY) is not None
    for args in ((list(BUY.items()),), (BUY, BUY)):
        assert mt5.order_send(*args) is None
        assert mt5.last_error()[0] == LastError.INVALID_PARAMS


def test_numpy_doubles_pass_and_numpy_ints_do_not() -> None:
    """np.float64 is a float, np.float32 and np.int64 are not what the extension takes."""
    _, mt5 = opened()
    assert mt5.order_send(BUY | {"volume": np.float64(0.1)}) is not None
    assert mt5.order_send(BUY | {"volume": np.float32(0.1)}) is None
    assert mt5.order_send(BUY | {"magic": np.int64(1)}) is None
    assert mt5.last_error() == (-2, 'Invalid "magic" argument')


def test_an_unknown_ticket_is_an_empty_tuple() -> None:
    """Nothing found is (), not None; ticket wins over symbol, symbol over group."""
    world, mt5 = opened()
    assert mt5.positions_get(ticket=5) == ()
    ticket = world.buy().order
    [position] = mt5.positions_get(ticket=ticket, symbol="NOPE", group="X*") or ()
    assert position.ticket == ticket
    assert mt5.positions_get(symbol="NOPE", group="*") == ()
    assert len(mt5.positions_get(group="*USD*") or ()) == 1
    assert mt5.positions_get(group="*USD*,!EUR*") == ()
    assert mt5.positions_total() == 1


def test_times_are_the_servers_wall_clock() -> None:
    """Positions, ticks, deals and orders show UTC plus the server's offset."""
    world, mt5 = opened()
    world.buy()
    [position] = mt5.positions_get() or ()
    assert position.time_msc == world.now + OFFSET * 1000
    assert position.time == position.time_msc // 1000
    tick = mt5.symbol_info_tick("EURUSD")
    assert tick is not None
    assert (tick.time_msc, tick.bid, tick.ask) == (world.now + OFFSET * 1000, 1.1, 1.1001)
    since = datetime.fromtimestamp(position.time, UTC)
    assert [d.entry for d in mt5.history_deals_get(since, since) or ()] == [0]
    assert mt5.history_deals_total(since, since) == mt5.history_orders_total(since, since) == 1


def test_history_by_position_and_order() -> None:
    """Deals of a position, and of an order; without period or filter -2."""
    world, mt5 = opened()
    ticket = world.buy(sl=1.09).order
    world.tick(1.08, 1.0801)
    deals = mt5.history_deals_get(position=ticket) or ()
    assert [(d.entry, d.reason, d.comment) for d in deals] == [(0, 3, ""), (1, 4, "[sl 1.09000]")]
    assert [d.order for d in mt5.history_deals_get(ticket=ticket) or ()] == [ticket]
    assert [o.state for o in mt5.history_orders_get(position=ticket) or ()] == [4, 4]
    assert mt5.history_deals_get() is None
    assert mt5.last_error()[0] == LastError.INVALID_PARAMS


def test_the_deposit_is_the_first_deal() -> None:
    """A balance deal opens the books, so the balance is the sum of all deals."""
    world, mt5 = opened()
    world.sell(0.1, position=world.buy(0.1).order)
    deals = mt5.history_deals_get(0, 2**40) or ()
    assert (deals[0].type, deals[0].profit) == (2, 10_000.0)
    account = mt5.account_info()
    assert account is not None
    assert round(sum(d.profit + d.swap + d.commission + d.fee for d in deals), 2) == account.balance


def test_account_terminal_symbol_and_version() -> None:
    """What DTMS reads from them is filled."""
    world, mt5 = opened()
    world.buy(1.0)
    account, terminal, info, version = mt5.account_info(), mt5.terminal_info(), mt5.symbol_info("EURUSD"), mt5.version()
    assert account is not None
    assert terminal is not None
    assert info is not None
    assert version is not None
    assert (account.login, account.server, account.margin_mode, account.leverage) == (7001, "Paper", 2, 100)
    assert (account.equity, account.profit, account.margin) == (9990.0, -10.0, 1100.10)
    assert (terminal.connected, terminal.trade_allowed, terminal.build) == (True, True, version[1])
    assert (info.digits, info.point, info.spread, info.trade_stops_level, info.filling_mode) == (5, 1e-5, 10, 10, 3)
    assert info.trade_tick_value == pytest.approx(1.0)
    assert (info.currency_profit, info.name) == ("USD", "EURUSD")
    assert (mt5.symbols_total(), len(mt5.symbols_get() or ()), mt5.symbols_get(group="X*")) == (1, 1, ())


def test_unknown_symbols_are_not_found() -> None:
    """None with -4; a symbol that is no text is -2."""
    _, mt5 = opened()
    assert mt5.symbol_info("NOPE") is None
    assert mt5.last_error()[0] == LastError.NOT_FOUND
    assert mt5.symbol_info_tick("x" * 30) is None
    assert mt5.last_error()[0] == LastError.INVALID_PARAMS
    assert mt5.symbol_select("EURUSD", True) is True
    assert mt5.symbol_select("EURUSD", False) is False
    assert mt5.market_book_add("EURUSD") is False
    assert mt5.market_book_get("EURUSD") is None
    assert mt5.market_book_release("EURUSD") is False


def test_calculators() -> None:
    """Margin and profit of an order on its own; bad numbers are None and -2."""
    _, mt5 = opened()
    assert mt5.order_calc_margin(0, "EURUSD", 1.0, 1.1001) == 1100.1
    assert mt5.order_calc_profit(0, "EURUSD", 0.1, 1.1, 1.101) == 10.0
    assert mt5.order_calc_profit(1, "EURUSD", 0.1, 1.1, 1.101) == -10.0
    assert mt5.order_calc_margin(7, "EURUSD", 1.0, 1.1) is None
    assert mt5.last_error()[0] == LastError.INVALID_PARAMS
    check = mt5.order_check(BUY)
    assert check is not None
    assert (check.retcode, check.comment) == (0, "Done")
    assert mt5.order_check(BUY | {"volume": 1}) is None


def test_ticks_are_numpy_records() -> None:
    """Packed 60-byte records in server time, by start and count or by range."""
    world, mt5 = opened()
    for step in range(5):
        world.tick(1.1 + step * 1e-5, 1.1002)
    ticks = mt5.copy_ticks_from("EURUSD", 0, 3, -1)
    assert ticks is not None
    assert ticks.dtype.itemsize == 60
    assert list(ticks["time_msc"]) == [T0 + OFFSET * 1000 + 1000 * i for i in (1, 2, 3)]
    first = datetime.fromtimestamp(T0 / 1000 + OFFSET + 3, UTC)
    later = mt5.copy_ticks_range("EURUSD", first, 2**40, 1)
    assert later is not None
    assert list(later["bid"]) == [1.10001, 1.10002, 1.10003, 1.10004]
    trades = mt5.copy_ticks_from("EURUSD", 0, 3, 2)
    assert trades is not None
    assert len(trades) == 0


def test_rates_are_built_from_the_ticks() -> None:
    """Open, high, low, close and tick volume of each bar; position 0 is the current one."""
    world, mt5 = opened()
    for bid in (1.101, 1.099, 1.1005):
        world.tick(bid, bid + 0.0002)
    world.tick(1.105, 1.1052, after_ms=HOUR)
    rates = mt5.copy_rates_from_pos("EURUSD", 1 | 0x4000, 0, 2)
    assert rates is not None
    assert rates.dtype.itemsize == 60
    assert [tuple(row)[1:7] for row in rates] == [
        (1.1, 1.101, 1.099, 1.1005, 4, 10),
        (1.105, 1.105, 1.105, 1.105, 1, 20),
    ]
    start = int(rates["time"][0])
    by_date = mt5.copy_rates_from("EURUSD", 1 | 0x4000, start + 60, 5)
    by_range = mt5.copy_rates_range("EURUSD", 1 | 0x4000, start, start)
    assert by_date is not None
    assert by_range is not None
    assert len(by_date) == len(by_range) == 1
    assert mt5.copy_rates_from_pos("EURUSD", 7, 0, 2) is None
    assert mt5.last_error()[0] == LastError.INVALID_PARAMS


def test_without_numpy_the_arrays_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the array functions need numpy, and their error names it."""
    _, mt5 = opened()
    real = builtins.__import__

    def without_numpy(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "numpy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_numpy)
    with pytest.raises(ImportError, match="numpy"):
        mt5.copy_ticks_from("EURUSD", 0, 1, -1)
    assert mt5.order_send(BUY) is not None
