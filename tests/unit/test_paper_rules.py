"""The ordered checks of the paper broker, one fact each (mt5.md section 4)."""

from __future__ import annotations

import pytest

from dtms_service.broker.mt5_enums import Action, Execution, Filling, FillingFlag, OrderFlag, OrderType, TradeMode
from dtms_service.broker.paper_config import Session
from dtms_service.broker.requests import InvalidArgument
from dtms_service.broker.retcodes import COMMENTS, Retcode
from tests.unit.paper_world import CONFIG, HOUR, SPEC, TRADING, World

CHART = "\N{CHART WITH UPWARDS TREND}"  # two UTF-16 units


def test_every_retcode_has_a_text() -> None:
    """A refusal never comes without words."""
    assert set(COMMENTS) == set(Retcode)


@pytest.mark.parametrize("field", ["volume", "price", "sl", "tp", "stoplimit"])
@pytest.mark.parametrize("value", [1, None, "1.1", True])
def test_prices_and_volumes_must_be_floats(field: str, value: object) -> None:
    """An int, a text, a bool or None where a float belongs is refused by name, before anything is sent."""
    world = World()
    with pytest.raises(InvalidArgument) as refused:
        world.send(action=Action.DEAL, symbol="EURUSD", **{field: value})
    assert str(refused.value) == f'Invalid "{field}" argument'


@pytest.mark.parametrize("field", ["action", "magic", "deviation", "type", "type_filling", "position"])
@pytest.mark.parametrize("value", [1.0, None, "1", -1, 2**64])
def test_numbers_must_be_unsigned_ints(field: str, value: object) -> None:
    """A float, a text, None, a negative or an oversized number is refused by name."""
    with pytest.raises(InvalidArgument) as refused:
        World().send(**{field: value})
    assert refused.value.field == field


def test_texts_hold_29_utf16_units() -> None:
    """29 units pass, 30 do not; a character outside the basic plane counts two."""
    world = World()
    assert world.buy(comment="x" * 29).retcode == Retcode.DONE
    for comment in ("x" * 30, "x" * 28 + CHART):
        with pytest.raises(InvalidArgument):
            world.buy(comment=comment)
    assert world.buy(comment="x" * 27 + CHART).retcode == Retcode.DONE


def test_a_refusal_is_zeros_text_and_echo() -> None:
    """A refused request answers zeros, the retcode's text, a rising request_id and the request itself."""
    world = World()
    first, second = world.buy(0.001), world.buy(0.001)
    assert first.retcode == Retcode.INVALID_VOLUME
    assert (first.deal, first.order, first.volume, first.price, first.bid, first.ask) == (0, 0, 0.0, 0.0, 0.0, 0.0)
    assert first.comment == "Invalid volume"
    assert second.request_id == first.request_id + 1
    assert first.request.symbol == "EURUSD"


def test_a_success_names_deal_order_and_price() -> None:
    """A success carries both tickets, volume, price, bid, ask and the words of the journal."""
    result = World().buy(0.10, magic=77, comment="a b")
    assert (result.retcode, result.comment) == (Retcode.DONE, "Request executed")
    assert (result.order, result.deal) == (CONFIG.first_order, CONFIG.first_deal + 1)  # the first deal is the deposit
    assert (result.volume, result.price, result.bid, result.ask) == (0.10, 1.10010, 1.10000, 1.10010)
    assert (result.request.magic, result.request.comment) == (77, "a b")


