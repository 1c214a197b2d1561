"""The outside checker finds what it is for: a real run passes, and the same logs with one thing wrong do not."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dtms.v1.action_pb2 import (
    DENIAL_CODE_DTMS_DEFENSIVE,
    OUTCOME_STATUS_CONFIRMED,
    OUTCOME_STATUS_REJECTED,
    PURPOSE_TRAIL,
)
from dtms.v1.arbitration_service_pb2 import Grant
from dtms.v1.event_pb2 import Event
from dtms.v1.ownership_pb2 import GRANT_CAUSE_ACQUIRED, GRANT_CAUSE_EXPIRED, GRANT_CAUSE_RETURNED, RANK_STRATEGY
from dtms.v1.score_pb2 import Score
from dtms_client.errors import StaleEpoch
from tests.checker.evidence import DEFENSIVE, Call, Evidence, read
from tests.checker.guarantees import VALIDATORS, check
from tests.conftest import REPO
from tests.scenarios.recorder import RecordedClient, Recorder
from tests.scenarios.told import Told
from tests.stack import EXIT_MANAGER, SYMBOL, UNIVERSAL, Stack, running, stop_at

SETTINGS = {"engine.lease_ttl_ms": 1000, "engine.hold_s": 0}

Plant = Callable[[Evidence], Evidence]


async def record(folder: Path) -> list[Path]:
    """A short life with everything in it: claims, a lease that runs out, a stale proposal, defence and its end."""
    settings = {**SETTINGS, "paper.broker_log": folder / "broker.jsonl"}
    async with running(folder / "data", settings) as stack:
        logs: list[Path] = []
        with ExitStack() as recorders:

            async def client(name: str) -> RecordedClient:
                logs.append(folder / f"{name}.jsonl")
                recorder = recorders.enter_context(Recorder(logs[-1], name))
                made = RecordedClient(recorder, stack.server.address, token_file=stack.token(name))
                stack._clients[name] = await stack.exits.enter_async_context(made)
                return made

            viewer, manager, universal, _feed = [
                await client(name) for name in ("viewer", EXIT_MANAGER, UNIVERSAL, "feed")
            ]
            told = Told()
            following = [asyncio.create_task(each.follow(who)) for each, who in ((told, viewer), (Told(), manager))]
            await live(stack, manager, universal, told)
            await told.up_to((await viewer.system_status()).revision)
            for task in following:
                task.cancel()
            await asyncio.wait(following)
    return logs


async def live(stack: Stack, manager: RecordedClient, universal: RecordedClient, told: Told) -> None:
    await stack.warm_up()
    await stack.tick(1.1)
    trade = await stack.trade()
    claimed = (await universal.acquire_ownership(trade.ticket)).ownership
    await universal.renew_ownership([Grant(ticket=trade.ticket, owner_epoch=claimed.owner_epoch)])
    with pytest.raises(StaleEpoch):
        await stack.propose(trade, stop_at(trade.confirmed.sl + 0.0001))
    trade = await universal.get_trade(trade.ticket)
    granted = await stack.propose(trade, stop_at(trade.confirmed.sl + 0.0001, PURPOSE_TRAIL), manager=UNIVERSAL)
    assert granted.outcome.status == OUTCOME_STATUS_CONFIRMED
    await told.event(cause(GRANT_CAUSE_EXPIRED))
    await universal.acquire_ownership(trade.ticket)
    await stack.tick(1.1012)
    feed = await stack.client("feed")
    await feed.report_score(SYMBOL, Score(total=0.001), valid_ms=60_000)
    in_force = (await manager.get_score(SYMBOL, trade.side)).score.thresholds
    await feed.report_score(SYMBOL, Score(total=(in_force.warn2 + in_force.critical) / 2), valid_ms=60_000)
    trade = await manager.get_trade(trade.ticket)
    denied = await stack.propose(trade, stop_at(trade.confirmed.sl + 0.0001))
    assert denied.decision.denial == DENIAL_CODE_DTMS_DEFENSIVE
    await stack.system.executor.idle()
    await feed.report_score(SYMBOL, Score(total=1.0), valid_ms=60_000)
    await stack.tick(1.1013)
    await told.event(cause(GRANT_CAUSE_RETURNED))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, asyncio.run(record(folder))


@pytest.fixture(scope="module")
def clean(logs: tuple[Path, list[Path]]) -> Evidence:
    folder, files = logs
    return read(files, folder / "broker.jsonl")


# ---- what can be wrong ------------------------------------------------------------------------------------------


def event(evidence: Evidence, matches: Callable[[Event], Any]) -> Event:
    return next(event for event in evidence.events if matches(event))


def changed(evidence: Evidence, matches: Callable[[Event], Any], change: Callable[[Event], object]) -> Evidence:
    """With the first event that matches changed."""
    which = event(evidence, matches)
    other = Event()
    other.CopyFrom(which)
    change(other)
    return replace(evidence, events=tuple(other if each is which else each for each in evidence.events))


def without(evidence: Evidence, matches: Callable[[Event], Any]) -> Evidence:
    which = event(evidence, matches)
    return replace(evidence, events=tuple(each for each in evidence.events if each is not which))


def ordered(evidence: Evidence, **facts: Any) -> Evidence:
    """With the first order of a manager changed."""
    manager = event(evidence, managers_intent).intent_recorded.intent_id
    return replace(
        evidence,
        broker=tuple({**line, **facts} if line.get("intent_id") == manager else line for line in evidence.broker),
    )


def stood(line: Mapping[str, Any], **levels: Any) -> dict[str, Any]:
    return {**line["after"], **levels}


def managers_intent(event: Event) -> bool:
    return event.HasField("intent_recorded") and event.intent_recorded.manager == UNIVERSAL


def defensive_grant(event: Event) -> bool:
    return event.HasField("ownership_granted") and event.state in DEFENSIVE


def cause(value: int) -> Callable[[Event], bool]:
    return lambda event: event.HasField("ownership_granted") and event.ownership_granted.cause == value


def order_of_manager(evidence: Evidence) -> Mapping[str, Any]:
    intent = event(evidence, managers_intent).intent_recorded.intent_id
    return next(line for line in evidence.orders() if line["intent_id"] == intent)


def call(evidence: Evidence, name: str) -> Call:
    return next(each for each in evidence.named(name) if each.response is not None)


def recalled(evidence: Evidence, which: Call, **facts: Any) -> Evidence:
    return replace(evidence, calls=tuple(replace(each, **facts) if each is which else each for each in evidence.calls))


def old_token_acts(evidence: Evidence) -> Evidence:
    return changed(evidence, managers_intent, lambda e: setattr(e.intent_recorded, "owner_epoch", 1))


def two_in_flight(evidence: Evidence) -> Evidence:
    """The first change of DTMS is never concluded."""
    return without(evidence, lambda e: e.HasField("outcome_recorded"))


def two_hold_one_grant(evidence: Evidence) -> Evidence:
    return recalled(evidence, call(evidence, "AcquireOwnership"), client=EXIT_MANAGER)


def token_falls(evidence: Evidence) -> Evidence:
    return changed(evidence, defensive_grant, lambda e: setattr(e.ownership_granted, "owner_epoch", 1))


def token_from_nowhere(evidence: Evidence) -> Evidence:
    """A client was told a token that no grant on the stream has."""
    which = call(evidence, "AcquireOwnership")
    response = type(which.response)()
    response.CopyFrom(which.response)
    response.ownership.owner_epoch += 100
    return recalled(evidence, which, response=response)


def stale_order(evidence: Evidence) -> Evidence:
    return ordered(evidence, token=order_of_manager(evidence)["token"] - 1)


def stale_grant(evidence: Evidence) -> Evidence:
    return changed(
        evidence,
        lambda e: e.decision_made.decision.asked_epoch != e.decision_made.decision.owner_epoch,
        lambda e: setattr(e.decision_made.decision, "granted", True),
    )


def denied_and_done(evidence: Evidence) -> Evidence:
    return changed(
        evidence,
        lambda e: e.decision_made.decision.granted,
        lambda e: setattr(e.decision_made.decision, "granted", False),
    )


def equal_rank_preempts(evidence: Evidence) -> Evidence:
    def take(event: Event) -> None:
        event.ownership_granted.managed_by, event.ownership_granted.rank = EXIT_MANAGER, RANK_STRATEGY

    return changed(evidence, cause(GRANT_CAUSE_ACQUIRED), take)


def acts_in_defence(evidence: Evidence) -> Evidence:
    return changed(
        evidence,
        lambda e: e.decision_made.decision.denial == DENIAL_CODE_DTMS_DEFENSIVE,
        lambda e: setattr(e.decision_made.decision, "granted", True),
    )


def rank_stays(evidence: Evidence) -> Evidence:
    return without(evidence, cause(GRANT_CAUSE_RETURNED))


def displaced_not_told(evidence: Evidence) -> Evidence:
    """The stream of the one who gets it back passes over the grant; it is that of the other manager, renamed."""
    returned = event(evidence, cause(GRANT_CAUSE_RETURNED)).revision
    streams = []
    for stream in evidence.streams:
        messages = tuple(
            replace(message, revisions=tuple(each for each in message.revisions if each != returned))
            for message in stream.messages
        )
        streams.append(replace(stream, client=UNIVERSAL, messages=messages))
    return replace(evidence, streams=tuple(streams))


def lease_ends_early(evidence: Evidence) -> Evidence:
    expired = event(evidence, cause(GRANT_CAUSE_EXPIRED)).revision
    seen = {**evidence.first_seen_s, expired: evidence.first_seen_s[expired] - SETTINGS["engine.lease_ttl_ms"] / 1000}
    return replace(evidence, first_seen_s=seen)


def handed_on_in_flight(evidence: Evidence) -> Evidence:
    intent = event(evidence, managers_intent).intent_recorded.intent_id
    return without(evidence, lambda e: e.outcome_recorded.outcome.intent_id == intent)


def renewed_after_its_end(evidence: Evidence) -> Evidence:
    return recalled(evidence, call(evidence, "RenewOwnership"), sent_s=evidence.calls[-1].sent_s)


def nobody_asked(evidence: Evidence) -> Evidence:
    """The manager's log does not know the proposal."""
    kept = tuple(each for each in evidence.calls if not (each.name == "Propose" and each.client == UNIVERSAL))
    return replace(evidence, calls=kept)


