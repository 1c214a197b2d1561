"""The monitor: what comes from the market and the broker, in the order in which it must be seen.

One tick: what the broker did by itself (stops, targets, changes by hand), the engine's evaluation, the commands that
follow, and in lockstep the managers' turn. Positions are read when the broker says that something changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from dtms_service import convert
from dtms_service.bars import ClosedBars
from dtms_service.bookmark import Seen
from dtms_service.broker.door import BrokerDoor, BrokerUnavailable, ClosingDeal, Position, SymbolSpec
from dtms_service.clock import VirtualClock
from dtms_service.desk import Desk, Tick
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError, Reason, invalid
from dtms_service.executor import Executor
from dtms_service.latency import Latencies
from dtms_service.quotes import Quotes
from dtms_service.shadow import Shadows

FIGURES_INTERVAL_NS = 1_000_000_000  # between two looks at an account's figures: a loss of a second is no day's loss
MISSING_REPORTS = 2  # positive reports without a position or a closing deal, at least, before it is quarantined (I23)
LOOK_AGAIN_NS = 1_000_000_000  # between two comparisons that wait for a proof: a history may be slow, a market may rest

# What a position has about it stays so; anything else passes.
_NEVER_ADOPTED = frozenset({Reason.FIELD_INVALID, Reason.SYMBOL_UNKNOWN, Reason.LIMIT_REACHED})

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Account:
    """What the monitor knows of one account's broker."""

    # As of the last comparison: told, and up to which everything is known (-1: nothing is).
    seen_count: int = -1
    change_count: int = -1
    # After a new trade everything is read: its position has not changed, but the broker may never have had it.
    trades_seen: int = 0
    # By position that is neither reported nor proven closed: how often it was not, and since when.
    missing: dict[int, tuple[int, int]] = field(default_factory=dict)
    # Something waits for a proof, or could not be read: not before this it is looked at again.
    look_again_ns: int | None = None
    settlements_seen: int = 0
    looking: asyncio.Task[None] | None = None
    # Positions that the core cannot take in, told once.
    refused: set[int] = field(default_factory=set)
    # Its figures: told with the ticks, or asked for.
    is_told: bool = False
    asked_ns: int = 0
    outcomes_seen: int = 0
    has_moved: bool = False
    # The last one told: equity, and whether a trade was open then.
    figure: tuple[float, bool] | None = None
    asking: asyncio.Task[bool] | None = None


