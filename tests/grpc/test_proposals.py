"""Proposals over the wire: what is granted reaches the broker once, what is denied is data with its reason."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from dtms.v1 import action_pb2, ownership_pb2, trade_pb2
from dtms.v1.action_pb2 import Action, DenialCode
from dtms.v1.admin_service_pb2 import SetKillSwitchRequest
from dtms.v1.arbitration_service_pb2 import ProposeRequest
from dtms.v1.event_pb2 import KILL_SCOPE_MANAGER
from dtms.v1.registry_service_pb2 import RegisterTradeRequest
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client import errors
from dtms_service.broker.faults import Gate, Leg
from tests.grpc.watching import all_until
from tests.stack import DTMS, EXIT_MANAGER, UNIVERSAL, Stack, close_all, part_of, running, stop_at, target_at


def broker_calls(stack: Stack) -> int:
    """How many commands the executor has sent."""
    return stack.system.executor.calls.figures().count


async def test_a_granted_stop_is_what_the_broker_echoed(stack: Stack) -> None:
    """The answer carries decision and outcome; trade and broker show the stop, the target is kept (I11)."""
    trade = await stack.trade()
    answer = await stack.propose(trade, stop_at(1.0961))
    decision, outcome = answer.decision, answer.outcome
    assert (decision.granted, decision.denial) == (True, action_pb2.DENIAL_CODE_UNSPECIFIED)
    assert (decision.manager, decision.rank) == (EXIT_MANAGER, ownership_pb2.RANK_PROFIT_PROTECTION)
    assert (decision.owner, decision.owner_epoch, decision.asked_epoch) == (DTMS, trade.owner_epoch, trade.owner_epoch)
    assert (decision.bid, decision.ask, decision.confirmed_sl) == (1.1, 1.1001, 1.0951)
    assert (outcome.status, outcome.retcode) == (action_pb2.OUTCOME_STATUS_CONFIRMED, 10009)
    assert (outcome.sl, outcome.tp) == (1.0961, 1.1101)
    shown = (await stack.get_trade(trade.ticket)).confirmed
    assert (shown.sl, shown.tp) == (1.0961, 1.1101)
    assert shown.set_by_rank == ownership_pb2.RANK_PROFIT_PROTECTION
    assert stack.held()[trade.ticket] == (1.0, 1.0961, 1.1101)


async def test_a_moved_target_keeps_the_stop(stack: Stack) -> None:
    """I11: only the named level changes."""
    trade = await stack.trade()
    answer = await stack.propose(trade, target_at(1.1121))
    assert (answer.outcome.sl, answer.outcome.tp) == (1.0951, 1.1121)
    assert stack.held()[trade.ticket] == (1.0, 1.0951, 1.1121)


async def test_the_stop_is_confirmed_only_when_the_broker_has_echoed_it(stack: Stack) -> None:
    """I9, I14: while the command is at the broker the old stop is shown, and another change is IN_FLIGHT."""
    trade = await stack.trade()
    gate = stack.faults.latency = Gate("execute", Leg.REPLY)
    asked = asyncio.create_task(stack.propose(trade, stop_at(1.0961)))
    await gate.arrived.wait()
    assert stack.held()[trade.ticket][1] == 1.0961
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0951
    second = await stack.propose(trade, stop_at(1.0971))
    assert second.decision.denial == action_pb2.DENIAL_CODE_IN_FLIGHT
    assert second.decision.retryable
    gate.open()
    assert (await asked).outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0961


async def test_a_partial_close_leaves_ticket_stop_and_target(stack: Stack) -> None:
    """The named volume goes, the rest of the trade stands as it was, and the manager's partial is on record."""
    trade = await stack.trade()
    answer = await stack.propose(trade, part_of(0.4))
    assert answer.outcome.volume == pytest.approx(0.4)
    assert stack.held()[trade.ticket] == (0.6, 1.0951, 1.1101)
    shown = await stack.get_trade(trade.ticket)
    assert (shown.volume, shown.initial_volume, shown.confirmed.sl) == (0.6, 1.0, 1.0951)
    (record,) = shown.managers
    assert (record.manager, record.partial_taken) == (EXIT_MANAGER, True)