def other_words(evidence: Evidence) -> Evidence:
    return ordered(evidence, sl=order_of_manager(evidence)["sl"] + 0.0001)


def sent_twice(evidence: Evidence) -> Evidence:
    return replace(evidence, broker=(*evidence.broker, order_of_manager(evidence)))


def past_dtms(evidence: Evidence) -> Evidence:
    """Somebody moved the stop at the broker, and no hand is in the logs."""
    line = {**order_of_manager(evidence), "actor": "other", "comment": ""}
    return replace(evidence, broker=(*evidence.broker, line))


def refused_but_done(evidence: Evidence) -> Evidence:
    return changed(
        evidence,
        lambda e: e.HasField("outcome_recorded"),
        lambda e: setattr(e.outcome_recorded.outcome, "status", OUTCOME_STATUS_REJECTED),
    )


def done_but_refused(evidence: Evidence) -> Evidence:
    return ordered(evidence, retcode=10016)


def loosened(evidence: Evidence) -> Evidence:
    line = order_of_manager(evidence)
    return ordered(evidence, before=stood(line, sl=line["after"]["sl"] + 0.0005))


def target_lost(evidence: Evidence) -> Evidence:
    line = order_of_manager(evidence)
    return ordered(evidence, before=stood(line, tp=1.2))