@dataclass(slots=True)
class Monitor:
    desk: Desk
    doors: Doors
    executor: Executor
    quotes: Quotes
    bars: ClosedBars
    spec_of: Callable[[SymbolSpec], dict[str, Any]]
    virtual_clock: VirtualClock | None
    on_failure: Callable[[BaseException], None]
    missing_ms: int
    # A symbol became known on an account.
    on_symbol: Callable[[str, SymbolSpec], None] = field(default=lambda _account_id, _spec: None)
    # Shadow mode: each price goes to the shadow book first, and its change count is the one that counts.
    shadows: Shadows | None = None
    # Lockstep: the managers' turn after each tick.
    managers_turn: Callable[[], Awaitable[None]] | None = None
    tick_to_decision: Latencies = field(default_factory=Latencies)
    tick_to_durable: Latencies = field(default_factory=Latencies)
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)
    # One comparison at a time; those that are told apart from prices hold no price up.
    _comparing: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def attach(self, account_id: str, door: BrokerDoor, symbols: list[str]) -> None:
        """Takes an account in: its figures and symbols become known. Raises what the door raises, nothing changed."""
        account = await door.account(account_id)
        if account.account_id != account_id:
            raise invalid("account_id", f"the broker answers for {account.account_id}, not for {account_id}")
        specs = [await door.symbol(account_id, symbol) for symbol in symbols]
        self.doors.attach(account_id, door)
        self._accounts[account_id] = _Account()
        self._turns.setdefault(account_id, asyncio.Lock())
        self._comparing.setdefault(account_id, asyncio.Lock())
        await self.desk.define_account(account_id, account.hedging, account.currency)
        for spec in specs:
            await self._define(account_id, spec)
        log.info("account_attached", account=account_id, hedging=account.hedging, symbols=symbols)

    async def _define(self, account_id: str, spec: SymbolSpec) -> None:
        await self.desk.define_symbol(account_id, self.spec_of(spec))
        self.quotes.describe(account_id, spec)
        self.on_symbol(account_id, spec)

    def detach(self, account_id: str, door: BrokerDoor) -> None:
        self.doors.detach(account_id, door)
        log.warning("account_detached", account=account_id)

    async def tick(
        self, account_id: str, symbol: str, tick: Tick, change_count: int | None, equity: float | None = None
    ) -> None:
        """Returns when what follows from the tick is durable, in virtual time also executed.

        ``change_count`` is None where changes of positions are told apart from prices, see ``changed``.
        ``equity`` is that of the account at the tick, in its currency; a broker that never tells it is asked.
        Raises FIELD_INVALID or SYMBOL_UNKNOWN.
        """
        arrived = time.perf_counter_ns()
        async with self._turns[account_id]:
            if self.virtual_clock is not None:
                self.virtual_clock.advance_to(tick.time_msc * 1_000_000)
            if self.shadows is not None and change_count is not None:
                change_count = await self.shadows.tick(account_id, symbol, tick, change_count)
                equity = self.shadows.equity(account_id) if equity is not None else None
            if change_count is not None and self._is_changed(account_id, change_count):
                await self.sync(account_id, change_count)
            weighed = await self._figures(account_id, equity)
            step = self.desk.decide_on(account_id, symbol, tick)
            self.tick_to_decision.add(time.perf_counter_ns() - arrived)
            made = self.desk.keep(step) | weighed
            if self.virtual_clock is not None:
                made |= self.desk.time()
            self.quotes.changed(account_id, symbol)
            self.bars.tick(account_id, symbol, tick.time_msc, tick.bid, tick.volume)
            if made:
                await self.desk.settled()
                self.tick_to_durable.add(time.perf_counter_ns() - arrived)
                await self._executed()
            if self.managers_turn is not None:
                await self.managers_turn()

    def seen(self, account_id: str) -> Seen:
        """What is known of the account's broker, between two ticks of a run in lockstep."""
        account = self._accounts[account_id]
        return Seen(
            change_count=account.change_count,
            seen_count=account.seen_count,
            trades=account.trades_seen,
            has_moved=account.has_moved,
            equity=None if account.figure is None else account.figure[0],
            is_exposed=account.figure is not None and account.figure[1],
        )

    def recall(self, account_id: str, symbol: str, ticks: Iterable[Tick]) -> None:
        """Ticks of a run in lockstep that were decided on by another process of this service."""
        assert self.virtual_clock is not None, "only history is told again"
        for tick in ticks:
            self.virtual_clock.advance_to(tick.time_msc * 1_000_000)
            self.desk.recall_tick(account_id, symbol, tick)
            self.bars.tick(account_id, symbol, tick.time_msc, tick.bid, tick.volume)

    def go_on(self, account_id: str, seen: Seen) -> None:
        """The account is known as another process of this service knew it."""
        account = self._accounts[account_id]
        account.change_count, account.seen_count = seen.change_count, seen.seen_count
        account.trades_seen, account.has_moved = seen.trades, seen.has_moved
        if seen.equity is not None:
            account.is_told, account.figure = True, (seen.equity, seen.is_exposed)
            self.desk.recall_account(account_id, seen.equity, is_exposed=seen.is_exposed)

    async def warm_up(self, account_id: str, symbol: str, ticks: Iterable[Tick]) -> None:
        """Older prices, for the indicators only: no broker and no manager sees them. Before the first trade."""
        for tick in ticks:
            if self.virtual_clock is not None:
                self.virtual_clock.advance_to(tick.time_msc * 1_000_000)
            self.desk.keep(self.desk.decide_on(account_id, symbol, tick))
            self.bars.tick(account_id, symbol, tick.time_msc, tick.bid, tick.volume)
        await self.desk.settled()

    async def changed(self, account_id: str, change_count: int) -> bool:
        """Positions have changed, told apart from prices: compares them. False where they must be looked at again."""
        await self.sync(account_id, change_count)
        return self._accounts[account_id].change_count == change_count

    def told(self, account_id: str, equity: float) -> None:
        """The account's equity, told apart from prices: its figures are asked for no more."""
        self._accounts[account_id].is_told = True
        self.desk.account(account_id, equity)

    def _is_changed(self, account_id: str, change_count: int) -> bool:
        account = self._accounts[account_id]
        return change_count != account.seen_count or self._waits(account)

    def _waits(self, account: _Account) -> bool:
        """Something is to be looked at (again), whether or not the broker says that anything has changed."""
        is_due = account.look_again_ns is not None and self._now_ns() >= account.look_again_ns
        return is_due or account.settlements_seen != self.executor.settlements

    def _now_ns(self) -> int:
        """What waiting is measured by: leases' clock, in virtual time the history's."""
        return self.desk.clock.mono_ns() if self.virtual_clock is None else self.virtual_clock.now_ns()

    async def sync(self, account_id: str, change_count: int, *, raises: bool = False) -> None:
        """Compares the account's positions with the trades. A query that fails changes nothing (I21).

        That it failed is told by a log line and made good later, or with ``raises`` by BrokerUnavailable.
        """
        async with self._comparing[account_id]:
            await self._sync(account_id, change_count, raises=raises)

    async def _sync(self, account_id: str, change_count: int, *, raises: bool) -> None:
        account = self._accounts[account_id]
        try:
            door = self.doors.of(account_id)
            while True:
                settlements = self.executor.settlements
                held, absent = await self._read(account_id)
                outcomes = self.executor.outcomes
                await self.executor.find_late(door, account_id, held)
                if outcomes == self.executor.outcomes:
                    break
        except (BrokerUnavailable, DtmsError) as error:
            log.warning("positions_unknown", account=account_id, why=str(error))
            account.look_again_ns = self._now_ns() + LOOK_AGAIN_NS
            if raises:
                raise
            return
        # While a command is at the broker the core leaves its trade's report aside: it is asked for again.
        is_final = not self.executor.under_way(account_id)
        strangers = []
        for position, shown in held.items():
            if self.desk.engine.position_owner(account_id, position) is None:
                strangers.append(shown)
            else:
                self.desk.position(account_id, position, shown.volume, shown.sl, shown.tp)
        # Before the closings: a leg of a lost time may have outlived its trade.
        is_lost_time = any(self._lost_intent(stranger) is not None for stranger in strangers)
        families = self._families(account_id) if is_lost_time else []
        missing: dict[int, tuple[int, int]] = {}
        for ticket, position, deals in absent:
            if not self._close(account_id, position, deals):
                reports, since_ns = account.missing.get(position, (0, self._now_ns()))
                missing[position] = reports + 1, since_ns
                is_old = self._now_ns() - since_ns >= self.missing_ms * 1_000_000
                if reports + 1 >= MISSING_REPORTS and is_old:
                    self.desk.missing((account_id, ticket))
        account.missing = missing
        # Legs of a lost time last: whose they are is known when every trade is.
        for stranger in sorted(strangers, key=lambda shown: (self._lost_intent(shown) is not None, shown.ticket)):
            if (intent := self._lost_intent(stranger)) is None:
                is_final &= await self._adopt(account_id, door, stranger)
                families.append((stranger.ticket, stranger.symbol, stranger.time_msc))
            else:
                is_final &= await self._take_lost_leg(account_id, door, stranger, intent, families)
        # Something may still be on its way to a proof: look again soon, at everything.
        is_final &= not missing
        account.seen_count = change_count
        account.change_count = change_count if is_final else -1
        account.look_again_ns = None if is_final else self._now_ns() + (LOOK_AGAIN_NS if missing else 0)
        account.settlements_seen = settlements
        await self._executed()

    async def _adopt(self, account_id: str, door: BrokerDoor, position: Position) -> bool:
        """Takes a position that nobody has registered in, without an owner (I23); False while it may yet be a leg.

        Raises nothing: one position that cannot be taken in must not cost the others.
        """
        intent = convert.intent_of(position.comment)
        if intent is not None and any(open_["intent_id"] == intent for open_ in self.desk.engine.open_intents()):
            return False  # its outcome links it
        account = self._accounts[account_id]
        if position.ticket in account.refused:
            return True
        body = {
            "symbol": position.symbol,
            "side": position.side.value,
            "entry_price": position.price_open,
            "volume": position.volume,
            "sl": position.sl,
            "tp": position.tp,
            "strategy_type": "",
            "opened_ns": position.time_msc * 1_000_000,
        }
        try:
            if not self.quotes.knows(account_id, position.symbol):
                await self._define(account_id, await door.symbol(account_id, position.symbol))
            await self.desk.register((account_id, position.ticket), body, convert.ORIGIN_EXTERNAL, "")
        except BrokerUnavailable:
            return False
        except (DtmsError, KeyError) as error:
            if isinstance(error, DtmsError) and error.reason not in _NEVER_ADOPTED:
                return False
            account.refused.add(position.ticket)
            log.exception("position_not_adopted", account=account_id, ticket=position.ticket, why=str(error))
            return True
        log.info("trade_adopted", account=account_id, ticket=position.ticket, symbol=position.symbol)
        return True

    def _lost_intent(self, position: Position) -> int | None:
        """The intent that opened it, if that was recorded between a backup and its return and is known no more."""
        intent = convert.intent_of(position.comment) if position.magic == self.executor.magic else None
        return intent if intent is not None and self.desk.engine.is_lost(intent) else None

    def _families(self, account_id: str) -> list[tuple[int, str, int]]:
        """(trade, symbol, opened ms UTC) of the trades that may have opened legs in a time that is lost."""
        engine = self.desk.engine
        trades = (engine.trade(account_id, ticket) for ticket in {t for t, _ in engine.open_positions(account_id)})
        return [(trade["ticket"], trade["symbol"], trade["opened_ns"] // 1_000_000) for trade in trades if trade]

    async def _take_lost_leg(
        self, account_id: str, door: BrokerDoor, position: Position, intent: int, families: list[tuple[int, str, int]]
    ) -> bool:
        """A leg of the only trade of its symbol that was there before it; else adopted, and told by an alarm."""
        parents = [
            ticket
            for ticket, symbol, opened_msc in families
            if symbol == position.symbol and opened_msc <= position.time_msc
        ]
        if len(parents) == 1 and self.desk.engine.trade(account_id, parents[0]) is not None:
            log.warning("lost_leg", account=account_id, position=position.ticket, intent=intent, ticket=parents[0])
            self.desk.lost_leg((account_id, parents[0]), intent, position)
            return True
        is_taken = await self._adopt(account_id, door, position)
        if is_taken and self.desk.engine.position_owner(account_id, position.ticket) is not None:
            why = f"it may be of {sorted(parents)}" if parents else "no trade of its symbol was there before it"
            log.warning("lost_leg", account=account_id, position=position.ticket, intent=intent, ticket=0)
            what = f"position {position.ticket} bears the mark of intent {intent}, of a time that the journal lost"
            self.desk.alarm(account_id, convert.ALARM_LOST_LEG, f"{what}; {why}: adopted as a trade of its own")
        return is_taken

    # ---- figures of the accounts -----------------------------------------------------------------------------------

    async def _figures(self, account_id: str, equity: float | None) -> bool:
        """Takes the account's figures before a tick is decided; True when something followed from them.

        In real time nothing is asked here: see ``look``.
        """
        if equity is not None:
            self._accounts[account_id].is_told = True
            self._accounts[account_id].figure = equity, self.desk.engine.is_exposed(account_id)
            return self.desk.account(account_id, equity)
        if self.virtual_clock is not None and self._wants_figures(account_id):
            return await self.weigh(account_id)
        return False

    def look(self) -> None:
        """In real time, on the timer: asks in the background for figures that are due, one question an account.

        And looks again at positions that wait for a proof: no price may come for a weekend.
        """
        for account_id, account in self._accounts.items():
            if account.looking is None and self.doors.ready(account_id) and self._waits(account):
                account.looking = asyncio.get_running_loop().create_task(self._look_again(account_id))
                account.looking.add_done_callback(self._looked)
            if account.asking is None and self.doors.attached(account_id) and self._wants_figures(account_id):
                account.asking = asyncio.get_running_loop().create_task(self.weigh(account_id))
                account.asking.add_done_callback(self._asked)

    def stop(self) -> None:
        """Nobody waits for figures or proofs any more."""
        for account in self._accounts.values():
            for task in (account.asking, account.looking):
                if task is not None:
                    task.cancel()

    async def _look_again(self, account_id: str) -> None:
        await self.sync(account_id, self._accounts[account_id].seen_count)

    def _looked(self, task: asyncio.Task[None]) -> None:
        for account in self._accounts.values():
            if account.looking is task:
                account.looking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_failure(error)

    def _wants_figures(self, account_id: str) -> bool:
        """While a trade is open, after a closing and after an outcome, once a second; never where they are told."""
        account = self._accounts[account_id]
        if account.is_told or self.desk.clock.now_ns() - account.asked_ns < FIGURES_INTERVAL_NS:
            return False
        has_changed = account.has_moved or account.outcomes_seen != self.executor.outcomes
        return has_changed or self.desk.engine.is_exposed(account_id)

    async def weigh(self, account_id: str) -> bool:
        """Asks for the account's figures; True when something followed. A question that fails changes nothing."""
        account = self._accounts[account_id]
        account.asked_ns, account.outcomes_seen = self.desk.clock.now_ns(), self.executor.outcomes
        account.has_moved = False
        try:
            figures = await self.doors.of(account_id).account(account_id)
        except (BrokerUnavailable, DtmsError) as error:
            log.info("figures_unknown", account=account_id, why=str(error))
            account.has_moved = True  # what was missed may be the end of the last trade: asked again
            return False
        return self.desk.account(account_id, figures.equity)

    def _asked(self, task: asyncio.Task[bool]) -> None:
        for account in self._accounts.values():
            if account.asking is task:
                account.asking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_failure(error)

    # ---- positions -------------------------------------------------------------------------------------------------

    async def _executed(self) -> None:
        """In virtual time a tick ends with its commands; in real time no price waits for a broker."""
        if self.virtual_clock is not None:
            await self.executor.idle()

    async def _read(self, account_id: str) -> tuple[dict[int, Position], list[tuple[int, int, list[ClosingDeal]]]]:
        """Positions by ticket, and (trade, position, closing deals) of what is not among them.

        Read again when a command ended meanwhile: an answer from before it would look like a change by somebody else.
        """
        account, door = self._accounts[account_id], self.doors.of(account_id)
        while True:
            outcomes, trades = self.executor.outcomes, self.desk.engine.trade_count
            is_known = trades == account.trades_seen and account.settlements_seen == self.executor.settlements
            since = account.change_count if is_known else -1
            report = await door.report(account_id, since)
            held = {position.ticket: position for position in report.positions}
            absent = [
                (ticket, position, await door.closing_deals(account_id, position))
                for ticket, position in self._believed_open(account_id, report.changed)
                if position not in held
            ]
            if outcomes == self.executor.outcomes:
                account.trades_seen = trades
                return held, absent

    def _believed_open(self, account_id: str, among: frozenset[int] | None) -> list[tuple[int, int]]:
        """(trade, position) of the positions that the core takes for open; ``among`` spares a look at all of them."""
        engine = self.desk.engine
        if among is None:
            return engine.open_positions(account_id)
        owners = ((engine.position_owner(account_id, position), position) for position in sorted(among))
        return [(ticket, position) for ticket, position in owners if ticket is not None]

    def _close(self, account_id: str, position: int, deals: list[ClosingDeal]) -> bool:
        """True when the deals prove that the position is closed."""
        if not deals or deals[-1].remaining > 0:
            return False
        self._accounts[account_id].has_moved = True
        last = deals[-1]
        profit = sum(deal.profit + deal.commission + deal.swap for deal in deals)
        self.desk.closed(account_id, position, convert.close_reason(last), last.price, profit)
        return True
