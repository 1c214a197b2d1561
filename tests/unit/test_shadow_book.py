"""The shadow book beside a real account: the same while nobody commands it, apart afterwards, on disk always."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtms_service.broker.door import (
    BrokerUnavailable,
    ClosingDeal,
    Command,
    CommandKind,
    OutcomeStatus,
    Position,
    Report,
    Side,
)
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.errors import DtmsError
from dtms_service.history import Tick
from dtms_service.shadow import ShadowBook, ShadowStore, books_in
from dtms_service.shadow.door import ShadowDoor, Shadows
from tests.unit.paper_world import CONFIG, SPEC, World
from tests.unit.test_paper_properties import act, actions

ACCOUNT = CONFIG.account_id
EURUSD = SPEC.name


class ReadOnlyDoor(PaperDoor):
    """The real account's door. Nobody sends anything through it; ``late`` deals are not shown yet."""

    late = False

    async def execute(self, command: Command) -> Any:
        raise AssertionError(f"a shadow run sent {command}")

    async def closing_deals(self, account_id: str, position: int) -> list[ClosingDeal]:
        return [] if self.late else await super().closing_deals(account_id, position)


class Pair:
    """A real account, and the shadow beside it."""

    def __init__(self, folder: Path, **world: Any) -> None:
        self.real = World(**world)
        self.real_door = ReadOnlyDoor({ACCOUNT: self.real.broker})
        self.folder = folder
        self.shadows = Shadows(folder, {})
        self.hand = ForeignActor(self.real.broker)

    async def attach(self) -> ShadowDoor:
        self.door = await self.shadows.door_before(ACCOUNT, self.real_door, [EURUSD])
        self.shadows.serve(self.door)
        return self.door

    async def price(self) -> None:
        """The real account's last quote reaches the shadow."""
        market = self.real.broker.market(EURUSD)
        tick = Tick(self.real.broker.now_msc, market.bid, market.ask, 1.0)
        await self.shadows.tick(ACCOUNT, EURUSD, tick, self.real.broker.change_count)

    async def tick(self, bid: float) -> None:
        self.real.tick(bid, round(bid + 0.0001, 5))
        await self.price()

    async def held(self) -> list[Position]:
        return await self.door.positions(ACCOUNT)

    @property
    def book(self) -> ShadowBook:
        return self.door._book


_intents = itertools.count(1)


def command(kind: CommandKind, position: int, **fields: Any) -> Command:
    values: dict[str, Any] = {"side": Side.BUY, "volume": 0.0, "sl": None, "tp": None} | fields
    intent = next(_intents)
    return Command(
        intent_id=intent,
        account_id=ACCOUNT,
        ticket=position,
        token=1,
        kind=kind,
        symbol=EURUSD,
        position=0 if kind is CommandKind.OPEN else position,
        deviation_points=100_000,
        magic=5,
        comment=f"dtms {intent}",
        **values,
    )


def levels(position: Position) -> tuple[Any, ...]:
    return position.ticket, position.volume, position.price_open, position.sl, position.tp, position.swap


def money(deal: ClosingDeal) -> tuple[Any, ...]:
    return deal.reason, deal.volume, deal.price, deal.profit, deal.commission, deal.swap, deal.remaining


@settings(max_examples=60)
@given(steps=st.lists(actions, max_size=25))
async def test_left_alone_the_shadow_is_the_account(steps: list[tuple[object, ...]]) -> None:
    """Without a command both hold the same positions at the same levels, and book the same for each closing deal."""
    with TemporaryDirectory() as folder:
        pair = Pair(Path(folder), config={"commission_per_lot_side": 3.5})
        door = await pair.attach()
        seen: set[int] = set()
        for step in steps:
            act(pair.real, step)
            await pair.price()
            seen |= {position.ticket for position in pair.real.broker.positions()}
            assert list(map(levels, await pair.held())) == list(map(levels, pair.real.broker.positions()))
        for ticket in seen:
            theirs = pair.real.broker.closing_deals(ticket)
            assert list(map(money, await door.closing_deals(ACCOUNT, ticket))) == list(map(money, theirs))
        pair.shadows.close()