# --- admission ---


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"symbol": "NOPE"}, Retcode.INVALID),
        ({"action": 3}, Retcode.INVALID),
        ({"type": 8}, Retcode.INVALID),
        ({"sl": float("nan")}, Retcode.INVALID),
        ({"tp": float("inf")}, Retcode.INVALID),
        ({"type_time": 9}, Retcode.INVALID_EXPIRATION),
        ({"action": Action.PENDING, "type": 2}, Retcode.INVALID_ORDER),
    ],
)
def test_malformed_requests(fields: dict[str, object], code: Retcode) -> None:
    """Unknown symbols, actions, order types and numbers that are none are refused before any market rule."""
    assert World(quoted=False).buy(**fields).retcode == code  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "kind", "code"),
    [
        (TradeMode.DISABLED, OrderType.BUY, Retcode.TRADE_DISABLED),
        (TradeMode.CLOSEONLY, OrderType.BUY, Retcode.CLOSE_ONLY),
        (TradeMode.LONGONLY, OrderType.SELL, Retcode.LONG_ONLY),
        (TradeMode.SHORTONLY, OrderType.BUY, Retcode.SHORT_ONLY),
        (TradeMode.LONGONLY, OrderType.BUY, Retcode.DONE),
        (TradeMode.SHORTONLY, OrderType.SELL, Retcode.DONE),
    ],
)
def test_trade_mode_limits_opening(mode: TradeMode, kind: OrderType, code: Retcode) -> None:
    """The trade mode forbids openings by side, each with its own code."""
    assert World(trading={"trade_mode": mode}).deal(kind, 0.1).retcode == code


@pytest.mark.parametrize("mode", [TradeMode.CLOSEONLY, TradeMode.SHORTONLY])
def test_trade_mode_never_blocks_a_close(mode: TradeMode) -> None:
    """Only DISABLED stops a close; close-only and the other side's mode let it pass."""
    world = World()
    ticket = world.buy().order
    world.change(trading={"trade_mode": mode})
    assert world.sell(position=ticket).retcode == Retcode.DONE


def test_outside_the_session_the_market_is_closed() -> None:
    """Sessions are in server time: at 10:00 UTC a server at +2 h has 12:00."""
    tuesday_noon = {"sessions": (Session(day=2, open_s=12 * 3600, close_s=13 * 3600),)}  # type: ignore[arg-type]
    world = World(config={"server_utc_offset_s": 7200}, trading=tuesday_noon)
    assert world.buy().retcode == Retcode.DONE
    world.tick(1.1, 1.1001, after_ms=HOUR)
    assert world.buy().retcode == Retcode.MARKET_CLOSED


def test_without_a_quote_there_is_no_price() -> None:
    """Before the first tick every deal is PRICE_OFF, and the market's closing is told first."""
    assert World(quoted=False).buy().retcode == Retcode.PRICE_OFF
    sunday = {"sessions": (Session(day=0, open_s=0, close_s=1),)}  # type: ignore[arg-type]
    assert World(quoted=False, trading=sunday).buy().retcode == Retcode.MARKET_CLOSED


def test_the_rate_limit_counts_requests_of_a_second() -> None:
    """The third request of a second is refused where two are allowed; the next second starts anew."""
    world = World(config={"requests_per_second": 2})
    assert [world.buy().retcode for _ in range(3)] == [Retcode.DONE, Retcode.DONE, Retcode.TOO_MANY_REQUESTS]
    world.tick(1.1, 1.1001)
    assert world.buy().retcode == Retcode.DONE


# --- SLTP ---


def test_levels_of_an_unknown_position() -> None:
    """A level change of a position that is gone is POSITION_CLOSED; of position 0 on hedging accounts INVALID."""
    world = World()
    assert world.sltp(999, 1.0, 0.0).retcode == Retcode.POSITION_CLOSED
    assert world.sltp(0, 1.0, 0.0).retcode == Retcode.INVALID


def test_levels_under_the_wrong_symbol() -> None:
    """The symbol must be the position's."""
    world = World()
    world.broker.add_symbol(
        SPEC.__class__(**{n: getattr(SPEC, n) for n in SPEC.__slots__} | {"name": "EURUSDm"}), TRADING
    )
    world.tick(1.1, 1.1001, symbol="EURUSDm")
    assert world.sltp(world.buy().order, 1.09, 0.0, symbol="EURUSDm").retcode == Retcode.INVALID


