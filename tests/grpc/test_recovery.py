"""How a service starts: every trade compared with its broker before anybody may change anything (I22, I23, I24)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dtms.v1 import action_pb2, admin_service_pb2, event_pb2, trade_pb2
from dtms.v1.arbitration_service_pb2 import ProposeRequest
from dtms.v1.event_pb2 import Event
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.trade_status_service_pb2 import WatchFilter, WatchRequest
from dtms_client.errors import DtmsError, Unavailable
from dtms_service import symbols
from dtms_service.broker.door import AccountInfo, Side
from dtms_service.broker.faults import Gate, Leg
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_symbols import list_symbols
from dtms_service.broker.retcodes import LastError
from dtms_service.config import Config
from dtms_service.errors import DtmsError as Undecided
from dtms_service.paper_account import PaperAccount
from dtms_service.stage import Stage
from tests import wire
from tests.grpc.test_course import told_until
from tests.grpc.watching import all_until
from tests.stack import EXIT_MANAGER, SYMBOL, Stack, attach_paper, close_all, running, stop_at

L2, HEDGED, RECOVERING = (
    trade_pb2.TRADE_STATE_WARNING_L2,
    trade_pb2.TRADE_STATE_HEDGED,
    trade_pb2.TRADE_STATE_RECOVERING,
)
HEALTHY, CLOSED = trade_pb2.TRADE_STATE_HEALTHY, trade_pb2.TRADE_STATE_CLOSED
OTHER = "2000@paper"


async def events_of(stack: Stack, ticket: int) -> list[Event]:
    """Everything about a trade so far."""
    request = WatchRequest(start_revision=1, filter=WatchFilter(tickets=[ticket]), progress_interval_ms=100)
    return await all_until(await stack.stream("viewer", request), stack.system.desk.engine.revision)


def by_hand(stack: Stack) -> ForeignActor:
    """Somebody at the account, past DTMS, whether a service runs or not."""
    assert stack.system.paper is not None
    return ForeignActor(stack.system.paper.broker)


def prices(stack: Stack, bid: float, after_ms: int = 1000) -> None:
    """A price that only the broker sees."""
    paper = stack.system.paper
    assert paper is not None
    paper.broker.on_tick(SYMBOL, paper.broker.now_msc + after_ms, bid, round(bid + 0.0001, 5))


async def hedged(stack: Stack) -> trade_pb2.Trade:
    """A trade of half a lot with its hedge of a quarter."""
    await stack.warm_up()
    trade = await stack.trade()
    await stack.tick(1.1021)
    await stack.report_score(-10.5)
    now = await stack.get_trade(trade.ticket)
    assert (now.state, now.phase) == (HEDGED, trade_pb2.STATE_PHASE_CONFIRMED)
    return now


def other_account(config: Config) -> PaperAccount:
    """A second account, whose broker outlives the service."""
    assert config.paper is not None
    broker = PaperBroker(replace(config.paper.to_broker(), account_id=OTHER))
    list_symbols(broker, [symbols.load(SYMBOL, {}).spec])
    broker.on_tick(SYMBOL, 1_700_000_000_000, 1.1, 1.1001)
    return PaperAccount(broker, None)


async def refusal(stack: Stack, trade: trade_pb2.Trade) -> DtmsError:
    """How a proposal is refused, by a client that does not try again."""
    plain = await stack.exits.enter_async_context(grpc.aio.insecure_channel(stack.server.address))
    request = ProposeRequest(
        request_id="refused", account_id=trade.account_id, ticket=trade.ticket, action=stop_at(1.0961)
    )
    metadata = (await stack.client(EXIT_MANAGER)).metadata
    with pytest.raises(Unavailable) as told:
        await wire.call(plain, request, metadata=metadata, timeout_s=5)
    return told.value


class Switched(PaperAccount):
    """Whatever account it is asked for, the terminal is logged in to another one."""

    async def account(self, account_id: str) -> AccountInfo:  # noqa: ARG002
        return await super().account(self.account_id)


# -- I22: no write before the comparison ends --------------------------------------------------------------------------


async def test_i22_one_account_that_is_not_compared_holds_up_all_writes(tmp_path: Path) -> None:
    """I22: with two accounts in the journal nothing is served while one is away, nor while it is being compared."""
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
        other = other_account(stack.config)
        other.by_hand(lambda actor: actor.open(SYMBOL, Side.BUY, 1.0, 1.09, 0.0))
        await stack.system.attach(OTHER, other, [SYMBOL])
    async with running(tmp_path / "data", attach=False) as stack:
        viewer = await stack.client("viewer")
        channel = viewer.channel
        health = health_pb2_grpc.HealthStub(channel)

        async def refused() -> str:
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == (
                health_pb2.HealthCheckResponse.NOT_SERVING
            )
            assert (await refusal(stack, trade)).reason == "RECOVERING"
            status = await viewer.system_status()
            assert status.stage == admin_service_pb2.SERVICE_STAGE_RECOVERING
            return status.recovery_detail

        assert OTHER in await refused()
        await attach_paper(stack.system)
        assert await refused() == f"waiting for the gateway of {OTHER}"
        gate = other.broker.faults.latency = Gate("positions", Leg.REPLY)
        attaching = asyncio.create_task(stack.system.attach(OTHER, other, [SYMBOL]))
        await gate.arrived.wait()
        assert f"comparing the trades with the positions of {OTHER}" in await refused()
        gate.open()
        await attaching
        assert (await viewer.system_status()).recovery_detail == ""
        assert stack.system.stage is Stage.SERVING


async def test_i22_an_account_that_comes_back_is_compared_before_it_is_commanded(tmp_path: Path) -> None:
    """While its gateway is away, and until its trades are compared again, a proposal is UNAVAILABLE; others go on."""
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
        paper = stack.system.paper
        assert paper is not None
        stack.system.detach(paper.account_id, paper)

        refused = await refusal(stack, trade)
        assert refused.reason == "BROKER_DISCONNECTED"
        assert "wait for its gateway" in refused.message
        by_hand(stack).modify(trade.ticket, 1.0971, 1.1101)
        gate = stack.faults.latency = Gate("positions", Leg.REPLY)
        attaching = asyncio.create_task(attach_paper(stack.system))
        await gate.arrived.wait()
        assert "are being compared" in (await refusal(stack, trade)).message
        gate.open()
        await attaching
        now = await stack.get_trade(trade.ticket)
        assert now.confirmed.sl == 1.0971
        answer = await stack.propose(now, stop_at(1.0961))
        assert answer.decision.denial == action_pb2.DENIAL_CODE_LOOSENS


async def test_recovery_waits_for_a_broker_that_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I21, I22: no answer is no empty account: attempts go on, with pauses, seen in the status, until it answers."""
    monkeypatch.setattr("dtms_service.recovery.RETRY_S", 0.05)
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
    async with running(tmp_path / "data", attach=False) as stack:
        viewer = await stack.client("viewer")
        stack.faults.kill_terminal()
        attaching = asyncio.create_task(attach_paper(stack.system))
        details = set[str]()
        while len(details) < 3:
            details.add((await viewer.system_status()).recovery_detail)
        waits = sorted(detail for detail in details if detail.startswith("waiting"))
        assert len(waits) >= 2, details
        assert "1000@paper" in waits[0]
        assert "attempt" in waits[0]
        assert not attaching.done()
        stack.faults.start_terminal()
        await attaching
        assert (await stack.get_trade(trade.ticket)).state == HEALTHY
        assert stack.system.doors.ready("1000@paper")


