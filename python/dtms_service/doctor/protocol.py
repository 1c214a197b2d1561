"""Whether the extension and the stubs of the protocol are of one version."""

from __future__ import annotations

from collections.abc import Mapping

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, score_pb2, trade_pb2

FILES = (action_pb2, event_pb2, ownership_pb2, score_pb2, trade_pb2)


def mismatch(core: Mapping[str, Mapping[str, int]]) -> str:
    """Names of the enumerations that are not those of the core, empty for none."""
    wire = {
        name: {value.name: value.number for value in enum.values}
        for file in FILES
        for name, enum in file.DESCRIPTOR.enum_types_by_name.items()
    }
    return ", ".join(sorted(name for name in wire.keys() | core.keys() if wire.get(name) != core.get(name)))