def wrong_side(evidence: Evidence) -> Evidence:
    return changed(evidence, managers_intent, lambda e: setattr(e.intent_recorded, "sl", 1.2))


def too_much_risk(evidence: Evidence) -> Evidence:
    """The proposal said that it loosens, and the stop lies beyond the initial risk."""
    line = order_of_manager(evidence)
    said = changed(
        evidence,
        lambda e: e.decision_made.decision.manager == UNIVERSAL and e.decision_made.decision.granted,
        lambda e: setattr(e.decision_made.decision.action, "allow_loosen", True),
    )
    return ordered(said, after=stood(line, sl=line["after"]["sl"] - 0.02))


def event_lost(evidence: Evidence) -> Evidence:
    return without(evidence, lambda e: e.revision == len(evidence.events) // 2)


PLANTS: list[tuple[str, Plant]] = [
    *(("I1", plant) for plant in (old_token_acts, two_in_flight, two_hold_one_grant)),
    *(("I2", plant) for plant in (token_falls, token_from_nowhere)),
    *(("I3", plant) for plant in (stale_order, stale_grant, denied_and_done)),
    *(("I4", plant) for plant in (equal_rank_preempts, acts_in_defence)),
    *(("I5", plant) for plant in (rank_stays, displaced_not_told)),
    *(("I6", plant) for plant in (lease_ends_early, handed_on_in_flight, renewed_after_its_end)),
    *(("I7", plant) for plant in (nobody_asked, other_words, sent_twice, past_dtms)),
    *(("I9", plant) for plant in (refused_but_done, done_but_refused)),
    *(("I11", plant) for plant in (loosened, target_lost, wrong_side, too_much_risk)),
    ("I15", event_lost),
]


def test_the_logs_of_a_real_run_pass(clean: Evidence) -> None:
    """No violation where there is none, though the run has grants, a lease that ran out, refusals and defence."""
    assert check(clean) == []
    assert len(list(clean.orders())) >= 3
    assert {call.name for call in clean.calls} >= {"Propose", "AcquireOwnership", "RenewOwnership", "Watch"}


@pytest.mark.parametrize(("guarantee", "plant"), PLANTS, ids=[plant.__name__ for _, plant in PLANTS])
def test_a_planted_violation_is_found(clean: Evidence, guarantee: str, plant: Plant) -> None:
    """The same logs with one thing wrong break the guarantee that forbids it."""
    assert guarantee in {violation.guarantee for violation in check(plant(clean))}


def test_every_validator_has_a_plant() -> None:
    """A validator that was never seen to find anything proves nothing."""
    assert {guarantee for guarantee, _ in PLANTS} == set(VALIDATORS)


def test_the_command_says_what_it_found(logs: tuple[Path, list[Path]]) -> None:
    """Over files, as another project would run it: 0 and a count for the clean run."""
    folder, files = logs
    command = [sys.executable, "-m", "tests.checker", "--broker-log", str(folder / "broker.jsonl"), *map(str, files)]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert "0 violations" in ended.stdout


def test_the_checker_knows_nothing_of_service_and_client() -> None:
    """Its files import the standard library and the messages of dtms.v1, and each other."""
    allowed = (*sys.stdlib_module_names, "dtms", "tests.checker")
    for path in Path(__file__).parent.glob("*.py"):
        if path.name.startswith("test_"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert any(name == each or name.startswith(f"{each}.") for each in allowed), (path, name)
