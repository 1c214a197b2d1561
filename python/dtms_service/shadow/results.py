"""What positions earned, on the real account and in the shadow: pure reading of a store that no service has open."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from dtms_service.broker.door import CloseReason, Side
from dtms_service.shadow.book import MIRRORED
from dtms_service.shadow.record import ChangeKind, RealChange, RealPosition
from dtms_service.shadow.store import ShadowStore


@dataclass(frozen=True, slots=True)
class Result:
    """Money is account currency, as closing deals book it: profit, swap, and the commission of the closing side.

    What is open is valued at the last quotes that were saved; ``money`` is None where there are none. ``reason`` and
    ``price`` are those of the last closing deal, empty and 0 while the position is whole.
    """

    money: float | None
    is_open: bool
    ended_msc: int
    reason: str
    price: float


class Results:
    """Results by position. Closing deals of the shadow are charged what the real account took per lot of the symbol.

    A door does not tell an account's commission, so it is taken from the real closing deals: their sum over the volume
    that they closed, by symbol; 0 where none has been closed yet.
    """

    def __init__(self, store: ShadowStore) -> None:
        store.recall_quotes()
        self._book = store.book
        self._changes: dict[int, list[RealChange]] = {}
        for change in store.changes():
            self._changes.setdefault(change.ticket, []).append(change)
        paid, closed = defaultdict[str, float](float), defaultdict[str, float](float)
        for change in self.closings():
            symbol = self._book.real[change.ticket].symbol
            paid[symbol] += change.commission
            closed[symbol] += change.volume
        self._per_lot = {symbol: paid[symbol] / lots for symbol, lots in closed.items() if lots}

    @property
    def positions(self) -> dict[int, RealPosition]:
        """The real account's, by ticket."""
        return self._book.real

    def changes(self, ticket: int) -> list[RealChange]:
        """What happened to a real position, in order."""
        return self._changes.get(ticket, [])

    def closings(self) -> list[RealChange]:
        closing = {ChangeKind.REDUCED, ChangeKind.CLOSED}
        return [change for changes in self._changes.values() for change in changes if change.kind in closing]

    def real(self, ticket: int) -> Result:
        known = self._book.real[ticket]
        closings = [change for change in self.closings() if change.ticket == ticket]
        booked = sum(change.profit + change.commission + change.swap for change in closings)
        floating = self._floating(known) if known.is_open else 0.0
        last = closings[-1] if closings else None
        return Result(
            money=None if floating is None else self._rounded(booked + floating),
            is_open=known.is_open,
            ended_msc=last.time_msc if last is not None and not known.is_open else 0,
            reason=last.reason if last is not None else "",
            price=last.price if last is not None else 0.0,
        )

    def shadow(self, position: int) -> Result:
        """Of a shadow position: a trade's own, or a hedge or re-add that only the shadow has."""
        ledger, held = self._book.book.ledger, self._book.find_position(position)
        deals = [deal for deal in ledger.of_position(position) if deal.taken]
        costs = sum(
            self._per_lot.get(deal.symbol, 0.0) * deal.taken for deal in deals if not deal.comment.startswith(MIRRORED)
        )
        booked = sum(deal.total_minor for deal in deals)
        known = held is None or self._book.book.valuation.ready(held.market)
        floating = self._book.book.result_minor(held) if held is not None else 0
        last = deals[-1] if deals else None
        return Result(
            money=ledger.major(booked + floating + ledger.minor(costs)) if known else None,
            is_open=held is not None,
            ended_msc=last.time_msc if last is not None and held is None else 0,
            reason=CloseReason(last.reason).name if last is not None else "",
            price=last.price if last is not None else 0.0,
        )

    def risk(self, ticket: int, distance: float | None) -> float | None:
        """What the whole position loses over a price distance (None: to its first stop), without costs."""
        known = self._book.real[ticket]
        if distance is None and known.first_sl is not None:
            distance = abs(known.price_open - known.first_sl)
        per_price = known.money_per_price
        return None if not distance or per_price is None else distance * per_price * known.first_volume

    def point(self, ticket: int) -> float:
        """Smallest price difference of a real position's symbol."""
        return self._book.market(self._book.real[ticket].symbol).spec.point

    def _floating(self, known: RealPosition) -> float | None:
        market = self._book.market(known.symbol)
        if not self._book.book.valuation.ready(market):
            return None
        side = Side(known.side)
        valuation = self._book.book.valuation
        return valuation.profit(market, side, known.volume, known.price_open, market.close_price(side)) + known.swap

    def _rounded(self, money: float) -> float:
        ledger = self._book.book.ledger
        return ledger.major(ledger.minor(money))
