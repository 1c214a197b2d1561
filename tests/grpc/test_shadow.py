"""Shadow mode: everything is decided and recorded, nothing reaches the broker; the shadow follows the real account."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from dtms.v1 import action_pb2, event_pb2, trade_pb2
from dtms_service import cli
from dtms_service.errors import JournalModeDiffers
from dtms_service.live_table import LiveTable
from dtms_service.shadow import ShadowStore, books_in
from dtms_service.shadow.book import FIRST_TICKET
from tests.grpc.test_course import CLOSED, CONFIRMED, HEDGED, L2
from tests.grpc.test_outcomes import events_of
from tests.shadow_world import ACCOUNT, by_dtms, close_by_hand, move_by_hand, shadow_held, shadowing
from tests.stack import close_all, part_of, running, stop_at, target_at


async def test_a_granted_change_is_confirmed_and_reaches_no_broker(tmp_path: Path) -> None:
    """To the manager it is as live: granted, confirmed, shown; the real position keeps its stop."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        answer = await stack.propose(trade, stop_at(1.096))
        assert answer.outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
        assert (await stack.get_trade(trade.ticket)).confirmed.sl == 1.096
        assert await shadow_held(stack) == {trade.ticket: (1.0, 1.096, 1.1101)}
        assert stack.held() == {trade.ticket: (1.0, 1.0951, 1.1101)}
        assert by_dtms(tmp_path) == []


async def test_defence_runs_its_course_and_the_account_stands_still(tmp_path: Path) -> None:
    """States go on to confirmed: half is closed, the stop moved, the hedge exists, all of it in the shadow."""
    async with shadowing(tmp_path) as stack:
        await stack.warm_up()
        trade = await stack.trade()
        real = stack.held()
        await stack.tick(1.1021)
        await stack.report_score(-10.5)
        now = await stack.get_trade(trade.ticket)
        assert (now.state, now.phase) == (HEDGED, CONFIRMED)
        assert now.hedge.ticket >= FIRST_TICKET
        assert set(await shadow_held(stack)) == {trade.ticket, now.hedge.ticket}
        assert stack.held() == real


async def test_a_close_by_hand_closes_the_shadow_at_its_price(tmp_path: Path) -> None:
    """Whoever closes the real position closes the trade: at that price, with that money (300 less 3.50 costs)."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.propose(trade, stop_at(1.096))
        await stack.tick(1.1031)
        await close_by_hand(stack, trade.ticket)
        await stack.tick(1.0992)
        events = await events_of(stack, trade)
        (closed,) = [event.leg_closed for event in events if event.HasField("leg_closed")]
        assert (closed.reason, closed.price, closed.profit) == (event_pb2.CLOSE_REASON_CLIENT, 1.1031, 296.5)
        assert await shadow_held(stack) == {}


async def test_a_part_closed_by_hand_is_closed_in_proportion(tmp_path: Path) -> None:
    """Of a shadow position that DTMS has halved, a tenth is a tenth."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.propose(trade, part_of(0.5))
        await close_by_hand(stack, trade.ticket, 0.1)
        await stack.tick(1.1002)
        assert await shadow_held(stack) == {trade.ticket: (0.45, 1.0951, 1.1101)}
        assert stack.held()[trade.ticket][0] == 0.9
        assert (await stack.get_trade(trade.ticket)).volume == 0.45


async def test_a_stop_that_both_have_is_filled_as_the_real_one(tmp_path: Path) -> None:
    """The real broker's fill counts: price and money of the real deal, also where the shadow is smaller."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.propose(trade, part_of(0.5))
        await stack.tick(1.0949)
        events = await events_of(stack, trade)
        closed = [event.leg_closed for event in events if event.HasField("leg_closed")][-1]
        assert (closed.reason, closed.price) == (event_pb2.CLOSE_REASON_STOP_LOSS, 1.0949)
        assert stack.held() == {}


async def test_a_stop_that_only_the_account_has_leaves_the_shadow_alive(tmp_path: Path) -> None:
    """A real target that the shadow has not closes no shadow: it lives on by its own levels, and ends by them."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.propose(trade, target_at(1.12))
        await stack.tick(1.1103)
        assert stack.held() == {}
        assert await shadow_held(stack) == {trade.ticket: (1.0, 1.0951, 1.12)}
        await stack.tick(1.1201)
        events = await events_of(stack, trade)
        (closed,) = [event.leg_closed for event in events if event.HasField("leg_closed")]
        assert (closed.reason, closed.price) == (event_pb2.CLOSE_REASON_TAKE_PROFIT, 1.12)


async def test_a_tighter_stop_of_the_shadow_closes_it_alone(tmp_path: Path) -> None:
    """The shadow ends at its own stop, at the tick that reaches it, while the real position lives."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.propose(trade, stop_at(1.0991))
        await stack.tick(1.0989)
        assert await shadow_held(stack) == {}
        assert list(stack.held()) == [trade.ticket]
        assert (await stack.get_trade(trade.ticket)).state == CLOSED
        await close_by_hand(stack, trade.ticket)
        await stack.tick(1.1)
        assert (await stack.get_trade(trade.ticket)).close_price == 1.0989


async def test_a_level_moved_by_hand_moves_in_the_shadow_until_dtms_has_moved_it(tmp_path: Path) -> None:
    """A stop that both share moves for both, as a change by somebody else; one that DTMS has put elsewhere stays."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await move_by_hand(stack, trade.ticket, 1.0961, 1.1111)
        await stack.tick(1.1001)
        assert await shadow_held(stack) == {trade.ticket: (1.0, 1.0961, 1.1111)}
        now = await stack.get_trade(trade.ticket)
        assert (now.confirmed.sl, now.confirmed.tp) == (1.0961, 1.1111)
        await stack.propose(now, stop_at(1.0971))
        await move_by_hand(stack, trade.ticket, 1.0981, 1.1121)
        await stack.tick(1.1002)
        assert await shadow_held(stack) == {trade.ticket: (1.0, 1.0971, 1.1121)}


