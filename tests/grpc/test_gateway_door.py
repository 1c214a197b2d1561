"""The broker door over a real Attach stream: the same answers as next to the broker, and honest ones without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtms.v1 import gateway_service_pb2
from dtms.v1.gateway_service_pb2 import CommandResult, QueryResult
from dtms_client._channel import target
from dtms_service import gateway_messages as messages
from dtms_service.broker.door import (
    BrokerUnavailable,
    CloseReason,
    CommandKind,
    Outcome,
    OutcomeStatus,
    Side,
)
from dtms_service.broker.faults import Gate, Leg
from dtms_service.broker.retcodes import LastError, Retcode
from dtms_service.errors import DtmsError
from dtms_service.gateway.link import Attachment
from dtms_service.gateway_door import GatewayDoor
from dtms_service.replay.driver import Registration
from dtms_service.replay.entries import parse_trades
from dtms_service.replay.job import HistoryRun, open_run
from tests.grpc.gateway_peer import REVISION, Peer, serving, token_files
from tests.unit.paper_world import CONFIG, SPEC, T0
from tests.unit.replay_world import command, hedge, job

ACCOUNT = CONFIG.account_id


@dataclass(frozen=True, slots=True)
class Attached:
    """Both ends of a stream: the service's door and the gateway's run."""

    door: GatewayDoor
    run: HistoryRun
    link: Attachment
    peer: Peer

    def open_trade(self) -> Registration:
        """A buy of 0.10 at 1.1001 with stop and target, as an adviser opens it."""
        self.run.broker.on_tick("EURUSD", T0, 1.1, 1.1001)
        deal = {"action": 1, "symbol": "EURUSD", "volume": 0.1, "type": 0, "type_filling": 1, "sl": 1.099, "tp": 1.103}
        ticket = self.run.broker.order_send(deal).order
        return Registration(ACCOUNT, ticket, "EURUSD", Side.BUY, 1.1001, 0.1, 1.099, 1.103, "", T0 * 1_000_000)


@asynccontextmanager
async def attached(folder: Path, peer: Peer | None = None) -> AsyncIterator[Attached]:
    gateway_token, _trader_token = token_files(folder)
    async with serving(peer or Peer()) as serving_peer:
        to = target(serving_peer.address, token=None, token_file=gateway_token, root_certificates=None)
        with open_run(job(folder / "run", [], parse_trades([]))) as run:
            async with to.open_aio() as channel:
                hello = gateway_service_pb2.GatewayHello(account_id=ACCOUNT)
                async with Attachment(channel, to, hello, run.door) as link:
                    yield Attached(await serving_peer.doors.get(), run, link, serving_peer)


async def test_queries_answer_what_the_broker_holds(tmp_path: Path) -> None:
    """Account, rules, positions and closing deals are the same on both ends."""
    async with attached(tmp_path) as ends:
        trade = ends.open_trade()
        ends.run.broker.on_tick("EURUSD", T0 + 1000, 1.1005, 1.1006)
        near = ends.run.door
        assert await ends.door.account(ACCOUNT) == await near.account(ACCOUNT)
        assert await ends.door.positions(ACCOUNT) == await near.positions(ACCOUNT) != []
        assert await ends.door.closing_deals(ACCOUNT, trade.ticket) == []
        assert await ends.door.symbol(ACCOUNT, "EURUSD") == SPEC
        ends.run.broker.on_tick("EURUSD", T0 + 2000, 1.0985, 1.0986)
        (deal,) = await ends.door.closing_deals(ACCOUNT, trade.ticket)
        assert [deal] == await near.closing_deals(ACCOUNT, trade.ticket)
        assert (deal.reason, deal.remaining) == (CloseReason.STOP_LOSS, 0.0)
        with pytest.raises(KeyError):
            await ends.door.symbol(ACCOUNT, "NOPE")
        assert ends.link.attached_at_revision == REVISION


async def test_commands_travel_whole_and_outcomes_come_back(tmp_path: Path) -> None:
    """A modification echoes both levels, an opening its position, a partial close its fill, a refusal its retcode."""
    async with attached(tmp_path) as ends:
        trade = ends.open_trade()
        moved = await ends.door.execute(command(trade, CommandKind.MODIFY, 1, sl=1.0995, tp=None))
        assert moved == Outcome(OutcomeStatus.CONFIRMED, Retcode.DONE, "Request executed", sl=1.0995, tp=None)
        opened = await ends.door.execute(hedge(trade, 2, 0.05))
        assert (opened.status, opened.price, opened.volume) == (OutcomeStatus.CONFIRMED, 1.1, 0.05)
        closed = await ends.door.execute(command(trade, CommandKind.CLOSE, 3, volume=0.04))
        assert (closed.status, closed.order, closed.volume) == (OutcomeStatus.CONFIRMED, 0, 0.04)
        refused = await ends.door.execute(command(trade, CommandKind.MODIFY, 4, sl=1.2))
        assert (refused.status, refused.retcode) == (OutcomeStatus.REJECTED, Retcode.INVALID_STOPS)
        held = {p.ticket: (p.volume, p.magic, p.comment) for p in await ends.door.positions(ACCOUNT)}
        assert held == {trade.ticket: (0.06, 0, ""), opened.order: (0.05, 20261122, "dtms 2")}


async def test_a_stale_token_is_refused_at_the_gateway_too(tmp_path: Path) -> None:
    """The gateway keeps the highest token of a trade: a lower one changes nothing at the broker (I3)."""
    async with attached(tmp_path) as ends:
        trade = ends.open_trade()
        await ends.door.execute(command(trade, CommandKind.MODIFY, 1, token=5, sl=1.0995, tp=1.103))
        stale = await ends.door.execute(command(trade, CommandKind.MODIFY, 2, token=4, sl=1.0998, tp=1.103))
        assert (stale.status, stale.comment) == (OutcomeStatus.REJECTED, "STALE_TOKEN")
        assert [position.sl for position in await ends.door.positions(ACCOUNT)] == [1.0995]


async def test_a_broker_that_cannot_be_asked_is_not_an_empty_broker(tmp_path: Path) -> None:
    """A failed query carries the terminal's code; the next one is answered again (I21)."""
    async with attached(tmp_path) as ends:
        ends.open_trade()
        ends.run.broker.faults.fail_calls(LastError.INTERNAL_FAIL_SEND)
        with pytest.raises(BrokerUnavailable) as caught:
            await ends.door.positions(ACCOUNT)
        assert (caught.value.code, caught.value.text) == (LastError.INTERNAL_FAIL_SEND, "IPC send failed")
        assert len(await ends.door.positions(ACCOUNT)) == 1


