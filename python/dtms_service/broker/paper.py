"""The paper broker: a MetaTrader 5 trade server for one account, driven by ticks on a virtual clock.

It is the *server*: it always works and always knows the truth. What stands between it and a program (the terminal,
the pipe, the network, and the faults of all three) is :mod:`terminal`. Rules are those of mt5.md section 4.

Time is the time of the last tick (ms UTC). The same configuration, ticks and requests give the same books.
Per tick, in this order: swap of the midnights passed, the new quote, exits that waited for this tick, stop-loss and
take-profit triggers, accepted orders that are due, stop-out; only then whatever the caller requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dtms_service.broker.bars import Bar, FirstExtreme, bar_ticks
from dtms_service.broker.book import Book
from dtms_service.broker.door import AccountInfo, ClosingDeal, Position, Side, SymbolSpec
from dtms_service.broker.faults import AT_ONCE, Faults, Fill, View
from dtms_service.broker.ledger import Deal, Order
from dtms_service.broker.market import Market, PaperPosition
from dtms_service.broker.mt5_enums import DealEntry, DealReason, OrderState, OrderType
from dtms_service.broker.paper_config import PaperConfig, SlippageModel, SymbolTrading
from dtms_service.broker.paper_rules import Inquiry, Operation, inquire, refusal
from dtms_service.broker.requests import parse_request
from dtms_service.broker.retcodes import COMMENTS, Retcode
from dtms_service.broker.structs import OrderCheckResult, OrderSendResult, TradeRequest
from dtms_service.broker.valuation import DAY_MS, server_day


@dataclass(frozen=True, slots=True)
class _Placed:
    order: Order
    inquiry: Inquiry
    steps: int
    due_msc: int


class PaperBroker:
    """One account. ``change_count`` rises with every change of any position, ``faults`` disturbs its terminals."""

    def __init__(self, config: PaperConfig) -> None:
        self.config = config
        self.faults = Faults(self._look)
        self.book = Book(config, before_deal=self.faults.before_deal)
        self._placed: list[_Placed] = []
        self._charged_to: int | None = None  # server day up to whose beginning swap is charged; None before any tick
        self._next_midnight_msc = 0
        self._window_start_msc = 0
        self._window_requests = 0
        self._request_id = 0

    # --- symbols -----------------------------------------------------------------------------------------------------

    def add_symbol(self, spec: SymbolSpec, trading: SymbolTrading) -> None:
        """List a symbol. Add the symbols that convert its currencies first. Raises ValueError naming the field."""
        if spec.name in self.book.markets:
            raise ValueError(f"{spec.name}: listed already")
        market = Market(spec, trading, changed=self.book.changed)
        self.book.valuation.admit(market)
        self.book.markets[spec.name] = market

    def change_symbol(self, spec: SymbolSpec, trading: SymbolTrading) -> None:
        """Change the rules of a listed symbol, as brokers do at any time; what positions are counted in must stay."""
        market = self.market(spec.name)
        for name in ("digits", "point", "volume_step", "contract_size", "currency_profit"):
            if getattr(spec, name) != getattr(market.spec, name):
                raise ValueError(f"{spec.name}: {name} cannot change while the symbol is listed")
        Market(spec, trading)  # the rules of a new listing hold for a change too
        market.spec, market.trading = spec, trading

    def widen_spread(self, symbol: str, extra_points: int) -> None:
        """Add points to the ask of every later tick (0 ends it)."""
        if extra_points < 0:
            raise ValueError(f"extra_points: must be >= 0, is {extra_points}")
        self.market(symbol).extra_spread_points = extra_points

    def symbol(self, name: str) -> SymbolSpec:
        return self.market(name).spec

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self.book.markets)

    def market(self, name: str) -> Market:
        """The symbol's rules and quote. KeyError for an unknown symbol."""
        market = self.book.markets.get(name)
        if market is None:
            raise KeyError(name)
        return market

    # --- the clock ---------------------------------------------------------------------------------------------------

    @property
    def now_msc(self) -> int:
        return self.book.now_msc

    def on_tick(
        self, symbol: str, time_msc: int, bid: float, ask: float, *, volume: int = 0, continuous: bool = False
    ) -> list[ClosingDeal]:
        """Take a quote and answer with the deals it made. Prices are rounded to points, ``volume`` is tick volume.

        ``continuous`` says that the price walked here from the symbol's last quote (the inner ticks of a bar), so a
        level between the two fills at the level; else the quote is a jump and a stop fills at the quote.
        Raises KeyError for an unknown symbol, ValueError for a quote no market has or a time before the last tick.
        """
        market = self.market(symbol)
        if time_msc < self.book.now_msc:
            raise ValueError(f"{symbol}: tick at {time_msc} is older than the last one at {self.book.now_msc}")
        market.check_quote(bid, ask)
        market.refresh()
        if time_msc >= self._next_midnight_msc:
            self._roll_over(time_msc)
        before_bid, before_ask = market.bid_points, market.ask_points
        market.quote(time_msc, bid, ask, volume)
        self.book.now_msc = time_msc
        if market.positions and self.book.valuation.ready(market):
            if market.exiting:
                self._fill_exits(market)
            if market.crossed():
                self._trigger(market, before_bid, before_ask, continuous=continuous)
        if self._placed:
            self._fill_placed()
        if market.positions or (market.converts and self.book.positions):
            self.book.revalue(market)
            self._stop_out()
        if not self.book.made:
            return []
        made, self.book.made = self.book.made, []
        return [self.book.ledger.closing(deal) for deal in made if deal.taken]

    def on_bar(self, symbol: str, bar: Bar) -> list[ClosingDeal]:
        """Walk a bar as four ticks, the extreme that hurts the larger side first; see :func:`bars.bar_ticks`."""
        market = self.market(symbol)
        market.refresh()
        long, short = market.long.steps, market.short.steps
        first = None
        if long != short:
            first = FirstExtreme.LOW if long > short else FirstExtreme.HIGH
        made: list[ClosingDeal] = []
        for index, (time_msc, bid, ask, volume) in enumerate(bar_ticks(bar, first)):
            made += self.on_tick(symbol, time_msc, bid, ask, volume=volume, continuous=index > 0)
        return made

    def _roll_over(self, time_msc: int) -> None:
        """Charge swap for every server midnight since the last tick, at the last quotes of the old day.

        A restored account waits with it until its positions can be valued; then the nights it slept are charged too.
        """
        offset_s = self.config.server_utc_offset_s
        today = server_day(time_msc, offset_s)
        if self._charged_to is None:
            self._charged_to = server_day(self.book.now_msc, offset_s) if self.book.now_msc else today
        if all(self.book.valuation.ready(market) for market in self.book.markets.values() if market.positions):
            for day in range(self._charged_to, today):
                self.book.charge_swap(day)
            self._charged_to = today
            self._next_midnight_msc = (today + 1) * DAY_MS - offset_s * 1000

    # --- triggers ----------------------------------------------------------------------------------------------------

    def _trigger(self, market: Market, before_bid: int, before_ask: int, *, continuous: bool) -> None:
        """Execute every level that the quote reached, in the order the price met them (a jump meets all at once)."""
        hits: list[tuple[int, PaperPosition, DealReason, int, bool]] = []
        for position, reason, level in market.reached():
            now = market.close_points(position.side)
            before = before_bid if position.side is Side.BUY else before_ask
            walked = continuous and before > 0 and min(before, now) <= level <= max(before, now)
            hits.append((abs(level - before) if walked else 0, position, reason, level, walked))
        if not hits:
            market.rewatch()
        for _, position, reason, level, walked in sorted(hits, key=lambda hit: (hit[0], hit[1].ticket)):
            self._leave(position, reason, level, walked=walked)

    def _leave(self, position: PaperPosition, reason: DealReason, level: int, *, walked: bool) -> None:
        market, slippage = position.market, self.config.slippage
        if reason is DealReason.TP:
            self._close_by_server(position, reason, market.price(level), level)
        elif slippage.model is SlippageModel.NEXT_TICK:
            self.book.await_exit(position, reason)
        else:
            base = level if walked else market.close_points(position.side)
            self._close_by_server(position, reason, market.price(base - slippage.points * position.sign), level)

    def _fill_exits(self, market: Market) -> None:
        for position in [p for p in market.positions.values() if p.exit is not None]:
            assert position.exit is not None
            price = market.close_price(position.side)
            self._close_by_server(position, position.exit, price, position.sl_points)

    def _close_by_server(self, position: PaperPosition, reason: DealReason, price: float, level: int) -> None:
        word = "sl" if reason is DealReason.SL else "tp"
        digits = position.market.spec.digits
        self._close_whole(position, reason, price, f"[{word} {position.market.price(level):.{digits}f}]")

    def _close_whole(self, position: PaperPosition, reason: DealReason, price: float, comment: str) -> None:
        """A close that no client asked for: an order and a deal of the server, with the position's magic."""
        side = position.side.opposite
        order = self.book.new_order(
            position.market,
            side,
            position.steps,
            magic=position.magic,
            comment=comment,
            reason=reason,
            price=price,
        )
        self.book.fill(
            order, self.book.reduce(position, order, DealEntry.OUT, steps=position.steps, price=price).volume
        )

    def _stop_out(self) -> None:
        """Close the largest loss, one position at a time, while equity is at or below the stop-out share of margin."""
        while self.book.positions and self.book.below_stop_out():
            worst = min(self.book.positions.values(), key=lambda p: (self.book.result_minor(p), p.ticket))
            equity, margin = self.book.equity_minor(), self.book.margin_minor()
            level = f"{100 * equity / margin:.2f}%" if margin else "-"
            comment = f"[so {level}/{self.book.ledger.major(equity):.2f}/{self.book.ledger.major(margin):.2f}]"
            slip = self.config.slippage.points * worst.sign
            price = worst.market.price(worst.market.close_points(worst.side) - slip)
            self._close_whole(worst, DealReason.SO, price, comment)

    # --- requests ----------------------------------------------------------------------------------------------------

    def order_send(
        self,
        request: Mapping[str, object],
        *,
        reason: DealReason = DealReason.EXPERT,
        fill: Fill = AT_ONCE,
    ) -> OrderSendResult:
        """Execute a request, or refuse it with the retcode of the first rule that forbids it.

        ``reason`` is what deals and positions show (EXPERT for the API, CLIENT for a hand on the terminal).
        Raises :class:`requests.InvalidArgument` where the extension would not have sent the request at all.
        """
        parsed = parse_request(request)
        self._count_request()
        inquiry = inquire(self, parsed)
        self._request_id += 1
        code = refusal(self, inquiry)
        if code is not None:
            return self.refuse(parsed, code)
        match inquiry.operation:
            case Operation.MODIFY:
                return self._modify(inquiry)
            case Operation.CLOSE_BY:
                return self._close_by(inquiry, reason)
            case _:
                return self._deal(inquiry, reason, fill)

    def order_check(self, request: Mapping[str, object]) -> OrderCheckResult:
        """The rules without the execution: retcode 0 and comment "Done" if the request would be accepted, and the
        account as it would then stand."""
        parsed = parse_request(request)
        inquiry = inquire(self, parsed)
        code = refusal(self, inquiry)
        margin = self.book.margin_minor()
        if code is None and inquiry.operation is Operation.OPEN:
            assert inquiry.market is not None
            assert inquiry.side is not None
            assert inquiry.steps is not None
            margin = self.book.margin_with(inquiry.market, inquiry.side, inquiry.steps)
        equity = self.book.equity_minor()
        major = self.book.ledger.major
        return OrderCheckResult.of(
            retcode=int(code or 0),
            balance=major(self.book.ledger.balance_minor),
            equity=major(equity),
            profit=major(equity - self.book.ledger.balance_minor),
            margin=major(margin),
            margin_free=major(equity - margin),
            margin_level=100 * equity / margin if margin else 0.0,
            comment="Done" if code is None else COMMENTS[code],
            request=parsed,
        )

    def refuse(self, request: TradeRequest, code: Retcode) -> OrderSendResult:
        """The answer to a request that was not executed: zeros and the retcode's text."""
        return self._answer(request, code)

    def _answer(
        self,
        request: TradeRequest,
        code: Retcode,
        order: Order | None = None,
        deal: Deal | None = None,
    ) -> OrderSendResult:
        market = self.book.markets.get(order.symbol) if order is not None else None
        return OrderSendResult.of(
            retcode=int(code),
            deal=deal.ticket if deal is not None else 0,
            order=order.ticket if order is not None else 0,
            volume=deal.volume if deal is not None else (order.volume_initial if order is not None else 0.0),
            price=deal.price if deal is not None else 0.0,
            bid=market.bid if market is not None else 0.0,
            ask=market.ask if market is not None else 0.0,
            comment=COMMENTS[code],
            request_id=self._request_id,
            retcode_external=0,
            request=request,
        )

    def _modify(self, inquiry: Inquiry) -> OrderSendResult:
        position, market, request = inquiry.position, inquiry.market, inquiry.request
        assert position is not None
        assert market is not None
        self.book.set_levels(position, market.points(request.sl), market.points(request.tp))
        return self._answer(request, Retcode.DONE)

    def _close_by(self, inquiry: Inquiry, reason: DealReason) -> OrderSendResult:
        """Two OUT_BY deals: the position leaves at the counter's opening price and books the result, the counter
        leaves at its own and books none [inf]."""
        position, counter, request = inquiry.position, inquiry.counter, inquiry.request
        assert position is not None
        assert counter is not None
        market, steps = position.market, min(position.steps, counter.steps)
        price = counter.price_open
        order = self.book.new_order(
            market,
            position.side.opposite,
            steps,
            magic=request.magic,
            comment=f"close #{position.ticket} by #{counter.ticket}",
            reason=reason,
            price=price,
        )
        order.type = OrderType.CLOSE_BY
        deal = self.book.reduce(position, order, DealEntry.OUT_BY, steps=steps, price=price)
        self.book.reduce(counter, order, DealEntry.OUT_BY, steps=steps, price=price)
        order.position, order.position_by = position.identifier, counter.identifier
        self.book.fill(order, deal.volume)
        self.book.made.clear()
        return self._answer(request, Retcode.DONE, order, deal)

    def _deal(self, inquiry: Inquiry, reason: DealReason, fill: Fill) -> OrderSendResult:
        request, market, side, steps = inquiry.request, inquiry.market, inquiry.side, inquiry.steps
        assert market is not None
        assert side is not None
        assert steps is not None
        order = self.book.new_order(
            market,
            side,
            steps,
            magic=request.magic,
            comment=request.comment,
            reason=reason,
            price=request.price,
        )
        order.filling, order.sl, order.tp = request.type_filling, request.sl, request.tp
        order.position = inquiry.position.identifier if inquiry.position is not None else 0
        filled = max(1, int(steps * fill.fraction))
        if fill.delay_ms:
            if inquiry.operation is Operation.CLOSE and inquiry.position is not None:
                inquiry.position.close_order = order.ticket
            self._placed.append(_Placed(order, inquiry, filled, self.book.now_msc + fill.delay_ms))
            return self._answer(request, Retcode.PLACED, order)
        deal = self._execute(order, inquiry, filled)
        self.book.made.clear()
        return self._answer(request, Retcode.DONE if filled == steps else Retcode.DONE_PARTIAL, order, deal)

    def _fill_placed(self) -> None:
        """Fill what is due; an order whose position went meanwhile, or that margin forbids by now, is cancelled."""
        due = [placed for placed in self._placed if placed.due_msc <= self.book.now_msc]
        if not due:
            return
        self._placed = [placed for placed in self._placed if placed.due_msc > self.book.now_msc]
        for placed in due:
            order, inquiry = placed.order, placed.inquiry
            closes = inquiry.operation is Operation.CLOSE
            position = inquiry.position
            if closes and (position is None or self.book.positions.get(position.ticket) is not position):
                self.book.cancel(order, OrderState.CANCELED)
                continue
            assert inquiry.market is not None
            assert inquiry.side is not None
            if closes and position is not None:
                position.close_order = 0
            elif self.book.lacks_margin(inquiry.market, inquiry.side, placed.steps):
                self.book.cancel(order, OrderState.REJECTED)
                continue
            self._execute(order, inquiry, placed.steps)

    def _execute(self, order: Order, inquiry: Inquiry, steps: int) -> Deal:
        market, side = inquiry.market, inquiry.side
        assert market is not None
        assert side is not None
        price = market.open_price(side)
        if inquiry.operation is Operation.CLOSE:
            assert inquiry.position is not None
            held = min(steps, inquiry.position.steps)
            deal = self.book.reduce(inquiry.position, order, DealEntry.OUT, steps=held, price=price)
        else:
            deal = self.book.enter(market, order, inquiry.request, steps=steps, price=price)
        self.book.fill(order, deal.volume)
        return deal

    # --- calculators -------------------------------------------------------------------------------------------------

    def calc_margin(self, market: Market, side: Side, lots: float, price: float) -> float:
        """Margin of an order on its own, account currency. Raises NoRate before its currency has a quote."""
        ledger = self.book.ledger
        return ledger.major(ledger.minor(self.book.valuation.unit_margin(market, side, price) * lots))

    def calc_profit(self, market: Market, side: Side, lots: float, price_open: float, price_close: float) -> float:
        """Profit of a move, account currency, before swap and commission. Raises NoRate likewise."""
        ledger = self.book.ledger
        return ledger.major(ledger.minor(self.book.valuation.profit(market, side, lots, price_open, price_close)))

    # --- what programs see -------------------------------------------------------------------------------------------

    @property
    def change_count(self) -> int:
        return self.book.change_count

    def account(self) -> AccountInfo:
        return self.book.account()

    def positions(self) -> list[Position]:
        """Open positions, oldest first, valued at the last quotes."""
        return [self.book.view(position) for position in self.book.positions.values()]

    def position(self, ticket: int) -> Position | None:
        """One of :meth:`positions`."""
        held = self.find_position(ticket)
        return self.book.view(held) if held is not None else None

    def closing_deals(self, position: int) -> list[ClosingDeal]:
        """All deals that took volume from the position (its ticket), oldest first.

        A netting position keeps its identifier when it is reversed, and gets another ticket: that of the order.
        """
        ledger = self.book.ledger
        return [ledger.closing(deal) for deal in ledger.of_ticket(position) if deal.taken]

    def placed_orders(self) -> list[Order]:
        """Accepted orders that are not filled yet."""
        return [placed.order for placed in self._placed]

    def _look(self) -> View:
        quotes = {name: (m.time_msc, m.bid, m.ask) for name, m in self.book.markets.items()}
        return View(self.book.now_msc, self.book.copies(), quotes, self.book.account())

    # --- what the checks ask (paper_rules.AccountView) ---------------------------------------------------------------

    @property
    def position_count(self) -> int:
        return len(self.book.positions)

    def find_position(self, ticket: int) -> PaperPosition | None:
        return self.book.positions.get(ticket)

    def find_market(self, symbol: str) -> Market | None:
        return self.book.markets.get(symbol)

    def lacks_margin(self, market: Market, side: Side, steps: int) -> bool:
        return self.book.lacks_margin(market, side, steps)

    def netted_with(self, market: Market, side: Side) -> PaperPosition | None:
        return self.book.netted_with(market, side)

    def can_value(self, market: Market) -> bool:
        return self.book.valuation.ready(market)

    def over_rate(self) -> bool:
        limit = self.config.requests_per_second
        return bool(limit) and self._window_requests > limit

    def _count_request(self) -> None:
        if self.book.now_msc >= self._window_start_msc + 1000:
            self._window_start_msc, self._window_requests = self.book.now_msc, 0
        self._window_requests += 1
