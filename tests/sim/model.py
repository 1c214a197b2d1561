"""The oracle: what each trade must be, as a person with pencil and paper would note it from the events.

Deliberately naive: dictionaries, floats rounded to cents of a pip, no code of the engine, of the service or of the
clients. Whatever the service shows, after whatever faults, must be what stands here at the same revision.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from dtms.v1.action_pb2 import (
    ACTION_KIND_OPEN_HEDGE,
    ACTION_KIND_RE_ADD,
    ACTION_KIND_STOP,
    ACTION_KIND_TARGET,
    OUTCOME_STATUS_CONFIRMED,
    OUTCOME_STATUS_UNKNOWN,
)
from dtms.v1.event_pb2 import LEG_KIND_HEDGE, LEG_KIND_MAIN, LEG_KIND_RE_ADD, LEG_KIND_STRAY, Event
from dtms.v1.trade_pb2 import (
    STATE_PHASE_CONFIRMED,
    STATE_PHASE_PENDING,
    TRADE_STATE_HEALTHY,
    TRADE_STATE_HEDGED,
    Trade,
)

Key: TypeAlias = tuple[str, int]
Facts: TypeAlias = dict[str, Any]

LEGS: Final = {LEG_KIND_HEDGE: "hedge", LEG_KIND_RE_ADD: "readd"}


class Model:
    """Trades by key after the events so far."""

    def __init__(self) -> None:
        self.trades: dict[Key, Facts] = {}
        self.intents: dict[int, tuple[Key, Any]] = {}
        self.owed: dict[Key, set[int]] = {}
        """Entry actions that are not settled yet."""
        self.revision = 0

    def take(self, event: Event) -> None:
        self.revision = event.revision
        key = (event.account_id, event.ticket)
        body = event.WhichOneof("body") or ""
        if body == "trade_registered":
            self._register(key, event)
        elif body == "trade_unregistered":
            del self.trades[key]
        trade = self.trades.get(key)
        if trade is None:
            return
        trade["revision"] = event.revision
        if event.state:
            trade["state"] = event.state
        note = getattr(self, f"_on_{body}", None)
        if note is not None:
            note(key, trade, getattr(event, body))

    def _register(self, key: Key, event: Event) -> None:
        body = event.trade_registered
        if key in self.trades:
            return  # adopted before, and claimed now: what happened since stays
        self.owed[key] = set()
        self.trades[key] = {
            "state": event.state,
            "phase": STATE_PHASE_CONFIRMED,
            "volume": lots(body.volume),
            "sl": level(body, "sl"),
            "tp": level(body, "tp"),
            "managed_by": "",
            "owner_epoch": 0,
            "breakeven": False,
            "armed": False,
            "quarantined": False,
            "hedge": None,
            "readd": None,
            "in_flight": None,
            "strays": (),
            "gone": False,
        }

    def _on_ownership_granted(self, _key: Key, trade: Facts, body: Any) -> None:
        trade["managed_by"], trade["owner_epoch"] = body.managed_by, body.owner_epoch

    def _on_state_changed(self, key: Key, trade: Facts, body: Any) -> None:
        trade["phase"] = body.phase
        self.owed[key] |= {action.action_id for action in body.actions}

    def _on_action_planned(self, key: Key, trade: Facts, body: Any) -> None:
        trade["phase"] = STATE_PHASE_PENDING
        self.owed[key].add(body.action.action_id)

    def _on_state_confirmed(self, _key: Key, trade: Facts, _body: Any) -> None:
        trade["phase"] = STATE_PHASE_CONFIRMED

    def _on_trade_armed(self, _key: Key, trade: Facts, _body: Any) -> None:
        trade["armed"] = True

    def _on_breakeven_triggered(self, _key: Key, trade: Facts, _body: Any) -> None:
        trade["breakeven"] = True

    def _on_quarantine_changed(self, _key: Key, trade: Facts, body: Any) -> None:
        trade["quarantined"] = body.quarantined

    def _on_action_skipped(self, key: Key, _trade: Facts, body: Any) -> None:
        self.owed[key].discard(body.action.action_id)

    def _on_intent_recorded(self, key: Key, trade: Facts, body: Any) -> None:
        self.intents[body.intent_id] = key, body
        trade["in_flight"] = body.intent_id

    def _on_outcome_recorded(self, key: Key, trade: Facts, body: Any) -> None:
        outcome = body.outcome
        if outcome.status == OUTCOME_STATUS_UNKNOWN:
            return
        _, intent = self.intents[outcome.intent_id]
        is_late = trade["in_flight"] != outcome.intent_id  # settled as not executed before
        trade["in_flight"] = None if not is_late else trade["in_flight"]
        confirmed = outcome.status == OUTCOME_STATUS_CONFIRMED
        if confirmed and not body.HasField("retry_at_ns"):
            self.owed[key].discard(intent.action_id)
        if confirmed:
            self._done(trade, intent, outcome, is_late=is_late)

    def _done(self, trade: Facts, intent: Any, outcome: Any, *, is_late: bool) -> None:
        volume = lots(outcome.volume if outcome.volume > 0 else intent.volume)
        if intent.kind in {ACTION_KIND_STOP, ACTION_KIND_TARGET}:
            echoed = (level(outcome, "sl"), level(outcome, "tp"))
            if echoed != (None, None) or (level(intent, "sl"), level(intent, "tp")) == (None, None):
                trade["sl"], trade["tp"] = echoed
        elif intent.kind in OPENS:
            name, state = OPENS[intent.kind]
            is_wanted = not is_late or (trade["state"] == state and not trade["gone"])
            if trade[name] is None and is_wanted:
                trade[name] = (outcome.opened_ticket, volume, level(outcome, "sl"))
            else:
                trade["strays"] += ((outcome.opened_ticket, volume),)
        elif intent.leg == LEG_KIND_STRAY:
            trade["strays"] = tuple(
                (ticket, lots(max(left - volume, 0.0)) if ticket == intent.position else left)
                for ticket, left in trade["strays"]
            )
        elif intent.leg == LEG_KIND_MAIN:
            trade["volume"] = lots(max(trade["volume"] - volume, 0.0))
        elif intent.leg in LEGS and (leg := trade[LEGS[intent.leg]]) is not None:
            trade[LEGS[intent.leg]] = (leg[0], lots(max(leg[1] - volume, 0.0)), leg[2])

    def _on_position_changed(self, _key: Key, trade: Facts, body: Any) -> None:
        if body.leg == LEG_KIND_STRAY:
            return
        if body.leg == LEG_KIND_MAIN:
            trade["volume"], trade["sl"], trade["tp"] = lots(body.volume), level(body, "sl"), level(body, "tp")
        elif (leg := trade[LEGS[body.leg]]) is not None:
            trade[LEGS[body.leg]] = (leg[0], lots(body.volume), level(body, "sl"))

    def _on_leg_closed(self, _key: Key, trade: Facts, body: Any) -> None:
        if body.leg == LEG_KIND_MAIN:
            trade["volume"], trade["gone"] = 0.0, True
        elif body.leg == LEG_KIND_STRAY:
            trade["strays"] = tuple(stray for stray in trade["strays"] if stray[0] != body.position)
        else:
            trade[LEGS[body.leg]] = None


OPENS: Final = {
    ACTION_KIND_OPEN_HEDGE: ("hedge", TRADE_STATE_HEDGED),
    ACTION_KIND_RE_ADD: ("readd", TRADE_STATE_HEALTHY),
}
SHOWN: Final = (
    *("state", "phase", "volume", "sl", "tp", "managed_by", "owner_epoch", "breakeven", "armed", "quarantined"),
    *("hedge", "readd", "strays", "revision"),
)


def lots(volume: float) -> float:
    return round(volume, 6)


def level(message: Any, name: str) -> float | None:
    """A price, None where there is none."""
    return round(getattr(message, name), 6) if message.HasField(name) else None


def shown(trade: Trade) -> Facts:
    """What the service shows of a trade, in the words of the model."""
    return {
        "state": trade.state,
        "phase": trade.phase,
        "volume": lots(trade.volume),
        "sl": level(trade.confirmed, "sl"),
        "tp": level(trade.confirmed, "tp"),
        "managed_by": trade.managed_by,
        "owner_epoch": trade.owner_epoch,
        "breakeven": trade.breakeven_triggered,
        "armed": trade.armed,
        "quarantined": trade.quarantined,
        "hedge": _leg(trade, "hedge"),
        "readd": _leg(trade, "readd"),
        "strays": tuple((leg.ticket, lots(leg.volume)) for leg in trade.strays),
        "revision": trade.revision,
    }


def _leg(trade: Trade, name: str) -> tuple[int, float, float | None] | None:
    if not trade.HasField(name):  # type: ignore[arg-type]
        return None
    leg = getattr(trade, name)
    return (leg.ticket, lots(leg.volume), level(leg, "sl"))


def differences(trade: Trade, facts: Facts) -> dict[str, tuple[Any, Any]]:
    """(shown, noted) of every field that differs."""
    seen = shown(trade)
    return {name: (seen[name], facts[name]) for name in SHOWN if seen[name] != facts[name]}
