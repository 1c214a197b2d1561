"""The supervisor: starts the gateways of this machine, watches them, and starts anew what hangs or has ended.

Each is a process of its own, in a group of its own, so that a terminal that hangs costs nobody else anything: it is
killed with all that it has started. None outlives the service (gateway/parent.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import structlog

from dtms.v1 import admin_service_pb2
from dtms_service.config import PREFIX, Config, GatewaySection
from dtms_service.credentials import CREDENTIALS_FOLDER, gateway_identity, token_path
from dtms_service.errors import ConfigInvalid, FieldViolation
from dtms_service.gateways import Gateways

FOLDER: Final = "gateways"
"""In the data directory: one folder for each, with the tokens it has seen and its server's time."""
PASSWORD: Final = "MT5_PASSWORD"  # noqa: S105  the variable's name; a command line would show the password to everybody

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0  # a terminal that was mended is served again within a minute
BEATS_S: Final = 5.0  # above a call's deadline: two signs of life, and a little
HEALTHY_S: Final = 60.0  # attached for so long, a gateway has earned a short pause again
END_S: Final = 5.0  # for a gateway that was told to end
RELAYED_BYTES: Final = 1 << 16  # of an unfinished line of a gateway's log, before it is passed on as it is

log = structlog.get_logger(__name__)


class Supervisor:
    """One keeper a gateway, from :meth:`start` to :meth:`stop`. ``address`` is where this service listens.

    ``pause`` waits so many seconds.
    """

    def __init__(
        self,
        config: Config,
        gateways: Gateways,
        address: str,
        environ: Mapping[str, str],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        secret = {section.password_variable for section in config.gateways.values()}
        inherited = {
            name: value
            for name, value in environ.items()
            if not name.startswith(PREFIX) and name not in secret | {PASSWORD}
        }
        self._keepers = {
            account_id: _Keeper(
                account_id,
                tuple(_command(account_id, section, config, address)),
                inherited | _password(section, environ),
                gateways,
                pause,
            )
            for account_id, section in config.gateways.items()
        }
        for account_id, section in config.gateways.items():
            gateway = gateways.of(account_id)
            gateway.supervised = True
            # A beat may wait behind a call that is in time.
            gateway.silent_s = section.deadline_s + BEATS_S
        gateways.on_stuck = self._stuck
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, on_failure: Callable[[BaseException], None]) -> None:
        for keeper in self._keepers.values():
            task = asyncio.create_task(keeper.run(), name=f"keeper of {keeper.account_id}")
            task.add_done_callback(lambda task: _report(task, on_failure))
            self._tasks.append(task)

    def cease(self) -> None:
        """What ends from here on stays ended; what still runs may finish its work."""
        for keeper in self._keepers.values():
            keeper.cease()

    async def stop(self) -> None:
        """Ends all gateways: asked first, then killed. None is left on return."""
        self.cease()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(keeper.end() for keeper in self._keepers.values()))

    def _stuck(self, account_id: str, why: str) -> None:
        keeper = self._keepers.get(account_id)
        if keeper is not None:
            keeper.stuck(why)