async def test_an_account_that_is_not_the_one_named_is_refused(tmp_path: Path) -> None:
    """A broker that answers for another account is not believed: nothing of it is compared with anything."""
    async with running(tmp_path / "data") as stack:
        other = other_account(stack.config)
        stranger = Switched(other.broker, None)
        with pytest.raises(Undecided, match=f"answers for {OTHER}"):
            await stack.system.attach("3000@paper", stranger, [SYMBOL])
        assert not stack.system.doors.attached("3000@paper")


# -- I23: what is where ------------------------------------------------------------------------------------------------


async def test_i23_positions_of_nobody_are_adopted_once(tmp_path: Path) -> None:
    """I23, I24: only at the broker: taken in as external, without an owner; a second start adds nothing."""
    async with running(tmp_path / "data") as stack:
        await stack.tick(1.1)
        body = await stack.open_position(sl=1.0951)
    async with running(tmp_path / "data") as stack:
        trade = await stack.get_trade(body.ticket)
        assert (trade.origin, trade.managed_by) == (trade_pb2.ORIGIN_EXTERNAL, "")
        assert (trade.entry_price, trade.volume, trade.confirmed.sl) == (1.1001, 1.0, 1.0951)
        revision = stack.system.desk.engine.revision
    async with running(tmp_path / "data") as stack:
        assert stack.system.desk.engine.revision == revision


