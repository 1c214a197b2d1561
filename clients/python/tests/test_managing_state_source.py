"""The state source under outages. Time is a number that the test moves; the frozen service is a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from dtms.v1.trade_pb2 import TRADE_STATE_HEALTHY, TRADE_STATE_HEDGED, TRADE_STATE_WARNING_L2, Trade
from dtms.v1.trade_status_service_pb2 import BatchGetTradesResponse
from dtms_client import AsyncClient, errors
from dtms_client.managing.state_source import BATCH, SLACK_S, Limits, Source, StateSource
from dtms_client.testing import Context, ScriptedService, never

KEY = ("1@Demo", 7)


class Dtms:
    """What answers `ask`: a table of trades, or an outage."""

    def __init__(self) -> None:
        self.trades = {7: Trade(account_id="1@Demo", ticket=7, state=TRADE_STATE_HEALTHY, revision=1)}
        self.failures: list[errors.DtmsError] = []
        self.down = False
        self.asked: list[tuple[str, list[int], float]] = []
        self.was_asked = asyncio.Event()
        self.before_answer: asyncio.Event | None = None

    async def ask(self, tickets: Sequence[int], *, account_id: str, timeout_s: float) -> BatchGetTradesResponse:
        self.asked.append((account_id, list(tickets), timeout_s))
        self.was_asked.set()
        if self.failures:
            raise self.failures.pop(0)
        if self.down:
            raise errors.Unavailable("away", method="m")
        response = BatchGetTradesResponse(
            trades=[self.trades[ticket] for ticket in tickets if ticket in self.trades],
            unknown_tickets=[ticket for ticket in tickets if ticket not in self.trades],
        )
        if self.before_answer is not None:
            await self.before_answer.wait()
        return response


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def dtms() -> Dtms:
    return Dtms()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(dtms: Dtms, clock: Clock) -> StateSource:
    return StateSource(dtms.ask, monotonic=clock, limits=Limits())


async def test_a_state_is_believed_for_10_s_and_ownership_for_5(source: StateSource, dtms: Dtms, clock: Clock) -> None:
    """Within its time an answer comes from the cache, after it DTMS is asked again."""
    assert (await source.state(KEY)).source is Source.FRESH
    clock.now_s += 5
    assert (await source.ownership(KEY)).source is Source.CACHED
    clock.now_s += 0.1
    assert (await source.state(KEY)).source is Source.CACHED
    assert (await source.ownership(KEY)).source is Source.FRESH
    clock.now_s += 10.1
    assert (await source.state(KEY)).source is Source.FRESH
    assert dtms.asked == [("1@Demo", [7], 2.0)] * 3


async def test_the_stream_invalidates_at_once(source: StateSource, dtms: Dtms) -> None:
    """After an event the cache is not believed, however young it is."""
    await source.state(KEY)
    dtms.trades[7] = Trade(account_id="1@Demo", ticket=7, state=TRADE_STATE_HEDGED, revision=2)
    source.invalidate(KEY, 2)
    answer = await source.state(KEY)
    assert (answer.source, answer.defensive) == (Source.FRESH, True)
    assert (await source.state(KEY)).source is Source.CACHED


async def test_an_answer_overtaken_by_an_event_does_not_settle_it(source: StateSource, dtms: Dtms) -> None:
    """A change told of while an older answer was on its way leads to another question."""
    dtms.before_answer = asyncio.Event()
    asking = asyncio.create_task(source.state(KEY))
    await dtms.was_asked.wait()
    source.invalidate(KEY, 2)
    dtms.before_answer.set()
    assert (await asking).source is Source.FRESH
    dtms.trades[7] = Trade(account_id="1@Demo", ticket=7, state=TRADE_STATE_WARNING_L2, revision=2)
    answer = await source.state(KEY)
    assert (answer.source, answer.defensive) == (Source.FRESH, True)


async def test_an_event_after_our_own_change_is_heard_too(source: StateSource, dtms: Dtms) -> None:
    """Doubt upon doubt: an event during the question that settles our own change asks for one more."""
    await source.state(KEY)
    dtms.was_asked.clear()
    dtms.before_answer = asyncio.Event()
    source.doubt(KEY)
    asking = asyncio.create_task(source.state(KEY))
    await dtms.was_asked.wait()
    source.invalidate(KEY, 2)
    dtms.before_answer.set()
    await asking
    assert (await source.state(KEY)).source is Source.FRESH


async def test_a_listing_older_than_an_event_is_not_believed(source: StateSource) -> None:
    """put() of a trade from before the event leaves the doubt standing."""
    source.invalidate(KEY, 5)
    source.put(Trade(account_id="1@Demo", ticket=7, revision=4))
    assert (await source.state(KEY)).source is Source.FRESH
    source.invalidate(KEY, 6)
    source.put(Trade(account_id="1@Demo", ticket=7, revision=6))
    assert (await source.state(KEY)).source is Source.CACHED


async def test_after_a_change_of_our_own_only_a_new_answer_counts(source: StateSource) -> None:
    """doubt() is settled by no listing, whatever its revision."""
    await source.state(KEY)
    source.doubt(KEY)
    source.put(Trade(account_id="1@Demo", ticket=7, revision=99))
    assert (await source.state(KEY)).source is Source.FRESH
    assert (await source.state(KEY)).source is Source.CACHED


@pytest.mark.parametrize(
    "error",
    [
        errors.Unavailable("", method="m"),
        errors.DeadlineExceeded("", method="m"),
        errors.Internal("", method="m", reason="CORE_PANIC"),
        errors.ResourceExhausted("", method="m"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_one_failure_is_repeated(source: StateSource, dtms: Dtms, error: errors.DtmsError) -> None:
    """A single lost answer is not seen by the caller."""
    dtms.failures = [error]
    assert (await source.state(KEY)).source is Source.FRESH
    assert len(dtms.asked) == 2


async def test_an_outage_goes_from_last_known_to_assumed(source: StateSource, dtms: Dtms, clock: Clock) -> None:
    """The last known state is kept for 30 s, then the trade is assumed to be not defensive, and said to be so."""
    dtms.trades[7] = Trade(account_id="1@Demo", ticket=7, state=TRADE_STATE_WARNING_L2, revision=1)
    await source.state(KEY)
    dtms.down = True
    clock.now_s += 10.1
    answer = await source.state(KEY)
    assert (answer.source, answer.defensive) == (Source.LAST_KNOWN, True)
    assert answer.age_s == pytest.approx(10.1)
    clock.now_s += 19.9
    assert (await source.state(KEY)).source is Source.LAST_KNOWN
    clock.now_s += 0.1
    answer = await source.state(KEY)
    assert (answer.source, answer.trade, answer.defensive) == (Source.ASSUMED, None, False)
    dtms.down = False
    answer = await source.state(KEY)
    assert (answer.source, answer.defensive) == (Source.FRESH, True)


async def test_an_event_makes_the_last_known_state_no_younger(source: StateSource, dtms: Dtms) -> None:
    """Told of a change, and DTMS away before it can be asked: the old state is LAST_KNOWN, not CACHED."""
    await source.state(KEY)
    dtms.down = True
    source.invalidate(KEY, 2)
    assert (await source.state(KEY)).source is Source.LAST_KNOWN


async def test_nothing_known_is_assumed(source: StateSource, dtms: Dtms) -> None:
    """Without any answer ever there is only the assumption."""
    dtms.down = True
    assert (await source.state(KEY)).source is Source.ASSUMED
    assert len(dtms.asked) == 2


async def test_a_trade_that_dtms_does_not_know_is_an_answer(source: StateSource) -> None:
    """An unknown ticket is known to be unknown."""
    answer = await source.state(("1@Demo", 8))
    assert (answer.trade, answer.source) == (None, Source.FRESH)


async def test_a_forgotten_trade_leaves_nothing(source: StateSource, dtms: Dtms) -> None:
    """forget() frees the memory; a later question starts anew."""
    await source.state(KEY)
    source.forget(KEY)
    dtms.down = True
    assert (await source.state(KEY)).source is Source.ASSUMED


async def test_a_refused_credential_is_no_outage(source: StateSource, dtms: Dtms) -> None:
    """What no repeat can mend is raised at once."""
    dtms.failures = [errors.Unauthenticated("", method="m")]
    with pytest.raises(errors.Unauthenticated):
        await source.state(KEY)
    assert len(dtms.asked) == 1


async def test_many_trades_are_asked_for_together(source: StateSource, dtms: Dtms) -> None:
    """One call per account and 500 tickets, however many trades are stale."""
    keys = [("1@Demo", ticket) for ticket in range(1, BATCH + 2)] + [("2@Demo", 1)]
    answers = await source.read(keys, max_age_s=5.0)
    assert list(answers) == keys
    assert sorted((account_id, len(tickets)) for account_id, tickets, _ in dtms.asked) == [
        ("1@Demo", 1),
        ("1@Demo", BATCH),
        ("2@Demo", 1),
    ]


class Lateness:
    """By how much the loop came late to what was due, in all: what a busy machine takes, not the code under test."""

    def __init__(self) -> None:
        self.total_s = 0.0

    async def measure(self) -> None:
        while True:
            due_s = time.monotonic() + 0.01
            await asyncio.sleep(0.01)
            self.total_s += time.monotonic() - due_s


async def test_a_frozen_service_costs_two_deadlines_and_no_more() -> None:
    """Over a real channel: a service that never answers is given up after the deadline, once more, and that is all."""
    # Long enough for the second question to leave, however late a busy machine tells of the end of the first one.
    deadline_s, lateness = 0.6, Lateness()
    async with ScriptedService() as service:
        service.on("BatchGetTrades", never)
        async with AsyncClient(service.address, token="t") as client:
            source = StateSource(
                client.batch_get_trades, monotonic=time.monotonic, limits=Limits(deadline_s=deadline_s)
            )
            measuring = asyncio.create_task(lateness.measure())
            started_s = time.monotonic()
            answer = await source.state(KEY)
            took_s = time.monotonic() - started_s
            measuring.cancel()
    assert answer.source is Source.ASSUMED
    assert 1.8 * deadline_s <= took_s <= 2 * deadline_s + SLACK_S + lateness.total_s + 0.05
    assert len(service.calls) == 2


async def test_a_call_given_up_by_a_service_that_stops_is_an_outage(dtms: Dtms) -> None:
    """CANCELLED from the other side is no reason to end: the question is asked again, then what is known holds."""
    source = StateSource(dtms.ask, monotonic=Clock(), limits=Limits())
    dtms.failures = [errors.Cancelled("given up", method="m")]
    assert (await source.state(KEY)).source is Source.FRESH
    source.doubt(KEY)
    dtms.failures = [errors.Cancelled("given up", method="m")] * 2
    assert (await source.state(KEY)).source is Source.LAST_KNOWN


async def test_a_slow_service_is_waited_for_within_the_deadline() -> None:
    """An answer that takes its time is an answer; one that takes too long is asked for once more."""
    pauses_s = [0.05, 30.0, 0.0]

    async def slow(_request: Any, _context: Context) -> BatchGetTradesResponse:
        await asyncio.sleep(pauses_s.pop(0))
        return BatchGetTradesResponse(trades=[Trade(account_id="1@Demo", ticket=7, revision=1)])

    async with ScriptedService() as service:
        service.on("BatchGetTrades", slow)
        async with AsyncClient(service.address, token="t") as client:
            source = StateSource(client.batch_get_trades, monotonic=time.monotonic, limits=Limits(deadline_s=0.5))
            assert (await source.state(KEY)).source is Source.FRESH
            source.doubt(KEY)
            started_s = time.monotonic()
            assert (await source.state(KEY)).source is Source.FRESH
    assert time.monotonic() - started_s < 2
    assert pauses_s == []
