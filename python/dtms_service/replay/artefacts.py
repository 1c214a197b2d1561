"""What a run leaves in its output folder.

======================  =============================================================================================
``bars.csv``            closed bars of bid prices with the score for a BUY after the tick that closed them
``broker_log.jsonl``    every request at the trade server with its answer, and every deal the broker made by itself
``results.json``        what each trade earned, with DTMS and with its original stop and target only
``run.json``            about the run: the file, its hash, counts, virtual span, wall clock
======================  =============================================================================================

All but the key ``wall`` of ``run.json`` repeats byte for byte with the same history, configuration and managers.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from dtms_service.bars import ClosedBar
from dtms_service.broker.broker_log import ENTRY, BrokerLog
from dtms_service.broker.door import ClosingDeal
from dtms_service.broker.retcodes import Retcode
from dtms_service.replay.driver import Refusal, RunFigures, ScoreReading, Trade
from dtms_service.replay.results import TradeResult
from dtms_service.report import BrokerWrite

BARS, BROKER_LOG, RESULTS, RUN = "bars.csv", "broker_log.jsonl", "results.json", "run.json"

_BAR_COLUMNS = ("time_s", "open", "high", "low", "close", *ScoreReading._fields)
_CHUNK_BYTES = 1 << 20  # read at a time when hashing: history files may be larger than memory
_DONE = frozenset({Retcode.DONE, Retcode.DONE_PARTIAL})


class RunFolder:
    """Writes the files of one run. A context manager: an interrupted run keeps what it had observed.

    Implements :class:`driver.Observer`. ``log`` takes the broker's requests; ``entry_magic`` tells the entry rule's.
    ``scores`` are those of the bars that are in the folder already: they are not written again.
    """

    def __init__(self, path: Path, *, entry_magic: int, goes_on: bool = False) -> None:
        """Make the folder, or take over one: the files of an earlier run are replaced. Raises OSError.

        A run that ``goes_on`` is observed from its first tick on once more, but what the service had said of its bars
        is kept.
        """
        self.path = path
        self._open_files = ExitStack()
        path.mkdir(parents=True, exist_ok=True)
        for name in (RESULTS, RUN):
            (path / name).unlink(missing_ok=True)
        with ExitStack() as opened:
            self.log = opened.enter_context(closing(BrokerLog(path / BROKER_LOG, entry_magic=entry_magic, fresh=True)))
            self.scores = _whole_rows(path / BARS) if goes_on else []
            mode = "a" if self.scores else "w"
            # Line by line: what is not in the file when this process is killed, the next cannot ask for any more.
            bars = opened.enter_context((path / BARS).open(mode, encoding="utf-8", newline="", buffering=1))
            self._bars = csv.writer(bars, lineterminator="\n")
            self._bars_seen = 0
            if not self.scores:
                self._bars.writerow(_BAR_COLUMNS)
            self._open_files = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._open_files.close()

    # --- while it runs ---

    def bar(self, bar: ClosedBar, score: ScoreReading) -> None:
        self._bars_seen += 1
        if self._bars_seen > len(self.scores):
            self._bars.writerow((bar.time_s, bar.open, bar.high, bar.low, bar.close, *score))

    def deals(self, made: list[ClosingDeal]) -> None:
        self.log.deals(made)

    def entered(self, trade: Trade) -> None:
        self.log.write({"event": "entered", **_plain(asdict(trade.registration)), "side": trade.registration.side.name})

    def refused(self, refusal: Refusal) -> None:
        self.log.write(
            {
                "event": "refused",
                "time_msc": refusal.time_msc,
                "side": refusal.entry.side.name,
                "volume": refusal.entry.volume,
                "retcode": refusal.retcode,
                "text": refusal.text,
            }
        )

    # --- at its end ---

    def finish(
        self, figures: RunFigures, results: Sequence[TradeResult], *, symbol: str, sources: Sequence[Path]
    ) -> None:
        """Write ``results.json`` and ``run.json``, last and after all else, so that their presence says "whole"."""
        self._open_files.close()
        write_json(self.path / RESULTS, {"trades": [asdict(result) for result in results]})
        write_json(
            self.path / RUN,
            {
                "symbol": symbol,
                "sources": [{"file": source.name, "sha256": sha256(source)} for source in sources],
                "ticks": figures.ticks,
                "bars": figures.bars,
                "trades": len(figures.trades),
                "refused": len(figures.refusals),
                "missed": list(figures.missed),
                "first_msc": figures.first_msc,
                "last_msc": figures.last_msc,
                "wall": {"seconds": figures.wall_s, "tick_done_us": asdict(figures.tick_done)},
            },
        )


def _whole_rows(path: Path) -> list[ScoreReading]:
    """The scores of the bars in the file. A line that a kill has torn is cut off."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with path.open("r+b") as file:
            file.truncate(whole)
    rows = csv.reader(text[:whole].decode().splitlines())
    next(rows, None)
    return [ScoreReading(*map(float, row[-len(ScoreReading._fields) :])) for row in rows]


def read_broker_writes(path: Path) -> Iterator[BrokerWrite]:
    """Accepted changes of positions from a ``broker_log.jsonl``, in order.

    The entry rule's openings and what the broker did by itself (stops, targets, stop-outs) are no writes of a manager.
    """
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            line = json.loads(text)
            if line["event"] == "request" and line["retcode"] in _DONE and line["actor"] != ENTRY:
                position = line["position"] or line["order"]
                yield BrokerWrite(line["time_msc"] * 1_000_000, position, line.get("intent_id"))


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _plain(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name != "side"}
