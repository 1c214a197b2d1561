"""What only the MetaTrader 5 adapter must do: own its thread, survive its pipe at any call, know whom it talks to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dtms_service.broker.door import BrokerUnavailable, CommandKind, OutcomeStatus, Side
from dtms_service.broker.fence import Fence
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.mt5_api import FUNCTIONS as EXTENSION
from dtms_service.broker.mt5_package import COPY_TICKS_INFO, FUNCTIONS
from dtms_service.broker.mt5_session import Login
from dtms_service.broker.retcodes import LastError, Retcode
from dtms_service.broker.server_time import OBSERVATIONS, OffsetUnknown, ServerTime
from dtms_service.broker.structs import Mt5AccountInfo, TerminalInfo
from tests.contract.mt5_rig import ACCOUNT, Rig, load_package, terminal_rig
from tests.contract.test_broker_contract import QUERIES
from tests.unit.paper_world import HOUR, T0, World
from tests.unit.test_paper_door import command

Make = Callable[..., Rig]


@pytest.fixture
def make(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes an adapter to a world of its own; ``world`` are the changes to that, the rest goes to the rig."""
    made: list[Rig] = []

    def of(world: dict[str, Any] | None = None, **options: Any) -> Rig:
        made.append(terminal_rig(World(**(world or {})), wheel, monkeypatch, **options))
        return made[-1]

    yield of
    for rig in made:
        rig.mt5.close()


# --- the package -----------------------------------------------------------------------------------------------------


def test_d02_the_adapter_calls_only_what_the_package_has(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old adapter called modify_position, place_order and close_position, which did not exist, and failed silently.

    Every function that the adapter may call is one of the extension's 32, and reachable through the real package.
    """
    assert set(FUNCTIONS) <= set(EXTENSION)
    package = load_package(wheel, {name: lambda: None for name in EXTENSION}, monkeypatch)
    assert [name for name in FUNCTIONS if not callable(getattr(package, name, None))] == []
    assert package.COPY_TICKS_INFO == COPY_TICKS_INFO


async def test_d02_a_command_reaches_the_broker(make: Make) -> None:
    """Through the real package's layer a stop moves, a part is closed and a hedge opens: nothing is only believed."""
    rig = make()
    ticket = rig.world.buy(sl=1.09).order
    await rig.door.execute(command(CommandKind.MODIFY, ticket, sl=1.095, tp=1.12))
    await rig.door.execute(command(CommandKind.CLOSE, ticket, volume=0.04))
    await rig.door.execute(command(CommandKind.OPEN, ticket, side=Side.SELL, volume=0.06))
    held = [(p.side, p.volume, p.sl, p.tp) for p in rig.world.broker.positions()]
    assert held == [(Side.BUY, 0.06, 1.095, 1.12), (Side.SELL, 0.06, None, None)]


@pytest.mark.parametrize("code", [code for code in LastError if code is not LastError.OK])
async def test_d06_none_is_never_no_positions(make: Make, code: LastError) -> None:
    """The old service took None from positions_get, which is an error, for "all closed" and dropped its trades.

    Whatever the cause that last_error names, the door says that the broker could not be asked.
    """
    rig = make()
    ticket = rig.world.buy().order
    assert [held.ticket for held in await rig.door.positions(ACCOUNT)] == [ticket]
    rig.wire.fail["positions_get"] = code
    for query in (rig.door.positions(ACCOUNT), rig.door.report(ACCOUNT, -1)):
        with pytest.raises(BrokerUnavailable) as failed:
            await query
        assert failed.value.code == code
    rig.wire.fail.clear()
    assert [held.ticket for held in await rig.door.positions(ACCOUNT)] == [ticket]


async def test_d06_none_is_never_no_deals(make: Make) -> None:
    """None from history_deals_get, and a history without the deal that opened the position, prove no close."""
    rig = make()
    ticket = rig.world.buy(0.2).order
    ForeignActor(rig.world.broker).close(ticket, 0.1)
    rig.wire.fail["history_deals_get"] = LastError.FAIL
    with pytest.raises(BrokerUnavailable):
        await rig.door.closing_deals(ACCOUNT, ticket)
    rig.wire.fail.clear()
    rig.wire.overlay["history_deals_get"] = lambda deals: deals[1:]
    with pytest.raises(BrokerUnavailable, match="not complete"):
        await rig.door.closing_deals(ACCOUNT, ticket)
    rig.wire.overlay.clear()
    assert [deal.remaining for deal in await rig.door.closing_deals(ACCOUNT, ticket)] == [0.1]


async def test_requests_have_exactly_the_extensions_types(make: Make) -> None:
    """Prices and volumes that are int, numbers that are enum members: all leave as the plain types the layer takes."""
    rig = make()
    sent: list[dict[str, object]] = []
    send = rig.wire.functions["order_send"]

    def seen(request: dict[str, object]) -> Any:
        sent.append(request)
        return send(request)

    rig.wire.functions["order_send"] = seen
    opened = await rig.door.execute(command(CommandKind.OPEN, 0, sl=1, volume=1, deviation_points=True))
    await rig.door.execute(command(CommandKind.MODIFY, opened.order, sl=1))
    await rig.door.execute(command(CommandKind.CLOSE, opened.order, volume=1))
    assert rig.world.broker.positions() == []
    assert {type(value) for request in sent for value in request.values()} == {int, float, str}
    assert [sorted(request.keys() & {"sl", "tp", "position"}) for request in sent] == [
        ["sl", "tp"],
        ["position", "sl", "tp"],
        ["position", "sl", "tp"],
    ]


# --- the thread ------------------------------------------------------------------------------------------------------


async def test_d44_a_slow_terminal_holds_up_nobody_else(make: Make) -> None:
    """Blocking calls ran inside async handlers. Here the loop goes on while the terminal hangs in a call."""
    rig = make()
    release = rig.wire.hold("positions_get")
    query = asyncio.create_task(rig.door.positions(ACCOUNT))
    await asyncio.to_thread(rig.wire.reached.wait, 5)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not query.done()
    release.set()
    assert await query == []


async def test_d44_one_thread_makes_all_calls(make: Make) -> None:
    """Many callers at once, one thread; each call's last_error is asked before the next call."""
    rig = make()
    rig.wire.fail["symbol_info_tick"] = LastError.NOT_FOUND
    outcome, *answers = await asyncio.gather(
        rig.door.execute(command(CommandKind.OPEN, 0)), *(query(rig.door) for query in 10 * QUERIES)
    )
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, LastError.NOT_FOUND)
    assert len(answers) == 10 * len(QUERIES)
    assert len(rig.wire.threads) == 1
    assert threading.get_ident() not in rig.wire.threads


