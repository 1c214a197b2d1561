"""`dtms doctor` at a service: tokens, port, TLS, versions, data directory; each fault with its mend."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw
import pytest

from dtms.v1.admin_service_pb2 import (
    GATEWAY_STATE_ATTACHED,
    GATEWAY_STATE_PAUSING,
    SERVICE_STAGE_RECOVERING,
    SERVICE_STAGE_SERVING,
    GatewayStatus,
    GetSystemStatusResponse,
)
from dtms.v1.gateway_service_pb2 import TerminalState
from dtms_service import _core
from dtms_service.clock import SystemClock
from dtms_service.credentials import CREDENTIALS_FOLDER, Role, token_path
from dtms_service.doctor import (
    configuration,
    data_directory,
    examination,
    gateway_folder,
    port,
    service,
    terminal,
    tokens,
    versions,
)
from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import EXIT_CODES, Finding, Verdict, worst
from dtms_service.doctor.sights import Job, Sights
from dtms_service.journal.lock import DataDirectoryLock
from dtms_service.journal.sqlite import FORMAT, JOURNAL_NAME, SqliteJournal
from dtms_service.supervisor import folder_of
from tests.process.service_process import Process, Service, serving

OK, WARN, FAIL, SKIPPED = Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.SKIPPED
PAPER_ACCOUNT = "1000@paper"
UNLINKED = TerminalState(linked=False, terminal_trades=True, account_trades=True, experts_trade=True)


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A service with the play-money account, for all tests of this file: none of them may change it."""
    async with serving(tmp_path_factory.mktemp("doctor") / "data") as process:
        await process.until(lambda: any(line.get("stage") == "SERVING" for line in process.log))
        yield process


