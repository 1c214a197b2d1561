"""The registry over the wire: what is taken in, what is refused by name, and what is answered about it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dtms.v1 import ownership_pb2, registry_service_pb2, trade_pb2
from dtms.v1.action_pb2 import PURPOSE_BREAKEVEN
from dtms.v1.registry_service_pb2 import (
    GetOwnershipRequest,
    GetRegistrationRequest,
    ListRegistrationsRequest,
    RegisterTradeRequest,
    Registration,
)
from dtms_client import errors
from tests.stack import DTMS, EXIT_MANAGER, UNIVERSAL, Stack, running, stop_at

OPENED_NS = 1_700_000_000_000_000_000


def registration(ticket: int = 77, **changes: Any) -> Registration:
    fields: dict[str, Any] = {
        "ticket": ticket,
        "symbol": "EURUSD",
        "side": trade_pb2.SIDE_BUY,
        "entry_price": 1.1001,
        "volume": 0.5,
        "sl": 1.0951,
        "tp": 1.1101,
        "opened_ns": OPENED_NS,
    }
    return Registration(**{name: value for name, value in (fields | changes).items() if value is not None})


async def register(stack: Stack, body: Registration) -> registry_service_pb2.RegisterTradeResponse:
    request = RegisterTradeRequest(registration=body)
    answer: registry_service_pb2.RegisterTradeResponse = await stack.call(EXIT_MANAGER, request)
    return answer


async def test_a_registered_trade_is_answered_as_it_was_given(stack: Stack) -> None:
    """The answer names the only account, R from the stop, the state HEALTHY, DTMS as owner; nothing is made up."""
    answer = await register(stack, registration())
    assert answer.created
    trade = answer.trade
    assert (trade.account_id, trade.ticket, trade.symbol, trade.side) == (
        "1000@paper",
        77,
        "EURUSD",
        trade_pb2.SIDE_BUY,
    )
    assert (trade.entry_price, trade.volume, trade.initial_sl, trade.initial_tp) == (1.1001, 0.5, 1.0951, 1.1101)
    assert trade.risk_distance == pytest.approx(0.005)
    assert trade.risk_source == trade_pb2.RISK_SOURCE_STOP
    assert (trade.state, trade.phase) == (trade_pb2.TRADE_STATE_HEALTHY, trade_pb2.STATE_PHASE_CONFIRMED)
    assert (trade.managed_by, trade.origin) == (DTMS, trade_pb2.ORIGIN_CLIENT)
    assert await stack.get_trade(77) == trade


async def test_a_trade_without_levels_stays_without(stack: Stack) -> None:
    """An absent stop is absent everywhere, never zero; R waits for ATR."""
    trade = (await register(stack, registration(sl=None, tp=None))).trade
    assert not trade.HasField("initial_sl")
    assert not trade.confirmed.HasField("sl")
    assert not trade.confirmed.HasField("tp")
    assert not trade.HasField("risk_distance")
    assert trade.risk_source == trade_pb2.RISK_SOURCE_PENDING


async def test_the_same_body_again_answers_with_the_trade_as_it_is(stack: Stack) -> None:
    """A repeat creates nothing and resets nothing: a stop that was moved in between stays moved."""
    body = await stack.open_position(sl=1.0951, tp=1.1101)
    assert (await register(stack, body)).created
    trade = await stack.get_trade(body.ticket)
    await stack.propose(trade, stop_at(1.0961))
    revision = (await (await stack.client("viewer")).system_status()).revision
    again = await register(stack, body)
    assert not again.created
    assert again.trade.confirmed.sl == 1.0961
    assert (await (await stack.client("viewer")).system_status()).revision == revision


async def test_a_repeat_that_leaves_the_opening_time_to_the_service_is_a_repeat(stack: Stack) -> None:
    """opened_ns 0 means the time of the first registration, also when it is said again later."""
    first = await register(stack, registration(opened_ns=0))
    again = await register(stack, registration(opened_ns=0))
    assert first.trade.opened_ns > OPENED_NS
    assert (again.created, again.trade) == (False, first.trade)


@pytest.mark.parametrize(
    "change",
    [
        {"side": trade_pb2.SIDE_SELL, "sl": 1.1051, "tp": 1.09},
        {"entry_price": 1.10011},
        {"volume": 0.51},
        {"sl": 1.0952},
        {"sl": None},
        {"tp": 1.1102},
        {"strategy_type": "trend_continuation_pullback"},
        {"opened_ns": OPENED_NS + 1},
    ],
    ids="-".join,
)
async def test_another_body_under_the_same_ticket_is_refused(stack: Stack, change: dict[str, Any]) -> None:
    """ALREADY_EXISTS/TRADE_DIFFERS, and the trade stays as it was."""
    before = (await register(stack, registration())).trade
    with pytest.raises(errors.AlreadyExists) as refused:
        await register(stack, registration(**change))
    assert refused.value.reason == "TRADE_DIFFERS"
    assert await stack.get_trade(77) == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ticket": 0}, "ticket"),
        ({"side": trade_pb2.SIDE_UNSPECIFIED}, "side"),
        ({"side": 7}, "side"),
        ({"entry_price": 0.0}, "entry_price"),
        ({"entry_price": -1.1}, "entry_price"),
        ({"entry_price": math.nan}, "entry_price"),
        ({"entry_price": math.inf}, "entry_price"),
        ({"entry_price": 1.100105}, "entry_price"),
        ({"volume": 0.0}, "volume"),
        ({"volume": -0.5}, "volume"),
        ({"volume": math.nan}, "volume"),
        ({"volume": 0.505}, "volume"),
        ({"volume": 101.0}, "volume"),
        ({"sl": math.nan}, "sl"),
        ({"sl": -1.0}, "sl"),
        ({"sl": 0.0}, "sl"),
        ({"sl": 1.1101}, "sl"),
        ({"sl": 1.1001}, "sl"),
        ({"tp": math.inf}, "tp"),
        ({"tp": 1.0901}, "tp"),
        ({"side": trade_pb2.SIDE_SELL}, "sl"),
        ({"strategy_type": "x" * 65}, "strategy_type"),
        ({"opened_ns": -1}, "opened_ns"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={v!s:.8}" for k, v in value.items()),
)
async def test_each_bad_field_is_named(stack: Stack, change: dict[str, Any], field: str) -> None:
    """INVALID_ARGUMENT/FIELD_INVALID with the field in BadRequest; nothing is registered."""
    with pytest.raises(errors.InvalidArgument) as refused:
        await register(stack, registration(**change))
    assert refused.value.reason == "FIELD_INVALID"
    assert [violation.field for violation in refused.value.violations] == [f"registration.{field}"]
    assert (await stack.call("viewer", ListRegistrationsRequest())).registrations == []


async def test_a_request_without_a_registration_names_it(stack: Stack) -> None:
    """An empty message is a missing field, not a trade of zeros."""
    with pytest.raises(errors.InvalidArgument) as refused:
        await stack.call(EXIT_MANAGER, RegisterTradeRequest())
    assert [violation.field for violation in refused.value.violations] == ["registration"]


@pytest.mark.parametrize(
    ("change", "reason"), [({"symbol": "NOPE"}, "SYMBOL_UNKNOWN"), ({"account_id": "1@else"}, "ACCOUNT_UNKNOWN")]
)
async def test_unknown_symbols_and_accounts_are_not_found(stack: Stack, change: dict[str, Any], reason: str) -> None:
    """NOT_FOUND with its own reason."""
    with pytest.raises(errors.NotFound) as refused:
        await register(stack, registration(**change))
    assert refused.value.reason == reason


async def test_a_missing_symbol_is_a_bad_field(stack: Stack) -> None:
    """A required name left empty is the caller's mistake: INVALID_ARGUMENT, not a symbol that is unknown."""
    with pytest.raises(errors.InvalidArgument) as refused:
        await register(stack, registration(symbol=""))
    assert [violation.field for violation in refused.value.violations] == ["registration.symbol"]