async def test_i23_a_stop_in_profit_hinders_no_adoption(tmp_path: Path) -> None:
    """A position whose stop was trailed beyond its entry is adopted too, and the service starts."""
    async with running(tmp_path / "data") as stack:
        await stack.tick(1.1)
        body = await stack.open_position()
        await stack.tick(1.12)
        by_hand(stack).modify(body.ticket, 1.11, 0.0)
    async with running(tmp_path / "data") as stack:
        trade = await stack.get_trade(body.ticket)
        assert (trade.origin, trade.confirmed.sl) == (trade_pb2.ORIGIN_EXTERNAL, 1.11)


async def test_i23_an_adopted_position_is_its_clients_once_it_registers_it(tmp_path: Path) -> None:
    """A bot that registers what it opened a moment after DTMS has adopted it gets its trade, owner and strategy."""
    async with running(tmp_path / "data") as stack:
        await stack.tick(1.1)
        body = await stack.open_position(sl=1.0951)
        await stack.tick(1.1)
        assert (await stack.get_trade(body.ticket)).origin == trade_pb2.ORIGIN_EXTERNAL
        body.strategy_type = "default_standard"
        feed = await stack.client("feed")
        trade = (await feed.register_trade(body)).trade
        assert (trade.origin, trade.managed_by) == (trade_pb2.ORIGIN_CLIENT, "universal_sl_tp_manager")
        assert not (await feed.register_trade(body)).created


async def test_i23_volume_and_levels_are_the_brokers(tmp_path: Path) -> None:
    """In both, with another volume and other levels: taken from the broker, recorded as external."""
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
    async with running(tmp_path / "data", attach=False) as stack:
        prices(stack, 1.1)
        by_hand(stack).modify(trade.ticket, 1.0971, 0.0)
        by_hand(stack).close(trade.ticket, 0.4)
        await attach_paper(stack.system)
        now = await stack.get_trade(trade.ticket)
        assert (now.state, now.volume, now.confirmed.sl) == (HEALTHY, 0.6, 1.0971)
        assert not now.confirmed.HasField("tp")
        (changed,) = [
            e.position_changed for e in await events_of(stack, trade.ticket) if e.HasField("position_changed")
        ]
        assert (changed.external, changed.volume) == (True, 0.6)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("hand", event_pb2.CLOSE_REASON_CLIENT),
        ("stop", event_pb2.CLOSE_REASON_STOP_LOSS),
        ("target", event_pb2.CLOSE_REASON_TAKE_PROFIT),
    ],
)
async def test_i23_a_trade_that_ended_meanwhile_is_closed_by_its_deal(
    tmp_path: Path, how: str, reason: event_pb2.CloseReason.ValueType
) -> None:
    """Only in the journal, with a closing deal: CLOSED, with the deal's reason and price."""
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
    async with running(tmp_path / "data", attach=False) as stack:
        prices(stack, 1.1)
        if how == "hand":
            by_hand(stack).close(trade.ticket, 1.0)
        else:
            prices(stack, 1.0950 if how == "stop" else 1.1102)
        await attach_paper(stack.system)
        (gone,) = [event.leg_closed for event in await events_of(stack, trade.ticket) if event.HasField("leg_closed")]
        assert gone.reason == reason
        assert (await stack.get_trade(trade.ticket)).state == CLOSED


