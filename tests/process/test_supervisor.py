"""`dtms serve` and the gateways that it starts, watches, kills and starts again: real processes, paper terminals."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dtms.v1 import admin_service_pb2 as admin
from dtms.v1.action_pb2 import OUTCOME_STATUS_CONFIRMED, OUTCOME_STATUS_REJECTED
from dtms.v1.event_pb2 import ALARM_CODE_GATEWAY_FAILED, Event
from dtms.v1.market_data_service_pb2 import ReportScoreRequest, WatchQuotesRequest
from dtms.v1.score_pb2 import Score
from dtms.v1.trade_pb2 import TRADE_STATE_HEALTHY, TRADE_STATE_HEDGED, Trade
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client import AsyncClient, new_request_id
from dtms_service.broker.fence import Fence
from dtms_service.supervisor import folder_of
from tests import wire
from tests.grpc.watching import events_until, response
from tests.process.far_terminal import PACKAGE, FarTerminal, environment
from tests.process.far_terminal import serving as terminals_serving
from tests.process.service_process import Service, serving
from tests.process.test_serve import mistake
from tests.stack import stop_at

A, B = "7001@Paper", "7002@Paper"
QUICK_S = 0.5
"""Of a call to a service that is well, on a machine that is not."""


def section(account_id: str, deadline_s: float, **more: object) -> str:
    keys = {"broker": "mt5", "symbols": ["EURUSD"], "package": PACKAGE, "server_utc_offset_s": 0, **more}
    lines = [f"{name} = {value!r}" for name, value in keys.items()]
    return "\n".join([f'[gateways."{account_id}"]', *lines, f"deadline_s = {deadline_s}", ""])


class Floor:
    """A service and its terminals."""

    def __init__(self, service: Service, terminals: dict[str, FarTerminal], clients: dict[str, AsyncClient]) -> None:
        self.service, self.terminals, self._clients = service, terminals, clients

    def client(self, name: str) -> AsyncClient:
        return self._clients[name]

    def pids(self, account_id: str) -> list[int]:
        """Of its gateway's processes, in the order of their starts."""
        return [
            int(line["pid"])
            for line in self.service.log
            if line.get("event") == "gateway_started" and line["account"] == account_id
        ]

    async def gateway(self, account_id: str) -> admin.GatewayStatus:
        status = await self.client("viewer").system_status()
        return next(gateway for gateway in status.gateways if gateway.account_id == account_id)

    async def attached(self, account_id: str, *, restarts: int = 0) -> admin.GatewayStatus:
        """Once its gateway serves it, after so many starts anew."""
        await self.service.until(
            lambda: (
                len(self.pids(account_id)) > restarts
                and len([line for line in self.service.log if is_attachment(line, account_id)]) > restarts
            )
        )
        return await self.gateway(account_id)

    async def quoted(self, account_id: str) -> None:
        """Once the service has a price of the account."""
        viewer = self.client("viewer")
        request = WatchQuotesRequest(account_id=account_id)
        quotes = wire.stream(viewer.channel, request, metadata=viewer.metadata)
        try:
            await response(quotes)
        finally:
            quotes.cancel()

    async def trade(self, account_id: str) -> Trade:
        ticket = self.terminals[account_id].ticket
        return await self.client("viewer").get_trade(ticket, account_id=account_id)

    async def event(self, found: Callable[[Event], Any]) -> Event:
        viewer = self.client("viewer")
        watch = wire.stream(viewer.channel, WatchRequest(start_revision=1), metadata=viewer.metadata)
        try:
            return (await events_until(watch, lambda event: bool(found(event))))[-1]
        finally:
            watch.cancel()

    async def move_stop(self, account_id: str, price: float) -> Any:
        trade = await self.trade(account_id)
        return await self.client("operator").propose(
            request_id=new_request_id(),
            account_id=account_id,
            ticket=trade.ticket,
            owner_epoch=trade.owner_epoch,
            action=stop_at(price),
            timeout_s=15,
        )

    async def failed(self, account_id: str, words: str) -> Event:
        """The alarm about its gateway that says this."""
        return await self.event(
            lambda event: (
                event.alarm_raised.code == ALARM_CODE_GATEWAY_FAILED
                and event.account_id == account_id
                and words in event.alarm_raised.detail
            )
        )


@asynccontextmanager
async def floor(folder: Path, deadline_s: float = 10.0) -> AsyncIterator[Floor]:
    """Two accounts, a gateway each, both attached and priced."""
    with terminals_serving(A, B) as terminals:
        file = folder / "dtms.toml"
        # At night (UTC) the regime multiplies thresholds by 1.8: no score would reach the usual one.
        night = "[engine]\ncritical = -4.5\n"
        file.write_text(night + "[reconciliation]\nsettle_ms = 500\n" + section(A, deadline_s) + section(B, deadline_s))
        async with serving(folder / "data", arguments=("--config", str(file)), env=environment(terminals)) as service:
            clients = {name: service.client(name) for name in ("viewer", "operator", "feed")}
            try:
                here = Floor(service, terminals, clients)
                for account_id in (A, B):
                    await here.attached(account_id)
                    terminals[account_id].tick(1.1)
                    await here.quoted(account_id)
                yield here
            finally:
                for client in clients.values():
                    await client.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_attachment(line: dict[str, Any], account_id: str) -> bool:
    return line.get("event") == "attached" and line.get("account") == account_id


def command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


