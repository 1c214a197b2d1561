"""The core and the protocol say the same: names, types, numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, score_pb2, trade_pb2
from dtms_service import _core

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

FILES = (action_pb2, event_pb2, ownership_pb2, score_pb2, trade_pb2)
MESSAGES = {name: message for file in FILES for name, message in file.DESCRIPTOR.message_types_by_name.items()}
ENUMS: dict[str, EnumDescriptor] = {
    name: enum for file in FILES for name, enum in file.DESCRIPTOR.enum_types_by_name.items()
}
SCALARS = {1: "double", 3: "int64", 4: "uint64", 8: "bool", 9: "string", 13: "uint32"}


def kind_of(field: FieldDescriptor) -> str:
    """The field's type in proto's words, without what proto3 does not say (presence of messages)."""
    if field.message_type is not None:
        kind = str(field.message_type.name)
    elif field.enum_type is not None:
        kind = str(field.enum_type.name)
    else:
        kind = SCALARS[field.type]
        if field.has_presence and field.containing_oneof is not None:
            return f"optional {kind}"
    return f"repeated {kind}" if field.is_repeated else kind


def without_presence_of_messages(kind: str) -> str:
    bare = kind.removeprefix("optional ")
    return bare if bare in MESSAGES else kind


def test_the_core_knows_every_message_of_the_journal() -> None:
    """Each message of the event, trade, action, ownership and score files is defined in the core, and no other."""
    assert set(_core.schema()) == set(MESSAGES)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_message_has_the_fields_of_its_proto(name: str) -> None:
    """Names and types of all fields agree; a field added on one side alone is found here."""
    ours = {field: without_presence_of_messages(kind) for field, kind in _core.schema()[name].items()}
    assert ours == {field.name: kind_of(field) for field in MESSAGES[name].fields}


def test_enumerations_have_the_names_and_numbers_of_their_proto() -> None:
    """Every enumeration agrees value by value, UNSPECIFIED included."""
    assert _core.enums() == {name: {value.name: value.number for value in enum.values} for name, enum in ENUMS.items()}
