"""kill -9 in the middle of load: what was acknowledged is there, state is the fold, no position is orphaned."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dtms.v1 import action_pb2, paper_service_pb2, trade_pb2
from dtms_client import AsyncClient
from dtms_service import convert
from dtms_service._core import Engine
from dtms_service.journal import SqliteJournal, no_progress
from dtms_service.settings import configuration
from tests import wire
from tests.process.market import Market
from tests.process.service_process import Process, Service, serving
from tests.stack import EXIT_MANAGER, T0_MSC, stop_at

KILLS = 3
HOUR_MSC = 3_600_000
OLDER = Path(__file__).parent / "older_journals"


async def killed_under_load(service: Service, seed: int, chance: random.Random, round_: int) -> list[dict[str, Any]]:
    """Loads the service and kills it after a random number of acknowledged commands; all that were acknowledged."""
    first_msc = T0_MSC + round_ * HOUR_MSC
    load = await Process.start(
        service.address,
        service.token("feed").parent,
        str(seed * 10 + round_),
        str(first_msc),
        module="tests.process.load_child",
    )
    wanted = chance.randrange(50, 400)
    try:
        await load.until(lambda: len(load.said) >= wanted)
        await service.kill()
        assert await load.ended() == 0, load.text()
    finally:
        await load.kill()
    return [json.loads(line) for line in load.said]


async def all_trades(client: AsyncClient) -> dict[int, trade_pb2.Trade]:
    return {trade.ticket: trade async for trade in client.list_trades(include_closed=True)}


async def held(client: AsyncClient) -> dict[int, Any]:
    request = paper_service_pb2.ListPositionsRequest()
    answer = await wire.call(client.channel, request, metadata=client.metadata, timeout_s=5)
    return {position.ticket: position for position in answer.positions}


async def check_acknowledged(service: Service, facts: list[dict[str, Any]]) -> None:
    """Every acknowledged command has its effect, and a repeat finds the same answer."""
    async with service.client("viewer") as viewer, service.client(EXIT_MANAGER) as manager:
        trades = await all_trades(viewer)
        revision = (await viewer.system_status()).revision
        for fact in facts:
            assert fact.get("revision", 0) <= revision, fact
            if fact["kind"] == "registered":
                assert fact["ticket"] in trades, fact
        decided = [fact for fact in facts if fact["kind"] == "decided"]
        for fact in decided[-100:]:
            again = await manager.propose(
                request_id=fact["request_id"],
                ticket=fact["ticket"],
                owner_epoch=fact["owner_epoch"],
                action=stop_at(fact["stop"]),
            )
            assert again.decision.decision_id == fact["decision_id"], fact
            assert again.decision.granted == fact["granted"], fact
            assert again.outcome.status == fact["outcome"], fact


async def check_broker(service: Service) -> None:
    """I13, I23: each position is a trade's or a trade's leg, with the stop that the trade shows; none is missing."""
    async with service.client("viewer") as viewer:
        trades, positions = await all_trades(viewer), await held(viewer)
    owned: dict[int, float] = {}
    for trade in trades.values():
        if trade.state != trade_pb2.TRADE_STATE_CLOSED:
            owned[trade.ticket] = trade.volume
            assert trade.confirmed.sl == (positions[trade.ticket].sl if positions[trade.ticket].HasField("sl") else 0.0)
        for leg in (trade.hedge, trade.readd):
            if leg.ticket:
                owned[leg.ticket] = leg.volume
    assert owned == {ticket: position.volume for ticket, position in positions.items()}


def fold(data_dir: Path) -> dict[int, trade_pb2.Trade]:
    """The trades of a fresh engine that folds the whole journal."""
    config = configuration(None, paper=True, given={"data_dir": data_dir})
    managers = {name: int(rank) for name, rank in config.managers.items()}
    engine = Engine(config.to_core(), managers, config.universal_strategies)
    journal, _report = SqliteJournal.open(data_dir, wal_limit_bytes=1 << 30, progress=no_progress)
    try:
        revision = 1
        while events := journal.read(revision, 1000):
            for _revision, body in events:
                engine.apply(convert.decode_event(body))
            revision += len(events)
    finally:
        journal.close()
    keys = engine.keys(open_only=False)
    return {ticket: convert.trade(engine.trade(account_id, ticket) or {}) for account_id, ticket in keys}


async def test_a_journal_of_an_older_version_goes_on(tmp_path: Path) -> None:
    """Killed under load before the upgrade: everything acknowledged is there, broker and trades agree, and the old
    events are the new engine's, though their snapshots are of another version."""
    with tarfile.open(OLDER / "snapshots-of-version-4.tar.gz") as left:
        left.extractall(tmp_path, filter="data")
    facts = json.loads((tmp_path / "acknowledged.json").read_text())
    data_dir = tmp_path / "data"
    async with serving(data_dir) as service:
        await service.logged("snapshot_not_used")
        await check_acknowledged(service, facts)
        await check_broker(service)
        async with service.client("viewer") as viewer, service.client("feed") as feed:
            market = Market(feed, viewer, T0_MSC + KILLS * HOUR_MSC)
            await market.tick(1.1)
            bought = await market.buy()
            shown = await all_trades(viewer)
        await service.kill()
    assert fold(data_dir) == shown
    assert bought.owner_epoch > max(trade.owner_epoch for trade in shown.values() if trade.ticket != bought.ticket)
    assert bought.rules_revision > max(fact["revision"] for fact in facts if "revision" in fact)
    assert {trade.rules_revision for trade in shown.values()} == {bought.rules_revision}  # the first that was recorded


@pytest.mark.timeout(120)  # seven starts, on a machine that may have more to do
@pytest.mark.parametrize("seed", [20261122])
async def test_i20_whatever_was_acknowledged_survives_kill_9_under_load(tmp_path: Path, seed: int) -> None:
    """Three kills at random moments: each time everything acknowledged is there, and broker and trades agree."""
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    facts: list[dict[str, Any]] = []
    shown: dict[int, trade_pb2.Trade] = {}
    async with serving(tmp_path) as service:
        facts += await killed_under_load(service, seed, chance, 0)
    for round_ in range(1, KILLS + 1):
        async with serving(tmp_path) as service:
            await check_acknowledged(service, facts)
            await check_broker(service)
            if round_ < KILLS:
                facts += await killed_under_load(service, seed, chance, round_)
                continue
            async with service.client("viewer") as viewer:
                shown = await all_trades(viewer)
            await service.kill()
    assert fold(tmp_path) == shown  # I20
    kinds = {fact["kind"] for fact in facts}
    assert {"tick", "opened", "registered", "decided"} <= kinds
    assert any(fact.get("outcome") == action_pb2.OUTCOME_STATUS_CONFIRMED for fact in facts)
    assert len(shown) >= KILLS
    assert {trade.state for trade in shown.values()} > {trade_pb2.TRADE_STATE_CLOSED}
