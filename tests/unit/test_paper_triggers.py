"""Stops, targets and the path of the price: what the server does on its own."""

from __future__ import annotations

import pytest

from dtms_service.broker.bars import Bar, FirstExtreme, bar_ticks
from dtms_service.broker.door import CloseReason
from dtms_service.broker.mt5_enums import DealEntry, DealReason
from dtms_service.broker.paper_config import Slippage, SlippageModel
from dtms_service.broker.retcodes import Retcode
from tests.unit.paper_world import CONFIG, HOUR, T0, World


@pytest.mark.parametrize(
    ("side", "quote", "reason", "price"),
    [
        ("buy", (1.09901, 1.09911), None, 0.0),
        ("buy", (1.09900, 1.09910), CloseReason.STOP_LOSS, 1.09900),
        ("buy", (1.09850, 1.09860), CloseReason.STOP_LOSS, 1.09850),  # a gap slips in full
        ("buy", (1.10199, 1.10209), None, 0.0),
        ("buy", (1.10200, 1.10210), CloseReason.TAKE_PROFIT, 1.10200),
        ("buy", (1.10300, 1.10310), CloseReason.TAKE_PROFIT, 1.10200),
        ("sell", (1.10099, 1.10109), None, 0.0),
        ("sell", (1.10100, 1.10110), CloseReason.STOP_LOSS, 1.10110),
        ("sell", (1.10100, 1.10190), CloseReason.STOP_LOSS, 1.10190),  # the spread alone stops a short
        ("sell", (1.09801, 1.09811), None, 0.0),
        ("sell", (1.09800, 1.09810), CloseReason.TAKE_PROFIT, 1.09810),
    ],
)
def test_longs_leave_at_the_bid_and_shorts_at_the_ask(
    side: str, quote: tuple[float, float], reason: CloseReason | None, price: float
) -> None:
    """Long: SL at bid <= SL, TP at bid >= TP; short: SL at ask >= SL, TP at ask <= TP; SL at the tick, TP at level."""
    world = World()
    if side == "buy":
        world.buy(sl=1.09900, tp=1.10200)
    else:
        world.sell(sl=1.10110, tp=1.09810)
    deals = world.tick(*quote)
    assert [(d.reason, d.price) for d in deals] == ([] if reason is None else [(reason, price)])
    assert len(world.broker.positions()) == (reason is None)


def test_the_closing_deal_tells_what_triggered() -> None:
    """Entry OUT, reason SL or TP, comment "[sl 1.09900]", the position's magic and ticket, nothing remaining."""
    world = World()
    ticket = world.buy(sl=1.09900, tp=1.102, magic=42, comment="mine").order
    [shown] = world.tick(1.09890, 1.09900)
    assert (shown.position, shown.comment, shown.remaining) == (ticket, "[sl 1.09900]", 0.0)
    deal = world.broker.book.ledger.deals[-1]
    assert (deal.entry, deal.reason, deal.magic, deal.position) == (DealEntry.OUT, DealReason.SL, 42, ticket)
    world.buy(tp=1.10200)
    assert world.tick(1.102, 1.1021)[0].comment == "[tp 1.10200]"


def test_triggers_come_before_requests_of_the_same_instant() -> None:
    """A request after the tick that hit the stop finds the position closed."""
    world = World()
    ticket = world.buy(sl=1.09900).order
    world.tick(1.09900, 1.09910)
    assert world.sltp(ticket, 1.098, 0.0).retcode == Retcode.POSITION_CLOSED
    assert world.sell(position=ticket).retcode == Retcode.POSITION_CLOSED


def test_many_positions_fall_in_the_order_of_their_tickets() -> None:
    """One tick through several stops closes them all, oldest first."""
    world = World()
    tickets = [world.buy(sl=sl).order for sl in (1.097, 1.099, 1.098)]
    keep = world.buy(sl=1.05).order
    assert [d.position for d in world.tick(1.0965, 1.0966)] == tickets
    assert [p.ticket for p in world.broker.positions()] == [keep]


def test_slippage_next_tick() -> None:
    """The stop is triggered by one tick and filled by the next; in between the position is locked, not gone."""
    world = World(config={"slippage": Slippage(SlippageModel.NEXT_TICK, 0)})
    ticket = world.buy(sl=1.099).order
    assert world.tick(1.0989, 1.0990) == []
    assert [p.ticket for p in world.broker.positions()] == [ticket]
    assert world.sell(position=ticket).retcode == Retcode.CLOSE_ORDER_EXIST
    assert world.sltp(ticket, 1.09, 0.0).retcode == Retcode.CLOSE_ORDER_EXIST
    [deal] = world.tick(1.0995, 1.0996)
    assert (deal.price, deal.reason, deal.comment) == (1.0995, CloseReason.STOP_LOSS, "[sl 1.09900]")


def test_slippage_fixed_points() -> None:
    """Stops fill the given number of points worse, on either side; targets do not."""
    world = World(config={"slippage": Slippage(SlippageModel.FIXED_POINTS, 7)})
    world.buy(sl=1.099)
    assert world.tick(1.0990, 1.0991)[0].price == 1.09893
    world.sell(sl=1.1000)
    assert world.tick(1.1000, 1.1001)[0].price == 1.10017
    world.buy(tp=1.101)
    assert world.tick(1.1010, 1.1011)[0].price == 1.101


