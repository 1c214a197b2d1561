"""The Universal Manager as a process: its command line, its ends, its bars and memos in a replay."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dtms.v1.lockstep_service_pb2 import JoinRequest, JoinResponse
from dtms.v1.trade_pb2 import SIDE_BUY, TRADE_STATE_HEALTHY, Trade
from dtms.v1.trade_status_service_pb2 import ListTradesResponse
from dtms_client.managing.brain import NANOS
from dtms_client.testing import Context, ScriptedService
from dtms_client.universal_manager.command import main
from dtms_client.universal_manager.strategies import PROFILES, FrozenRules, Session, freeze

PROGRAM = (sys.executable, "-m", "dtms_client.universal_manager")
TRADE = Trade(
    account_id="1@Demo",
    ticket=7,
    symbol="XAUUSD.mini",
    side=SIDE_BUY,
    state=TRADE_STATE_HEALTHY,
    managed_by="universal_sl_tp_manager",
    strategy_type="kill_zone",
    registered_ns=9 * 3_600 * NANOS,
)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("secret\n")
    return file


def test_help_explains_every_option() -> None:
    """--help ends well and names the options."""
    done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True)
    for option in ("--address", "--token-file", "--lockstep", "--profile", "--suffix", "--root-certificates", "--name"):
        assert option in done.stdout


async def test_it_takes_part_in_a_replay(token_file: Path) -> None:
    """It asks for the bars of its profile, freezes the rules of a trade at first sight, and ends with the history."""
    answers: list[JoinRequest] = []

    async def steps(requests: Any, _context: Context) -> AsyncIterator[JoinResponse]:
        answers.append(await anext(requests))
        yield JoinResponse(seq=1, revision=5, time_ns=10 * 3_600 * NANOS)
        answers.append(await anext(requests))
        yield JoinResponse(seq=2, last=True)

    async def trades(_request: Any, _context: Context) -> ListTradesResponse:
        return ListTradesResponse(trades=[TRADE])

    async with ScriptedService() as service:
        service.on("Join", steps)
        service.on("ListTrades", trades)
        options = ("--lockstep", "--profile", "swing", "--suffix", ".mini")
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *("--address", service.address, "--token-file", str(token_file), *options),
            stdin=DEVNULL,
            stderr=PIPE,
        )
        _, log = await process.communicate()
    assert process.returncode == 0
    assert json.loads(log.splitlines()[-1])["event"] == "stopped"
    assert list(answers[0].timeframes_s) == [3_600, 14_400]
    (memo,) = answers[1].memos
    rules = freeze("kill_zone", "XAUUSD", Session.LONDON, PROFILES["swing"])
    assert (memo.ticket, FrozenRules.of(memo.memo)) == (7, rules)


def test_a_profile_that_does_not_exist_is_a_wrong_call(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with 2 and names those that do."""
    with pytest.raises(SystemExit) as ended:
        main(["--address", "127.0.0.1:1", "--token-file", str(token_file), "--profile", "weekly"])
    assert ended.value.code == 2
    assert "intraday" in capsys.readouterr().err
