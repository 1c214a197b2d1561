"""One contract for every broker door. Same tests, same answers.

The doors are the paper broker's own, and the MetaTrader 5 adapter over the real package's Python layer with the paper
broker in place of its C extension.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dtms_service.broker.door import (
    BrokerDoor,
    BrokerUnavailable,
    CommandKind,
    OrderFate,
    Outcome,
    OutcomeStatus,
    Side,
)
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_enums import Action, Execution, FillingFlag
from dtms_service.broker.retcodes import LastError, Retcode
from tests.contract.mt5_rig import ACCOUNT, Rig, paper_rig, terminal_rig
from tests.unit.paper_world import POINT, World
from tests.unit.test_paper_door import command

Make = Callable[..., Rig]

CONFIRMED = {Retcode.DONE, Retcode.DONE_PARTIAL, Retcode.NO_CHANGES}
UNKNOWN = {Retcode.PLACED, Retcode.ERROR, Retcode.TIMEOUT}


@pytest.fixture(params=["paper", "terminal"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a world with the changes given, and the door under test to it."""
    made: list[Rig] = []
    wheel = request.getfixturevalue("wheel") if request.param == "terminal" else None

    def of(**changes: Any) -> Rig:
        world = World(**changes)
        made.append(paper_rig(world) if wheel is None else terminal_rig(world, wheel, monkeypatch))
        return made[-1]

    yield of
    for rig in made:
        if rig.pipe is not None:
            rig.mt5.close()


# --- commands --------------------------------------------------------------------------------------------------------


async def test_the_door_is_a_broker_door(make: Make) -> None:
    """It satisfies the protocol that the executor is written against."""
    door: BrokerDoor = make().door
    account = await door.account(ACCOUNT)
    assert (account.account_id, account.hedging, account.balance) == (ACCOUNT, True, 10_000.0)
    assert (account.currency, account.leverage) == ("USD", 100)


async def test_open_modify_partial_close(make: Make) -> None:
    """A whole life through the door, each step CONFIRMED with the broker's numbers."""
    rig = make()
    world, door = rig.world, rig.door
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


async def test_none_removes_a_level_and_both_are_always_sent(make: Make) -> None:
    """A modify without a target removes the target: the command names both levels, the door guesses none."""
    rig = make()
    ticket = rig.world.buy(sl=1.09, tp=1.12).order
    outcome = await rig.door.execute(command(CommandKind.MODIFY, ticket, sl=1.09))
    assert (outcome.sl, outcome.tp) == (1.09, None)


async def test_a_level_that_is_kept_is_the_one_at_the_broker(make: Make) -> None:
    """A stop change keeps the target that a hand has moved since it was known, a target change the stop; both told."""
    rig = make()
    ticket = rig.world.buy(sl=1.09, tp=1.12).order
    hand = ForeignActor(rig.world.broker)
    hand.modify(ticket, 1.09, 1.13)
    stop = await rig.door.execute(command(CommandKind.MODIFY, ticket, sl=1.095, tp=1.12, keeps_tp=True))
    assert (stop.status, stop.sl, stop.tp) == (OutcomeStatus.CONFIRMED, 1.095, 1.13)
    hand.modify(ticket, 0.0, 1.13)
    target = await rig.door.execute(command(CommandKind.MODIFY, ticket, sl=1.095, tp=1.14, keeps_sl=True))
    assert (target.status, target.sl, target.tp) == (OutcomeStatus.CONFIRMED, None, 1.14)


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
@pytest.mark.parametrize(
    ("execution", "mask"),
    [(Execution.INSTANT, 0), (Execution.MARKET, 1), (Execution.MARKET, 2), (Execution.EXCHANGE, 0)],
)
async def test_the_fill_mode_follows_the_symbol(make: Make, side: Side, execution: Execution, mask: int) -> None:
    """On every execution mode and mask the door's orders are accepted, opening and closing, either side."""
    rig = make(trading={"execution": execution, "filling": FillingFlag(mask)})
    opened = await rig.door.execute(command(CommandKind.OPEN, 0, side=side))
    assert opened.status is OutcomeStatus.CONFIRMED
    closed = await rig.door.execute(command(CommandKind.CLOSE, opened.order))
    assert closed.status is OutcomeStatus.CONFIRMED
    assert rig.world.broker.positions() == []