async def test_a_reply_lost_in_the_terminal_is_unknown(tmp_path: Path) -> None:
    """The terminal's own code moves into the text: the wire has room for the server's retcodes only."""
    async with attached(tmp_path) as ends:
        trade = ends.open_trade()
        ends.run.broker.faults.lose_replies()
        outcome = await ends.door.execute(command(trade, CommandKind.MODIFY, 1, sl=1.0995, tp=1.103))
        assert outcome == Outcome(OutcomeStatus.UNKNOWN, 0, "(-10002) IPC recv failed")


async def test_a_command_whose_answer_is_late_is_unknown_and_the_late_answer_is_nobodys(tmp_path: Path) -> None:
    """After the deadline nothing is known, though the command was carried out; the answer then resolves no call."""
    async with attached(tmp_path, Peer(deadline_s=0.2)) as ends:
        trade = ends.open_trade()
        gate = ends.run.broker.faults.latency = Gate("execute", Leg.REPLY)
        outcome = await ends.door.execute(command(trade, CommandKind.MODIFY, 1, sl=1.0995, tp=1.103))
        assert (outcome.status, outcome.comment) == (OutcomeStatus.UNKNOWN, "no answer within 0.2 s")
        gate.open()
        assert await ends.peer.answers.get() is False
        assert ends.door.pending == 0
        assert [position.sl for position in await ends.door.positions(ACCOUNT)] == [1.0995]


async def test_a_query_whose_answer_is_late_says_nothing(tmp_path: Path) -> None:
    """A query without an answer in time is BrokerUnavailable, never an empty list."""
    async with attached(tmp_path, Peer(deadline_s=0.2)) as ends:
        ends.open_trade()
        gate = ends.run.broker.faults.latency = Gate("positions", Leg.REQUEST)
        with pytest.raises(BrokerUnavailable, match=r"no answer within 0\.2 s"):
            await ends.door.positions(ACCOUNT)
        gate.open()
        assert await ends.peer.answers.get() is False


