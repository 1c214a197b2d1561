"""kill -9 at each write, sync and send of service and gateway, in the middle of a desk's day, and what is left then.

The same script runs again and again: a position is opened and registered, a manager tightens its stop, the market turns
(WARNING_L1, WARNING_L2, HEDGED), turns back (RECOVERING), an operator closes. Whoever has no answer asks again under
the same ``request_id``. Each round must go exactly as one that nobody disturbs.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dtms.v1.action_pb2 import (
    ACTION_KIND_CLOSE,
    OUTCOME_STATUS_CONFIRMED,
    PURPOSE_FLATTEN,
    PURPOSE_TRAIL,
    Action,
)
from dtms.v1.arbitration_service_pb2 import ProposeResponse
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.score_pb2 import Score
from dtms.v1.trade_pb2 import (
    SIDE_BUY,
    STATE_PHASE_CONFIRMED,
    TRADE_STATE_CLOSED,
    TRADE_STATE_HEDGED,
    TRADE_STATE_RECOVERING,
    TRADE_STATE_WARNING_L1,
    TRADE_STATE_WARNING_L2,
    Trade,
    TradeState,
)
from dtms_client.errors import StaleEpoch
from dtms_service.audit import audit
from dtms_service.broker.paper import PaperBroker
from dtms_service.fault_points import Point
from dtms_service.journal import no_progress
from dtms_service.settings import configuration
from tests.messenger import messenger
from tests.process import test_killed_backup, test_killed_run
from tests.process.crash_world import (
    AGAIN_S,
    SL,
    TP,
    Crashing,
    Death,
    Terminal,
    behind_a_gateway,
    books_of,
    deals_of,
    embedded,
    recover_twice,
    shadow_books_of,
)
from tests.stack import EXIT_MANAGER, SYMBOL, stop_at

# What a round leaves at the broker: entry, half closed in WARNING_L2, the hedge, its stop, the rest by the operator.
DEALS = [("IN", 1.0, 1.0), ("OUT", 0.5, 0.5), ("IN", 0.25, 0.25), ("OUT", 0.25, 0.0), ("OUT", 0.5, 0.0)]
BY_HAND = [("IN", 1.0, 1.0), ("OUT", 1.0, 0.0)]
TIGHTENED, BEHIND, BREAKEVEN = 1.096, 1.1, 1.1001
IN_VAIN_S = 60.0
"""For one death: a watcher pauses for up to 5 s, three signs of life of a terminal take 4, and a round 0.3 or more."""


@dataclass(slots=True)
class Script:
    """Rounds of a desk, and everything that was acknowledged in them."""

    desk: Crashing
    answered: list[tuple[str, str, Trade, Action, ProposeResponse]] = field(default_factory=list)
    tokens: dict[int, int] = field(default_factory=dict)
    registered: list[int] = field(default_factory=list)
    _round: int = 0

    async def round(self) -> None:
        self._round += 1
        desk = self.desk
        await desk.account.price(1.1)
        held = await desk.account.buy()
        body = Registration(
            ticket=held.ticket,
            symbol=SYMBOL,
            side=SIDE_BUY,
            entry_price=held.price_open,
            volume=1.0,
            sl=SL,
            tp=TP,
            opened_ns=held.time_msc * 1_000_000,
        )
        trade = (await desk.sure(lambda: desk.client("feed").register_trade(body))).trade
        self.registered.append(trade.ticket)
        await self._propose(EXIT_MANAGER, trade.ticket, stop_at(TIGHTENED, PURPOSE_TRAIL))
        assert (await self._seen(trade.ticket)).confirmed.sl == TIGHTENED

        await desk.account.price(1.1015)
        await self._score(trade, "warn1", "warn2", TRADE_STATE_WARNING_L1, (1.0, BEHIND))
        await self._score(trade, "warn2", "critical", TRADE_STATE_WARNING_L2, (0.5, BREAKEVEN))
        hedged = await self._score(trade, "critical", None, TRADE_STATE_HEDGED, (0.5, BREAKEVEN))
        await self._has({trade.ticket: 0.5, hedged.hedge.ticket: 0.25})  # I13

        await self._report(0.001)
        await desk.account.price(round(hedged.hedge.sl + 0.0002, 5))
        await self._in(trade.ticket, TRADE_STATE_RECOVERING, (0.5, BREAKEVEN))
        await self._propose("operator", trade.ticket, Action(kind=ACTION_KIND_CLOSE, purpose=PURPOSE_FLATTEN))
        await self._in(trade.ticket, TRADE_STATE_CLOSED, None)
        await self._has({})  # no orphan

    async def _has(self, held: dict[int, float]) -> None:
        """The account has just these, volumes by ticket."""
        assert await self.desk.account.held() == held

    async def _score(
        self,
        trade: Trade,
        above: str,
        below: str | None,
        state: TradeState.ValueType,
        left: tuple[float, float],
    ) -> Trade:
        """Somebody outside reports a score between two thresholds; the trade once it is there, confirmed."""
        await self._report(0.001)
        limits = (await self.desk.sure(lambda: self.desk.client("viewer").get_score(SYMBOL, SIDE_BUY))).score.thresholds
        least = getattr(limits, below) if below is not None else getattr(limits, above) - 1
        await self._report((getattr(limits, above) + least) / 2)
        return await self._in(trade.ticket, state, left)

    async def _report(self, total: float) -> None:
        score = Score(total=total)
        await self.desk.sure(lambda: self.desk.client("feed").report_score(SYMBOL, score, valid_ms=600_000))

    async def _in(self, ticket: int, state: TradeState.ValueType, left: tuple[float, float] | None) -> Trade:
        """The trade in a confirmed state, with what is left of it: volume and stop."""

        def is_it(trade: Trade) -> bool:
            return (trade.state, trade.phase) == (state, STATE_PHASE_CONFIRMED)

        trade = await self.desk.trade_once(ticket, is_it)
        assert left is None or (trade.volume, trade.confirmed.sl) == left, trade
        return await self._note(trade)

    async def _seen(self, ticket: int) -> Trade:
        return await self._note(await self.desk.trade(ticket))

    async def _note(self, trade: Trade) -> Trade:
        """I2: a token that was shown is never followed by a lower one."""
        assert trade.owner_epoch >= self.tokens.get(trade.ticket, 0)
        self.tokens[trade.ticket] = trade.owner_epoch
        return trade

    async def _propose(self, manager: str, ticket: int, action: Action) -> None:
        """Until it is confirmed: again under the same key while there is no answer, under a new one after a "no"."""
        patience_s = self.desk.patience_s
        for attempt in range(round(patience_s / AGAIN_S)):
            if await self._has_done(manager, ticket, action, f"{self._round} {action.kind} {attempt}"):
                return
            # Not sent before the crash, as the broker shows; denied, as it stands there already, or as a service that
            # has come back knows no price yet.
            await asyncio.sleep(AGAIN_S)
        raise AssertionError(f"never confirmed in {patience_s} s: {self.answered[-20:]}")

    async def _has_done(self, manager: str, ticket: int, action: Action, key: str) -> bool:
        trade = await self._seen(ticket)

        async def ask() -> ProposeResponse:
            return await self.desk.client(manager).propose(
                request_id=key, ticket=ticket, owner_epoch=trade.owner_epoch, action=action, timeout_s=20
            )

        try:
            answer = await self.desk.sure(ask)
        except StaleEpoch:
            return False
        self.answered.append((manager, key, trade, action, answer))
        return answer.outcome.status == OUTCOME_STATUS_CONFIRMED

    def check_deals(self, broker: PaperBroker | None) -> None:
        """Each round left at the broker what an undisturbed one leaves: one hedge, each order once, no orphan."""
        assert deals_of(broker or books_of(self.desk.data_dir)) == DEALS * len(self.registered)

    async def check_answers(self) -> None:
        """I10, I20: whatever was answered is answered so again."""
        for manager, key, trade, action, answer in self.answered:
            client = self.desk.client(manager)

            async def ask(
                client: Any = client, key: str = key, trade: Trade = trade, action: Action = action
            ) -> ProposeResponse:
                again: ProposeResponse = await client.propose(
                    request_id=key, ticket=trade.ticket, owner_epoch=trade.owner_epoch, action=action
                )
                return again

            again = await self.desk.sure(ask)
            assert again.decision.decision_id == answer.decision.decision_id, key
            assert again.outcome.status == answer.outcome.status, key
        listed = [t.ticket async for t in self.desk.client("viewer").list_trades(include_closed=True)]
        assert set(self.registered) <= set(listed)


@dataclass(slots=True)
class InTheShadow(Script):
    """The account has what was bought by hand, and nothing else happens there until it is sold by hand."""

    async def _has(self, held: dict[int, float]) -> None:
        assert await self.desk.account.held() == {self.registered[-1]: 1.0}
        if not held:
            assert isinstance(self.desk.account, Terminal)
            await self.desk.account.close(self.registered[-1])

    def check_deals(self, broker: PaperBroker | None) -> None:
        """The entries are the account's; what the shadow did of itself it did once."""
        assert broker is not None
        assert deals_of(broker) == BY_HAND * len(self.registered)
        assert deals_of(shadow_books_of(self.desk.data_dir)) == DEALS[1:] * len(self.registered)


