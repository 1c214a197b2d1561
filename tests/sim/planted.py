"""Bugs to plant: what the system before DTMS did wrong (docs/legacy-defects.md), done to this one on purpose.

Each is a context manager that changes real behaviour at a Python seam while it holds. ``BUGS`` says under which faults
the simulation has to find it, within how many seeds, and by which validators. A simulation that finds none of them
would prove nothing by finding nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from dtms.v1.event_pb2 import CLOSE_REASON_CLIENT
from dtms.v1.trade_pb2 import TRADE_STATE_CLOSED, TRADE_STATE_HEALTHY, Trade
from dtms_client.errors import LOST
from dtms_client.managing.live import Live as ManagerLive
from dtms_service import clock, convert, interceptors, recovery
from dtms_service.broker.door import CommandKind, Outcome, OutcomeStatus
from dtms_service.broker.mt5_enums import Action as OrderAction
from dtms_service.broker.mt5_session import Failure, Mt5Session
from dtms_service.desk import Desk
from dtms_service.event_log import EventLog
from dtms_service.executor import Executor
from dtms_service.journal import CommitQueue, SqliteJournal
from dtms_service.monitor import Monitor
from dtms_service.servicers.arbitration import ArbitrationServicer
from dtms_service.servicers.watch import Watches
from dtms_service.stage import Stage
from tests.sim import faults
from tests.sim.faults import Fault
from tests.sim.world import World

Bug = Callable[[], AbstractContextManager[object]]

CLOSE_HEDGE: Final = 6


@contextmanager
def timers_never_run() -> Iterator[None]:
    """D4. Nothing that waits for its time ever comes: retries, timers, leases."""
    with patch.object(Desk, "time", lambda _desk: False):
        yield


@contextmanager
def hedge_on_the_same_side() -> Iterator[None]:
    """D5. The sign of the hedge is that of the trade."""
    before = convert.command

    def command(intent: Any, **options: Any) -> Any:
        made = before(intent, **options)
        return replace(made, side=made.side.opposite, sl=None) if made.kind is CommandKind.OPEN else made

    with patch.object(convert, "command", command):
        yield


@contextmanager
def none_is_flat() -> Iterator[None]:
    """D6. A query that fails means that nothing is open, and what is not open is closed."""
    read = Mt5Session.positions

    def positions(session: Mt5Session) -> Any:
        try:
            return read(session)
        except Failure:
            return []

    def close(watching: Monitor, account_id: str, position: int, _deals: object) -> bool:
        watching.desk.closed(account_id, position, CLOSE_REASON_CLIENT, 1.0, 0.0)
        return True

    with patch.object(Mt5Session, "positions", positions), patch.object(Monitor, "_close", close):
        yield


@contextmanager
def absence_deletes() -> Iterator[None]:
    """D7. At the start, whatever the broker does not show is deleted."""
    compare = recovery.reconcile

    async def reconcile(desk: Any, carrying: Executor, watching: Monitor, progress: Any) -> None:
        await compare(desk, carrying, watching, progress)
        account_id = progress.account_id
        shown = {position.ticket for position in await carrying.doors.of(account_id).positions(account_id)}
        for key in desk.keys(include_closed=False):
            if key[1] not in shown:
                await desk.unregister(key, "recovery")

    with patch.object(recovery, "reconcile", reconcile):
        yield


@contextmanager
def states_are_not_kept() -> Iterator[None]:
    """D9. What was last is not there after a restart."""
    load = recovery.replay

    def replay(desk: Any, journal: SqliteJournal, progress: Any, *, until: Any) -> Any:
        if journal.newest_revision > 20:
            newest = journal.newest_revision - 2
            journal._connection.execute("DELETE FROM event WHERE revision > ?", (newest,))
            journal._connection.execute("DELETE FROM snapshot WHERE revision > ?", (newest,))
            chain: Any = journal._connection.execute("SELECT chain FROM event WHERE revision = ?", (newest,)).get
            journal._newest, journal._chain = newest, chain
        return load(desk, journal, progress, until=until)

    with patch.object(recovery, "replay", replay):
        yield


@contextmanager
def hedge_outlives_its_trade() -> Iterator[None]:
    """D10. Closing the hedge is called done, and nothing is sent."""
    send = Executor._send

    async def carry(carrying: Executor, intent: dict[str, Any]) -> Outcome:
        if intent["kind"] != CLOSE_HEDGE:
            return await send(carrying, intent)
        command = carrying._command(intent)
        answer = Outcome(OutcomeStatus.CONFIRMED, 10009, "done", price=1.1, volume=command.volume)
        carrying._record(intent, command, answer, settled=False)
        return answer

    with patch.object(Executor, "_send", carry):
        yield


@contextmanager
def hedge_ticket_is_lost() -> Iterator[None]:
    """D11. What the broker says about the hedge's ticket is not written back."""
    before = convert.outcome

    def outcome(command: Any, answer: Any, **options: Any) -> Any:
        view = before(command, answer, **options)
        if view.get("opened_ticket"):
            view["opened_ticket"] += 500_000
        return view

    with patch.object(convert, "outcome", outcome):
        yield


