"""The executor: carries durable intents through the broker's one door and brings the outcomes back.

An intent arrives here only after it is on disk. Whatever happens then, it ends in an outcome: CONFIRMED, REJECTED, or
UNKNOWN that is settled by reading the broker, never by guessing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from dtms_service import convert
from dtms_service.broker.door import (
    BrokerDoor,
    BrokerUnavailable,
    Command,
    CommandKind,
    Outcome,
    OutcomeStatus,
    Position,
)
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError
from dtms_service.fault_points import Point, reach
from dtms_service.latency import Latencies

SETTLE_READS = 2  # a command that left no trace in so many reads was not executed
SETTLE_INTERVAL_S = 0.25  # between two reads: longer than a server takes from acceptance to fill
COMMAND_DEADLINE_S = 30.0  # a terminal that hangs longer is restarted by its supervisor

log = structlog.get_logger(__name__)


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
    settle_interval_s: float = SETTLE_INTERVAL_S
    calls: Latencies = field(default_factory=Latencies)
    # Told to the desk so far, UNKNOWN ones too.
    outcomes: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def submit(self, intent: dict[str, Any]) -> None:
        """Carries the intent out in the background."""
        self._start(self._carry_out(intent))

    def settle(self, intent: dict[str, Any]) -> None:
        """After a restart: the intent may or may not have reached the broker. It is never sent again."""
        self._start(self._settle_unknown(intent))

    @property
    def is_busy(self) -> bool:
        """Something is at the broker, or waits to be settled."""
        return bool(self._tasks)

    async def idle(self) -> None:
        """Nothing is at the broker, and every outcome is durable, with what followed from it."""
        while True:
            await self.desk.settled()
            if not self._tasks:
                return
            await asyncio.wait(set(self._tasks))

    async def finish(self, within_s: float) -> None:
        """Idle, or no longer at work: what cannot be settled in time stays open in the journal, for the next start."""
        try:
            async with asyncio.timeout(within_s):
                await self.idle()
        except TimeoutError:
            log.warning("intents_left_open", count=len(self._tasks), why=f"not settled within {within_s:g} s")
            for task in self._tasks:
                task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
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
        command = convert.command(intent, deviation_points=self.deviation_points, magic=self.magic)
        reach(Point.COMMAND)
        started = time.perf_counter_ns()
        try:
            async with asyncio.timeout(COMMAND_DEADLINE_S):
                answer = await self.doors.of(command.account_id).execute(command)
        except (BrokerUnavailable, DtmsError, TimeoutError) as error:
            answer = Outcome(OutcomeStatus.UNKNOWN, retcode=0, comment=f"{type(error).__name__}: {error}"[:200])
        reach(Point.OUTCOME)
        self.calls.add(time.perf_counter_ns() - started)
        self._record(intent, command, answer, settled=False)
        return answer

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
        self.desk.outcome(convert.outcome(command, answer, settled=settled))
        reach(Point.OUTCOME_KEPT)

    async def _settle_unknown(self, intent: dict[str, Any]) -> None:
        """Reads the broker until the intent's fate is proven. A failed read proves nothing and is repeated."""
        command = convert.command(intent, deviation_points=self.deviation_points, magic=self.magic)
        without_trace = 0
        while True:
            try:
                answer = await self._read_fate(self.doors.of(command.account_id), intent, command)
            except (BrokerUnavailable, DtmsError) as error:
                log.warning("settle_waits", intent=intent["intent_id"], why=str(error))
                answer = None
            else:
                without_trace += answer is None
            if answer is None and without_trace >= SETTLE_READS:
                answer = Outcome(OutcomeStatus.REJECTED, retcode=0, comment="not executed, as the broker shows")
            if answer is not None:
                self._record(intent, command, answer, settled=True)
                return
            await asyncio.sleep(self.settle_interval_s)

    async def _read_fate(self, door: BrokerDoor, intent: dict[str, Any], command: Command) -> Outcome | None:
        """CONFIRMED with what the broker shows, or None when it shows no trace of the command."""
        positions = {position.ticket: position for position in await door.positions(command.account_id)}
        match command.kind:
            case CommandKind.OPEN:
                return _opened(positions, command)
            case CommandKind.MODIFY:
                position = positions.get(command.position)
                wanted = (command.sl, command.tp)
                if position is not None and (position.sl, position.tp) == wanted:
                    return Outcome(OutcomeStatus.CONFIRMED, 0, "read back", sl=position.sl, tp=position.tp)
                return None
            case CommandKind.CLOSE:
                return await self._closed(door, positions.get(command.position), intent, command)

    async def _closed(
        self, door: BrokerDoor, position: Position | None, intent: dict[str, Any], command: Command
    ) -> Outcome | None:
        comment = convert.intent_comment(intent["intent_id"])
        for deal in await door.closing_deals(command.account_id, command.position):
            if deal.comment == comment:
                return Outcome(
                    OutcomeStatus.CONFIRMED,
                    0,
                    "read back",
                    deal=deal.deal,
                    price=deal.price,
                    volume=deal.volume,
                    sl=position.sl if position else None,
                    tp=position.tp if position else None,
                )
        return None


def _opened(positions: dict[int, Position], command: Command) -> Outcome | None:
    for position in positions.values():
        if position.comment == command.comment and position.magic == command.magic:
            return Outcome(
                OutcomeStatus.CONFIRMED,
                0,
                "read back",
                order=position.ticket,
                price=position.price_open,
                volume=position.volume,
                sl=position.sl,
                tp=position.tp,
            )
    return None
