"""The bridge: dicts in and out, errors, buffers, snapshots, panics."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from dtms.v1 import event_pb2, trade_pb2
from dtms_service import convert
from dtms_service._core import CoreError, Engine
from tests.core.engine_cases import (
    ACCOUNT,
    EXIT,
    MANAGERS,
    NUMBERS,
    SPEC,
    START_S,
    STRATEGIES,
    SYMBOL,
    TICKET,
    S,
    bodies,
    defined,
    engine,
    ready,
    register,
    score,
    settle,
    stop,
)

ENVELOPE = {"revision", "time_ns", "account_id", "ticket", "symbol", "state"}


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(CoreError) as raised:
        call()
    reason, field, message = raised.value.args
    assert message
    return reason, field


def test_an_event_is_an_envelope_with_one_body() -> None:
    """Each event dict has the six envelope keys and exactly one body, and the protocol takes it as it is."""
    made = ready()
    events = register(made).events + score(made, -9.0).events + settle(made)
    for event in events:
        assert len(event.keys() - ENVELOPE) == 1
        assert event.keys() >= ENVELOPE
        assert convert.decode_event(convert.encode_event(event)) == event
    assert [event["revision"] for event in events] == list(range(events[0]["revision"], made.revision + 1))


def test_a_trade_is_the_message_of_the_protocol() -> None:
    """``trade`` has every field of proto's Trade under its name; an unknown trade is None."""
    made = ready()
    register(made)
    score(made, -9.0)
    settle(made)
    view = made.trade(ACCOUNT, TICKET)
    assert view is not None
    assert view.keys() <= {field.name for field in trade_pb2.Trade.DESCRIPTOR.fields}
    assert view["state"] == trade_pb2.TRADE_STATE_HEDGED
    assert view["volume"] == 0.5
    assert view["hedge"]["ticket"] == 900
    assert made.trade(ACCOUNT, 1) is None
    assert made.ownership(ACCOUNT, 1, 0) is None


def test_a_step_gives_the_same_objects_each_time() -> None:
    """``events`` and ``reply`` are made once."""
    step = register(ready())
    assert step.events is step.events
    assert step.reply is True


def test_the_same_request_is_answered_the_same() -> None:
    """A repeat has the recorded decision, then the outcome too; another body is REQUEST_ID_REUSED."""
    made = ready()
    register(made)
    first = stop(made, 1.095)
    again = stop(made, 1.095)
    assert first.reply["decision"]["granted"]
    assert bodies(first.events, "intent_recorded")[0]["intent_id"] == first.reply["intent_id"]
    assert again.events == []
    assert again.reply == first.reply
    assert refused(lambda: stop(made, 1.096)) == ("REQUEST_ID_REUSED", "")
    settle(made)
    assert stop(made, 1.095).reply["outcome"]["status"] == 1


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda made: made.on_tick("x", SYMBOL, 0, 1.0, 1.0, 1.0, 0), ("ACCOUNT_UNKNOWN", "")),
        (lambda made: made.on_tick(ACCOUNT, "x", 0, 1.0, 1.0, 1.0, 0), ("SYMBOL_UNKNOWN", "")),
        (lambda made: made.on_tick(ACCOUNT, SYMBOL, 2**60, float("nan"), 1.0, 1.0, 0), ("FIELD_INVALID", "bid")),
        (lambda made: made.unregister(ACCOUNT, 5, "t", 0), ("TRADE_UNKNOWN", "")),
        (lambda made: made.acquire(ACCOUNT, 5, EXIT, 0, 0), ("TRADE_UNKNOWN", "")),
        (lambda made: made.renew(ACCOUNT, TICKET, EXIT, 1, 0), ("STALE_EPOCH", "")),
        (lambda made: made.define_symbol(ACCOUNT, SPEC | {"tick": 1.0}, 0), ("FIELD_INVALID", "tick")),
        (lambda made: made.define_symbol(ACCOUNT, SPEC | {"point": "1"}, 0), ("FIELD_INVALID", "point")),
        (lambda made: made.define_symbol(ACCOUNT, SPEC | {"point": None}, 0), ("FIELD_INVALID", "point")),
        (
            lambda made: made.propose(EXIT, "r", ACCOUNT, TICKET, 1, {"kind": 9}, False, 0, 0),
            ("FIELD_INVALID", "action.kind"),
        ),
        (
            lambda made: made.propose(EXIT, "r", ACCOUNT, TICKET, 1, {"kind": 1, "sl": 1.0}, False, 0, 0),
            ("FIELD_INVALID", "action.sl"),
        ),
        (lambda made: made.on_outcome({"intent_id": 9, "status": 1}, 0), ("FIELD_INVALID", "outcome.intent_id")),
        (lambda made: made.on_outcome({"intent_id": -1, "status": 1}, 0), ("FIELD_INVALID", "outcome.intent_id")),
        (lambda made: made.on_closed(ACCOUNT, TICKET, 9, 1.1, 0.0, 0), ("FIELD_INVALID", "reason")),
        (lambda made: made.set_trading_state(0, "op", "why", 0), ("FIELD_INVALID", "trading_state")),
        (
            lambda made: made.report_score(ACCOUNT, SYMBOL, {"total": "bad"}, "x", 9, 0),
            ("FIELD_INVALID", "total"),
        ),
        (lambda made: made.restore(b"no snapshot"), ("FIELD_INVALID", "snapshot")),
        (lambda made: made.apply({"revision": 99}), ("FIELD_INVALID", "body")),
    ],
)
def test_what_cannot_be_decided_is_a_core_error_and_changes_nothing(
    call: Callable[[Engine], object], expected: tuple[str, str]
) -> None:
    """``args`` are (reason, field, message); the engine is as before."""
    made = ready()
    register(made)
    before = made.snapshot()
    assert refused(lambda: call(made)) == expected
    assert made.snapshot() == before


