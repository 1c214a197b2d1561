"""The log of a paper broker in lockstep: its books, answers and tokens outlive the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dtms_service.broker.command_log import CommandLog, LoggedDoor
from dtms_service.broker.door import CommandKind, OutcomeStatus, Side
from dtms_service.broker.outcomes import STALE_TOKEN
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.errors import RunDiffers
from dtms_service.replay.driver import Registration
from tests.unit.paper_world import CONFIG, SPEC, T0, TRADING
from tests.unit.replay_world import command

ACCOUNT = CONFIG.account_id


@contextmanager
def process(folder: Path) -> Iterator[tuple[LoggedDoor, PaperBroker, Registration]]:
    """A gateway's books after the first tick of the history, with the trade that its entry rule opened there."""
    with closing(CommandLog(folder / "commands.db")) as log:
        broker = PaperBroker(CONFIG)
        broker.add_symbol(SPEC, TRADING)
        door = LoggedDoor(PaperDoor({ACCOUNT: broker}), log)
        door.call = 1
        broker.on_tick(SPEC.name, T0, 1.1, 1.1001)
        order = {
            "action": 1,
            "symbol": SPEC.name,
            "volume": 0.1,
            "type": 0,
            "type_filling": 1,
            "sl": 1.099,
            "tp": 1.103,
        }
        ticket = broker.order_send(order).order
        yield door, broker, Registration(ACCOUNT, ticket, SPEC.name, Side.BUY, 1.1001, 0.1, 1.099, 1.103, "", 0)


async def test_what_was_commanded_is_done_again_and_answered_as_it_was(tmp_path: Path) -> None:
    """The next process has the same deals; a command that comes once more is not obeyed once more."""
    with process(tmp_path) as (door, broker, trade):
        close = replace(command(trade, CommandKind.CLOSE, 7, volume=0.04), token=5)
        answer = await door.execute(close)
        deals = broker.closing_deals(trade.ticket)
    with process(tmp_path) as (door, broker, trade):
        assert not broker.closing_deals(trade.ticket)
        await door.redo()
        assert broker.closing_deals(trade.ticket) == deals
        assert await door.execute(close) == answer
        assert broker.closing_deals(trade.ticket) == deals


async def test_the_highest_token_of_a_trade_outlives_the_process(tmp_path: Path) -> None:
    """A lower token is refused by the next process too, and nothing is sent (I3)."""
    with process(tmp_path) as (door, _broker, trade):
        moved = replace(command(trade, CommandKind.MODIFY, 1, sl=1.0995), token=5)
        assert (await door.execute(moved)).status is OutcomeStatus.CONFIRMED
    with process(tmp_path) as (door, broker, trade):
        await door.redo()
        stale = await door.execute(replace(command(trade, CommandKind.MODIFY, 2, sl=1.0996), token=4))
        assert (stale.status, stale.comment) == (OutcomeStatus.REJECTED, STALE_TOKEN)
        (position,) = broker.positions()
        assert position.sl == 1.0995


async def test_a_service_that_repeats_a_step_must_command_the_same(tmp_path: Path) -> None:
    """What is not done again waits for the same command at the same place; another one ends the run."""
    with process(tmp_path) as (door, _broker, trade):
        first = command(trade, CommandKind.MODIFY, 1, sl=1.0995)
        answer = await door.execute(first)
    with process(tmp_path) as (door, broker, _trade):
        assert await door.execute(first) == answer
        assert [position.sl for position in broker.positions()] == [1.0995]
    with process(tmp_path) as (door, _broker, trade), pytest.raises(RunDiffers, match="command 2"):
        await door.execute(command(trade, CommandKind.MODIFY, 2, sl=1.0996))
    with process(tmp_path) as (door, _broker, trade):
        door.call = 0
        with pytest.raises(RunDiffers, match="before"):
            await door.execute(command(trade, CommandKind.MODIFY, 2, sl=1.0996))


def test_a_run_has_its_name_before_the_service_hears_of_it(tmp_path: Path) -> None:
    """A gateway that is killed with its first word on its lips comes back under the same name."""
    names = set()
    for _ in range(2):
        with closing(CommandLog(tmp_path / "commands.db")) as log:
            names.add(log.run_id)
    assert len(names) == 1


async def test_another_run_in_the_same_folder_begins_with_nothing(tmp_path: Path) -> None:
    """The name of a run lasts as long as the run; what another one was commanded is forgotten."""
    with process(tmp_path) as (door, _broker, trade):
        await door.execute(command(trade, CommandKind.MODIFY, 1, sl=1.0995))
    with closing(CommandLog(tmp_path / "commands.db")) as log:
        name = log.run_id
        log.begin()
        log.note_call(3)
        assert (log.commands(), log.last_call()) == ([], 3)
    with closing(CommandLog(tmp_path / "commands.db")) as log:
        assert (log.run_id, log.last_call()) == (name, 3)