def by_check(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {found.check: found for found in findings}


async def examined(case: Case) -> dict[str, Finding]:
    """All groups; on a thread, for the calls block."""
    return by_check(iter(await asyncio.to_thread(lambda: list(examination.examine(case)))))


def wrong(found: dict[str, Finding]) -> list[str]:
    return [check for check, each in found.items() if each.verdict in {WARN, FAIL}]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def listener() -> Iterator[str]:
    """Another program at a port: it takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


# --- all of it -------------------------------------------------------------------------------------------------------


async def test_a_healthy_service_is_found_healthy_and_left_as_it_is(running: Service) -> None:
    """Exit code 0, every check of the service OK; its journal, its files and its log are as before."""
    files = sorted(path.name for path in running.data_dir.rglob("*"))
    async with running.client("viewer") as viewer:
        before = (await viewer.system_status()).revision
    process = await Process.start(
        *("doctor", "--json", "--data-dir", running.data_dir, "--service", running.address, "--role", "GATEWAY"),
        *("--token-file", running.token("gateway")),
    )
    assert await process.ended() == 0, process.said
    told = json.loads("\n".join(process.said))
    assert told["verdict"] == "OK"
    found = {each["check"]: each for each in told["findings"]}
    assert {check for check, each in found.items() if each["verdict"] == "SKIPPED"} == {
        "gateway.folder",
        *(check for check in found if check.startswith(("terminal.", "account."))),
        *("symbols", "clock.server"),
    }
    assert "gateway, GATEWAY" in found["service.role"]["found"]
    async with running.client("viewer") as viewer:
        assert (await viewer.system_status()).revision == before
    assert sorted(path.name for path in running.data_dir.rglob("*")) == files


async def test_people_get_lines_with_what_to_do(running: Service) -> None:
    """Without --json: the promise to change nothing, a line a check, what to do under it; exit code 2 for a fault."""
    process = await Process.start(
        *("doctor", "--service", running.address, "--token-file", running.token("viewer"), "--role", "MANAGER")
    )
    assert await process.ended() == EXIT_CODES[FAIL] == 2
    assert "changes nothing" in process.said[0]
    number = next(n for n, line in enumerate(process.said) if line.startswith("FAIL     service.role"))
    assert process.said[number + 1].lstrip().startswith("mend: take the token of an identity with the role MANAGER")
    assert process.said[-1].endswith("0 WARN, 1 FAIL")


async def test_warnings_alone_have_an_exit_code_of_their_own(tmp_path: Path) -> None:
    """1 for a data directory that is not there yet: a first start, or a wrong path."""
    process = await Process.start(
        *("doctor", "--data-dir", tmp_path / "none"), env={"DTMS_SERVER__PORT": str(free_port())}
    )
    assert await process.ended() == EXIT_CODES[WARN] == 1, process.said


def test_a_check_that_fails_itself_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that cannot even be imported, as with packages that do not fit together, is a finding like others."""
    monkeypatch.setattr(examination, "GROUPS", ("no_such_group", "tokens"))
    found = by_check(examination.examine(Case()))
    assert (found["no_such_group"].verdict, found["tokens.file"].verdict) == (FAIL, SKIPPED)
    assert worst(found.values()) is FAIL


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_of_nobody_is_told(running: Service, tmp_path: Path) -> None:
    """A token in good form that the service does not know: replaced, or of another service."""
    stranger = tmp_path / "old.token"
    stranger.write_text("x" * 43)
    stranger.chmod(0o600)
    found = await examined(Case(service=running.address, token_file=stranger))
    assert wrong(found) == ["service"]
    assert "credentials/NAME.token of this service's data directory" in found["service"].mend


@pytest.mark.parametrize(
    ("name", "role"), [("viewer", Role.GATEWAY), ("gateway", Role.MANAGER), ("feed", Role.OPERATOR)]
)
async def test_a_role_that_does_not_do_is_told(running: Service, name: str, role: Role) -> None:
    """Who the token is and what is wanted stand side by side."""
    found = await examined(Case(service=running.address, token_file=running.token(name), role=role))
    assert wrong(found) == ["service.role"]
    assert f"{role} is wanted" in found["service.role"].found


@pytest.mark.skipif(os.name == "nt", reason="modes say nothing on Windows")
def test_tokens_that_others_can_read_are_told_with_their_chmod(tmp_path: Path) -> None:
    """The file given, and any in the folder; the folder itself too."""
    folder = tmp_path / CREDENTIALS_FOLDER
    folder.mkdir(mode=0o700)
    for name in ("viewer", "gateway"):
        token_path(folder, name).write_text("y" * 43)
        token_path(folder, name).chmod(0o600)
    case = Case(data_dir=tmp_path, token_file=token_path(folder, "gateway"))
    assert {each.verdict for each in tokens.examine(case)} == {OK}
    token_path(folder, "gateway").chmod(0o644)
    found = list(tokens.examine(case))
    assert [(each.verdict, each.mend) for each in found] == [(FAIL, f"chmod 600 {case.token_file}")] * 2
    folder.chmod(0o755)
    assert next(tokens.examine(case)).mend == f"chmod 700 {folder}"


@pytest.mark.parametrize(
    ("text", "said"), [(None, "is not there"), ("short", "is not a token"), ("", "is not a token")], ids=str
)
def test_a_file_that_is_no_token_is_told(tmp_path: Path, text: str | None, said: str) -> None:
    """Missing, empty, or something else."""
    file = tmp_path / "a.token"
    if text is not None:
        file.write_text(text)
        file.chmod(0o600)
    found = by_check(tokens.examine(Case(token_file=file)))["tokens.file"]
    assert (found.verdict, said in found.found, bool(found.mend)) == (FAIL, True, True)


# --- port and TLS ----------------------------------------------------------------------------------------------------


async def test_a_port_where_nobody_listens(running: Service) -> None:
    """It is a fault for whoever named the service, and none for who asks whether one could start there."""
    nowhere = f"127.0.0.1:{free_port()}"
    found = await examined(Case(service=nowhere, token_file=running.token("viewer")))
    assert (found["port"].verdict, "dtms serve" in found["port"].mend) == (FAIL, True)
    assert found["service"].verdict is SKIPPED


def test_a_free_port_is_what_a_start_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that nobody holds and a free port: OK."""
    monkeypatch.setenv("DTMS_SERVER__PORT", str(free_port()))
    case = Case(data_dir=tmp_path)
    assert not wrong(by_check(configuration.examine(case)))
    assert "free" in by_check(port.examine(case))["port"].found


def test_a_busy_port_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody listens and nobody holds the data directory: the service could not start there."""
    with listener() as address:
        monkeypatch.setenv("DTMS_SERVER__PORT", address.rpartition(":")[2])
        case = Case(data_dir=tmp_path)
        list(configuration.examine(case))
        found = by_check(port.examine(case))["port"]
    assert (found.verdict, "--port" in found.mend) == (FAIL, True)


def test_a_held_directory_without_a_listener_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that hangs at its start, or one with another port: the process is named."""
    monkeypatch.setenv("DTMS_SERVER__PORT", str(free_port()))
    lock = DataDirectoryLock(tmp_path)
    case = Case(data_dir=tmp_path)
    list(configuration.examine(case))
    found = by_check(port.examine(case))["port"]
    lock.release()
    assert (found.verdict, f"process {os.getpid()}" in found.found) == (FAIL, True)


async def test_another_program_at_the_port_is_told(running: Service) -> None:
    """It takes the connection and does not speak: no DTMS."""
    with listener() as address:
        found = await examined(Case(service=address, token_file=running.token("viewer")))
    assert wrong(found) == ["service"]
    assert "another program listens there" in found["service"].mend


@pytest.mark.parametrize("address", ["here", "host:", ":50051", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_told(address: str) -> None:
    """host:port, or nothing."""
    found = by_check(port.examine(Case(service=address)))
    assert (found["port"].verdict, found["tls"].verdict) == (FAIL, SKIPPED)


def test_an_address_off_this_machine_needs_tls() -> None:
    """Without root certificates the token would travel in the clear: the client refuses, the doctor says so before."""
    found = by_check(port.examine(Case(service=f"0.0.0.0:{free_port()}")))["tls"]
    assert (found.verdict, "--root-certificates" in found.mend) == (FAIL, True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem for localhost and its key.pem."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2")
    for name in ("", "other-"):
        files = ("-keyout", str(folder / f"{name}key.pem"), "-out", str(folder / f"{name}cert.pem"))
        subprocess.run((*made, *names, *files), check=True, capture_output=True)
    return folder


async def test_tls_is_tried_as_a_client_would(certificate: Path, tmp_path: Path) -> None:
    """Roots that vouch: OK, and `dtms status` works; others, or a name that the certificate lacks: what was wrong."""
    env = {
        "DTMS_SERVER__TLS_CERTIFICATE": str(certificate / "cert.pem"),
        "DTMS_SERVER__TLS_KEY": str(certificate / "key.pem"),
    }
    async with serving(tmp_path / "data", env=env) as process:
        at = process.address.rpartition(":")[2]
        token = process.token("viewer")
        good = Case(service=f"localhost:{at}", token_file=token, root_certificates=certificate / "cert.pem")
        found = await examined(good)
        assert (wrong(found), "TLSv1.3" in found["tls"].found) == ([], True)
        stranger = Case(service=f"localhost:{at}", token_file=token, root_certificates=certificate / "other-cert.pem")
        assert {"tls", "service"} <= set(wrong(await examined(stranger)))
        misnamed = Case(service=f"127.0.0.1:{at}", token_file=token, root_certificates=certificate / "cert.pem")
        assert "tls" in wrong(await examined(misnamed))
        look = ("--address", f"localhost:{at}", "--data-dir", str(process.data_dir))
        status = await Process.start("status", *look, env={"DTMS_ROOT_CERTIFICATES": str(certificate / "cert.pem")})
        assert await status.ended() == 0, status.text()
        plain = Case(service=f"127.0.0.1:{at}", token_file=token)
        assert "it speaks TLS" in (await examined(plain))["service"].mend


def test_a_certificate_with_another_key_is_told(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the service refuses to start with it."""
    monkeypatch.setenv("DTMS_SERVER__TLS_CERTIFICATE", str(certificate / "cert.pem"))
    monkeypatch.setenv("DTMS_SERVER__TLS_KEY", str(certificate / "other-key.pem"))
    monkeypatch.setenv("DTMS_SERVER__PORT", str(free_port()))
    case = Case(data_dir=tmp_path)
    list(configuration.examine(case))
    found = by_check(port.examine(case))["tls"]
    assert (found.verdict, "server.tls_key" in found.mend) == (FAIL, True)


# --- versions and clocks ---------------------------------------------------------------------------------------------


def test_what_is_installed_here_goes_together() -> None:
    """Python, both distributions, protobuf, grpcio, extension and protocol."""
    assert {each.verdict for each in versions.examine(Case())} == {OK}


def test_distributions_of_two_versions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was upgraded alone."""
    monkeypatch.setattr(versions, "version", lambda name: "9.9" if name == "dtms-client" else version(name))
    found = by_check(versions.examine(Case()))["versions.packages"]
    assert (found.verdict, "9.9" in found.found, "make setup" in found.mend) == (FAIL, True, True)


def test_an_extension_of_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enumerations of the core that are not those of the protocol are named."""
    known = _core.enums()
    monkeypatch.setattr(_core, "enums", lambda: known | {"Side": {"SIDE_UNSPECIFIED": 0}})
    found = by_check(versions.examine(Case()))["versions.protocol"]
    assert (found.verdict, "Side" in found.found) == (FAIL, True)


def answered(**fields: Any) -> dict[str, Finding]:
    """What is made of a service's answer."""
    whole: dict[str, Any] = {
        "version": version("dtms-service"),
        "stage": SERVICE_STAGE_SERVING,
        "time_ns": SystemClock().now_ns(),
        "account_ids": [PAPER_ACCOUNT],
        "caller": "gateway",
        "caller_role": "GATEWAY",
    }
    case = Case(account=PAPER_ACCOUNT, token_file=Path("gateway.token"))
    return by_check(service.judge(case, GetSystemStatusResponse(**whole | fields)))


@pytest.mark.parametrize(
    ("fields", "check", "mend"),
    [
        ({"version": "0.0.9"}, "service.version", "bring both to one version"),
        ({"time_ns": 1_000}, "clock.service", "set this machine's clock"),
        ({"account_ids": ["7001@Paper"]}, "service.account", "correct --account"),
        (
            {"gateways": [GatewayStatus(account_id="7001@Paper", state=GATEWAY_STATE_PAUSING, last_error="it hung")]},
            "service.gateways",
            "at its terminal: dtms doctor",
        ),
        (
            {"gateways": [GatewayStatus(account_id="7001@Paper", state=GATEWAY_STATE_ATTACHED, terminal=UNLINKED)]},
            "service.gateways",
            "what to switch on",
        ),
        (
            {"stage": SERVICE_STAGE_RECOVERING, "recovery_detail": "waiting for a gateway"},
            "service",
            "start the gateways",
        ),
    ],
    ids=["version", "clock", "account", "gateway hangs", "terminal unlinked", "recovering"],
)
def test_what_a_service_answers_is_weighed(fields: dict[str, Any], check: str, mend: str) -> None:
    """Each warning alone, with what to do; an answer in order has none."""
    assert wrong(answered()) == []
    found = answered(**fields)
    assert wrong(found) == [check]
    assert (found[check].verdict, mend in found[check].mend) == (WARN, True)


# --- configuration and data directory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[server]\nprot = 1\n", "server.prot"),
        ('[server]\nhost = "0.0.0.0"\n', "tls_certificate"),
        ("[engine]\nwarn1 = -99\n", "engine.warn1"),
        ("this is no TOML", "is not TOML"),
    ],
    ids=["unknown key", "open address", "out of range", "no TOML"],
)
def test_a_wrong_configuration_is_told_by_its_key(tmp_path: Path, text: str, key: str) -> None:
    """As the service would refuse it at its start."""
    file = tmp_path / "dtms.toml"
    file.write_text(text)
    found = by_check(configuration.examine(Case(config_file=file, data_dir=tmp_path)))["configuration"]
    assert (found.verdict, key in found.found) == (FAIL, True)