async def test_a_late_answer_is_nobodys_and_what_waited_behind_it_is_never_sent(make: Make) -> None:
    """A command that hangs is UNKNOWN, one that never got its turn REJECTED; reads wait for the truth."""
    rig = make(deadline_s=0.2)
    ticket = rig.world.buy().order
    await rig.door.positions(ACCOUNT)
    release = rig.wire.hold("order_send")
    late = await rig.door.execute(command(CommandKind.MODIFY, ticket, sl=1.09))
    assert (late.status, late.comment) == (OutcomeStatus.UNKNOWN, "no answer within 0.2 s")
    second = await rig.door.execute(command(CommandKind.CLOSE, ticket))
    assert (second.status, second.retcode) == (OutcomeStatus.REJECTED, Retcode.CONNECTION)
    with pytest.raises(BrokerUnavailable) as failed:
        await rig.door.positions(ACCOUNT)
    assert failed.value.code == LastError.INTERNAL_FAIL_TIMEOUT
    release.set()
    assert [held.sl for held in await rig.door.positions(ACCOUNT)] == [1.09]
    assert rig.wire.calls.count("order_send") == rig.wire.calls.count("symbol_info") == 1  # the second never looked


async def test_an_order_whose_caller_has_gone_is_not_sent(make: Make) -> None:
    """The terminal hangs while the door looks at the symbol: when it comes back the price is of the past."""
    rig = make(deadline_s=0.2)
    await rig.door.positions(ACCOUNT)
    release = rig.wire.hold("symbol_info")
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0))
    assert outcome.status is OutcomeStatus.UNKNOWN
    release.set()
    assert await rig.door.positions(ACCOUNT) == []
    assert "order_send" not in rig.wire.calls


