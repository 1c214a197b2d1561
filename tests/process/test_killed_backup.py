"""kill -9 of whoever makes a backup, anywhere: it is whole or there is none, and the journal it was made of goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dtms_service.backup import DRAFT_PREFIX
from dtms_service.cli import journal as commands
from dtms_service.fault_points import KILL_VARIABLE, Point
from tests.process.crash_world import KILLED, Death
from tests.process.market import Market
from tests.process.service_process import Process, serve, serving
from tests.process.test_journal_commands import journal
from tests.process.test_kill import all_trades
from tests.stack import T0_MSC

COPY = (Point.BACKUP_STEP, Point.BACKUP_SYNC, Point.BACKUP_MARK, Point.BACKUP_MARKED)
BY_THE_SERVICE = [*map(Death, COPY), Death(Point.BACKUP_SEND), Death(Point.BACKUP_SEND, 2)]
POINTS = {death.point for death in BY_THE_SERVICE}


def drafts(data_dir: Path) -> list[Path]:
    return list(data_dir.glob(f"{DRAFT_PREFIX}*"))


def begun_in(folder: Path) -> list[Path]:
    """Whole or not."""
    return list(folder.glob("backup*"))


async def is_whole(backup: Path, trades: int) -> None:
    code, lines = await journal(commands.verify, data_dir=backup)
    assert (code, lines[-1].startswith(f"{trades} trades, {trades} open, from ")) == (0, True), lines


@pytest.mark.slow
async def test_a_service_that_dies_while_it_makes_a_backup(tmp_path: Path) -> None:
    """At each step: who asked is told, and has nothing. The next start clears up, and the next backup is whole."""
    data_dir, backup = tmp_path / "data", tmp_path / "backup"
    acknowledged = set()
    for number, death in enumerate(BY_THE_SERVICE):
        service = await serve(data_dir, env={KILL_VARIABLE: str(death)})
        async with service.client("feed") as feed:
            market = Market(feed, feed, T0_MSC + 60_000 * number)
            await market.tick(1.1)
            acknowledged.add((await market.buy()).ticket)
        asked = await Process.start("journal", "backup", backup, "--address", service.address, "--data-dir", data_dir)
        assert (await asked.ended(), await service.process.wait()) == (2, KILLED), asked.text()
        await service.ended()
        assert "Unavailable" in asked.text(), asked.text()
        assert (len(drafts(data_dir)), begun_in(tmp_path)) == (1, []), death
    async with serving(data_dir) as service, service.client("feed") as feed:
        assert drafts(data_dir) == []
        assert set(await all_trades(feed)) == acknowledged
        asked = await Process.start("journal", "backup", backup, "--address", service.address, "--data-dir", data_dir)
        assert await asked.ended() == 0, asked.text()
    await is_whole(backup, len(acknowledged))


@pytest.mark.slow
async def test_a_command_that_dies_while_it_makes_a_backup(tmp_path: Path) -> None:
    """Of a service that is at rest: nothing stands under the name of the backup, what is left is named to whoever tries
    again, and the journal is as it was."""
    data_dir, backup = tmp_path / "data", tmp_path / "backup"
    async with serving(data_dir) as service, service.client("feed") as feed:
        market = Market(feed, feed, T0_MSC)
        await market.tick(1.1)
        await market.buy()
    for point in COPY:
        killed = await Process.start(
            *("journal", "backup", backup, "--data-dir", data_dir), env={KILL_VARIABLE: str(Death(point))}
        )
        assert await killed.ended() == KILLED, killed.text()
        assert not backup.exists()
        await is_whole(data_dir, 1)
        code, told = await journal(commands.backup, backup, data_dir=data_dir)
        assert (code, "is left from an earlier try: remove it" in " ".join(told)) == (2, True), told
        shutil.rmtree(tmp_path / "backup.partial")
    code, told = await journal(commands.backup, backup, data_dir=data_dir)
    assert code == 0, told
    await is_whole(backup, 1)