async def test_a_granted_close_ends_the_trade(stack: Stack) -> None:
    """CLOSED is final: the position is gone, and every later proposal is TRADE_CLOSED."""
    trade = await stack.trade()
    answer = await stack.propose(trade, close_all())
    assert answer.outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
    assert stack.held() == {}
    shown = await stack.get_trade(trade.ticket)
    assert (shown.state, shown.close_price) == (trade_pb2.TRADE_STATE_CLOSED, 1.1)
    late = await stack.propose(shown, stop_at(1.0961))
    assert late.decision.denial == action_pb2.DENIAL_CODE_TRADE_CLOSED


@pytest.mark.parametrize(
    ("action", "denial"),
    [
        (stop_at(1.0941), action_pb2.DENIAL_CODE_LOOSENS),
        (stop_at(0.0), action_pb2.DENIAL_CODE_LOOSENS),
        (stop_at(1.0941, allow_loosen=True), action_pb2.DENIAL_CODE_RISK_BUDGET),
        (stop_at(1.1), action_pb2.DENIAL_CODE_INVALID_STOP),
        (stop_at(1.1051), action_pb2.DENIAL_CODE_INVALID_STOP),
        (target_at(1.0), action_pb2.DENIAL_CODE_INVALID_STOP),
        (part_of(0.005), action_pb2.DENIAL_CODE_MIN_VOLUME),
        (part_of(0.405), action_pb2.DENIAL_CODE_MIN_VOLUME),
        (part_of(1.5), action_pb2.DENIAL_CODE_MIN_VOLUME),
        (part_of(0.995), action_pb2.DENIAL_CODE_MIN_VOLUME),
        (stop_at(1.0951), action_pb2.DENIAL_CODE_NO_CHANGE),
        (target_at(1.1101), action_pb2.DENIAL_CODE_NO_CHANGE),
    ],
)
async def test_a_denial_is_data_with_one_code(stack: Stack, action: Action, denial: DenialCode.ValueType) -> None:
    """What may not be done is answered OK with its code, recorded, and never sent to the broker."""
    trade = await stack.trade()
    held, calls = stack.held(), broker_calls(stack)
    answer = await stack.propose(trade, action)
    assert (answer.decision.granted, answer.decision.denial) == (False, denial)
    assert not answer.HasField("outcome")
    assert answer.decision.revision > trade.revision
    assert (stack.held(), broker_calls(stack)) == (held, calls)


async def test_an_unknown_trade_is_denied_as_data(stack: Stack) -> None:
    """TRADE_UNKNOWN is the first denial of the order, and on record like every other."""
    answer = await stack.propose(trade_pb2.Trade(ticket=999, owner_epoch=1), stop_at(1.0961))
    assert answer.decision.denial == action_pb2.DENIAL_CODE_TRADE_UNKNOWN
    assert answer.decision.revision == stack.system.desk.engine.revision


async def test_a_strategys_trade_is_its_own(stack: Stack) -> None:
    """Universal's trade: DTMS's exit manager only before breakeven; another's trade: OWNED_BY_OTHER for Universal."""
    managed = await stack.trade(strategy_type="breakout_ib_volatility_trap")
    assert (await stack.propose(managed, stop_at(1.0961))).decision.granted
    await stack.tick(1.1031)
    breakeven = stop_at(1.1003, action_pb2.PURPOSE_BREAKEVEN)
    assert (await stack.propose(managed, breakeven, manager=UNIVERSAL)).decision.granted
    late = await stack.propose(managed, stop_at(1.1005))
    assert late.decision.denial == action_pb2.DENIAL_CODE_OWNED_BY_OTHER
    own = await stack.trade()
    foreign = await stack.propose(own, stop_at(1.0961), manager=UNIVERSAL)
    assert foreign.decision.denial == action_pb2.DENIAL_CODE_OWNED_BY_OTHER


