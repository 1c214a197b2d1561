"""`dtms doctor` at a terminal: each fault planted behind the real package's layer is named, with its mend; no order."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from dtms_service.broker.mt5_api import PaperMt5
from dtms_service.broker.mt5_enums import MarginMode, TradeMode
from dtms_service.broker.mt5_package import FUNCTIONS, Mt5Package, loader
from dtms_service.broker.retcodes import LastError
from dtms_service.broker.server_time import ServerTime
from dtms_service.doctor import gateway_folder, terminal
from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, Verdict, worst
from dtms_service.doctor.sights import Job, Sights, read
from dtms_service.doctor.symbol_names import close_names
from dtms_service.doctor.terminal_look import look
from dtms_service.doctor.terminal_process import sights_of
from dtms_service.gateway.live import TIME_FILE
from dtms_service.journal.lock import DataDirectoryLock
from tests.contract.mt5_rig import ACCOUNT, Pipe, load_package
from tests.process.service_process import Process
from tests.unit.paper_world import World

READS = {
    *("initialize", "shutdown", "terminal_info", "account_info"),
    *("symbol_info", "symbols_get", "symbol_info_tick"),
}
SERVER_OFFSET_S = 7200
FOLDER = "C:\\MT5 of Broker A"


@dataclass
class Patient:
    """A terminal and what the doctor is told of it; ``clock_off_ms`` is by how much this machine's clock is ahead."""

    world: World
    pipe: Pipe
    package: Mt5Package
    case: Case = field(default_factory=lambda: Case(account=ACCOUNT, symbols=("EURUSD",)))
    clock_off_ms: int = 0
    market_moves: bool = True

    def examined(self) -> dict[str, Finding]:
        """The findings by check. Whatever the terminal does, nothing but reads has reached it."""
        lines: list[str] = []
        job = Job("MetaTrader5", self.case.terminal, self.case.symbols, 1000, 1.0)
        look(job, lambda _name: lambda: self.package, lines.append, self._now_msc, self._pause)
        assert set(self.pipe.calls) <= READS
        return {found.check: found for found in terminal.judge(self.case, read(lines))}

    def shows(self, call: str, **fields: object) -> None:
        """The call answers with these fields changed."""
        self.pipe.overlay[call] = lambda shown: type(shown).of(**(shown._asdict() | fields))

    def _now_msc(self) -> int:
        return self.world.now + self.clock_off_ms

    def _pause(self, _: float) -> None:
        if self.market_moves:
            self.world.tick(1.1, 1.1001, after_ms=50)


Plant = Callable[[Patient], None]


