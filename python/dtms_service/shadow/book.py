"""The shadow book: the account as it would be had DTMS's commands reached the broker.

Each real position stands in it under its own ticket. Until a command parts the two, the shadow position follows the
real one in everything; afterwards it follows what people and other programs do (a close, a part), and lives by its own
levels where they differ. A level that both have is the real broker's business: its fill counts, not a guess of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from dtms_service.broker.book import Booked
from dtms_service.broker.door import AccountInfo, CloseReason, ClosingDeal, Position, Side, SymbolSpec
from dtms_service.broker.market import Market, PaperPosition
from dtms_service.broker.mt5_enums import DealEntry, DealReason
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_config import PaperConfig, Slippage, SlippageModel
from dtms_service.broker.paper_symbols import list_symbols, standard_trading
from dtms_service.broker.valuation import NoRate
from dtms_service.shadow.record import ChangeKind, RealChange, RealPosition

FIRST_TICKET: Final = 10**15
"""Tickets of shadow positions begin here: beyond those of any broker, and still exact in a double."""
CURRENCY_DIGITS: Final = 2
MIRRORED: Final = "real "
"""Comments of deals that repeat one of the real account begin so; its number follows."""

log = structlog.get_logger(__name__)


def shadow_config(info: AccountInfo, conversion_rates: Mapping[str, float]) -> PaperConfig:
    """An account like the real one. What a door does not tell is left out: no commission, no slippage, and a stop-out
    only when nothing is left (the real broker's own is followed)."""
    return PaperConfig(
        account_id=info.account_id,
        hedging=info.hedging,
        hedge_prohibited=False,
        fifo_close=False,
        currency=info.currency,
        currency_digits=CURRENCY_DIGITS,
        leverage=max(1, info.leverage),
        balance=max(0.0, info.balance),
        margin_call_percent=0.0,
        stop_out_percent=0.0,
        commission_per_lot_side=0.0,
        conversion_rates=dict(conversion_rates),
        limit_positions=0,
        requests_per_second=0,
        slippage=Slippage(SlippageModel.NONE, 0),
        first_order=FIRST_TICKET,
        first_deal=FIRST_TICKET,
        server_utc_offset_s=0,
    )


class ShadowBook(PaperBroker):
    """A paper broker that follows a real account. ``real`` is what is known of that, by ticket, closed ones too.

    ``changes`` collects what happened there until the store takes it, which makes ``saved`` true.
    """

    def __init__(self, config: PaperConfig) -> None:
        super().__init__(config)
        self.real: dict[int, RealPosition] = {}
        self.changes: list[RealChange] = []
        self.saved = True

    # ---- symbols and prices

    def list_or_change(self, specs: Sequence[SymbolSpec]) -> bool:
        """The real account's symbols, as they are now; True if that is news. ValueError names what cannot be listed."""
        new = [spec for spec in specs if spec.name not in self.book.markets]
        list_symbols(self, new)
        changed = [spec for spec in specs if self.symbol(spec.name) != spec]
        for spec in changed:
            self.change_symbol(spec, standard_trading(spec))
        return bool(new or changed)

    def take_quote(self, symbol: str, time_msc: int, bid: float, ask: float) -> None:
        """As ``on_tick``; of a price that comes late the time is taken for now. KeyError, ValueError as there."""
        self.on_tick(symbol, max(time_msc, self.now_msc), bid, ask)

    def _leave(self, position: PaperPosition, reason: DealReason, level: int, *, walked: bool) -> None:
        real = self.real.get(position.ticket)
        shared = (real.sl if reason is DealReason.SL else real.tp) if real is not None and real.is_open else None
        if shared is None or position.market.points(shared) != level:
            super()._leave(position, reason, level, walked=walked)

    # ---- the real account

    def follow(
        self, held: Mapping[int, Position], deals: Mapping[int, Sequence[ClosingDeal]], read: frozenset[int] | None
    ) -> bool:
        """Takes over what happened at the real account; False when the fate of a position is not proven yet.

        ``held`` are the open positions that were read, ``read`` names all that were asked for (None: every one), and
        ``deals`` has the closing deals of those that are gone or smaller.
        """
        proven, self.saved = True, False
        for ticket, position in held.items():
            known = self.real.get(ticket)
            if known is None or not known.is_open:
                self._first_seen(position)
            else:
                proven &= self._seen_again(known, position, deals.get(ticket, ()))
        for known in [known for known in self.real.values() if known.is_open and known.ticket not in held]:
            if read is None or known.ticket in read:
                proven &= self._reduced(known, 0.0, deals.get(known.ticket, ()))
        return proven

    def wants_deals(self, held: Mapping[int, Position], read: frozenset[int] | None) -> list[int]:
        """Real positions that are gone or smaller than they were."""
        return [
            ticket
            for ticket, known in self.real.items()
            if known.is_open and (read is None or ticket in read)
            if ticket not in held or held[ticket].volume < known.volume
        ]

    def _first_seen(self, real: Position) -> None:
        market = self.book.markets.get(real.symbol)
        if market is None:
            return  # not attached: DTMS knows no price of it and can decide nothing about it
        self.real[real.ticket] = RealPosition(
            ticket=real.ticket,
            symbol=real.symbol,
            side=real.side.value,
            first_volume=real.volume,
            first_sl=real.sl,
            first_tp=real.tp,
            volume=real.volume,
            price_open=real.price_open,
            sl=real.sl,
            tp=real.tp,
            opened_msc=real.time_msc,
            swap=real.swap,
            money_per_price=self._money_per_price(market),
        )
        self.book.take_in(
            PaperPosition(
                ticket=real.ticket,
                identifier=real.ticket,
                market=market,
                side=real.side,
                steps=_steps(market, real.volume),
                price_open=real.price_open,
                sl_points=market.points(real.sl or 0.0),
                tp_points=market.points(real.tp or 0.0),
                time_msc=real.time_msc,
                time_update_msc=self.now_msc,
                magic=real.magic,
                comment=real.comment,
                reason=DealReason.CLIENT,
                unit_margin=self._unit_margin(market, real.side, real.price_open),
                swap_minor=self.book.ledger.minor(real.swap),
            )
        )
        self._note(self.real[real.ticket], ChangeKind.OPENED, real.volume, real.price_open, followed=True)

    def _seen_again(self, known: RealPosition, real: Position, deals: Sequence[ClosingDeal]) -> bool:
        proven = True
        if real.volume < known.volume:
            proven = self._reduced(known, real.volume, deals)
        elif real.volume > known.volume:
            self._added(known, real)
        if (known.sl, known.tp) != (real.sl, real.tp):
            self._moved(known, real)
        shadow = self.find_position(known.ticket)
        if shadow is not None:
            swap_minor = round(self.book.ledger.minor(real.swap) * shadow.volume / real.volume)
            if swap_minor != shadow.swap_minor:
                shadow.swap_minor = swap_minor
                self.book.touch(shadow)
        known.swap = real.swap
        if known.money_per_price is None:
            known.money_per_price = self._money_per_price(self.market(known.symbol))
        return proven

    def _moved(self, known: RealPosition, real: Position) -> None:
        """A level that both had moves for both; one that DTMS has moved stays where DTMS put it."""
        shadow = self.find_position(known.ticket)
        followed = False
        if shadow is not None:
            points = shadow.market.points
            sl, tp = shadow.sl_points, shadow.tp_points
            if known.sl != real.sl and sl == points(known.sl or 0.0):
                sl = points(real.sl or 0.0)
            if known.tp != real.tp and tp == points(known.tp or 0.0):
                tp = points(real.tp or 0.0)
            if (sl, tp) != (shadow.sl_points, shadow.tp_points):
                self.book.set_levels(shadow, sl, tp)
                followed = True
        known.sl, known.tp = real.sl, real.tp
        self._note(known, ChangeKind.LEVELS, real.volume, 0.0, followed=followed)

    def _added(self, known: RealPosition, real: Position) -> None:
        """Netting: the same lots join the shadow position, at the price that moved the average."""
        lots = real.volume - known.volume
        price = (real.price_open * real.volume - known.price_open * known.volume) / lots
        shadow = self.find_position(known.ticket)
        if shadow is not None:
            steps = _steps(shadow.market, lots)
            total = shadow.steps + steps
            shadow.price_open = (shadow.price_open * shadow.steps + price * steps) / total
            shadow.steps = total
            self.book.touch(shadow)
        known.volume, known.price_open = real.volume, real.price_open
        self._note(known, ChangeKind.ADDED, lots, price, followed=shadow is not None)

    def _reduced(self, known: RealPosition, left: float, deals: Sequence[ClosingDeal]) -> bool:
        """The deals not seen before, oldest first; False while they do not explain that only ``left`` lots are held."""
        market = self.market(known.symbol)
        for deal in deals:
            if deal.deal <= known.last_deal or _steps(market, deal.remaining) >= _steps(market, known.volume):
                continue
            closes = _steps(market, deal.remaining) == 0
            followed = self._repeat(known, deal, closes=closes)
            known.last_deal, known.volume, known.is_open = deal.deal, deal.remaining, not closes
            kind = ChangeKind.CLOSED if closes else ChangeKind.REDUCED
            self._note(known, kind, deal.volume, deal.price, followed=followed, deal=deal)
        proven = _steps(market, known.volume) == _steps(market, left)
        if not proven:
            log.warning("real_deals_missing", account=self.config.account_id, ticket=known.ticket)
        return proven

    def _repeat(self, known: RealPosition, deal: ClosingDeal, *, closes: bool) -> bool:
        """The same deal in the shadow book, in proportion to its volume; not if another level would have caused it."""
        shadow = self.find_position(known.ticket)
        if shadow is None:
            return False
        market, real_steps = shadow.market, _steps(shadow.market, deal.volume)
        match deal.reason:
            case CloseReason.STOP_LOSS if shadow.sl_points != market.points(known.sl or 0.0):
                return False
            case CloseReason.TAKE_PROFIT if shadow.tp_points != market.points(known.tp or 0.0):
                return False
            case _:
                pass
        steps = shadow.steps
        if not closes:
            before = _steps(market, deal.remaining) + real_steps
            steps = min(round(shadow.steps * real_steps / before), shadow.steps - 1)
        if steps < 1:
            return False
        share, minor = steps / real_steps, self.book.ledger.minor
        order = self.book.new_order(
            market,
            shadow.side.opposite,
            steps,
            magic=0,
            comment=f"{MIRRORED}{deal.deal}",
            reason=DealReason(deal.reason.value),
            price=deal.price,
        )
        booked = Booked(
            profit_minor=round(minor(deal.profit) * share),
            commission_minor=round(minor(deal.commission) * share),
            swap_minor=round(minor(deal.swap) * share),
        )
        made = self.book.reduce(shadow, order, DealEntry.OUT, steps=steps, price=deal.price, booked=booked)
        self.book.fill(order, made.volume)
        self.book.made.clear()
        return True

    def _note(
        self,
        known: RealPosition,
        kind: ChangeKind,
        volume: float,
        price: float,
        *,
        followed: bool,
        deal: ClosingDeal | None = None,
    ) -> None:
        change = RealChange(self.now_msc, known.ticket, kind, volume, price, known.sl, known.tp, followed)
        if deal is not None:
            change = replace(
                change,
                time_msc=deal.time_msc,
                reason=deal.reason.name,
                deal=deal.deal,
                profit=deal.profit,
                commission=deal.commission,
                swap=deal.swap,
            )
        self.changes.append(change)

    # ---- worth

    @property
    def is_valued(self) -> bool:
        """Every open position has a price."""
        return all(self.book.valuation.ready(market) for market in self.book.markets.values() if market.positions)

    def _money_per_price(self, market: Market) -> float | None:
        if not self.book.valuation.ready(market):
            return None
        return -self.book.valuation.profit(market, Side.BUY, 1.0, 1.0, 0.0)

    def _unit_margin(self, market: Market, side: Side, price: float) -> float:
        try:
            return self.book.valuation.unit_margin(market, side, price)
        except NoRate:
            return 0.0  # before the first price; the margin of a position is never asked for on its own


def _steps(market: Market, lots: float) -> int:
    return round(lots / market.spec.volume_step)
