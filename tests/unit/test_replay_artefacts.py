"""The folder of a run: what its files say, that they repeat, and that other parts can read them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dtms_service.broker.door import CommandKind
from dtms_service.errors import HistoryInvalid
from dtms_service.history import Tick, read
from dtms_service.replay.artefacts import BARS, BROKER_LOG, RESULTS, RUN, read_broker_writes
from dtms_service.replay.driver import Registration
from dtms_service.replay.entries import DonchianBreakout, parse_trades
from dtms_service.replay.job import HistoryJob, HistoryRun, open_run
from dtms_service.report import BrokerWrite, read_bars, read_results
from tests.unit.paper_world import CONFIG, SPEC, T0, TRADING
from tests.unit.replay_world import ServicePart, command, hedge, job, ticks

TRADE = "BUY@2017-01-03T10:00:00,0.10,sl=1.09900,tp=1.10300"


async def defend(run: HistoryRun, trade: Registration, _: Tick) -> None:
    await run.door.execute(command(trade, CommandKind.MODIFY, 1, sl=1.0995, tp=trade.tp))
    await run.door.execute(command(trade, CommandKind.MODIFY, 2, sl=1.2, tp=trade.tp))
    await run.door.execute(hedge(trade, 3, 0.05))
    await run.door.execute(command(trade, CommandKind.CLOSE, 4, volume=0.04))


async def run_once(out: Path) -> ServicePart:
    history = ticks([1.1, 1.1002, *[1.1001] * 60, 1.0994, 1.0994])
    with open_run(job(out, history, parse_trades([TRADE, TRADE.replace("sl=1.09900", "sl=1.5")]))) as run:
        service = ServicePart(run, {1: defend})
        await run.drive(service)
        return service


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / BROKER_LOG).read_text(encoding="utf-8").splitlines()]


async def test_the_same_history_leaves_the_same_files(tmp_path: Path) -> None:
    """All files repeat byte for byte, save for what run.json says about the wall clock."""
    for name in ("one", "two"):
        await run_once(tmp_path / name)
    for file in (BARS, BROKER_LOG, RESULTS):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    one, two = (json.loads((tmp_path / name / RUN).read_text(encoding="utf-8")) for name in ("one", "two"))
    assert one.pop("wall").keys() == two.pop("wall").keys() == {"seconds", "tick_done_us"}
    assert {**one, "sources": []} == {**two, "sources": []}


async def test_the_broker_log_names_who_asked_and_what_was_answered(tmp_path: Path) -> None:
    """Every request at the trade server is there in order, with its intent where it has one, and every trigger."""
    service = await run_once(tmp_path / "run")
    (trade,) = service.registered
    log = lines(tmp_path / "run")
    assert [line["seq"] for line in log] == list(range(1, len(log) + 1))
    told = [(line["event"], line.get("actor"), line.get("intent_id"), line.get("retcode")) for line in log]
    assert told == [
        ("request", "entry", None, 10009),
        ("entered", None, None, None),
        ("request", "entry", None, 10016),
        ("refused", None, None, 10016),
        ("request", "dtms", 1, 10009),
        ("request", "dtms", 2, 10016),
        ("request", "dtms", 3, 10009),
        ("request", "dtms", 4, 10009),
        ("deal", None, None, None),
    ]
    assert {line["ticket"] for line in log if line.get("actor") == "dtms"} == {trade.ticket}
    assert log[4] | {"action": "SLTP", "sl": 1.0995, "tp": 1.103, "time_msc": T0 + 1000} == log[4]
    assert log[-1] | {"reason": "STOP_LOSS", "comment": "[sl 1.09950]", "volume": 0.06, "remaining": 0.0} == log[-1]


async def test_accepted_writes_are_read_back_with_their_intents(tmp_path: Path) -> None:
    """Openings of the entry rule, refused requests and the broker's own triggers are no writes of a manager."""
    service = await run_once(tmp_path / "run")
    (trade,) = service.registered
    moment = (T0 + 1000) * 1_000_000
    assert list(read_broker_writes(tmp_path / "run" / BROKER_LOG)) == [
        BrokerWrite(moment, trade.ticket, 1),
        BrokerWrite(moment, trade.ticket + 1, 3),
        BrokerWrite(moment, trade.ticket, 4),
    ]