def test_the_configuration_is_complete_or_refused() -> None:
    """An unknown key, a missing key and a rank that no manager may have are named."""
    config: dict[str, Any] = dict(NUMBERS)
    assert refused(lambda: Engine(config | {"holds": 1}, MANAGERS, [])) == ("FIELD_INVALID", "holds")
    short = {key: value for key, value in config.items() if key != "hold_s"}
    assert refused(lambda: Engine(short, MANAGERS, [])) == ("FIELD_INVALID", "hold_s")
    assert refused(lambda: Engine(config, {"bot": 4}, [])) == ("FIELD_INVALID", "bot")


def test_any_mapping_will_do() -> None:
    """Messages may be read-only mappings; enumerations may be IntEnums or proto values."""
    made = defined()
    made.define_symbol(ACCOUNT, MappingProxyType(SPEC | {"symbol": "GOLD"}), 0)
    made.set_trading_state(event_pb2.TRADING_STATE_REDUCING, "op", "why", 0)
    assert made.status()["trading_state"] == event_pb2.TRADING_STATE_REDUCING


def test_a_batch_stops_after_the_first_tick_with_events() -> None:
    """Ticks come as numpy columns; the reply is the number taken; None means all, quietly."""
    made = ready()
    register(made)
    made.on_tick(ACCOUNT, SYMBOL, START_S * 1000, 1.1, 1.1001, 1.0, START_S * S)
    score(made, -1.0)
    times = np.arange(START_S * 1000, START_S * 1000 + 10, dtype=np.int64)
    bid = np.full(10, 1.1)
    volume = np.ones(10)
    assert made.on_ticks(ACCOUNT, SYMBOL, times, bid, bid + 0.0001, volume, START_S * S) is None
    register(made, ticket=78)
    step = made.on_ticks(ACCOUNT, SYMBOL, times + 10, bid, bid + 0.0001, volume, START_S * S)
    assert step is not None
    assert step.reply == 1
    assert bodies(step.events, "trade_armed")
    bid[3] = np.nan
    step = made.on_ticks(ACCOUNT, SYMBOL, times + 20, bid, bid + 0.0001, volume, START_S * S)
    assert step is not None
    assert (step.reply, step.events) == (3, [])
    assert refused(lambda: made.on_ticks(ACCOUNT, SYMBOL, times + 30, bid[3:], bid, volume, 0)) == (
        "FIELD_INVALID",
        "time_msc",
    )
    assert refused(lambda: made.on_ticks(ACCOUNT, SYMBOL, times[::2], bid[::2], bid[::2], volume[::2], 0)) == (
        "FIELD_INVALID",
        "time_msc",
    )