@pytest.mark.parametrize(
    ("strategy_type", "owner", "rank"),
    [
        ("", DTMS, ownership_pb2.RANK_DTMS_NORMAL),
        ("breakout_ib_volatility_trap", UNIVERSAL, ownership_pb2.RANK_STRATEGY),
        ("somebody_elses_idea", DTMS, ownership_pb2.RANK_DTMS_NORMAL),
    ],
)
async def test_the_strategy_decides_who_owns_a_new_trade(
    stack: Stack, strategy_type: str, owner: str, rank: ownership_pb2.Rank.ValueType
) -> None:
    """A managed strategy type gives the trade to the Universal Manager, anything else to DTMS."""
    await register(stack, registration(strategy_type=strategy_type))
    held = (await stack.call("viewer", GetOwnershipRequest(ticket=77))).ownership
    assert (held.ticket, held.managed_by, held.owner_rank) == (77, owner, rank)
    assert held.owner_epoch > 0
    assert not held.breakeven_triggered
    assert not held.defensive
    assert held.HasField("lease_remaining_ms") is (owner == UNIVERSAL)


async def test_ownership_tells_when_breakeven_was_triggered(stack: Stack) -> None:
    """breakeven_triggered turns true with the broker's echo of a breakeven stop."""

    trade = await stack.trade()
    await stack.tick(1.1031)
    await stack.propose(trade, stop_at(1.1003, PURPOSE_BREAKEVEN))
    held = (await stack.call("viewer", GetOwnershipRequest(ticket=trade.ticket))).ownership
    assert held.breakeven_triggered


