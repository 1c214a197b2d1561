"""The real MetaTrader5 package's Python layer over a fake C extension that is the paper broker, and doors over both."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from dtms_service.broker.door import BrokerDoor
from dtms_service.broker.fence import Fence
from dtms_service.broker.mt5_api import PaperMt5
from dtms_service.broker.mt5_door import Mt5Door
from dtms_service.broker.mt5_package import Mt5Package
from dtms_service.broker.mt5_session import Login
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.broker.retcodes import LAST_ERROR_TEXTS, LastError
from dtms_service.broker.server_time import ServerTime
from tests.unit.paper_world import World

REQUIREMENT = "MetaTrader5==5.0.6231"
WHEEL = "metatrader5-5.0.6231-cp311-cp311-win_amd64.whl"
DOWNLOAD_TIMEOUT_S = 40  # below the test timeout, so that a slow registry skips instead of hanging

ACCOUNT = "7001@Paper"
DEADLINE_S = 5.0


def _pip_commands(folder: Path) -> Iterator[list[str]]:
    """pip of whichever interpreter has one: ours (a venv made by uv has none), then the base it was made from."""
    for python in dict.fromkeys((sys.executable, str(Path(sys.base_prefix) / "bin" / "python3"))):
        yield [
            *(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)),
            *("--platform", "win_amd64", "--python-version", "311", "--only-binary=:all:", REQUIREMENT),
        ]


def fetch_wheel(folder: Path) -> Path:
    """The real wheel, downloaded once into the folder; skips the test where there is no way to it."""
    path = folder / WHEEL
    reasons: list[str] = []
    draft = folder / f"draft-{os.getpid()}"  # other test processes may fetch it at the same time
    for command in _pip_commands(draft):
        if path.exists():
            break
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(str(error))
            continue
        reasons.append(done.stderr.strip().rpartition("\n")[2])
        if (draft / WHEEL).exists():
            (draft / WHEEL).replace(path)
    if not path.exists():
        pytest.skip(f"cannot download {REQUIREMENT}: {'; '.join(reasons)}")
    return path


def load_package(
    wheel: Path, functions: dict[str, Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> types.ModuleType:
    """The package's own Python code with these functions in place of its C extension."""
    core = types.ModuleType("MetaTrader5._core")
    core.__dict__.update(functions)
    for name in [n for n in sys.modules if n.partition(".")[0] == "MetaTrader5"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "MetaTrader5._core", core)
    monkeypatch.syspath_prepend(str(wheel))
    package = importlib.import_module("MetaTrader5")
    monkeypatch.setitem(sys.modules, "MetaTrader5", package)
    assert package.__version__ == "5.0.6231"
    return package


@dataclass
class Pipe:
    """The calls that go to the extension, counted, and the one during which the pipe dies.

    ``die`` is (number of the call from now, before or after its effect). A dead pipe answers -10004 until initialised.
    """

    world: World
    functions: dict[str, Callable[..., Any]]
    calls: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    die: tuple[int, bool] | None = None
    died_in: str | None = None
    holds: dict[str, threading.Event] = field(default_factory=dict)
    reached: threading.Event = field(default_factory=threading.Event)
    fail: dict[str, LastError] = field(default_factory=dict)  # calls that answer None, and why
    raises: dict[str, Exception] = field(default_factory=dict)  # calls that raise, as a bridge over the network does
    overlay: dict[str, Callable[[Any], Any]] = field(default_factory=dict)  # what is made of an answer
    _error: tuple[int, str] | None = None

    def exports(self) -> dict[str, Callable[..., Any]]:
        return {name: self._wrapped(name) for name in self.functions}

    def hold(self, name: str) -> threading.Event:
        """Calls of this name wait for the event."""
        return self.holds.setdefault(name, threading.Event())

    def die_in(self, call: int, *, after: bool) -> None:
        self.die, self.died_in = (len(self.calls) + call, after), None

    def _wrapped(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.threads.add(threading.get_ident())
            if name == "last_error":
                return self._error or self.functions[name]()
            self._error = None
            number = len(self.calls)
            self.calls.append(name)
            if name in self.holds:
                self.reached.set()
                self.holds[name].wait(30)
            if name in self.raises:
                raise self.raises[name]
            if name in self.fail:
                self._error = (int(self.fail[name]), LAST_ERROR_TEXTS[self.fail[name]])
                return None
            dies = self.die is not None and number == self.die[0]
            if dies and self.die is not None and not self.die[1]:
                return self._broken(name, LastError.INTERNAL_FAIL_SEND)
            answer = self.functions[name](*args, **options)
            if dies:
                return self._broken(name, LastError.INTERNAL_FAIL_RECEIVE)
            return self.overlay[name](answer) if name in self.overlay else answer

        return call

    def _broken(self, name: str, code: LastError) -> Any:
        """As the extension does: None (False for initialize), the handle closed, the cause in last_error."""
        self.died_in, self.die = name, None
        self.world.broker.faults.pipe_broken = True
        self._error = (int(code), LAST_ERROR_TEXTS[code])
        return False if name == "initialize" else None


@dataclass
class Rig:
    """A paper world and a door to it. ``pipe`` is None for the paper broker's own door."""

    world: World
    door: BrokerDoor
    pipe: Pipe | None = None

    @property
    def mt5(self) -> Mt5Door:
        assert isinstance(self.door, Mt5Door)
        return self.door

    @property
    def wire(self) -> Pipe:
        assert self.pipe is not None
        return self.pipe


def paper_rig(world: World) -> Rig:
    return Rig(world, PaperDoor({ACCOUNT: world.broker}))


def terminal_rig(
    world: World,
    wheel: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    time: ServerTime | None = None,
    fence: Fence | None = None,
    login: Login | None = None,
    deadline_s: float = DEADLINE_S,
) -> Rig:
    """The adapter over the real package's Python layer. Close its door."""
    pipe = Pipe(world, PaperMt5(world.broker).exports())
    package = load_package(wheel, pipe.exports(), monkeypatch)
    door = Mt5Door(
        lambda: cast("Mt5Package", package),
        login or Login(ACCOUNT),
        time=time or ServerTime(None, [(0, world.config.server_utc_offset_s)]),
        fence=fence or Fence(None),
        now_msc=lambda: world.now,
        deadline_s=deadline_s,
    )
    return Rig(world, door, pipe)