commands = st.tuples(
    st.just("command"), st.sampled_from(CommandKind), st.integers(0, 5), st.integers(1, 40), st.integers(-400, 400)
)


@settings(max_examples=60)
@given(steps=st.lists(st.one_of(actions, commands), max_size=25))
async def test_no_command_changes_the_account(steps: list[tuple[object, ...]]) -> None:
    """Whatever is commanded, the real account goes the way of a twin without a shadow; the book on disk is whole."""
    with TemporaryDirectory() as folder:
        pair, twin = Pair(Path(folder)), World()
        await pair.attach()
        for step in steps:
            match step:
                case ("command", CommandKind() as kind, int(pick), int(lots), int(points)):
                    held = await pair.held()
                    ticket = held[pick].ticket if pick < len(held) else 1
                    level = round(1.1 + points * SPEC.point, 5)
                    await pair.door.execute(command(kind, ticket, volume=lots * 0.01, sl=level))
                case _:
                    act(pair.real, step)
                    act(twin, step)
                    await pair.price()
        assert pair.real.broker.positions() == twin.broker.positions()
        assert pair.real.broker.book.ledger.deals == twin.broker.book.ledger.deals
        (file,) = books_in(Path(folder))
        again = ShadowStore.open(file)
        assert sorted(map(levels, again.book.positions())) == sorted(map(levels, pair.book.positions()))
        assert again.book.real == pair.book.real
        assert again.book.book.ledger.deals == pair.book.book.ledger.deals
        again.release()
        pair.shadows.close()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


async def test_volume_that_joins_a_netting_position_joins_the_shadow(tmp_path: Path) -> None:
    """The same lots, at the price that they had: also where DTMS has taken a part away."""
    pair = Pair(tmp_path, config={"hedging": False})
    await pair.attach()
    ticket = pair.hand.open(EURUSD, Side.BUY, 1.0, 0.0, 0.0).order
    await pair.tick(1.1)
    await pair.door.execute(command(CommandKind.CLOSE, ticket, volume=0.5))
    await pair.tick(1.1029)
    pair.hand.open(EURUSD, Side.BUY, 1.0, 0.0, 0.0)
    await pair.tick(1.103)
    (shadow,) = await pair.held()
    assert shadow.volume == 1.5
    assert shadow.price_open == pytest.approx((0.5 * 1.1001 + 1.0 * 1.103) / 1.5)


async def test_deals_that_come_late_are_waited_for(pair: Pair) -> None:
    """A position that is gone without a closing deal changes nothing; the deal, when it is there, is followed."""
    await pair.attach()
    ticket = pair.hand.open(EURUSD, Side.BUY, 1.0, 0.0, 0.0).order
    await pair.tick(1.1)
    pair.real_door.late = True
    pair.hand.close(ticket, 0.4)
    await pair.tick(1.1)
    pair.hand.close(ticket, 0.6)
    await pair.tick(1.1)
    assert [position.volume for position in await pair.held()] == [1.0]
    pair.real_door.late = False
    await pair.tick(1.1)
    assert await pair.held() == []
    assert [deal.volume for deal in await pair.door.closing_deals(ACCOUNT, ticket)] == [0.4, 0.6]


async def test_a_small_part_closes_no_whole_position(pair: Pair) -> None:
    """One step of volume that DTMS has left cannot be closed in proportion: it stays until the real rest goes."""
    await pair.attach()
    ticket = pair.hand.open(EURUSD, Side.BUY, 1.0, 0.0, 0.0).order
    await pair.tick(1.1)
    await pair.door.execute(command(CommandKind.CLOSE, ticket, volume=0.99))
    pair.hand.close(ticket, 0.9)
    await pair.tick(1.1)
    assert [position.volume for position in await pair.held()] == [0.01]
    pair.hand.close(ticket, 0.1)
    await pair.tick(1.1)
    assert await pair.held() == []


