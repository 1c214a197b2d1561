"""Closed bars and their cache on disk."""

from __future__ import annotations

from pathlib import Path

from dtms_service.bar_store import BarStore
from dtms_service.bars import KEPT, SHORTEST_S, TIMEFRAMES_S, Closed, ClosedBar, ClosedBars, Wanted

T0_S = 1_700_006_400
ALL = Wanted("", frozenset(), TIMEFRAMES_S)


def bar(time_s: int, close: float = 1.0) -> ClosedBar:
    return ClosedBar(time_s, 1.0, 2.0, 0.5, close, 3.0)


def closed(time_s: int, timeframe_s: int = 60, symbol: str = "EURUSD") -> Closed:
    return Closed(1, "7@paper", symbol, timeframe_s, bar(time_s))


def test_bars_are_found_again_the_longest_first_and_in_order(tmp_path: Path) -> None:
    """A restart reads what was kept: each kind once, in order of time; a bar that comes again replaces itself."""
    store = BarStore(tmp_path / "bars.db")
    store.add([closed(T0_S + 60), closed(T0_S), closed(T0_S, 900), closed(T0_S, symbol="XAUUSD")])
    store.add([closed(T0_S)])
    store.close()
    store = BarStore(tmp_path / "bars.db")
    found = [(symbol, timeframe_s, bar.time_s) for symbol, timeframe_s, bar in store.load("7@paper")]
    assert found == [
        ("EURUSD", 900, T0_S),
        ("EURUSD", 60, T0_S),
        ("EURUSD", 60, T0_S + 60),
        ("XAUUSD", 60, T0_S),
    ]
    assert list(store.load("8@paper")) == []
    store.close()


def test_only_the_last_bars_of_a_kind_stay(tmp_path: Path) -> None:
    """The file does not grow for ever."""
    store = BarStore(tmp_path / "bars.db")
    for index in range(KEPT + 100):
        store.add([closed(T0_S + 60 * index)])
    times = [bar.time_s for _symbol, _timeframe, bar in store.load("7@paper")]
    assert times == [T0_S + 60 * index for index in range(100, KEPT + 100)]
    store.close()


def test_a_damaged_file_is_set_aside_and_the_indicators_start_cold(tmp_path: Path) -> None:
    """It is a cache: nothing refuses to start for it, and nothing is thrown away in silence."""
    path = tmp_path / "bars.db"
    path.write_bytes(b"no database at all" * 100)
    store = BarStore(path)
    assert list(store.load("7@paper")) == []
    store.add([closed(T0_S)])
    store.close()
    assert (tmp_path / "bars.damaged").read_bytes().startswith(b"no database")


def test_a_store_that_fails_stops_keeping_and_stops_nothing_else(tmp_path: Path) -> None:
    """A disk that takes no more bars must not end the service: prices go on."""
    store = BarStore(tmp_path / "bars.db")
    store.close()
    store.add([closed(T0_S)])
    store.add([closed(T0_S)])


def test_longer_bars_are_rebuilt_from_the_minutes_of_before(tmp_path: Path) -> None:
    """A restart in the middle of an hour costs no hour: its minutes are known, and those that come complete it."""
    before, after = ClosedBars(), ClosedBars()
    store = BarStore(tmp_path / "bars.db")
    before.on_closed = store.add
    hour_s = T0_S - T0_S % 3_600
    for minute in range(-1, 40):
        before.tick("7@paper", "EURUSD", (hour_s + 60 * minute) * 1000, 1.0 + minute / 1000, 1.0)
    for symbol, timeframe_s, kept in store.load("7@paper"):
        after.feed("7@paper", symbol, timeframe_s, kept, tell=False)
    for minute in range(40, 62):
        after.tick("7@paper", "EURUSD", (hour_s + 60 * minute) * 1000, 1.0 + minute / 1000, 1.0)
    hours = after.since(0, ALL._replace(timeframes_s=(3_600,)))
    assert [(found.bar.time_s, found.bar.open, found.bar.close) for found in hours] == [(hour_s, 1.0, 1.059)]
    minutes = after.since(0, ALL._replace(timeframes_s=(SHORTEST_S,)))
    # The minute in which the restart fell was not seen from its beginning by either.
    assert [found.bar.time_s for found in minutes][:40] == [hour_s + 60 * minute for minute in range(39)] + [
        hour_s + 60 * 41
    ]
    store.close()