async def test_a_lower_rank_never_loosens_what_a_higher_one_set(stack: Stack) -> None:
    """I11: the exit manager may not take back a stop of Universal, even inside the risk budget and when it says so."""
    trade = await stack.trade(strategy_type="breakout_ib_volatility_trap")
    await stack.propose(trade, stop_at(1.0981), manager=UNIVERSAL)
    down = stop_at(1.0961, allow_loosen=True)
    assert (await stack.propose(trade, down)).decision.denial == action_pb2.DENIAL_CODE_LOOSENS
    assert (await stack.propose(trade, down, manager=UNIVERSAL)).decision.granted


async def test_changes_of_one_manager_keep_their_distance(tmp_path: Path) -> None:
    """COOLDOWN, where it is configured, is a denial that may be asked again."""
    async with running(tmp_path / "data", {"engine.cooldown_ms": 60_000}) as stack:
        trade = await stack.trade()
        assert (await stack.propose(trade, stop_at(1.0961))).decision.granted
        soon = await stack.propose(trade, stop_at(1.0971))
        assert (soon.decision.denial, soon.decision.retryable) == (action_pb2.DENIAL_CODE_COOLDOWN, True)


async def test_a_stale_token_never_reaches_the_broker(stack: Stack) -> None:
    """I3: ABORTED/STALE_EPOCH names the token that holds, the refusal is on record, no command is sent."""
    trade = await stack.trade(strategy_type="breakout_ib_volatility_trap")
    held = (await (await stack.client(UNIVERSAL)).get_ownership(trade.ticket)).owner_epoch
    calls, positions = broker_calls(stack), stack.held()
    for epoch in (held - 1, held + 1, 0):
        with pytest.raises(errors.StaleEpoch) as stale:
            await stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL, owner_epoch=epoch)
        assert stale.value.metadata["owner_epoch"] == str(held)
        told = await (await stack.client("viewer")).explain(decision_id=int(stale.value.metadata["decision_id"]))
        assert (told.decision.denial, told.decision.asked_epoch) == (action_pb2.DENIAL_CODE_STALE_EPOCH, epoch)
    assert (broker_calls(stack), stack.held()) == (calls, positions)


async def test_a_manager_that_loses_the_trade_during_its_write_writes_no_more(stack: Stack) -> None:
    """I3: what is at the broker is settled and told; the next write under the lost token is refused unsent."""
    trade = await stack.trade(strategy_type="breakout_ib_volatility_trap")
    gate = stack.faults.latency = Gate("execute", Leg.REQUEST)
    asked = asyncio.create_task(stack.propose(trade, stop_at(1.0961), manager=UNIVERSAL))
    await gate.arrived.wait()
    for engaged in (True, False):
        await stack.call(
            "operator",
            SetKillSwitchRequest(scope=KILL_SCOPE_MANAGER, value=UNIVERSAL, engaged=engaged, reason="test"),
        )
    gate.open()
    assert (await asked).outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
    with pytest.raises(errors.StaleEpoch):
        await stack.propose(trade, stop_at(1.0971), manager=UNIVERSAL)
    assert broker_calls(stack) == 1
    assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.0961


# -- idempotency -------------------------------------------------------------------------------------------------------


async def test_the_same_request_is_answered_the_same_and_sent_once(stack: Stack) -> None:
    """I10: a repeat gets decision and outcome of the first time, and no new revision."""
    trade = await stack.trade()
    first = await stack.propose(trade, stop_at(1.0961), request_id="the key")
    await stack.tick(1.1005)
    revision, calls = stack.system.desk.engine.revision, broker_calls(stack)
    again = await stack.propose(trade, stop_at(1.0961), request_id="the key")
    assert again == first
    assert (stack.system.desk.engine.revision, broker_calls(stack)) == (revision, calls)


async def test_a_denied_request_stays_denied_under_its_key(stack: Stack) -> None:
    """I10: a denial is an answer too; to ask anew takes a new key."""
    trade = await stack.trade()
    first = await stack.propose(trade, stop_at(1.1011), request_id="the key")
    await stack.tick(1.1031)
    assert await stack.propose(trade, stop_at(1.1011), request_id="the key") == first
    assert (await stack.propose(trade, stop_at(1.1011))).decision.granted