GATEWAYS = """
[gateways."7001@Paper"]
broker = "mt5"
symbols = ["EURUSD"]
package = "tests.contract.paper_terminal"
terminal = 'C:\\MT5\\terminal64.exe'

[gateways."7002@Paper"]
broker = "mt5"
symbols = ["XAUUSD", "EURUSD"]
package = "tests.stuck_terminal"
server_utc_offset_s = 7200
"""


def test_terminals_of_configured_gateways_are_looked_at(tmp_path: Path) -> None:
    """Each with its section's options and folder; with --account the one that it names; findings name the account."""
    file = tmp_path / "dtms.toml"
    file.write_text(GATEWAYS)

    def looked(**given: Any) -> tuple[list[Job], list[Finding]]:
        case, jobs = Case(config_file=file, data_dir=tmp_path, **given), list[Job]()
        assert not wrong(by_check(configuration.examine(case)))

        def look(job: Job, _deadline_s: float) -> Sights:
            jobs.append(job)
            return Sights(hung_in="open")

        return jobs, [*gateway_folder.examine(case), *terminal.examine(case, look)]

    jobs, found = looked()
    assert [(job.package, job.terminal, job.symbols) for job in jobs] == [
        ("tests.contract.paper_terminal", "C:\\MT5\\terminal64.exe", ("EURUSD",)),
        ("tests.stuck_terminal", None, ("XAUUSD", "EURUSD")),
    ]
    hung = [each.about for each in found if each.check == "terminal.open" and each.verdict is FAIL]
    assert hung == ["7001@Paper", "7002@Paper"]
    folders = [each.looked_at for each in found if each.check == "gateway.folder"]
    assert folders == [str(folder_of(tmp_path, account_id)) for account_id in hung]
    jobs, found = looked(account="7002@Paper", symbols=("GBPUSD",))
    assert [(job.package, job.symbols) for job in jobs] == [("tests.stuck_terminal", ("GBPUSD",))]


