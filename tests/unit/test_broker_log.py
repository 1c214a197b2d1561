"""The broker's own log: what it was asked, by whom, and what the position looked like around it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dtms_service.broker.broker_log import BrokerLog
from dtms_service.broker.door import CommandKind, Side
from dtms_service.broker.recorded import RecordedBroker
from dtms_service.history import Tick
from dtms_service.paper_account import PaperAccount
from tests.unit.paper_world import CONFIG, SPEC, T0, TRADING
from tests.unit.test_paper_door import command


@contextmanager
def logged(path: Path) -> Iterator[PaperAccount]:
    log = BrokerLog(path, entry_magic=None, fresh=False)
    broker = RecordedBroker(CONFIG, log)
    broker.add_symbol(SPEC, TRADING)
    account = PaperAccount(broker, None, log)
    try:
        yield account
    finally:
        account.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_orders_are_there_with_the_position_around_them(tmp_path: Path) -> None:
    """An accepted order shows levels before and after, a refused one the same twice; a hand is no command."""
    path = tmp_path / "broker.jsonl"
    with logged(path) as account:
        account.on_tick("EURUSD", Tick(T0, 1.1, 1.1001, 1.0))
        ticket = account.by_hand(lambda hand: hand.open("EURUSD", Side.BUY, 0.1, 1.09, 1.12)).order
        await account.execute(command(CommandKind.MODIFY, ticket, 3, sl=1.095, tp=1.12, comment="dtms 1"))
        await account.execute(command(CommandKind.MODIFY, ticket, 3, sl=1.2, tp=1.12, comment="dtms 2"))
    by_hand, accepted, denied = lines(path)
    levels = {"volume": 0.1, "sl": 1.09, "tp": 1.12}
    assert (by_hand["actor"], by_hand["before"], by_hand["after"]) == ("other", None, levels)
    assert (accepted["actor"], accepted["token"], accepted["comment"]) == ("dtms", 3, "dtms 1")
    assert (accepted["before"], accepted["after"]) == (levels, {**levels, "sl": 1.095})
    assert (denied["retcode"], denied["before"], denied["after"]) == (10016, accepted["after"], accepted["after"])


async def test_what_the_broker_does_by_itself_is_there_too(tmp_path: Path) -> None:
    """A stop that triggers is a deal with its reason."""
    path = tmp_path / "broker.jsonl"
    with logged(path) as account:
        account.on_tick("EURUSD", Tick(T0, 1.1, 1.1001, 1.0))
        ticket = account.by_hand(lambda hand: hand.open("EURUSD", Side.BUY, 0.1, 1.09, 0.0)).order
        account.on_tick("EURUSD", Tick(T0 + 1000, 1.08, 1.0801, 1.0))
    deal = lines(path)[-1]
    assert (deal["event"], deal["position"], deal["reason"], deal["remaining"]) == ("deal", ticket, "STOP_LOSS", 0.0)


async def test_a_later_process_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """Nothing is overwritten, and numbers go on."""
    path = tmp_path / "broker.jsonl"
    for start in (T0, T0 + 1000):
        with logged(path) as account:
            account.on_tick("EURUSD", Tick(start, 1.1, 1.1001, 1.0))
            account.by_hand(lambda hand: hand.open("EURUSD", Side.BUY, 0.1, 0.0, 0.0))
    assert [line["seq"] for line in lines(path)] == [1, 2]
    assert all(line["after"] == {"volume": 0.1, "sl": None, "tp": None} for line in lines(path))