class _Keeper:
    """Of one gateway: ``command`` in ``environ``, again and again."""

    def __init__(
        self,
        account_id: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        gateways: Gateways,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self.account_id, self._command, self._environ = account_id, command, environ
        self._gateways, self._pause = gateways, pause
        self._ceasing = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._stuck: asyncio.Future[str] | None = None
        self._last_words = ""

    def cease(self) -> None:
        self._ceasing.set()

    async def run(self) -> None:
        pause_s, loop = FIRST_PAUSE_S, asyncio.get_running_loop()
        while not self._ceasing.is_set():
            started_s = loop.time()
            why = await self._one_life()
            if self._ceasing.is_set():
                return
            if loop.time() - started_s > HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            self._gateways.ended(self.account_id, why)
            log.error("gateway_starts_again", account=self.account_id, why=why, in_s=pause_s)
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._gateways.of(self.account_id).restarts += 1

    def stuck(self, why: str) -> None:
        if self._stuck is not None and not self._stuck.done():
            self._stuck.set_result(why)

    async def end(self) -> None:
        """Asked, given a little time, killed."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), END_S)
        await self._kill(process)

    async def _one_life(self) -> str:
        """From the start of a process to its end; why it ended. Cancelled, it leaves the process to ``end``."""
        gateway = self._gateways.of(self.account_id)
        self._stuck, self._last_words = asyncio.get_running_loop().create_future(), ""
        gateway.process = admin_service_pb2.GATEWAY_STATE_STARTING
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        log.info("gateway_started", account=self.account_id, pid=process.pid)
        relaying = asyncio.create_task(self._relay(process))
        ended = asyncio.create_task(process.wait())
        try:
            first: list[asyncio.Future[Any]] = [ended, self._stuck]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            is_stuck = self._stuck.done() and not ended.done()
            await self._kill(process)
            await asyncio.wait({relaying}, timeout=END_S)
        finally:
            for task in (relaying, ended):
                task.cancel()
        if is_stuck:
            return f"killed, for it hangs: {self._stuck.result()}"
        words = f": {self._last_words}" if self._last_words else ""
        return f"its process has ended with {process.returncode}{words}"

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        """The process, if it still runs, and whatever it has started."""
        if sys.platform == "win32":
            killer = await asyncio.create_subprocess_exec("taskkill", "/T", "/F", "/PID", str(process.pid))
            await killer.wait()
        else:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _relay(self, process: asyncio.subprocess.Process) -> None:
        """Its log becomes part of ours, line by line; the last words of trouble are kept."""
        assert process.stderr is not None
        rest = b""
        while chunk := await process.stderr.read(RELAYED_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > RELAYED_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._hear(line.decode("utf-8", "replace"))

    def _hear(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201  it is a line of a log already
        try:
            entry = json.loads(line)
        except ValueError:
            self._last_words = line.strip() or self._last_words
            return
        if isinstance(entry, dict) and entry.get("level") in ("warning", "error", "critical"):
            self._last_words = f"{entry.get('event')}: {entry.get('why', '')}".rstrip(": ")
            self._gateways.said(self.account_id, self._last_words)


def _command(account_id: str, section: GatewaySection, config: Config, address: str) -> Iterator[str]:
    """What anybody may see in a list of processes: no token, no password."""
    identity = gateway_identity(account_id)
    yield from (sys.executable, "-m", "dtms_service", "gateway", "--supervised", "--broker", section.broker)
    yield from ("--service", section.service or address, "--account", account_id)
    yield from ("--token-file", str(token_path(config.data_dir / CREDENTIALS_FOLDER, identity)))
    yield from ("--out", str(folder_of(config.data_dir, account_id)), "--mt5-module", section.package)
    for symbol in section.symbols:
        yield from ("--symbol", symbol)
    options = {
        "--terminal": section.terminal,
        "--password-file": section.password_file,
        "--server-utc-offset-s": section.server_utc_offset_s,
        "--root-certificates": section.root_certificates or config.server.tls_certificate,
    }
    for name, value in options.items():
        if value is not None:
            yield f"{name}={value}"


def _password(section: GatewaySection, environ: Mapping[str, str]) -> dict[str, str]:
    return {PASSWORD: environ[section.password_variable]} if section.password_variable is not None else {}


def folder_of(data_dir: Path, account_id: str) -> Path:
    """Where a supervised gateway keeps what it must not forget."""
    return data_dir / FOLDER / gateway_identity(account_id).removeprefix("gateway_")


def check_gateways(config: Config, environ: Mapping[str, str]) -> None:
    """Raises ConfigInvalid for what the configuration of a gateway names and is not there."""
    problems = [problem for pair in config.gateways.items() for problem in _problems(*pair, environ)]
    if problems:
        raise ConfigInvalid("configuration", problems)


def _problems(account_id: str, section: GatewaySection, environ: Mapping[str, str]) -> Iterator[FieldViolation]:
    key = f"gateways.{account_id}"
    if section.password_file is not None and not section.password_file.is_file():
        yield FieldViolation(f"{key}.password_file", f"{section.password_file} is no file")
    if section.password_variable is not None and not environ.get(section.password_variable):
        yield FieldViolation(f"{key}.password_variable", f"{section.password_variable} is not set")
    if section.root_certificates is not None and not section.root_certificates.is_file():
        yield FieldViolation(f"{key}.root_certificates", f"{section.root_certificates} is no file")
    module = section.package.partition(":")[0]
    try:
        is_there = find_spec(module) is not None
    except (ImportError, ValueError):
        is_there = False
    if not is_there:
        yield FieldViolation(f"{key}.package", f"there is no module {module} (MetaTrader5 exists for Windows only)")


def _report(task: asyncio.Task[None], on_failure: Callable[[BaseException], None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        on_failure(error)
