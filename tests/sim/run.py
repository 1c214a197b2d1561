"""One run: a storm of faults over a working world, then calm, then the verdict.

``python -m tests.sim.run SEED`` plays one and prints what it found.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from dtms.v1.event_pb2 import Event
from dtms_client.errors import DtmsError
from dtms_client.requests import list_trades_request
from dtms_service import convert, fault_points
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.stage import Stage
from dtms_service.system import System
from tests.sim import people
from tests.sim.disk import Disk, VirtualCommitQueue
from tests.sim.faults import FAULTS, Fault
from tests.sim.validators import judge
from tests.sim.world import ACCOUNT, BOT, SETTLE_S, SYMBOLS, Died, World, on_virtual_time

MOST_FAULTS = 6
LAST_EVENTS = 25


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run. ``found`` are (guarantee, fact)."""

    seed: int
    faults: tuple[str, ...]
    found: tuple[tuple[str, str], ...]
    journal_sha256: str
    events: int
    story: tuple[str, ...]

    @property
    def guarantees(self) -> frozenset[str]:
        return frozenset(guarantee for guarantee, _ in self.found)

    def report(self) -> str:
        """Everything that somebody needs who has to find out why."""
        facts = "\n".join(f"  {guarantee}: {fact}" for guarantee, fact in self.found[:20])
        story = "\n".join(f"  {line}" for line in self.story)
        return (
            f"seed {self.seed}: {len(self.found)} breaches\n{facts}\n"
            f"faults: {', '.join(self.faults)}\nthe end of the story:\n{story}\n"
            f"again: make sim SEED={self.seed} SEEDS=1"
        )


def chosen(seed: int) -> tuple[Fault, ...]:
    """The faults of a run: some of them, by its seed."""
    chance = Random(f"faults of {seed}")
    return tuple(chance.sample(FAULTS, chance.randint(1, MOST_FAULTS)))


def play(
    seed: int, *, faults: Sequence[Fault] | None = None, planted: AbstractContextManager[object] | None = None
) -> Verdict:
    """A whole run by a seed. ``planted`` is a bug that holds meanwhile."""
    faults = chosen(seed) if faults is None else tuple(faults)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(mkdtemp(prefix="dtms-sim-", dir=memory))
    settings = {key: value for fault in faults for key, value in fault.settings.items()}
    world = World(seed, root, settings)
    try:
        with on_virtual_time(world), fault_points.hook(world.on_point), planted or nullcontext():
            world.loop.set_exception_handler(lambda _loop, facts: _unhandled(world, facts))
            world.loop.run_until_complete(world.loop.spawn(None, _play(world, faults), "run"))
        found = judge(world)
    finally:
        world.loop.end()
        rmtree(root)
    return Verdict(
        seed=seed,
        faults=tuple(f"{fault.number} {fault.name}" for fault in faults),
        found=tuple(found),
        journal_sha256=hashlib.sha256(b"".join(world.witness.bodies)).hexdigest(),
        events=len(world.witness.bodies),
        story=tuple(_story(world)),
    )


def _unhandled(world: World, facts: dict[str, object]) -> None:
    error = facts.get("exception")
    if isinstance(error, Died):
        return
    world.witness.breach("host", f"nobody handled {type(error).__name__}: {error} ({facts.get('message')})")


async def _play(world: World, faults: Sequence[Fault]) -> None:
    await world.begin()
    loop = world.loop
    loop.spawn(world.hosts[BOT], people.bot(world), BOT)
    loop.spawn(world.hosts["operator"], people.operator(world), "operator")
    loop.spawn(world.hosts["viewer_of_lists"], _observe(world), "observer")
    storms = [loop.spawn(None, _strike(world, fault), f"fault {fault.name}") for fault in faults]
    await asyncio.sleep(world.storm_s)
    world.storming = False
    for storm in storms:
        storm.cancel()
    if storms:
        await asyncio.wait(storms)
    await calm(world)
    if not await world.until(partial(is_settled, world), SETTLE_S):
        world.witness.mark("not settled", why=unsettled(world))
    await _probe(world)
    await world.until(partial(is_settled, world), SETTLE_S)
    await world.until(lambda: _told(world) == world.witness.durable_revision, 10.0)
    await _end(world)


async def _strike(world: World, fault: Fault) -> None:
    chance = world._part()
    while True:
        await asyncio.sleep(chance.uniform(2.0, 12.0))
        await fault.strike(world, chance)


async def calm(world: World) -> None:
    """All trouble ends: whoever is dead lives again, whoever stands still goes on, nothing lies or is lost."""
    world.lies.cease()
    world.disk.fails = world.deadly = None
    world.spread, world.market_open = 1.0, True
    faults = world.broker.faults
    faults.reconnect()
    faults.trade_allowed = faults.server_allows = True
    faults.tradeapi_disabled, faults.stale_positions_ms = False, 0
    faults.start_terminal()
    faults._retcodes.clear()
    faults._fills.clear()
    for host in world.hosts.values():
        host.wall_offset_ns = 0
        world.loop.thaw(host)
    for link in world.links.values():
        link.lose_request = link.lose_reply = link.duplicate = 0.0
        link.latency_s = (0.0005, 0.002)
        link.heal()
    await asyncio.sleep(0.5)  # who stood still does what it was told meanwhile: to end, it may be
    if world.system is not None and world.system.stage is Stage.DRAINING:
        world.kill_service(torn=False)
    if world.system is None:
        await world.start_service_after(0.1)
    world.kill_gateway()
    world.start_gateway()
    await world.until(lambda: world.is_serving, 60.0)