# --- the pipe --------------------------------------------------------------------------------------------------------

COMMANDS: dict[str, Callable[[int], Any]] = {
    "open": lambda _: command(CommandKind.OPEN, 0, sl=1.09, comment="of intent 7"),
    "modify": lambda ticket: command(CommandKind.MODIFY, ticket, sl=1.095, tp=1.12),
    "close": lambda ticket: command(CommandKind.CLOSE, ticket, volume=0.04),
}


def effects(world: World) -> int:
    """How many commands the books show beyond the one position that was there first."""
    first, *others = world.broker.positions()
    return len(others) + (first.sl == 1.095) + (first.volume == 0.06)


@pytest.mark.parametrize("opened_before", [True, False], ids=["open", "unopened"])
@pytest.mark.parametrize("after", [False, True], ids=["before-the-effect", "after-the-effect"])
@pytest.mark.parametrize("name", COMMANDS)
async def test_the_pipe_may_die_in_any_call_of_a_command(
    make: Make, name: str, *, after: bool, opened_before: bool
) -> None:
    """Whichever call the terminal dies in, the command is executed at most once and its outcome is true: CONFIRMED was
    executed, REJECTED was not, else UNKNOWN; and the next reads show what happened."""
    died_in: list[str] = []
    while True:
        rig = make()
        ticket = rig.world.buy(sl=1.09).order
        if opened_before:
            await rig.door.positions(ACCOUNT)
        rig.wire.die_in(len(died_in), after=after)
        outcome = await rig.door.execute(COMMANDS[name](ticket))
        assert rig.wire.calls.count("order_send") <= 1
        match outcome.status:
            case OutcomeStatus.CONFIRMED:
                assert effects(rig.world) == 1
            case OutcomeStatus.REJECTED:
                assert effects(rig.world) == 0
            case OutcomeStatus.UNKNOWN:
                assert effects(rig.world) == (
                    "order_send" in rig.wire.calls and (rig.wire.died_in != "order_send" or after)
                )
        if rig.wire.died_in is None:
            break
        died_in.append(rig.wire.died_in)
        assert await rig.door.positions(ACCOUNT) == rig.world.broker.positions()
    assert set(died_in) >= {"terminal_info", "account_info", "symbol_info", "symbol_info_tick", "order_send"}
    assert ("initialize" in died_in) != opened_before


@pytest.mark.parametrize("after", [False, True], ids=["before-the-effect", "after-the-effect"])
@pytest.mark.parametrize("query", QUERIES)
async def test_the_pipe_may_die_in_any_call_of_a_query(make: Make, query: Callable[[Any], Any], *, after: bool) -> None:
    """The query says that it failed; the same query a moment later is answered by the terminal of then."""
    rig = make()
    rig.world.buy()
    await query(rig.door)
    calls = 0
    while True:
        rig.wire.die_in(calls, after=after)
        try:
            await query(rig.door)
        except BrokerUnavailable:
            assert rig.wire.died_in is not None
            calls += 1
            await query(rig.door)
            continue
        assert rig.wire.died_in is None
        break
    assert calls >= 2  # terminal_info, account_info, and what else is read


async def test_a_placed_order_is_waited_for(make: Make) -> None:
    """While an accepted order is on its way the positions prove nothing; reads say so, for a while."""
    rig = make()
    rig.world.broker.faults.place(60_000)
    outcome = await rig.door.execute(command(CommandKind.OPEN, 0))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, Retcode.PLACED)
    with pytest.raises(BrokerUnavailable, match=f"order {outcome.order} is accepted and not executed yet"):
        await rig.door.positions(ACCOUNT)
    rig.world.tick(1.1, 1.1001, after_ms=10_000)
    assert await rig.door.positions(ACCOUNT) == []


async def test_a_bridge_that_raises_is_a_broken_pipe(make: Make) -> None:
    """A module over the network raises where the package answers None: the same is made of it, it is opened anew."""
    rig = make()
    ticket = rig.world.buy().order
    rig.wire.raises["order_send"] = EOFError("connection closed by peer")
    outcome = await rig.door.execute(command(CommandKind.CLOSE, ticket))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, LastError.INTERNAL_FAIL)
    rig.wire.raises["positions_get"] = ConnectionResetError("reset")
    with pytest.raises(BrokerUnavailable, match="ConnectionResetError"):
        await rig.door.positions(ACCOUNT)
    rig.wire.raises.clear()
    assert [held.ticket for held in await rig.door.positions(ACCOUNT)] == [ticket]
    assert rig.wire.calls.count("initialize") == 3


