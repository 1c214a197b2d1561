"""Notifications of a whole service: what an operator does arrives, and no target holds up a decision."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dtms.v1 import admin_service_pb2, event_pb2
from dtms_service.cli import common, operate
from dtms_service.settings import configuration
from dtms_service.system import System
from tests.messenger import REFUSED, messenger
from tests.stack import EXIT_MANAGER, running, stop_at

HALTED = event_pb2.TRADING_STATE_HALTED
ACTIVE = event_pb2.TRADING_STATE_ACTIVE


async def test_a_target_that_hangs_holds_up_no_decision(tmp_path: Path) -> None:
    """While the target takes a message and does not answer, proposals are decided and carried out."""
    async with (
        messenger(hangs=True) as to,
        running(tmp_path / "data", {"notifications.urls": [to.url]}) as stack,
    ):
        trade = await stack.trade()
        switch = admin_service_pb2.SetKillSwitchRequest(
            scope=event_pb2.KILL_SCOPE_SYMBOL, value="XAUUSD", engaged=True, reason="news"
        )
        await stack.call("operator", switch)
        await to.until(lambda: len(to.messages) == 1)
        assert (await stack.propose(trade, stop_at(1.096))).decision.granted
        assert stack.held()[trade.ticket][1] == 1.096
        assert to.answered == 0
        to.open.set()
        await to.until(lambda: to.answered == 1)
    assert "kill switch SYMBOL XAUUSD engaged, by operator: news" in to.texts[0]


async def test_what_waits_is_told_before_the_end(tmp_path: Path) -> None:
    """A service that stops delivers what was decided until then."""
    async with messenger() as to:
        async with running(tmp_path / "data", {"notifications.urls": [to.url]}) as stack:
            for state, reason in ((HALTED, "a test"), (ACTIVE, "its end")):
                request = admin_service_pb2.SetTradingStateRequest(trading_state=state, reason=reason)
                await stack.call("operator", request)
        told = "\n".join(to.texts)
    assert "trading is HALTED, by operator: a test" in told
    assert "trading is ACTIVE, by operator: its end" in told


async def test_a_history_is_no_news(tmp_path: Path) -> None:
    """In lockstep nobody is told: the facts are years old."""
    urls = ["json://127.0.0.1:9/"]
    config = configuration(None, paper=True, given={"data_dir": tmp_path / "data", "notifications.urls": urls})
    system = await System.open(config, frozenset({EXIT_MANAGER}))
    assert system.notifier is None
    await system.close()


async def test_the_test_message_says_which_target_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dtms notify-test` sends one message to each target; exit code 1 when one failed, with the reason."""
    said: list[str] = []
    monkeypatch.setattr(common.console, "print", lambda line, **_: said.append(line))
    async with messenger() as works, messenger(status=REFUSED) as refuses:
        monkeypatch.setenv("DTMS_NOTIFICATIONS__URLS", f"{works.url} {refuses.url}")
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(operate.notify_test)
        assert ended.value.code == 1
        assert said[0] == "1 (JSON): delivered"
        assert said[1].startswith("2 (JSON): FAILED: ")
        assert "error=500" in said[1]
        assert "secret" not in "".join(said)
        assert (len(works.messages), len(refuses.messages)) == (1, 1)
