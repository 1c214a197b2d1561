"""`dtms replay`: a history through the real service, in lockstep, and what came of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtms_client import AsyncClient
from dtms_service import convert
from dtms_service.config import Config
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.errors import DtmsError, Reason
from dtms_service.journal import SqliteJournal
from dtms_service.journal.protocol import no_progress
from dtms_service.replay.artefacts import BARS, BROKER_LOG, RESULTS, read_broker_writes
from dtms_service.replay.crew import Crew, Program, names
from dtms_service.replay.job import open_run
from dtms_service.replay.local_link import LocalLink
from dtms_service.replay.options import Progress, ReplayOptions, job_of, seen_by, warm_up_ticks
from dtms_service.replay.trader import Trader
from dtms_service.report import (
    Event,
    Run,
    Summary,
    TradeResult,
    read_bars,
    read_results,
    summarise,
    write_report,
)
from dtms_service.server import Server
from dtms_service.service import credentials_of
from dtms_service.system import System

DATA, SUMMARY = "data", "summary.json"
TRADER = "replay_trader"
_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Finished:
    """``report`` is the HTML page."""

    summary: Summary
    trades: Sequence[TradeResult]
    report: Path


def fresh_data_dir(out: Path) -> Path:
    """A run has a journal of its own: the one of an earlier run in the same folder is removed, nothing else."""
    data_dir = out / DATA
    if data_dir.exists():
        known = (data_dir / "journal.db").exists() or not any(data_dir.iterdir())
        if not known:
            raise DtmsError(Reason.FIELD_INVALID, f"{data_dir} holds something else than an earlier run: not removed")
        shutil.rmtree(data_dir)
    out.mkdir(parents=True, exist_ok=True)
    return data_dir


async def replay(
    options: ReplayOptions, config: Config, *, managers: tuple[Program, ...], progress: Progress
) -> Finished:
    """Runs service and paper broker in this process and each manager in one of its own."""
    job = job_of(options, config, progress)
    system = await System.open(config, names(managers))
    server = await Server.start(system, config, credentials_of(config, (TRADER,)))
    assert system.lockstep is not None, "the system was opened for lockstep"
    lockstep = system.lockstep
    crew = Crew(managers, progress=lambda: lockstep.seq)
    tokens = config.data_dir / CREDENTIALS_FOLDER
    try:
        with open_run(job) as run:
            await system.attach(run.account_id, run.door, [job.spec.name])
            older = seen_by(job.entries, warm_up_ticks(options, job.spec.point))
            await system.monitor.warm_up(run.account_id, job.spec.name, older)
            await crew.start(server.address, tokens)
            await crew.until(lockstep.complete)
            async with AsyncClient(server.address, token_file=token_path(tokens, TRADER)) as client:
                link = LocalLink(run.account_id, system.monitor, Trader(client, run.account_id))
                await run.drive(link)
            crew.may_end()
            lockstep.end()
            await system.executor.idle()
        await crew.ended()
        latency = system.monitor.tick_to_decision.figures()
        head = await system.desk.commits.chain_head()
    finally:
        await crew.stop()
        await server.stop()
    return finish(
        options,
        config.data_dir,
        journal_sha256=head,
        p50_us=latency.p50_us,
        p99_us=latency.p99_us,
        restarts=crew.restarts,
    )


def finish(
    options: ReplayOptions,
    data_dir: Path,
    *,
    journal_sha256: str,
    p50_us: float,
    p99_us: float,
    restarts: Mapping[str, int],
) -> Finished:
    """Reads the journal and the folder of a run that has ended and writes summary and report."""
    events = list(read_events(data_dir))
    bars = read_bars(options.out / BARS)
    results = read_results(options.out / RESULTS)
    run = Run(
        symbol=options.symbol,
        source=", ".join(path.name for path in options.files),
        entry_rule=options.entry_rule,
        bars=len(bars),
        journal_sha256=journal_sha256,
        tick_to_decision_p50_us=round(p50_us, 1),
        tick_to_decision_p99_us=round(p99_us, 1),
    )
    writes = list(read_broker_writes(options.out / BROKER_LOG))
    summary = summarise(events, results, run, writes)
    if restarts:
        summary["restarts"] = dict(sorted(restarts.items()))
    (options.out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    return Finished(summary, results, write_report(options.out, events, bars, results, run, broker_log=writes))


def read_events(data_dir: Path, *, shadow: bool | None = None) -> Iterator[Event]:
    """All events of a journal that no service has open: of a ``shadow`` run, of a live one, or (None) of either."""
    journal, _report = SqliteJournal.open(data_dir, wal_limit_bytes=1 << 26, progress=no_progress, shadow=shadow)
    try:
        revision = journal.oldest_revision
        while batch := journal.read(revision, _CHUNK):
            yield from (convert.event_message(body) for _revision, body in batch)
            revision = batch[-1][0] + 1
    finally:
        journal.close()
