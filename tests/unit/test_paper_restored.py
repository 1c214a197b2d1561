"""A paper account that was put away with open positions and taken up again, before its quotes are back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dtms_service.broker.door import CloseReason
from dtms_service.broker.mt5_enums import SwapMode
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_store import PaperStore
from dtms_service.broker.retcodes import Retcode
from tests.unit.paper_world import CONFIG, HOUR, SPEC, T0, TRADING

OTHER = replace(SPEC, name="EURUSDm")
USDJPY = replace(SPEC, name="USDJPY", digits=3, point=0.001, tick_size=0.001, currency_profit="JPY")
JPY_TRADING = replace(TRADING, currency_base="USD", currency_margin="USD", swap_mode=SwapMode.POINTS, swap_long=-10.0)


def account(path: Path) -> tuple[PaperBroker, PaperStore]:
    broker = PaperBroker(CONFIG)
    broker.add_symbol(SPEC, TRADING)
    broker.add_symbol(OTHER, TRADING)
    broker.add_symbol(USDJPY, JPY_TRADING)
    return broker, PaperStore(path, broker)


def put_away(path: Path) -> tuple[PaperBroker, int, int]:
    """One long each in EURUSD (stop 1.09) and USDJPY; the books are saved and closed."""
    broker, store = account(path)
    broker.on_tick("EURUSD", T0, 1.1, 1.1001)
    broker.on_tick("USDJPY", T0, 100.0, 100.01)
    euro = broker.order_send({"action": 1, "symbol": "EURUSD", "type": 0, "volume": 1.0, "sl": 1.09}).order
    yen = broker.order_send({"action": 1, "symbol": "USDJPY", "type": 0, "volume": 1.0}).order
    store.close()
    return broker, euro, yen


def test_margin_comes_back_with_the_positions(tmp_path: Path) -> None:
    """Margin is there at once; what cannot be valued yet counts nothing instead of a loss down to price zero."""
    before = put_away(tmp_path / "paper.db")[0].account()
    broker, store = account(tmp_path / "paper.db")
    now = broker.account()
    assert (now.margin, now.balance, now.equity) == (before.margin, before.balance, before.balance)
    store.close()


def test_a_tick_of_another_symbol_closes_nothing(tmp_path: Path) -> None:
    """Before its own quote a restored position is neither triggered nor stopped out nor tradable."""
    _, euro, yen = put_away(tmp_path / "paper.db")
    broker, store = account(tmp_path / "paper.db")
    assert broker.on_tick("EURUSDm", T0 + 1000, 1.1, 1.1001) == []
    assert [p.ticket for p in broker.positions()] == [euro, yen]
    close = {"action": 1, "symbol": "USDJPY", "type": 1, "volume": 1.0, "position": yen}
    assert broker.order_send(close).retcode == Retcode.PRICE_OFF
    [deal] = broker.on_tick("EURUSD", T0 + 2000, 1.08, 1.0801)
    assert (deal.position, deal.reason, deal.price) == (euro, CloseReason.STOP_LOSS, 1.08)
    store.close()


def test_the_nights_that_were_slept_are_charged(tmp_path: Path) -> None:
    """From Tuesday to Thursday are 1 + 3 nights, charged once the yen has a rate; one position knows its ticket."""
    _, _, yen = put_away(tmp_path / "paper.db")
    broker, store = account(tmp_path / "paper.db")
    broker.on_tick("EURUSD", T0 + 48 * HOUR, 1.1, 1.1001)
    slept = broker.position(yen)
    assert slept is not None
    assert slept.swap == 0.0
    broker.on_tick("USDJPY", T0 + 48 * HOUR, 100.0, 100.01)
    broker.on_tick("USDJPY", T0 + 48 * HOUR, 100.0, 100.01)
    charged = broker.position(yen)
    assert charged is not None
    assert charged.swap == round(-4 * 10 * 0.001 * 100_000 / 100.0, 2)
    assert broker.position(1) is None
    store.close()