async def test_a_close_never_opens(make: Make) -> None:
    """A close names its position: of what is gone already nothing is opened the other way round, on either side."""
    rig = make()
    for side in (Side.BUY, Side.SELL):
        opened = await rig.door.execute(command(CommandKind.OPEN, 0, side=side))
        ForeignActor(rig.world.broker).close(opened.order, 0.10)
        outcome = await rig.door.execute(command(CommandKind.CLOSE, opened.order, side=side))
        assert (outcome.status, outcome.retcode) == (OutcomeStatus.CONFIRMED, Retcode.POSITION_CLOSED)
        assert rig.world.broker.positions() == []
        refused = await rig.door.execute(command(CommandKind.MODIFY, opened.order, sl=1.0))
        assert (refused.status, refused.retcode) == (OutcomeStatus.REJECTED, Retcode.POSITION_CLOSED)


async def test_netting_opens_add_and_echo_the_position(make: Make) -> None:
    """On a netting account an OPEN echoes the levels of the symbol's one position."""
    rig = make(config={"hedging": False})
    assert not (await rig.door.account(ACCOUNT)).hedging
    await rig.door.execute(command(CommandKind.OPEN, 0, sl=1.09))
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0, sl=1.08, volume=0.2))
    assert (outcome.status, outcome.sl) == (OutcomeStatus.CONFIRMED, 1.08)
    assert rig.world.broker.positions()[0].volume == 0.3


async def test_a_netting_reduction_is_a_closing_deal(make: Make) -> None:
    """On a netting account an opposite OPEN reduces, and one that is larger reverses: the deals say what was taken."""
    rig = make(config={"hedging": False})
    opened = await rig.door.execute(command(CommandKind.OPEN, 0, volume=0.30))
    await rig.door.execute(command(CommandKind.OPEN, 0, side=Side.SELL, volume=0.10))
    await rig.door.execute(command(CommandKind.OPEN, 0, side=Side.SELL, volume=0.50))
    deals = await rig.door.closing_deals(ACCOUNT, opened.order)
    assert [(deal.volume, deal.remaining) for deal in deals] == [(0.10, 0.20), (0.20, 0.0)]


async def test_the_comment_may_have_29_units(make: Make) -> None:
    """Twenty-nine UTF-16 units are carried to the deal; one more is refused by the layer, and nothing is sent."""
    rig = make()
    longest = "ä" * 27 + "\N{MONEY BAG}"
    opened = await rig.door.execute(command(CommandKind.OPEN, 0, comment=longest))
    assert (opened.status, rig.world.broker.positions()[0].comment) == (OutcomeStatus.CONFIRMED, longest)
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0, comment=longest + "x"))
    assert (outcome.status, outcome.comment) == (OutcomeStatus.REJECTED, 'Invalid "comment" argument')
    assert len(rig.world.broker.positions()) == 1


async def test_what_was_never_sent_is_rejected(make: Make) -> None:
    """The API switched off in the terminal: nothing was sent, and that is known."""
    rig = make()
    rig.world.broker.faults.tradeapi_disabled = True
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.REJECTED, LastError.AUTO_TRADING_DISABLED)


async def test_the_noise_of_a_volume_is_no_offence(make: Make) -> None:
    """0.1 + 0.2 closes 0.3; a volume that is truly off the step is refused."""
    rig = make()
    ticket = rig.world.buy(0.3).order
    refused = await rig.door.execute(command(CommandKind.CLOSE, ticket, volume=0.015))
    assert (refused.status, refused.retcode) == (OutcomeStatus.REJECTED, Retcode.INVALID_VOLUME)
    closed = await rig.door.execute(command(CommandKind.CLOSE, ticket, volume=0.1 + 0.2))
    assert (closed.status, closed.volume) == (OutcomeStatus.CONFIRMED, 0.3)