@pytest.fixture
def patient(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    """A healthy one, with a position that nobody may touch."""
    world = World(config={"server_utc_offset_s": SERVER_OFFSET_S})
    world.buy(sl=1.09)
    pipe = Pipe(world, PaperMt5(world.broker).exports())
    return Patient(world, pipe, cast("Mt5Package", load_package(wheel, pipe.exports(), monkeypatch)))


def set_case(**given: Any) -> Plant:
    def plant(patient: Patient) -> None:
        for name, value in given.items():
            setattr(patient.case, name, value)

    return plant


def switch(name: str, value: bool) -> Plant:
    return lambda patient: setattr(patient.world.broker.faults, name, value)


def failing(call: str, code: LastError) -> Plant:
    return lambda patient: patient.pipe.fail.update({call: code})


def showing(call: str, **fields: object) -> Plant:
    return lambda patient: patient.shows(call, **fields)


def raising(call: str, error: Exception) -> Plant:
    return lambda patient: patient.pipe.raises.update({call: error})


def off_by(ms: int) -> Plant:
    return lambda patient: setattr(patient, "clock_off_ms", ms)


def traded(mode: TradeMode) -> Plant:
    return lambda patient: patient.world.change(trading={"trade_mode": mode})


def test_a_healthy_terminal_is_found_healthy(patient: Patient) -> None:
    """Every check that there is was made, and all are OK."""
    found = patient.examined()
    assert set(found) - {"symbol.EURUSD"} == set(terminal.LOOKED_AT) - {"symbols"}
    assert {each.verdict for each in found.values()} == {Verdict.OK}
    assert "+2 h" in found["clock.server"].found


FAIL, WARN = Verdict.FAIL, Verdict.WARN
FAULTS: list[tuple[str, Plant, str, Verdict, str]] = [
    ("no terminal", switch("terminal_runs", value=False), "terminal.open", FAIL, "terminal64.exe as --terminal"),
    ("IPC -10003", failing("initialize", LastError.INTERNAL_FAIL_INIT), "terminal.open", FAIL, "install the terminal"),
    ("IPC -10005", failing("initialize", LastError.INTERNAL_FAIL_TIMEOUT), "terminal.open", FAIL, "dialogs"),
    ("old terminal", failing("initialize", LastError.INVALID_VERSION), "terminal.open", FAIL, "update the terminal"),
    (
        "not logged in: -6",
        failing("initialize", LastError.AUTH_FAILED),
        "account.login",
        FAIL,
        "Login to Trade Account",
    ),
    ("not logged in: None", failing("account_info", LastError.AUTH_FAILED), "account.login", FAIL, "Login to Trade"),
    ("not logged in: 0", showing("account_info", login=0), "account.login", FAIL, "Login to Trade Account"),
    ("wrong account", set_case(account="7002@Paper"), "account.login", FAIL, "log in to the account that is meant"),
    ("wrong server", set_case(account="7001@Paper-2"), "account.login", FAIL, "server's name counts too"),
    ("another terminal", set_case(terminal=f"{FOLDER}\\terminal64.exe"), "terminal.path", FAIL, "close the other"),
    ("no link", lambda patient: patient.world.broker.faults.disconnect(), "terminal.link", FAIL, "lower right corner"),
    ("button off", switch("trade_allowed", value=False), "terminal.autotrading", FAIL, "AutoTrading"),
    ("API disabled", switch("tradeapi_disabled", value=True), "terminal.api", FAIL, "external Python API"),
    ("investor", showing("account_info", trade_allowed=False), "account.rights", FAIL, "master password"),
    ("no programs", switch("server_allows", value=False), "account.experts", FAIL, "ask the broker"),
    (
        "netting",
        showing("account_info", margin_mode=int(MarginMode.RETAIL_NETTING)),
        "account.hedging",
        WARN,
        "hedging",
    ),
    ("fifo", showing("account_info", fifo_close=True), "account.hedging", WARN, "engine.max_hedges"),
    ("suffix", set_case(symbols=("EURUSD.x",)), "symbol.EURUSD.x", FAIL, "close to it are: EURUSD"),
    ("no such symbol", set_case(symbols=("WHEAT",)), "symbol.WHEAT", FAIL, "Market Watch"),
    ("closing only", traded(TradeMode.CLOSEONLY), "symbol.EURUSD", WARN, "ask the broker"),
    ("clock 10 s", off_by(10_000), "clock.server", WARN, "set this machine's clock"),
    ("clock 5 min", off_by(-300_000), "clock.server", FAIL, "set this machine's clock"),
    ("clock a day", off_by(86_400_000), "clock.server", FAIL, "date and zone"),
    ("wrong offset", set_case(offset_s=10_800), "clock.server", FAIL, "--server-utc-offset-s 7200"),
    ("silent market", lambda patient: setattr(patient, "market_moves", False), "clock.server", WARN, "--server-utc"),
    ("bridge cut", raising("account_info", ConnectionResetError("gone")), "account.login", FAIL, "journal"),
]


@pytest.mark.parametrize(("plant", "check", "verdict", "mend"), [row[1:] for row in FAULTS], ids=[r[0] for r in FAULTS])
def test_a_planted_fault_is_named_with_its_mend(
    patient: Patient, plant: Plant, check: str, verdict: Verdict, mend: str
) -> None:
    """Only the check of this fault finds something wrong; others are OK, or say that they were not reached."""
    plant(patient)
    found = patient.examined()
    assert [name for name, each in found.items() if each.verdict in {WARN, FAIL}] == [check]
    assert found[check].verdict is verdict
    assert mend in found[check].mend


def test_a_silent_market_is_no_fault_where_the_offset_is_known(patient: Patient, tmp_path: Path) -> None:
    """What the gateway has stored, or will be given, is enough."""
    patient.market_moves = False
    patient.case.offset_s = SERVER_OFFSET_S
    assert patient.examined()["clock.server"].verdict is Verdict.OK
    patient.case.offset_s, patient.case.out = None, tmp_path
    assert patient.examined()["clock.server"].verdict is WARN
    ServerTime(tmp_path / TIME_FILE).set(SERVER_OFFSET_S, 0)
    assert patient.examined()["clock.server"].verdict is Verdict.OK


def test_a_stored_offset_that_the_ticks_contradict_is_told(patient: Patient, tmp_path: Path) -> None:
    """Once a year in spring and autumn that is right, at other times the clock is wrong: a warning with both."""
    ServerTime(tmp_path / TIME_FILE).set(SERVER_OFFSET_S - 3600, 0)
    patient.case.out = tmp_path
    found = patient.examined()["clock.server"]
    assert (found.verdict, "3600 s are stored" in found.found) == (WARN, True)


def test_a_symbol_outside_of_the_market_watch_stays_there(patient: Patient) -> None:
    """The gateway will select it; the doctor says so and does not (symbol_select is no read)."""
    patient.shows("symbol_info", select=False)
    found = patient.examined()["symbol.EURUSD"]
    assert (found.verdict, "not in the Market Watch" in found.found) == (Verdict.OK, True)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_terminal_that_dies_at_any_call_is_told(patient: Patient, *, after: bool) -> None:
    """Whichever call is the last: all checks are accounted for, the failed one says to start the terminal again."""
    patient.examined()
    calls = len(patient.pipe.calls) - 1  # the last one closes the pipe
    for number in range(calls):
        patient.world.broker.faults.pipe_broken = False
        patient.pipe.die_in(number, after=after)
        found = patient.examined()
        wrong = [each for each in found.values() if each.verdict is FAIL]
        if patient.pipe.died_in == "symbol_info_tick":
            assert not wrong  # a price that fails is as good as none: the clock is not judged by it
            continue
        assert len(wrong) == 1, (number, patient.pipe.died_in, found)
        assert "terminal" in wrong[0].mend


def test_names_of_a_broker_that_may_be_meant() -> None:
    """Prefix, suffix and case first, shortest first; then what is spelt alike; nothing for what is like nothing."""
    names = ["EURUSD.raw", "EURUSDm", "mEURUSD", "GBPUSD", "XAUUSD", "GOLD", "eurusd+"]
    assert close_names("EURUSD", names) == ["EURUSDm", "eurusd+", "mEURUSD", "EURUSD.raw"]
    assert close_names("EURUSD.pro", ["EURUSD", "USDJPY"]) == ["EURUSD"]
    assert close_names("GBPUDS", names) == ["GBPUSD"]
    assert close_names("WHEAT", names) == []


def test_a_gateways_folder_is_looked_at(tmp_path: Path) -> None:
    """In use is no fault and names the process; a file that cannot be read is one, and its mend."""
    folder = tmp_path / "gateway"
    case = Case(out=folder)

    def found() -> Finding:
        (only,) = gateway_folder.examine(case)
        return only

    assert "not there yet" in found().found
    folder.mkdir()
    assert "not in use" in found().found
    lock = DataDirectoryLock(folder)
    assert "in use by process" in found().found
    lock.release()
    (folder / TIME_FILE).write_text("[1]")
    assert (found().verdict, "delete" in found().mend) == (FAIL, True)


# --- processes -------------------------------------------------------------------------------------------------------


async def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code and findings by check of `dtms doctor --json`."""
    process = await Process.start("doctor", "--json", *arguments)
    code = await process.ended()
    told = json.loads("\n".join(process.said))
    return code, {each["check"]: each for each in told["findings"]}


async def test_a_terminal_that_hangs_does_not_hang_the_doctor() -> None:
    """The look is a process of its own that is ended at the deadline; the check that hung is named, nothing is left."""
    begun = time.monotonic()
    code, found = await doctor("--mt5-module", "tests.stuck_terminal", "--deadline-s", "3")
    assert time.monotonic() - begun < 20
    assert code == 2
    assert (found["terminal.open"]["verdict"], "no answer within 3 s" in found["terminal.open"]["found"]) == (
        FAIL,
        True,
    )
    assert found["terminal.link"]["verdict"] == "SKIPPED"


@pytest.mark.parametrize(
    ("package", "found", "mend"),
    [
        ("MetaTrader5", "MetaTrader5", "64-bit Python" if sys.platform == "win32" else "mt5linux"),
        ("no_such_bridge", "No module named", "correct --mt5-module"),
        ("json", "it lacks", "has the functions of MetaTrader5"),
        ("tests.contract.test_doctor_terminal:no_bridge", "refused", "start the bridge's server"),
    ],
)
def test_modules_that_are_no_package_are_told(
    monkeypatch: pytest.MonkeyPatch, package: str, found: str, mend: str
) -> None:
    """On Linux MetaTrader5 itself is for Windows; a module that is not there, is another, or has nobody behind it."""
    monkeypatch.setitem(sys.modules, "MetaTrader5", None)  # other tests bring it
    lines: list[str] = []
    look(Job(package, None, (), 1000, 0.0), loader, lines.append)
    told = {each.check: each for each in terminal.judge(Case(package=package), read(lines))}["terminal.package"]
    assert told.verdict is FAIL
    assert found in told.found
    assert mend in told.mend


def no_bridge() -> None:
    """MODULE:CLASS of a bridge whose server does not run."""
    raise ConnectionRefusedError("Connection refused")


for _function in FUNCTIONS:
    setattr(no_bridge, _function, None)


async def test_the_command_examines_a_terminal_of_another_module() -> None:
    """Exit code 0 for a healthy one, over the process of its own that a real terminal would be looked at from."""
    code, found = await doctor(
        *("--mt5-module", "tests.contract.paper_terminal", "--account", ACCOUNT, "--symbol", "EURUSD")
    )
    assert code == 0, found
    assert found["clock.server"]["verdict"] == "OK"
    assert {each["verdict"] for each in found.values()} == {"OK", "SKIPPED"}


def test_a_look_that_dies_keeps_what_it_saw() -> None:
    """A child that ends in the middle of a step: the steps before it count, that one failed."""
    code = (
        "from dtms_service.doctor.sights import MARK, begun, seen\n"
        "print(MARK + begun('load')); print(MARK + seen('load', 'X 1.0')); print('noise')\n"
        "print(MARK + begun('open'))\n"
        "raise SystemExit('the bridge fell')\n"
    )
    seen = sights(code)
    assert (seen.done, seen.package) == (("load",), "X 1.0")
    assert seen.failed is not None
    assert (seen.failed.step, "the bridge fell" in seen.failed.text) == ("open", True)
    found = {each.check: each for each in terminal.judge(Case(account=ACCOUNT), seen)}
    assert (found["terminal.package"].verdict, found["terminal.open"].verdict) == (Verdict.OK, FAIL)
    assert worst(found.values()) is FAIL


def sights(code: str) -> Sights:
    return sights_of(Job("X", None, (), 1000, 0.0), 20, (sys.executable, "-c", code))
