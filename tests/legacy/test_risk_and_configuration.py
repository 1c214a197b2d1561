"""Defects of the system that DTMS replaces, where money was lost to a missing number or a key that nobody read.

The numbers are those of the list in docs/legacy-defects.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dtms.v1 import action_pb2, event_pb2, trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_service.config import Config, all_keys, load
from dtms_service.errors import ConfigInvalid
from tests.grpc.watching import all_until
from tests.stack import Stack
from tests.test_house import test_every_configuration_key_has_a_reader as every_key_has_a_reader

BUY, SELL = trade_pb2.SIDE_BUY, trade_pb2.SIDE_SELL
WORSE = {BUY: -9.0, SELL: 9.0}
"""A score for a BUY that is as bad as can be for a trade of the side."""


async def events_of(stack: Stack, ticket: int) -> list[Event]:
    """Everything that has happened to a trade."""
    watch = await stack.stream("viewer", WatchRequest(start_revision=1))
    events = await all_until(watch, stack.system.desk.commits.durable_revision)
    return [event for event in events if event.ticket == ticket]


@pytest.mark.parametrize("is_warm", [True, False], ids=["with ATR", "without ATR"])
@pytest.mark.parametrize("side", [BUY, SELL], ids=["buy", "sell"])
async def test_d33_without_a_stop_there_is_no_zero_risk_and_the_target_stays(
    stack: Stack, side: trade_pb2.Side.ValueType, *, is_warm: bool
) -> None:
    """A trade without a stop gets R from ATR, and one at a distance from the price; without ATR none. The target stays.

    Before: a missing stop was a risk of 0, so that "0.3 R behind the price" was the price, and the target was wiped.
    """
    if is_warm:
        await stack.warm_up()
    sign = 1 if side == BUY else -1
    target = round(1.1 + sign * 0.01, 5)
    trade = await stack.trade(side, tp=target)
    await stack.tick(1.1)
    await stack.report_score(WORSE[side] / 3)
    ((_volume, sl, tp),) = stack.held().values()
    assert tp == target
    after = await stack.get_trade(trade.ticket)
    if is_warm:
        assert after.risk_source == trade_pb2.RISK_SOURCE_ATR
        price = stack.bid if side == BUY else stack.bid + 0.0001
        assert sl is not None
        assert (price - sl) * sign >= 0.3 * after.risk_distance - 1e-9 > 0
    else:
        assert (sl, after.HasField("risk_distance")) == (None, False)


@pytest.mark.parametrize("side", [BUY, SELL], ids=["buy", "sell"])
async def test_d34_without_atr_there_is_no_hedge(stack: Stack, side: trade_pb2.Side.ValueType) -> None:
    """The hedge is skipped, with its reason and an alarm; nothing is opened with an invented distance.

    Before: a missing ATR was 0.001 in the price, whatever the symbol: a hedge stop of a tenth of a cent on BTC.
    """
    trade = await stack.trade(side)
    await stack.tick(1.1)
    await stack.report_score(WORSE[side])
    events = await events_of(stack, trade.ticket)
    skipped = [event.action_skipped for event in events if event.HasField("action_skipped")]
    hedge = next(skip for skip in skipped if skip.action.kind == action_pb2.ACTION_KIND_OPEN_HEDGE)
    assert hedge.reason == action_pb2.SKIP_REASON_NO_ATR
    alarms = [event.alarm_raised.code for event in events if event.HasField("alarm_raised")]
    assert alarms == [event_pb2.ALARM_CODE_HEDGE_FAILED]
    assert set(stack.held()) == {trade.ticket}


@pytest.mark.parametrize("section", ["", *sorted({key.rpartition(".")[0] for key in all_keys()} - {""})])
def test_d45_an_unknown_key_stops_the_start(section: str, tmp_path: Path) -> None:
    """A key that is misspelt would protect nothing: in every section it is an error, from a file and from outside."""
    path = [part.upper() for part in section.split(".") if part]
    variable = "__".join(["DTMS", *path, "SAFETY_RIAL"]).replace("DTMS__", "DTMS_", 1)
    with pytest.raises(ConfigInvalid, match=variable):
        load(None, {"DTMS_DATA_DIR": str(tmp_path), variable: "1"})
    assert Config.model_config.get("extra") == "forbid"


def test_d45_every_key_is_read() -> None:
    """Before: safety_rails, start_conditions and allowed_actions stood in the configuration, and nobody read them."""
    every_key_has_a_reader()
    assert {"rails.daily_loss_percent", "rails.news_calendar", "engine.stale_after_s"} <= set(all_keys())
