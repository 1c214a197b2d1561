"""The desk: the single writer. It alone changes the engine, and shows nothing before it is durable.

Every change goes one way: engine (decide and fold) -> encode once -> group commit -> event log and executor.
The engine runs ahead of the disk by at most one group commit; an answer waits for the revision that it speaks of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar

import structlog

from dtms_service import convert
from dtms_service._core import CoreError, Engine, Step, decisions
from dtms_service.broker.door import Position
from dtms_service.clock import Clock
from dtms_service.config import Config
from dtms_service.errors import DtmsError, FieldViolation, Reason, RunDiffers, damage_of
from dtms_service.event_log import Entry, EventLog
from dtms_service.fault_points import Point, reach
from dtms_service.journal import CommitQueue, Event

TradeKey = tuple[str, int]
Bar = tuple[int, float, float, float, float, float]  # open time s UTC, open, high, low, close, volume
P = ParamSpec("P")
R = TypeVar("R")
MANAGER_OF_SERVICE = "dtms_manager"
MAX_DAMAGED = 100  # damaged events that are told of: by then everybody knows that the disk is bad
ALARM_CHARS = 1_000  # of an alarm's words: they may come from elsewhere

log = structlog.get_logger(__name__)


class Tick(Protocol):
    """Time in ms UTC, bid and ask in quote currency, tick volume."""

    @property
    def time_msc(self) -> int: ...
    @property
    def bid(self) -> float: ...
    @property
    def ask(self) -> float: ...
    @property
    def volume(self) -> float: ...


@dataclass(slots=True)
class _Unpublished:
    """Events handed to the commit queue, waiting for the disk."""

    entry: Entry
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a proposal: a decision, and the broker's outcome where there is one."""

    decision: dict[str, Any]
    outcome: dict[str, Any] | None