def test_what_a_configured_gateway_names_and_is_not_there_is_told(tmp_path: Path) -> None:
    """As the service would refuse it at its start."""
    file = tmp_path / "dtms.toml"
    file.write_text('[gateways."7001@Paper"]\nbroker = "mt5"\nsymbols = ["EURUSD"]\npackage = "no_such_module"\n')
    found = by_check(configuration.examine(Case(config_file=file, data_dir=tmp_path)))["configuration"]
    assert (found.verdict, "gateways.7001@Paper.package" in found.found) == (FAIL, True)


def directory(path: Path, **given: Any) -> dict[str, Finding]:
    return by_check(data_directory.examine(Case(data_dir=path, **given)))


def test_a_data_directory_is_looked_at_without_opening_it(tmp_path: Path) -> None:
    """Whether it is there, who holds it, the journal's format: known while a service has it open."""
    assert directory(tmp_path / "none")["data_directory"].verdict is WARN
    journal, _ = SqliteJournal.open(tmp_path, wal_limit_bytes=1 << 20, progress=lambda *_: None)
    found = directory(tmp_path)
    assert not wrong(found)
    assert f"process {os.getpid()}" in found["data_directory.lock"].found
    journal.close()
    assert "nobody" in directory(tmp_path)["data_directory.lock"].found
    assert directory(tmp_path)["data_directory.journal"].found == f"format {FORMAT}"


