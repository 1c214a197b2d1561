"""The service as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
from pathlib import Path

import pytest

from dtms.v1.action_pb2 import ACTION_KIND_STOP, Action
from dtms.v1.market_data_service_pb2 import StreamTicksRequest, Tick, WatchQuotesRequest
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_service.cli import app
from dtms_service.journal import SqliteJournal, no_progress, verify_journal
from tests import wire
from tests.grpc.test_registry import registration
from tests.grpc.watching import all_until, refusal, response
from tests.process.service_process import Process, Service, serving

MISTAKE = 2  # exit code for what the user can mend


async def registered(service: Service, *tickets: int) -> int:
    """Registers trades; the revision after the last."""
    async with service.client("feed") as feed:
        return max([(await feed.register_trade(registration(ticket))).trade.revision for ticket in tickets])


async def mistake(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """The one line that a start ends with which the user can mend."""
    process = await Process.start(*arguments, env=env)
    try:
        assert await process.ended() == MISTAKE, process.text()
    finally:
        await process.kill()
    assert not any("Traceback" in str(line) for line in process.log), process.text()
    assert process.said == []
    line = str(process.log[-1].get("raw"))
    assert line.startswith("dtms: ")
    return line


async def test_a_service_says_where_it_serves_and_ends_in_good_order(tmp_path: Path) -> None:
    """One line on stdout once clients may call, JSON on stderr, exit code 0 on SIGTERM, a journal that verifies."""
    async with serving(tmp_path) as service:
        revision = await registered(service, 1, 2, 3)
        assert await service.terminate() == 0
        assert all("event" in line and "level" in line for line in service.log), service.text()
        assert service.said == [f"serving at {service.address}"]
    report = verify_journal(tmp_path, no_progress)
    assert report.newest_revision >= revision


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_with_clients_on_every_kind_of_stream(tmp_path: Path, number: signal.Signals) -> None:
    """Watchers learn where to resume, the rest is told to go: it ends far within drain_ms."""
    async with serving(tmp_path) as service, service.client("viewer") as viewer, service.client("feed") as feed:
        revision = await registered(service, 1)
        watch = wire.stream(viewer.channel, WatchRequest(start_revision=1), metadata=viewer.metadata)
        await all_until(watch, revision)
        quotes = wire.stream(viewer.channel, WatchQuotesRequest(), metadata=viewer.metadata)
        tick = StreamTicksRequest(symbol="EURUSD", ticks=[Tick(time_msc=1_700_000_000_000, bid=1.1, ask=1.1001)])
        await wire.exchange(feed.channel, [tick], metadata=feed.metadata)
        await response(quotes)
        service.process.send_signal(number)
        async with asyncio.timeout(8):  # less than server.drain_ms, which is 10 s
            told = await asyncio.gather(refusal(watch), refusal(quotes))
            assert await service.ended() == 0
        assert [error.reason for error in told] == ["DRAINING", "DRAINING"]
        assert int(told[0].metadata["resume_revision"]) > revision


async def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    """I20: stopped or killed, the next start has every registration and continues the same revisions."""
    async with serving(tmp_path) as service:
        await registered(service, 1)
        await service.terminate()
    async with serving(tmp_path) as service:
        revision = await registered(service, 2)
        await service.kill()
    async with serving(tmp_path) as service, service.client("viewer") as viewer:
        assert [trade.ticket async for trade in viewer.list_trades()] == [1, 2]
        assert (await viewer.system_status()).revision >= revision


async def test_a_second_service_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """Two writers would fork one history: the second names the first and changes nothing."""
    async with serving(tmp_path) as service:
        line = await mistake("serve", "--paper", "--data-dir", tmp_path, "--port", "0")
        assert str(tmp_path) in line
        assert f"in use by process {service.pid}" in line
        await registered(service, 1)


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The address is in the message; the data directory is free again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = await mistake("serve", "--paper", "--data-dir", tmp_path, "--port", str(port))
    assert f"127.0.0.1:{port}" in line
    assert "cannot listen" in line
    async with serving(tmp_path, port=port) as service:
        assert service.address == f"127.0.0.1:{port}"


async def test_wrong_configurations_are_named_by_key(tmp_path: Path) -> None:
    """Nothing starts on a key or variable that nobody knows, or on values that do not go together; what else may be
    wrong is in tests/unit/test_config.py."""
    texts = {
        "[engine]\nwarn_1 = -2.0\n": "engine.warn_1: is no key",
        '[server]\nhost = "0.0.0.0"\n': "tls_certificate",
    }
    variables = {("DTMS_NONSENSE", "1"): "DTMS_NONSENSE: is no key"}

    async def with_file(index: int, text: str) -> str:
        file = tmp_path / f"{index}.toml"
        file.write_text(text)
        line = await mistake("serve", "--paper", "--config", file, "--data-dir", tmp_path / "data")
        assert str(file) in line
        return line

    said = await asyncio.gather(
        *(with_file(index, text) for index, text in enumerate(texts)),
        *(mistake("serve", "--paper", "--data-dir", tmp_path / "data", env=dict([v])) for v in variables),
    )
    for line, named in zip(said, [*texts.values(), *variables.values()], strict=True):
        assert named in line
    assert not (tmp_path / "data").exists()


async def test_a_data_directory_is_required(tmp_path: Path) -> None:
    """A journal in an unexpected place is a lost journal: there is no default."""
    file = tmp_path / "file"
    file.touch()
    nowhere, in_a_file = await asyncio.gather(
        mistake("serve", "--paper"), mistake("serve", "--paper", "--data-dir", file)
    )
    assert "data_dir" in nowhere
    assert str(file) in in_a_file


async def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message names the file and how to mend it."""
    async with serving(tmp_path) as service:
        await service.terminate()
    token = tmp_path / "credentials" / "operator.token"
    token.chmod(0o644)
    line = await mistake("serve", "--paper", "--data-dir", tmp_path, "--port", "0")
    assert f"chmod 600 {token}" in line