async def test_a_repeat_that_arrives_while_the_first_is_at_the_broker_waits_for_the_same_outcome(stack: Stack) -> None:
    """I10: two callers, one command, one answer."""
    trade = await stack.trade()
    gate = stack.faults.latency = Gate("execute", Leg.REQUEST)
    first = asyncio.create_task(stack.propose(trade, stop_at(1.0961), request_id="the key"))
    await gate.arrived.wait()
    second = asyncio.create_task(stack.propose(trade, stop_at(1.0961), request_id="the key"))
    await stack.get_trade(trade.ticket)
    gate.open()
    assert await first == await second
    assert broker_calls(stack) == 1


async def test_a_call_that_timed_out_is_finished_by_its_repeat(stack: Stack) -> None:
    """I10: after DEADLINE_EXCEEDED the same key finds the outcome; the broker was called once."""
    trade = await stack.trade()
    gate = stack.faults.latency = Gate("execute", Leg.REPLY)
    with pytest.raises(errors.DeadlineExceeded):
        await stack.propose(trade, stop_at(1.0961), request_id="the key", timeout_s=0.2)
    gate.open()
    again = await stack.propose(trade, stop_at(1.0961), request_id="the key")
    assert again.outcome.sl == 1.0961
    assert broker_calls(stack) == 1


@pytest.mark.parametrize(
    "change", [{"action": stop_at(1.0971)}, {"owner_epoch": 999}, {"action": stop_at(1.0961, allow_loosen=True)}]
)
async def test_another_body_under_a_used_key_is_refused(stack: Stack, change: dict[str, object]) -> None:
    """I10: ALREADY_EXISTS/REQUEST_ID_REUSED; nothing is decided."""
    trade = await stack.trade()
    await stack.propose(trade, stop_at(1.0961), request_id="the key")
    revision = stack.system.desk.engine.revision
    arguments: dict[str, object] = {"action": stop_at(1.0961), "owner_epoch": trade.owner_epoch, **change}
    client = await stack.client(EXIT_MANAGER)
    with pytest.raises(errors.AlreadyExists) as refused:
        await client.propose(request_id="the key", ticket=trade.ticket, **arguments)  # type: ignore[arg-type]
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert stack.system.desk.engine.revision == revision


async def test_keys_of_two_managers_are_apart(stack: Stack) -> None:
    """The same key of another manager is another request."""
    trade = await stack.trade(strategy_type="breakout_ib_volatility_trap")
    one = await stack.propose(trade, stop_at(1.0961), request_id="the key")
    two = await stack.propose(trade, stop_at(1.0971), request_id="the key", manager=UNIVERSAL)
    assert one.decision.decision_id != two.decision.decision_id


async def test_a_repeat_is_answered_after_a_restart(tmp_path: Path) -> None:
    """I10, I20: the answer to a key is part of the state, so it survives the service."""
    async with running(tmp_path / "data") as stack:
        trade = await stack.trade()
        first = await stack.propose(trade, stop_at(1.0961), request_id="the key")
    async with running(tmp_path / "data") as stack:
        assert await stack.propose(trade, stop_at(1.0961), request_id="the key") == first
        assert broker_calls(stack) == 0


# -- questions and bad requests ----------------------------------------------------------------------------------------