async def test_an_unknown_retcode_is_unknown(make: Make) -> None:
    """What no documentation names proves nothing."""
    rig = make()
    rig.wire.overlay["order_send"] = lambda result: type(result).of(**(result._asdict() | {"retcode": 10099}))
    assert (await rig.door.execute(command(CommandKind.OPEN, 0))).status is OutcomeStatus.UNKNOWN


# --- whom it talks to ------------------------------------------------------------------------------------------------


def account_of(login: int) -> Callable[[Mt5AccountInfo], Mt5AccountInfo]:
    return lambda info: Mt5AccountInfo.of(**(info._asdict() | {"login": login}))


def terminal_in(path: str, **changes: object) -> Callable[[TerminalInfo], TerminalInfo]:
    return lambda info: TerminalInfo.of(**(info._asdict() | {"path": path} | changes))


async def test_another_account_is_neither_read_nor_traded(make: Make) -> None:
    """Somebody logs the terminal in to another account: every query fails, no order is sent, until it is back."""
    rig = make()
    ticket = rig.world.buy().order
    rig.wire.overlay["account_info"] = account_of(7002)
    for query in QUERIES:
        with pytest.raises(BrokerUnavailable, match="logged in to 7002@Paper, not 7001@Paper"):
            await query(rig.door)
    outcome = await rig.door.execute(command(CommandKind.CLOSE, ticket))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, LastError.AUTH_FAILED)
    assert "order_send" not in rig.wire.calls
    rig.wire.overlay.clear()
    assert [held.ticket for held in await rig.door.positions(ACCOUNT)] == [ticket]


async def test_an_account_switched_under_an_order_confirms_nothing(make: Make) -> None:
    """On the other account the position does not exist: that is no proof that ours is closed."""
    rig = make()
    seen = iter([7001])
    rig.wire.overlay["account_info"] = lambda info: Mt5AccountInfo.of(**(info._asdict() | {"login": next(seen, 7002)}))
    outcome = await rig.door.execute(command(CommandKind.CLOSE, 404))
    assert (outcome.status, outcome.retcode) == (OutcomeStatus.UNKNOWN, LastError.AUTH_FAILED)


async def test_another_terminal_is_refused(make: Make) -> None:
    """The executable asked for decides which terminal may answer, at the first look and at every later one."""
    login = Login(ACCOUNT, terminal="C:\\MT5 of Broker A\\terminal64.exe")
    rig = make(login=login)
    rig.wire.overlay["terminal_info"] = terminal_in("C:\\MT5 of Broker B")
    with pytest.raises(BrokerUnavailable, match=r"another terminal answers: C:.MT5 of Broker B"):
        await rig.mt5.health()
    rig.wire.overlay["terminal_info"] = terminal_in("c:\\mt5 of broker a")
    assert (await rig.mt5.health()).path == "c:\\mt5 of broker a"
    rig.wire.overlay["terminal_info"] = terminal_in("C:\\MT5 of Broker B")
    with pytest.raises(BrokerUnavailable, match="another terminal"):
        await rig.door.positions(ACCOUNT)


async def test_health_tells_link_and_switches(make: Make) -> None:
    """A terminal without its server, or with trading switched off, is seen as such."""
    rig = make()
    health = await rig.mt5.health()
    assert (health.linked, health.terminal_trades, health.experts_trade, health.hedging) == (True, True, True, True)
    rig.world.broker.faults.disconnect()
    rig.world.broker.faults.trade_allowed = rig.world.broker.faults.server_allows = False
    health = await rig.mt5.health()
    assert (health.linked, health.terminal_trades, health.experts_trade) == (False, False, False)


