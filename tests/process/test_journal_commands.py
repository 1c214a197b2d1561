"""`dtms journal` on a service that runs, that was killed, and that goes on from a backup."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dtms.v1.action_pb2 import OUTCOME_STATUS_CONFIRMED, PURPOSE_TRAIL
from dtms.v1.arbitration_service_pb2 import Grant
from dtms.v1.ownership_pb2 import Ownership
from dtms_client.errors import DtmsError
from dtms_service.cli import journal as commands
from dtms_service.errors import JournalDamaged
from tests.process.market import Market
from tests.process.service_process import Process, serving
from tests.process.test_kill import all_trades
from tests.scenarios.behind_gateway import behind_a_gateway
from tests.stack import T0_MSC, UNIVERSAL, stop_at


async def journal(command: Callable[..., None], *arguments: Path, **options: object) -> tuple[int, list[str]]:
    """Exit code and lines of a command of `dtms journal`, run beside the test."""
    out = io.StringIO()

    def run() -> int:
        with redirect_stdout(out), redirect_stderr(out):
            try:
                command(*arguments, **options)
            except SystemExit as end:
                return int(end.code or 0)
        return 0

    code = await asyncio.to_thread(run)
    return code, out.getvalue().splitlines()


async def test_a_backup_of_a_service_at_work_is_a_service_to_go_on_from(tmp_path: Path) -> None:
    """While trades come in a backup is taken over the wire; what was acknowledged before it began is in it.

    It verifies, its export has its events in words, and `dtms serve` goes on from it with the trades and the paper
    account's positions, each under a new token. A byte that flips in it is found, and said where.
    """
    backup = tmp_path / "backup"
    async with serving(tmp_path / "data") as service, service.client("feed") as feed:
        market = Market(feed, feed, T0_MSC)
        await market.tick(1.1)
        before = [await market.buy() for _ in range(5)]

        async def go_on() -> None:
            for _ in range(100):
                await market.buy()

        going_on = asyncio.create_task(go_on())
        where = ("--address", service.address, "--data-dir", service.data_dir)
        made = await Process.start("journal", "backup", backup, *where)
        assert await made.ended() == 0, made.text()
        going_on.cancel()
        assert made.said[-1] == f"in {backup}: journal.db, paper.db"
        code, told = await journal(commands.verify, data_dir=service.data_dir)
        assert (code, "verify a backup" in " ".join(told)) == (2, True)
        code, told = await journal(commands.backup, backup, data_dir=service.data_dir)
        assert code == 2, told
    code, lines = await journal(commands.export, data_dir=backup, kind=["trade_registered"])
    assert code == 0, lines
    exported = [json.loads(line) for line in lines if line.startswith("{")]
    registered = {int(line["event"]["ticket"]) for line in exported}
    assert {trade.ticket for trade in before} <= registered
    await check_damage(backup, tmp_path / "damaged", exported[3])
    async with serving(backup) as service, service.client("feed") as feed:
        trades = await all_trades(feed)
        # A position that was opened and not registered yet when the copy was made is adopted.
        assert registered <= set(trades)
        held = {position.ticket for position in await feed.list_positions()}
        assert held == set(trades)
        newest = max(trade.owner_epoch for trade in before)
        assert all(trade.owner_epoch > newest + (1 << 36) for trade in trades.values())
    code, lines = await journal(commands.verify, data_dir=backup)
    assert (code, lines[-1].startswith(f"{len(trades)} trades, {len(trades)} open, from ")) == (0, True), lines


async def check_damage(sound: Path, damaged: Path, line: dict[str, Any]) -> None:
    """One bit of an exported event: verify ends with 1 and its revision, nothing is changed, and of a damaged journal
    there is no backup."""
    shutil.copytree(sound, damaged)
    body = base64.b64decode(line["body"])
    flipped = body[:-1] + bytes([body[-1] ^ 1])
    # Everywhere: SQLite leaves old copies of moved rows where they were.
    image = (damaged / "journal.db").read_bytes().replace(body, flipped)
    (damaged / "journal.db").write_bytes(image)
    code, lines = await journal(commands.verify, data_dir=damaged)
    assert code == 1
    assert f"damaged at revision {line['revision']}:" in " ".join(lines)
    assert (damaged / "journal.db").read_bytes() == image
    with pytest.raises(JournalDamaged):
        await journal(commands.backup, damaged / "backup", data_dir=damaged)
    assert not (damaged / "backup").exists()
    assert not (damaged / "backup.partial").exists()


async def test_after_a_restore_no_token_of_the_lost_time_is_worth_anything(tmp_path: Path) -> None:
    """A backup is older than tokens that the gateway's fence has seen: what is granted after the restore passes it.

    The old tokens are stale, also those that the restored journal never heard of.
    """
    async with behind_a_gateway(tmp_path) as (outside, trade):
        here, backup = outside.here, tmp_path / "backup"
        manager = await here.client(UNIVERSAL)
        service = here.service
        code, told = await journal(commands.backup, backup, address=service.address, data_dir=service.data_dir)
        assert code == 0, told
        grant = Ownership()
        for _ in range(3):
            grant = (await manager.acquire_ownership(trade.ticket)).ownership
            lost = await manager.propose(
                request_id=f"lost {grant.owner_epoch}",
                ticket=trade.ticket,
                owner_epoch=grant.owner_epoch,
                action=stop_at(1.096 + grant.owner_epoch / 10_000, PURPOSE_TRAIL),
            )
            assert lost.outcome.status == OUTCOME_STATUS_CONFIRMED
            held = Grant(account_id=trade.account_id, ticket=trade.ticket, owner_epoch=grant.owner_epoch)
            await manager.release_ownership(held)
        await here.service.kill()
        for name in ("journal.db", "journal.db-wal"):
            (here.service.data_dir / name).unlink(missing_ok=True)
        shutil.copy(backup / "journal.db", here.service.data_dir)
        said = len(outside.gateway.said)
        await outside.restart_service()
        await outside.gateway.tells("attached", since=said)
        now = await here.trade(trade.ticket)
        assert (now.managed_by, now.owner_epoch > grant.owner_epoch > trade.owner_epoch) == (trade.managed_by, True)
        with pytest.raises(DtmsError, match="STALE_EPOCH"):
            await manager.propose(
                request_id="late", ticket=trade.ticket, owner_epoch=grant.owner_epoch, action=stop_at(1.0985)
            )
        await outside.tick(1.1)
        mine = (await manager.acquire_ownership(trade.ticket)).ownership
        answer = await manager.propose(
            request_id="new", ticket=trade.ticket, owner_epoch=mine.owner_epoch, action=stop_at(1.0985, PURPOSE_TRAIL)
        )
        assert answer.outcome.status == OUTCOME_STATUS_CONFIRMED, answer.decision.denial