async def test_a_switched_off_terminal_rejects(make: Make) -> None:
    """Autotrading off in the terminal or at the server: REJECTED with the code that says which."""
    rig = make()
    rig.world.broker.faults.trade_allowed = False
    assert (await rig.door.execute(command(CommandKind.OPEN, 0))).retcode == Retcode.CLIENT_DISABLES_AT
    rig.world.broker.faults.trade_allowed = True
    rig.world.broker.faults.server_allows = False
    assert (await rig.door.execute(command(CommandKind.OPEN, 0))).retcode == Retcode.SERVER_DISABLES_AT


# --- levels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
async def test_stops_level_and_freeze_level_are_those_of_now(make: Make, side: Side) -> None:
    """A level that the broker widened after the attachment holds for the next command, on the side that it concerns."""
    rig = make(spec={"stops_level": 0})
    opened = await rig.door.execute(command(CommandKind.OPEN, 0, side=side))
    price, away = (1.10000, -1) if side is Side.BUY else (1.10010, 1)

    async def moved(points: int) -> tuple[OutcomeStatus, int]:
        level = round(price + away * points * POINT, 5)
        outcome = await rig.door.execute(command(CommandKind.MODIFY, opened.order, sl=level))
        return outcome.status, outcome.retcode

    assert await moved(20) == (OutcomeStatus.CONFIRMED, Retcode.DONE)
    rig.world.change(spec={"stops_level": 30})
    assert await moved(29) == (OutcomeStatus.REJECTED, Retcode.INVALID_STOPS)
    assert await moved(-30) == (OutcomeStatus.REJECTED, Retcode.INVALID_STOPS)
    assert await moved(30) == (OutcomeStatus.CONFIRMED, Retcode.DONE)
    rig.world.change(spec={"freeze_level": 30})
    assert await moved(100) == (OutcomeStatus.REJECTED, Retcode.FROZEN)
    close = await rig.door.execute(command(CommandKind.CLOSE, opened.order, side=side))
    assert (close.status, close.retcode) == (OutcomeStatus.REJECTED, Retcode.FROZEN)
    rig.world.change(spec={"freeze_level": 29})
    assert await moved(100) == (OutcomeStatus.CONFIRMED, Retcode.DONE)


async def test_an_unchanged_level_stays_legal(make: Make) -> None:
    """A target is moved though the price has come near the stop, which stays where it is."""
    rig = make(spec={"stops_level": 50})
    ticket = rig.world.buy(sl=1.0990).order
    rig.world.tick(1.09910, 1.09920)
    outcome = await rig.door.execute(command(CommandKind.MODIFY, ticket, sl=1.0990, tp=1.12))
    assert (outcome.status, outcome.sl, outcome.tp) == (OutcomeStatus.CONFIRMED, 1.0990, 1.12)


async def test_a_stop_beyond_the_price_opens_nothing(make: Make) -> None:
    """An OPEN with a stop on the wrong side is refused whole."""
    rig = make()
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0, sl=1.2))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.REJECTED, Retcode.INVALID_STOPS)
    assert rig.world.broker.positions() == []


async def test_no_changes_confirms_with_the_echo(make: Make) -> None:
    """Sending the levels in place again is CONFIRMED: idempotent, not a failure."""
    rig = make()
    ticket = rig.world.buy(sl=1.09).order
    outcome = await rig.door.execute(command(CommandKind.MODIFY, ticket, sl=1.09))
    assert (outcome.status, outcome.retcode, outcome.sl) == (OutcomeStatus.CONFIRMED, Retcode.NO_CHANGES, 1.09)


async def test_a_modify_without_an_echo_is_unknown(make: Make) -> None:
    """DONE whose position cannot be re-read confirms no stop."""
    rig = make()
    rig.world.broker.faults.inject(Retcode.DONE)
    outcome = await rig.door.execute(command(CommandKind.MODIFY, 404, sl=1.09))
    assert (outcome.status, outcome.comment, outcome.sl) == (OutcomeStatus.UNKNOWN, "NO_ECHO", None)


# --- fencing ---------------------------------------------------------------------------------------------------------


