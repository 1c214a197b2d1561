"""One decision through the bridge: arguments in, decision out as Python values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benches import sampling, world
from benches.figures import Baseline, Figure, Target
from benches.plain_arbiter import STOP, Denial
from benches.plain_table import BUY
from benches.world import ACCOUNT, EXIT_MANAGER, SEED, T0_NS, Position

NAME: Final = "plain Python table"
SYMBOLS: Final = 50
ROUNDS: Final = 5  # each granted round needs trades of its own
TIGHTER: Final = 50  # points
NOW_NS: Final = T0_NS + 1
TARGET: Final = Target("value", "at most", 2.0)


@dataclass(frozen=True, slots=True)
class Case:
    """Proposals that end alike: ``shift`` of the stop in points towards the price, None of it changed."""

    name: str
    shift: int
    dry_run: bool
    denial: Denial | None


CASES: Final = (
    Case("dry run, denied (NO_CHANGE, the last of the table)", 0, True, Denial.NO_CHANGE),
    Case("dry run, granted", TIGHTER, True, None),
    Case("denied and recorded", 0, False, Denial.NO_CHANGE),
    Case("granted and recorded, with its intent", TIGHTER, False, None),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One proposal, ready to be made: building its arguments is the caller's business, not the decision's."""

    request_id: str
    ticket: int
    epoch: int
    action: dict[str, Any]


def measure(quick: bool) -> list[Figure]:
    """Microseconds a decision, of 10,000 in each round; of 100 when quick."""
    calls = 100 if quick else 10_000
    numbers = world.config()
    engine, arbiter = world.new_engine(numbers, SYMBOLS), world.plain_arbiter(numbers, SYMBOLS)
    known: list[tuple[Position, int]] = []
    for position in world.positions(calls * ROUNDS, SYMBOLS, SEED):
        world.register(engine, position)
        owner = engine.ownership(ACCOUNT, position.ticket, 0)
        assert owner is not None, "it was registered just now"
        known.append((position, owner["owner_epoch"]))
        arbiter.trades[position.ticket] = world.owned_trade(position, owner["owner_epoch"])

    def by_core(ask: Ask, dry_run: bool) -> dict[str, Any]:
        step = engine.propose(
            EXIT_MANAGER, ask.request_id, ACCOUNT, ask.ticket, ask.epoch, ask.action, dry_run, NOW_NS, 0
        )
        decision: dict[str, Any] = step.reply["decision"]
        return decision

    def with_events(ask: Ask, dry_run: bool) -> dict[str, Any]:
        step = engine.propose(
            EXIT_MANAGER, ask.request_id, ACCOUNT, ask.ticket, ask.epoch, ask.action, dry_run, NOW_NS, 0
        )
        decision: dict[str, Any] = step.reply["decision"]
        return decision if step.events else {}

    def by_twin(ask: Ask, dry_run: bool) -> dict[str, Any]:
        return arbiter.propose(
            EXIT_MANAGER,
            ask.request_id,
            ask.ticket,
            owner_epoch=ask.epoch,
            action=ask.action,
            dry_run=dry_run,
            now_ns=NOW_NS,
        ).decision

    figures: list[Figure] = []
    with sampling.quiet_heap():
        for case in CASES:
            asks = _asks(case, known)
            core_us, twin_us = (_least_us(propose, case, asks) for propose in (by_core, by_twin))
            figures.append(Figure(case.name, "us", core_us, Baseline(NAME, twin_us), TARGET))
        recorded = Case("the same denied, its event read as a dict too", 0, False, Denial.IN_FLIGHT)
        figures.append(Figure(recorded.name, "us", _least_us(with_events, recorded, _asks(recorded, known, "again"))))
    return figures


def _asks(case: Case, known: Sequence[tuple[Position, int]], prefix: str = "first") -> list[Ask]:
    asks: list[Ask] = []
    for position, epoch in known:
        stop = position.sl + case.shift * (1 if position.side == BUY else -1)
        action = {"kind": STOP, "purpose": 3, "stop": world.price(stop), "allow_loosen": False}
        asks.append(Ask(f"{prefix} {case.name} {position.ticket}", position.ticket, epoch, action))
    return asks


def _least_us(propose: Callable[[Ask, bool], dict[str, Any]], case: Case, asks: Sequence[Ask]) -> float:
    calls, dry_run = len(asks) // ROUNDS, case.dry_run
    rounds = [asks[start : start + calls] for start in range(0, len(asks), calls)]
    todo = iter(rounds)
    last: dict[str, Any] = {}

    def one_round() -> None:
        nonlocal last
        for ask in next(todo):
            last = propose(ask, dry_run)

    elapsed_ns = sampling.least_ns(one_round, ROUNDS)
    if last["denial"] != (case.denial or 0):
        raise AssertionError(f"{case.name}: decided {last}")
    return elapsed_ns / calls / 1000
