"""A byte of the journal that flipped where no start looks: nobody is shown what it made of an event."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtms.v1.admin_service_pb2 import GetSystemStatusRequest
from dtms.v1.arbitration_service_pb2 import ExplainRequest, ListDecisionsRequest
from dtms.v1.event_pb2 import ALARM_CODE_JOURNAL_DAMAGED, Event
from dtms_client import errors
from dtms_service.journal import JOURNAL_NAME
from tests.grpc.test_watch import watching
from tests.grpc.watching import all_until, refusal
from tests.stack import Stack, running, stop_at


async def decided(data_dir: Path, count: int) -> list[bytes]:
    """A stopped service's journal with denied proposals; its events."""
    async with running(data_dir) as stack:
        trade = await stack.trade()
        for number in range(count):
            await stack.propose(trade, stop_at(1.0941), request_id=f"asked {number}")
        return [body for _revision, body in await stack.system.desk.read(1, 10_000)]


def flip_in(data_dir: Path, body: bytes) -> None:
    path = data_dir / JOURNAL_NAME
    flipped = bytes([*body[:-1], body[-1] ^ 1])
    held = path.read_bytes()
    assert body in held
    path.write_bytes(held.replace(body, flipped))


async def damages_told(stack: Stack, first: int, last: int) -> list[Event]:
    events = await all_until(await watching(stack, start_revision=first), last)
    return [event for event in events if event.alarm_raised.code == ALARM_CODE_JOURNAL_DAMAGED]


async def test_a_damaged_event_is_shown_to_nobody_and_told_once(tmp_path: Path) -> None:
    """I16, I20: watchers get what is before it, then COMPACTED with what is behind it. Explain refuses it by name,
    finds the others and says of a gap. One alarm; the status names it. Who watches elsewhere notices nothing."""
    data_dir = tmp_path / "data"
    bodies = await decided(data_dir, 6)
    decisions = [r for r, body in enumerate(bodies, 1) if Event.FromString(body).HasField("decision_made")]
    bad = decisions[2]
    flip_in(data_dir, bodies[bad - 1])
    async with running(data_dir) as stack:
        newest = stack.system.desk.engine.revision
        elsewhere = await watching(stack, start_revision=bad + 1)
        for _ in range(2):
            error = await refusal(await watching(stack, start_revision=1))
            assert isinstance(error, errors.Compacted)
            assert (error.oldest_revision, error.metadata["damaged_revision"]) == (bad + 1, str(bad))
        seen = await all_until(elsewhere, newest)
        assert [event.SerializeToString(deterministic=True) for event in seen[: len(bodies) - bad]] == bodies[bad:]

        damaged = Event.FromString(bodies[bad - 1]).decision_made.decision
        for asked in (ExplainRequest(revision=bad), ExplainRequest(decision_id=damaged.decision_id)):
            with pytest.raises(errors.Compacted) as refused:
                await stack.call("viewer", asked)
            assert refused.value.metadata["damaged_revision"] == str(bad)
        for revision in decisions:
            if revision != bad:
                number = Event.FromString(bodies[revision - 1]).decision_made.decision.decision_id
                told = await stack.call("viewer", ExplainRequest(decision_id=number))
                assert told.decision.decision_id == number
                assert (f"revision {bad} is damaged" in told.summary) == (revision < bad)
        listed = (await stack.call("viewer", ListDecisionsRequest())).decisions
        assert [decision.revision for decision in listed] == decisions[:2:-1]

        await stack.report_score(0.0)
        newest = stack.system.desk.engine.revision
        (alarm,) = await damages_told(stack, bad + 1, newest)
        assert f"revision {bad} is damaged" in alarm.alarm_raised.detail
        assert (await stack.call("viewer", GetSystemStatusRequest())).damaged_revisions == [bad]