def test_sltp_replaces_both_levels() -> None:
    """A level that is left out is 0 and removes that level: the server merges nothing."""
    world = World()
    ticket = world.buy(sl=1.09, tp=1.12).order
    result = world.send(action=Action.SLTP, symbol="EURUSD", position=ticket, sl=1.095)
    assert (result.retcode, result.deal, result.order) == (Retcode.DONE, 0, 0)
    [position] = world.broker.positions()
    assert (position.sl, position.tp) == (1.095, None)


def test_equal_levels_are_no_changes() -> None:
    """Levels that round to those in place are NO_CHANGES, even where the stops level forbids them by now."""
    world = World()
    ticket = world.buy(sl=1.09980, tp=1.12).order
    world.tick(1.09985, 1.09995)
    assert world.sltp(ticket, 1.0998000001, 1.12).retcode == Retcode.NO_CHANGES


@pytest.mark.parametrize(
    ("kind", "sl", "tp", "code"),
    [
        (OrderType.BUY, 1.09990, 0.0, Retcode.DONE),  # bid - sl == level
        (OrderType.BUY, 1.09991, 0.0, Retcode.INVALID_STOPS),
        (OrderType.BUY, 1.10500, 0.0, Retcode.INVALID_STOPS),
        (OrderType.BUY, 0.0, 1.10010, Retcode.DONE),  # tp - bid == level
        (OrderType.BUY, 0.0, 1.10009, Retcode.INVALID_STOPS),
        (OrderType.BUY, -1.0, 0.0, Retcode.INVALID_STOPS),
        (OrderType.SELL, 1.10020, 0.0, Retcode.DONE),  # sl - ask == level
        (OrderType.SELL, 1.10019, 0.0, Retcode.INVALID_STOPS),
        (OrderType.SELL, 0.0, 1.10000, Retcode.DONE),  # ask - tp == level
        (OrderType.SELL, 0.0, 1.10001, Retcode.INVALID_STOPS),
    ],
)
@pytest.mark.parametrize("opening", [True, False])
def test_stops_level_is_measured_from_the_closing_price(
    kind: OrderType, sl: float, tp: float, code: Retcode, *, opening: bool
) -> None:
    """Longs are measured from the bid, shorts from the ask, the level itself is legal; the same for orders and SLTP."""
    world = World()
    if opening:
        assert world.deal(kind, 0.1, sl=sl, tp=tp).retcode == code
    else:
        assert world.sltp(world.deal(kind, 0.1).order, sl, tp).retcode == code


def test_without_a_stops_level_the_price_itself_is_too_near() -> None:
    """stops_level 0 sets no distance, but a stop at the price is not behind it."""
    world = World(spec={"stops_level": 0})
    assert world.buy(sl=1.10000).retcode == Retcode.INVALID_STOPS
    assert world.buy(sl=1.09999).retcode == Retcode.DONE


def test_an_unchanged_level_stays_legal() -> None:
    """The target may be moved while the price stands inside the stops level of the unchanged stop."""
    world = World()
    ticket = world.buy(sl=1.09980, tp=1.12).order
    world.tick(1.09985, 1.09995)
    assert world.sltp(ticket, 1.09980, 1.13).retcode == Retcode.DONE
    assert world.sltp(ticket, 1.09981, 1.13).retcode == Retcode.INVALID_STOPS


def test_levels_off_the_tick_size_are_refused() -> None:
    """Where the tick is larger than the point, a level between ticks is INVALID_STOPS."""
    world = World(spec={"tick_size": 0.00005})
    assert world.buy(sl=1.09001).retcode == Retcode.INVALID_STOPS
    assert world.buy(sl=1.09005).retcode == Retcode.DONE


@pytest.mark.parametrize("level", ["sl", "tp"])
def test_frozen_means_neither_modify_nor_close(level: str) -> None:
    """Within the freeze level of either level the position can be neither modified nor closed."""
    world = World(spec={"freeze_level": 20})
    levels = {"sl": 1.09, "tp": 1.12} | ({"sl": 1.09979} if level == "sl" else {"tp": 1.10021})
    ticket = world.buy(**levels).order
    assert world.sltp(ticket, 1.08, 1.13).retcode == Retcode.DONE
    assert world.sltp(ticket, levels["sl"], levels["tp"]).retcode == Retcode.DONE
    world.tick(*((1.09999, 1.10009) if level == "sl" else (1.10001, 1.10011)))
    assert world.sltp(ticket, 1.08, 1.13).retcode == Retcode.FROZEN
    assert world.sell(position=ticket).retcode == Retcode.FROZEN


