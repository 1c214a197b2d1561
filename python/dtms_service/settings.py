"""Command line over environment over file: what the commands of `dtms` make a configuration of."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from dtms_service.config import PREFIX, Config, SymbolOverride, load, read_toml
from dtms_service.errors import invalid

PAPER_FILE = "paper.toml"
SPEC_SYNTAX = "rule of the symbol as KEY=VALUE, KEY one of " + ", ".join(SymbolOverride.model_fields)


def configuration(file: Path | None, *, paper: bool, given: Mapping[str, object]) -> Config:
    """``given`` are dotted keys with the values of the command line; None means not given. Raises ConfigInvalid.

    ``paper`` puts the shipped play-money account in, unless file or environment describe one.
    """
    environ = dict(os.environ)
    if paper and not _describes_paper(file, environ):
        environ |= {_variable(f"paper.{key}"): _text(value) for key, value in _shipped_paper().items()}
    environ |= {_variable(key): _text(value) for key, value in given.items() if value is not None}
    return load(file, environ)


def spec_override(symbol: str, texts: Sequence[str] | None) -> dict[str, object]:
    """Rules of a symbol given as ``key=value``, as a key of the configuration. FIELD_INVALID names what is none."""
    if not texts:
        return {}
    rules: dict[str, object] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or key not in SymbolOverride.model_fields:
            raise invalid("spec", f"{text!r}: write {SPEC_SYNTAX}")
        rules[key] = value
    return {"symbols.overrides": {symbol: rules}}


def _shipped_paper() -> dict[str, object]:
    section: dict[str, object] = tomllib.loads(files("dtms_service").joinpath(PAPER_FILE).read_text())["paper"]
    return section


def _describes_paper(file: Path | None, environ: Mapping[str, str]) -> bool:
    if any(name.startswith(_variable("paper")) for name in environ):
        return True
    return file is not None and "paper" in read_toml(file)


def _variable(key: str) -> str:
    return PREFIX + key.replace(".", "__").upper()


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
