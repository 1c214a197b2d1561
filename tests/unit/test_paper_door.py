"""The door over the paper broker: strict requests, fencing, outcomes taken from the broker's echo."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dtms_service.broker.door import BrokerDoor, BrokerUnavailable, Command, CommandKind, Outcome, OutcomeStatus, Side
from dtms_service.broker.faults import Gate, Leg
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_enums import Execution, FillingFlag
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.broker.retcodes import LastError, Retcode
from tests.unit.paper_world import World

ACCOUNT = "7001@Paper"
Case = tuple[World, PaperDoor]


def doored(**changes: Any) -> Case:
    world = World(**changes)
    return world, PaperDoor({ACCOUNT: world.broker})


def command(kind: CommandKind, ticket: int, token: int = 1, **changes: Any) -> Command:
    base = Command(
        intent_id=1,
        account_id=ACCOUNT,
        ticket=ticket,
        token=token,
        kind=kind,
        symbol="EURUSD",
        position=ticket,
        side=Side.BUY,
        volume=0.10,
        sl=None,
        tp=None,
        deviation_points=20,
        magic=5,
        comment="dtms",
    )
    return replace(base, **changes)


async def test_the_door_is_a_broker_door() -> None:
    """It satisfies the protocol that the executor is written against."""
    door: BrokerDoor = doored()[1]
    account = await door.account(ACCOUNT)
    assert (account.account_id, account.hedging, account.balance) == (ACCOUNT, True, 10_000.0)


async def test_open_modify_partial_close() -> None:
    """A whole life through the door, each step CONFIRMED with the broker's numbers."""
    world, door = doored()
    opened = await door.execute(command(CommandKind.OPEN, 0, sl=1.09, tp=1.12))
    assert (opened.status, opened.price, opened.volume) == (OutcomeStatus.CONFIRMED, 1.1001, 0.10)
    assert (opened.sl, opened.tp) == (1.09, 1.12)
    ticket = opened.order
    moved = await door.execute(command(CommandKind.MODIFY, ticket, sl=1.0950000001, tp=1.12))
    assert (moved.status, moved.sl, moved.tp, moved.deal) == (OutcomeStatus.CONFIRMED, 1.095, 1.12, 0)
    half = await door.execute(command(CommandKind.CLOSE, ticket, volume=0.05))
    assert (half.volume, half.price, half.sl) == (0.05, 1.1, 1.095)
    rest = await door.execute(command(CommandKind.CLOSE, ticket, volume=0.05))
    assert (rest.status, rest.sl) == (OutcomeStatus.CONFIRMED, None)
    assert await door.positions(ACCOUNT) == []
    assert [d.remaining for d in await door.closing_deals(ACCOUNT, ticket)] == [0.05, 0.0]
    assert world.broker.book.ledger.deals[-1].magic == 5


async def test_none_removes_a_level_and_both_are_always_sent() -> None:
    """A modify without a target removes the target: the command names both levels, the door guesses none."""
    world, door = doored()
    ticket = world.buy(sl=1.09, tp=1.12).order
    outcome = await door.execute(command(CommandKind.MODIFY, ticket, sl=1.09))
    assert (outcome.sl, outcome.tp) == (1.09, None)


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize(
    ("execution", "mask"),
    [(Execution.INSTANT, 0), (Execution.MARKET, 1), (Execution.MARKET, 2), (Execution.EXCHANGE, 0)],
)
async def test_the_fill_mode_follows_the_symbol(side: str, execution: Execution, mask: int) -> None:
    """On every execution mode and mask the door's orders are accepted, opening and closing, either side."""
    world, door = doored(trading={"execution": execution, "filling": FillingFlag(mask)})
    opened = await door.execute(command(CommandKind.OPEN, 0, side=Side.BUY if side == "buy" else Side.SELL))
    assert opened.status is OutcomeStatus.CONFIRMED
    closed = await door.execute(command(CommandKind.CLOSE, opened.order))
    assert closed.status is OutcomeStatus.CONFIRMED
    assert world.broker.positions() == []


async def test_a_stale_token_sends_nothing() -> None:
    """A lower token than the highest seen is REJECTED, retcode 0, STALE_TOKEN, and no request reaches the broker."""
    world, door = doored()
    ticket = world.buy().order
    assert (await door.execute(command(CommandKind.MODIFY, ticket, token=5, sl=1.09))).status is OutcomeStatus.CONFIRMED
    requests = world.send(action=3).request_id
    refused = await door.execute(command(CommandKind.MODIFY, ticket, token=4, sl=1.08))
    assert refused == Outcome(OutcomeStatus.REJECTED, 0, "STALE_TOKEN")
    assert world.send(action=3).request_id == requests + 1
    assert (await door.execute(command(CommandKind.MODIFY, ticket, token=5, sl=1.08))).sl == 1.08


