"""The only place that knows apprise. Its URLs are secrets: none is logged, shown, or left in an error's text."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from pydantic import SecretStr

from dtms_service.errors import ConfigInvalid, FieldViolation

if TYPE_CHECKING:
    from apprise import NotifyBase

MIN_SECRET_CHARS: Final = 4  # a shorter piece of a URL (a port, "to") is no secret, and hiding it would hide words
_DELIMITERS: Final = re.compile(r"[/:@?&=,#\s]+")


class AppriseSender:
    """One target of notifications: called with a title and a text, it answers why they were not delivered, or None.

    Blocks for as long as the target takes: ``timeout_s`` holds for connecting, and for each silence of the target.
    Use it from one thread. ``label`` names it in logs: its place in the list, and the service's name.
    """

    def __init__(self, place: int, plugin: NotifyBase, url: str, timeout_s: float) -> None:
        plugin.socket_connect_timeout = plugin.socket_read_timeout = timeout_s
        self.label = f"{place} ({plugin.service_name})"
        self._plugin = plugin
        self._secrets = _secrets(url)

    def __call__(self, title: str, text: str) -> str | None:
        heard = _Heard()
        logger = logging.getLogger("apprise")
        logger.addHandler(heard)
        try:
            delivered = self._plugin.notify(body=text, title=title)
        except Exception as error:  # noqa: BLE001  whatever a plugin raises: the message was not delivered
            return self._without_secrets(f"{type(error).__name__}: {error}")
        finally:
            logger.removeHandler(heard)
        return None if delivered else self._without_secrets("; ".join(heard.texts) or "refused")

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Heard(logging.Handler):
    """What apprise logs in this thread: the only way in which it says what went wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())


def open_senders(urls: Sequence[SecretStr], timeout_s: float) -> list[AppriseSender]:
    """A sender for each URL. ConfigInvalid names those that apprise does not take by their place, from 1 on."""
    from apprise import Apprise  # noqa: PLC0415  half a second that a service without notifications does not pay

    logger = logging.getLogger("apprise")
    logger.propagate = False  # its own lines are heard by the sender, which hides the secrets in them
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    plugins = [(place, url.get_secret_value(), Apprise) for place, url in enumerate(urls, 1)]
    opened = [(place, url, factory.instantiate(url)) for place, url, factory in plugins]
    refused = [place for place, _, plugin in opened if plugin is None]
    if refused:
        why = "is no URL that apprise takes (https://appriseit.com lists them)"
        raise ConfigInvalid("notifications", [FieldViolation(f"notifications.urls, number {n}", why) for n in refused])
    return [AppriseSender(place, plugin, url, timeout_s) for place, url, plugin in opened if plugin is not None]


def _secrets(url: str) -> list[str]:
    """The pieces of a URL behind its scheme, as written and decoded, longest first."""
    pieces = _DELIMITERS.split(url)[1:]
    both = {*pieces, *map(unquote, pieces)}
    return sorted((piece for piece in both if len(piece) >= MIN_SECRET_CHARS), key=len, reverse=True)