async def test_a_stale_token_sends_nothing(make: Make) -> None:
    """A lower token than the highest seen is REJECTED, retcode 0, STALE_TOKEN, and no request reaches the broker."""
    rig = make()
    world, door = rig.world, rig.door
    ticket = world.buy().order
    assert (await door.execute(command(CommandKind.MODIFY, ticket, token=5, sl=1.09))).status is OutcomeStatus.CONFIRMED
    requests = world.send(action=3).request_id
    refused = await door.execute(command(CommandKind.MODIFY, ticket, token=4, sl=1.08))
    assert refused == Outcome(OutcomeStatus.REJECTED, 0, "STALE_TOKEN")
    assert world.send(action=3).request_id == requests + 1
    assert (await door.execute(command(CommandKind.MODIFY, ticket, token=5, sl=1.08))).sl == 1.08


async def test_tokens_are_per_trade(make: Make) -> None:
    """The token of one trade says nothing about another; a hedge is fenced by its trade, not by its own ticket."""
    rig = make()
    one, two = rig.world.buy().order, rig.world.buy().order
    await rig.door.execute(command(CommandKind.MODIFY, one, token=9, sl=1.09))
    other = await rig.door.execute(command(CommandKind.MODIFY, two, token=1, sl=1.09))
    assert other.status is OutcomeStatus.CONFIRMED
    refused = await rig.door.execute(command(CommandKind.CLOSE, one, token=8, position=two))
    assert refused.comment == "STALE_TOKEN"


# --- retcodes and lost answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(Retcode))
async def test_every_retcode_has_its_outcome(make: Make, code: Retcode) -> None:
    """DONE, DONE_PARTIAL, NO_CHANGES confirm; PLACED, ERROR, TIMEOUT are unknown; the rest rejects; a close of what is
    closed confirms."""
    for kind in CommandKind:
        rig = make()
        ticket = rig.world.buy(sl=1.09).order
        rig.world.broker.faults.inject(code)
        outcome = await rig.door.execute(command(kind, ticket, sl=1.08))
        assert outcome.retcode == code
        if code in CONFIRMED or (code is Retcode.POSITION_CLOSED and kind is CommandKind.CLOSE):
            echo = None if kind is CommandKind.OPEN else 1.09  # the echo, not the request
            assert (outcome.status, outcome.sl) == (OutcomeStatus.CONFIRMED, echo)
        elif code in UNKNOWN:
            assert (outcome.status, outcome.sl) == (OutcomeStatus.UNKNOWN, None)
        else:
            assert (outcome.status, outcome.sl) == (OutcomeStatus.REJECTED, None)


async def test_a_placed_order_is_unknown_until_it_is_filled(make: Make) -> None:
    """PLACED names the order; what became of it the positions show, once it is filled."""
    rig = make()
    rig.world.broker.faults.place(2000)
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0, sl=1.09))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, Retcode.PLACED)
    rig.world.tick(1.1, 1.1001, after_ms=2000)
    assert [(held.ticket, held.sl) for held in await rig.door.positions(ACCOUNT)] == [(outcome.order, 1.09)]


async def test_a_part_filled_order_confirms_its_part(make: Make) -> None:
    """DONE_PARTIAL is CONFIRMED with the volume that was filled."""
    rig = make()
    rig.world.broker.faults.fill_partly(0.5)
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0))
    assert (outcome.status, outcome.retcode, outcome.volume) == (OutcomeStatus.CONFIRMED, Retcode.DONE_PARTIAL, 0.05)


async def test_a_lost_reply_is_unknown_and_was_executed(make: Make) -> None:
    """The caller learns nothing, the broker moved the stop."""
    rig = make()
    ticket = rig.world.buy().order
    rig.world.broker.faults.lose_replies()
    outcome = await rig.door.execute(command(CommandKind.MODIFY, ticket, sl=1.09))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, LastError.INTERNAL_FAIL_RECEIVE)
    assert (await rig.door.positions(ACCOUNT))[0].sl == 1.09