async def test_the_report_reads_bars_and_results(tmp_path: Path) -> None:
    """What the driver writes is what the report expects."""
    await run_once(tmp_path / "run")
    (bar,) = read_bars(tmp_path / "run" / BARS)
    assert (bar.time_s, bar.open, bar.high, bar.low, bar.close) == (T0 // 1000, 1.1, 1.1002, 1.1, 1.1001)
    assert bar.score is not None
    assert (bar.score.total, bar.score.parts[:2]) == (1.5, (1.0, 0.5))
    (result,) = read_results(tmp_path / "run" / RESULTS)
    assert (result.side, result.entry_price, result.initial_sl, result.volume) == ("BUY", 1.1001, 1.099, 0.1)
    # 0.04 closed at 1.1002, 0.06 stopped at 1.0994; the hedge of 0.05 sold at 1.1002 is still open at 1.0995.
    assert result.profit == pytest.approx(0.4 - 4.2 + 3.5)
    assert result.r == pytest.approx(-0.3 / 11)
    assert result.open_at_end


async def test_run_json_identifies_its_history(tmp_path: Path) -> None:
    """File name, hash, counts and virtual span."""
    await run_once(tmp_path / "run")
    run = json.loads((tmp_path / "run" / RUN).read_text(encoding="utf-8"))
    digest = hashlib.sha256((tmp_path / "run.csv").read_bytes()).hexdigest()
    assert run["sources"] == [{"file": "run.csv", "sha256": digest}]
    assert (run["ticks"], run["bars"], run["trades"], run["refused"], run["missed"]) == (64, 1, 1, 1, [])
    assert (run["first_msc"], run["last_msc"]) == (T0, T0 + 63_000)


async def test_an_interrupted_run_keeps_what_it_saw_and_says_nothing_of_results(tmp_path: Path) -> None:
    """results.json and run.json mean that the run is whole; those of an earlier run in the folder are gone."""
    await run_once(tmp_path / "run")

    async def fail(*_: object) -> None:
        raise HistoryInvalid(tmp_path, 3, "bid", "broken")

    with (
        pytest.raises(HistoryInvalid),
        open_run(job(tmp_path / "run", ticks([1.1, 1.1]), parse_trades([TRADE]))) as run,
    ):
        await run.drive(ServicePart(run, {1: fail}))
    assert [line["event"] for line in lines(tmp_path / "run")] == ["request", "entered"]
    assert not (tmp_path / "run" / RESULTS).exists()
    assert not (tmp_path / "run" / RUN).exists()


async def test_a_breakout_trades_real_gold(tmp_path: Path, shared_data: Path) -> None:
    """On two weeks of gold minutes the rule opens on both sides, and shadow and broker agree when nobody acts."""
    source = shared_data / "xauusd_m1_oanda_20140501_0515.csv.gz"
    gold = HistoryJob(
        sources=[source],
        ticks=lambda: read(source, point=0.001, spread_points=None, progress=lambda _read, _size: None),
        account=CONFIG,
        spec=replace(SPEC, name="XAUUSD", digits=3, point=0.001, tick_size=0.001, contract_size=100.0, stops_level=0),
        trading=replace(TRADING, currency_base="XAU", currency_margin="USD"),
        entries=DonchianBreakout(timeframe_s=3600, volume=0.01),
        strategy_types=("",),
        entry_magic=7,
        bar_s=900,
        path_period_s=60,
        out=tmp_path / "gold",
    )
    with open_run(gold) as run:
        result = await run.drive(ServicePart(run))
    assert {trade.side for trade in result.trades} == {"BUY", "SELL"}
    assert [trade.profit for trade in result.trades] == [trade.unprotected_profit for trade in result.trades]
    assert result.figures.bars == len(read_bars(tmp_path / "gold" / BARS)) > 900
    for trade in read_results(tmp_path / "gold" / RESULTS):
        assert trade.r is not None
        assert -2 < trade.r < 4, trade
