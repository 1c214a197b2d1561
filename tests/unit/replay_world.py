"""A history in numbers and a peer that stands where the service stands, for the tests of the driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from dtms_service.broker.door import Command, CommandKind, Side
from dtms_service.history import Tick
from dtms_service.replay.driver import Registration, ScoreReading
from dtms_service.replay.entries import EntryRule
from dtms_service.replay.job import HistoryJob, HistoryRun
from tests.unit.paper_world import CONFIG, SPEC, T0, TRADING

ENTRY_MAGIC = 7
DTMS_MAGIC = 20261122
SPREAD = 0.0001
SECOND = 1000

Reaction = Callable[[HistoryRun, Registration, Tick], Awaitable[None]]


def ticks(bids: Iterable[float], step_ms: int = SECOND) -> list[Tick]:
    return [Tick(T0 + index * step_ms, bid, round(bid + SPREAD, 5), 1.0) for index, bid in enumerate(bids)]


def job(out: Path, history: Sequence[Tick], entries: EntryRule, *, path_period_s: int | None = None) -> HistoryJob:
    """EURUSD on the account of paper_world; the file of the history is written beside ``out``, for its hash."""
    source = out.with_suffix(".csv")
    rows = "".join(f"{tick.time_msc},{tick.bid},{tick.ask}\n" for tick in history)
    source.write_text(f"time_msc,bid,ask\n{rows}", encoding="ascii")
    return HistoryJob(
        sources=[source],
        ticks=lambda: iter(history),
        account=CONFIG,
        spec=SPEC,
        trading=TRADING,
        entries=entries,
        strategy_types=("",),
        entry_magic=ENTRY_MAGIC,
        bar_s=60,
        path_period_s=path_period_s,
        out=out,
    )


class ServicePart:
    """Implements the driver's Link: notes the order of calls, and acts on chosen ticks through the recorded door."""

    def __init__(self, run: HistoryRun, reactions: dict[int, Reaction] | None = None) -> None:
        self._run, self._reactions = run, reactions or {}
        self.calls: list[tuple[str, int]] = []
        self.change_counts: list[int] = []
        self.equities: list[float | None] = []
        self.registered: list[Registration] = []

    async def register(self, registration: Registration) -> None:
        self.calls.append(("register", registration.ticket))
        self.registered.append(registration)

    async def tick(self, symbol: str, tick: Tick, change_count: int, equity: float | None) -> None:
        assert symbol == self._run.job.spec.name
        self.calls.append(("tick", tick.time_msc))
        self.change_counts.append(change_count)
        self.equities.append(equity)
        reaction = self._reactions.get((tick.time_msc - T0) // SECOND)
        if reaction is not None:
            await reaction(self._run, self.registered[-1], tick)

    async def score(self, symbol: str) -> ScoreReading:
        assert symbol == self._run.job.spec.name
        self.calls.append(("score", 0))
        return ScoreReading(1.5, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0)

    async def risk_distance(self, ticket: int) -> float | None:
        self.calls.append(("risk", ticket))
        return 0.002


def command(trade: Registration, kind: CommandKind, intent_id: int, **fields: object) -> Command:
    """A command for the trade itself; ``fields`` say what is special about it."""
    given: dict[str, object] = {
        "intent_id": intent_id,
        "account_id": trade.account_id,
        "ticket": trade.ticket,
        "token": 1,
        "kind": kind,
        "symbol": trade.symbol,
        "position": trade.ticket,
        "side": trade.side,
        "volume": trade.volume,
        "sl": None,
        "tp": None,
        "deviation_points": 20,
        "magic": DTMS_MAGIC,
        "comment": f"dtms {intent_id}",
        **fields,
    }
    return Command(**given)  # type: ignore[arg-type]  # a table of fields, checked by the dataclass's users


def hedge(trade: Registration, intent_id: int, volume: float) -> Command:
    opposite = Side.SELL if trade.side is Side.BUY else Side.BUY
    return command(trade, CommandKind.OPEN, intent_id, position=0, side=opposite, volume=volume)