async def test_a_hidden_symbol_is_put_into_the_market_watch(make: Make) -> None:
    """Without that a symbol has no ticks."""
    rig = make()
    rig.wire.overlay["symbol_info"] = lambda info: type(info).of(**(info._asdict() | {"select": False}))
    await rig.door.symbol(ACCOUNT, "EURUSD")
    assert "symbol_select" in rig.wire.calls


# --- the fence -------------------------------------------------------------------------------------------------------


async def test_the_fence_outlives_the_gateway(make: Make, tmp_path: Path) -> None:
    """A token that a gateway has seen is remembered by the next one: a stale command is refused after a restart too."""
    rig = make(fence=Fence(tmp_path / "fence.db"))
    assert (await rig.door.execute(command(CommandKind.MODIFY, 1, token=7))).retcode == Retcode.POSITION_CLOSED
    again = make(fence=Fence(tmp_path / "fence.db"))
    assert (await again.door.execute(command(CommandKind.MODIFY, 1, token=6))).comment == "STALE_TOKEN"
    assert again.wire.calls == []
    assert (await again.door.execute(command(CommandKind.MODIFY, 1, token=7))).retcode == Retcode.POSITION_CLOSED


def test_the_fence_keeps_the_highest_token_of_each_trade(tmp_path: Path) -> None:
    """Equal ticket numbers of two accounts are two trades."""
    fence = Fence(tmp_path / "fence.db")
    assert [fence.admit("1@A", 5, 3), fence.admit("1@A", 5, 9), fence.admit("2@B", 5, 1)] == [True] * 3
    fence.close()
    fence = Fence(tmp_path / "fence.db")
    assert [fence.admit("1@A", 5, 8), fence.admit("2@B", 5, 1), fence.admit("1@A", 5, 9)] == [False, True, True]
    fence.close()


# --- the server's clock ----------------------------------------------------------------------------------------------


def test_the_offset_is_believed_after_ticks_that_agree(tmp_path: Path) -> None:
    """Ticks that have just arrived show it to the quarter of an hour; it is kept on disk."""
    time = ServerTime(tmp_path / "time.json")
    with pytest.raises(OffsetUnknown):
        time.to_utc_msc(T0)
    for number in range(OBSERVATIONS):
        assert time.offset_s is None
        time.observe(T0 + number * 1000 + 2 * HOUR - 700, T0 + number * 1000)
    assert time.offset_s == 7200
    assert time.to_utc_msc(T0 + 2 * HOUR) == T0
    assert time.to_utc_msc(0) == 0
    assert ServerTime(tmp_path / "time.json").offset_s == 7200


def test_one_odd_tick_changes_no_clock() -> None:
    """Ticks far off a quarter of an hour, and a single other opinion, are not believed."""
    time = ServerTime(None, [(0, 7200)])
    for number in range(10):
        time.observe(T0 + 2 * HOUR - 400_000, T0 + number)
        time.observe(T0 + (3 if number % 3 == 0 else 2) * HOUR, T0)
        time.observe(T0 + 40 * HOUR, T0)
    assert time.offset_s == 7200


def test_daylight_saving_changes_the_offset_from_then_on(tmp_path: Path) -> None:
    """A deal from before the change keeps the time that it had."""
    time = ServerTime(tmp_path / "time.json", [(T0 - 1000 * HOUR, 7200)])
    before = time.to_utc_msc(T0 - HOUR + 2 * HOUR)
    for number in range(OBSERVATIONS):
        time.observe(T0 + 3 * HOUR + number, T0 + number)
    assert time.offset_s == 10_800
    again = ServerTime(tmp_path / "time.json")
    assert again.to_utc_msc(T0 - HOUR + 2 * HOUR) == before == T0 - HOUR
    assert again.to_utc_msc(T0 + HOUR + 3 * HOUR) == T0 + HOUR


def test_a_clock_file_that_says_something_else_is_refused(tmp_path: Path) -> None:
    """Its name is in the message, and an offset outside of all time zones is refused too."""
    (tmp_path / "time.json").write_text(json.dumps([{"from": 1}]))
    with pytest.raises(ValueError, match=r"time\.json"):
        ServerTime(tmp_path / "time.json")
    with pytest.raises(ValueError, match="900"):
        ServerTime(None).set(7000, T0)


