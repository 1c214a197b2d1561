"""What a manager in lockstep leaves at the service with each answer, so that a restart in the middle changes nothing.

Which wishes have to wait, and what it has proposed and not been told the end of. Facts of a trade and memos are at DTMS
anyway, quotes and bars are told again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from dtms_client.managing.brain import Pause, Proposal
from dtms_client.managing.views import TradeView
from dtms_client.managing.wishes import Close, MoveStop, MoveTarget, TakePartial, Wish

_WISHES: Final = {kind.__name__: kind for kind in (Close, MoveStop, MoveTarget, TakePartial)}


def written(pauses: list[Pause], sent: Mapping[str, Proposal]) -> str:
    """Both as text; empty for nothing."""
    if not pauses and not sent:
        return ""
    waiting = [_said(pause.trade, pause.wish) | _until(pause) for pause in pauses]
    proposed = [_said(proposal.trade, proposal.wish) | {"id": each} for each, proposal in sent.items()]
    return json.dumps({"pauses": waiting, "sent": proposed}, separators=(",", ":"))


def read(text: str) -> tuple[list[Pause], dict[str, Proposal]]:
    """What `written` has made a text of. Raises ValueError, KeyError or TypeError for any other text."""
    left = json.loads(text)
    pauses = [
        Pause(*_understood(said), any_until_ns=said["any_until_ns"], same_until_ns=said["same_until_ns"])
        for said in left["pauses"]
    ]
    return pauses, {said["id"]: Proposal(*_understood(said)) for said in left["sent"]}


def _said(trade: TradeView, wish: Wish) -> dict[str, Any]:
    return {"trade": asdict(trade), "kind": type(wish).__name__, "wish": asdict(wish)}


def _until(pause: Pause) -> dict[str, int]:
    return {"any_until_ns": pause.any_until_ns, "same_until_ns": pause.same_until_ns}


def _understood(said: Mapping[str, Any]) -> tuple[TradeView, Wish]:
    return TradeView(**said["trade"]), _WISHES[said["kind"]](**said["wish"])