async def test_tokens_are_per_trade() -> None:
    """The token of one trade says nothing about another; a hedge is fenced by its trade, not by its own ticket."""
    world, door = doored()
    one, two = world.buy().order, world.buy().order
    await door.execute(command(CommandKind.MODIFY, one, token=9, sl=1.09))
    assert (await door.execute(command(CommandKind.MODIFY, two, token=1, sl=1.09))).status is OutcomeStatus.CONFIRMED
    refused = await door.execute(command(CommandKind.CLOSE, one, token=8, position=two))
    assert refused.comment == "STALE_TOKEN"


async def test_a_paused_command_is_fenced_on_arrival() -> None:
    """A command held up on the way is judged when it arrives: by then a newer token has been seen."""
    world, door = doored()
    ticket = world.buy().order
    gate = world.broker.faults.latency = Gate("execute", Leg.REQUEST)
    late = asyncio.create_task(door.execute(command(CommandKind.MODIFY, ticket, token=1, sl=1.08)))
    await gate.arrived.wait()
    world.broker.faults.latency = None
    await door.execute(command(CommandKind.MODIFY, ticket, token=2, sl=1.09))
    gate.open()
    assert (await late).comment == "STALE_TOKEN"
    assert world.broker.positions()[0].sl == 1.09


async def test_a_slow_reply_is_already_executed() -> None:
    """While the reply travels the broker has acted."""
    world, door = doored()
    ticket = world.buy().order
    gate = world.broker.faults.latency = Gate("execute", Leg.REPLY)
    task = asyncio.create_task(door.execute(command(CommandKind.MODIFY, ticket, sl=1.09)))
    await gate.arrived.wait()
    assert world.broker.positions()[0].sl == 1.09
    assert not task.done()
    gate.open()
    assert (await task).sl == 1.09


@pytest.mark.parametrize("code", sorted(Retcode))
async def test_every_retcode_has_its_outcome(code: Retcode) -> None:
    """DONE, DONE_PARTIAL, NO_CHANGES confirm; PLACED, ERROR, TIMEOUT are unknown; the rest rejects; a close of what is
    closed confirms."""
    confirmed = {Retcode.DONE, Retcode.DONE_PARTIAL, Retcode.NO_CHANGES}
    unknown = {Retcode.PLACED, Retcode.ERROR, Retcode.TIMEOUT}
    for kind in (CommandKind.MODIFY, CommandKind.CLOSE):
        world, door = doored()
        ticket = world.buy(sl=1.09).order
        world.broker.faults.inject(code)
        outcome = await door.execute(command(kind, ticket, sl=1.08))
        assert outcome.retcode == code
        if code in confirmed or (code is Retcode.POSITION_CLOSED and kind is CommandKind.CLOSE):
            assert (outcome.status, outcome.sl) == (OutcomeStatus.CONFIRMED, 1.09)  # the echo, not the request
        elif code in unknown:
            assert (outcome.status, outcome.sl) == (OutcomeStatus.UNKNOWN, None)
        else:
            assert (outcome.status, outcome.sl) == (OutcomeStatus.REJECTED, None)


async def test_no_changes_confirms_with_the_echo() -> None:
    """Sending the levels in place again is CONFIRMED: idempotent, not a failure."""
    world, door = doored()
    ticket = world.buy(sl=1.09).order
    outcome = await door.execute(command(CommandKind.MODIFY, ticket, sl=1.09))
    assert (outcome.status, outcome.retcode, outcome.sl) == (OutcomeStatus.CONFIRMED, Retcode.NO_CHANGES, 1.09)


async def test_a_modify_without_an_echo_is_unknown() -> None:
    """DONE whose position cannot be re-read confirms no stop."""
    world, door = doored()
    world.broker.faults.inject(Retcode.DONE)
    outcome = await door.execute(command(CommandKind.MODIFY, 404, sl=1.09))
    assert (outcome.status, outcome.comment, outcome.sl) == (OutcomeStatus.UNKNOWN, "NO_ECHO", None)


async def test_a_lost_reply_is_unknown_and_was_executed() -> None:
    """The caller learns nothing, the broker moved the stop."""
    world, door = doored()
    ticket = world.buy().order
    world.broker.faults.lose_replies()
    outcome = await door.execute(command(CommandKind.MODIFY, ticket, sl=1.09))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, LastError.INTERNAL_FAIL_RECEIVE)
    assert (await door.positions(ACCOUNT))[0].sl == 1.09


