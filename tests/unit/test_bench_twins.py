"""The plain-Python tables that the core is measured against decide as the core does."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from benches import plain_table, world
from benches.plain_arbiter import CLOSE, PARTIAL_CLOSE, STOP, TARGET, Denial, Leg, OwnedTrade, PlainArbiter, Rank
from benches.plain_table import BUY, NS_PER_S, SELL, Guard, PlainTrade, State
from benches.world import ACCOUNT, POINTS, PRICE, SPREAD, T0_NS
from dtms.v1 import action_pb2, event_pb2
from dtms_service._core import Engine, Step
from dtms_service.config import RailsConfig

SYMBOL = world.symbol_names(1)[0]
STRATEGY = "trend_continuation_pullback"
UNIVERSAL, EXIT_MANAGER = "universal_sl_tp_manager", "intelligent_exit_manager"
TRADES, ANSWERS_AT_ONCE = 40, 10
NO_TICKET = 999_999
SEEDS = range(16)
# The twins have none.
WITHOUT_RAILS = {**dict.fromkeys(RailsConfig().to_core(), 0), "stale_after_s": 0}
CAUSE_OF_GUARD = {
    Guard.SCORE_WORSE: event_pb2.TRANSITION_CAUSE_SCORE_WORSE,
    Guard.BETTER_HELD: event_pb2.TRANSITION_CAUSE_SCORE_BETTER,
    Guard.FLAT_TIMER_ENDED: event_pb2.TRANSITION_CAUSE_FLAT_TIMER,
    Guard.RECOVERY_CONFIRMED: event_pb2.TRANSITION_CAUSE_RECOVERY_CONFIRMED,
    Guard.RECOVERY_FAILED: event_pb2.TRANSITION_CAUSE_RECOVERY_TIMER,
}
CONFIRMED = action_pb2.OUTCOME_STATUS_CONFIRMED
OPENINGS = {action_pb2.ACTION_KIND_OPEN_HEDGE, action_pb2.ACTION_KIND_RE_ADD}
RETCODE_DONE = 10009
HEDGE = event_pb2.LEG_KIND_HEDGE
HEDGE_IMPOSSIBLE = event_pb2.TRANSITION_CAUSE_HEDGE_IMPOSSIBLE


def points(price: float) -> int:
    return round(price * POINTS)


def result(side: int, entry: int, price: int) -> int:
    return price - entry if side == BUY else entry - price


@dataclass(slots=True)
class OpenLeg:
    """A hedge or re-add at the broker; points and steps."""

    ticket: int
    is_hedge: bool
    side: int
    entry: int
    volume: int


@dataclass(slots=True)
class Pair:
    """One symbol in the core and in the twin. The market is warm and stands in one slow bar, so structure is silent."""

    seed: int
    engine: Engine
    twins: dict[int, PlainTrade]
    rules: plain_table.Rules
    now_ns: int = T0_NS
    bid: int = PRICE
    next_ticket: int = 10_000
    in_flight: dict[int, dict[str, Any]] = field(default_factory=dict)
    legs: dict[int, OpenLeg] = field(default_factory=dict)  # by position
    realised: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))  # points x steps, by ticket
    seen: set[tuple[State, State]] = field(default_factory=set)

    @classmethod
    def make(cls, seed: int, trades: int) -> Pair:
        numbers = world.config().model_copy(update={"cooldown_ms": 0, "allow_loosen": True})
        managers = {EXIT_MANAGER: 1, UNIVERSAL: 3}
        engine, rules = Engine(numbers.to_core() | WITHOUT_RAILS, managers, [STRATEGY]), world.rules(numbers)
        engine.define_account(ACCOUNT, True, "USD", T0_NS)
        engine.define_symbol(ACCOUNT, {**world.SPEC, "symbol": SYMBOL}, T0_NS)
        for index in range(60):  # flat bars by turns up and down: ATR is known, nothing breaks, no side leads
            low, high = world.price(PRICE - 30), world.price(PRICE + 30)
            opened, closed = (low, high) if index % 2 else (high, low)
            time_s = T0_NS // NS_PER_S - (60 - index) * numbers.slow_s
            engine.on_bar(ACCOUNT, SYMBOL, numbers.slow_s, time_s, opened, high, low, closed, 10.0, T0_NS)
        pair = cls(seed, engine, {}, rules)
        pair.tick(PRICE)
        for position in world.positions(trades, 1, seed):
            world.register(engine, position)
            pair.twins[position.ticket] = world.plain_trade(position, rules)
        return pair

    def tick(self, bid: int) -> None:
        self.bid = bid
        prices = world.price(bid), world.price(bid + SPREAD)
        # Event time goes on, the market's does not: no bar closes, timers run.
        self.follow(self.engine.on_tick(ACCOUNT, SYMBOL, T0_NS // 1_000_000, *prices, 1.0, self.now_ns))

    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * NS_PER_S
        self.follow(self.engine.on_time(self.now_ns, self.now_ns))

    def score(self, total: float) -> None:
        until_ns = self.now_ns + world.FAR_NS
        self.follow(self.engine.report_score(ACCOUNT, SYMBOL, {"total": total}, "test", until_ns, self.now_ns))

    def settle(self, chance: random.Random) -> None:
        """The broker answers one command."""
        if not self.in_flight:
            return
        intent = self.in_flight.pop(chance.choice(sorted(self.in_flight)))
        outcome = {"intent_id": intent["intent_id"], "status": CONFIRMED, "retcode": RETCODE_DONE, "comment": ""}
        outcome |= {"settled": True, "opened_ticket": 0, "price": world.price(self.bid), "volume": intent["volume"]}
        outcome |= {name: intent[name] for name in ("sl", "tp") if name in intent}
        if intent["kind"] in OPENINGS:
            self.next_ticket += 1
            outcome["opened_ticket"] = self.next_ticket
            self.open(intent)
        else:
            self.earn(intent)
        self.note(self.engine.on_outcome(outcome, self.now_ns).events)

    def open(self, intent: dict[str, Any]) -> None:
        is_hedge, volume = intent["leg"] == HEDGE, round(intent["volume"] * 100)
        self.legs[self.next_ticket] = OpenLeg(intent["ticket"], is_hedge, intent["side"], self.bid, volume)
        self.twins[intent["ticket"]].hedges += is_hedge

    def earn(self, intent: dict[str, Any]) -> None:
        volume, twin = round(intent["volume"] * 100), self.twins[intent["ticket"]]
        if (leg := self.legs.get(intent["position"])) is not None:
            leg.volume -= volume
            self.realised[leg.ticket] += result(leg.side, leg.entry, self.bid) * volume
        else:
            self.realised[twin.ticket] += result(twin.side, twin.entry, self.bid) * volume

    def lose(self, chance: random.Random) -> None:
        """The broker closes a hedge by its stop, by hand, or, rarely, a whole trade."""
        hedges = sorted(position for position, leg in self.legs.items() if leg.is_hedge)
        if hedges and chance.random() < 0.3:
            position = chance.choice(hedges)
            ticket, by_stop = self.legs[position].ticket, chance.random() < 0.7
            reason = event_pb2.CLOSE_REASON_STOP_LOSS if by_stop else event_pb2.CLOSE_REASON_CLIENT
            self.gone(position, ticket, reason, Guard.HEDGE_STOPPED if by_stop else Guard.HEDGE_CLOSED_BY_HAND)
        elif chance.random() < 0.01:
            ticket = chance.choice(sorted(self.twins))
            self.gone(ticket, ticket, event_pb2.CLOSE_REASON_STOP_LOSS, Guard.GONE)

    def gone(self, position: int, ticket: int, reason: int, guard: Guard) -> None:
        step = self.engine.on_closed(ACCOUNT, position, reason, world.price(self.bid), 0.0, self.now_ns)
        twin = self.twins[ticket]
        if step is not None and (twin.state, guard) in plain_table.EDGES:
            if any("state_changed" in event and event["ticket"] == ticket for event in step.events):
                plain_table.enter(twin, guard, self.rules, self.now_ns)
            self.note(step.events)
        # Between two prices the core looks at no score again: what the broker changed is judged at the next one.
        self.tick(self.bid)

    def follow(self, step: Step | None) -> None:
        """The twin evaluates every trade where the core looks for those that are due; both took the same edges."""
        events = [] if step is None else step.events
        views = [world.view_of(self.engine, SYMBOL, side) for side in (BUY, SELL)]
        made = plain_table.evaluate_all(
            self.twins.values(), views, bid=self.bid, ask=self.bid + SPREAD, rules=self.rules, now_ns=self.now_ns
        )
        self.seen |= {(edge.source, edge.target) for edge in made}
        changed = [event for event in events if "state_changed" in event]
        own = [event for event in changed if event["state_changed"]["cause"] in CAUSE_OF_GUARD.values()]
        taken = sorted((e["ticket"], e["state_changed"]["from"], e["state_changed"]["to"]) for e in own)
        assert taken == sorted((t.ticket, t.source, t.target) for t in made), f"seed {self.seed}"
        self.note(events)

    def note(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            if intent := event.get("intent_recorded"):
                self.in_flight[intent["intent_id"]] = {**intent, "ticket": event["ticket"]}
            elif recorded := event.get("outcome_recorded"):
                self.in_flight.pop(recorded["outcome"]["intent_id"], None)
            elif closed := event.get("leg_closed"):
                if (leg := self.legs.pop(closed["position"], None)) is not None:
                    self.realised[leg.ticket] += result(leg.side, leg.entry, points(closed["price"])) * leg.volume
                if closed["leg"] == HEDGE:
                    self.twins[event["ticket"]].hedge_ended_ns = event["time_ns"]
            elif (changed := event.get("state_changed")) and changed["cause"] == HEDGE_IMPOSSIBLE:
                plain_table.enter(self.twins[event["ticket"]], Guard.HEDGE_IMPOSSIBLE, self.rules, self.now_ns)

    def check(self) -> None:
        for ticket, twin in self.twins.items():
            trade = self.engine.trade(ACCOUNT, ticket)
            assert trade is not None
            core = [trade.get(name) for name in _COMPARED]
            assert core == [getattr(twin, name) for name in _COMPARED], f"seed {self.seed}, ticket {ticket}"

    def play(self, steps: int, chance: random.Random) -> None:
        for _ in range(steps):
            match chance.randrange(6):
                case 0:
                    self.score(round(chance.uniform(-8, 5), 1))
                case 1 | 2:
                    self.tick(max(PRICE - 900, min(PRICE + 900, self.bid + chance.randint(-60, 60))))
                case 3:
                    self.wait(chance.choice((1, 30, 61, 300, 2000)))
                case 4:
                    for _ in range(ANSWERS_AT_ONCE):
                        self.settle(chance)
                case _:
                    for _ in range(ANSWERS_AT_ONCE):
                        self.lose(chance)
            self.check()


_COMPARED = ("state", "armed", "flat_timer_ends_ns", "recovery_timer_ends_ns", "better_since_ns")


@functools.cache
def passed_in(seed: int) -> frozenset[tuple[State, State]]:
    """The edges that a random world takes, twin and core compared at each of its steps."""
    pair = Pair.make(seed, trades=TRADES)
    pair.play(steps=400, chance=random.Random(seed))
    return frozenset(pair.seen)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_plain_table_takes_the_edges_of_the_core(seed: int) -> None:
    """Over random scores, prices, waits and broker answers, state, timers and holds of twin and core stay equal."""
    assert passed_in(seed)


def test_the_random_worlds_reach_the_table() -> None:
    """The comparison means something: its worlds together enter every state but by structure."""
    seen: set[tuple[State, State]] = set().union(*map(passed_in, SEEDS))
    assert {
        (State.HEALTHY, State.WARNING_L1),
        (State.WARNING_L1, State.HEALTHY),
        (State.WARNING_L1, State.WARNING_L2),
        (State.WARNING_L2, State.WARNING_L1),
        (State.WARNING_L2, State.HEDGED),
        (State.HEDGED, State.CLOSED),
        (State.RECOVERING, State.HEALTHY),
        (State.RECOVERING, State.WARNING_L2),
        (State.RECOVERING, State.CLOSED),
    } <= seen


def owned(trade: dict[str, Any], in_flight: Iterable[dict[str, Any]], realised: int) -> OwnedTrade:
    """The core's trade as the twin's."""
    levels, side = trade["confirmed"], trade["side"]
    level = {name: points(levels[name]) if name in levels else None for name in ("sl", "tp")}
    risk = points(trade["risk_distance"])
    legs = []
    for name, leg_side in (("hedge", BUY + SELL - side), ("readd", side)):
        if (leg := trade.get(name)) is not None:
            entry = points(leg["entry_price"])
            stop = points(leg["sl"]) if "sl" in leg else entry - risk * (1 if leg_side == BUY else -1)
            legs.append(Leg(leg_side, entry, stop, round(leg["volume"] * 100)))
    return OwnedTrade(
        ticket=trade["ticket"],
        symbol=SYMBOL,
        side=side,
        entry=points(trade["entry_price"]),
        risk=risk,
        initial_volume=round(trade["initial_volume"] * 100),
        volume=round(trade["volume"] * 100),
        sl=level["sl"],
        tp=level["tp"],
        state=State(trade["state"]),
        managed_by=trade["managed_by"],
        owner_epoch=trade["owner_epoch"],
        breakeven_triggered=trade["breakeven_triggered"],
        set_by_rank=levels["set_by_rank"],
        in_flight=next((i["intent_id"] for i in in_flight if i["ticket"] == trade["ticket"]), None),
        is_gone="close_price" in trade,
        realised=realised,
        legs=tuple(legs),
        last_change_ns={m["manager"]: m["last_change_ns"] for m in trade["managers"]},
    )


def random_action(chance: random.Random, trade: OwnedTrade) -> dict[str, Any]:
    kind = chance.choice((STOP, STOP, STOP, TARGET, PARTIAL_CLOSE, CLOSE))
    action: dict[str, Any] = {"kind": kind, "purpose": 0, "allow_loosen": chance.random() < 0.5}
    if kind == STOP:
        near = trade.entry if trade.sl is None else trade.sl
        action["stop"] = world.price(chance.choice((0, near, near + chance.randint(-200, 200))))
    elif kind == TARGET:
        action["target"] = world.price(chance.choice((0, trade.entry + chance.randint(-500, 500))))
    elif kind == PARTIAL_CLOSE:
        action["volume"] = chance.choice((0.005, 0.01, 0.5, 1.0, 2.0))
    return action


def compare_decisions(seed: int) -> set[int]:
    """Asks twin and core the same in a random world; the denial codes that came up."""
    pair, codes = Pair.make(seed, trades=TRADES), set[int]()
    arbiter = PlainArbiter(
        account_id=ACCOUNT,
        ranks={UNIVERSAL: Rank.STRATEGY, EXIT_MANAGER: Rank.PROFIT_PROTECTION},
        cooldown_ms=0,
        allow_loosen=True,
        grids={SYMBOL: world.GRID},
        quotes={},
    )
    chance = random.Random(seed)
    for _ in range(15):
        pair.play(steps=15, chance=chance)
        arbiter.quotes[SYMBOL] = (pair.bid, pair.bid + SPREAD)
        for ticket in pair.twins:
            view = pair.engine.trade(ACCOUNT, ticket)
            assert view is not None
            arbiter.trades[ticket] = trade = owned(view, pair.in_flight.values(), pair.realised[ticket])
            for manager in (EXIT_MANAGER, UNIVERSAL, "my_bot"):
                epoch = trade.owner_epoch - (chance.random() < 0.1)
                action = random_action(chance, trade)
                codes.add(compare(pair, arbiter, manager, ticket=ticket, epoch=epoch, action=action))
            if chance.random() < 0.3:
                claimant = chance.choice((EXIT_MANAGER, UNIVERSAL))
                pair.engine.acquire(ACCOUNT, ticket, claimant, pair.now_ns, pair.now_ns)
        codes.add(compare(pair, arbiter, EXIT_MANAGER, ticket=NO_TICKET, epoch=0, action={"kind": CLOSE}))
    return codes


def compare(pair: Pair, arbiter: PlainArbiter, manager: str, *, ticket: int, epoch: int, action: dict[str, Any]) -> int:
    now = pair.now_ns
    core = pair.engine.propose(manager, "", ACCOUNT, ticket, epoch, action, True, now, now).reply["decision"]
    twin = arbiter.propose(manager, "", ticket, owner_epoch=epoch, action=action, dry_run=True, now_ns=now).decision
    for name in ("granted", "denial", "retryable", "rank"):
        assert core[name] == twin[name], f"seed {pair.seed}, {name}, {manager} {action}: {core} {twin}"
    return int(core["denial"])


def test_the_plain_arbiter_decides_as_the_core() -> None:
    """In random worlds, proposals of all managers are granted or denied with the same code by twin and core."""
    codes = set().union(*(compare_decisions(seed) for seed in SEEDS))
    assert codes == {0, *Denial} - {Denial.HALTED, Denial.COOLDOWN, Denial.FROZEN}, "the worlds ask for every code else"
