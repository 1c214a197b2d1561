"""The service's view of its gateways: who serves which account, how each terminal is, and when to call for help.

A gateway that does not answer, a terminal without its server or with automated trading off, and an account that was
switched are alarmed once, when they begin. What is done about a gateway that hangs is for ``on_stuck``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from dtms.v1 import admin_service_pb2, gateway_service_pb2
from dtms_service import convert
from dtms_service.clock import Clock

# Since the last sign of life of a gateway that gives them (every 2 s, live.BEAT_S). A beat waits behind an order that
# the terminal holds, and an order has 10 s.
SILENT_S: Final = 15.0
# Between two looks: a service that stood still itself has heard nobody.
LOOK_GAP_S: Final = 2.0

State = admin_service_pb2.GatewayState

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Gateway:
    """One account's. ``heard_ns`` is UTC, ``heard_mono_ns`` of the lease clock; 0 for never."""

    account_id: str
    supervised: bool = False
    silent_s: float = SILENT_S
    attached: bool = False
    # Of its process, where it is ours: STARTING or PAUSING; AWAY else.
    process: State.ValueType = admin_service_pb2.GATEWAY_STATE_AWAY
    restarts: int = 0
    last_error: str = ""
    mourned: str = ""
    terminal: gateway_service_pb2.TerminalState | None = None
    beats: bool = False
    silent: bool = False
    heard_ns: int = 0
    heard_mono_ns: int = 0
    ticks_merged: int = 0

    @property
    def state(self) -> State.ValueType:
        if self.attached:
            return admin_service_pb2.GATEWAY_STATE_SILENT if self.silent else admin_service_pb2.GATEWAY_STATE_ATTACHED
        return self.process


def _nobody(_account_id: str, _why: str) -> None:
    """A gateway that somebody else has started."""


@dataclass(slots=True)
class Gateways:
    """``alarm`` takes account, code and words. ``on_stuck`` is told of a gateway that only a new process can help."""

    clock: Clock
    alarm: Callable[[str, int, str], None]
    on_stuck: Callable[[str, str], None] = _nobody
    _all: dict[str, Gateway] = field(default_factory=dict)
    _looked_mono_ns: int = 0

    def of(self, account_id: str) -> Gateway:
        return self._all.setdefault(account_id, Gateway(account_id))

    def __iter__(self) -> Iterator[Gateway]:
        """By account."""
        return iter(sorted(self._all.values(), key=lambda gateway: gateway.account_id))

    # --- from its stream ---

    def attached(self, account_id: str) -> None:
        gateway = self.of(account_id)
        gateway.attached, gateway.beats, gateway.mourned = True, False, ""
        gateway.silent = False
        self.heard(account_id)

    def heard(self, account_id: str) -> None:
        """It has answered, whatever its terminal does."""
        gateway = self.of(account_id)
        gateway.heard_ns, gateway.heard_mono_ns = self.clock.now_ns(), self.clock.mono_ns()
        if not gateway.beats:
            gateway.silent = False

    def told(self, account_id: str, terminal: gateway_service_pb2.TerminalState) -> None:
        """How its terminal is."""
        gateway = self.of(account_id)
        before, gateway.terminal, gateway.beats = gateway.terminal, terminal, True
        if terminal.hangs:
            self.missed(account_id, f"its terminal does not answer: {terminal.trouble}")
            return
        self.heard(account_id)
        gateway.silent = False
        for code, is_bad, detail in _troubles(terminal):
            was_bad = before is not None and any(known == code and bad for known, bad, _ in _troubles(before))
            if is_bad and not was_bad:
                self._trouble(gateway, code, detail)
            elif was_bad and not is_bad:
                log.info("terminal_mended", account=account_id, was=convert.alarm_name(code))

    def missed(self, account_id: str, why: str) -> None:
        """It did not do in time what it should have."""
        gateway = self.of(account_id)
        was_silent, gateway.silent = gateway.silent, True
        if gateway.supervised:
            self.on_stuck(account_id, why)  # its end is alarmed, with this reason
        elif not was_silent:
            self._trouble(gateway, convert.ALARM_GATEWAY_FAILED, f"does not answer: {why}")

    def detached(self, account_id: str, why: str, *, expected: bool) -> None:
        """Its stream has ended. Of a process of ours its end is told instead."""
        gateway = self.of(account_id)
        gateway.attached = gateway.silent = False
        is_told = gateway.terminal is not None and gateway.terminal.other_account_id
        if not (expected or gateway.supervised or is_told):
            self._trouble(gateway, convert.ALARM_GATEWAY_FAILED, f"is gone: {why}")

    def look(self) -> None:
        """On a timer: who has been silent for too long."""
        now, before = self.clock.mono_ns(), self._looked_mono_ns
        self._looked_mono_ns = now
        stood_still = before and now - before > LOOK_GAP_S * 1e9
        for gateway in self._all.values():
            if not (gateway.attached and gateway.beats):
                continue
            if stood_still:
                gateway.heard_mono_ns = now
            silence_s = (now - gateway.heard_mono_ns) / 1e9
            if silence_s > gateway.silent_s and not gateway.silent:
                self.missed(gateway.account_id, f"no sign of life for {silence_s:.0f} s")

    # --- from its process ---

    def said(self, account_id: str, words: str) -> None:
        """What it logs while it is not attached: there is no other way to know what keeps it."""
        gateway = self.of(account_id)
        if not gateway.attached:
            gateway.last_error = words

    def ended(self, account_id: str, why: str) -> None:
        """Its process is gone, and is started again later. One that fails in the same way before it has attached is
        alarmed once."""
        gateway = self.of(account_id)
        gateway.process = admin_service_pb2.GATEWAY_STATE_PAUSING
        gateway.attached = gateway.silent = False
        if why == gateway.mourned:
            gateway.last_error = why
            return
        gateway.mourned = why
        self._trouble(gateway, convert.ALARM_GATEWAY_FAILED, why)

    def _trouble(self, gateway: Gateway, code: int, detail: str) -> None:
        gateway.last_error = detail
        self.alarm(gateway.account_id, code, f"gateway of {gateway.account_id}: {detail}")


def _troubles(terminal: gateway_service_pb2.TerminalState) -> list[tuple[int, bool, str]]:
    """Alarm, whether there is reason for it, and the reason."""
    other, unreachable = terminal.other_account_id, bool(terminal.trouble) or not terminal.linked
    switches = {
        "automated trading is off in the terminal": terminal.terminal_trades,
        "trading is not allowed for the account": terminal.account_trades,
        "automated trading is not allowed for the account": terminal.experts_trade,
    }
    off = ", ".join(words for words, is_on in switches.items() if not is_on)
    return [
        (convert.ALARM_ACCOUNT_SWITCHED, bool(other), terminal.trouble),
        (
            convert.ALARM_BROKER_LINK_LOST,
            unreachable and not other,
            terminal.trouble or "the terminal has lost its broker's server",
        ),
        (convert.ALARM_TRADING_DISABLED, bool(off) and not unreachable, f"only watching: {off}"),
    ]
