"""The paper account's books: balance, deals and orders. Money is whole minor units (cents) of the account currency."""

from __future__ import annotations

from dataclasses import dataclass, field

from dtms_service.broker.door import CloseReason, ClosingDeal, OrderFate, OrderRecord, Side
from dtms_service.broker.mt5_enums import DealEntry, DealReason, DealType, OrderState, OrderType


@dataclass(frozen=True, slots=True)
class Deal:
    """``taken`` is the volume the deal took from the position and ``remaining`` what it left, both in lots."""

    ticket: int
    order: int
    time_msc: int
    type: DealType
    entry: DealEntry
    magic: int
    position: int
    reason: DealReason
    volume: float
    price: float
    commission_minor: int
    swap_minor: int
    profit_minor: int
    symbol: str
    comment: str
    taken: float
    remaining: float

    @property
    def total_minor(self) -> int:
        return self.commission_minor + self.swap_minor + self.profit_minor


@dataclass(slots=True)
class Order:
    """An order of the account. All orders here are market orders: open only while PLACED and not filled."""

    ticket: int
    time_setup_msc: int
    type: OrderType
    filling: int
    magic: int
    position: int
    position_by: int
    reason: DealReason
    volume_initial: float
    price: float
    sl: float
    tp: float
    symbol: str
    comment: str
    state: OrderState = OrderState.PLACED
    volume_current: float = 0.0
    time_done_msc: int = 0

    @property
    def side(self) -> Side:
        return Side.BUY if self.type is OrderType.BUY else Side.SELL


@dataclass(slots=True)
class Ledger:
    """Balance and history since the account was opened; the history is kept whole, as the broker keeps it.

    Invariant: ``balance_minor`` is the sum of ``total_minor`` over all deals, the first being the deposit.
    """

    digits: int
    next_order: int
    next_deal: int
    balance_minor: int = 0
    deals: list[Deal] = field(default_factory=list)
    orders: dict[int, Order] = field(default_factory=dict)
    _scale: float = field(init=False)
    _by_position: dict[int, list[Deal]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._scale = 10.0**self.digits

    def minor(self, amount: float) -> int:
        return round(amount * self._scale)

    def major(self, minor: int) -> float:
        return round(minor / self._scale, self.digits)

    def order_ticket(self) -> int:
        ticket, self.next_order = self.next_order, self.next_order + 1
        return ticket

    def deal_ticket(self) -> int:
        ticket, self.next_deal = self.next_deal, self.next_deal + 1
        return ticket

    def deposit(self, amount: float, time_msc: int) -> None:
        """Book a balance operation; a withdrawal is negative."""
        self.book(
            Deal(
                ticket=self.deal_ticket(),
                order=0,
                time_msc=time_msc,
                type=DealType.BALANCE,
                entry=DealEntry.IN,
                magic=0,
                position=0,
                reason=DealReason.CLIENT,
                volume=0.0,
                price=0.0,
                commission_minor=0,
                swap_minor=0,
                profit_minor=self.minor(amount),
                symbol="",
                comment="",
                taken=0.0,
                remaining=0.0,
            )
        )

    def book(self, deal: Deal) -> None:
        self.balance_minor += deal.total_minor
        self.deals.append(deal)
        if deal.position:
            self._by_position.setdefault(deal.position, []).append(deal)

    def of_position(self, position: int) -> list[Deal]:
        return list(self._by_position.get(position, ()))

    def of_ticket(self, ticket: int) -> list[Deal]:
        """Deals of a position while it had this ticket, the one that reversed it as the last."""
        deals = self.of_position(ticket) or self.of_position(self._identifier_of(ticket))
        of, found = (deals[0].position if deals else 0), list[Deal]()
        for deal in deals:
            if of == ticket:
                found.append(deal)
            if deal.entry is DealEntry.INOUT:
                of = deal.order
        return found

    def _identifier_of(self, ticket: int) -> int:
        """Of a position that a reversal has given this ticket; 0 if none has."""
        reversals = (deal for deal in reversed(self.deals) if deal.order == ticket and deal.entry is DealEntry.INOUT)
        return next((deal.position for deal in reversals), 0)

    def orders_with(self, comment: str) -> list[OrderRecord]:
        """Orders with that comment as the door shows them, oldest first.

        What was filled is told by the deals, which outlive this process; of an order without one only this run knows.
        """
        deals: dict[int, list[Deal]] = {}
        for deal in self.deals:
            if deal.comment == comment and deal.order:
                deals.setdefault(deal.order, []).append(deal)
        unfilled = {order.ticket: order for order in self.orders.values() if order.comment == comment}
        return [
            self._filled(ticket, deals[ticket]) if ticket in deals else self._unfilled(unfilled[ticket])
            for ticket in sorted({*deals, *unfilled})
        ]

    @staticmethod
    def _filled(ticket: int, deals: list[Deal]) -> OrderRecord:
        volume, last = sum(deal.volume for deal in deals), deals[-1]
        price = sum(deal.volume * deal.price for deal in deals) / volume
        volume = round(volume, 8)
        return OrderRecord(ticket, last.position, OrderFate.FILLED, volume, price, last.ticket, last.time_msc)

    @staticmethod
    def _unfilled(order: Order) -> OrderRecord:
        fate = OrderFate.WORKING if order.state is OrderState.PLACED else OrderFate.DROPPED
        return OrderRecord(order.ticket, order.position, fate, 0.0, 0.0, 0, order.time_done_msc or order.time_setup_msc)

    def closing(self, deal: Deal) -> ClosingDeal:
        """The deal as the door shows it."""
        return ClosingDeal(
            deal=deal.ticket,
            position=deal.position,
            symbol=deal.symbol,
            reason=CloseReason(deal.reason),
            volume=deal.taken,
            price=deal.price,
            profit=self.major(deal.profit_minor),
            commission=self.major(deal.commission_minor),
            swap=self.major(deal.swap_minor),
            time_msc=deal.time_msc,
            comment=deal.comment,
            remaining=deal.remaining,
        )
