"""An engine with an account, a symbol, a warm market and a price, for the tests of the bridge."""

from __future__ import annotations

from typing import Any

from dtms_service._core import Engine, Step
from dtms_service.config import EngineConfig, RailsConfig

ACCOUNT = "7@paper"
SYMBOL = "EURUSD"
TICKET = 77
S = 1_000_000_000
START_S = 1_699_950_600  # Tuesday, 14 November 2023, 08:30 UTC: London, multiplier 1
EXIT = "intelligent_exit_manager"
MANAGERS = {"universal_sl_tp_manager": 3, EXIT: 1}
NUMBERS = EngineConfig(fast_s=300, slow_s=900).to_core() | RailsConfig().to_core()
STRATEGIES = ["trend_continuation_pullback"]
SPEC: dict[str, Any] = {
    "symbol": SYMBOL,
    "digits": 5,
    "point": 0.00001,
    "tick_size": 0.00001,
    "contract_size": 100_000.0,
    "volume_min": 0.01,
    "volume_max": 100.0,
    "volume_step": 0.01,
    "stops_level": 10,
    "freeze_level": 0,
    "vwap_slope_threshold": 0.0005,
}


def engine() -> Engine:
    return Engine(NUMBERS, MANAGERS, STRATEGIES)


def defined() -> Engine:
    made = engine()
    made.start(0)
    made.define_account(ACCOUNT, True, "USD", START_S * S)
    made.define_symbol(ACCOUNT, SPEC, START_S * S)
    return made


def ready() -> Engine:
    """Eighteen slow bars of 240 points, a price of 1.10000 / 1.10010, a neutral score."""
    made = defined()
    for index in range(18):
        time_s = START_S - START_S % 900 - 900 * (18 - index)
        made.on_bar(ACCOUNT, SYMBOL, 900, time_s, 1.1, 1.1012, 1.0988, 1.1, 10.0, START_S * S)
    made.on_tick(ACCOUNT, SYMBOL, START_S * 1000, 1.1, 1.1001, 1.0, START_S * S)
    score(made, -1.0)
    return made


def score(made: Engine, total: float) -> Step:
    return made.report_score(ACCOUNT, SYMBOL, {"total": total}, "test", 2**62, START_S * S)


def register(made: Engine, ticket: int = TICKET, volume: float = 1.0) -> Step:
    opened_ns = (START_S - 1_000) * S
    now_ns = START_S * S
    return made.register(ACCOUNT, ticket, SYMBOL, 1, 1.1, volume, 1.09, 1.13, "", opened_ns, 1, "test", now_ns, 0)


def stop(made: Engine, price: float, request_id: str = "r1") -> Step:
    view = made.trade(ACCOUNT, TICKET)
    assert view is not None
    action = {"kind": 1, "purpose": 3, "stop": price}
    return made.propose(EXIT, request_id, ACCOUNT, TICKET, view["owner_epoch"], action, False, START_S * S, 0)


def settle(made: Engine) -> list[dict[str, Any]]:
    """An obedient broker: confirms until nothing is in flight; the events."""
    events: list[dict[str, Any]] = []
    position = 900
    while intents := made.open_intents():
        intent = intents[0]
        outcome: dict[str, Any] = {"intent_id": intent["intent_id"], "status": 1, "retcode": 10009}
        if intent["kind"] in (1, 2):
            outcome |= {name: intent[name] for name in ("sl", "tp") if name in intent}
        else:
            outcome |= {"price": 1.1, "volume": intent["volume"]}
            if not intent["position"]:
                outcome |= {"opened_ticket": position, "sl": intent["sl"]}
                position += 1
        events += made.on_outcome(outcome, START_S * S).events
    return events


def bodies(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event[name] for event in events if name in event]