async def test_i23_without_a_deal_a_trade_is_quarantined_only_after_positive_reports(tmp_path: Path) -> None:
    """Only in the journal, no closing deal: nothing at first; reports that fail do not count; then QUARANTINED."""
    async with running(tmp_path / "data", {"reconciliation.missing_ms": 300}) as stack:
        await stack.tick(1.1)
        body = Registration(ticket=999, symbol=SYMBOL, side=trade_pb2.SIDE_BUY, entry_price=1.1001, volume=1.0)
        ghost = (await (await stack.client("feed")).register_trade(body)).trade
    async with running(tmp_path / "data", {"reconciliation.missing_ms": 300}) as stack:
        assert not (await stack.get_trade(ghost.ticket)).quarantined
        for _ in range(3):
            stack.faults.fail_calls(LastError.INTERNAL_FAIL_TIMEOUT)
            by_hand(stack).open(SYMBOL, Side.BUY, 0.01, 0.0, 0.0)
            await stack.tick(1.1)
        assert not (await stack.get_trade(ghost.ticket)).quarantined
        watch = await stack.stream("viewer", WatchRequest(start_revision=1))
        async with asyncio.timeout(10):  # no price comes: the timer looks again
            while not (await stack.get_trade(ghost.ticket)).quarantined:
                await watch.read()
        now = await stack.get_trade(ghost.ticket)
        assert now.state == HEALTHY
        assert (await stack.propose(now, close_all())).decision.denial == action_pb2.DENIAL_CODE_HALTED
        alarms = [e.alarm_raised.code for e in await events_of(stack, ghost.ticket) if e.HasField("alarm_raised")]
        assert alarms == [event_pb2.ALARM_CODE_QUARANTINED]


async def test_i23_a_late_deal_lifts_the_quarantine(tmp_path: Path) -> None:
    """A history that shows the closing deal only later: quarantined meanwhile, CLOSED by the deal when it comes."""
    async with running(tmp_path / "data", {"reconciliation.missing_ms": 0}) as stack:
        trade = await stack.trade()
        by_hand(stack).close(trade.ticket, 1.0)
        assert stack.system.paper is not None
        ledger = stack.system.paper.broker.book.ledger
        hidden = ledger._by_position.pop(trade.ticket)  # a history that is not there yet
        await stack.tick(1.1)
        by_hand(stack).open(SYMBOL, Side.BUY, 0.01, 0.0, 0.0)
        await stack.tick(1.1)
        assert (await stack.get_trade(trade.ticket)).quarantined
        ledger._by_position[trade.ticket] = hidden
        by_hand(stack).open(SYMBOL, Side.BUY, 0.01, 0.0, 0.0)
        await stack.tick(1.1)
        now = await stack.get_trade(trade.ticket)
        assert (now.state, now.quarantined) == (CLOSED, False)


@pytest.mark.parametrize(
    ("what", "state"), [("stands", HEDGED), ("partly", HEDGED), ("by hand", L2), ("stopped out", RECOVERING)]
)
async def test_i23_the_hedge_is_what_the_broker_has(
    tmp_path: Path, what: str, state: trade_pb2.TradeState.ValueType
) -> None:
    """A hedge that stands, was closed in part, by hand or by its stop while nobody looked: the state follows."""
    async with running(tmp_path / "data", {"engine.flat_timer_slow_bars": 1000}) as stack:
        trade = await hedged(stack)
    async with running(tmp_path / "data", {"engine.flat_timer_slow_bars": 1000}, attach=False) as stack:
        prices(stack, 1.1021)
        if what == "partly":
            by_hand(stack).close(trade.hedge.ticket, 0.05)
        elif what == "by hand":
            by_hand(stack).close(trade.hedge.ticket, 0.25)
        elif what == "stopped out":
            prices(stack, round(trade.hedge.sl + 0.0002, 5))
        await attach_paper(stack.system)
        await stack.system.executor.idle()
        now = await stack.get_trade(trade.ticket)
        assert now.state == state
        held = {"stands": 0.25, "partly": 0.2}.get(what)
        assert (now.hedge.volume if now.HasField("hedge") else None) == held
        assert set(stack.held()) == {trade.ticket} | ({trade.hedge.ticket} if held else set())