@pytest.mark.parametrize(
    "code", [LastError.INTERNAL_FAIL_SEND, LastError.INTERNAL_FAIL_RECEIVE, LastError.INTERNAL_FAIL_CONNECT]
)
async def test_none_from_the_pipe_is_unknown(make: Make, code: LastError) -> None:
    """Whatever broke the pipe, the outcome is UNKNOWN until the broker has been read."""
    rig = make()
    rig.world.broker.faults.fail_calls(code)
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, code)


async def test_a_terminal_without_its_server_sends_nothing(make: Make) -> None:
    """REJECTED with CONNECTION: known, for nothing left."""
    rig = make()
    rig.world.broker.faults.disconnect()
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.REJECTED, Retcode.CONNECTION)
    assert rig.pipe is None or "order_send" not in rig.pipe.calls
    rig.world.broker.faults.reconnect()
    assert (await rig.door.execute(command(CommandKind.OPEN, 0))).status is OutcomeStatus.CONFIRMED


# --- queries ---------------------------------------------------------------------------------------------------------

QUERIES: list[Callable[[BrokerDoor], Any]] = [
    lambda door: door.account(ACCOUNT),
    lambda door: door.positions(ACCOUNT),
    lambda door: door.report(ACCOUNT, -1),
    lambda door: door.symbol(ACCOUNT, "EURUSD"),
    lambda door: door.closing_deals(ACCOUNT, 1),
    lambda door: door.orders(ACCOUNT, "dtms 1", 0),
]


@pytest.mark.parametrize("query", QUERIES)
async def test_a_failed_query_raises(make: Make, query: Callable[[BrokerDoor], Any]) -> None:
    """A query that fails says so; it never answers "none"."""
    rig = make()
    rig.world.broker.faults.fail_calls(LastError.INTERNAL_FAIL_CONNECT)
    with pytest.raises(BrokerUnavailable) as failed:
        await query(rig.door)
    assert failed.value.code == LastError.INTERNAL_FAIL_CONNECT
    rig.world.broker.faults.disconnect()
    with pytest.raises(BrokerUnavailable) as failed:
        await query(rig.door)
    assert failed.value.code == Retcode.CONNECTION
    rig.world.broker.faults.reconnect()
    await query(rig.door)


async def test_an_order_is_found_by_its_comment(make: Make) -> None:
    """What an order has opened and filled is in the books, also when its position is gone; others are not found."""
    rig = make()
    assert await rig.door.orders(ACCOUNT, "dtms 7", 0) == []
    opened = await rig.door.execute(command(CommandKind.OPEN, 0, comment="dtms 7"))
    (record,) = await rig.door.orders(ACCOUNT, "dtms 7", 0)
    assert (record.order, record.position, record.fate) == (opened.order, opened.order, OrderFate.FILLED)
    assert (record.volume, record.price, record.deal) == (0.10, 1.1001, opened.deal)
    ForeignActor(rig.world.broker).close(opened.order, 0.10)
    assert await rig.door.orders(ACCOUNT, "dtms 7", 0) == [record]
    assert await rig.door.orders(ACCOUNT, "dtms", 0) == []


async def test_a_working_order_is_told_as_such(make: Make) -> None:
    """An order that was accepted is WORKING until it is filled: nothing may be concluded before."""
    rig = make()
    rig.world.broker.faults.place(2000)
    await rig.door.execute(command(CommandKind.OPEN, 0, comment="dtms 7"))
    (record,) = await rig.door.orders(ACCOUNT, "dtms 7", 0)
    assert (record.fate, record.volume) == (OrderFate.WORKING, 0.0)
    rig.world.tick(1.1, 1.1001, after_ms=2000)
    (record,) = await rig.door.orders(ACCOUNT, "dtms 7", 0)
    assert (record.fate, record.volume) == (OrderFate.FILLED, 0.10)


