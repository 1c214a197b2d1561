"""The news calendar: a CSV file of announcements, and the times in which they keep new risk away.

The header names the columns ``time`` (ISO 8601; UTC unless it says otherwise), ``currency``, ``impact`` (low, medium,
high, holiday) and ``title``, in any order; further columns are ignored, and so are empty lines.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dtms_service.errors import ConfigInvalid, FieldViolation

COLUMNS: Final = ("time", "currency", "impact", "title")
IMPACTS: Final = ("low", "medium", "high", "holiday")
LONGEST_TITLE: Final = 120  # characters; it is stored with every edge of the rail
MOST_ROWS: Final = 100_000  # decades of announcements: beyond that it is another file
_CURRENCY: Final = re.compile(r"[A-Z]{3,8}")
_MOST_VIOLATIONS: Final = 20  # a wrong file is wrong everywhere: the first lines say it

Blackout = tuple[int, int, str]  # start ns, end ns, label
Fingerprint = tuple[int, int, int]  # modified ns, size, inode


@dataclass(frozen=True, slots=True)
class Announcement:
    """``time_ns`` is UTC, ``impact`` one of :data:`IMPACTS`."""

    time_ns: int
    currency: str
    impact: str
    title: str


def fingerprint(path: Path) -> Fingerprint:
    """Differs when the file was written again. Raises OSError."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def read(path: Path) -> tuple[Announcement, ...]:
    """The whole file, in its order. Raises ConfigInvalid, which names line and field of what cannot be used."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigInvalid(str(path), [FieldViolation("rails.news_calendar", str(error.strerror))]) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(str(path), [FieldViolation("rails.news_calendar", f"is not UTF-8: {error}")]) from error
    wrong: list[FieldViolation] = []
    announcements = tuple(_rows(csv.reader(text.splitlines()), wrong))
    if wrong:
        raise ConfigInvalid(str(path), wrong[:_MOST_VIOLATIONS])
    return announcements


def blackouts(
    announcements: Iterable[Announcement],
    currencies: Collection[str],
    impacts: Collection[str],
    *,
    before_s: int,
    after_s: int,
) -> list[Blackout]:
    """When announcements about one of the currencies keep new risk away, in order of time."""
    if not before_s and not after_s:
        return []
    return sorted(
        (
            about.time_ns - before_s * 1_000_000_000,
            about.time_ns + after_s * 1_000_000_000,
            f"{about.currency} {about.title} at {_moment(about.time_ns)} UTC",
        )
        for about in announcements
        if about.currency in currencies and about.impact in impacts
    )


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M")


def _rows(reader: Iterable[list[str]], wrong: list[FieldViolation]) -> Iterator[Announcement]:
    places: list[int] | None = None
    for line, row in enumerate(reader, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if places is None:
            names = [cell.lower() for cell in cells]
            missing = [column for column in COLUMNS if column not in names]
            wrong += [FieldViolation(f"line {line}, {column}", "is no column of the header") for column in missing]
            if missing:
                return
            places = [names.index(column) for column in COLUMNS]
        elif line > MOST_ROWS:
            wrong.append(FieldViolation(f"line {line}", f"is one more than {MOST_ROWS}"))
            return
        elif (
            announcement := _announcement(line, [cells[p] if p < len(cells) else "" for p in places], wrong)
        ) is not None:
            yield announcement
    if places is None:
        wrong.append(FieldViolation("line 1", f"must name the columns {', '.join(COLUMNS)}"))


def _announcement(line: int, cells: list[str], wrong: list[FieldViolation]) -> Announcement | None:
    time_text, currency, impact, title = cells
    found: list[FieldViolation] = []

    def refuse(column: str, why: str) -> None:
        found.append(FieldViolation(f"line {line}, {column}", why))

    try:
        moment = datetime.fromisoformat(time_text)
    except ValueError:
        moment = datetime.fromtimestamp(0, UTC)
        refuse("time", f"must be like 2024-01-05T13:30:00 (UTC), is {time_text!r}")
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    if not _CURRENCY.fullmatch(currency.upper()):
        refuse("currency", f"must be like USD, is {currency!r}")
    if impact.lower() not in IMPACTS:
        refuse("impact", f"must be one of {', '.join(IMPACTS)}, is {impact!r}")
    if not 0 < len(title) <= LONGEST_TITLE:
        refuse("title", f"must have 1 to {LONGEST_TITLE} characters, has {len(title)}")
    wrong += found
    if found:
        return None
    return Announcement(round(moment.timestamp()) * 1_000_000_000, currency.upper(), impact.lower(), title)
