"""The broker server's clock: all times of MetaTrader 5 are its wall clock, encoded as if it were UTC.

Its offset from UTC is seen on ticks that have just arrived, kept on disk with the moment from which it holds (daylight
saving changes it), and applied to every time by the offset that held then. It is never guessed: before it is known,
times cannot be told.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dtms_service.broker.mt5_inferences import OFFSET_LEAST_S, OFFSET_MOST_S, OFFSET_STEP_S, TICK_AGE_MOST_MS
from dtms_service.fault_points import Point, reach

NOT_KNOWN: Final = "the server's time offset is not known: no tick has moved yet"
OBSERVATIONS: Final = 3  # ticks in a row that must agree before an offset is believed
PERIOD_SLACK_S: Final = 3600  # beyond now: this machine's clock may be behind the server's


class OffsetUnknown(Exception):
    """No tick has moved yet that would show the server's time."""


@dataclass(slots=True)
class ServerTime:
    """``changes`` are (from, ms UTC; offset, s), oldest first; the first one holds for all times before it too.

    ``path`` is where they are kept, None to forget them. Raises ValueError for a file that says something else.
    """

    path: Path | None
    changes: list[tuple[int, int]] = field(default_factory=list)
    _candidate_s: int | None = None
    _seen: int = 0

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists() and not self.changes:
            try:
                rows = json.loads(self.path.read_text(encoding="ascii"))
                self.changes = [(int(row["from_msc"]), int(row["offset_s"])) for row in rows]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{self.path}: not a list of from_msc and offset_s ({error!r})") from error

    @property
    def offset_s(self) -> int | None:
        """The present offset, None before it is known."""
        return self.changes[-1][1] if self.changes else None

    def offsets_s(self) -> list[int]:
        """All offsets that ever held. Raises OffsetUnknown."""
        if not self.changes:
            raise OffsetUnknown(NOT_KNOWN)
        return [offset_s for _, offset_s in self.changes]

    def set(self, offset_s: int, now_msc: int) -> None:
        """The offset from now on, as an operator or the ticks say. Durable before it is used."""
        if not OFFSET_LEAST_S <= offset_s <= OFFSET_MOST_S or offset_s % OFFSET_STEP_S:
            raise ValueError(f"offset_s: {offset_s} is no multiple of {OFFSET_STEP_S} s in any time zone")
        if offset_s == self.offset_s:
            return
        changes = [*self.changes, (now_msc, offset_s)]
        if self.path is not None:
            _replace(self.path, json.dumps([{"from_msc": start, "offset_s": offset} for start, offset in changes]))
        self.changes = changes

    def observe(self, tick_msc: int, now_msc: int) -> None:
        """A tick that has just arrived, in server time. What is too old, or alone with its opinion, changes nothing."""
        ahead_s = (tick_msc - now_msc) / 1000
        offset_s = round(ahead_s / OFFSET_STEP_S) * OFFSET_STEP_S
        fresh = abs(ahead_s - offset_s) * 1000 <= TICK_AGE_MOST_MS
        if not fresh or not OFFSET_LEAST_S <= offset_s <= OFFSET_MOST_S:
            return
        self._seen = self._seen + 1 if offset_s == self._candidate_s else 1
        self._candidate_s = offset_s
        if self._seen >= OBSERVATIONS:
            self.set(offset_s, now_msc)

    def period(self, since_msc: int, now_msc: int) -> tuple[int, int]:
        """From and to, s in server time, that hold everything since ``since_msc`` (UTC). Raises OffsetUnknown."""
        if self.offset_s is None:
            raise OffsetUnknown("the server's time offset is not known: no tick has moved yet")
        offsets = [offset_s for _start_msc, offset_s in self.changes]
        return since_msc // 1000 + min(offsets), now_msc // 1000 + max(offsets) + PERIOD_SLACK_S

    def to_utc_msc(self, server_msc: int) -> int:
        """Raises OffsetUnknown. 0 ("never") stays 0."""
        if not server_msc:
            return 0
        if not self.changes:
            raise OffsetUnknown(NOT_KNOWN)
        offset_s = self.changes[0][1]
        for start_msc, later_s in self.changes[1:]:
            if server_msc - later_s * 1000 >= start_msc:
                offset_s = later_s
        return server_msc - offset_s * 1000


def _replace(path: Path, text: str) -> None:
    """The file as a whole or not at all, also after a power cut."""
    draft = path.with_suffix(".new")
    with draft.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    reach(Point.SERVER_TIME_WRITE)
    draft.replace(path)
