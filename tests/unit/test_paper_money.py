"""Costs, margin and stop-out of the paper account, to the cent."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from dtms_service.broker.door import CloseReason, Side
from dtms_service.broker.mt5_enums import CalcMode, SwapMode
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_config import PaperConfig, SymbolTrading
from dtms_service.broker.retcodes import Retcode
from tests.unit.paper_world import CONFIG, HOUR, SPEC, TRADING, World

DAY = 24 * HOUR
USDJPY = replace(SPEC, name="USDJPY", digits=3, point=0.001, tick_size=0.001, currency_profit="JPY")
USDJPY_TRADING = replace(TRADING, currency_base="USD", currency_margin="USD")
EURJPY = replace(USDJPY, name="EURJPY")
EURJPY_TRADING = replace(TRADING, currency_base="EUR", currency_margin="JPY")


def test_nothing_that_touches_money_has_a_default() -> None:
    """Every field of account and symbol must be stated."""
    for kind in (PaperConfig, SymbolTrading):
        assert [f.name for f in fields(kind) if f.default is not f.default_factory] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account_id", "paper"),
        ("leverage", 0),
        ("balance", float("nan")),
        ("balance", -1.0),
        ("stop_out_percent", float("inf")),
        ("conversion_rates", {"JPY": 0.0}),
        ("first_deal", 0),
    ],
)
def test_bad_accounts_are_refused_by_name(field: str, value: object) -> None:
    """A configuration error names its field."""
    with pytest.raises(ValueError, match=field):
        replace(CONFIG, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"), [("point", 0.0), ("volume_min", 0.015), ("tick_size", 0.000015), ("stops_level", -1)]
)
def test_bad_symbols_are_refused_by_name(field: str, value: object) -> None:
    """A specification that no market can have names its field."""
    with pytest.raises(ValueError, match=field):
        PaperBroker(CONFIG).add_symbol(replace(SPEC, **{field: value}), TRADING)  # type: ignore[arg-type]


def test_profit_is_move_times_contract_times_volume() -> None:
    """0.10 lots, 90 points for a long bought at the ask: 9.00; the balance moves at the close, equity before."""
    world = World()
    ticket = world.buy(0.10).order
    world.tick(1.1010, 1.1011)
    assert world.broker.positions()[0].profit == 9.0
    assert (world.balance, world.broker.account().equity) == (10_000.0, 10_009.0)
    world.sell(0.10, position=ticket)
    assert world.balance == 10_009.0


def test_profit_scales_with_what_remains() -> None:
    """After half is closed, floating profit is half and the other half is in the balance."""
    world = World()
    ticket = world.buy(0.10).order
    world.tick(1.1010, 1.1011)
    world.sell(0.05, position=ticket)
    assert (world.broker.positions()[0].profit, world.balance) == (4.5, 10_004.5)


def test_commission_is_charged_per_lot_and_side() -> None:
    """3.50 a lot and side: 0.35 when opening 0.10, 0.14 when closing 0.04; it is the deal's, not the position's."""
    world = World(config={"commission_per_lot_side": 3.5})
    ticket = world.buy(0.10).order
    assert world.balance == 9999.65
    world.tick(1.1001, 1.1002)
    world.sell(0.04, position=ticket)
    assert world.broker.closing_deals(ticket)[0].commission == -0.14
    assert world.balance == 9999.51


def test_swap_comes_at_server_midnight_and_triple_once_a_week() -> None:
    """Tuesday 1 night, Wednesday 3, Thursday 1, Friday 1, weekend none, Monday 1: seven a week; -5 USD a lot each."""
    world = World(trading={"swap_mode": SwapMode.POINTS, "swap_long": -5.0, "swap_short": 2.0})
    world.buy(1.0)
    world.sell(1.0)
    seen = []
    for _ in range(7):
        world.tick(1.1, 1.1001, after_ms=DAY)
        seen.append([p.swap for p in world.broker.positions()])
    longs = [row[0] for row in seen]
    assert longs == [-5.0, -20.0, -25.0, -30.0, -30.0, -30.0, -35.0]
    assert [row[1] for row in seen] == [-0.4 * long for long in longs]


def test_the_midnight_is_the_servers() -> None:
    """At UTC+2 the day ends at 22:00 UTC."""
    world = World(
        config={"server_utc_offset_s": 7200}, trading={"swap_mode": SwapMode.CURRENCY_DEPOSIT, "swap_long": -3.0}
    )
    world.buy(1.0)
    world.tick(1.1, 1.1001, after_ms=12 * HOUR - 3000)
    assert world.broker.positions()[0].swap == 0.0
    world.tick(1.1, 1.1001, after_ms=2000)
    assert world.broker.positions()[0].swap == -3.0


def test_a_gap_over_several_midnights_charges_each() -> None:
    """One tick a week later brings the week's swap at once."""
    world = World(trading={"swap_mode": SwapMode.CURRENCY_DEPOSIT, "swap_long": -1.0})
    world.buy(1.0)
    world.tick(1.1, 1.1001, after_ms=7 * DAY)
    assert world.broker.positions()[0].swap == -7.0


