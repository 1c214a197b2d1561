"""The core and the protocol say the same: names, types, numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dtms.v1 import action_pb2, event_pb2, ownership_pb2, score_pb2, trade_pb2
from dtms_service import _core, convert

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
    from google.protobuf.message import Message

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


def fill(message: Message, *, full: bool) -> None:
    """Sets every field to a value of its own; where not ``full`` only what no event may lack."""
    kinds = _core.schema()[message.DESCRIPTOR.name]
    for field in message.DESCRIPTOR.fields:
        number = field.number
        if field.is_repeated:
            for _ in range(2 if full else 0):
                fill(getattr(message, field.name).add(), full=full)
        elif field.message_type is not None:
            if full or not kinds[field.name].startswith("optional"):
                part = getattr(message, field.name)
                part.SetInParent()
                fill(part, full=full)
        elif field.enum_type is not None:
            values = field.enum_type.values[1:]
            setattr(message, field.name, values[number % len(values)].number)
        elif full:
            values_of = {"double": -number / 8, "int64": -number, "bool": True, "string": f"Zürich {number}"}
            setattr(message, field.name, values_of.get(SCALARS[field.type], (1 << 31) + number))


def event_with(body: str, *, full: bool) -> event_pb2.Event:
    event = event_pb2.Event(revision=1 << 63, time_ns=-2, account_id="1@Ä", ticket=3, symbol="S", state=4)  # type: ignore[arg-type]
    if not full:
        event.Clear()
    part = getattr(event, body)
    part.SetInParent()
    fill(part, full=full)
    return event


BODIES = [field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["body"].fields]


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("body", BODIES)
def test_the_core_reads_an_event_as_protobuf_does(body: str, full: bool) -> None:
    """Every body with all of its fields, and with as few as it may have: the numbers of fields are their places."""
    event = event_with(body, full=full)
    encoded = event.SerializeToString(deterministic=True)
    assert _core.decode_event(encoded) == convert.to_dict(event)
    assert _core.decisions([(1, encoded)]) == ([0] if body == "decision_made" else [])


def test_bytes_that_are_no_event_of_this_version_are_refused() -> None:
    """Cut off anywhere, with an unknown body or field, a field of another kind, or two bodies: FIELD_INVALID."""
    whole = event_with("state_changed", full=True).SerializeToString(deterministic=True)
    bad = [whole[:end] for end in range(len(whole))]
    bad += [
        whole + b"\x9a\x06\x00",
        whole + whole[-9:],
        b"\x08\x01" + b"\x9a\x06\x00",
        b"\x0a\x00" + whole,
        whole + b"\x0b",
    ]
    bad += [b"\x38\x01" + event_with("memo_set", full=False).SerializeToString(), b"\xff" * 11]
    bad.append(whole + event_with("memo_set", full=False).SerializeToString())
    for body in bad:
        with pytest.raises(_core.CoreError) as raised:
            _core.decode_event(body)
        assert raised.value.args[0] == "FIELD_INVALID"