def test_a_batch_lets_other_threads_run() -> None:
    """While ticks are evaluated another thread gets the GIL: the lock is the engine's own."""
    made = ready()
    count = 300_000
    times = np.arange(START_S * 1000, START_S * 1000 + count, dtype=np.int64)
    bid = 1.1 + np.arange(count) % 7 * 0.00001
    started, turns, ended = threading.Event(), 0, threading.Event()

    def batch() -> None:
        started.set()
        made.on_ticks(ACCOUNT, SYMBOL, times, bid, bid + 0.0001, np.ones(count), START_S * S)
        ended.set()

    thread = threading.Thread(target=batch)
    thread.start()
    started.wait()
    while not ended.is_set():
        turns += 1
    thread.join()
    assert turns > 1_000


def test_a_snapshot_restores_the_state_and_nothing_else() -> None:
    """Equal bytes after restore; one that folded the events, as dicts or bytes, has them too (I18, I20)."""
    made = ready()
    register(made)
    score(made, -9.0)
    recorded: list[dict[str, Any]] = []
    folded = engine()
    recorder = engine()
    recorder.start(0)
    for step in (
        recorder.define_account(ACCOUNT, True, "USD", START_S * S),
        recorder.define_symbol(ACCOUNT, SPEC, START_S * S),
        register(recorder),
        score(recorder, -9.0),
    ):
        recorded += step.events
    recorded += settle(recorder)
    for event in recorded:
        folded.apply(event)
    assert folded.snapshot() == recorder.snapshot()
    stored = [(event["revision"], convert.encode_event(event)) for event in recorded]
    replayed = engine()
    assert [stored[place] for place in replayed.fold(stored)] == [
        item for item, event in zip(stored, recorded, strict=True) if "decision_made" in event
    ]
    assert replayed.snapshot() == recorder.snapshot()
    restored = engine()
    restored.restore(recorder.snapshot())
    assert restored.snapshot() == recorder.snapshot()
    assert restored.keys() == [(ACCOUNT, TICKET)]


def test_an_engine_that_is_told_again_decides_as_the_one_before() -> None:
    """Folded events, and beside them the prices and the last figure told once more: every later event is the same."""
    chance = random.Random(1)
    walk, bid = [], 1.1
    for number in range(4_000):
        bid = round(bid + chance.choice((-1, 1)) * chance.randint(0, 40) / 100_000, 5)
        walk.append((START_S * 1000 + number * 20_000, bid, round(bid + 0.0001, 5), 1.0))
    recorder = engine()
    recorder.start(0)
    events = recorder.define_account(ACCOUNT, True, "USD", START_S * S).events
    events += recorder.define_symbol(ACCOUNT, SPEC, START_S * S).events

    def play(to: Engine, ticks: list[tuple[int, float, float, float]]) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for tick in ticks:
            now_ns = tick[0] * 1_000_000
            for step in (
                to.on_account(ACCOUNT, 10_000 + 1_000 * (tick[1] - 1.1), now_ns),
                to.on_tick(ACCOUNT, SYMBOL, *tick, now_ns),
                to.on_time(now_ns, 0),
            ):
                made += [] if step is None else step.events
            made += settle(to)
        return made

    events += play(recorder, walk[:2_000])
    now_ns = walk[1_999][0] * 1_000_000
    opened = walk[1_999][1]
    levels = (round(opened - 0.01, 5), round(opened + 0.03, 5))
    events += recorder.register(
        ACCOUNT, TICKET, SYMBOL, 1, opened, 1.0, *levels, "", now_ns, 1, "test", now_ns, 0
    ).events
    events += play(recorder, walk[2_000:3_000])
    again = engine()
    for event in events:
        again.apply(event)
    again.start(0)
    for tick in walk[:3_000]:
        again.recall_tick(ACCOUNT, SYMBOL, *tick, tick[0] * 1_000_000)
    again.recall_account(ACCOUNT, 10_000 + 1_000 * (walk[2_999][1] - 1.1), recorder.is_exposed(ACCOUNT))
    assert again.snapshot() == recorder.snapshot()
    expected = play(recorder, walk[3_000:])
    assert any("state_changed" in event for event in expected), "a walk on which nothing happens shows nothing"
    assert play(again, walk[3_000:]) == expected