# --- DEAL ---


def test_closing_what_is_gone() -> None:
    """A close of an unknown position is POSITION_CLOSED, whatever its volume."""
    assert World().sell(7.777, position=5).retcode == Retcode.POSITION_CLOSED


def test_a_close_must_be_opposite() -> None:
    """A deal of the position's own side under its ticket is INVALID."""
    world = World()
    assert world.buy(position=world.buy().order).retcode == Retcode.INVALID


@pytest.mark.parametrize("volume", [0.0, -0.1, 0.005, 0.015, 0.100001, 50.01, 1e300])
def test_volumes_off_the_rules(volume: float) -> None:
    """Below minimum, above maximum, off the step: INVALID_VOLUME, opening or closing."""
    world = World()
    assert world.buy(volume).retcode == Retcode.INVALID_VOLUME
    assert world.sell(volume, position=world.buy().order).retcode == Retcode.INVALID_VOLUME


def test_the_step_allows_the_noise_of_doubles() -> None:
    """0.1 + 0.2 is three tenths of a lot."""
    assert World().buy(0.1 + 0.2).retcode == Retcode.DONE


def test_closing_more_than_is_held() -> None:
    """More than the position's volume is INVALID_CLOSE_VOLUME; a remainder below the minimum is INVALID_VOLUME."""
    world = World(spec={"volume_min": 0.05})
    ticket = world.buy(0.10).order
    assert world.sell(0.11, position=ticket).retcode == Retcode.INVALID_CLOSE_VOLUME
    assert world.sell(0.07, position=ticket).retcode == Retcode.INVALID_VOLUME
    assert world.sell(0.05, position=ticket).retcode == Retcode.DONE


FILL_TABLE = [
    (Execution.REQUEST, FillingFlag(3), {Filling.FOK}),
    (Execution.INSTANT, FillingFlag(3), {Filling.FOK}),
    (Execution.MARKET, FillingFlag(1), {Filling.FOK}),
    (Execution.MARKET, FillingFlag(2), {Filling.IOC}),
    (Execution.MARKET, FillingFlag(3), {Filling.FOK, Filling.IOC}),
    (Execution.EXCHANGE, FillingFlag(0), {Filling.RETURN}),
    (Execution.EXCHANGE, FillingFlag(3), {Filling.FOK, Filling.IOC, Filling.RETURN}),
]


@pytest.mark.parametrize(("execution", "mask", "allowed"), FILL_TABLE)
def test_fill_modes_by_execution_and_mask(execution: Execution, mask: FillingFlag, allowed: set[Filling]) -> None:
    """The mask's bits are not the request's numbers; the same table holds for opening and closing."""
    for filling in Filling:
        world = World(trading={"execution": execution, "filling": mask})
        good = next(iter(allowed))
        expected = Retcode.DONE if filling in allowed else Retcode.INVALID_FILL
        assert world.buy(price=1.10010, type_filling=filling).retcode == expected
        ticket = world.buy(price=1.10010, type_filling=good).order
        assert world.sell(price=1.10000, type_filling=filling, position=ticket).retcode == expected


def test_instant_execution_requotes() -> None:
    """On Instant execution a price farther than the deviation is a requote, no price INVALID_PRICE; on Market neither
    matters."""
    instant = World(trading={"execution": Execution.INSTANT})
    assert instant.buy(price=1.10000, deviation=9).retcode == Retcode.REQUOTE
    assert instant.buy(price=1.10000, deviation=10).retcode == Retcode.DONE
    assert instant.buy().retcode == Retcode.INVALID_PRICE
    assert World().buy(price=1.0).retcode == Retcode.DONE


