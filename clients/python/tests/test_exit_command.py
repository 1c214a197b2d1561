"""The exit manager as a process: its command line, its log, its ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dtms.v1.lockstep_service_pb2 import JoinResponse
from dtms.v1.market_data_service_pb2 import WatchQuotesResponse
from dtms.v1.trade_status_service_pb2 import SnapshotChunk, WatchResponse
from dtms_client.exit_manager.command import main
from dtms_client.testing import Context, ScriptedService, refuse

PROGRAM = (sys.executable, "-m", "dtms_client.exit_manager")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("secret\n")
    return file


async def started(address: str, token_file: Path, *options: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *PROGRAM, "--address", address, "--token-file", str(token_file), *options, stdin=DEVNULL, stderr=PIPE
    )


async def line(process: Process) -> dict[str, Any]:
    """The next line of the log."""
    assert process.stderr is not None
    facts: dict[str, Any] = json.loads(await process.stderr.readline())
    return facts


async def wait_for(process: Process, event: str) -> dict[str, Any]:
    """The first line about an event; fails at the end of the log."""
    while True:
        facts = await line(process)
        if facts["event"] == event:
            return facts


def test_help_explains_every_option() -> None:
    """--help ends well and names the options."""
    done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True)
    for option in (
        "--address",
        "--token-file",
        "--lockstep",
        "--rules",
        "--root-certificates",
        "--name",
        "--vix-file",
        "--direct",
    ):
        assert option in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process could answer")
async def test_it_lives_through_an_outage_and_ends_cleanly_on_sigterm(token_file: Path) -> None:
    """When the service goes away it tries on, logs JSON lines only, and on SIGTERM ends with 0 and a summary."""

    async def empty(_request: Any, _context: Context) -> AsyncIterator[WatchResponse]:
        yield WatchResponse(snapshot=SnapshotChunk(complete_at_revision=1))
        await asyncio.get_running_loop().create_future()

    async def quiet(_request: Any, _context: Context) -> AsyncIterator[WatchQuotesResponse]:
        await asyncio.get_running_loop().create_future()
        yield WatchQuotesResponse()

    async with ScriptedService() as service:
        service.on("Watch", empty)
        service.on("WatchQuotes", quiet)
        process = await started(service.address, token_file)
        assert (await line(process))["event"] == "started"
        await wait_for(process, "trades listed")
    try:
        interrupted = await wait_for(process, "events interrupted")
        assert (interrupted["level"], "Unavailable" in interrupted["error"]) == ("warning", True)
        process.send_signal(signal.SIGTERM)
        assert (await wait_for(process, "asked to stop"))["signal"] == "SIGTERM"
        assert (await wait_for(process, "stopped"))["proposals"] == 0
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_refused_credential_ends_with_a_clear_line(token_file: Path) -> None:
    """UNAUTHENTICATED ends it with 3 and a line that names the token file."""

    async def refused(_request: Any, context: Context) -> AsyncIterator[WatchResponse]:
        for nothing in list[WatchResponse]():
            yield nothing
        await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")

    async with ScriptedService() as service:
        service.on("Watch", refused)
        service.on("WatchQuotes", refused)
        process = await started(service.address, token_file)
        _, log = await process.communicate()
    last = json.loads(log.splitlines()[-1])
    assert (process.returncode, last["level"]) == (3, "critical")
    assert str(token_file) in last["event"]
    assert "CREDENTIAL_MISSING" in last["event"]
    assert service.calls[0].metadata["authorization"] == "Bearer secret"


async def test_a_replay_ends_with_its_history(token_file: Path) -> None:
    """In lockstep the process ends with 0 after the last step."""

    async def steps(requests: Any, _context: Context) -> AsyncIterator[JoinResponse]:
        await anext(requests)
        yield JoinResponse(seq=1, last=True)

    async with ScriptedService() as service:
        service.on("Join", steps)
        process = await started(service.address, token_file, "--lockstep")
        _, log = await process.communicate()
    assert process.returncode == 0
    assert json.loads(log.splitlines()[-1])["event"] == "stopped"


async def test_a_live_service_refuses_lockstep_with_a_clear_line(token_file: Path) -> None:
    """MODE_UNSUPPORTED ends it with 1."""

    async def live(_requests: Any, context: Context) -> AsyncIterator[JoinResponse]:
        for nothing in list[JoinResponse]():
            yield nothing
        await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "MODE_UNSUPPORTED")

    async with ScriptedService() as service:
        service.on("Join", live)
        process = await started(service.address, token_file, "--lockstep")
        _, log = await process.communicate()
    assert process.returncode == 1
    assert "MODE_UNSUPPORTED" in json.loads(log.splitlines()[-1])["event"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--address", "10.0.0.5:1"], "not on this machine"),
        (["--address", "nonsense"], "host:port"),
        (["--address", "127.0.0.1:1", "--rules", "absent.toml"], "absent.toml"),
        (["--address", "127.0.0.1:1", "--root-certificates", "absent.pem"], "absent.pem"),
        (["--address", "127.0.0.1:1", "--vix-file", "absent.csv"], "absent.csv"),
        (["--address", "127.0.0.1:1", "--direct", "MetaTrader5", "--lockstep"], "--direct"),
    ],
)
def test_a_wrong_call_is_said_in_one_line(
    options: list[str], named: str, token_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong arguments end with 2 and a line that names the fault."""
    assert main([*options, "--token-file", str(token_file)]) == 2
    (log,) = capsys.readouterr().err.splitlines()
    assert named in json.loads(log)["event"]