@contextmanager
def states_before_actions() -> Iterator[None]:
    """D12. A state is confirmed at once, whatever becomes of its actions."""
    before = convert.encode_event

    def encode(event: dict[str, Any]) -> bytes:
        if changed := event.get("state_changed"):
            event = {**event, "state_changed": {**changed, "phase": 2}}
        return before(event)

    with patch.object(convert, "encode_event", encode):
        yield


@contextmanager
def defence_is_hidden() -> Iterator[None]:
    """D21. Who asks for a trade that is defended is told that it is healthy."""
    before = convert.trade

    def trade(view: Any) -> Trade:
        shown = before(view)
        if shown.state != TRADE_STATE_CLOSED:
            shown.state = TRADE_STATE_HEALTHY
        return shown

    with patch.object(convert, "trade", trade):
        yield


@contextmanager
def fail_open() -> Iterator[None]:
    """D22. A manager that cannot ask writes all the same."""
    ask = ManagerLive._send

    async def send(live: ManagerLive, proposal: Any) -> Any:
        request = proposal.request("direct")
        world = _world_of(live)
        try:
            return await live._client.propose(
                request_id=f"{request.ticket}-{world.loop.time():.6f}",
                account_id=request.account_id,
                ticket=request.ticket,
                owner_epoch=request.owner_epoch,
                action=request.action,
            )
        except LOST:
            held = world.broker.position(request.ticket)
            if held is not None and request.action.HasField("stop"):
                levels = {"sl": request.action.stop, "tp": held.tp or 0.0}
                order = {"action": int(OrderAction.SLTP), "symbol": held.symbol, "position": held.ticket}
                world.broker.order_send({**order, **levels, "comment": "direct"})
            return await ask(live, proposal)

    with patch.object(ManagerLive, "_send", send):
        yield


def _world_of(live: ManagerLive) -> World:
    network: Any = live._client._target._network  # type: ignore[attr-defined]
    world: World = network.world
    return world


@contextmanager
def owners_are_overwritten() -> Iterator[None]:
    """D25. Whoever asks for a trade is told that it is his."""
    before = ArbitrationServicer.AcquireOwnership

    async def acquire(servicer: ArbitrationServicer, request: Any, call: Any) -> Any:
        answer = await before(servicer, request, call)
        answer.granted = True
        answer.ClearField("denial")
        answer.ownership.managed_by = call.principal.name
        return answer

    with patch.object(ArbitrationServicer, "AcquireOwnership", acquire):
        yield


@contextmanager
def check_then_act() -> Iterator[None]:
    """D26. Which grant a proposal was decided under is not looked at."""
    before = Desk.propose

    async def propose(desk: Desk, *asked: Any, **more: Any) -> Any:
        manager, request_id, key, epoch, action = asked
        if desk.knows(key):
            epoch = desk.ownership(key)["owner_epoch"]
        return await before(desk, manager, request_id, key, epoch, action, **more)

    with patch.object(Desk, "propose", propose):
        yield


@contextmanager
def stop_takes_the_target_away() -> Iterator[None]:
    """D31. A change of the stop writes over the target."""
    before = convert.command

    def command(intent: Any, **options: Any) -> Any:
        made = before(intent, **options)
        return replace(made, tp=None, keeps_tp=False) if made.kind is CommandKind.MODIFY else made

    with patch.object(convert, "command", command):
        yield


