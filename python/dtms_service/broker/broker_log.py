"""The broker's own account of what it was asked: every order, accepted or refused, and every deal it made by itself.

JSON lines, each with ``seq`` and ``event``. An outside check holds it against what the managers say they did, so it is
written where the trade server decides, past everything that DTMS believes.

request   ``time_msc`` (the broker's clock), ``actor`` (dtms: through the door; entry: an entry rule; other: by hand),
          ``action`` (SLTP, DEAL), ``position``, ``magic``, ``comment`` (``dtms INTENT`` for a command of DTMS), the
          levels and volume asked for, ``ticket``, ``token`` and ``intent_id`` of a command, the answer (``retcode``,
          ``text``, ``order``, ``deal``, ``price``, ``filled``), and the position ``before`` and ``after`` (null: none)
deal      a stop, target or stop-out, as the door shows closing deals
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dtms_service.broker.door import ClosingDeal, Command
from dtms_service.broker.mt5_enums import Action, OrderType
from dtms_service.broker.recorded import Held
from dtms_service.broker.structs import OrderSendResult
from dtms_service.fault_points import Point, reach

ENTRY, DTMS, OTHER = "entry", "dtms", "other"


class BrokerLog:
    """Implements :class:`recorded.RequestLog`. ``entry_magic`` tells the requests of an entry rule.

    Without ``fresh`` it goes on where an earlier process ended; each line is handed to the system whole, so a kill
    tears none.
    """

    def __init__(self, path: Path, *, entry_magic: int | None, fresh: bool) -> None:
        """Raises OSError where the file cannot be opened."""
        self._entry_magic = entry_magic
        self._seq = 0 if fresh or not path.exists() else path.read_bytes().count(b"\n")
        self._file = path.open("w" if fresh else "a", encoding="utf-8", newline="\n", buffering=-1 if fresh else 1)

    def close(self) -> None:
        self._file.close()

    def request(
        self,
        time_msc: int,
        result: OrderSendResult,
        command: Command | None,
        *,
        named: frozenset[str],
        before: Held | None,
        after: Held | None,
    ) -> None:
        asked = result.request
        others = ENTRY if asked.magic == self._entry_magic else OTHER
        line: dict[str, Any] = {
            "event": "request",
            "time_msc": time_msc,
            "actor": others if command is None else DTMS,
            "action": Action(asked.action).name if asked.action in set(Action) else asked.action,
            "symbol": asked.symbol,
            "position": asked.position,
            "magic": asked.magic,
            "comment": asked.comment,
        }
        if asked.action == Action.DEAL:
            line |= {"side": _side(asked.type), "volume": asked.volume}
        line |= {name: getattr(asked, name) for name in ("sl", "tp") if name in named}
        if command is not None:
            line |= {"ticket": command.ticket, "token": command.token, "intent_id": command.intent_id}
        line |= {
            "retcode": result.retcode,
            "text": result.comment,
            "order": result.order,
            "deal": result.deal,
            "price": result.price,
            "filled": result.volume,
            "before": None if before is None else before._asdict(),
            "after": None if after is None else after._asdict(),
        }
        self.write(line)

    def deals(self, made: list[ClosingDeal]) -> None:
        """What the broker did by itself."""
        for deal in made:
            self.write({"event": "deal", **asdict(deal), "reason": deal.reason.name})

    def write(self, line: Mapping[str, object]) -> None:
        reach(Point.BROKER_LOG)
        self._seq += 1
        self._file.write(json.dumps({"seq": self._seq, **line}, ensure_ascii=False, allow_nan=False) + "\n")


def _side(order_type: int) -> str:
    return OrderType(order_type).name if order_type in set(OrderType) else str(order_type)