async def test_a_dry_run_decides_and_records_nothing(stack: Stack) -> None:
    """The answer is what would be decided; no revision, no command, and the key stays free."""
    trade = await stack.trade()
    revision, calls = stack.system.desk.engine.revision, broker_calls(stack)
    yes = await stack.propose(trade, stop_at(1.0961), request_id="the key", dry_run=True)
    no = await stack.propose(trade, stop_at(1.0941), dry_run=True)
    stale = await stack.propose(trade, stop_at(1.0961), owner_epoch=999, dry_run=True)
    assert (yes.decision.granted, yes.decision.dry_run, yes.decision.revision) == (True, True, 0)
    assert not yes.HasField("outcome")
    assert no.decision.denial == action_pb2.DENIAL_CODE_LOOSENS
    assert stale.decision.denial == action_pb2.DENIAL_CODE_STALE_EPOCH
    assert (stack.system.desk.engine.revision, broker_calls(stack)) == (revision, calls)
    assert (await stack.propose(trade, stop_at(1.0971), request_id="the key")).decision.granted


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 65}, "request_id"),
        ({"action": Action()}, "action.kind"),
        ({"action": Action(kind=action_pb2.ACTION_KIND_OPEN_HEDGE, volume=0.1)}, "action.kind"),
        ({"action": Action(kind=action_pb2.ACTION_KIND_RE_ADD, volume=0.1)}, "action.kind"),
        ({"action": Action(kind=42)}, "action.kind"),  # type: ignore[arg-type]
        ({"action": Action(kind=action_pb2.ACTION_KIND_STOP)}, "action.stop"),
        ({"action": stop_at(math.nan)}, "action.stop"),
        ({"action": stop_at(-1.0)}, "action.stop"),
        ({"action": stop_at(math.inf)}, "action.stop"),
        ({"action": stop_at(1.096105)}, "action.stop"),
        ({"action": Action(kind=action_pb2.ACTION_KIND_TARGET, stop=1.2)}, "action.target"),
        ({"action": part_of(0.0)}, "action.volume"),
        ({"action": part_of(math.nan)}, "action.volume"),
    ],
)
async def test_a_proposal_that_means_nothing_is_refused_by_field(
    stack: Stack, change: dict[str, object], field: str
) -> None:
    """INVALID_ARGUMENT names the field; nothing is recorded."""
    trade = await stack.trade()
    revision = stack.system.desk.engine.revision
    body = {"request_id": "k", "ticket": trade.ticket, "owner_epoch": trade.owner_epoch, "action": stop_at(1.0961)}
    with pytest.raises(errors.InvalidArgument) as refused:
        await stack.call(EXIT_MANAGER, ProposeRequest(**(body | change)))  # type: ignore[arg-type]
    assert [violation.field for violation in refused.value.violations] == [field]
    assert stack.system.desk.engine.revision == revision


async def test_two_proposals_at_once_change_the_trade_one_after_the_other(stack: Stack) -> None:
    """One modification per trade at a time: of twenty at once, none overlaps another at the broker."""
    trade = await stack.trade()
    stops = [stop_at(round(1.0952 + 0.0001 * step, 5)) for step in range(20)]
    answers = await asyncio.gather(*(stack.propose(trade, stop) for stop in stops))
    granted = [answer for answer in answers if answer.decision.granted]
    denied = {answer.decision.denial for answer in answers if not answer.decision.granted}
    assert granted
    assert denied <= {action_pb2.DENIAL_CODE_IN_FLIGHT, action_pb2.DENIAL_CODE_LOOSENS}
    events = await all_until(
        await stack.stream("viewer", WatchRequest(start_revision=trade.revision + 1)),
        stack.system.desk.engine.revision,
    )
    under_way = 0
    for event in events:
        under_way += event.HasField("intent_recorded") - event.HasField("outcome_recorded")
        assert under_way in {0, 1}
    assert stack.held()[trade.ticket][1] == max(answer.outcome.sl for answer in granted)


async def test_trades_of_other_symbols_do_not_wait_for_each_other(stack: Stack) -> None:
    """A command that hangs at the broker holds up its own trade only."""
    await stack.tick(1.5, symbol="GBPUSD")
    slow = await stack.trade()
    other = await stack.open_position(symbol="GBPUSD", sl=1.49)
    await stack.call("feed", RegisterTradeRequest(registration=other))
    quick = await stack.get_trade(other.ticket)
    gate = stack.faults.latency = Gate("execute", Leg.REQUEST)
    asked = asyncio.create_task(stack.propose(slow, stop_at(1.0961)))
    await gate.arrived.wait()
    stack.faults.latency = None
    answer = await stack.propose(quick, stop_at(1.491))
    assert answer.outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
    assert not asked.done()
    gate.open()
    assert (await asked).outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