async def test_a_reversed_position_is_closed_and_another_one(make: Make) -> None:
    """Netting: the deal that reverses a position ends its ticket; the order's ticket has the deals from then on."""
    rig = make(config={"hedging": False})
    world, door = rig.world, rig.door
    first = world.buy(0.10).order
    second = world.sell(0.30).order
    assert [(held.ticket, held.side, held.volume) for held in await door.positions(ACCOUNT)] == [
        (second, Side.SELL, 0.2)
    ]
    assert [(d.volume, d.remaining) for d in await door.closing_deals(ACCOUNT, first)] == [(0.1, 0.0)]
    assert await door.closing_deals(ACCOUNT, second) == []
    world.buy(0.05)
    world.buy(0.15)
    assert [(d.volume, d.remaining) for d in await door.closing_deals(ACCOUNT, second)] == [(0.05, 0.15), (0.15, 0.0)]
    assert [(d.volume, d.remaining) for d in await door.closing_deals(ACCOUNT, first)] == [(0.1, 0.0)]


async def test_a_position_closed_by_another_has_its_deal(make: Make) -> None:
    """Two positions closed by each other: both are gone, each proven by a deal of its own."""
    rig = make()
    world, door = rig.world, rig.door
    first, second = world.buy(0.10).order, world.sell(0.10).order
    world.send(action=Action.CLOSE_BY, position=first, position_by=second)
    assert await door.positions(ACCOUNT) == []
    for ticket in (first, second):
        assert [(d.volume, d.remaining) for d in await door.closing_deals(ACCOUNT, ticket)] == [(0.1, 0.0)]


async def test_the_door_reopens_a_broken_pipe_when_a_terminal_runs(make: Make) -> None:
    """Down while the terminal is dead; back with the first call after it started."""
    rig = make()
    await rig.door.positions(ACCOUNT)
    rig.world.broker.faults.kill_terminal()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await rig.door.positions(ACCOUNT)
    rig.world.broker.faults.start_terminal()
    assert await rig.door.positions(ACCOUNT) == []


async def test_unknown_accounts_and_symbols(make: Make) -> None:
    """An account the door does not have is unavailable, a symbol the broker does not have a KeyError."""
    door = make().door
    with pytest.raises(BrokerUnavailable):
        await door.positions("1@Nowhere")
    with pytest.raises(BrokerUnavailable):
        await door.execute(command(CommandKind.OPEN, 0, account_id="1@Nowhere"))
    with pytest.raises(KeyError):
        await door.symbol(ACCOUNT, "NOPE")
    for kind in CommandKind:
        outcome = await door.execute(command(kind, 1, symbol="NOPE"))
        assert (outcome.status, outcome.retcode) == (OutcomeStatus.REJECTED, Retcode.INVALID)
        outcome = await door.execute(command(kind, 1, symbol="X" * 30))
        assert (outcome.status, outcome.retcode) == (OutcomeStatus.REJECTED, LastError.INVALID_PARAMS)


async def test_the_symbol_is_read_anew(make: Make) -> None:
    """All its rules are told, and one that changed at the broker shows in the next answer."""
    rig = make()
    assert await rig.door.symbol(ACCOUNT, "EURUSD") == rig.world.broker.symbol("EURUSD")
    rig.world.change(spec={"stops_level": 77})
    assert (await rig.door.symbol(ACCOUNT, "EURUSD")).stops_level == 77


@pytest.mark.parametrize("offset_s", [0, 7200, -18_000])
async def test_positions_and_deals_are_the_brokers_in_utc(make: Make, offset_s: int) -> None:
    """What the door shows of positions and deals is what the books hold, also where the server's clock is not UTC."""
    rig = make(config={"server_utc_offset_s": offset_s, "commission_per_lot_side": 7.0})
    broker = rig.world.broker
    one = rig.world.buy(0.3, sl=1.09, tp=1.12, comment="of a bot", magic=77).order
    two = rig.world.sell(0.2).order
    rig.world.tick(1.10500, 1.10510)
    ForeignActor(broker).close(one, 0.1)
    rig.world.tick(1.12, 1.1201)
    assert await rig.door.positions(ACCOUNT) == broker.positions()
    assert [held.ticket for held in broker.positions()] == [two]
    assert await rig.door.closing_deals(ACCOUNT, one) == broker.closing_deals(one)
    assert [deal.reason.name for deal in broker.closing_deals(one)] == ["CLIENT", "TAKE_PROFIT"]


