"""What the service makes of its gateways' silence and words: when it calls for help, and how often."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dtms.v1 import admin_service_pb2 as admin
from dtms.v1.event_pb2 import ALARM_CODE_BROKER_LINK_LOST, ALARM_CODE_GATEWAY_FAILED, ALARM_CODE_TRADING_DISABLED
from dtms.v1.gateway_service_pb2 import TerminalState
from dtms_service.clock import VirtualClock
from dtms_service.gateways import LOOK_GAP_S, SILENT_S, Gateways

ACCOUNT = "7001@Paper"
WELL = TerminalState(linked=True, terminal_trades=True, account_trades=True, experts_trade=True)


@dataclass
class Desk:
    """Somebody who listens."""

    clock: VirtualClock = field(default_factory=lambda: VirtualClock(0))
    alarms: list[tuple[str, int, str]] = field(default_factory=list)
    stuck: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gateways = Gateways(
            self.clock,
            lambda account_id, code, detail: self.alarms.append((account_id, code, detail)),
            lambda account_id, why: self.stuck.append((account_id, why)),
        )

    @property
    def codes(self) -> list[int]:
        return [code for _, code, _ in self.alarms]

    def wait(self, seconds: float, *, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            self.clock.advance_to(self.clock.now_ns() + round(step_s * 1e9))
            self.gateways.look()


def changed(**fields: object) -> TerminalState:
    state = TerminalState()
    state.CopyFrom(WELL)
    for name, value in fields.items():
        setattr(state, name, value)
    return state


def attached(*, supervised: bool) -> Desk:
    desk = Desk()
    desk.gateways.of(ACCOUNT).supervised = supervised
    desk.gateways.attached(ACCOUNT)
    desk.gateways.told(ACCOUNT, WELL)
    return desk


def test_a_silent_gateway_is_alarmed_once_and_forgiven() -> None:
    """One that gave signs of life and gives no more is SILENT; the next sign ends it, the next silence counts anew."""
    desk = attached(supervised=False)
    desk.wait(SILENT_S)
    assert desk.alarms == []
    desk.wait(5)
    assert desk.codes == [ALARM_CODE_GATEWAY_FAILED]
    assert desk.gateways.of(ACCOUNT).state == admin.GATEWAY_STATE_SILENT
    desk.gateways.told(ACCOUNT, WELL)
    assert desk.gateways.of(ACCOUNT).state == admin.GATEWAY_STATE_ATTACHED
    desk.wait(SILENT_S + 5)
    assert desk.codes == [ALARM_CODE_GATEWAY_FAILED] * 2
    assert desk.stuck == []


def test_a_service_that_stood_still_accuses_nobody() -> None:
    """After a pause of its own every gateway has its whole time again."""
    desk = attached(supervised=True)
    desk.wait(5)
    desk.wait(60, step_s=60)
    assert desk.stuck == []
    desk.wait(SILENT_S + LOOK_GAP_S)
    assert [account_id for account_id, _ in desk.stuck] == [ACCOUNT]


def test_one_that_never_gave_signs_of_life_is_not_missed() -> None:
    """A gateway of another make that only sends prices is silent by nature."""
    desk = Desk()
    desk.gateways.attached(ACCOUNT)
    desk.wait(10 * SILENT_S)
    assert desk.alarms == []


def test_a_terminal_that_hangs_is_alarmed_once_however_often_its_gateway_says_so() -> None:
    """Answers that tell of the failure are no sign that the terminal is well."""
    desk = attached(supervised=False)
    for _ in range(5):
        desk.gateways.told(ACCOUNT, changed(hangs=True, trouble="health: no answer within 8 s"))
        desk.gateways.heard(ACCOUNT)
    assert desk.codes == [ALARM_CODE_GATEWAY_FAILED]
    supervised = attached(supervised=True)
    supervised.gateways.told(ACCOUNT, changed(hangs=True, trouble="health: no answer within 8 s"))
    assert (supervised.alarms, len(supervised.stuck)) == ([], 1)


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"linked": False}, ALARM_CODE_BROKER_LINK_LOST, "lost its broker's server"),
        ({"trouble": "IPC send failed"}, ALARM_CODE_BROKER_LINK_LOST, "IPC send failed"),
        ({"terminal_trades": False}, ALARM_CODE_TRADING_DISABLED, "off in the terminal"),
        ({"experts_trade": False}, ALARM_CODE_TRADING_DISABLED, "not allowed for the account"),
    ],
    ids=["link", "pipe", "button", "broker"],
)
def test_a_terminals_trouble_is_alarmed_when_it_begins(fields: dict[str, object], code: int, words: str) -> None:
    """Once, with what it is; again only after it was well in between. One that begins badly is alarmed at once."""
    desk = attached(supervised=True)
    for state in (changed(**fields), changed(ping_ms=5, **fields), WELL, changed(**fields)):
        desk.gateways.told(ACCOUNT, state)
    assert desk.codes == [code, code]
    assert words in desk.alarms[0][2]
    fresh = Desk()
    fresh.gateways.told(ACCOUNT, changed(**fields))
    assert fresh.codes == [code]


def test_the_same_failure_before_an_attachment_is_alarmed_once() -> None:
    """A gateway that cannot start ends again and again: the first end is told, and the first after it had attached."""
    desk = Desk()
    desk.gateways.of(ACCOUNT).supervised = True
    for _ in range(3):
        desk.gateways.ended(ACCOUNT, "its process has ended with 1: no EURUSDx")
    assert desk.codes == [ALARM_CODE_GATEWAY_FAILED]
    assert desk.gateways.of(ACCOUNT).state == admin.GATEWAY_STATE_PAUSING
    desk.gateways.said(ACCOUNT, "terminal_fails: not logged in")
    assert desk.gateways.of(ACCOUNT).last_error == "terminal_fails: not logged in"
    desk.gateways.attached(ACCOUNT)
    desk.gateways.detached(ACCOUNT, "its stream ended", expected=False)
    desk.gateways.ended(ACCOUNT, "its process has ended with 1: no EURUSDx")
    assert len(desk.alarms) == 2


def test_a_gateway_that_dialled_in_and_is_gone_is_alarmed_unless_the_service_stops() -> None:
    """Nobody looks after its account any more."""
    desk = attached(supervised=False)
    desk.gateways.detached(ACCOUNT, "its stream ended", expected=True)
    assert desk.alarms == []
    desk.gateways.attached(ACCOUNT)
    desk.gateways.detached(ACCOUNT, "its stream ended", expected=False)
    assert desk.alarms == [(ACCOUNT, ALARM_CODE_GATEWAY_FAILED, f"gateway of {ACCOUNT}: is gone: its stream ended")]
    assert desk.gateways.of(ACCOUNT).state == admin.GATEWAY_STATE_AWAY