async def survive(
    desk: Crashing,
    broker: PaperBroker | None = None,
    *,
    recoveries: int | None = None,
    script_of: type[Script] = Script,
) -> None:
    """Rounds until everybody has died of everything, and one more in peace.

    ``broker`` is the one that outlives them, None the service's own. What ``recoveries`` deaths of the service (None:
    all) have left is recovered twice.
    """
    await desk.account.warm_up()
    desk.beside(desk.watch())
    desk.beside(desk.watch_prices())
    script = script_of(desk)
    loop, rounds, fired = asyncio.get_running_loop(), 0, len(desk.fired)
    since_s = loop.time()
    while desk.to_come:
        await script.round()
        rounds += 1
        service = desk.kept[0]
        while service.deaths and service.deaths[0].point in AT_THE_END:
            await service.stop()
            await desk.fired_next(service)
        if len(desk.fired) > fired:
            fired, since_s = len(desk.fired), loop.time()
        assert loop.time() < since_s + IN_VAIN_S, f"never reached: {desk.to_come[0]}, after {desk.fired}"
    await script.round()
    await script.check_answers()
    newest = (await desk.sure(desk.client("viewer").system_status)).revision
    await desk.until(lambda: desk.seen >= newest)
    await desk.end()
    script.check_deals(broker)
    # I22: there was a time in which changes were asked for and refused, at least while the gateway was not back.
    assert desk.refused or broker is None or not desk.left
    for left in desk.left[:recoveries]:
        await recover_twice(left, broker)
    found = audit(desk.data_dir, configuration(None, paper=True, given={"data_dir": desk.data_dir}), no_progress)
    assert (found.trades, found.open_trades) == (rounds + 1, 0)


