"""Two configurations side by side: which keys differ, and which of them can change while the service runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from dtms_service.config import Config
from dtms_service.errors import ConfigInvalid, FieldViolation

KEPT_OF_ENGINE: Final = ("fast_s", "slow_s", "request_ids_kept", "magic")
"""Markets, remembered answers and the broker's log are made with them: they hold until the next start."""
_TLS: Final = ("tls_certificate", "tls_key")


@dataclass(frozen=True, slots=True)
class Change:
    """A key with its values before and now, as JSON; empty where it was or is not given, or does not show."""

    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key}: {self.before or 'none'} -> {self.after or 'none'}"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload has done: ``revision`` as of which it holds, 0 where it was only to be checked."""

    changed: tuple[Change, ...]
    needs_restart: tuple[Change, ...]
    revision: int
    streams_ended: int


def differences(before: Config, after: Config) -> tuple[Change, ...]:
    """Every key whose value is another, in order of the keys; of secrets only that they are."""
    old, new = before.model_dump(), after.model_dump()
    old_shown, new_shown = dict(_flat(before.model_dump(mode="json"))), dict(_flat(after.model_dump(mode="json")))
    old_values, new_values = dict(_flat(old)), dict(_flat(new))
    return tuple(
        Change(key, _text(old_shown, key), _text(new_shown, key))
        for key in sorted(old_values.keys() | new_values.keys())
        if old_values.get(key) != new_values.get(key)
    )


def taken_in_place(running: Config, wanted: Config) -> Config:
    """``running`` with all of ``wanted`` that can change while the service runs. Raises ConfigInvalid."""
    values = running.model_dump()
    new = wanted.model_dump()
    values |= {section: new[section] for section in ("rails", "managers", "universal_strategies")}
    values["engine"] = new["engine"] | {key: values["engine"][key] for key in KEPT_OF_ENGINE}
    if running.server.tls_key is not None and wanted.server.tls_key is not None:
        values["server"] |= {key: new["server"][key] for key in _TLS}
    try:
        return Config.model_validate(values)
    except ValidationError as error:  # each is in order, but not together with what only a restart changes
        wrong = [
            FieldViolation(".".join(map(str, one["loc"])) or "configuration", one["msg"]) for one in error.errors()
        ]
        raise ConfigInvalid("configuration with what needs a restart left as it was", wrong) from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _text(shown: Mapping[str, Any], key: str) -> str:
    return json.dumps(shown[key]) if key in shown else ""