def test_queries_have_the_shapes_that_the_service_reads() -> None:
    """Quote, score, status, keys, open positions and position owner."""
    made = defined()
    assert made.quote(ACCOUNT, SYMBOL) is None
    assert made.score(ACCOUNT, SYMBOL, 1) is None
    assert made.next_deadline_ns() is None
    made = ready()
    register(made)
    quote = made.quote(ACCOUNT, SYMBOL)
    assert quote is not None
    assert quote["spread_points"] == 10
    assert quote["atr_slow"] == pytest.approx(0.0024)
    buy, sell = made.score(ACCOUNT, SYMBOL, 1), made.score(ACCOUNT, SYMBOL, 2)
    assert buy is not None
    assert sell is not None
    assert buy["total"] == -sell["total"] == -1.0
    assert made.status() == {
        "revision": made.revision,
        "trading_state": 1,
        "kill_switches": [],
        "rails": [],
        "states": {1: 1},
        "open_intents": 0,
    }
    made.set_kill_switch(event_pb2.KILL_SCOPE_MANAGER, EXIT, True, False, "op", "why", 0)
    assert made.status()["kill_switches"] == [{"scope": 3, "value": EXIT}]
    assert made.keys(True) == [(ACCOUNT, TICKET)]
    assert made.open_positions(ACCOUNT) == [(TICKET, TICKET)]
    assert made.position_owner(ACCOUNT, TICKET) == TICKET
    assert made.position_owner(ACCOUNT, 5) is None


def test_figures_and_news_become_rails() -> None:
    """Equity and blackouts go in, edges come out and stand in the status; a calendar's alarm is about no trade."""
    made = ready()
    assert made.is_exposed(ACCOUNT) is False
    assert made.on_account(ACCOUNT, 10_000.0, START_S * S) is None
    register(made)
    assert made.is_exposed(ACCOUNT) is True
    marks = made.on_account(ACCOUNT, 10_000.0, START_S * S)
    assert marks is not None
    assert [mark["span"] for mark in bodies(marks.events, "account_marked")] == [1, 2]
    lost = made.on_account(ACCOUNT, 9_850.0, START_S * S)
    assert lost is not None
    (edge,) = bodies(lost.events, "rail_changed")
    assert edge == {"rail": 2, "engaged": True, "value": 1.5, "limit": 1.0, "detail": "1.5 % of 1 %"}
    told = made.set_news(ACCOUNT, SYMBOL, [(START_S * S, (START_S + 60) * S, "USD Payrolls")], START_S * S)
    assert told is not None
    assert made.status()["rails"] == [
        {"account_id": ACCOUNT, "symbol": "", "rail": 2, "detail": "1.5 % of 1 %"},
        {"account_id": ACCOUNT, "symbol": SYMBOL, "rail": 4, "detail": "USD Payrolls"},
    ]
    (alarm,) = made.raise_alarm("", event_pb2.ALARM_CODE_NEWS_CALENDAR, "bad", START_S * S).events
    assert (alarm["account_id"], alarm["ticket"], alarm["alarm_raised"]) == ("", 0, {"code": 6, "detail": "bad"})
    (alarm,) = made.raise_alarm("2@Unknown", event_pb2.ALARM_CODE_GATEWAY_FAILED, "gone", START_S * S).events
    assert (alarm["account_id"], alarm["ticket"], alarm["symbol"]) == ("2@Unknown", 0, "")


def test_a_bar_says_whether_it_was_of_use() -> None:
    """A repeated bar is False, with no events."""
    made = defined()
    bar = (START_S - START_S % 900, 1.1, 1.101, 1.099, 1.1, 5.0)
    assert made.on_bar(ACCOUNT, SYMBOL, 900, *bar, START_S * S).reply is True
    assert made.on_bar(ACCOUNT, SYMBOL, 900, *bar, START_S * S).reply is False


def test_strategies_of_universal_are_its_own() -> None:
    """A managed strategy type makes the Universal Manager the first owner, under a lease."""
    made = ready()
    made.register(
        ACCOUNT, 5, SYMBOL, 2, 1.1, 0.1, 1.11, None, STRATEGIES[0], START_S * S, 1, "test", START_S * S, 1_000
    )
    owner = made.ownership(ACCOUNT, 5, 1_000)
    assert owner is not None
    assert owner["managed_by"] == "universal_sl_tp_manager"
    assert owner["lease_remaining_ms"] == 30_000
