"""Managers in virtual time, against a real gRPC server that plays the steps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from dtms.v1.action_pb2 import DENIAL_CODE_COOLDOWN, OUTCOME_STATUS_CONFIRMED, Decision, Outcome
from dtms.v1.lockstep_service_pb2 import JoinRequest, JoinResponse, ProposalResult
from dtms.v1.market_data_service_pb2 import Quote
from dtms.v1.trade_pb2 import (
    SIDE_BUY,
    SIDE_SELL,
    STATE_PHASE_CONFIRMED,
    TRADE_STATE_HEALTHY,
    ConfirmedLevels,
    Trade,
)
from dtms.v1.trade_status_service_pb2 import ListTradesResponse
from dtms_client import AsyncClient, errors
from dtms_client.exit_manager.brain import ExitManager
from dtms_client.exit_manager.rule_book import RuleBook
from dtms_client.exit_manager.rules import ExitRules
from dtms_client.exit_manager.vix import VixSources
from dtms_client.managing.brain import NANOS
from dtms_client.managing.lockstep import Lockstep
from dtms_client.testing import Context, ScriptedService, refuse

ACCOUNT = "1@Demo"
START_NS = 1_500_000_000 * NANOS


def trades(count: int) -> list[Trade]:
    """Longs and shorts of EURUSD in turn, tickets from 1."""
    return [
        Trade(
            account_id=ACCOUNT,
            ticket=ticket,
            symbol="EURUSD",
            side=SIDE_BUY if ticket % 2 else SIDE_SELL,
            entry_price=1.1,
            volume=0.1,
            confirmed=ConfirmedLevels(sl=1.09 if ticket % 2 else 1.11),
            risk_distance=0.01,
            state=TRADE_STATE_HEALTHY,
            phase=STATE_PHASE_CONFIRMED,
            owner_epoch=ticket + 10,
        )
        for ticket in range(1, count + 1)
    ]


def quote(bid: float) -> Quote:
    return Quote(
        account_id=ACCOUNT, symbol="EURUSD", bid=bid, ask=bid + 0.0001, point=0.00001, volume_min=0.01, volume_step=0.01
    )


Respond = Callable[[JoinRequest], list[ProposalResult]]


class Replay:
    """Plays (bid, revision) step by step, each after the answer to the one before."""

    def __init__(
        self, service: ScriptedService, steps: list[tuple[float, int]], *, open_trades: int, respond: Respond
    ) -> None:
        self.answers: list[JoinRequest] = []
        self.step_s: list[float] = []
        self._steps = steps
        self._respond = respond
        self._trades = trades(open_trades)
        service.on("Join", self.join)
        service.on("ListTrades", self.list_trades)

    async def join(self, requests: Any, _context: Context) -> AsyncIterator[JoinResponse]:
        self.answers.append(await anext(requests))
        results: list[ProposalResult] = []
        for seq, (bid, revision) in enumerate(self._steps, start=1):
            started_s = time.perf_counter()
            yield JoinResponse(
                seq=seq, time_ns=START_NS + seq * NANOS, quotes=[quote(bid)], results=results, revision=revision
            )
            answer = await anext(requests)
            self.step_s.append(time.perf_counter() - started_s)
            self.answers.append(answer)
            results = self._respond(answer)
        yield JoinResponse(seq=len(self._steps) + 1, results=results, last=True)

    async def list_trades(self, _request: Any, _context: Context) -> ListTradesResponse:
        return ListTradesResponse(trades=self._trades)


def cooling_down(answer: JoinRequest) -> list[ProposalResult]:
    """Denies all."""
    denied = Decision(denial=DENIAL_CODE_COOLDOWN, retryable=True)
    return [ProposalResult(request_id=each.request_id, decision=denied) for each in answer.proposals]


async def play(
    steps: list[tuple[float, int]], *, open_trades: int = 1, respond: Respond = cooling_down
) -> tuple[Replay, ScriptedService, ExitManager]:
    """One whole replay."""
    async with ScriptedService() as service:
        replay = Replay(service, steps, open_trades=open_trades, respond=respond)
        manager = ExitManager(RuleBook(default=ExitRules()), name="intelligent_exit_manager", vix=VixSources())
        async with AsyncClient(service.address, token="secret") as client:
            await Lockstep(client, manager).run(connect_s=1.0)
    return replay, service, manager


async def test_every_step_is_answered_with_its_seq() -> None:
    """Joins with seq 0, answers each step, and ends with the history."""
    replay, service, _ = await play([(1.1, 5), (1.1001, 5), (1.1002, 5)])
    assert [answer.seq for answer in replay.answers] == [0, 1, 2, 3]
    assert service.calls[0].metadata["authorization"] == "Bearer secret"


async def test_trades_are_read_only_when_the_revision_moved() -> None:
    """Same revision, same trades: one ListTrades for each new revision."""
    _, service, _ = await play([(1.1, 5), (1.1001, 5), (1.1002, 6), (1.1003, 6), (1.1004, 8)])
    assert len(service.requests("ListTrades")) == 3
    assert not service.requests("ListTrades")[0].include_closed


async def test_the_same_replay_gives_the_same_proposals() -> None:
    """Two runs answer byte for byte alike, request_ids included; no two proposals share one."""
    steps = [(1.0979, 5), (1.1, 5), (1.102, 5), (1.102, 6), (1.103, 7)]
    one, _, _ = await play(steps, open_trades=4)
    two, _, _ = await play(steps, open_trades=4)
    assert [answer.SerializeToString(deterministic=True) for answer in one.answers] == [
        answer.SerializeToString(deterministic=True) for answer in two.answers
    ]
    proposals = [proposal for answer in one.answers for proposal in answer.proposals]
    assert {(proposal.ticket, proposal.owner_epoch) for proposal in proposals} == {(1, 11), (2, 12), (3, 13), (4, 14)}
    assert len({proposal.request_id for proposal in proposals}) == len(proposals) == 4


async def test_results_reach_the_tally() -> None:
    """Grants, denials and undecided proposals of one step are found in the next."""

    def respond(answer: JoinRequest) -> list[ProposalResult]:
        kinds = [
            {"decision": Decision(granted=True), "outcome": Outcome(status=OUTCOME_STATUS_CONFIRMED)},
            {"decision": Decision(denial=DENIAL_CODE_COOLDOWN, retryable=True)},
            {"error_reason": "STALE_EPOCH"},
        ]
        return [
            ProposalResult(request_id=each.request_id, **kind)  # type: ignore[arg-type]
            for each, kind in zip(answer.proposals, kinds, strict=False)
        ]

    _, _, manager = await play([(1.102, 5)], open_trades=5, respond=respond)
    assert (manager.tally.proposals, manager.tally.confirmed) == (3, 1)
    assert (manager.tally.denied, manager.tally.undecided) == ({"COOLDOWN": 1}, {"STALE_EPOCH": 1})


async def test_pauses_run_on_virtual_time() -> None:
    """A cooldown of 5 s ends with the sixth step of a second each, however fast they are played."""
    replay, _, _ = await play([(1.102, 5)] * 7)
    assert [len(answer.proposals) for answer in replay.answers] == [0, 1, 0, 0, 0, 0, 0, 1]


async def test_a_service_that_is_still_starting_is_waited_for() -> None:
    """Before the first step RECOVERING is no failure."""
    async with ScriptedService() as service:
        replay = Replay(service, [(1.1, 5)], open_trades=1, respond=cooling_down)
        attempts = 0

        async def starting(requests: Any, context: Context) -> AsyncIterator[JoinResponse]:
            nonlocal attempts
            attempts += 1
            if attempts < 3:
                await refuse(context, grpc.StatusCode.UNAVAILABLE, "RECOVERING")
            async for response in replay.join(requests, context):
                yield response

        service.on("Join", starting)
        manager = ExitManager(RuleBook(default=ExitRules()), name="m", vix=VixSources())
        async with AsyncClient(service.address, token="t") as client:
            lockstep = Lockstep(client, manager)
            await lockstep.run(connect_s=1.0)
    assert (attempts, lockstep.steps) == (3, 2)


async def test_nobody_there_is_waited_for_no_longer_than_allowed() -> None:
    """An absent service ends the wait with Unavailable."""
    async with ScriptedService() as service:
        address = service.address
    async with AsyncClient(address, token="t") as client:
        lockstep = Lockstep(client, ExitManager(RuleBook(default=ExitRules()), name="m", vix=VixSources()))
        with pytest.raises(errors.Unavailable):
            await lockstep.run(connect_s=0.2)


class Broken:
    """Ends the first stream in its second step, before or after the answer; plays what is left on the next."""

    def __init__(self, service: ScriptedService, *, answered: bool) -> None:
        self.joined: list[JoinRequest] = []
        self.answers: list[JoinRequest] = []
        self._answered = answered
        Replay(service, [], open_trades=1, respond=cooling_down)
        service.on("Join", self.join)

    async def join(self, requests: Any, context: Context) -> AsyncIterator[JoinResponse]:
        self.joined.append(await anext(requests))
        is_first = len(self.joined) == 1
        for seq in (1, 2) if is_first else (2, 3):
            results = cooling_down(self.answers[seq - 2]) if seq > 1 else []
            yield JoinResponse(seq=seq, time_ns=START_NS + seq, quotes=[quote(1.1 + seq / 1000)], results=results)
            if is_first and seq > 1 and not self._answered:
                break
            self.answers.append(await anext(requests))
        if is_first:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "DRAINING")
        yield JoinResponse(seq=4, results=cooling_down(self.answers[-1]), last=True)


@pytest.mark.parametrize("answered", [False, True])
async def test_a_break_in_the_middle_is_mended(answered: bool) -> None:
    """The manager joins again, says what it has answered, and answers a step that comes again as it did then."""
    async with ScriptedService() as service:
        broken = Broken(service, answered=answered)
        async with AsyncClient(service.address, token="t") as client:
            manager = ExitManager(RuleBook(default=ExitRules()), name="m", vix=VixSources())
            await Lockstep(client, manager).run(connect_s=30.0)
    assert broken.joined[1].answered_seq in {1, 2}
    assert [answer.seq for answer in broken.answers] == ([1, 2, 2, 3] if answered else [1, 2, 3])
    if answered:
        assert broken.answers[1] == broken.answers[2]


async def test_a_manager_started_in_the_middle_goes_on_as_the_one_before() -> None:
    """What was refused waits as it would have waited: pauses and proposals are left at the service with each answer."""
    steps = [(1.102, 5), (1.102, 5), (1.1021, 5)]
    whole, _, _ = await play(steps)
    left = whole.answers[2].state
    assert left, "a refused wish has to wait"
    async with ScriptedService() as service:
        Replay(service, [], open_trades=1, respond=cooling_down)
        async with AsyncClient(service.address, token="t") as client:
            manager = ExitManager(RuleBook(default=ExitRules()), name="intelligent_exit_manager", vix=VixSources())
            lockstep = Lockstep(client, manager)
            lockstep._catch_up(JoinResponse(state=left, quotes=[quote(1.102)]))
            again = await lockstep.answer(
                JoinResponse(
                    seq=3,
                    time_ns=START_NS + 3 * NANOS,
                    quotes=[quote(1.1021)],
                    results=cooling_down(whole.answers[2]),
                    revision=5,
                )
            )
    assert again == whole.answers[3]


async def test_a_live_service_says_that_it_has_no_lockstep() -> None:
    """MODE_UNSUPPORTED is not waited for."""

    async def live(_requests: Any, context: Context) -> AsyncIterator[JoinResponse]:
        for nothing in list[JoinResponse]():
            yield nothing
        await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "MODE_UNSUPPORTED")

    async with ScriptedService() as service:
        service.on("Join", live)
        async with AsyncClient(service.address, token="t") as client:
            lockstep = Lockstep(client, ExitManager(RuleBook(default=ExitRules()), name="m", vix=VixSources()))
            with pytest.raises(errors.FailedPrecondition) as caught:
                await lockstep.run(connect_s=30.0)
    assert caught.value.reason == "MODE_UNSUPPORTED"


async def test_a_quiet_step_is_cheap(record_property: Callable[[str, object], None]) -> None:
    """With ten open trades and nothing to do the manager's own work on a step is well below 0.5 ms."""
    manager = ExitManager(RuleBook(default=ExitRules()), name="m", vix=VixSources())
    async with ScriptedService() as service:
        replay = Replay(service, [(1.1, 5)] * 500, open_trades=10, respond=cooling_down)
        async with AsyncClient(service.address, token="t") as client:
            lockstep = Lockstep(client, manager)
            await lockstep.run(connect_s=1.0)
            step = JoinResponse(seq=9, time_ns=START_NS, quotes=[quote(1.1)], revision=5)
            started_s = time.process_time()
            for _ in range(200):
                assert not (await lockstep.answer(step)).proposals
            own_s = (time.process_time() - started_s) / 200
    round_trip_s = sorted(replay.step_s)[len(replay.step_s) // 2]
    record_property("own_work_us", own_s * 1e6)
    record_property("round_trip_p50_us", round_trip_s * 1e6)
    assert own_s < 0.5e-3