async def test_a_report_has_every_change(make: Make) -> None:
    """A position that changed is among the report's; one that is gone is not, though it may be named as changed."""
    rig = make()
    one, two = rig.world.buy().order, rig.world.buy().order
    before = rig.world.broker.change_count
    ForeignActor(rig.world.broker).close(one, 0.10)
    ForeignActor(rig.world.broker).modify(two, 1.05, 0.0)
    for since in (-1, before):
        report = await rig.door.report(ACCOUNT, since)
        assert {held.ticket: held.sl for held in report.positions} == {two: 1.05}
        assert report.changed is None or report.changed >= {one, two}


# --- same answers ----------------------------------------------------------------------------------------------------


def course(seed: int) -> list[Any]:
    """A day of commands, prices and troubles, one thing wrong at a time."""
    chance = random.Random(seed)
    steps: list[Any] = []
    for token in range(1, 120):
        stops = [None, 1.09, 1.0999, 1.1, 1.11, 1.09123456]
        kind = chance.choice(list(CommandKind))
        fields: dict[str, Any] = {"token": token if chance.random() < 0.95 else token - 20}
        match kind:
            case CommandKind.OPEN:
                fields |= {"side": chance.choice(list(Side)), "volume": chance.choice([0.01, 0.1, 0.3, 0.1 + 0.2])}
                fields |= {"sl": chance.choice(stops), "tp": chance.choice(stops)}
                if chance.random() < 0.1:
                    fields |= {"volume": chance.choice([0.015, 99.0, 0.001]), "sl": None, "tp": None}
            case CommandKind.MODIFY:
                fields |= {"sl": chance.choice(stops), "tp": chance.choice(stops)}
            case CommandKind.CLOSE:
                fields["volume"] = chance.choice([0.01, 0.05, 0.1, 0.3])
        steps.append(("command", kind, chance.randrange(4), fields))
        if chance.random() < 0.5:
            bid = round(1.1 + chance.uniform(-0.012, 0.012), 5)
            steps.append(("tick", bid, round(bid + chance.choice([1, 10, 25]) * POINT, 5)))
        if chance.random() < 0.05:
            steps.append(("freeze", chance.choice([0, 0, 40])))
    return steps


async def lived(rig: Rig, steps: list[Any]) -> list[Any]:
    """What the door answered to every step, and what it showed after each."""
    seen: list[Any] = []
    for what, *rest in steps:
        match what:
            case "command":
                kind, nth, fields = rest
                held = rig.world.broker.positions()
                position = held[nth % len(held)] if held and nth else None
                if position is not None and kind is not CommandKind.OPEN:
                    fields = fields | {"side": position.side}
                    if kind is CommandKind.CLOSE and rig.world.broker.symbol("EURUSD").freeze_level:
                        fields = fields | {"volume": 0.01}
                ticket = position.ticket if position is not None else 404
                seen.append(await rig.door.execute(command(kind, ticket, **fields)))
            case "tick":
                seen.append(rig.world.tick(*rest))
            case _:
                rig.world.change(spec={"freeze_level": rest[0]})
        seen.append(await rig.door.positions(ACCOUNT))
        seen.append(await rig.door.account(ACCOUNT))
    return [*seen, *[await rig.door.closing_deals(ACCOUNT, order) for order in rig.world.broker.book.ledger.orders]]


@pytest.mark.parametrize("hedging", [True, False], ids=["hedging", "netting"])
@pytest.mark.parametrize("seed", range(6))
async def test_both_doors_live_the_same_day(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, seed: int, hedging: bool
) -> None:
    """The same commands and prices get the same answers, to the last field, from the paper door and the adapter."""
    config = {"hedging": hedging}
    paper, terminal = (
        paper_rig(World(config=config)),
        terminal_rig(World(config=config), wheel, monkeypatch),
    )
    steps = course(seed)
    near, far = await lived(paper, steps), await lived(terminal, steps)
    terminal.mt5.close()
    for number, (one, other) in enumerate(zip(near, far, strict=True)):
        assert one == other, f"answer {number}"
    statuses = {answer.status for answer in near if isinstance(answer, Outcome)}
    assert statuses >= {OutcomeStatus.CONFIRMED, OutcomeStatus.REJECTED}