async def ended(pid: int) -> None:
    """When the process, which is not ours, is gone."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(watched, gone.set)
    try:
        async with asyncio.timeout(20):
            await gone.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)


async def test_two_accounts_with_equal_tickets_never_meet(tmp_path: Path) -> None:
    """A gateway each, started by the service: stops, changes by hand, states, hedges, closings and fencing tokens of
    one account's trade leave the trade of the same number on the other one alone. Indicators are warm from the
    terminals' history, or there would be no hedge. No token stands in a command line, and kill -9 of the service leaves
    no gateway behind."""
    async with floor(tmp_path) as here:
        near, far = here.terminals[A], here.terminals[B]
        assert near.ticket == far.ticket
        first = await here.trade(B)
        assert (await here.move_stop(A, 1.095)).outcome.sl == 1.095
        assert (near.held()[near.ticket][1], far.held()[far.ticket][1]) == (1.095, 1.09)
        assert (await here.trade(B)).owner_epoch == first.owner_epoch

        far.by_hand().modify(far.ticket, 1.092, 1.13)
        changed = await here.event(lambda event: event.position_changed.external)
        assert (changed.account_id, changed.position_changed.sl) == (B, 1.092)
        assert (await here.trade(A)).confirmed.sl == 1.095

        feed = here.client("feed")
        report = ReportScoreRequest(account_id=A, symbol="EURUSD", score=Score(total=-9), valid_ms=600_000)
        await wire.call(feed.channel, report, metadata=feed.metadata, timeout_s=5)
        near.tick(1.0999)
        await here.event(lambda event: event.state_confirmed.confirmed_state == TRADE_STATE_HEDGED)
        assert (await here.trade(A)).state == TRADE_STATE_HEDGED
        assert len(near.held()) == 2
        assert (await here.trade(B)).state == TRADE_STATE_HEALTHY
        assert far.held() == {far.ticket: (1.0, 1.092, 1.13)}

        far.by_hand().close(far.ticket, 1.0)
        closed = await here.event(lambda event: event.HasField("leg_closed"))
        assert (closed.account_id, closed.ticket) == (B, far.ticket)
        assert near.ticket in near.held()
        epochs = {name: (await here.trade(name)).owner_epoch for name in (A, B)}

        left = [here.pids(A)[-1], here.pids(B)[-1]]
        token = tmp_path / "data" / "credentials" / "gateway_7001_paper.token"
        assert token.stat().st_mode & 0o077 == 0
        shown = command_line(left[0])
        assert str(token) in shown
        assert not any(token.read_text().strip() in argument for argument in shown)
        await here.service.kill()
        await asyncio.gather(*map(ended, left))
    for account_id, is_passed in ((A, False), (B, True)):
        fence = Fence(folder_of(tmp_path / "data", account_id) / "fence.db")
        # B's trade was never commanded: its fence knows nothing of the tokens of the same number on A.
        assert fence.admit(account_id, near.ticket, 1) is is_passed, epochs
        fence.close()


async def test_what_hangs_or_dies_is_started_again_and_costs_nobody_else(tmp_path: Path) -> None:
    """A terminal that hangs, a gateway that is frozen, one that is killed: the first two are killed at the deadline;
    each is alarmed and started again with its trade as it was, while the other account goes on as ever."""
    deadline_s = 3.0
    async with floor(tmp_path, deadline_s) as here:
        near, far = here.terminals[A], here.terminals[B]
        before = await here.trade(A)

        near.hang()
        hung_s = time.monotonic()
        stuck = asyncio.create_task(here.move_stop(A, 1.093))
        slowest_s = 0.0
        while len(here.pids(A)) < 2:
            started_s = time.monotonic()
            await here.trade(B)
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            assert time.monotonic() - hung_s < 20
        assert slowest_s < QUICK_S
        assert (await here.move_stop(B, 1.094)).outcome.status == OUTCOME_STATUS_CONFIRMED
        await here.failed(A, "hangs")
        again = await here.attached(A, restarts=1)
        assert (again.supervised, again.restarts >= 1) == (True, True)
        assert "hangs" in again.last_error
        near.let_go()
        await stuck
        assert not is_alive(here.pids(A)[0])
        assert (await here.trade(A)).initial_sl == before.initial_sl

        lives = {account_id: len(here.pids(account_id)) for account_id in (A, B)}
        frozen, killed = here.pids(A)[-1], here.pids(B)[-1]
        os.kill(frozen, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        far.by_hand().modify(far.ticket, 1.0935, 1.13)
        lost = await here.move_stop(A, 1.0942)
        assert (lost.outcome.status, lost.outcome.settled) == (OUTCOME_STATUS_REJECTED, True), lost
        await here.failed(B, "has ended with -9")
        await here.attached(A, restarts=lives[A])
        await here.attached(B, restarts=lives[B])
        assert not is_alive(frozen)
        changed = await here.event(lambda event: event.position_changed.external)
        assert (changed.account_id, changed.ticket, changed.position_changed.sl) == (B, far.ticket, 1.0935)
        assert (await here.move_stop(A, 1.0945)).outcome.sl == 1.0945

        left = [here.pids(A)[-1], here.pids(B)[-1]]
        assert await here.service.terminate() == 0
        assert not any(map(is_alive, left))


async def test_a_wrong_gateway_is_named_by_its_key(tmp_path: Path) -> None:
    """Nothing starts with a section that cannot work, and the line says which key of which account."""
    file = tmp_path / "dtms.toml"
    file.write_text(section(A, 10, password_variable="NO_SUCH_VARIABLE"))
    line = await mistake("serve", "--config", file, "--data-dir", tmp_path / "data")
    assert f"gateways.{A}.password_variable: NO_SUCH_VARIABLE is not set" in line
    assert not (tmp_path / "data").exists()
