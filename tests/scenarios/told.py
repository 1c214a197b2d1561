"""What a watcher was told, to be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dtms.v1 import action_pb2
from dtms.v1.event_pb2 import Event
from dtms_client import AsyncClient

PATIENCE_S = 30.0
"""For what a test waits for; who needs it has failed."""


class Told:
    """All events in order. ``follow`` fills it, through outages."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Condition()

    async def follow(self, client: AsyncClient) -> None:
        """Reads the whole stream, for ever."""
        async for item in client.watch(start_revision=1, progress_interval_ms=200):
            if isinstance(item, Event):
                self.events.append(item)
                async with self._news:
                    self._news.notify_all()

    async def until(self, found: Callable[[], Any]) -> Any:
        """What ``found`` gives once it gives something, looked at after each event."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            while not (answer := found()):
                await self._news.wait()
            return answer

    async def event(self, matches: Callable[[Event], Any], *, after: int = 0) -> Event:
        """The first event after a revision that matches."""
        found: Event = await self.until(
            lambda: next((event for event in self.events if event.revision > after and matches(event)), None)
        )
        return found

    async def up_to(self, revision: int) -> None:
        """Everything up to a revision was told."""
        await self.until(lambda: self.events and self.events[-1].revision >= revision)

    async def at_rest(self) -> None:
        """Everything that was begun is known to be done or refused."""

        def open_intents() -> set[int]:
            begun = {event.intent_recorded.intent_id for event in self.events if event.HasField("intent_recorded")}
            outcomes = (event.outcome_recorded.outcome for event in self.events if event.HasField("outcome_recorded"))
            return begun - {each.intent_id for each in outcomes if each.status != action_pb2.OUTCOME_STATUS_UNKNOWN}

        await self.until(lambda: not open_intents())

    async def moved(self, manager: str, purpose: action_pb2.Purpose.ValueType, *, after: int = 0) -> Event:
        """The next confirmed change of a manager for a purpose."""

        def is_it(event: Event) -> bool:
            outcome = event.outcome_recorded.outcome
            if outcome.status != action_pb2.OUTCOME_STATUS_CONFIRMED:
                return False
            intents = (each.intent_recorded for each in self.events)
            intent = next(each for each in intents if each.intent_id == outcome.intent_id)
            return (intent.manager, intent.purpose) == (manager, purpose)

        return await self.event(is_it, after=after)

    def decisions(self, manager: str, ticket: int = 0, *, after: int = 0) -> list[action_pb2.Decision]:
        """Those told so far, after a revision."""
        made = [
            event.decision_made.decision
            for event in self.events
            if event.HasField("decision_made") and event.revision > after
        ]
        return [each for each in made if each.manager == manager and ticket in {0, each.ticket}]
