"""The event log: ordered, unique, resumable, and told when history is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from dtms_service.errors import DtmsError, Reason, compacted
from dtms_service.event_log import Entry, EventLog, Filter

CAPACITY = 8


def entry(revision: int, account_id: str = "1@demo", ticket: int = 1, symbol: str = "EURUSD", state: int = 1) -> Entry:
    return Entry(revision, account_id, ticket, symbol, state, b"<%d>" % revision)


def entries(revisions: Iterable[int]) -> list[Entry]:
    return [entry(revision) for revision in revisions]


class Past:
    """A journal's worth of entries, of which those below ``oldest`` are compacted away."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.oldest = 1
        self.reads = 0

    async def read(self, from_revision: int, limit: int) -> list[Entry]:
        self.reads += 1
        if from_revision < self.oldest:
            raise compacted(from_revision, self.oldest)
        return self.entries[from_revision - 1 : from_revision - 1 + limit]


class World:
    """A log over a past, as the desk drives them: durable first, then published."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.past = Past()
        self.log = EventLog(capacity, 0, self.past.read)

    def grow(self, count: int) -> None:
        following = entries(range(self.log.newest_revision + 1, self.log.newest_revision + 1 + count))
        self.past.entries += following
        self.log.publish(following)

    async def take(self, cursor: int, until: int, limit: int) -> list[int]:
        seen: list[int] = []
        while cursor <= until:
            batch = await self.log.next_batch(cursor, limit)
            seen += [e.revision for e in batch]
            cursor = seen[-1] + 1
        return seen


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_i15_a_reader_sees_each_event_once_in_order(limit: int) -> None:
    """From any start a reader gets every revision exactly once and in order, from the journal and then the ring."""
    world = World()
    world.grow(30)
    for start in (1, 5, 22, 23, 24, 30):
        assert await world.take(start, 30, limit) == list(range(start, 31))


async def test_a_reader_waits_for_what_comes_next() -> None:
    """A reader at the end is woken by the next publish and gets exactly that."""
    world = World()
    reading = asyncio.create_task(world.log.next_batch(1, 10))
    await asyncio.sleep(0)
    assert not reading.done()
    world.grow(2)
    assert [e.revision for e in await reading] == [1, 2]


async def test_a_reader_resumes_where_it_stopped_during_publishing() -> None:
    """A cursor taken over by another reader continues without a gap or a repeat while events keep coming."""
    world = World()
    first = asyncio.create_task(world.take(1, 20, 3))
    for _ in range(10):
        world.grow(2)
        await asyncio.sleep(0)
    seen = await first
    world.grow(20)
    assert seen + await world.take(seen[-1] + 1, 40, 7) == list(range(1, 41))


async def test_i16_compacted_history_is_told_with_its_oldest_revision() -> None:
    """A cursor below what the journal keeps is answered COMPACTED(oldest_revision), never with a gap."""
    world = World()
    world.grow(40)
    world.past.oldest = 20
    with pytest.raises(DtmsError) as caught:
        await world.log.next_batch(19, 10)
    assert (caught.value.reason, caught.value.metadata) == (Reason.COMPACTED, {"oldest_revision": "20"})
    assert (await world.log.next_batch(20, 10))[0].revision == 20


async def test_a_cursor_from_the_future_is_refused() -> None:
    """newest + 1 waits, newest + 2 is FUTURE_REVISION: it belongs to another history."""
    world = World()
    world.grow(5)
    with pytest.raises(DtmsError) as caught:
        await world.log.next_batch(7, 1)
    assert (caught.value.reason, caught.value.metadata) == (Reason.FUTURE_REVISION, {"newest_revision": "5"})
    world.log.check_start(6)


async def test_i17_a_slow_reader_costs_nobody() -> None:
    """A reader that never comes back leaves no trace: nothing grows with it, and others never read the journal."""
    world = World()
    world.grow(1)
    assert (await world.log.next_batch(1, 1))[0].revision == 1  # and never again
    cursor = 2
    for _ in range(500):
        world.grow(4)
        batch = await world.log.next_batch(cursor, 10)
        cursor = batch[-1].revision + 1
    assert cursor == 2002
    assert world.past.reads == 0
    assert world.log.newest_revision - world.log.oldest_revision + 1 == CAPACITY


async def test_a_reader_cancelled_while_waiting_takes_nobody_along() -> None:
    """Of two readers that wait, one is cancelled; the other still gets the event."""
    world = World()
    gone, stays = (asyncio.create_task(world.log.next_batch(1, 1)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    world.grow(1)
    assert (await stays)[0].revision == 1
    assert gone.cancelled()


async def test_a_hundred_readers_share_one_object() -> None:
    """Readers woken by the same publish get the same joined bytes object, the concatenation in order."""
    world = World()
    readers = [asyncio.create_task(world.log.next_batch(1, 10)) for _ in range(100)]
    await asyncio.sleep(0)
    world.grow(3)
    joined = [world.log.joined(batch) for batch in await asyncio.gather(*readers)]
    assert joined[0] == b"<1><2><3>"
    assert all(whole is joined[0] for whole in joined)


async def test_joined_batches_are_not_kept_forever() -> None:
    """The cache of joined batches stays bounded over a long stream and stays right."""
    world = World()
    for revision in range(1, 300):
        world.grow(1)
        assert world.log.joined(await world.log.next_batch(revision, 1)) == b"<%d>" % revision
    assert world.log.joined([]) == b""


async def test_the_log_starts_where_the_journal_stood() -> None:
    """After a restart at revision 30 the ring is empty, the past comes from the journal, the next event is 31."""
    past = Past()
    past.entries = entries(range(1, 31))
    log = EventLog(CAPACITY, 30, past.read)
    assert [e.revision for e in await log.next_batch(28, 10)] == [28, 29, 30]
    past.entries += entries([31])
    log.publish(past.entries[30:])
    assert [e.revision for e in await log.next_batch(31, 10)] == [31]


async def test_a_gap_is_a_bug_and_refused() -> None:
    """Publishing anything but the next revision raises and shows nothing."""
    world = World()
    world.grow(3)
    with pytest.raises(ValueError):
        world.log.publish(entries([5]))
    assert world.log.newest_revision == 3


@pytest.mark.parametrize(
    ("wanted", "passing"),
    [
        (Filter(), {1, 2, 3, 4}),
        (Filter(accounts=frozenset({"1@demo"})), {1, 2}),
        (Filter(tickets=frozenset({7})), {2, 3}),
        (Filter(symbols=frozenset({"XAUUSD"})), {3, 4}),
        (Filter(states=frozenset({3, 4})), {3, 4}),
        (Filter(accounts=frozenset({"2@demo"}), tickets=frozenset({7})), {3}),
    ],
)
def test_a_filter_is_a_conjunction_of_its_sets(wanted: Filter, passing: set[int]) -> None:
    """Each non-empty set must hold the event's value; empty sets let everything through."""
    offered = [
        entry(1, "1@demo", 6, "EURUSD", 1),
        entry(2, "1@demo", 7, "EURUSD", 2),
        entry(3, "2@demo", 7, "XAUUSD", 3),
        entry(4, "2@demo", 8, "XAUUSD", 4),
    ]
    assert {e.revision for e in offered if wanted.passes(e)} == passing
    assert wanted.passes_all == (passing == {1, 2, 3, 4})