def test_a_place_where_no_directory_can_be_is_told(tmp_path: Path) -> None:
    """A file of that name."""
    (tmp_path / "file").write_text("")
    found = directory(tmp_path / "file")
    assert (found["data_directory"].verdict, "chown" in found["data_directory"].mend) == (FAIL, True)
    assert directory(tmp_path / "file" / "data")["data_directory"].verdict is FAIL


def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its rights: nothing is written to find it out. (Asked of the system, for nothing is forbidden to root.)"""
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    assert directory(tmp_path)["data_directory"].verdict is FAIL
    assert directory(tmp_path / "none")["data_directory"].verdict is FAIL


@pytest.mark.parametrize(("free", "verdict"), [(1 << 20, FAIL), (1 << 29, WARN), (1 << 40, OK)], ids=str)
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict) -> None:
    """Before the service ends with it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 41, 0, free))
    assert directory(tmp_path)["data_directory.space"].verdict is verdict


def database(path: Path, **pragmas: int) -> None:
    connection = apsw.Connection(str(path))
    for name, value in pragmas.items():
        connection.pragma(name, value)
    connection.execute("CREATE TABLE one (two INTEGER)")
    connection.close()


def test_a_journal_of_another_program_version_or_mode_is_told(tmp_path: Path) -> None:
    """As the service would refuse it, without opening the file."""
    path = tmp_path / JOURNAL_NAME

    def found(**given: Any) -> Finding:
        case = Case(data_dir=tmp_path, **given)
        list(configuration.examine(case))
        return by_check(data_directory.examine(case))["data_directory.journal"]

    path.write_text("a letter")
    assert found().verdict is FAIL
    path.unlink()
    database(path, application_id=7)
    assert (found().verdict, "another program's" in found().found) == (FAIL, True)
    path.unlink()
    journal, _ = SqliteJournal.open(tmp_path, wal_limit_bytes=1 << 20, progress=lambda *_: None, shadow=True)
    journal.close()
    assert (found().verdict, "--shadow" in found().mend) == (FAIL, True)
    path.unlink()
    journal, _ = SqliteJournal.open(tmp_path, wal_limit_bytes=1 << 20, progress=lambda *_: None)
    journal.close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", FORMAT + 1)
    connection.close()
    assert (found().verdict, "newer" in found().mend) == (FAIL, True)
