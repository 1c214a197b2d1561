"""The fault switches: what a program sees while the server keeps the truth."""

from __future__ import annotations

import pytest

from dtms_service.broker.door import Side
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_api import PaperMt5
from dtms_service.broker.mt5_enums import DealReason, FillingFlag
from dtms_service.broker.retcodes import LastError, Retcode
from tests.unit.paper_world import World

BUY: dict[str, object] = {"action": 1, "symbol": "EURUSD", "type": 0, "volume": 0.1, "type_filling": 1}


class Seen(World):
    """A world with a program looking at it."""

    def __init__(self) -> None:
        super().__init__()
        self.faults = self.broker.faults
        self.mt5 = PaperMt5(self.broker)
        assert self.mt5.initialize()

    def code(self, request: dict[str, object]) -> int:
        result = self.mt5.order_send(request)
        assert result is not None
        return result.retcode

    def shown(self) -> list[int]:
        positions = self.mt5.positions_get()
        assert positions is not None
        return [p.ticket for p in positions]


@pytest.mark.parametrize("code", [LastError.INTERNAL_FAIL_SEND, LastError.INTERNAL_FAIL_RECEIVE])
def test_a_failed_call_answers_none_and_its_code(code: LastError) -> None:
    """The next call answers None with the code and reaches nobody; the one after works and resets last_error."""
    world = Seen()
    world.faults.fail_calls(code)
    assert world.mt5.order_send(BUY) is None
    assert world.mt5.last_error()[0] == code
    assert world.mt5.positions_get() == ()
    assert world.mt5.last_error() == (1, "Success")


def test_a_dead_terminal_stays_dead_until_initialised() -> None:
    """First -10002, then -10004 on every call, -10003 from initialize while no terminal runs; then all is well."""
    world = Seen()
    world.faults.kill_terminal()
    codes = []
    for _ in range(3):
        assert world.mt5.positions_get() is None
        codes.append(world.mt5.last_error()[0])
    assert codes == [-10002, -10004, -10004]
    assert world.mt5.initialize() is False
    assert world.mt5.last_error()[0] == -10003
    world.faults.start_terminal()
    assert world.mt5.positions_get() is None
    assert world.mt5.initialize()
    assert world.mt5.positions_get() == ()


@pytest.mark.parametrize(
    "code", [Retcode.REQUOTE, Retcode.TIMEOUT, Retcode.TOO_MANY_REQUESTS, Retcode.CONNECTION, Retcode.REJECT]
)
def test_injected_retcodes_answer_the_next_requests(code: Retcode) -> None:
    """The next N requests get the code and are not executed; the one after is."""
    world = Seen()
    world.faults.inject(code, count=2)
    assert [world.code(BUY) for _ in range(3)] == [code, code, Retcode.DONE]
    assert len(world.shown()) == 1


def test_a_timeout_may_have_been_executed() -> None:
    """With ``executes`` the answer says TIMEOUT with zeros, and the position is there."""
    world = Seen()
    world.faults.inject(Retcode.TIMEOUT, executes=True)
    result = world.mt5.order_send(BUY)
    assert result is not None
    assert (result.retcode, result.order, result.deal) == (Retcode.TIMEOUT, 0, 0)
    assert len(world.shown()) == 1


def test_a_lost_reply_is_none_and_the_order_is_executed() -> None:
    """The caller sees None and -10002; the server holds the position."""
    world = Seen()
    world.faults.lose_replies()
    assert world.mt5.order_send(BUY) is None
    assert world.mt5.last_error()[0] == LastError.INTERNAL_FAIL_RECEIVE
    assert len(world.shown()) == 1


def test_placed_then_filled() -> None:
    """PLACED has an order and no deal; it fills at the first tick that is late enough, at that tick's price."""
    world = Seen()
    world.faults.place(delay_ms=1500)
    result = world.mt5.order_send(BUY)
    assert result is not None
    assert (result.retcode, result.deal) == (Retcode.PLACED, 0)
    orders = world.mt5.orders_get()
    assert orders is not None
    assert [o.ticket for o in orders] == [result.order]
    world.tick(1.1002, 1.1003)
    assert world.shown() == []
    world.tick(1.1004, 1.1005)
    assert world.shown() == [result.order]
    assert world.broker.positions()[0].price_open == 1.1005
    assert world.mt5.orders_total() == 0


def test_a_placed_close_blocks_a_second_one_and_is_reported_by_the_tick() -> None:
    """While a close is pending another is CLOSE_ORDER_EXIST; the tick that fills it reports the deal."""
    world = Seen()
    ticket = world.buy().order
    world.faults.place(delay_ms=500)
    close = BUY | {"type": 1, "position": ticket}
    assert [world.code(close), world.code(close)] == [Retcode.PLACED, Retcode.CLOSE_ORDER_EXIST]
    [deal] = world.tick(1.1003, 1.1004)
    assert (deal.position, deal.price, deal.remaining) == (ticket, 1.1003, 0.0)


def test_a_stop_may_win_against_a_placed_close() -> None:
    """The stop works while the close is pending; the order is then cancelled, not executed as an opening."""
    world = Seen()
    ticket = world.buy(sl=1.099).order
    world.faults.place(delay_ms=500)
    world.mt5.order_send(BUY | {"type": 1, "position": ticket})
    [deal] = world.tick(1.098, 1.0981)
    assert deal.reason.name == "STOP_LOSS"
    assert world.shown() == []
    assert world.mt5.orders_total() == 0


