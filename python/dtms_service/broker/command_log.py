"""What a paper broker in lockstep was commanded, on disk before it obeys: its books follow from that and the history.

Same history, same commands at the same places, same books: a gateway that was killed makes them again, down to the
last deal, and with them the highest token of every trade. A place is a call of the driver (a tick, a registration),
by number.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import apsw

from dtms_service import fault_disk
from dtms_service.broker.door import Command, CommandKind, Outcome, Side
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.broker.recorded import RecordedDoor
from dtms_service.errors import BooksFailed, RunDiffers
from dtms_service.fault_points import Point, reach

COMMANDS: Final = "commands.db"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS run (one INTEGER PRIMARY KEY CHECK (one = 1), run_id TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS command (number INTEGER PRIMARY KEY, call INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS call (number INTEGER PRIMARY KEY) STRICT;
"""


class CommandLog:
    """Of one run; one writer. Raises apsw.Error where the place cannot be used, BooksFailed when the disk refuses."""

    def __init__(self, path: Path) -> None:
        vfs = fault_disk.vfs_of(Point.COMMAND_LOG_WRITE, Point.COMMAND_LOG_SYNC)
        self._connection = apsw.Connection(str(path), vfs=vfs)
        self._connection.pragma("journal_mode", "wal")
        self._connection.pragma("synchronous", "full")
        self._connection.execute(_SCHEMA)
        # Before the service hears of it: it takes nobody else for this run's gateway.
        self._connection.execute("INSERT OR IGNORE INTO run VALUES (1, ?)", (str(uuid4()),))
        self.run_id = str(self._connection.execute("SELECT run_id FROM run").get)

    def begin(self) -> None:
        """A run from its first tick on, under ``run_id``: what is there is of another one."""
        with self._connection:
            self._connection.execute("DELETE FROM command")
            self._connection.execute("DELETE FROM call")

    def commands(self) -> list[tuple[int, Command]]:
        """(call, command) in the order in which they came."""
        rows = self._connection.execute("SELECT call, body FROM command ORDER BY number")
        return [(int(call), _command(json.loads(body))) for call, body in rows]

    def last_call(self) -> int:
        """The last one that something is known of; 0 for none."""
        found = self._connection.execute(
            "SELECT max((SELECT coalesce(max(call), 0) FROM command), (SELECT coalesce(max(number), 0) FROM call))"
        )
        return int(found.get)

    def note_call(self, call: int) -> None:
        """The call is made from now on: durable when this returns."""
        self._write("INSERT OR IGNORE INTO call VALUES (?)", (call,))

    def note(self, call: int, command: Command) -> None:
        """The command came during the call: durable when this returns."""
        reach(Point.COMMAND_LOG)
        self._write("INSERT INTO command (call, body) VALUES (?, ?)", (call, json.dumps(_of_command(command))))
        reach(Point.COMMAND_LOGGED)

    def close(self) -> None:
        self._connection.close()

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._connection.execute(statement, values)
        except apsw.Error as error:
            raise BooksFailed(Path(self._connection.filename), str(error)) from error


class LoggedDoor(RecordedDoor):
    """A paper broker's door whose commands are on disk first. One that comes again is answered as it was, not obeyed.

    ``call`` is the driver's call under way. What is in the log already is either done again by :meth:`redo`, or waits
    to be commanded again, in the same order and at the same place.
    """

    def __init__(self, door: PaperDoor, log: CommandLog) -> None:
        super().__init__(door)
        self._log = log
        self.call = 0
        self._answers: dict[Command, Outcome] = {}
        self._to_come: defaultdict[int, list[Command]] = defaultdict(list)
        for call, command in log.commands():
            self._to_come[call].append(command)

    async def redo(self) -> None:
        """The commands of this call are obeyed as they were."""
        for command in self._to_come.pop(self.call, ()):
            self._answers[command] = await super().execute(command)

    async def execute(self, command: Command) -> Outcome:
        if (answer := self._answers.get(command)) is not None:
            return answer
        if waiting := self._to_come.get(self.call):
            if waiting.pop(0) != command:
                raise RunDiffers(f"command {command.intent_id} is not the one that was carried out at its place")
        elif any(self._to_come.values()):
            raise RunDiffers(f"command {command.intent_id} comes before one that was carried out before it")
        else:
            self._log.note(self.call, command)
        outcome = self._answers[command] = await super().execute(command)
        return outcome


def _of_command(command: Command) -> dict[str, Any]:
    return {**asdict(command), "kind": command.kind.value, "side": command.side.value}


def _command(body: dict[str, Any]) -> Command:
    return Command(**{**body, "kind": CommandKind(body["kind"]), "side": Side(body["side"])})
