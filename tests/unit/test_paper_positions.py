"""What happens to positions: partial closes, hedging, netting, close-by, and the tickets they keep."""

from __future__ import annotations

from dtms_service.broker.door import CloseReason, Side
from dtms_service.broker.mt5_enums import Action, DealEntry, DealReason
from dtms_service.broker.retcodes import Retcode
from tests.unit.paper_world import World

NETTING = {"hedging": False}


def test_a_partial_close_keeps_everything_but_the_volume() -> None:
    """Ticket, identifier, opening price, levels, magic and comment stay; volume and time of update change."""
    world = World()
    ticket = world.buy(0.10, sl=1.09, tp=1.12, magic=7, comment="keep me").order
    before = world.broker.book.copies()[0]
    world.tick(1.1010, 1.1011)
    result = world.sell(0.04, position=ticket, comment="partial")
    assert (result.retcode, result.volume, result.price) == (Retcode.DONE, 0.04, 1.1010)
    after = world.broker.book.copies()[0]
    assert after.steps == 6
    for name in ("ticket", "identifier", "price_open", "sl_points", "tp_points", "magic", "comment", "time_msc"):
        assert getattr(after, name) == getattr(before, name)
    assert after.time_update_msc == before.time_update_msc + 1000


def test_two_partial_closes_leave_two_deals_of_one_position() -> None:
    """0.02 closed 0.01 + 0.01 by two orders: both deals name the same position, the second leaves nothing."""
    world = World()
    ticket = world.buy(0.02).order
    first, second = world.sell(0.01, position=ticket), world.sell(0.01, position=ticket)
    deals = world.broker.closing_deals(ticket)
    assert [d.deal for d in deals] == [first.deal, second.deal]
    assert [(d.volume, d.remaining, d.reason) for d in deals] == [
        (0.01, 0.01, CloseReason.EXPERT),
        (0.01, 0.0, CloseReason.EXPERT),
    ]
    assert world.broker.positions() == []


def test_a_hedging_account_holds_both_sides() -> None:
    """An opposite deal without a position opens a second position there; nothing is closed."""
    world = World()
    world.buy(0.1)
    world.sell(0.1)
    assert [p.side for p in world.broker.positions()] == [Side.BUY, Side.SELL]


def test_the_ticket_of_a_position_is_its_opening_order() -> None:
    """position.ticket == identifier == result.order, and the deal has a number of its own."""
    world = World()
    result = world.buy()
    [position] = world.broker.book.positions.values()
    assert position.ticket == position.identifier == result.order != result.deal


def test_netting_adds_at_the_average_and_replaces_levels() -> None:
    """The same side joins the position at the average price; the order's levels replace the position's, zero clears."""
    world = World(config=NETTING)
    ticket = world.buy(0.10, sl=1.09, tp=1.12).order
    world.tick(1.1100, 1.1101)
    world.buy(0.30, sl=1.08)
    [position] = world.broker.positions()
    assert (position.ticket, position.volume, position.sl, position.tp) == (ticket, 0.40, 1.08, None)
    assert abs(position.price_open - (1.1001 + 3 * 1.1101) / 4) < 1e-12


def test_netting_reduces_and_leaves_levels() -> None:
    """An opposite deal reduces the position; its own levels are ignored and the position's stay."""
    world = World(config=NETTING)
    world.buy(0.10, sl=1.09, tp=1.12)
    assert world.sell(0.04, sl=1.2).retcode == Retcode.DONE
    [position] = world.broker.positions()
    assert (position.side, position.volume, position.sl, position.tp) == (Side.BUY, 0.06, 1.09, 1.12)


def test_netting_reverses_in_one_deal() -> None:
    """More than the position reverses it: one INOUT deal, the identifier stays, ticket, side and levels change."""
    world = World(config=NETTING)
    ticket = world.buy(0.10, sl=1.09).order
    reversal = world.sell(0.25, sl=1.11)
    [position] = world.broker.book.positions.values()
    assert (position.identifier, position.ticket) == (ticket, reversal.order)
    assert (position.side, position.volume, position.sl) == (Side.SELL, 0.15, 1.11)
    deal = world.broker.book.ledger.deals[-1]
    assert (deal.entry, deal.volume) == (DealEntry.INOUT, 0.25)
    assert [(d.volume, d.remaining) for d in world.broker.closing_deals(ticket)] == [(0.10, 0.0)]
    assert world.balance == 9999.0  # ten points of spread on 0.10 lots


def test_netting_needs_no_position_for_levels() -> None:
    """There the symbol names the position."""
    world = World(config=NETTING)
    world.buy()
    assert world.sltp(0, 1.09, 0.0).retcode == Retcode.DONE
    assert world.broker.positions()[0].sl == 1.09


def test_close_by_saves_a_spread() -> None:
    """Two OUT_BY deals at the counter's opening price; the rest of the larger position stays with its ticket."""
    world = World()
    long, short = world.buy(0.30).order, world.sell(0.10).order
    result = world.send(action=Action.CLOSE_BY, symbol="EURUSD", position=long, position_by=short)
    assert (result.retcode, result.volume, result.price) == (Retcode.DONE, 0.10, 1.1)
    assert [(p.ticket, p.volume) for p in world.broker.positions()] == [(long, 0.20)]
    assert [d.entry for d in world.broker.book.ledger.deals[-2:]] == [DealEntry.OUT_BY] * 2
    assert world.balance == 9999.0


def test_the_change_count_rises_with_every_change() -> None:
    """Opening, levels, partial, trigger and close each raise it; ticks and refusals do not."""
    world = World()
    counts = [world.broker.change_count]
    ticket = world.buy(0.10).order
    counts.append(world.broker.change_count)
    world.sltp(ticket, 1.09, 0.0)
    counts.append(world.broker.change_count)
    world.sell(0.05, position=ticket)
    counts.append(world.broker.change_count)
    world.tick(1.1002, 1.1003)
    world.sltp(ticket, 1.5, 0.0)
    assert world.broker.change_count == counts[-1]
    world.tick(1.08, 1.0801)
    counts.append(world.broker.change_count)
    assert counts == sorted(set(counts))


def test_the_reason_tells_machine_from_hand() -> None:
    """Deals of the API carry EXPERT, those of a hand CLIENT."""
    world = World()
    ticket = world.buy().order
    world.broker.order_send(
        {"action": 1, "symbol": "EURUSD", "type": 1, "volume": 0.1, "position": ticket}, reason=DealReason.CLIENT
    )
    opening, closing = world.broker.book.ledger.deals[-2:]
    assert (opening.reason, closing.reason) == (DealReason.EXPERT, DealReason.CLIENT)