def test_a_partial_fill_is_done_partial() -> None:
    """Half of an IOC order is filled: DONE_PARTIAL with the filled volume."""
    world = Seen()
    world.faults.fill_partly(0.5)
    result = world.mt5.order_send(BUY)
    assert result is not None
    assert (result.retcode, result.volume) == (Retcode.DONE_PARTIAL, 0.05)
    assert world.broker.positions()[0].volume == 0.05


def test_positions_get_lags_behind_a_deal() -> None:
    """For N ms of virtual time after a deal the old positions are shown, then the truth."""
    world = Seen()
    world.faults.stale_positions_ms = 1500
    ticket = world.buy().order
    assert world.shown() == []
    world.tick(1.1, 1.1001, after_ms=1000)
    assert world.shown() == []
    world.tick(1.1, 1.1001, after_ms=1000)
    assert world.shown() == [ticket]
    world.sell(0.04, position=ticket)
    positions = world.mt5.positions_get(ticket=ticket)
    assert positions is not None
    assert positions[0].volume == 0.10


def test_rules_change_in_mid_run() -> None:
    """Stops level, filling mask and spread may change at any time and hold from then on."""
    world = Seen()
    ticket = world.buy().order
    world.change(spec={"stops_level": 100})
    assert world.sltp(ticket, 1.09950, 0.0).retcode == Retcode.INVALID_STOPS
    world.change(trading={"filling": FillingFlag.FOK})
    assert world.code(BUY) == Retcode.INVALID_FILL
    world.broker.widen_spread("EURUSD", 50)
    world.tick(1.1, 1.1001)
    tick = world.mt5.symbol_info_tick("EURUSD")
    assert tick is not None
    assert (tick.bid, tick.ask) == (1.1, 1.1006)
    with pytest.raises(ValueError, match="volume_step"):
        world.change(spec={"volume_step": 0.1})


def test_a_disconnected_terminal_is_blind_while_the_stop_works() -> None:
    """Requests get 10031, reads show what was seen last; after the reconnect the position is gone, with its deal."""
    world = Seen()
    ticket = world.buy(sl=1.099).order
    world.faults.disconnect()
    info = world.mt5.terminal_info()
    assert info is not None
    assert info.connected is False
    assert world.code(BUY) == Retcode.CONNECTION
    world.tick(1.098, 1.0981)
    assert world.shown() == [ticket]
    tick = world.mt5.symbol_info_tick("EURUSD")
    assert tick is not None
    assert tick.bid == 1.1
    world.faults.reconnect()
    assert world.shown() == []
    assert world.broker.closing_deals(ticket)[0].reason.name == "STOP_LOSS"


@pytest.mark.parametrize(
    ("switch", "value", "code"),
    [("trade_allowed", False, Retcode.CLIENT_DISABLES_AT), ("server_allows", False, Retcode.SERVER_DISABLES_AT)],
)
def test_autotrading_switched_off(switch: str, value: object, code: Retcode) -> None:
    """The terminal's button is 10027, the server's switch 10026."""
    world = Seen()
    setattr(world.faults, switch, value)
    assert world.code(BUY) == code


def test_the_api_switched_off() -> None:
    """With the Python API disabled order_send answers None and -8; reads work."""
    world = Seen()
    world.faults.tradeapi_disabled = True
    assert world.mt5.order_send(BUY) is None
    assert world.mt5.last_error()[0] == LastError.AUTO_TRADING_DISABLED
    assert world.shown() == []


def test_checks_come_layer_first_then_pipe_then_terminal_then_server() -> None:
    """A wrong type is told although the pipe is dead, a dead pipe before the button, the button before the link."""
    world = Seen()
    world.faults.disconnect()
    world.faults.trade_allowed = False
    world.faults.fail_calls(LastError.INTERNAL_FAIL_SEND)
    assert world.mt5.order_send(BUY | {"sl": 1}) is None
    assert world.mt5.last_error() == (-2, 'Invalid "sl" argument')
    assert world.mt5.order_send(BUY) is None
    assert world.mt5.last_error()[0] == -10001
    assert world.code(BUY) == Retcode.CLIENT_DISABLES_AT
    world.faults.trade_allowed = True
    assert world.code(BUY) == Retcode.CONNECTION


def test_a_foreign_actor_trades_past_our_terminal() -> None:
    """Somebody else moves the stop, closes a part and opens, magic 0 and reason CLIENT, while our terminal is blind."""
    world = Seen()
    ticket = world.buy(0.10, magic=7).order
    world.faults.disconnect()
    foreign = ForeignActor(world.broker)
    before = world.broker.change_count
    assert foreign.modify(ticket, sl=1.05, tp=0.0).retcode == Retcode.DONE
    assert foreign.close(ticket, 0.04).retcode == Retcode.DONE
    opened = foreign.open("EURUSD", Side.SELL, 0.01, sl=0.0, tp=0.0).order
    assert world.broker.change_count == before + 3
    ours, theirs = world.broker.positions()
    assert (ours.sl, ours.volume, ours.magic) == (1.05, 0.06, 7)
    assert (theirs.ticket, theirs.magic) == (opened, 0)
    closing = world.broker.book.ledger.of_position(ticket)[-1]
    assert (closing.reason, closing.magic) == (DealReason.CLIENT, 0)