async def test_times_are_not_told_before_the_offset_is_known(make: Make) -> None:
    """Positions without a time zone would be an hour or three off: unavailable, until ticks have shown it."""
    rig = make(world={"config": {"server_utc_offset_s": 10_800}}, time=ServerTime(None))
    rig.world.buy()
    with pytest.raises(BrokerUnavailable, match="offset is not known"):
        await rig.door.positions(ACCOUNT)
    assert await rig.mt5.observe(["EURUSD"]) is None
    for _ in range(OBSERVATIONS):
        assert await rig.mt5.observe(["EURUSD"]) is None
        rig.world.tick(1.1, 1.1001)
    assert await rig.mt5.observe(["EURUSD"]) == 10_800
    assert await rig.door.positions(ACCOUNT) == rig.world.broker.positions()


# --- prices ----------------------------------------------------------------------------------------------------------


async def test_every_tick_is_taken_once_in_order(make: Make) -> None:
    """The first look takes the newest only; ticks of one millisecond are told apart; times are UTC."""
    rig = make(world={"config": {"server_utc_offset_s": 7200}})
    look = await rig.mt5.look(["EURUSD"])
    assert [(p.time_msc, p.bid) for p in look.ticks["EURUSD"]] == [(rig.world.now, 1.1)]
    assert (await rig.mt5.look(["EURUSD"])).ticks == {}
    sent: list[tuple[int, float]] = []
    taken: list[tuple[int, float]] = []
    for number in range(60):
        for twin in range(number % 3):
            bid = round(1.1 + number / 10_000 + twin / 100_000, 5)
            rig.world.tick(bid, round(bid + 0.0001, 5), after_ms=0 if twin else 7)
            sent.append((rig.world.now, bid))
        if number % 4 == 0:
            look = await rig.mt5.look(["EURUSD"])
            taken += [(p.time_msc, p.bid) for p in look.ticks.get("EURUSD", [])]
    rig.world.tick(1.2, 1.2001)
    taken += [(p.time_msc, p.bid) for p in (await rig.mt5.look(["EURUSD"])).ticks["EURUSD"]]
    assert taken == [*sent, (rig.world.now, 1.2)]


async def test_a_look_that_fails_loses_no_tick(make: Make) -> None:
    """The ticks of a look whose positions could not be read come with the next one."""
    rig = make()
    await rig.mt5.look(["EURUSD"])
    rig.world.tick(1.11, 1.1101)
    rig.wire.fail["positions_get"] = LastError.FAIL
    with pytest.raises(BrokerUnavailable):
        await rig.mt5.look(["EURUSD"])
    rig.wire.fail.clear()
    assert [p.bid for p in (await rig.mt5.look(["EURUSD"])).ticks["EURUSD"]] == [1.11]


async def test_the_change_count_rises_with_every_change_of_a_position(make: Make) -> None:
    """A stop moved by hand, a part closed, a position opened or gone: each is one more; a price is none."""
    rig = make()
    foreign = ForeignActor(rig.world.broker)

    async def count() -> int:
        return (await rig.mt5.look(["EURUSD"])).change_count

    counts = [await count()]
    ticket = rig.world.buy(0.2).order
    for change in (
        lambda: None,
        lambda: foreign.modify(ticket, 1.05, 0.0),
        lambda: foreign.close(ticket, 0.1),
        lambda: foreign.close(ticket, 0.1),
    ):
        change()
        counts.append(await count())
        rig.world.tick(1.1, 1.1001)
        assert await count() == counts[-1]
    assert counts == list(range(counts[0], counts[0] + 5))


async def test_a_position_that_opens_and_is_stopped_out_between_two_looks_is_a_change(make: Make) -> None:
    """A hedge may live for less than a look: though everything is as it was before, the service is told to compare."""
    rig = make()
    before = (await rig.mt5.look(["EURUSD"])).change_count
    outcome = await rig.mt5.execute(command(CommandKind.OPEN, 7, sl=1.0990))
    assert outcome.status is OutcomeStatus.CONFIRMED
    rig.world.tick(1.0980, 1.0981)
    assert outcome.order not in {position.ticket for position in rig.world.broker.positions()}
    after = (await rig.mt5.look(["EURUSD"])).change_count
    assert after == before + 1
    assert (await rig.mt5.look(["EURUSD"])).change_count == after
