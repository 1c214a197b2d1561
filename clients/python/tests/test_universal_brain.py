"""The Universal Manager from bars and trades to proposals and memos, without a wire."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dtms.v1.market_data_service_pb2 import Bar, ClosedBar, Quote
from dtms.v1.ownership_pb2 import RANK_DTMS_NORMAL, RANK_PROFIT_PROTECTION, RANK_STRATEGY
from dtms.v1.trade_pb2 import TRADE_STATE_CLOSED, TRADE_STATE_HEDGED, TRADE_STATE_WARNING_L1, TRADE_STATE_WARNING_L2
from dtms_client.managing.brain import NANOS
from dtms_client.managing.testing import BUY, NOW_NS
from dtms_client.managing.views import TradeView
from dtms_client.managing.wishes import MoveStop
from dtms_client.universal_manager.brain import MANAGER, UniversalManager
from dtms_client.universal_manager.strategies import PROFILES, FrozenRules, Session, freeze

ACCOUNT = "1@Demo"
ASIAN_NS = NOW_NS - NOW_NS % (86_400 * NANOS) + 3 * 3_600 * NANOS
REGISTERED = replace(
    BUY, managed_by=MANAGER, owner_rank=RANK_STRATEGY, strategy_type="order_block_rejection", opened_ns=ASIAN_NS
)


def priced(bid: float) -> Quote:
    return Quote(
        account_id=ACCOUNT, symbol="EURUSD", bid=bid, ask=bid + 1e-4, point=1e-5, volume_min=0.01, volume_step=0.01
    )


def bars(lows: Sequence[float], timeframe_s: int = 300) -> list[ClosedBar]:
    """Bars 20 points high, closing in the middle."""
    return [
        ClosedBar(
            account_id=ACCOUNT,
            symbol="EURUSD",
            timeframe_s=timeframe_s,
            bar=Bar(time_s=timeframe_s * index, open=low + 1e-4, high=low + 2e-4, low=low, close=low + 1e-4),
        )
        for index, low in enumerate(lows)
    ]


def remembered(manager: UniversalManager, trade: TradeView) -> TradeView:
    """The trade once DTMS keeps what the manager wants to remember."""
    (memo,) = manager.memos([trade], now_ns=NOW_NS)
    return replace(trade, memo=memo.text)


def stops(manager: UniversalManager, trade: TradeView) -> list[float]:
    wishes = [proposal.wish for proposal in manager.propose([trade], now_ns=NOW_NS)]
    return [wish.stop for wish in wishes if isinstance(wish, MoveStop)]


def test_nothing_is_proposed_before_dtms_keeps_the_rules() -> None:
    """First the memo, then the first change: what holds for a trade is known before anything depends on it."""
    manager = UniversalManager()
    manager.take_quotes([priced(1.12)])
    assert stops(manager, REGISTERED) == []
    assert stops(manager, remembered(manager, REGISTERED)) == [1.10021]


def test_rules_are_frozen_by_strategy_symbol_and_session_of_the_opening() -> None:
    """The Asian breakeven of a trade that was opened in Asia holds in London; without that time the registration
    counts."""
    manager = UniversalManager()
    (memo,) = manager.memos([REGISTERED], now_ns=NOW_NS + 9 * 3_600 * NANOS)
    assert FrozenRules.of(memo.text) == freeze("order_block_rejection", "EURUSD", Session.ASIAN, PROFILES["intraday"])
    late = replace(REGISTERED, opened_ns=0, registered_ns=ASIAN_NS + 6 * 3_600 * NANOS)
    assert FrozenRules.of(remembered(manager, late).memo).session is Session.LONDON


def test_a_memo_is_written_once_and_wins_over_the_table() -> None:
    """After a restart with another table, profile or suffixes the trade goes on by the rules of its beginning."""
    kept = replace(FrozenRules.of(remembered(UniversalManager(), REGISTERED).memo), breakeven_r=0.3)
    trade = replace(REGISTERED, memo=kept.memo())
    manager = UniversalManager(profile=PROFILES["swing"], suffixes=[])
    assert manager.memos([trade], now_ns=NOW_NS) == []
    manager.take_quotes([priced(1.103)])
    assert stops(manager, trade) == [1.10021]


def test_bars_of_the_service_move_the_stop() -> None:
    """A confirmed swing low of M5 carries the stop, 0.5 ATR behind it; bars of another length do not."""
    manager = UniversalManager()
    trade = replace(REGISTERED, strategy_type="trend_continuation_pullback", breakeven_triggered=True, stop=1.10021)
    trade = remembered(manager, trade)
    rising = [1.1 + 1e-4 * index for index in range(20)]
    dip = [1.109, 1.1085, 1.108, 1.109, 1.1095]
    manager.take_quotes([priced(1.112)])
    assert manager.take_bars(bars([*rising, *dip], 900)) == [(ACCOUNT, "EURUSD")] * 25
    assert stops(manager, trade) == []
    manager.take_bars(bars([*rising, *dip]))
    (stop,) = stops(manager, trade)
    # Its ATR is some 60 points after the jump to the dip.
    assert 1.108 - 0.0005 < stop < 1.108 - 0.0001


def test_bars_that_are_known_touch_nobody() -> None:
    """A bar that comes twice makes no work."""
    manager = UniversalManager()
    manager.take_bars(bars([1.1, 1.2]))
    assert manager.take_bars(bars([1.1, 1.2])) == []


def test_it_asks_for_the_bars_of_its_profile() -> None:
    """Each length once."""
    assert UniversalManager().timeframes_s == (60, 300, 900)
    assert UniversalManager(profile=PROFILES["swing"]).timeframes_s == (3_600, 14_400)


@pytest.mark.parametrize(
    ("changes", "claimed"),
    [
        ({}, True),
        ({"managed_by": "dtms_manager", "owner_rank": RANK_DTMS_NORMAL}, True),
        ({"managed_by": "", "owner_rank": 0}, True),
        ({"managed_by": "dtms_manager", "owner_rank": RANK_DTMS_NORMAL, "state": TRADE_STATE_WARNING_L1}, True),
        ({"managed_by": "other", "owner_rank": RANK_STRATEGY}, False),
        ({"managed_by": "other", "owner_rank": RANK_PROFIT_PROTECTION}, False),
        ({"strategy_type": ""}, False),
        ({"strategy_type": "moon_phase"}, False),
        ({"state": TRADE_STATE_WARNING_L2}, False),
        ({"state": TRADE_STATE_HEDGED}, False),
        ({"state": TRADE_STATE_CLOSED}, False),
        ({"quarantined": True}, False),
        ({"memo": "{}"}, False),
    ],
    ids=str,
)
def test_what_it_claims(changes: dict[str, Any], claimed: bool) -> None:
    """Trades of its strategies that it owns or that fell to DTMS; never one of another manager, in defence, or by rules
    that it cannot read."""
    assert UniversalManager().claims(replace(REGISTERED, **changes)) is claimed


def test_a_strategy_without_rules_is_left_alone_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """No silent default: no memo, no proposal, one line of log."""
    manager = UniversalManager()
    manager.take_quotes([priced(1.12)])
    trade = replace(REGISTERED, strategy_type="moon_phase")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert manager.memos([trade], now_ns=NOW_NS) == []
            assert stops(manager, trade) == []
    (record,) = caplog.records
    assert (record.message, record.__dict__["facts"]["strategy_type"]) == ("left alone", "moon_phase")


def test_a_memo_of_a_later_version_is_kept_and_the_trade_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be read is neither overwritten nor guessed."""
    manager = UniversalManager()
    manager.take_quotes([priced(1.12)])
    trade = replace(REGISTERED, memo=json.dumps({"version": 2}))
    with caplog.at_level(logging.ERROR):
        assert manager.memos([trade], now_ns=NOW_NS) == []
        assert stops(manager, trade) == []
    assert "version 2" in caplog.records[0].__dict__["facts"]["why"]