@pytest.mark.parametrize("what", ["stands", "closed again", "never sent"])
async def test_i23_a_hedge_whose_outcome_was_unknown_at_the_crash_is_linked(tmp_path: Path, what: str) -> None:
    """The order of the hedge was under way when the service died: found by its comment, never opened a second time."""
    settings = {"server.drain_ms": 200, "engine.flat_timer_slow_bars": 1000}
    async with running(tmp_path / "data", settings) as stack:
        await stack.warm_up()
        trade = await stack.trade()
        await stack.tick(1.1021)
        await stack.report_score(-5.5)
        leg = Leg.REQUEST if what == "never sent" else Leg.REPLY
        gate = stack.faults.latency = Gate("execute", leg)
        reporting = asyncio.create_task(stack.report_score(-10.5))
        await gate.arrived.wait()
        await stack.server.stop()
        reporting.cancel()
    async with running(tmp_path / "data", settings, attach=False) as stack:
        (intent,) = stack.system.desk.engine.open_intents()
        assert intent["kind"] == action_pb2.ACTION_KIND_OPEN_HEDGE
        prices(stack, 1.1021)
        hedge = next((ticket for ticket in stack.held() if ticket != trade.ticket), None)
        if what == "closed again":
            assert hedge is not None
            by_hand(stack).close(hedge, 0.25)
        await attach_paper(stack.system)
        now = await stack.get_trade(trade.ticket)
        outcomes = [e.outcome_recorded.outcome for e in await events_of(stack, trade.ticket)]
        settled = next(o for o in outcomes if o.intent_id == intent["intent_id"])
        assert settled.settled
        if what == "never sent":
            assert settled.status == action_pb2.OUTCOME_STATUS_REJECTED
            assert set(stack.held()) == {trade.ticket}
            await stack.warm_up()
            await stack.tick(1.1021, after_ms=60_000)
            await told_until(stack, trade, HEDGED)
            now = await stack.get_trade(trade.ticket)
            assert set(stack.held()) == {trade.ticket, now.hedge.ticket}
        elif what == "stands":
            assert (now.state, now.hedge.ticket) == (HEDGED, hedge)
            assert set(stack.held()) == {trade.ticket, hedge}
        else:
            assert (now.state, now.HasField("hedge")) == (L2, False)
            gone = [e.leg_closed for e in await events_of(stack, trade.ticket) if e.HasField("leg_closed")]
            assert [(leg.position, leg.reason) for leg in gone] == [(hedge, event_pb2.CLOSE_REASON_CLIENT)]
            assert set(stack.held()) == {trade.ticket}


# -- I24: twice is once ------------------------------------------------------------------------------------------------


async def test_i24_a_second_recovery_adds_nothing_to_the_journal(tmp_path: Path) -> None:
    """However much the first recovery has found changed, the second and third leave the journal byte for byte."""
    settings = {"reconciliation.missing_ms": 0, "engine.flat_timer_slow_bars": 1000}
    async with running(tmp_path / "data", settings) as stack:
        trade = await hedged(stack)
        moved, gone = await stack.trade(), await stack.trade()
        body = Registration(ticket=999, symbol=SYMBOL, side=trade_pb2.SIDE_BUY, entry_price=1.1001, volume=1.0)
        await (await stack.client("feed")).register_trade(body)
    heads = list[tuple[int, str]]()
    for round_ in range(3):
        async with running(tmp_path / "data", settings, attach=False) as stack:
            if not round_:
                prices(stack, 1.1021)
                by_hand(stack).modify(moved.ticket, 1.0971, 0.0)
                by_hand(stack).close(gone.ticket, 1.0)
                by_hand(stack).close(trade.hedge.ticket, 0.05)
                by_hand(stack).open(SYMBOL, Side.SELL, 0.5, 0.0, 0.0)
            await attach_paper(stack.system)
            await stack.system.desk.settled()
            heads.append((stack.system.desk.engine.revision, await stack.system.desk.commits.chain_head()))
    assert heads[0] == heads[1] == heads[2]
