"""The driver: a history, tick by tick, through a paper broker and the service, in lockstep.

Each tick goes to the broker first (its stops and targets trigger), then to the entry rule, which may open a position as
an expert advisor in the terminal would, and then to the service; the next tick waits until everything that follows
from this one is done. A shadow broker takes the same trades with their original stops and targets and nothing else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from dtms_service.bars import BarBuilder, ClosedBar
from dtms_service.broker.door import ClosingDeal, Side, SymbolSpec
from dtms_service.broker.mt5_enums import Action, OrderTime, OrderType
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_rules import default_filling
from dtms_service.broker.retcodes import Retcode
from dtms_service.broker.structs import OrderSendResult
from dtms_service.history import Tick
from dtms_service.latency import Latencies, LatencyFigures
from dtms_service.replay.entries import Entry, EntryRule, Level

_FILLED = frozenset({Retcode.DONE, Retcode.DONE_PARTIAL})
_BOTH_SIDES = frozenset(Side)
EQUITY_INTERVAL_MS = 1000  # of virtual time, between two figures of an account that holds positions


@dataclass(frozen=True, slots=True)
class Registration:
    """An open position as its trader registers it. ``opened_ns`` is UTC."""

    account_id: str
    ticket: int
    symbol: str
    side: Side
    entry_price: float
    volume: float
    sl: float | None
    tp: float | None
    strategy_type: str
    opened_ns: int


class ScoreReading(NamedTuple):
    """Score for a BUY after the last tick; all zero until the indicators are warm."""

    total: float
    structure: float
    vwap_volume: float
    momentum: float
    ema_alignment: float
    delta_pressure: float
    candle_conviction: float


class Link(Protocol):
    """The driver's way to the service."""

    async def register(self, registration: Registration) -> None:
        """Register an open position. Raises what the service answers."""

    async def tick(self, symbol: str, tick: Tick, change_count: int, equity: float | None) -> None:
        """Returns when all that follows from the tick is done. ``equity`` is None where it need not be told."""

    async def score(self, symbol: str) -> ScoreReading: ...

    async def risk_distance(self, ticket: int) -> float | None:
        """R of a registered trade as a price distance; None while the service does not know it."""


class Observer(Protocol):
    """Sees the run as it goes, in order of virtual time."""

    def deals(self, made: list[ClosingDeal]) -> None:
        """What the broker closed by itself at this tick."""

    def entered(self, trade: Trade) -> None: ...

    def refused(self, refusal: Refusal) -> None: ...

    def bar(self, bar: ClosedBar, score: ScoreReading) -> None:
        """A closed bar, and the score after the tick that closed it."""