@pytest.mark.parametrize(
    "code", [LastError.INTERNAL_FAIL_SEND, LastError.INTERNAL_FAIL_RECEIVE, LastError.INTERNAL_FAIL_CONNECT]
)
async def test_none_from_the_pipe_is_unknown(code: LastError) -> None:
    """Whatever broke the pipe, the outcome is UNKNOWN until the broker has been read."""
    world, door = doored()
    world.broker.faults.fail_calls(code)
    assert (await door.execute(command(CommandKind.OPEN, 0))).status is OutcomeStatus.UNKNOWN


async def test_what_was_never_sent_is_rejected() -> None:
    """A comment too long for the layer, or the API switched off: nothing was sent, and that is known."""
    world, door = doored()
    outcome = await door.execute(command(CommandKind.OPEN, 0, comment="x" * 30))
    assert (outcome.status, outcome.comment) == (OutcomeStatus.REJECTED, 'Invalid "comment" argument')
    world.broker.faults.tradeapi_disabled = True
    assert (await door.execute(command(CommandKind.OPEN, 0))).status is OutcomeStatus.REJECTED


async def test_a_foreign_close_confirms_our_close() -> None:
    """Closing what somebody else closed first is done, not failed; modifying it is rejected."""
    world, door = doored()
    ticket = world.buy().order
    ForeignActor(world.broker).close(ticket, 0.10)
    assert (await door.execute(command(CommandKind.CLOSE, ticket))).status is OutcomeStatus.CONFIRMED
    assert (await door.execute(command(CommandKind.MODIFY, ticket, sl=1.0))).status is OutcomeStatus.REJECTED


async def test_netting_opens_add_and_echo_the_position() -> None:
    """On a netting account an OPEN echoes the levels of the symbol's one position."""
    world, door = doored(config={"hedging": False})
    await door.execute(command(CommandKind.OPEN, 0, sl=1.09))
    outcome = await door.execute(command(CommandKind.OPEN, 0, sl=1.08, volume=0.2))
    assert (outcome.status, outcome.sl) == (OutcomeStatus.CONFIRMED, 1.08)
    assert world.broker.positions()[0].volume == 0.3


QUERIES: list[Callable[[PaperDoor], Any]] = [
    lambda door: door.account(ACCOUNT),
    lambda door: door.positions(ACCOUNT),
    lambda door: door.symbol(ACCOUNT, "EURUSD"),
    lambda door: door.closing_deals(ACCOUNT, 1),
]


@pytest.mark.parametrize("query", QUERIES)
async def test_a_failed_query_raises(query: Callable[[PaperDoor], Any]) -> None:
    """A query that fails says so; it never answers "none"."""
    world, door = doored()
    world.broker.faults.fail_calls(LastError.INTERNAL_FAIL_CONNECT)
    with pytest.raises(BrokerUnavailable) as failed:
        await query(door)
    assert failed.value.code == LastError.INTERNAL_FAIL_CONNECT
    world.broker.faults.disconnect()
    with pytest.raises(BrokerUnavailable) as failed:
        await query(door)
    assert failed.value.code == Retcode.CONNECTION
    world.broker.faults.reconnect()
    await query(door)


async def test_the_door_reopens_a_broken_pipe_when_a_terminal_runs() -> None:
    """Down while the terminal is dead; back with the first call after it started."""
    world, door = doored()
    world.broker.faults.kill_terminal()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await door.positions(ACCOUNT)
    world.broker.faults.start_terminal()
    assert await door.positions(ACCOUNT) == []


async def test_unknown_accounts_and_symbols() -> None:
    """An account the door does not have is unavailable, a symbol the broker does not have a KeyError."""
    _, door = doored()
    with pytest.raises(BrokerUnavailable):
        await door.positions("1@Nowhere")
    with pytest.raises(BrokerUnavailable):
        await door.execute(command(CommandKind.OPEN, 0, account_id="1@Nowhere"))
    with pytest.raises(KeyError):
        await door.symbol(ACCOUNT, "NOPE")
    outcome = await door.execute(command(CommandKind.OPEN, 0, symbol="NOPE"))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.REJECTED, Retcode.INVALID)


async def test_the_symbol_is_read_anew() -> None:
    """A level changed at the broker shows in the next answer."""
    world, door = doored()
    world.change(spec={"stops_level": 77})
    assert (await door.symbol(ACCOUNT, "EURUSD")).stops_level == 77
