"""The executor: carries durable intents through the broker's one door and brings the outcomes back.

An intent arrives here only after it is on disk. Whatever happens then, it ends in an outcome: CONFIRMED, REJECTED, or
UNKNOWN that is settled by reading the broker, never by guessing. What counts as evidence stands in domain.md
("Outcomes").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import structlog

from dtms_service import convert
from dtms_service.broker.door import (
    BrokerDoor,
    BrokerUnavailable,
    Command,
    CommandKind,
    OrderFate,
    OrderRecord,
    Outcome,
    OutcomeStatus,
    Position,
)
from dtms_service.broker.retcodes import Retcode
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError
from dtms_service.fault_points import Point, reach
from dtms_service.latency import Latencies

SETTLE_READS = 2  # without a trace, at least: one may fall between a fill and the books that show it
SETTLE_INTERVAL_S = 0.25  # between two reads
SETTLE_PAUSE_MOST_S = 5.0  # between two reads of a broker that does not answer
# Clocks of this machine and of the broker may differ by so much: older orders are another journal's.
CLOCKS_DIFFER_MS = 3_600_000
COMMAND_DEADLINE_S = 30.0  # a terminal that hangs longer is restarted by its supervisor

log = structlog.get_logger(__name__)


class Trace(Enum):
    """What the broker shows of a command that has no outcome: one that may yet be executed, one that never will be,
    nothing, or not even the position that it was about (a report that lacks one, a deal that comes late)."""

    WORKING = 1
    DROPPED = 2
    NONE = 3
    UNSEEN = 4


@dataclass(slots=True)
class Executor:
    """One task per intent; the core has at most one intent of a trade in flight.

    ``serial`` carries intents one after the other, over all trades, so that a lockstep run has one order.
    """

    desk: Desk
    doors: Doors
    deviation_points: int
    magic: int
    serial: bool
    on_failure: Callable[[BaseException], None]
    # How long a command may be on its way after its answer was lost, where something lies between (see door.py).
    settle_s: float
    settle_interval_s: float = SETTLE_INTERVAL_S
    calls: Latencies = field(default_factory=Latencies)
    # Told to the desk so far, UNKNOWN ones too; and of them those that the broker's books told, not its answer.
    outcomes: int = 0
    settlements: int = 0
    _tasks: dict[asyncio.Task[None], str] = field(default_factory=dict)  # and the account that each is about
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def submit(self, intent: dict[str, Any]) -> None:
        """Carries the intent out in the background."""
        self._start(intent, self._carry_out(intent))

    def settle(self, intent: dict[str, Any]) -> None:
        """After a restart: the intent may or may not have reached the broker. It is never sent again."""
        self._start(intent, self._settle_unknown(intent))

    def under_way(self, account_id: str) -> int:
        """Commands that are at the account's broker, or wait to be settled."""
        return sum(about == account_id for about in self._tasks.values())

    async def idle(self, account_id: str | None = None) -> None:
        """Nothing is at the broker (of the account), and every outcome is durable, with what followed from it."""
        while True:
            await self.desk.settled()
            tasks = {task for task, about in self._tasks.items() if account_id in (None, about)}
            if not tasks:
                return
            await asyncio.wait(tasks)

    async def finish(self, within_s: float) -> None:
        """Idle, or no longer at work: what cannot be settled in time stays open in the journal, for the next start."""
        try:
            async with asyncio.timeout(within_s):
                await self.idle()
        except TimeoutError:
            log.warning("intents_left_open", count=len(self._tasks), why=f"not settled within {within_s:g} s")
            for task in list(self._tasks):
                task.cancel()

    def _start(self, intent: dict[str, Any], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = intent["account_id"]
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_failure(error)

    async def _carry_out(self, intent: dict[str, Any]) -> None:
        if self.serial:
            async with self._turn:
                answer = await self._send(intent)
        else:
            answer = await self._send(intent)
        if answer.status is OutcomeStatus.UNKNOWN:
            await self._settle_unknown(intent)

    async def _send(self, intent: dict[str, Any]) -> Outcome:
        command = self._command(intent)
        started = time.perf_counter_ns()
        try:
            door = self.doors.of(command.account_id)
            unsent = await self._reason_not_to_send(door, intent, command)
        except (BrokerUnavailable, DtmsError) as error:
            if intent["action_id"]:
                # DTMS's own: it is planned anew from the prices of when the broker is back.
                await self.doors.wait(command.account_id)
            return self._unsent(intent, command, str(error))
        if unsent:
            return self._unsent(intent, command, unsent)
        reach(Point.COMMAND)
        try:
            async with asyncio.timeout(COMMAND_DEADLINE_S):
                answer = await door.execute(command)
        except (BrokerUnavailable, TimeoutError) as error:
            answer = Outcome(OutcomeStatus.UNKNOWN, retcode=0, comment=f"{type(error).__name__}: {error}"[:200])
        reach(Point.OUTCOME)
        self.calls.add(time.perf_counter_ns() - started)
        self._record(intent, command, answer, settled=False)
        return answer

    def _unsent(self, intent: dict[str, Any], command: Command, why: str) -> Outcome:
        answer = Outcome(OutcomeStatus.REJECTED, Retcode.CONNECTION, f"not sent: {why}"[:200])
        self._record(intent, command, answer, settled=False)
        return answer

    async def _reason_not_to_send(self, door: BrokerDoor, intent: dict[str, Any], command: Command) -> str:
        """Empty: send it. Before a repeated order, whatever was believed lost is looked for once more.

        Raises BrokerUnavailable: then nothing is sent either.
        """
        if not intent["attempt"] or command.kind is CommandKind.MODIFY:
            return ""
        held = {position.ticket: position for position in await door.positions(command.account_id)}
        found = await self.find_late(door, command.account_id, held, ticket=command.ticket)
        return "an earlier try of it was executed late" if found else ""

    def _command(self, intent: dict[str, Any]) -> Command:
        return convert.command(intent, deviation_points=self.deviation_points, magic=self.magic)

    def _record(self, intent: dict[str, Any], command: Command, answer: Outcome, *, settled: bool) -> None:
        log.info(
            "broker",
            intent=intent["intent_id"],
            ticket=intent["ticket"],
            manager=intent["manager"],
            kind=command.kind.name,
            status=answer.status.name,
            retcode=answer.retcode,
            settled=settled,
        )
        self.outcomes += 1
        self.settlements += settled
        self.desk.outcome(convert.outcome(command, answer, settled=settled))
        reach(Point.OUTCOME_KEPT)

    # ---- what became of a command without an answer ----------------------------------------------------------------

    async def _settle_unknown(self, intent: dict[str, Any]) -> None:
        """Reads the broker until the intent's fate is proven. A failed read proves nothing and is repeated."""
        command = self._command(intent)
        since_ns, reads, pause_s = self.desk.clock.mono_ns(), 0, self.settle_interval_s
        while True:
            asked_ns = self.desk.clock.mono_ns()
            try:
                door = self.doors.of(command.account_id)
                found = await self._read_fate(door, intent, command)
            except (BrokerUnavailable, DtmsError) as error:
                log.warning("settle_waits", intent=intent["intent_id"], ticket=intent["ticket"], why=str(error))
                pause_s = min(2 * pause_s, SETTLE_PAUSE_MOST_S)
            else:
                pause_s = self.settle_interval_s
                if isinstance(found, Outcome):
                    self._record(intent, command, found, settled=True)
                    return
                # In virtual time no price comes while a command is under way: what is placed now cannot be awaited.
                is_over = (door.settles_at_once and found is not Trace.UNSEEN) or self.serial
                reads += found is not Trace.WORKING or self.serial
                is_old = is_over or asked_ns - since_ns >= self.settle_s * 1e9
                if found is Trace.DROPPED or (reads >= SETTLE_READS and is_old):
                    why = "dropped" if found is Trace.DROPPED else "not executed"
                    answer = Outcome(OutcomeStatus.REJECTED, retcode=0, comment=f"{why}, as the broker shows")
                    self._record(intent, command, answer, settled=True)
                    return
            await asyncio.sleep(pause_s)

    async def _read_fate(self, door: BrokerDoor, intent: dict[str, Any], command: Command) -> Outcome | Trace:
        """CONFIRMED with what the broker shows, or what trace of the command it shows else."""
        positions = {position.ticket: position for position in await door.positions(command.account_id)}
        if command.kind is CommandKind.MODIFY:
            return _modified(positions, command) or await self._without_trace(door, positions, command)
        done = (
            self._opened(positions, command)
            if command.kind is CommandKind.OPEN
            else await self._closed(door, positions.get(command.position), command)
        )
        if done is not None:
            return done
        since_msc = intent["recorded_ns"] // 1_000_000 - CLOCKS_DIFFER_MS
        orders = await door.orders(command.account_id, command.comment, since_msc)
        fates = {order.fate for order in orders}
        if OrderFate.WORKING in fates:
            return Trace.WORKING
        if OrderFate.FILLED in fates:
            return _filled([order for order in orders if order.fate is OrderFate.FILLED], positions)
        return Trace.DROPPED if fates else await self._without_trace(door, positions, command)

    @staticmethod
    async def _without_trace(door: BrokerDoor, positions: Mapping[int, Position], command: Command) -> Trace:
        if not command.position or command.position in positions:
            return Trace.NONE
        deals = await door.closing_deals(command.account_id, command.position)
        return Trace.NONE if deals and deals[-1].remaining == 0 else Trace.UNSEEN

    def _opened(self, positions: Mapping[int, Position], command: Command) -> Outcome | None:
        """A position with the command's mark that is nobody's yet."""
        for position in positions.values():
            is_marked = position.comment == command.comment and position.magic == command.magic
            if is_marked and self.desk.engine.position_owner(command.account_id, position.ticket) is None:
                return _read_back(position, order=position.ticket, price=position.price_open, volume=position.volume)
        return None

    async def _closed(self, door: BrokerDoor, position: Position | None, command: Command) -> Outcome | None:
        deals = await door.closing_deals(command.account_id, command.position)
        own = [deal for deal in deals if deal.comment == command.comment]
        if not own:
            return None
        volume = round(sum(deal.volume for deal in own), 8)
        price = sum(deal.volume * deal.price for deal in own) / volume
        return _read_back(position, deal=own[-1].deal, price=price, volume=volume)

    async def find_late(
        self, door: BrokerDoor, account_id: str, held: Mapping[int, Position], *, ticket: int = 0
    ) -> bool:
        """Looks for commands that were settled as not executed and were executed since; True when one was found.

        ``held`` are the account's positions as just read; ``ticket`` narrows it to one trade, and looks closer.
        Raises BrokerUnavailable.
        """
        found = False
        for intent in self.desk.engine.abandoned():
            if intent["account_id"] != account_id or ticket not in (0, intent["ticket"]):
                continue
            command = self._command(intent)
            outcome: Outcome | Trace | None
            if command.kind is CommandKind.MODIFY:
                # Levels alone do not say who has set them: while another change is on its way it may be that one.
                is_plain = not self._modifies(command) and self._shows_change(held, command)
                outcome = _modified(held, command) if is_plain else None
            elif ticket or self._shows_change(held, command):
                outcome = await self._read_fate(door, intent, command)
            else:
                outcome = self._opened(held, command) if command.kind is CommandKind.OPEN else None
            if isinstance(outcome, Outcome):
                log.error("executed_late", intent=command.intent_id, ticket=command.ticket, kind=command.kind.name)
                self._record(intent, command, outcome, settled=True)
                found = True
        return found

    def _modifies(self, command: Command) -> bool:
        """Whether levels of the command's position are being changed just now."""
        others = (self._command(intent) for intent in self.desk.engine.open_intents())
        return any(
            other.kind is CommandKind.MODIFY
            and (other.account_id, other.position) == (command.account_id, command.position)
            for other in others
        )

    def _shows_change(self, held: Mapping[int, Position], command: Command) -> bool:
        """Whether the position that the command was about is not as the trade has it."""
        trade = self.desk.engine.trade(command.account_id, command.ticket)
        if trade is None or not command.position:
            return False
        legs = {leg["ticket"]: leg["volume"] for leg in (trade.get("hedge"), trade.get("readd")) if leg}
        believed = legs.get(command.position, trade["volume"] if command.position == command.ticket else 0.0)
        position = held.get(command.position)
        if command.kind is not CommandKind.MODIFY:
            return believed > 0 and (position is None or position.volume != believed)
        levels = (trade["confirmed"].get("sl"), trade["confirmed"].get("tp"))
        return position is not None and (position.sl, position.tp) != levels


def _modified(positions: Mapping[int, Position], command: Command) -> Outcome | None:
    position = positions.get(command.position)
    is_so = position is not None and command.shows_in(position.sl, position.tp)
    return _read_back(position) if is_so else None


def _filled(orders: list[OrderRecord], positions: Mapping[int, Position]) -> Outcome:
    """By the books of orders: an opening that is closed again, or one that a netting position has swallowed."""
    volume = round(sum(order.volume for order in orders), 8)
    price = sum(order.volume * order.price for order in orders) / volume
    last = orders[-1]
    return _read_back(positions.get(last.position), order=last.position, deal=last.deal, price=price, volume=volume)


def _read_back(
    position: Position | None, *, order: int = 0, deal: int = 0, price: float | None = None, volume: float | None = None
) -> Outcome:
    """CONFIRMED, with the levels that the position shows now."""
    sl, tp = (None, None) if position is None else (position.sl, position.tp)
    return Outcome(OutcomeStatus.CONFIRMED, 0, "read back", order, deal, price, volume, sl, tp)