def test_slippage_models_and_points_must_agree() -> None:
    """Points without the fixed model, or the model without points, are a configuration error."""
    for model, points in ((SlippageModel.NONE, 3), (SlippageModel.FIXED_POINTS, 0), (SlippageModel.NEXT_TICK, -1)):
        with pytest.raises(ValueError, match="slippage"):
            Slippage(model, points)


def bar(o: float, h: float, low: float, c: float, volume: int = 10) -> Bar:
    return Bar(
        time_msc=T0 + HOUR,
        period_ms=HOUR,
        open=o,
        high=h,
        low=low,
        close=c,
        spread=0.0001,
        tick_volume=volume,
    )


def test_a_bar_is_four_ticks_inside_itself() -> None:
    """Open, extremes, close at 0, 1/4, 1/2, 3/4 of the period; the volumes sum to the bar's."""
    ticks = list(bar_ticks(bar(1.1, 1.2, 1.0, 1.15)))
    assert [t[0] - T0 - HOUR for t in ticks] == [0, HOUR // 4, HOUR // 2, 3 * HOUR // 4]
    assert [t[1] for t in ticks] == [1.1, 1.0, 1.2, 1.15]
    assert sum(t[3] for t in ticks) == 10
    assert all(ask == pytest.approx(bid + 0.0001) for _, bid, ask, _ in ticks)


def test_without_a_side_the_close_decides_the_path() -> None:
    """Low first when the bar closes up, high first otherwise, unless told."""
    assert [t[1] for t in bar_ticks(bar(1.1, 1.2, 1.0, 1.05))][1] == 1.2
    assert [t[1] for t in bar_ticks(bar(1.1, 1.2, 1.0, 1.10))][1] == 1.2
    assert [t[1] for t in bar_ticks(bar(1.1, 1.2, 1.0, 1.05), FirstExtreme.LOW)][1] == 1.0


def test_a_bar_hurts_the_position_first() -> None:
    """A bar that reaches stop and target closes a long at its stop (low first) and a short at its stop (high first)."""
    wide = bar(1.1000, 1.1100, 1.0900, 1.1000)
    for side, reason_price in (("buy", 1.0950), ("sell", 1.1050)):
        world = World()
        if side == "buy":
            world.buy(sl=1.0950, tp=1.1050)
        else:
            world.sell(sl=1.1050, tp=1.0950)
        [deal] = world.broker.on_bar("EURUSD", wide)
        assert (deal.reason, deal.price) == (CloseReason.STOP_LOSS, reason_price)


def test_inside_a_bar_the_price_walks_and_between_bars_it_jumps() -> None:
    """A level inside the bar fills at the level, one jumped over by the bar's open fills at the open."""
    world = World()
    world.buy(sl=1.0950)
    [deal] = world.broker.on_bar("EURUSD", bar(1.1000, 1.1010, 1.0900, 1.1000))
    assert deal.price == 1.0950
    world = World()
    world.buy(sl=1.0950)
    [deal] = world.broker.on_bar("EURUSD", bar(1.0940, 1.0960, 1.0900, 1.0950))
    assert deal.price == 1.0940


def test_on_a_walk_the_nearer_level_falls_first() -> None:
    """Levels met on one walk are filled in the order the price met them, not by ticket."""
    world = World()
    far, near = world.buy(sl=1.0940).order, world.buy(sl=1.0980).order
    deals = world.broker.on_bar("EURUSD", bar(1.1000, 1.1010, 1.0900, 1.1000))
    assert [d.position for d in deals] == [near, far]


@pytest.mark.parametrize(
    "quote",
    [(0.0, 1.1), (float("nan"), 1.1), (1.1, float("nan")), (1.1, float("inf")), (-1.0, 1.1), (1.2, 1.1), (1e-9, 1.0)],
)
def test_quotes_no_market_has(quote: tuple[float, float]) -> None:
    """Zero, NaN, infinite, negative and crossed quotes are errors; clock and price stay as they were."""
    world = World()
    before = world.broker.now_msc
    with pytest.raises(ValueError, match="not a quote"):
        world.tick(*quote)
    assert world.broker.now_msc == before
    assert world.broker.market("EURUSD").bid == 1.1


def test_time_never_runs_back() -> None:
    """A tick older than the last one is an error, an unknown symbol a KeyError."""
    world = World()
    with pytest.raises(ValueError, match="older"):
        world.tick(1.1, 1.1001, after_ms=-1)
    with pytest.raises(KeyError):
        world.tick(1.1, 1.1001, symbol="NOPE")


def test_bad_bars_are_refused() -> None:
    """A bar whose prices contradict each other cannot be made."""
    with pytest.raises(ValueError, match="do not fit"):
        bar(1.1, 1.0, 1.2, 1.1)


def test_first_tickets_are_configuration() -> None:
    """Orders and deals count separately, each from its own first ticket."""
    world = World()
    world.buy(sl=1.099)
    world.buy()
    world.tick(1.098, 1.0981)
    ledger = world.broker.book.ledger
    assert [d.ticket for d in ledger.deals] == [CONFIG.first_deal + i for i in range(4)]
    assert list(ledger.orders) == [CONFIG.first_order + i for i in range(3)]
