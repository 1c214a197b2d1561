"""Configuration, credentials and certificates read again while the service runs: whole, or not at all.

Everything is read and checked first. What can change is taken in one step; what cannot is named, and stays as it was.
The numbers of the engine become an event: open trades keep those they were registered with, so a transition that is
under way ends as it began (docs/adr/0022).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from dtms_service import news_watch
from dtms_service._core import CoreError, Engine
from dtms_service.config import RAILS_OF_THE_CORE, Config
from dtms_service.config_changes import Change, Reloaded, differences, taken_in_place
from dtms_service.errors import ConfigInvalid, CredentialUnsafe, DtmsError, Reason, invalid, invalid_fields
from dtms_service.stage import Stage
from dtms_service.system import System

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A part that has read and checked what is its own: what is another, and how it is taken.

    ``take`` gives how many streams it has ended, and cannot fail.
    """

    changes: tuple[Change, ...]
    take: Callable[[], int]


Part = Callable[[Config, bool], Ready]
"""Reads, blocking, for the configuration that will hold; writes nothing where the flag says that it is a check."""


@dataclass(slots=True)
class Reload:
    """``reread`` gives the configuration as a start would find it now. One reload at a time."""

    system: System
    reread: Callable[[], Config]
    parts: list[Part] = field(default_factory=list)
    # Where blocking reads happen: a disk may hang.
    aside: Callable[..., Awaitable[Any]] = asyncio.to_thread
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, by: str, reason: str, *, validate_only: bool = False) -> Reloaded:
        """Raises FIELD_INVALID, which names every key, file or token that cannot be used; then nothing has changed."""
        async with self._turn:
            system = self.system
            try:
                wanted, taken, calendar, ready = await self.aside(self._read, validate_only)
            except ConfigInvalid as error:
                raise invalid_fields(error.violations) from error
            except CredentialUnsafe as error:
                raise invalid("credentials", str(error)) from error
            except OSError as error:
                raise invalid("credentials", f"{error.filename}: {error.strerror}") from error
            changed = (*differences(system.config, taken), *(change for part in ready for change in part.changes))
            needs_restart = differences(taken, wanted)
            if validate_only:
                return Reloaded(changed, needs_restart, 0, 0)
            if system.stage is not Stage.SERVING:  # it may have begun to end while files were read
                reason_now = Reason.RECOVERING if system.stage is Stage.RECOVERING else Reason.DRAINING
                raise DtmsError(reason_now, f"the service is {system.stage.name.lower()}", retry_after_s=1.0)
            system.take(taken, by)
            system.news.take(taken.rails, *calendar)
            ended = sum(part.take() for part in ready)
            log.info(
                "configuration_reloaded",
                by=by,
                reason=reason,
                changed=[str(change) for change in changed],
                needs_restart=[change.key for change in needs_restart],
                streams_ended=ended,
            )
            await system.desk.settled()
            return Reloaded(changed, needs_restart, system.desk.engine.revision, ended)

    def _read(self, validate_only: bool) -> tuple[Config, Config, Any, list[Ready]]:
        wanted = self.reread()
        taken = taken_in_place(self.system.config, wanted)
        for config in (wanted, taken):
            _check_core(config)
        calendar = news_watch.first(taken.rails)
        return wanted, taken, calendar, [part(taken, validate_only) for part in self.parts]


def _check_core(config: Config) -> None:
    try:
        Engine(
            config.to_core(), {name: int(rank) for name, rank in config.managers.items()}, config.universal_strategies
        )
    except CoreError as error:
        _reason, key, why = error.args
        section = "rails" if key in RAILS_OF_THE_CORE else "engine"
        raise invalid(f"{section}.{key}", why) from None