async def test_a_lost_stream_tells_everybody_who_waits_and_everybody_after(tmp_path: Path) -> None:
    """Commands under way are UNKNOWN, queries BrokerUnavailable; later commands are REJECTED, for they never left."""
    async with attached(tmp_path) as ends:
        trade = ends.open_trade()
        gate = ends.run.broker.faults.latency = Gate("execute", Leg.REQUEST)
        moving = command(trade, CommandKind.MODIFY, 1, sl=1.0995, tp=1.103)
        under_way = asyncio.create_task(ends.door.execute(moving))
        asked = asyncio.create_task(ends.door.positions(ACCOUNT))
        await gate.arrived.wait()
        ends.peer.abort.set()
        assert (await under_way).status is OutcomeStatus.UNKNOWN
        with pytest.raises(BrokerUnavailable, match="gateway lost"):
            await asked
        later = await ends.door.execute(moving)
        assert (later.status, later.retcode) == (OutcomeStatus.REJECTED, Retcode.CONNECTION)
        with pytest.raises(BrokerUnavailable):
            await ends.door.account(ACCOUNT)


class Wire:
    """A stream that takes messages and says nothing."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.sent: list[gateway_service_pb2.AttachResponse] = []
        self.taken = asyncio.Event()
        self._failure = failure

    async def send(self, message: gateway_service_pb2.AttachResponse) -> None:
        if self._failure is not None:
            raise self._failure
        self.sent.append(message)
        self.taken.set()


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        (gateway_service_pb2.AttachRequest(end=True), "message"),
        (gateway_service_pb2.AttachRequest(query_result=QueryResult(call_id=0)), "query_result.call_id"),
        (gateway_service_pb2.AttachRequest(query_result=QueryResult(call_id=2)), "query_result.call_id"),
        (gateway_service_pb2.AttachRequest(command_result=CommandResult(call_id=1)), "command_result.call_id"),
    ],
)
async def test_an_answer_to_no_call_is_refused(answer: gateway_service_pb2.AttachRequest, field: str) -> None:
    """A gateway that answers what was not asked breaks the protocol, and the call that waits is not disturbed."""
    wire = Wire()
    door = GatewayDoor(wire.send, deadline_s=5)
    asked = asyncio.create_task(door.positions(ACCOUNT))
    await wire.taken.wait()
    with pytest.raises(DtmsError) as caught:
        door.handle(answer)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert door.handle(gateway_service_pb2.AttachRequest(query_result=QueryResult(call_id=1))) is True
    assert await asked == []


async def test_a_stream_that_fails_to_send_is_lost() -> None:
    """Whether a half-sent command arrived is unknown, and nothing more is sent on that stream."""
    door = GatewayDoor(Wire(OSError("broken")).send, deadline_s=5)
    trade = Registration(ACCOUNT, 1, "EURUSD", Side.BUY, 1.1, 0.1, 1.099, None, "", 0)
    outcome = await door.execute(command(trade, CommandKind.MODIFY, 1, sl=1.0995))
    assert outcome == Outcome(OutcomeStatus.UNKNOWN, 0, "gateway lost: OSError: broken")
    assert (await door.execute(command(trade, CommandKind.MODIFY, 2))).status is OutcomeStatus.REJECTED


@pytest.mark.parametrize("kind", list(CommandKind))
@pytest.mark.parametrize("side", list(Side))
def test_every_command_survives_the_wire(kind: CommandKind, side: Side) -> None:
    """What the gateway reads is what the executor wrote: absent levels stay absent, 0 is not absence."""
    trade = Registration(ACCOUNT, 1, "EURUSD", side, 1.1, 0.1, 1.099, None, "", 0)
    written = command(trade, kind, 9, sl=0.0, tp=None, token=2**63)
    message = messages.command_to_wire(3, written)
    assert message.call_id == 3
    assert messages.command_from_wire(message) == written


@pytest.mark.parametrize(
    ("change", "field"),
    [({"kind": 0}, "command.kind"), ({"side": 0}, "command.side"), ({"kind": 77}, "command.kind")],
)
def test_a_command_without_meaning_is_refused_by_field(change: dict[str, int], field: str) -> None:
    """An enum number that the gateway does not know is named, never guessed."""
    trade = Registration(ACCOUNT, 1, "EURUSD", Side.BUY, 1.1, 0.1, 1.099, None, "", 0)
    message = messages.command_to_wire(3, command(trade, CommandKind.CLOSE, 9))
    for name, number in change.items():
        setattr(message, name, number)
    with pytest.raises(DtmsError) as caught:
        messages.command_from_wire(message)
    assert [violation.field for violation in caught.value.violations] == [field]
