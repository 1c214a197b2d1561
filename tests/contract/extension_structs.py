"""Reads the struct sequences out of the MetaTrader5 C extension without running it (a Windows DLL, 64-bit PE)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

LEAST_FIELDS = 4  # shorter runs of strings are no struct


def struct_fields(image: bytes) -> list[tuple[str, ...]]:
    """Every PyStructSequence_Field table, in file order: runs of pairs (name pointer, doc pointer)."""
    return [run for run in _runs(_Image(image)) if len(run) >= LEAST_FIELDS]


class _Image:
    def __init__(self, data: bytes) -> None:
        self.data = data
        (pe,) = struct.unpack_from("<I", data, 0x3C)
        sections, optional_size = struct.unpack_from("<H12xH", data, pe + 6)
        (self.base,) = struct.unpack_from("<Q", data, pe + 24 + 24)
        table = pe + 24 + optional_size
        self.sections = [struct.unpack_from("<IIII", data, table + 40 * i + 8) for i in range(sections)]

    def text(self, address: int) -> str | None:
        """The printable C string at a virtual address, or None."""
        for size, start, raw_size, raw in self.sections:
            offset = address - self.base - start
            if 0 <= offset < min(size, raw_size):
                begin = raw + offset
                found = self.data[begin : self.data.find(b"\0", begin)]
                return found.decode() if found and all(32 <= c < 127 for c in found) else None
        return None


def _runs(image: _Image) -> Iterator[tuple[str, ...]]:
    run: list[str] = []
    at = 0
    while at + 16 <= len(image.data):
        name, doc = struct.unpack_from("<QQ", image.data, at)
        text = image.text(name) if name > image.base else None
        if text is not None and (doc == 0 or image.text(doc) is not None):
            run.append(text)
            at += 16
            continue
        yield tuple(run)
        run = []
        at += 8