def test_swap_leaves_with_the_volume_and_is_booked() -> None:
    """A partial close books its share of the swap; in the end the deals hold all of it."""
    world = World(trading={"swap_mode": SwapMode.CURRENCY_DEPOSIT, "swap_long": -1.0})
    ticket = world.buy(1.0).order
    world.tick(1.1001, 1.1002, after_ms=DAY)
    for volume in (0.33, 0.33, 0.34):
        world.sell(volume, position=ticket)
    assert round(sum(d.swap for d in world.broker.closing_deals(ticket)), 2) == -1.0
    assert world.balance == 9999.0


def test_margin_is_fixed_when_the_position_opens() -> None:
    """One lot at 1:100 binds 1,000 EUR at the opening rate; a later price changes equity, not margin."""
    world = World()
    world.buy(1.0)
    assert world.broker.account().margin == 1100.10
    world.tick(1.2, 1.2001)
    account = world.broker.account()
    assert (account.margin, account.equity, account.margin_free) == (1100.10, 19_990.0, 18_889.9)


@pytest.mark.parametrize(("hedged", "margin"), [(0.0, 1100.10), (50_000.0, 1650.13), (100_000.0, 2200.17)])
def test_hedged_volume_uses_the_hedged_margin(hedged: float, margin: float) -> None:
    """Two long, one short: the uncovered lot binds full margin, the pair what margin_hedged says."""
    world = World(trading={"margin_hedged": hedged})
    world.buy(2.0)
    world.sell(1.0)
    assert world.broker.account().margin == pytest.approx(margin, abs=0.01)


def test_calculation_modes() -> None:
    """CFD modes multiply by price, FOREX_NO_LEVERAGE and CFD ignore leverage."""
    for mode, margin in (
        (CalcMode.FOREX, 1100.10),
        (CalcMode.FOREX_NO_LEVERAGE, 110_010.0),
        (CalcMode.CFDLEVERAGE, 1100.10),
        (CalcMode.CFD, 110_010.0),
    ):
        currency = "USD" if mode in (CalcMode.CFD, CalcMode.CFDLEVERAGE) else "EUR"
        world = World(config={"balance": 1e6}, trading={"calc_mode": mode, "currency_margin": currency})
        world.buy(1.0)
        assert world.broker.account().margin == margin


def test_stop_out_takes_the_largest_loss_first_and_no_more_than_needed() -> None:
    """At 50 % the position that lost most goes, reason SO; the rest stays once the level is back."""
    world = World()
    old = world.buy(3.0).order
    world.tick(1.0950, 1.0951)
    new = world.buy(3.0).order
    [deal] = world.tick(1.0855, 1.0856)
    assert (deal.position, deal.reason, deal.price) == (old, CloseReason.STOP_OUT, 1.0855)
    assert deal.comment.startswith("[so ")
    assert [p.ticket for p in world.broker.positions()] == [new]


