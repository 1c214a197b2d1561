"""A service in shadow mode beside a live paper account that writes down every order it is asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dtms.v1 import paper_service_pb2
from tests.stack import DONE, Stack, running

ACCOUNT = "1000@paper"
Levels = tuple[float, float | None, float | None]


def asked(tmp_path: Path) -> list[dict[str, Any]]:
    """Every request at the real broker, in order."""
    lines = [json.loads(line) for line in (tmp_path / "broker.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "request"]


def by_dtms(tmp_path: Path) -> list[dict[str, Any]]:
    """Requests at the real broker that came from DTMS: there must be none."""
    return [line for line in asked(tmp_path) if line["actor"] == "dtms" or "intent_id" in line]


@asynccontextmanager
async def shadowing(tmp_path: Path, settings: dict[str, object] | None = None) -> AsyncIterator[Stack]:
    """The real account's orders stand in ``broker.jsonl`` of ``tmp_path``; none of them may be of DTMS."""
    own = {"shadow": "true", "paper.broker_log": tmp_path / "broker.jsonl"}
    async with running(tmp_path / "data", own | (settings or {})) as stack:
        assert stack.system.paper is not None
        stack.now_msc = max(stack.now_msc, stack.system.paper.broker.now_msc)
        yield stack
    assert by_dtms(tmp_path) == []


async def shadow_held(stack: Stack) -> dict[int, Levels]:
    """Volume, stop and target by ticket, as the shadow book has them."""
    held = await stack.system.doors.of(ACCOUNT).positions(ACCOUNT)
    return {position.ticket: (position.volume, position.sl, position.tp) for position in held}


async def close_by_hand(stack: Stack, ticket: int, volume: float | None = None) -> None:
    """At the real account."""
    answer = await stack.call("feed", paper_service_pb2.ClosePositionRequest(ticket=ticket, volume=volume))
    assert answer.retcode == DONE


async def move_by_hand(stack: Stack, ticket: int, sl: float, tp: float) -> None:
    """At the real account."""
    answer = await stack.call("feed", paper_service_pb2.ModifyPositionRequest(ticket=ticket, sl=sl, tp=tp))
    assert answer.retcode == DONE