async def test_registrations_are_got_as_they_were_given(stack: Stack) -> None:
    """GetRegistration answers with the registered body, whatever became of the position since, and its owner."""
    body = await stack.open_position(sl=1.0951, tp=1.1101)
    await register(stack, body)
    await stack.propose(await stack.get_trade(body.ticket), stop_at(1.0961))
    answer = await stack.call("viewer", GetRegistrationRequest(ticket=body.ticket))
    body.account_id = "1000@paper"
    assert answer.registration == body
    assert answer.ownership.managed_by == DTMS
    with pytest.raises(errors.NotFound) as unknown:
        await stack.call("viewer", GetRegistrationRequest(ticket=999))
    assert (unknown.value.reason, unknown.value.metadata["ticket"]) == ("TRADE_UNKNOWN", "999")


async def test_lists_come_in_pages_in_order_of_registration(stack: Stack) -> None:
    """Every registration is in exactly one page, in the order in which they were registered."""
    tickets = [50, 7, 93, 12, 61]
    for ticket in tickets:
        await register(stack, registration(ticket))
    listed: list[list[int]] = []
    token = ""
    while True:
        page = await stack.call("viewer", ListRegistrationsRequest(page_size=2, page_token=token))
        listed.append([item.ticket for item in page.registrations])
        if not (token := page.next_page_token):
            break
    assert listed == [[50, 7], [93, 12], [61]]
    nobody = await stack.call("viewer", ListRegistrationsRequest(account_id="1000@paper"))
    assert [item.ticket for item in nobody.registrations] == tickets


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ListRegistrationsRequest(page_size=-1), "page_size"),
        (ListRegistrationsRequest(page_size=1001), "page_size"),
        (ListRegistrationsRequest(page_token="x"), "page_token"),
        (ListRegistrationsRequest(page_token="-3"), "page_token"),
    ],
)
async def test_pages_that_cannot_be_are_refused_by_field(
    stack: Stack, request_: ListRegistrationsRequest, field: str
) -> None:
    """A size beyond the limit or a token of nobody's making names its field."""
    with pytest.raises(errors.InvalidArgument) as refused:
        await stack.call("viewer", request_)
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_an_unregistered_trade_is_forgotten_and_its_position_is_left_alone(stack: Stack) -> None:
    """After UnregisterTrade the ticket is unknown, the position stands as it did, and can be registered anew."""
    trade = await stack.trade()
    held = stack.held()
    revision = (await (await stack.client(EXIT_MANAGER)).unregister_trade(trade.ticket)).revision
    assert revision > trade.revision
    with pytest.raises(errors.NotFound):
        await stack.get_trade(trade.ticket)
    with pytest.raises(errors.NotFound):
        await (await stack.client(EXIT_MANAGER)).unregister_trade(trade.ticket)
    assert stack.held() == held
    body = registration(trade.ticket, entry_price=trade.entry_price, volume=trade.volume)
    again = await register(stack, body)
    assert again.created
    assert again.trade.owner_epoch > trade.owner_epoch


async def test_several_trades_come_in_one_call_and_unknown_ones_are_named(stack: Stack) -> None:
    """BatchGetTrades answers in the order asked and names what is not registered."""
    for ticket in (5, 6):
        await register(stack, registration(ticket))
    answer = await (await stack.client("viewer")).batch_get_trades([6, 9, 5])
    assert [trade.ticket for trade in answer.trades] == [6, 5]
    assert list(answer.unknown_tickets) == [9]
    with pytest.raises(errors.InvalidArgument):
        await (await stack.client("viewer")).batch_get_trades(range(1, 502))


async def test_the_registry_is_full_at_its_limit(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED/LIMIT_REACHED names the limit; a repeat of a registered body is still answered."""
    async with running(tmp_path, {"limits.max_trades": 2}) as stack:
        await register(stack, registration(1))
        await register(stack, registration(2))
        with pytest.raises(errors.ResourceExhausted) as refused:
            await register(stack, registration(3))
        assert refused.value.reason == "LIMIT_REACHED"
        assert refused.value.metadata == {"limit": "limits.max_trades", "value": "2"}
        assert not (await register(stack, registration(2))).created


async def test_a_full_registry_keeps_nothing_of_the_broker_out(tmp_path: Path) -> None:
    """What the broker holds is adopted at the start whatever the limit says: recovery has to end."""
    full = {"limits.max_trades": 1}
    async with running(tmp_path, full) as stack:
        known = await stack.trade()
        stranger = await stack.open_position(trade_pb2.SIDE_BUY, 0.5)
    async with running(tmp_path, full) as stack:
        viewer = await stack.client("viewer")
        assert {trade.ticket async for trade in viewer.list_trades()} == {known.ticket, stranger.ticket}
