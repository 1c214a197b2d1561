"""Which durable facts people are told, in which words, and how often the same one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import Counter

from dtms.v1 import event_pb2, ownership_pb2, trade_pb2
from dtms_service.clock import Clock
from dtms_service.config import NotificationsConfig
from dtms_service.describe import enum_name, notice
from dtms_service.errors import ConfigInvalid, FieldViolation
from dtms_service.notify.target import Notice, Target

FACTS_REMEMBERED: Final = 10_000
"""Facts told lately, against repeats: about 5 MB. Beyond it the oldest may be told again."""
STOP_WITHIN_S: Final = 5.0
"""How long a stop waits for what is not delivered yet."""

REPEATED = Counter("dtms_notifications_deduplicated_total", "Facts not told again because they were told just now")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Told:
    """A fact told lately: its repeats are counted until then, ns UTC."""

    until_ns: int
    repeats: int = 0
    last_revision: int = 0


class Notifier:
    """Fed with durable events; every method but ``close`` returns at once, whatever the targets do.

    ``time`` is called now and then: it tells how often a fact was repeated once its ``dedupe_s`` are over.
    Raises ConfigInvalid for an event or a state that the journal does not know.
    """

    def __init__(self, config: NotificationsConfig, clock: Clock, targets: Sequence[Target]) -> None:
        check(config)
        self._events, self._clock, self._targets = frozenset(config.events), clock, tuple(targets)
        self._states = frozenset(trade_pb2.TradeState.Value(f"TRADE_STATE_{name}") for name in config.states)
        self._dedupe_ns = config.dedupe_s * 1_000_000_000
        self._told: OrderedDict[str, _Told] = OrderedDict()  # oldest first, so those that end first come first

    def on_event(self, event: dict[str, Any]) -> None:
        """A durable event, as the core gives it."""
        kind = next((name for name in self._events if name in event), None)
        if kind is None or not self._is_told(kind, event):
            return
        self.time()
        message = event_pb2.Event(**event)
        text = notice(message)
        told = self._told.get(text)
        if told is not None:
            told.repeats += 1
            told.last_revision = message.revision
            REPEATED.inc()
            return
        self._tell(text, message.revision)
        if self._dedupe_ns:
            self._told[text] = _Told(self._clock.now_ns() + self._dedupe_ns)
            if len(self._told) > FACTS_REMEMBERED:
                self._end(*self._told.popitem(last=False))

    def time(self) -> None:
        now_ns = self._clock.now_ns()
        while self._told and (oldest := next(iter(self._told.values()))).until_ns <= now_ns:
            self._end(self._told.popitem(last=False)[0], oldest)

    async def close(self) -> None:
        """Tells what is still to be told, for at most ``STOP_WITHIN_S``. No event may come afterwards."""
        while self._told:
            self._end(*self._told.popitem(last=False))
        await asyncio.gather(*(asyncio.to_thread(target.close, STOP_WITHIN_S) for target in self._targets))

    def _is_told(self, kind: str, event: dict[str, Any]) -> bool:
        match kind:
            case "state_changed":
                change = event["state_changed"]
                return change["to"] in self._states and change["to"] != change["from"]
            case "ownership_granted":
                return bool(event["ownership_granted"]["cause"] == ownership_pb2.GRANT_CAUSE_EXPIRED)
            case _:
                return True

    def _end(self, text: str, told: _Told) -> None:
        if told.repeats:
            self._tell(f"{told.repeats} times more, until revision {told.last_revision}: {text}", told.last_revision)

    def _tell(self, text: str, revision: int) -> None:
        for target in self._targets:
            target.offer(Notice(f"{text} (r{revision})", revision))


def check(config: NotificationsConfig) -> None:
    """ConfigInvalid for an event or a state that the journal does not know."""
    bodies = {field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["body"].fields}
    states = {enum_name(trade_pb2.TradeState, number) for number in trade_pb2.TradeState.values() if number}
    unknown = [("notifications.events", name, "event of the journal") for name in config.events if name not in bodies]
    unknown += [("notifications.states", name, "state of a trade") for name in config.states if name not in states]
    if unknown:
        raise ConfigInvalid(
            "notifications", [FieldViolation(key, f"{name} is no {what}") for key, name, what in unknown]
        )


__all__ = ["FACTS_REMEMBERED", "STOP_WITHIN_S", "Notifier", "check"]