async def test_a_position_is_taken_in_when_it_is_commanded(tmp_path: Path) -> None:
    """Opened, registered and closed by its manager between two prices: the shadow knows it, the account keeps it."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        answer = await stack.propose(trade, close_all())
        assert answer.outcome.status == action_pb2.OUTCOME_STATUS_CONFIRMED
        assert await shadow_held(stack) == {}
        assert list(stack.held()) == [trade.ticket]


async def test_an_account_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    """I21: while the real broker does not answer, the shadow stays as it is; then it follows."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.tick(1.1001)
        stack.faults.terminal_runs, stack.faults.pipe_broken = False, True
        await close_by_hand(stack, trade.ticket)
        await stack.tick(1.1002)
        assert list(await shadow_held(stack)) == [trade.ticket]
        stack.faults.terminal_runs = True
        await stack.tick(1.1003)
        assert await shadow_held(stack) == {}


async def test_a_restart_resumes_the_shadow_book(tmp_path: Path) -> None:
    """Hedge, halved volume and moved stop are there again; what happened at the account meanwhile is followed."""
    async with shadowing(tmp_path) as stack:
        await stack.warm_up()
        trade, other = await stack.trade(), await stack.trade()
        await stack.propose(other, stop_at(1.0961))
        await stack.tick(1.1021)
        await stack.report_score(-10.5)
        before, shadow, real = await stack.get_trade(trade.ticket), await shadow_held(stack), stack.held()
        assert before.state == HEDGED
    async with shadowing(tmp_path) as stack:
        assert await stack.get_trade(trade.ticket) == before
        assert await shadow_held(stack) == shadow
        assert stack.held() == real
        await stack.tick(1.1021)
        await close_by_hand(stack, trade.ticket)
        await stack.tick(1.1021)
        now = await stack.get_trade(trade.ticket)
        assert now.state == CLOSED
        assert trade.ticket not in await shadow_held(stack)
        assert now.hedge.ticket not in await shadow_held(stack)


async def test_what_happened_while_the_service_was_away_is_followed(tmp_path: Path) -> None:
    """A position that was closed at the account during an outage is closed in the shadow at the start."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.tick(1.1001)
        await close_by_hand(stack, trade.ticket)
    async with shadowing(tmp_path) as stack:
        assert await shadow_held(stack) == {}
        assert (await stack.get_trade(trade.ticket)).state == CLOSED


async def test_a_directory_is_either_live_or_shadow(tmp_path: Path) -> None:
    """What never happened is not mixed with what did: each mode refuses the other's directory, and says what to do."""
    async with running(tmp_path / "live") as stack:
        await stack.tick(1.1)
    with pytest.raises(JournalModeDiffers, match="a shadow run needs a directory of its own"):
        async with running(tmp_path / "live", {"shadow": "true"}):
            pass
    async with shadowing(tmp_path):
        pass
    with pytest.raises(JournalModeDiffers, match="start with --shadow"):
        async with running(tmp_path / "data"):
            pass


def test_the_command_line_has_a_flag_for_it() -> None:
    """`dtms serve --shadow`; without it the service is live."""
    given = [cli.app.parse_args(["serve", *flag])[1].arguments for flag in (["--shadow"], [])]
    assert [arguments.get("shadow", False) for arguments in given] == [True, False]


async def test_the_status_says_shadow(tmp_path: Path) -> None:
    """So do the live table and `dtms status`, where nobody can overlook it."""
    async with shadowing(tmp_path) as stack:
        assert (await (await stack.client("viewer")).system_status()).shadow
    table = LiveTable("DTMS")
    table.shadow = True
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table)
    assert "SHADOW" in shown.get()


async def test_the_record_of_the_account_is_kept(tmp_path: Path) -> None:
    """What the account did stands in the data directory, in order, with who followed."""
    async with shadowing(tmp_path) as stack:
        trade = await stack.trade()
        await stack.tick(1.1001)
        await stack.propose(trade, stop_at(1.0961))
        await move_by_hand(stack, trade.ticket, 1.0955, 1.1101)
        await stack.tick(1.1002)
        await close_by_hand(stack, trade.ticket, 0.4)
        await stack.tick(1.1003)
        await close_by_hand(stack, trade.ticket)
        await stack.tick(1.1004)
    (file,) = books_in(tmp_path / "data")
    store = ShadowStore.open(file)
    kinds = [(change.kind.value, change.volume, change.followed) for change in store.changes()]
    store.close()
    assert store.book.config.account_id == ACCOUNT
    assert kinds == [("OPENED", 1.0, True), ("LEVELS", 1.0, False), ("REDUCED", 0.4, True), ("CLOSED", 0.6, True)]


async def test_adopted_positions_are_defended_in_the_shadow(tmp_path: Path) -> None:
    """Positions that stood at the account before the start are adopted, and defended like any other."""
    async with shadowing(tmp_path) as stack:
        await stack.tick(1.1)
        registration = await stack.open_position(sl=1.0951, tp=1.1101)
    async with shadowing(tmp_path) as stack:
        adopted = await stack.get_trade(registration.ticket)
        assert adopted.origin == trade_pb2.ORIGIN_EXTERNAL
        await stack.warm_up()
        await stack.tick(1.1021)
        await stack.report_score(-6.0)
        assert (await stack.get_trade(registration.ticket)).state == L2
        assert (await shadow_held(stack))[registration.ticket][0] == 0.5
        assert stack.held()[registration.ticket][0] == 1.0