def check_broker_log(desk: Crashing, books: PaperBroker) -> None:
    """No line is torn, none is missing. What a death took from the books before they were on disk may stand there as
    well, once for each death; the books number it anew."""
    lines = [json.loads(line) for line in desk.broker_log.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    logged = [line["deal"] for line in lines if line["deal"]]
    kept = [deal.ticket for deal in books.book.ledger.deals if deal.position]
    assert set(logged) == set(kept)
    assert len(logged) - len(kept) <= len(desk.left)


def chain(points: Sequence[Point], passage: int) -> list[Death]:
    return [Death(point, 1 if point in ONCE else passage) for point in points]


# Passed once in a process's life, or in a directory's; bars, and what snapshots free, are rare.
ONCE = (
    Point.LOCK_WRITE,
    Point.BARS_ANSWER,
    Point.BARS_SEND,
    Point.BARS_WRITE,
    Point.BARS_WRITTEN,
    Point.COMPACT_WRITE,
    Point.COMPACT_WRITTEN,
    Point.CREDENTIAL_WRITE,
    Point.SERVER_TIME_WRITE,
    Point.HELLO_SEND,
    Point.REPLAYED,
    Point.COMPARED,
    Point.JOURNAL_CHECKPOINT,
    Point.JOURNAL_CHECKPOINTED,
)
# In a short life only a service that ends in good order comes by.
AT_THE_END = (Point.JOURNAL_CHECKPOINT, Point.JOURNAL_CHECKPOINTED)
START = (Point.CREDENTIAL_WRITE, Point.LOCK_WRITE)
SERVICE = (
    Point.REPLAYED,
    Point.COMPARED,
    Point.BARS_WRITE,
    Point.BARS_WRITTEN,
    Point.JOURNAL_BEGIN,
    Point.JOURNAL_INSERTED,
    Point.JOURNAL_WRITE,
    Point.JOURNAL_SYNC,
    Point.JOURNAL_SYNCED,
    Point.JOURNAL_COMMITTED,
    Point.PUBLISH,
    Point.PUBLISHED,
    Point.COMMAND,
    Point.OUTCOME,
    Point.OUTCOME_KEPT,
    Point.ANSWER,
    Point.WATCH_SEND,
    Point.QUOTES_SEND,
    Point.BARS_SEND,
    Point.SNAPSHOT_WRITE,
    Point.SNAPSHOT_WRITTEN,
    Point.COMPACT_WRITE,
    Point.COMPACT_WRITTEN,
    Point.JOURNAL_CHECKPOINT,
    Point.JOURNAL_CHECKPOINTED,
)
TO_A_GATEWAY = (Point.ATTACH_SEND, Point.MESSAGE_SENT)
FED = (Point.BARS_ANSWER, Point.TICKS_ANSWER)
NOTICES = (Point.NOTICE_SEND, Point.NOTICE_SENT)
BOOKS = (Point.BOOKS_SAVE, Point.BOOKS_WRITE, Point.BOOKS_SYNC, Point.BOOKS_SAVED, Point.BROKER_LOG)
# Books, and what is written around them.
SHADOW = (*BOOKS[:-1], Point.OUTCOME, Point.OUTCOME_KEPT, Point.JOURNAL_COMMITTED)
GATEWAY = (
    Point.SERVER_TIME_WRITE,
    Point.HELLO_SEND,
    Point.TICKS_SEND,
    Point.POSITIONS_SEND,
    Point.ACCOUNT_SEND,
    Point.TERMINAL_SEND,
    Point.QUERY_RECEIVED,
    Point.QUERY_SEND,
    Point.COMMAND_RECEIVED,
    Point.FENCE_RAISE,
    Point.FENCE_WRITE,
    Point.FENCE_SYNC,
    Point.FENCE_RAISED,
    Point.ORDER_SEND,
    Point.ORDER_SENT,
    Point.RESULT_SEND,
    Point.RESULT_SENT,
)


def test_no_point_is_without_its_death() -> None:
    """Each point of the list is reached by one of the runs (they fail otherwise), and none is left out."""
    here = {*START, *SERVICE, *TO_A_GATEWAY, *FED, *NOTICES, *BOOKS, *GATEWAY}
    assert here | test_killed_run.POINTS | test_killed_backup.POINTS == set(Point)


@pytest.mark.timeout(150)  # six starts, on a machine that may have more to do
async def test_a_service_and_a_gateway_that_die_where_it_hurts_most(tmp_path: Path) -> None:
    """The fast choice: the service before a client has its answer, and with an outcome that nobody else knows; the
    gateway behind its fence, and when the order is executed and nobody knows."""
    service, gateway = (
        [Death(Point.ANSWER, 2), Death(Point.OUTCOME)],
        [Death(Point.FENCE_RAISED), Death(Point.ORDER_SENT)],
    )
    async with behind_a_gateway(tmp_path, service=service, gateway=gateway) as (desk, broker):
        await survive(desk, broker, recoveries=1)


@pytest.mark.slow
@pytest.mark.parametrize("passage", [1, 3])
async def test_a_service_that_dies_at_each_of_its_points(tmp_path: Path, passage: int) -> None:
    """Every write, sync and send of the service, the terminal and its gateway live on."""
    points = (*START, *SERVICE, *TO_A_GATEWAY)
    async with behind_a_gateway(tmp_path, service=chain(points, passage), gateway=()) as (desk, broker):
        await survive(desk, broker)


@pytest.mark.slow
@pytest.mark.parametrize("passage", [1, 3])
async def test_a_gateway_that_dies_at_each_of_its_points(tmp_path: Path, passage: int) -> None:
    """Every write, sync and send of the gateway, the terminal and the service live on."""
    async with behind_a_gateway(tmp_path, service=(), gateway=chain(GATEWAY, passage)) as (desk, broker):
        await survive(desk, broker)


@pytest.mark.slow
@pytest.mark.parametrize("passage", [1, 3])
async def test_a_service_that_dies_with_its_embedded_account(tmp_path: Path, passage: int) -> None:
    """Every point of the service and of the books that it keeps for the paper account, which dies with it."""
    points = (*START, *FED, *BOOKS, *SERVICE, *NOTICES)
    async with messenger() as people, embedded(tmp_path, chain(points, passage), told=people.url) as desk:
        await survive(desk)
        assert people.answered
        check_broker_log(desk, books_of(desk.data_dir))


@pytest.mark.parametrize(
    "deaths",
    [
        pytest.param([Death(Point.BOOKS_SAVED, 2)], id="fast choice", marks=pytest.mark.timeout(150)),
        pytest.param([death for n in (1, 3, 7) for death in chain(SHADOW, n)], id="all", marks=pytest.mark.slow),
    ],
)
async def test_a_service_that_dies_with_its_shadow_book(tmp_path: Path, deaths: Sequence[Death]) -> None:
    """Shadow and account still fit, whatever of both was on disk: the day in the shadow ends as if nobody had died,
    and the account saw nothing of it."""
    async with behind_a_gateway(tmp_path, service=deaths, gateway=(), mode=["--shadow"]) as (desk, broker):
        await survive(desk, broker, recoveries=0, script_of=InTheShadow)


# Passed so often that a life of a process has a hundred moments to die in.
ANY_MOMENT = {
    "service": (Point.JOURNAL_WRITE, Point.JOURNAL_SYNC, Point.PUBLISHED, Point.ANSWER, Point.MESSAGE_SENT),
    "gateway": (Point.TICKS_SEND, Point.QUERY_RECEIVED, Point.COMMAND_RECEIVED, Point.RESULT_SENT),
}
LATEST = {Point.JOURNAL_WRITE: 100, Point.JOURNAL_SYNC: 30, Point.PUBLISHED: 20, Point.ANSWER: 40}


@pytest.mark.slow
async def test_whoever_dies_at_any_moment_the_day_ends_as_if_nobody_had(tmp_path: Path, sim_seed: int) -> None:
    """kill -9 of service and gateway at seeded moments, three times each: same states, confirmed stops, no orphan."""
    chance = random.Random(sim_seed)

    def moments(of: str) -> list[Death]:
        points = chance.choices(ANY_MOMENT[of], k=3)
        return [Death(point, chance.randint(1, LATEST.get(point, 4))) for point in points]

    service, gateway = moments("service"), moments("gateway")
    async with behind_a_gateway(tmp_path, service=service, gateway=gateway) as (desk, broker):
        await survive(desk, broker)