@dataclass(frozen=True, slots=True)
class Trade:
    """A position that the entry rule opened.

    ``shadow_ticket`` is None where the shadow broker refused its twin. ``money_per_price`` is what a move of 1.0 in the
    price against the trade costs, account currency, at the conversion rate of the opening.
    """

    registration: Registration
    shadow_ticket: int | None
    money_per_price: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that the broker refused."""

    time_msc: int
    entry: Entry
    retcode: int
    text: str


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How one history is driven. ``magic`` marks the positions of the entry rule; DTMS uses another one.

    ``strategy_types`` are taken in turn by the trades of a side, so that the two sides are treated alike; never empty.

    ``bar_s`` is the length of the observed bars, s. ``path_period_s`` is the length of the history's bars where its
    ticks walk through bars, None for real ticks: inside of a bar the price moves without a jump, so that a stop
    between two of its ticks fills at the stop.
    """

    symbol: str
    strategy_types: tuple[str, ...]
    magic: int
    comment: str
    bar_s: int
    path_period_s: int | None


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What a run went through. Times are virtual, ms UTC (0 without a tick); ``wall_s`` and ``tick_done`` are not."""

    ticks: int
    bars: int
    first_msc: int
    last_msc: int
    trades: tuple[Trade, ...]
    refusals: tuple[Refusal, ...]
    missed: tuple[str, ...]
    wall_s: float
    tick_done: LatencyFigures


@dataclass(slots=True)
class HistoryDriver:
    """Drives one symbol of one account. ``shadow`` is configured as ``broker`` is and is touched by nobody else."""

    broker: PaperBroker
    shadow: PaperBroker
    plan: RunPlan
    ticks: Iterable[Tick]
    entries: EntryRule
    link: Link
    observer: Observer
    _spec: SymbolSpec = field(init=False)
    _trades: list[Trade] = field(default_factory=list)
    _refusals: list[Refusal] = field(default_factory=list)
    _opened: Counter[Side] = field(default_factory=Counter)
    _open: dict[int, Side] = field(default_factory=dict)
    _open_sides: frozenset[Side] = frozenset()

    def __post_init__(self) -> None:
        self._spec = self.broker.symbol(self.plan.symbol)

    async def run(self) -> RunFigures:
        """Raises what the history, the brokers and the link raise; what was observed until then stays observed."""
        started = time.perf_counter_ns()
        symbol, broker, shadow, link, entries = self.plan.symbol, self.broker, self.shadow, self.link, self.entries
        observed = BarBuilder(self.plan.bar_s)
        wanted = BarBuilder(entries.timeframe_s) if entries.timeframe_s is not None else None
        path_ms = (self.plan.path_period_s or 0) * 1000
        path_ends_msc = changes = weighed_changes = weighed_msc = ticks = bars = 0
        first_msc: int | None = None
        time_msc = 0
        tick_done = Latencies()
        for tick in self.ticks:
            time_msc, bid, ask, volume = tick
            continuous = time_msc < path_ends_msc
            if not continuous:
                path_ends_msc = time_msc + path_ms
            made = broker.on_tick(symbol, time_msc, bid, ask, continuous=continuous)
            shadow.on_tick(symbol, time_msc, bid, ask, continuous=continuous)
            if made:
                self.observer.deals(made)
            if broker.change_count != changes:
                changes = broker.change_count
                self._look()
            if wanted is not None and (wanted_bar := wanted.add(time_msc, bid, volume)) is not None:
                entries.on_bar(wanted_bar)
            for entry in entries.on_tick(tick, self._open_sides):
                await self._enter(entry, tick)
            equity = None
            is_due = bool(broker.book.positions) and time_msc - weighed_msc >= EQUITY_INTERVAL_MS
            if is_due or broker.change_count != weighed_changes:
                equity = broker.account().equity
                weighed_changes, weighed_msc = broker.change_count, time_msc
            sent = time.perf_counter_ns()
            await link.tick(symbol, tick, broker.change_count, equity)
            tick_done.add(time.perf_counter_ns() - sent)
            ticks += 1
            if first_msc is None:
                first_msc = time_msc
            if (bar := observed.add(time_msc, bid, volume)) is not None:
                bars += 1
                self.observer.bar(bar, await link.score(symbol))
        return RunFigures(
            ticks=ticks,
            bars=bars,
            first_msc=first_msc or 0,
            last_msc=time_msc,
            trades=tuple(self._trades),
            refusals=tuple(self._refusals),
            missed=tuple(entries.missed()),
            wall_s=(time.perf_counter_ns() - started) / 1e9,
            tick_done=tick_done.figures(),
        )

    def _look(self) -> None:
        """Which of the rule's trades are still open. A netting account has one position: it takes both sides."""
        self._open = {t: side for t, side in self._open.items() if self.broker.find_position(t) is not None}
        sides = frozenset(self._open.values())
        self._open_sides = _BOTH_SIDES if sides and not self.broker.config.hedging else sides

    async def _enter(self, entry: Entry, tick: Tick) -> None:
        request = self._request(entry, tick)
        answer = self.broker.order_send(request)
        if answer.retcode not in _FILLED:
            refusal = Refusal(tick.time_msc, entry, answer.retcode, answer.comment)
            self._refusals.append(refusal)
            self.observer.refused(refusal)
            return
        twin = self.shadow.order_send(request)
        opened = self._registration(answer, self._strategy_of(entry))
        trade = Trade(
            registration=opened,
            shadow_ticket=twin.order if twin.retcode in _FILLED else None,
            money_per_price=self._money_per_price(opened),
        )
        self._trades.append(trade)
        self._open[opened.ticket] = entry.side
        self._look()
        self.observer.entered(trade)
        await self.link.register(opened)

    def _strategy_of(self, entry: Entry) -> str:
        types = self.plan.strategy_types
        turn, self._opened[entry.side] = self._opened[entry.side], self._opened[entry.side] + 1
        return types[turn % len(types)] if entry.strategy_type is None else entry.strategy_type

    def _request(self, entry: Entry, tick: Tick) -> dict[str, object]:
        """A market order as the MetaTrader5 package takes it; levels of 0.0 mean none."""
        buys = entry.side is Side.BUY
        opening = tick.ask if buys else tick.bid
        return {
            "action": int(Action.DEAL),
            "symbol": self._spec.name,
            "volume": entry.volume,
            "type": int(OrderType.BUY if buys else OrderType.SELL),
            "price": opening,
            "sl": self._price(entry.sl, entry.side, opening, favourable=False),
            "tp": self._price(entry.tp, entry.side, opening, favourable=True),
            "type_filling": int(default_filling(self.broker.market(self._spec.name))),
            "type_time": int(OrderTime.GTC),
            "magic": self.plan.magic,
            "comment": self.plan.comment,
        }

    def _price(self, level: Level | None, side: Side, opening: float, *, favourable: bool) -> float:
        """The level on the symbol's tick size; 0.0 for none."""
        if level is None:
            return 0.0
        ticks = round(level.price(side, opening, favourable=favourable) / self._spec.tick_size)
        return round(ticks * self._spec.tick_size, self._spec.digits)

    def _money_per_price(self, opened: Registration) -> float:
        market = self.broker.market(opened.symbol)
        against = opened.entry_price + (-1.0 if opened.side is Side.BUY else 1.0)
        return -self.broker.book.valuation.profit(market, opened.side, opened.volume, opened.entry_price, against)

    def _registration(self, answer: OrderSendResult, strategy_type: str) -> Registration:
        position = self.broker.find_position(answer.order)
        assert position is not None, "a filled opening order is the ticket of its position"
        return Registration(
            account_id=self.broker.config.account_id,
            ticket=position.ticket,
            symbol=self.plan.symbol,
            side=position.side,
            entry_price=position.price_open,
            volume=position.volume,
            sl=position.sl,
            tp=position.tp,
            strategy_type=strategy_type,
            opened_ns=position.time_msc * 1_000_000,
        )