async def test_a_margin_stop_out_is_followed(tmp_path: Path) -> None:
    """The real broker closes for want of margin: so it does in the shadow, at that price."""
    pair = Pair(tmp_path, config={"balance": 1500.0})
    await pair.attach()
    ticket = pair.hand.open(EURUSD, Side.BUY, 1.0, 0.0, 0.0).order
    await pair.tick(1.1)
    await pair.tick(1.089)
    assert pair.real.broker.positions() == []
    (real,), (shadow,) = pair.real.broker.closing_deals(ticket), await pair.door.closing_deals(ACCOUNT, ticket)
    assert money(shadow) == money(real)


async def test_a_shadow_outlives_its_gateway(pair: Pair) -> None:
    """A new stream of the same account goes on with the book as it was; the old door is no longer served."""
    first = await pair.attach()
    ticket = pair.hand.open(EURUSD, Side.BUY, 1.0, 1.09, 0.0).order
    await pair.tick(1.1)
    moved = await first.execute(command(CommandKind.MODIFY, ticket, sl=1.095))
    assert moved.status is OutcomeStatus.CONFIRMED
    old, pair.real_door = pair.real_door, ReadOnlyDoor({ACCOUNT: pair.real.broker})
    second = await pair.attach()
    assert [position.sl for position in await second.positions(ACCOUNT)] == [1.095]
    assert pair.shadows.door_of(ACCOUNT, old) is old
    assert pair.shadows.door_of(ACCOUNT, pair.real_door) is second


async def test_a_broker_that_does_not_answer_is_said(pair: Pair) -> None:
    """Before the account was read once, nothing is known, and an empty answer would be a lie."""
    door = await pair.attach()
    pair.real.broker.faults.kill_terminal()
    with pytest.raises(BrokerUnavailable):
        await door.positions(ACCOUNT)
    with pytest.raises(BrokerUnavailable):
        await door.report(ACCOUNT, -1)
    with pytest.raises(BrokerUnavailable):
        await door.execute(command(CommandKind.CLOSE, 7, volume=1.0))


async def test_a_symbol_whose_money_nothing_converts_is_refused(tmp_path: Path) -> None:
    """The refusal names the key of the configuration that mends it."""
    pair = Pair(tmp_path, quoted=False, config={"currency": "CHF", "conversion_rates": {"USD": 0.9, "EUR": 0.95}})
    with pytest.raises(DtmsError, match="shadow_conversion_rates"):
        await pair.attach()
    pair.shadows = Shadows(tmp_path / "other", {"USD": 0.9, "EUR": 0.95})
    assert (await pair.attach()).account_id == ACCOUNT


async def test_equity_is_that_of_the_shadow(pair: Pair) -> None:
    """Rails judge what DTMS would have lost: here half of what the account loses, for half was closed at +9 pips."""
    door = await pair.attach()
    ticket = pair.hand.open(EURUSD, Side.BUY, 1.0, 0.0, 0.0).order
    await pair.tick(1.101)
    await door.execute(command(CommandKind.CLOSE, ticket, volume=0.5))
    await pair.tick(1.0901)
    assert (await pair.real_door.account(ACCOUNT)).equity == pytest.approx(10_000 - 1000)
    assert (await door.account(ACCOUNT)).equity == pytest.approx(10_000 + 45 - 500)
    assert pair.shadows.equity(ACCOUNT) == pytest.approx(10_000 + 45 - 500)
    pair.shadows.close()
    pair.shadows = Shadows(pair.folder, {})
    restarted = await pair.attach()
    assert len(await restarted.positions(ACCOUNT)) == 1
    assert pair.shadows.equity(ACCOUNT) is None
    assert (await restarted.account(ACCOUNT)).equity == pytest.approx(10_000 + 45 - 1000)


async def test_a_report_names_what_changed(pair: Pair) -> None:
    """The book's own change count tells the monitor what to read: everything at first, then only the changed."""
    door = await pair.attach()
    ticket = pair.hand.open(EURUSD, Side.BUY, 1.0, 1.09, 0.0).order
    await pair.tick(1.1)
    count = pair.book.change_count
    assert (await door.report(ACCOUNT, count)) == Report([], frozenset())
    await door.execute(command(CommandKind.MODIFY, ticket, sl=1.095))
    report = await door.report(ACCOUNT, count)
    assert (report.changed, [position.sl for position in report.positions]) == (frozenset({ticket}), [1.095])
