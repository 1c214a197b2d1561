"""The gateway process: lockstep over the wire, two credentials, and how it ends when the service does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import pytest

from dtms.v1 import gateway_service_pb2, trade_pb2
from dtms_client.errors import PermissionDenied
from dtms_service.broker.door import CommandKind, OutcomeStatus, Side
from dtms_service.gateway.link import AttachmentLost
from dtms_service.gateway.process import Exit, drive_gateway
from dtms_service.gateway_door import GatewayDoor
from dtms_service.history import Tick
from dtms_service.replay.artefacts import BARS, BROKER_LOG, RESULTS
from dtms_service.replay.driver import Registration
from dtms_service.replay.job import HistoryRun, open_run
from tests.conftest import REPO
from tests.grpc.gateway_child import options
from tests.grpc.gateway_peer import Peer, serving, token_files
from tests.unit.paper_world import CONFIG, SPEC
from tests.unit.replay_world import ServicePart, command

TICKS = 130


def registration(peer: Peer) -> Registration:
    told = peer.registered[-1]
    return Registration(
        told.account_id,
        told.ticket,
        told.symbol,
        Side.BUY if told.side == trade_pb2.SIDE_BUY else Side.SELL,
        told.entry_price,
        told.volume,
        told.sl,
        told.tp,
        told.strategy_type,
        told.opened_ns,
    )


async def tighten(peer: Peer, ticks: gateway_service_pb2.GatewayTicks) -> None:
    """On the fourth tick the stop moves to 1.10005, and the door's own view of it must agree."""
    if ticks.seq == 4:
        assert peer.door is not None
        outcome = await peer.door.execute(command(registration(peer), CommandKind.MODIFY, 1, sl=1.09985, tp=1.103))
        assert outcome.status is OutcomeStatus.CONFIRMED
        (position,) = await peer.door.positions(CONFIG.account_id)
        assert position.sl == 1.09985


async def test_a_history_runs_through_the_wire_tick_by_tick(tmp_path: Path) -> None:
    """Each tick waits for the one before, counts rise, the trade is registered with the trader's own credential."""
    token, _ = token_files(tmp_path)
    async with serving(Peer(turn=tighten)) as peer:
        result = await drive_gateway(options(peer.address, tmp_path, token, TICKS))
        await peer.ended.wait()
    assert peer.hello is not None
    assert (peer.hello.account_id, peer.hello.lockstep) == (CONFIG.account_id, True)
    assert [spec.symbol for spec in peer.hello.symbols] == [SPEC.name]
    assert peer.overlaps == 0
    assert [ticks.seq for ticks in peer.ticks] == list(range(1, TICKS + 1))
    changes = [ticks.change_count for ticks in peer.ticks]
    assert changes == sorted(changes)
    assert changes[0] < changes[1] == changes[3] < changes[4]
    assert (result.figures.ticks, result.figures.bars) == (TICKS, 2)
    is_told = [ticks.HasField("equity") for ticks in peer.ticks]
    assert is_told == [False, *[True] * (TICKS - 1)], "the account's figure, while a position is open"
    (trade,) = result.trades
    assert [told.ticket for told in peer.registered] == [trade.ticket]


async def test_the_gateway_answers_while_it_registers_and_before_it_is_attached(tmp_path: Path) -> None:
    """The service may ask for positions at any moment of the stream: it reconciles before it attaches."""
    seen: list[int] = []

    async def reconcile(door: GatewayDoor) -> None:
        seen.append(len(await door.positions(CONFIG.account_id)))
        assert (await door.account(CONFIG.account_id)).balance == CONFIG.balance

    token, _ = token_files(tmp_path)
    async with serving(Peer(before_attached=reconcile)) as peer:
        await drive_gateway(options(peer.address, tmp_path, token, 5))
    assert seen == [0]
    assert peer.held_at_registration == [[told.ticket for told in peer.registered]]


