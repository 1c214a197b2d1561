"""Reads a SQLite write-ahead log without SQLite, to tell a torn tail from damage before it.

SQLite drops everything behind the first frame that does not verify, silently: right for a tail that was being
written when the power went, wrong for a flipped byte in front of acknowledged commits. With synchronous=FULL a
transaction is written only after the one before it was synced, so a bad frame that is followed by a frame of a
*later* transaction cannot be a torn write. Format: https://sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from dtms_service._core import wal_checksum
from dtms_service.journal.protocol import Progress

TORN_KEPT_BYTES: Final = 1 << 20
"""Of a torn tail this much is kept as evidence; a commit is not longer."""
_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_MAGIC: Final = 0x377F0682  # the lowest bit says whether checksums read big-endian words
_MASK: Final = 0xFFFFFFFF
_PROGRESS_FRAMES: Final = 512

Checksum = tuple[int, int]


@dataclass(frozen=True, slots=True)
class WalReport:
    """Outcome of a scan. Bytes behind ``sound_bytes`` belong to no whole commit."""

    sound_bytes: int
    torn_bytes: int
    torn: bytes  # the first of them, at most TORN_KEPT_BYTES
    damage: str  # why the log cannot be trusted, empty if it can


class _Frame(NamedTuple):
    position: int
    commit: bool
    salt: bytes
    stored: Checksum
    summed: bytes  # the bytes that the checksum covers: 8 of the header, then the page


def scan_wal(path: Path, progress: Progress) -> WalReport:
    """Verify every frame of the log at ``path``; a missing or empty log is sound. Reads only. O(1) memory."""
    size = path.stat().st_size if path.exists() else 0
    if not size:
        return WalReport(0, 0, b"", "")
    with path.open("rb") as file:
        sound, end, damage = _measure(file, size, progress)
        file.seek(sound)
        return WalReport(sound, end - sound, file.read(min(end - sound, TORN_KEPT_BYTES)), damage)


def _measure(file: BinaryIO, size: int, progress: Progress) -> tuple[int, int, str]:
    """(bytes up to the end of the last whole commit, bytes up to the end of this generation of the log, damage)."""
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return 0, size, ""
    magic, _format, page_bytes = struct.unpack_from(">III", header)
    big_endian = bool(magic & 1)
    start: Checksum = struct.unpack_from(">II", header, 24)
    if magic & ~1 != _MAGIC or wal_checksum((0, 0), header[:24], big_endian) != start:
        # The header is synced before the first frame is written, so a torn one has nothing behind it.
        damaged = size > _HEADER_BYTES + _FRAME_HEADER_BYTES
        return 0, size, "the log's header does not verify, but frames follow it" if damaged else ""
    salt = header[16:24]
    frame_bytes = _FRAME_HEADER_BYTES + page_bytes
    sound, first_bad = _sound_frames(_frames(file, page_bytes, 0), start, salt, big_endian, progress)
    sound_bytes = _HEADER_BYTES + sound * frame_bytes
    if first_bad is None:
        return sound_bytes, size, ""
    # Frames of an older generation of the log lie behind the tail: they are neither torn nor lost.
    tail_end, damaged = _tail(_frames(file, page_bytes, first_bad), salt, big_endian)
    end = _HEADER_BYTES + max(tail_end, first_bad) * frame_bytes
    return sound_bytes, end, f"log frame {first_bad} does not verify, but a later commit does" if damaged else ""


def _frames(file: BinaryIO, page_bytes: int, first: int) -> Iterator[_Frame]:
    frame_bytes = _FRAME_HEADER_BYTES + page_bytes
    file.seek(_HEADER_BYTES + first * frame_bytes)
    index = first
    while len(raw := file.read(frame_bytes)) == frame_bytes:
        commit_pages, salt, s0, s1 = struct.unpack_from(">I8sII", raw, 4)
        yield _Frame(index, commit_pages != 0, salt, (s0, s1), raw[:8] + raw[_FRAME_HEADER_BYTES:])
        index += 1


def _sound_frames(
    frames: Iterator[_Frame], running: Checksum, salt: bytes, big_endian: bool, progress: Progress
) -> tuple[int, int | None]:
    """(number of frames in whole commits, index of the first frame that does not verify or None)."""
    sound = 0
    for frame in frames:
        if frame.salt != salt:
            return sound, frame.position
        running = wal_checksum(running, frame.summed, big_endian)
        if running != frame.stored:
            return sound, frame.position
        if frame.commit:
            sound = frame.position + 1
        if frame.position % _PROGRESS_FRAMES == 0:
            progress("check write-ahead log frames", frame.position, 0)
    return sound, None


def _tail(frames: Iterator[_Frame], salt: bytes, big_endian: bool) -> tuple[int, bool]:
    """(end of this generation's frames, whether a transaction after the bad one is intact).

    A frame is intact on its own if it continues the checksum that the frame before it stored.
    """
    end = 0
    previous: Checksum | None = None
    bad_transaction_ended = False
    for frame in frames:
        if frame.salt[:4] == salt[:4] or frame.salt[4:] == salt[4:]:  # one half may be what was damaged
            end = frame.position + 1
            intact = previous is not None and wal_checksum(previous, frame.summed, big_endian) == frame.stored
            if bad_transaction_ended and intact:
                return end, True
            bad_transaction_ended = bad_transaction_ended or frame.commit
        previous = frame.stored
    return end, False