@dataclass(slots=True)
class Desk:
    """Owns the engine. Methods that change something return once the change is durable."""

    engine: Engine
    commits: CommitQueue
    events: EventLog
    clock: Clock
    decisions_kept: int
    max_trades: int
    # Set by the server: what happens with facts once they are durable.
    on_intent: Callable[[dict[str, Any]], None] = field(default=lambda _intent: None)
    on_alarm: Callable[[dict[str, Any]], None] = field(default=lambda _event: None)
    on_index: Callable[[str], None] = field(default=lambda _name: None)
    # Every event; must not block.
    on_fact: Callable[[dict[str, Any]], None] | None = None
    # Found since the start, in order of discovery.
    damaged_revisions: list[int] = field(default_factory=list)
    _unpublished: deque[_Unpublished] = field(default_factory=deque)
    _views: dict[TradeKey, tuple[int, bytes]] = field(default_factory=dict)
    _outcomes: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    # Events of the journal that are made once more, oldest first: see ``repeat``.
    _repeats: deque[Event] = field(default_factory=deque)
    # Those of before the start are (revision, encoded event) until somebody asks for them.
    _decisions: deque[dict[str, Any] | Event] = field(default_factory=deque)

    # ---- writes: one synchronous step each, then the disk ---------------------------------------------------------

    async def record_rules(self) -> None:
        """The numbers of this start are a fact, unless the journal has them already."""
        await self._commit(self._run(self.engine.record_rules, "", self.clock.now_ns()))

    def reconfigure(self, config: Config, by: str) -> None:
        """Decides by these numbers and ranks from now on. They are durable before anything decided by them is."""
        managers = {name: int(rank) for name, rank in config.managers.items()}
        numbers, strategies = config.to_core(), config.universal_strategies
        self.keep(self._run(self.engine.reconfigure, numbers, managers, strategies, by, self.clock.now_ns()))
        self.decisions_kept = config.engine.decisions_kept

    async def define_account(self, account_id: str, hedging: bool, currency: str) -> None:
        await self._commit(self._run(self.engine.define_account, account_id, hedging, currency, self.clock.now_ns()))

    async def define_symbol(self, account_id: str, spec: dict[str, Any]) -> None:
        await self._commit(self._run(self.engine.define_symbol, account_id, spec, self.clock.now_ns()))

    async def register(self, key: TradeKey, body: Mapping[str, Any], origin: int, by: str) -> bool:
        """True when the trade is new. Raises FIELD_INVALID, SYMBOL_UNKNOWN or TRADE_DIFFERS."""
        known = self.engine.trade(*key)
        # What the broker holds is adopted in any case: without it recovery could not end.
        is_asked = known is None and origin != convert.ORIGIN_EXTERNAL
        if is_asked and self.engine.trade_count >= self.max_trades:
            raise DtmsError(
                Reason.LIMIT_REACHED,
                f"{self.engine.trade_count} trades are registered",
                metadata={"limit": "limits.max_trades", "value": str(self.max_trades)},
            )
        step = self._decide(
            self.engine.register,
            *key,
            body["symbol"],
            body["side"],
            body["entry_price"],
            body["volume"],
            body.get("sl"),
            body.get("tp"),
            body["strategy_type"],
            # "Now" of a repeat is the "now" of the first time.
            body["opened_ns"] or (self.clock.now_ns() if known is None else known["opened_ns"]),
            origin,
            by,
            self.clock.now_ns(),
            self.clock.mono_ns(),
        )
        await self._commit(step)
        return bool(step.reply)

    async def unregister(self, key: TradeKey, by: str) -> int:
        return await self._commit(self._decide(self.engine.unregister, *key, by, self.clock.now_ns()))

    async def acquire(self, key: TradeKey, manager: str) -> dict[str, Any]:
        step = self._decide(self.engine.acquire, *key, manager, self.clock.now_ns(), self.clock.mono_ns())
        await self._commit(step)
        return dict(step.reply)

    def renew(self, key: TradeKey, manager: str, owner_epoch: int) -> dict[str, Any]:
        """Leases are not journaled: a restart gives each holder a full lease anyway."""
        return dict(self._run(self.engine.renew, *key, manager, owner_epoch, self.clock.mono_ns()))

    async def release(self, key: TradeKey, manager: str, owner_epoch: int) -> dict[str, Any]:
        now = self.clock.now_ns(), self.clock.mono_ns()
        await self._commit(self._decide(self.engine.release, *key, manager, owner_epoch, *now))
        return self.ownership(key)

    async def propose(
        self,
        manager: str,
        request_id: str,
        key: TradeKey,
        owner_epoch: int,
        action: dict[str, Any],
        *,
        dry_run: bool = False,
    ) -> Verdict:
        """Decide; a grant waits for the broker's outcome. Raises STALE_EPOCH, REQUEST_ID_REUSED, FIELD_INVALID."""
        now = self.clock.now_ns(), self.clock.mono_ns()
        step = self._decide(self.engine.propose, manager, request_id, *key, owner_epoch, action, dry_run, *now)
        intent_id = step.reply["intent_id"]
        outcome: dict[str, Any] | None = step.reply["outcome"]
        waiting = None if intent_id is None or outcome is not None or dry_run else self._outcome_of(intent_id)
        await self._commit(step)
        decision: dict[str, Any] = step.reply["decision"]
        if decision["denial"] == convert.DENIED_STALE_EPOCH and not dry_run:
            raise DtmsError(
                Reason.STALE_EPOCH,
                f"trade {key[1]} is at owner_epoch {decision['owner_epoch']}, not {owner_epoch}: decide anew",
                metadata={"owner_epoch": str(decision["owner_epoch"]), "decision_id": str(decision["decision_id"])},
            )
        if waiting is not None:
            outcome = await asyncio.shield(waiting)
        return Verdict(decision, outcome)

    async def report_score(self, account_id: str, symbol: str, score: dict[str, Any], by: str, valid_ms: int) -> int:
        now_ns = self.clock.now_ns()
        until_ns = now_ns + valid_ms * 1_000_000
        return await self._commit(
            self._decide(self.engine.report_score, account_id, symbol, score, by, until_ns, now_ns)
        )

    async def report_index(self, name: str, value: float, by: str, valid_ms: int) -> int:
        now_ns = self.clock.now_ns()
        until_ns = now_ns + valid_ms * 1_000_000
        return await self._commit(self._decide(self.engine.report_index, name, value, by, until_ns, now_ns))

    async def set_memo(self, key: TradeKey, manager: str, memo: str) -> int:
        return await self._commit(self._decide(self.engine.set_memo, *key, manager, memo, self.clock.now_ns()))

    async def set_risk_budget(self, key: TradeKey, budget_r: float, by: str, reason: str) -> int:
        now_ns = self.clock.now_ns()
        return await self._commit(self._decide(self.engine.set_risk_budget, *key, budget_r, by, reason, now_ns))

    async def set_trading_state(self, state: int, by: str, reason: str) -> int:
        return await self._commit(self._decide(self.engine.set_trading_state, state, by, reason, self.clock.now_ns()))

    async def set_kill_switch(
        self, scope: int, value: str, by: str, reason: str, *, engaged: bool, flatten: bool
    ) -> int:
        """Raises FIELD_INVALID for a ``flatten`` that is released or of a manager."""
        switch = scope, value, engaged, flatten
        return await self._commit(self._decide(self.engine.set_kill_switch, *switch, by, reason, self.clock.now_ns()))

    async def go_on_from_backup(self, made_ns: int) -> None:
        """Numbers jump past those that were given after the backup was made and are lost with it."""
        await self._commit(self._run(self.engine.restored, made_ns, self.clock.now_ns()))
        await self.commits.go_on()

    # ---- facts from the market and the broker: handed to the disk, nobody waits for an answer -----------------------

    def decide_on(self, account_id: str, symbol: str, tick: Tick) -> Step | None:
        """What a tick leads to; None for nothing. What is decided must be kept, before anything else is."""
        values = tick.time_msc, tick.bid, tick.ask, tick.volume
        return self._run(self.engine.on_tick, account_id, symbol, *values, self.clock.now_ns())

    def bar(self, account_id: str, symbol: str, timeframe_s: int, bar: Bar) -> bool:
        """A closed bar; False when it was late, known or inconsistent. Raises FIELD_INVALID or SYMBOL_UNKNOWN."""
        step = self._run(self.engine.on_bar, account_id, symbol, timeframe_s, *bar, self.clock.now_ns())
        self.keep(step)
        return bool(step.reply)

    def recall_tick(self, account_id: str, symbol: str, tick: Tick) -> None:
        """A tick that was decided on before: for market and quote only. Raises SYMBOL_UNKNOWN."""
        values = tick.time_msc, tick.bid, tick.ask, tick.volume
        self._run(self.engine.recall_tick, account_id, symbol, *values, self.clock.now_ns())

    def recall_account(self, account_id: str, equity: float, *, is_exposed: bool) -> None:
        """The last figure that was taken before, in account currency, and whether a trade was open then."""
        self._run(self.engine.recall_account, account_id, equity, is_exposed)

    def recall_bar(self, account_id: str, symbol: str, timeframe_s: int, bar: Bar) -> bool:
        """A closed bar of the past, for the indicators only; False when it was of no use. Raises SYMBOL_UNKNOWN."""
        return self._run(self.engine.recall_bar, account_id, symbol, timeframe_s, *bar)

    def time(self) -> bool:
        """Timers, holds, leases and retries that are due."""
        return self.keep(self._run(self.engine.on_time, self.clock.now_ns(), self.clock.mono_ns()))

    def outcome(self, view: dict[str, Any]) -> None:
        self.keep(self._run(self.engine.on_outcome, view, self.clock.now_ns()))

    def position(self, account_id: str, position: int, volume: float, sl: float | None, tp: float | None) -> None:
        now_ns = self.clock.now_ns()
        self.keep(self._run(self.engine.on_position, account_id, position, volume, sl, tp, now_ns))

    def closed(self, account_id: str, position: int, reason: int, price: float, profit: float) -> None:
        now_ns = self.clock.now_ns()
        self.keep(self._run(self.engine.on_closed, account_id, position, reason, price, profit, now_ns))

    def account(self, account_id: str, equity: float) -> bool:
        """Account figures, in account currency; True when something followed from them. Raises FIELD_INVALID."""
        return self.keep(self._run(self.engine.on_account, account_id, equity, self.clock.now_ns()))

    def news(self, account_id: str, symbol: str, blackouts: list[tuple[int, int, str]]) -> None:
        """(start ns, end ns, label) of the symbol's news, in place of those before."""
        self.keep(self._run(self.engine.set_news, account_id, symbol, blackouts, self.clock.now_ns()))

    def alarm(self, account_id: str, code: int, detail: str) -> None:
        """An alarm about an account's broker, or with an empty account about the service itself."""
        self.keep(self._run(self.engine.raise_alarm, account_id, code, detail[:ALARM_CHARS], self.clock.now_ns()))

    def lost_leg(self, key: TradeKey, intent: int, position: Position) -> None:
        """A position that ``intent``, of a time that the journal has lost, has opened for the trade."""
        held, now_ns = position, self.clock.now_ns()
        step = self._run(
            self.engine.on_lost_leg,
            *key,
            intent,
            held.ticket,
            held.side.value,
            held.volume,
            held.price_open,
            held.sl,
            now_ns,
        )
        self.keep(step)

    def missing(self, key: TradeKey) -> None:
        self.keep(self._run(self.engine.on_missing, *key, self.clock.now_ns()))

    # ---- reads ------------------------------------------------------------------------------------------------------

    async def trade_bytes(self, key: TradeKey) -> bytes:
        """The encoded Trade, not before it is durable. Raises TRADE_UNKNOWN."""
        revision, body = self._view(key)
        if revision > self.commits.durable_revision:
            await self.commits.durable(revision)
        return body

    def keys(self, include_closed: bool) -> list[TradeKey]:
        """Trades in order of registration."""
        return self.engine.keys(not include_closed)

    def view(self, key: TradeKey) -> bytes:
        """The encoded Trade as of now: wait for the engine's revision before showing it. Raises TRADE_UNKNOWN."""
        return self._view(key)[1]

    def views(self, include_closed: bool) -> list[bytes]:
        """Encoded trades in order of registration, as of now: wait for the engine's revision before showing them."""
        return [self._view(key)[1] for key in self.keys(include_closed)]

    def knows(self, key: TradeKey) -> bool:
        return key in self._views or self.engine.trade(*key) is not None

    def trade(self, key: TradeKey) -> dict[str, Any]:
        view = self.engine.trade(*key)
        if view is None:
            raise trade_unknown(key)
        return view

    def ownership(self, key: TradeKey) -> dict[str, Any]:
        view = self.engine.ownership(*key, self.clock.mono_ns())
        if view is None:
            raise trade_unknown(key)
        return view

    def score(self, account_id: str, symbol: str, side: int) -> dict[str, Any] | None:
        """As a trade of the side sees it; None before the first price. Raises SYMBOL_UNKNOWN."""
        return self._run(self.engine.score, account_id, symbol, side)

    def quote(self, account_id: str, symbol: str) -> dict[str, Any] | None:
        """None before the first price. Raises SYMBOL_UNKNOWN."""
        return self._run(self.engine.quote, account_id, symbol)

    def decisions(self) -> Iterator[dict[str, Any]]:
        """The durable decisions kept in memory, newest first, each with its revision."""
        for kept in reversed(self._decisions):
            yield kept if isinstance(kept, dict) else convert.decision_of(*kept)

    def decision_on(self, manager: str, request_id: str) -> dict[str, Any] | None:
        """The decision on a proposal; None once it is forgotten."""
        return self.engine.decision_on(manager, request_id)

    async def settled(self) -> None:
        """Everything that was handed over so far is durable and published."""
        await self.commits.durable(self.engine.revision)

    async def read(self, from_revision: int, limit: int) -> list[Event]:
        """Recorded events from a revision on, as Journal.read gives them. One that is damaged is alarmed, once."""
        try:
            return await self.commits.read(from_revision, limit)
        except DtmsError as error:
            if (damage := damage_of(error)) is not None:
                self.damaged(damage[0], str(error))
            raise

    def damaged(self, revision: int, why: str) -> None:
        """A recorded event does not verify: nobody gets it. Alarmed once in a run."""
        if revision not in self.damaged_revisions and len(self.damaged_revisions) < MAX_DAMAGED:
            self.damaged_revisions.append(revision)
            log.error("journal_damaged", damaged_revision=revision, why=why)
            self.alarm("", convert.ALARM_JOURNAL_DAMAGED, why)

    # ---- recovery ---------------------------------------------------------------------------------------------------

    def replay(self, events: Sequence[Event]) -> None:
        """Folds journal events, in order."""
        for place in self._run(self.engine.fold, events):
            self._keep_decision(events[place])

    def recall(self, events: Sequence[Event]) -> bool:
        """Takes the decisions of events that are folded already, so that they can be listed and explained; events
        older than those before. False once no more are kept."""
        older = [events[place] for place in self._run(decisions, events)]
        room = self.decisions_kept - len(self._decisions)
        self._decisions.extendleft(reversed(older[-room:] if room > 0 else []))
        return len(older) < room

    def repeat(self, events: Sequence[Event]) -> None:
        """A run in lockstep makes these events once more, because what led to them was cut off in the middle.

        They are in the journal and published: each is compared, acted on, and not written again.
        """
        self._repeats.extend(events)

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _decide(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A client's command: refused while too much waits for the disk, because what is decided must go in."""
        self.commits.require_room()
        return self._run(method, *args, **kwargs)

    @staticmethod
    def _run(method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except CoreError as error:
            raise from_core(error) from None

    async def _commit(self, step: Step) -> int:
        """Waits until the step is on disk; a repeated command waits for what it repeats."""
        self.keep(step)
        revision = self.engine.revision
        await self.commits.durable(revision)
        return revision

    def keep(self, step: Step | None) -> bool:
        """Encodes a step's events and hands them to the disk; True when there were any."""
        if step is None or not step.events:
            return False
        bodies, repeated = [], 0
        for event in step.events:
            body = convert.encode_event(event)
            if self._repeats:
                repeated = self._repeated(event["revision"], body)
            else:
                bodies.append((event["revision"], body))
            self._views.pop((event["account_id"], event["ticket"]), None)
            entry = Entry(
                event["revision"],
                event["account_id"],
                event["ticket"],
                event["symbol"],
                event["state"],
                convert.frame(body),
            )
            self._unpublished.append(_Unpublished(entry, event))
        self.commits.append(bodies)
        if repeated:
            self.publish(repeated)
        return True

    def _repeated(self, revision: int, body: bytes) -> int:
        expected, recorded = self._repeats.popleft()
        if (revision, body) != (expected, recorded):
            raise RunDiffers(f"event {revision} is not what the journal has as revision {expected}")
        return revision

    def publish(self, revision: int) -> None:
        """CommitQueue calls it when everything up to ``revision`` is on disk: show it, then act on it."""
        durable: list[_Unpublished] = []
        while self._unpublished and self._unpublished[0].entry.revision <= revision:
            durable.append(self._unpublished.popleft())
        reach(Point.PUBLISH)
        known = self.events.newest_revision
        self.events.publish([item.entry for item in durable if item.entry.revision > known])
        reach(Point.PUBLISHED)
        for item in durable:
            self._remember(item.event)
            self._act_on(item.event)
            if self.on_fact is not None:
                self.on_fact(item.event)

    def _act_on(self, event: dict[str, Any]) -> None:
        if intent := event.get("intent_recorded"):
            where = {name: event[name] for name in ("account_id", "ticket", "symbol")}
            self.on_intent({**intent, **where, "recorded_ns": event["time_ns"]})
        elif recorded := event.get("outcome_recorded"):
            outcome = recorded["outcome"]
            if outcome["status"] != convert.OUTCOME_UNKNOWN:
                waiting = self._outcomes.pop(outcome["intent_id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(outcome)
        elif "alarm_raised" in event:
            self.on_alarm(event)
        elif reported := event.get("index_reported"):
            self.on_index(reported["index"]["name"])

    def _remember(self, event: dict[str, Any]) -> None:
        if made := event.get("decision_made"):
            self._keep_decision({**made["decision"], "revision": event["revision"]})

    def _keep_decision(self, decision: dict[str, Any] | Event) -> None:
        self._decisions.append(decision)
        while len(self._decisions) > self.decisions_kept:
            self._decisions.popleft()

    def _view(self, key: TradeKey) -> tuple[int, bytes]:
        cached = self._views.get(key)
        if cached is None:
            view = self.trade(key)
            cached = self._views[key] = (view["revision"], convert.trade(view).SerializeToString())
        return cached

    def _outcome_of(self, intent_id: int) -> Awaitable[dict[str, Any]]:
        waiting = self._outcomes.get(intent_id)
        if waiting is None:
            waiting = self._outcomes[intent_id] = asyncio.get_running_loop().create_future()
        return waiting


def trade_unknown(key: TradeKey) -> DtmsError:
    account_id, ticket = key
    return DtmsError(
        Reason.TRADE_UNKNOWN,
        f"no trade {ticket} on account {account_id}",
        metadata={"account_id": account_id, "ticket": str(ticket)},
    )


def from_core(error: CoreError) -> DtmsError:
    """A refusal of the core with its facts: (reason, field, message)."""
    reason, field_name, message = error.args
    violations = (FieldViolation(field_name, message),) if reason == Reason.FIELD_INVALID else ()
    metadata = {"field": field_name} if field_name and not violations else {}
    return DtmsError(Reason(reason), message, metadata=metadata, violations=violations)