async def test_the_run_is_the_same_with_and_without_the_wire(tmp_path: Path) -> None:
    """A run over the gateway leaves the same bars, broker log and results as one inside of the service's process."""
    for name in ("near", "far"):
        (tmp_path / name).mkdir()
    token, _ = token_files(tmp_path / "far")
    async with serving(Peer(turn=tighten)) as peer:
        await drive_gateway(options(peer.address, tmp_path / "far", token, TICKS))

    async def same(run: HistoryRun, trade: Registration, _: Tick) -> None:
        await run.door.execute(command(trade, CommandKind.MODIFY, 1, sl=1.09985, tp=1.103))

    with open_run(options("-", tmp_path / "near", token, TICKS).job) as run:
        await run.drive(ServicePart(run, {3: same}))
    for file in (BARS, BROKER_LOG, RESULTS):
        near, far = (tmp_path / name / "run" / file for name in ("near", "far"))
        assert near.read_bytes() == far.read_bytes(), file


async def test_a_lost_stream_is_told_with_the_services_own_words(tmp_path: Path) -> None:
    """The service ends the stream in mid-history: the driver stops there, with the status that it gave."""

    async def drain(peer: Peer, ticks: gateway_service_pb2.GatewayTicks) -> None:
        if ticks.seq == 3:
            peer.abort.set()
            await asyncio.Event().wait()

    token, _ = token_files(tmp_path)
    async with serving(Peer(turn=drain)) as peer:
        with pytest.raises(AttachmentLost, match="draining"):
            await drive_gateway(options(peer.address, tmp_path, token, TICKS))
        assert len(peer.ticks) == 3
    assert not (tmp_path / "run" / RESULTS).exists()


async def test_a_refused_gateway_is_told_why(tmp_path: Path) -> None:
    """A refusal is no outage: it is raised as what it is, for a repeat would be refused again."""
    token, _ = token_files(tmp_path)
    async with serving(Peer(refuse_with=grpc.StatusCode.PERMISSION_DENIED)) as peer:
        with pytest.raises(PermissionDenied, match="not you"):
            await drive_gateway(options(peer.address, tmp_path, token, TICKS))


async def child(peer: Peer, folder: Path, token_file: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.grpc.gateway_child",
        peer.address,
        str(folder),
        str(token_file),
        str(TICKS),
        cwd=REPO,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_process_ends_with_0_after_the_whole_history(tmp_path: Path) -> None:
    """Exit code 0 says: every tick was answered, the results are written, the service was told the end."""
    token, _ = token_files(tmp_path)
    async with serving(Peer()) as peer:
        process = await child(peer, tmp_path, token)
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (Exit.DONE, b"")
        assert peer.ended.is_set()
    assert (tmp_path / "run" / RESULTS).exists()


async def test_the_process_ends_with_3_when_the_service_goes_away(tmp_path: Path) -> None:
    """One line on stderr and an exit code of its own, so that a supervisor can tell it from a wrong argument."""
    reached = asyncio.Event()

    async def hang(_: Peer, ticks: gateway_service_pb2.GatewayTicks) -> None:
        if ticks.seq == 10:
            reached.set()
            await asyncio.Event().wait()

    token, _ = token_files(tmp_path)
    async with serving(Peer(turn=hang)) as peer:
        process = await child(peer, tmp_path, token)
        await reached.wait()
    _, errors = await process.communicate()
    assert process.returncode == Exit.LOST
    assert errors.decode().startswith("dtms gateway: lost the service: ")
    assert errors.count(b"\n") == 1


async def test_the_process_ends_with_1_for_a_wrong_credential(tmp_path: Path) -> None:
    """The wrong token is named as what it is, once, and nothing is retried."""
    _, trader_token = token_files(tmp_path)
    async with serving(Peer()) as peer:
        process = await child(peer, tmp_path, trader_token)
        _, errors = await process.communicate()
    assert process.returncode == Exit.REFUSED, errors
    assert b"another credential was expected" in errors