@contextmanager
def failures_are_sent_again() -> Iterator[None]:
    """D31. What did not work is sent a second time at once, the lost answer included."""
    send = Executor._send

    async def carry(carrying: Executor, intent: dict[str, Any]) -> Outcome:
        command = carrying._command(intent)
        try:
            first = await carrying.doors.of(command.account_id).execute(command)
        except Exception:  # noqa: BLE001  as it was done
            return await send(carrying, intent)
        if first.status is not OutcomeStatus.CONFIRMED:
            return await send(carrying, intent)
        carrying._record(intent, command, first, settled=False)
        return first

    with patch.object(Executor, "_send", carry):
        yield


@contextmanager
def refused_is_done() -> Iterator[None]:
    """D32. A refused part is noted as taken."""
    before = convert.outcome

    def outcome(command: Any, answer: Any, **options: Any) -> Any:
        if answer.status is OutcomeStatus.REJECTED and command.kind is CommandKind.CLOSE:
            answer = replace(answer, status=OutcomeStatus.CONFIRMED, retcode=10009, price=1.1, volume=command.volume)
        return before(command, answer, **options)

    with patch.object(convert, "outcome", outcome):
        yield


@contextmanager
def stop_at_the_market() -> Iterator[None]:
    """D33. The stop that is sent is not the one that was decided."""
    before = convert.command

    def command(intent: Any, **options: Any) -> Any:
        made = before(intent, **options)
        if made.kind is CommandKind.MODIFY and made.sl is not None:
            return replace(made, sl=round(made.sl + (0.0003 if made.side.value == 1 else -0.0003), 5))
        return made

    with patch.object(convert, "command", command):
        yield


@contextmanager
def serves_while_recovering() -> Iterator[None]:
    """D35. Health is good, whatever is."""
    before = interceptors.Pipeline.__init__

    def init(pipeline: Any, credentials: Any, _stage: Any, on_fatal: Any) -> None:
        before(pipeline, credentials, lambda: Stage.SERVING, on_fatal)

    with patch.object(interceptors.Pipeline, "__init__", init):
        yield


@contextmanager
def history_has_holes() -> Iterator[None]:
    """D37. Not every event is told."""
    before = EventLog.joined

    def joined(log: EventLog, batch: Any) -> bytes:
        return before(log, [entry for entry in batch if entry.revision % 17])

    with patch.object(EventLog, "joined", joined), patch.object(EventLog, "ready", lambda *_: None):
        yield


@contextmanager
def registering_again_resets() -> Iterator[None]:
    """D38. A trade that is registered again begins anew."""
    before = Desk.register

    async def register(desk: Desk, key: Any, body: Any, origin: int, by: str) -> bool:
        if desk.knows(key):
            await desk.unregister(key, by)
        return await before(desk, key, body, origin, by)

    with patch.object(Desk, "register", register):
        yield


@contextmanager
def widening_without_a_word() -> Iterator[None]:
    """D42. Every proposal may loosen."""
    before = Desk.propose

    async def propose(desk: Desk, *asked: Any, **more: Any) -> Any:
        manager, request_id, key, epoch, action = asked
        return await before(desk, manager, request_id, key, epoch, {**action, "allow_loosen": True}, **more)

    with patch.object(Desk, "propose", propose):
        yield


