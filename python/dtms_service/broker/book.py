"""The open positions of a paper account and every way they change; what they are worth and what margin they bind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from dtms_service.broker.door import AccountInfo, Position, Side
from dtms_service.broker.ledger import Deal, Ledger, Order
from dtms_service.broker.market import Market, PaperPosition
from dtms_service.broker.mt5_enums import DealEntry, DealReason, DealType, OrderState, OrderType
from dtms_service.broker.paper_config import PaperConfig
from dtms_service.broker.structs import TradeRequest
from dtms_service.broker.valuation import Valuation, charged_nights

MICRO = 1_000_000  # running sums are whole millionths, so that adding and taking away leaves no dust

CHANGES_KEPT = 4096  # who reads less often than that reads everything


class Booked(NamedTuple):
    """What another broker booked for a deal, in minor units: profit, commission and swap."""

    profit_minor: int
    commission_minor: int
    swap_minor: int


class Book:
    """``change_count`` rises with every change of any position; ``made`` collects deals until someone takes them."""

    def __init__(self, config: PaperConfig, before_deal: Callable[[], None]) -> None:
        self.config = config
        self.ledger = Ledger(config.currency_digits, config.first_order, config.first_deal)
        self.markets: dict[str, Market] = {}
        self.positions: dict[int, PaperPosition] = {}
        self.changed: list[Market] = []
        self.valuation = Valuation(config, self.markets)
        self.now_msc = 0
        self.change_count = 0
        self._changes: deque[tuple[int, int]] = deque(maxlen=CHANGES_KEPT)
        self.made: list[Deal] = []
        self._before_deal = before_deal
        self._margin_minor = self._swap_minor = self._floating_micro = 0
        self.ledger.deposit(config.balance, time_msc=0)

    def enter(self, market: Market, order: Order, request: TradeRequest, *, steps: int, price: float) -> Deal:
        """Execute an order that names no position: open one, or on a netting account add, reduce or reverse."""
        self._before_deal()
        held = None if self.config.hedging else next(iter(market.positions.values()), None)
        if held is None:
            return self._open(market, order, request, steps=steps, price=price)
        if held.side is order.side:
            return self._add(held, order, request, steps=steps, price=price)
        if steps <= held.steps:
            return self._reduce(held, order, DealEntry.OUT, steps=steps, price=price)
        return self._reverse(held, order, request, steps=steps, price=price)

    def _open(self, market: Market, order: Order, request: TradeRequest, *, steps: int, price: float) -> Deal:
        side = order.side
        position = PaperPosition(
            ticket=order.ticket,
            identifier=order.ticket,
            market=market,
            side=side,
            steps=steps,
            price_open=price,
            sl_points=market.points(request.sl),
            tp_points=market.points(request.tp),
            time_msc=self.now_msc,
            time_update_msc=self.now_msc,
            magic=order.magic,
            comment=order.comment,
            reason=order.reason,
            unit_margin=self.valuation.unit_margin(market, side, price),
        )
        market.positions[position.ticket] = self.positions[position.ticket] = position
        order.position = position.identifier
        deal = self._book(position, order, DealEntry.IN, steps=steps, price=price)
        self.touch(position)
        return deal

    def _add(self, position: PaperPosition, order: Order, request: TradeRequest, *, steps: int, price: float) -> Deal:
        """Netting: the volumes join at their average price, the order's levels replace the position's."""
        total, market = position.steps + steps, position.market
        unit = self.valuation.unit_margin(market, position.side, price)
        position.price_open = (position.price_open * position.steps + price * steps) / total
        position.unit_margin = (position.unit_margin * position.steps + unit * steps) / total
        position.steps = total
        position.sl_points, position.tp_points = market.points(request.sl), market.points(request.tp)
        order.position = position.identifier
        deal = self._book(position, order, DealEntry.IN, steps=steps, price=price)
        self.touch(position)
        return deal

    def _reverse(
        self, position: PaperPosition, order: Order, request: TradeRequest, *, steps: int, price: float
    ) -> Deal:
        """Netting: one INOUT deal closes the position and opens the rest; the identifier stays, the ticket changes."""
        market = position.market
        profit = self._profit_minor(position, position.steps, price)
        order.position = position.identifier
        deal = self._book(
            position,
            order,
            DealEntry.INOUT,
            steps=steps,
            price=price,
            taken=position.steps,
            profit_minor=profit,
            swap_minor=position.swap_minor,
        )
        self._note_change(position)  # of the ticket that is gone
        del market.positions[position.ticket], self.positions[position.ticket]
        position.ticket, position.side, position.steps = order.ticket, position.side.opposite, steps - position.steps
        position.price_open, position.swap_minor = price, 0
        position.sl_points, position.tp_points = market.points(request.sl), market.points(request.tp)
        position.time_msc, position.magic, position.comment = self.now_msc, order.magic, order.comment
        position.unit_margin = self.valuation.unit_margin(market, position.side, price)
        market.positions[position.ticket] = self.positions[position.ticket] = position
        self.touch(position)
        return deal

    def take_in(self, position: PaperPosition) -> None:
        """A position that was not opened here: no deal of this account stands for it."""
        position.market.positions[position.ticket] = self.positions[position.ticket] = position
        self.touch(position)

    def reduce(
        self,
        position: PaperPosition,
        order: Order,
        entry: DealEntry,
        *,
        steps: int,
        price: float,
        booked: Booked | None = None,
    ) -> Deal:
        """Execute an order that closes all or a part of the position; ``booked`` is taken over where it is given."""
        self._before_deal()
        return self._reduce(position, order, entry, steps=steps, price=price, booked=booked)

    def _reduce(
        self,
        position: PaperPosition,
        order: Order,
        entry: DealEntry,
        *,
        steps: int,
        price: float,
        booked: Booked | None = None,
    ) -> Deal:
        """Take volume away. Ticket, opening price, levels, magic and comment stay; swap leaves in proportion."""
        swap = position.swap_minor * steps // position.steps if booked is None else booked.swap_minor
        profit = self._profit_minor(position, steps, price) if booked is None else booked.profit_minor
        order.position = position.identifier
        deal = self._book(
            position,
            order,
            entry,
            steps=steps,
            price=price,
            taken=steps,
            profit_minor=profit,
            swap_minor=swap,
            commission_minor=None if booked is None else booked.commission_minor,
        )
        position.steps -= steps
        position.swap_minor -= swap
        if not position.steps:
            del position.market.positions[position.ticket], self.positions[position.ticket]
        self.touch(position)
        return deal

    def touch(self, position: PaperPosition) -> None:
        position.time_update_msc = self.now_msc
        position.market.outdate()
        self._note_change(position)

    def set_levels(self, position: PaperPosition, sl_points: int, tp_points: int) -> None:
        position.sl_points, position.tp_points = sl_points, tp_points
        position.time_update_msc = self.now_msc
        position.market.watch(position)
        self._note_change(position)

    def changed_since(self, count: int) -> frozenset[int] | None:
        """Tickets that changed after the change count ``count``; None where that is not known any more."""
        changes = self.change_count - count
        if not 0 <= changes <= len(self._changes):
            return None
        return frozenset(ticket for _count, ticket in islice(reversed(self._changes), changes))

    def _note_change(self, position: PaperPosition) -> None:
        self.change_count += 1
        self._changes.append((self.change_count, position.ticket))

    def await_exit(self, position: PaperPosition, reason: DealReason) -> None:
        """The position is triggered and leaves with the symbol's next tick."""
        position.exit = reason
        self.touch(position)

    def _book(
        self,
        position: PaperPosition,
        order: Order,
        entry: DealEntry,
        *,
        steps: int,
        price: float,
        taken: int = 0,
        profit_minor: int = 0,
        swap_minor: int = 0,
        commission_minor: int | None = None,
    ) -> Deal:
        market = position.market
        volume = market.lots(steps)
        if commission_minor is None:
            commission_minor = -self.ledger.minor(self.config.commission_per_lot_side * volume)
        side = position.side if entry is DealEntry.IN else position.side.opposite
        deal = Deal(
            ticket=self.ledger.deal_ticket(),
            order=order.ticket,
            time_msc=self.now_msc,
            type=DealType.BUY if side is Side.BUY else DealType.SELL,
            entry=entry,
            magic=order.magic,
            position=position.identifier,
            reason=order.reason,
            volume=volume,
            price=price,
            commission_minor=commission_minor,
            swap_minor=swap_minor,
            profit_minor=profit_minor,
            symbol=market.spec.name,
            comment=order.comment,
            taken=market.lots(taken),
            remaining=market.lots(max(0, position.steps - taken)) if taken else position.volume,
        )
        self.ledger.book(deal)
        self.made.append(deal)
        return deal

    def new_order(
        self,
        market: Market,
        side: Side,
        steps: int,
        *,
        magic: int,
        comment: str,
        reason: DealReason,
        price: float,
    ) -> Order:
        """Register an order; ``price`` is the one asked for."""
        order = Order(
            ticket=self.ledger.order_ticket(),
            time_setup_msc=self.now_msc,
            type=OrderType.BUY if side is Side.BUY else OrderType.SELL,
            filling=0,
            magic=magic,
            position=0,
            position_by=0,
            reason=reason,
            volume_initial=market.lots(steps),
            volume_current=market.lots(steps),
            price=price,
            sl=0.0,
            tp=0.0,
            symbol=market.spec.name,
            comment=comment,
        )
        self.ledger.orders[order.ticket] = order
        return order

    def fill(self, order: Order, volume: float) -> None:
        order.volume_current = round(order.volume_initial - volume, 8)
        self._done(order, OrderState.PARTIAL if order.volume_current else OrderState.FILLED)

    def cancel(self, order: Order, state: OrderState) -> None:
        self._done(order, state)

    def _done(self, order: Order, state: OrderState) -> None:
        order.state, order.time_done_msc = state, self.now_msc

    def lacks_margin(self, market: Market, side: Side, steps: int) -> bool:
        """Whether opening needs more margin than is free. What lowers the margin (a hedge, a reduction) never does."""
        margin = self.margin_minor()
        needed = self.margin_with(market, side, steps) - margin
        return needed > 0 and not self._equity_above(margin + needed - 1)

    def margin_with(self, market: Market, side: Side, steps: int) -> int:
        """The account's margin if such an order were executed now."""
        market.refresh()
        long, short = copy(market.long), copy(market.short)
        price = market.open_price(side)
        unit = self.valuation.unit_margin(market, side, price)
        own, other = (long, short) if side is Side.BUY else (short, long)
        reduced = self.netted_with(market, side)
        if reduced is not None:
            taken = min(steps, reduced.steps)
            other.add(-taken, reduced.price_open, reduced.unit_margin)
            steps -= taken
        own.add(steps, price, unit)
        after = self.ledger.minor(self.valuation.margin(market, long, short))
        return self.margin_minor() - market.margin_minor + after

    def netted_with(self, market: Market, side: Side) -> PaperPosition | None:
        """The position that an order of this side reduces instead of opening one (netting accounts)."""
        held = None if self.config.hedging else next(iter(market.positions.values()), None)
        return held if held is not None and held.side is not side else None

    # --- worth -------------------------------------------------------------------------------------------------------

    def _profit_minor(self, position: PaperPosition, steps: int, price: float) -> int:
        lots = position.market.lots(steps)
        return self.ledger.minor(
            self.valuation.profit(position.market, position.side, lots, position.price_open, price)
        )

    def result_minor(self, position: PaperPosition) -> int:
        """Floating profit and swap."""
        return self.ledger.minor(self.valuation.floating(position)) + position.swap_minor

    def equity_minor(self) -> int:
        """Balance, and :meth:`result_minor` of every position."""
        minor, floating_each = self.ledger.minor, self.valuation.floating_each
        floating = sum(minor(worth) for market in self.markets.values() for worth in floating_each(market))
        return self.ledger.balance_minor + floating + sum(p.swap_minor for p in self.positions.values())

    def margin_minor(self) -> int:
        self._settle()
        return self._margin_minor

    def below_stop_out(self) -> bool:
        """Whether equity is at or below the stop-out share of the margin; with no margin, whether it is used up."""
        return not self._equity_above(self.config.stop_out_percent * self.margin_minor() / 100)

    def _equity_above(self, threshold: float) -> bool:
        """Whether equity in minor units is above the threshold.

        The running sums leave out the rounding (half a unit a position) and the spread of a conversion rate: far from
        the threshold they decide, near it every position is valued on its own.
        """
        self._settle()
        moved = self._floating_micro * self.ledger.minor(1.0) / MICRO
        equity = self.ledger.balance_minor + self._swap_minor + moved
        doubt = len(self.positions) + abs(moved) * 0.01
        if abs(equity - threshold) > doubt:
            return equity > threshold
        return self.equity_minor() > threshold

    def revalue(self, market: Market) -> None:
        """Renew what a quote changes: the symbol's floating sum, and all others if the quote converts their money."""
        for each in self.markets.values() if market.converts else (market,):
            if each.positions or each.floating_micro:
                floating = round(self.valuation.floating_sum(each) * MICRO)
                self._floating_micro += floating - each.floating_micro
                each.floating_micro = floating

    def _settle(self) -> None:
        """Renew the sums of the markets whose positions changed."""
        while self.changed:
            market = self.changed.pop()
            market.refresh()
            margin = self.ledger.minor(self.valuation.margin(market, market.long, market.short))
            self._margin_minor += margin - market.margin_minor
            market.margin_minor = margin
            self._swap_minor = sum(m.swap_minor for m in self.markets.values())
            self.revalue(market)

    def charge_swap(self, day: int) -> None:
        """Charge every position for the midnight that ends ``day`` (days since 1970-01-01, server time)."""
        for position in self.positions.values():
            nights = charged_nights(position.market, day)
            position.swap_minor += self.ledger.minor(self.valuation.swap(position, nights))
        for market in self.markets.values():
            market.rewatch()
        self.change_count += 1
        self._changes.clear()  # every position changed

    # --- views -------------------------------------------------------------------------------------------------------

    def account(self) -> AccountInfo:
        equity, margin, major = self.equity_minor(), self.margin_minor(), self.ledger.major
        return AccountInfo(
            account_id=self.config.account_id,
            hedging=self.config.hedging,
            currency=self.config.currency,
            leverage=self.config.leverage,
            balance=major(self.ledger.balance_minor),
            equity=major(equity),
            margin=major(margin),
            margin_free=major(equity - margin),
        )

    def copies(self) -> list[PaperPosition]:
        """Copies that later deals do not touch, oldest first."""
        return [replace(position) for position in self.positions.values()]

    def floating(self, position: PaperPosition) -> float:
        """Floating profit of a position, account currency, without its swap."""
        return self.ledger.major(self.ledger.minor(self.valuation.floating(position)))

    def view(self, position: PaperPosition) -> Position:
        """The position as the door shows it, valued at the last quote."""
        return Position(
            ticket=position.ticket,
            symbol=position.market.spec.name,
            side=position.side,
            volume=position.volume,
            price_open=position.price_open,
            sl=position.sl,
            tp=position.tp,
            time_msc=position.time_msc,
            magic=position.magic,
            comment=position.comment,
            profit=self.floating(position),
            swap=self.ledger.major(position.swap_minor),
        )