def unsettled(world: World) -> str:
    """What is still under way; empty when nothing is."""
    if world.system is None or not world.is_serving:
        return "the service does not serve"
    if world.system.executor.under_way(ACCOUNT):
        return "the executor is busy"
    for key, trade in world.model.trades.items():
        if trade["in_flight"] is not None or (trade["phase"] != 2 and not trade["quarantined"]):
            return f"{key[1]}: {trade}"
        held = world.broker.position(key[1])
        if trade["state"] == 6:
            continue
        if held is None:
            if not trade["quarantined"]:
                return f"{key[1]} is gone"
        elif (trade["volume"], trade["sl"], trade["tp"]) != (round(held.volume, 6), held.sl, held.tp):
            return f"{key[1]} has {held.volume} {held.sl} {held.tp} and not {trade}"
    return ""


def is_settled(world: World) -> bool:
    return not unsettled(world)


async def _probe(world: World) -> None:
    """In calm a hand changes something now and then: what is promised without trouble can be seen here at least."""
    chance = world._part()
    await asyncio.sleep(10.0)
    for _ in range(3):
        people.by_hand(world, chance)
        await asyncio.sleep(5.0)


def _told(world: World) -> int:
    events = [item.revision for _, item in world.watched["viewer"][-20:] if isinstance(item, Event)]
    return events[-1] if events else 0


async def _observe(world: World) -> None:
    """Asks for the list of all trades now and then."""
    client = world.client("viewer_of_lists")
    while True:
        await asyncio.sleep(5.0)
        with suppress(DtmsError):
            request = list_trades_request(watch_filter=None, include_closed=True, page_token="")
            await client._call(client._opened().status.ListTrades, request, None)


async def _end(world: World) -> None:
    """The market stands still, everything dies, and the files are recovered: twice, and once more."""
    world.ended_s, world.is_serving_at_the_end = world.loop.time(), world.is_serving
    world.market_open = False
    world.last_held = world.broker.positions()
    world.last_revision = world.witness.durable_revision
    world.kill_gateway()
    world.kill_service(torn=False)
    folders = [world.disk.copy("first"), world.disk.copy("second")]
    try:
        first, second = [await _recover(world, folder) for folder in folders]
        again = await _recover(world, folders[0])
    except Exception as error:  # noqa: BLE001  a finding like any other
        world.witness.breach("I24", f"recovery fails: {type(error).__name__}: {error}")
    else:
        world.recoveries = [first, second, again]


class _Nobody:
    def writing(self, events: object) -> None:
        """Not of this world."""

    def written(self, events: object) -> None:
        """Not of this world."""

    def durable(self, revision: int) -> None:
        """Not of this world."""


async def _recover(world: World, folder: Path) -> list[Event]:
    """A service starts on the files, compares them with the broker, and is killed; the events of its journal, timeless.

    What follows from the comparison at once belongs to it.
    """
    disk = Disk(world.root, Random(0), _Nobody())
    config = world.config.model_copy(update={"data_dir": folder})
    system = await System.open(config, None, queue=partial(VirtualCommitQueue, disk))
    await system.attach(ACCOUNT, PaperDoor({ACCOUNT: world.broker}), list(SYMBOLS))
    await system.executor.idle()
    await system.desk.settled()
    stored = system.journal.read(system.journal.oldest_revision, 1_000_000)
    if system._timer is not None:
        system._timer.cancel()
    system.journal._connection.close()
    system.journal._lock.release()
    if system.bar_store is not None:
        system.bar_store.close()
    events = [convert.event_message(body) for _, body in stored]
    for event in events:
        _forget_times(event)
    return events


def _forget_times(message: Any) -> None:
    """A recovery takes as long as it takes: everything but the moments has to be the same."""
    for field, value in message.ListFields():
        if field.name.endswith("_ns"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                _forget_times(each)


def _story(world: World) -> list[str]:
    lines = [(mark.at_s, f"-- {mark.what} {mark.facts or ''}") for mark in world.witness.marks]
    lines += [
        (
            world.witness.durable_s.get(event.revision, world.ended_s),
            f"{event.revision} {event.ticket} {event.WhichOneof('body')} "
            + " ".join(str(getattr(event, event.WhichOneof("body") or "")).split())[:160],
        )
        for event in world.witness.events[-LAST_EVENTS:]
    ]
    return [f"{at_s:9.3f} {text}" for at_s, text in sorted(lines, key=lambda line: line[0])[-2 * LAST_EVENTS :]]


if __name__ == "__main__":
    verdict = play(int(sys.argv[1]))
    print(verdict.report(), verdict.journal_sha256, verdict.events, sep="\n")  # noqa: T201
    raise SystemExit(bool(verdict.found))