def test_stop_out_starts_exactly_at_the_level() -> None:
    """Equity of 50.00 % of the margin stops out, one point above it does not."""
    world = World(config={"balance": 1100.10})
    world.buy(1.0)  # stop-out at equity 550.05: a loss of 550.05, 550 points are 550.00
    assert world.tick(1.10010 - 0.00550, 1.1) == []
    assert len(world.tick(1.10010 - 0.00551, 1.1)) == 1


def test_a_covered_account_without_margin_is_stopped_at_zero() -> None:
    """Fully hedged without hedged margin, the widening spread alone may use up the equity: everything goes."""
    world = World(config={"balance": 100.0}, trading={"margin_hedged": 0.0})
    world.buy(0.01)
    for _ in range(8):
        world.buy(0.01)
    world.sell(0.09)
    assert world.broker.account().margin == 0.0
    assert world.tick(1.0000, 1.2001)
    assert world.broker.positions() == []


def test_profit_in_another_currency_is_converted_by_its_own_symbol() -> None:
    """USDJPY pays in yen: gains are sold at the ask, losses bought at the bid."""
    broker = PaperBroker(CONFIG)
    broker.add_symbol(USDJPY, USDJPY_TRADING)
    broker.on_tick("USDJPY", 1, 100.0, 100.01)
    broker.order_send({"action": 1, "symbol": "USDJPY", "type": 0, "volume": 1.0})
    assert broker.account().margin == 1000.0
    broker.on_tick("USDJPY", 2, 101.01, 101.02)
    assert broker.positions()[0].profit == round(100_000 / 101.02, 2)
    broker.on_tick("USDJPY", 3, 99.01, 99.02)
    assert broker.positions()[0].profit == round(-100_000 / 99.01, 2)


def test_a_cross_needs_its_conversions() -> None:
    """Listing EURJPY without a way from yen to dollars is an error that names both; a stated rate is a way."""
    with pytest.raises(ValueError, match="JPY to USD"):
        PaperBroker(CONFIG).add_symbol(EURJPY, EURJPY_TRADING)
    broker = PaperBroker(replace(CONFIG, conversion_rates={"JPY": 0.01}))
    broker.add_symbol(EURJPY, EURJPY_TRADING)
    broker.on_tick("EURJPY", 1, 120.0, 120.0)
    assert broker.calc_profit(broker.market("EURJPY"), Side.BUY, 1.0, 120.0, 121.0) == 1000.0


def test_a_conversion_without_a_quote_refuses_the_order() -> None:
    """Until USDJPY ticks, what an EURJPY position is worth is unknown: PRICE_OFF."""
    broker = PaperBroker(CONFIG)
    broker.add_symbol(USDJPY, replace(USDJPY_TRADING, currency_margin="JPY"))
    broker.add_symbol(EURJPY, EURJPY_TRADING)
    broker.on_tick("EURJPY", 1, 120.0, 120.01)
    order: dict[str, object] = {"action": 1, "symbol": "EURJPY", "type": 0, "volume": 0.1}
    assert broker.order_send(order).retcode == Retcode.PRICE_OFF
    broker.on_tick("USDJPY", 1, 100.0, 100.01)
    assert broker.order_send(order).retcode == Retcode.DONE


def test_a_conversion_tick_can_stop_out() -> None:
    """The account is judged when the rate moves too, not only when its own symbol ticks."""
    broker = PaperBroker(replace(CONFIG, balance=1000.0))
    broker.add_symbol(USDJPY, USDJPY_TRADING)
    broker.add_symbol(EURJPY, EURJPY_TRADING)
    broker.on_tick("USDJPY", 1, 100.0, 100.01)
    broker.on_tick("EURJPY", 1, 120.0, 120.01)
    assert broker.order_send({"action": 1, "symbol": "EURJPY", "type": 0, "volume": 1.0}).retcode == Retcode.DONE
    assert broker.on_tick("EURJPY", 2, 119.2, 119.21) == []
    [deal] = broker.on_tick("USDJPY", 3, 70.0, 70.01)
    assert deal.reason is CloseReason.STOP_OUT
