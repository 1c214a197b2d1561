"""Servers and load as processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benches import sampling
from benches.load import READY
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.service import SERVING

STOP_S: Final = 30  # drain and snapshot included; longer is a defect worth an exception
READY_S: Final = 60


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    pid: int
    address: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """One run of load: wall time at the client, CPU time of the server."""

    wall_s: float
    cpu_s: float


@contextmanager
def server(module: str, *arguments: str, log: Path) -> Iterator[Served]:
    """``python -m module arguments``; until it says where it serves. RuntimeError with its log if it never does."""
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, stderr=stderr)
        assert process.stdout is not None
        try:
            line = process.stdout.readline().decode()
            if not line.startswith(SERVING):
                raise RuntimeError(f"{module} did not start: {log.read_text()}")
            yield Served(process.pid, line.removeprefix(SERVING).strip())
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            finally:
                process.kill()
                process.stdout.close()


@contextmanager
def service(folder: Path, settings: Sequence[str] = ()) -> Iterator[Served]:
    """`dtms serve --paper` with its data below ``folder``; ``settings`` are lines of TOML."""
    config = folder / "dtms.toml"
    config.write_text("\n".join(settings))
    arguments = ["--config", str(config), "--data-dir", str(folder / "data"), "--paper", "--port", "0"]
    with server("dtms_service", "serve", *arguments, "--log-level", "warning", log=folder / "service.log") as served:
        yield served


def token(folder: Path, name: str) -> Path:
    """Where the service that runs in ``folder`` keeps a token."""
    return token_path(folder / "data" / CREDENTIALS_FOLDER, name)


def load(kind: str, served: Served, method: str, request: bytes, *arguments: str) -> Loaded:
    """Runs a load client against ``served``. RuntimeError with what it printed if it fails."""
    command = [sys.executable, "-m", "benches.load", kind, served.address, method, request.hex(), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline().strip() != READY:
            raise RuntimeError(f"the load client failed with code {process.wait(READY_S)}")
        before = sampling.cpu_s(served.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        line = process.stdout.readline()
        used = sampling.cpu_s(served.pid) - before
        if not line:
            raise RuntimeError(f"the load client failed with code {process.wait(READY_S)}")
        return Loaded(float(line), used)