def test_limits_of_the_account_and_the_symbol() -> None:
    """Position count and volume of one direction are limited, each with its own code."""
    world = World(config={"limit_positions": 1})
    assert [world.buy().retcode, world.buy().retcode] == [Retcode.DONE, Retcode.LIMIT_POSITIONS]
    world = World(trading={"volume_limit": 0.2})
    assert [world.buy(0.15).retcode, world.buy(0.06).retcode] == [Retcode.DONE, Retcode.LIMIT_VOLUME]
    assert world.sell(0.2).retcode == Retcode.DONE


def test_hedges_can_be_prohibited() -> None:
    """Where hedging is prohibited an opposite opening is HEDGE_PROHIBITED; a close is not one."""
    world = World(config={"hedge_prohibited": True})
    ticket = world.buy().order
    assert world.sell().retcode == Retcode.HEDGE_PROHIBITED
    assert world.sell(position=ticket).retcode == Retcode.DONE


def test_fifo_closes_the_oldest_first() -> None:
    """Under FIFO only the oldest position of a side can be closed."""
    world = World(config={"fifo_close": True})
    first, second = world.buy().order, world.buy().order
    assert world.sell(position=second).retcode == Retcode.FIFO_CLOSE
    assert world.sell(position=first).retcode == Retcode.DONE


def test_no_money() -> None:
    """Margin above the free margin is NO_MONEY; a hedge that binds no more margin passes all the same."""
    world = World()
    assert world.buy(9.09).retcode == Retcode.DONE  # 9.09 * 1,100.10 = 9,999.91 of 10,000
    assert world.buy(0.01).retcode == Retcode.NO_MONEY
    assert world.sell(9.09).retcode == Retcode.DONE


def test_close_by_needs_two_opposite_positions_of_a_symbol() -> None:
    """Close-by is refused on netting accounts, where the symbol does not offer it, and for positions of one side."""
    world = World()
    first, second = world.buy().order, world.buy().order
    by = {"action": Action.CLOSE_BY, "symbol": "EURUSD"}
    assert world.send(**by, position=first, position_by=second).retcode == Retcode.INVALID
    assert world.send(**by, position=first, position_by=9).retcode == Retcode.POSITION_CLOSED
    world.change(trading={"order_mode": OrderFlag.MARKET})
    assert world.send(**by, position=first, position_by=second).retcode == Retcode.INVALID_ORDER


def test_the_first_failing_check_names_the_code() -> None:
    """With everything wrong at once the codes come in the documented order as each cause is removed."""
    world = World(quoted=False, trading={"trade_mode": TradeMode.DISABLED, "filling": FillingFlag.FOK})
    bad: dict[str, object] = {"sl": 1.2, "type_filling": Filling.IOC}
    assert world.buy(60.0, **bad).retcode == Retcode.TRADE_DISABLED
    world.change(trading={"trade_mode": TradeMode.FULL})
    assert world.buy(60.0, **bad).retcode == Retcode.PRICE_OFF
    world.tick(1.1, 1.1001)
    assert world.buy(60.0, **bad).retcode == Retcode.INVALID_VOLUME
    assert world.buy(40.0, **bad).retcode == Retcode.INVALID_FILL
    assert world.buy(40.0, sl=1.2).retcode == Retcode.INVALID_STOPS
    assert world.buy(40.0).retcode == Retcode.NO_MONEY
    assert world.buy(4.0).retcode == Retcode.DONE


def test_order_check_judges_and_changes_nothing() -> None:
    """order_check answers 0 "Done" with the margin after the trade, or the refusal; nothing is booked."""
    world = World()
    base: dict[str, object] = {"action": Action.DEAL, "symbol": "EURUSD", "type": 0, "volume": 1.0}
    good = world.broker.order_check(base)
    assert (good.retcode, good.comment, good.margin) == (0, "Done", 1100.10)
    assert world.broker.order_check(base | {"volume": 0.001}).retcode == Retcode.INVALID_VOLUME
    assert world.broker.positions() == []
    assert world.broker.change_count == 0
