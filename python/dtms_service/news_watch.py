"""The news of every symbol: from the calendar file into the engine, and again when the file changes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from dtms_service import convert, news, symbols
from dtms_service.broker.door import SymbolSpec
from dtms_service.config import RailsConfig
from dtms_service.desk import Desk
from dtms_service.errors import ConfigInvalid
from dtms_service.news import Announcement, Fingerprint

log = structlog.get_logger(__name__)


def first(rails: RailsConfig) -> tuple[tuple[Announcement, ...], Fingerprint | None]:
    """The calendar as it is at the start, blocking. Raises ConfigInvalid, which names line and field."""
    path = rails.news_calendar
    if path is None:
        return (), None
    announcements = news.read(path)
    return announcements, news.fingerprint(path)


@dataclass(slots=True)
class NewsWatch:
    """Without a calendar there are no news. A new version that cannot be used is alarmed once; the one before holds."""

    desk: Desk
    rails: RailsConfig
    suffixes: tuple[str, ...]
    announcements: tuple[Announcement, ...]
    seen: Fingerprint | None
    _currencies: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def follow(self, account_id: str, spec: SymbolSpec) -> None:
        """From now on the symbol's news are told."""
        currencies = symbols.currencies(spec.name, spec.currency_profit, self.suffixes)
        self._currencies[account_id, spec.name] = currencies
        self._tell(account_id, spec.name, currencies)

    async def look(self) -> None:
        """Reads the calendar again if it was written again; the file is touched in a thread, for a disk may hang."""
        path = self.rails.news_calendar
        if path is None:
            return
        try:
            found = await asyncio.to_thread(news.fingerprint, path)
        except OSError as error:
            if self.seen is not None:
                self.seen = None
                self._refuse(f"{path}: {error.strerror}")
            return
        if found == self.seen:
            return
        self.seen = found
        try:
            self.announcements = await asyncio.to_thread(news.read, path)
        except ConfigInvalid as error:
            self._refuse(str(error))
            return
        for (account_id, symbol), currencies in self._currencies.items():
            self._tell(account_id, symbol, currencies)
        log.info("news_calendar_read", announcements=len(self.announcements))

    def take(self, rails: RailsConfig, announcements: tuple[Announcement, ...], seen: Fingerprint | None) -> None:
        """Goes on by these rails, with the calendar that ``first`` gave for them; without one no news hold."""
        self.rails, self.announcements, self.seen = rails, announcements, seen
        for (account_id, symbol), currencies in self._currencies.items():
            self._tell(account_id, symbol, currencies)

    def _refuse(self, why: str) -> None:
        self.desk.alarm("", convert.ALARM_NEWS_CALENDAR, f"the news calendar before it holds: {why}")

    def _tell(self, account_id: str, symbol: str, currencies: frozenset[str]) -> None:
        rails = self.rails
        told = news.blackouts(
            self.announcements,
            currencies,
            rails.news_impacts,
            before_s=rails.news_before_s,
            after_s=rails.news_after_s,
        )
        self.desk.news(account_id, symbol, told)