# -- the journal -------------------------------------------------------------------------------------------------------


async def left_by_a_service(data_dir: Path) -> Path:
    """The journal of a service that ended in good order, folded into one file."""
    async with serving(data_dir) as service:
        await registered(service, *range(1, 21))
        assert await service.terminate() == 0
    path = data_dir / "journal.db"
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM snapshot")
    connection.commit()
    connection.execute("VACUUM")  # no second copy of an event on a free page
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


def flip(path: Path, body: bytes) -> None:
    """One bit in the middle of an event's bytes."""
    stored = bytearray(path.read_bytes())
    stored[stored.index(body) + len(body) // 2] ^= 1
    path.write_bytes(stored)


def body_at(path: Path, revision: int) -> bytes:
    connection = sqlite3.connect(path)
    (body,) = connection.execute("SELECT body FROM event WHERE revision = ?", (revision,)).fetchone()
    connection.close()
    assert isinstance(body, bytes)
    return body


async def test_a_damaged_journal_stops_the_start_and_is_left_as_it_is(tmp_path: Path) -> None:
    """Damage before the tail: the revision is named, nothing is deleted, no client is served."""
    path = await left_by_a_service(tmp_path)
    flip(path, body_at(path, 22))
    damaged = path.read_bytes()
    line = await mistake("serve", "--paper", "--data-dir", tmp_path, "--port", "0")
    assert f"{path}: damaged at revision 22" in line
    assert path.read_bytes() == damaged


async def test_a_torn_tail_is_recovered_and_said(tmp_path: Path) -> None:
    """The last event half written: the service starts with everything before it, and its log says what was torn."""
    path = await left_by_a_service(tmp_path)
    with_tail, _report = SqliteJournal.open(tmp_path, wal_limit_bytes=1 << 20, progress=no_progress)
    newest = with_tail.newest_revision
    with_tail.close()
    flip(path, body_at(path, newest))
    async with serving(tmp_path) as service, service.client("viewer") as viewer:
        said = await service.logged("journal_recovered")
        assert said["torn_revisions"] == [newest]
        assert [trade.ticket async for trade in viewer.list_trades()] == list(range(1, 21))
        watch = wire.stream(viewer.channel, WatchRequest(start_revision=1), metadata=viewer.metadata)
        events = await all_until(watch, (await viewer.system_status()).revision)
        assert [event.revision for event in events] == list(range(1, len(events) + 1))


async def test_a_journal_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    """A file that is no DTMS journal is refused as what it is."""
    path = tmp_path / "journal.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    line = await mistake("serve", "--paper", "--data-dir", tmp_path, "--port", "0")
    assert "not a DTMS journal" in line
    assert path.read_bytes() == before


# -- the commands of an operator ---------------------------------------------------------------------------------------


async def test_status_watch_and_explain_work_against_a_running_service(tmp_path: Path) -> None:
    """The three commands find the token in the data directory and show what happened."""
    async with serving(tmp_path) as service:
        revision = await registered(service, 7)
        where = ("--address", service.address, "--data-dir", tmp_path)
        status = await Process.start("status", *where)
        assert await status.ended() == 0
        assert any("HEALTHY" in line for line in status.said)
        explain = await Process.start("explain", "--revision", str(revision), *where)
        assert await explain.ended() == 0
        assert any("EURUSD 7" in line for line in explain.said)
        async with service.client("intelligent_exit_manager") as manager:
            trade = await manager.get_trade(7)
            stop = Action(kind=ACTION_KIND_STOP, stop=0.5)
            denied = await manager.propose(request_id="loosens", ticket=7, owner_epoch=trade.owner_epoch, action=stop)
        why = await Process.start("explain", "--decision", str(denied.decision.decision_id), *where)
        assert await why.ended() == 0
        assert f"loser: intelligent_exit_manager, decision {denied.decision.decision_id}: denied" in "\n".join(why.said)
        watch = await Process.start("watch", "--from-revision", "1", "--plain", *where)
        await watch.until(lambda: any("EURUSD 7" in line and "registered" in line for line in watch.said))
        watch.process.send_signal(signal.SIGINT)
        assert await watch.ended() == 130


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "replay",
        "demo",
        "gateway",
        "status",
        "watch",
        "explain",
        "trading-state",
        "kill",
        "release",
        "doctor",
        "exit-manager",
    ],
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help ends with 0 and says what the command does."""
    with pytest.raises(SystemExit) as ended:
        app([command, "--help"])
    assert ended.value.code == 0
    assert "Usage" in capsys.readouterr().out.replace("usage", "Usage")


async def test_a_service_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """A client command against nobody is told so without a traceback."""
    token = tmp_path / "t.token"
    token.write_text("x" * 43)
    process = await Process.start("status", "--address", "127.0.0.1:1", "--token-file", token)
    assert await process.ended() == MISTAKE
    assert str(process.log[-1].get("raw")).startswith("dtms: ")