@contextmanager
def one_reader_blocks_all() -> Iterator[None]:
    """D44. All watchers wait for the slowest."""
    before = Watches.stream

    async def stream(watches: Watches, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        turn = _turns.setdefault(id(watches), asyncio.Lock())
        async for answer in before(watches, *arguments, **options):
            async with turn:
                yield answer

    _turns: dict[int, asyncio.Lock] = {}
    with patch.object(Watches, "stream", stream):
        yield


@contextmanager
def leases_on_the_wall_clock() -> Iterator[None]:
    """D4. Leases are counted on the clock that jumps."""
    machine: Any = clock
    with patch.object(clock.SystemClock, "mono_ns", lambda _clock: machine.time.time_ns()):
        yield


@contextmanager
def sent_before_it_is_kept() -> Iterator[None]:
    """D12. The order is on its way before anything is on disk."""
    before = Desk.keep

    def keep(desk: Desk, step: Any) -> bool:
        made = before(desk, step)
        for event in step.events if made and step is not None else ():
            if intent := event.get("intent_recorded"):
                where = {name: event[name] for name in ("account_id", "ticket", "symbol")}
                desk.on_intent({**intent, **where})
        return made

    act = Desk._act_on

    def act_on(desk: Desk, event: dict[str, Any]) -> None:
        if not event.get("intent_recorded"):
            act(desk, event)

    with patch.object(Desk, "keep", keep), patch.object(Desk, "_act_on", act_on):
        yield


@contextmanager
def answered_before_it_is_kept() -> Iterator[None]:
    """D9. Nobody waits for the disk."""

    async def durable(_queue: CommitQueue, _revision: int) -> None:
        await asyncio.sleep(0)

    with patch.object(CommitQueue, "durable", durable):
        yield


@contextmanager
def keys_are_forgotten() -> Iterator[None]:
    """D26. The same request twice is two requests."""
    before, numbers = Desk.propose, itertools.count()

    async def propose(desk: Desk, manager: str, request_id: str, *arguments: Any, **options: Any) -> Any:
        return await before(desk, manager, f"{request_id}+{next(numbers)}", *arguments, **options)

    with patch.object(Desk, "propose", propose):
        yield


@contextmanager
def hands_are_not_seen() -> Iterator[None]:
    """D31. What somebody changed by hand is not looked at."""
    with patch.object(Desk, "position", lambda *_: None):
        yield


@dataclass(frozen=True, slots=True)
class Planted:
    """``defect`` is the number in docs/legacy-defects.md; found by any of ``by`` within ``seeds`` under ``faults``."""

    bug: Bug
    defect: int
    by: frozenset[str]
    faults: tuple[Fault, ...]
    seeds: int

    @property
    def name(self) -> str:
        return self.bug.__name__


def _planted(bug: Bug, defect: int, by: str, *under: Fault, seeds: int = 5) -> Planted:
    return Planted(bug, defect, frozenset(by.split()), under, seeds)


BUGS: Final[tuple[Planted, ...]] = (
    _planted(timers_never_run, 4, "I6", faults.ClientPaused(), seeds=10),
    _planted(leases_on_the_wall_clock, 4, "I6", faults.ClockJump(), faults.Killed()),
    _planted(hedge_on_the_same_side, 5, "I13", seeds=10),
    _planted(none_is_flat, 6, "I21", faults.BrokerLies()),
    _planted(absence_deletes, 7, "I21 I20", faults.BrokerLies(), faults.Killed(), seeds=10),
    _planted(states_are_not_kept, 9, "I20", faults.Killed()),
    _planted(answered_before_it_is_kept, 9, "I2 I20", faults.Killed()),
    _planted(hedge_outlives_its_trade, 10, "I13 I9", faults.ByHand(), seeds=20),
    _planted(hedge_ticket_is_lost, 11, "I13", seeds=10),
    _planted(states_before_actions, 12, "I14"),
    _planted(sent_before_it_is_kept, 12, "I9"),
    _planted(defence_is_hidden, 21, "I18"),
    _planted(fail_open, 22, "I7", faults.Partition(), faults.RequestLost(), seeds=10),
    _planted(owners_are_overwritten, 25, "I1"),
    _planted(check_then_act, 26, "I3 I7"),
    _planted(keys_are_forgotten, 26, "I7 I10"),
    _planted(stop_takes_the_target_away, 31, "I11"),
    _planted(failures_are_sent_again, 31, "I7", faults.ReplyLost()),
    _planted(hands_are_not_seen, 31, "I8 I23", faults.ByHand()),
    _planted(refused_is_done, 32, "I9", faults.Refusals(), seeds=10),
    _planted(stop_at_the_market, 33, "I7 I11"),
    _planted(serves_while_recovering, 35, "I22", faults.Killed(), seeds=10),
    _planted(history_has_holes, 37, "I15"),
    _planted(registering_again_resets, 38, "I12 I20 I21", faults.Duplicate(), seeds=10),
    _planted(widening_without_a_word, 42, "I7 I11"),
    _planted(one_reader_blocks_all, 44, "I17 I19", faults.Watchers()),
)
