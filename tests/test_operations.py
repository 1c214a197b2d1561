"""docs/operations.md is what an operator reads in trouble: nothing is missing, and what it shows can be typed."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from dtms.v1 import error_reason_pb2, event_pb2
from dtms_client.exit_manager import command as exit_manager
from dtms_client.universal_manager import command as universal_manager
from dtms_service.broker import mt5_inferences
from dtms_service.broker.retcodes import LastError, Retcode
from dtms_service.cli import app
from tests.conftest import REPO
from tests.house_sources import SERVICE

PAGES = [REPO / "README.md", REPO / "clients" / "README.md", *sorted((REPO / "docs").glob("*.md"))]
OPERATIONS = (REPO / "docs" / "operations.md").read_text(encoding="utf-8")
SUCCESSES = {Retcode.DONE, Retcode.DONE_PARTIAL, Retcode.NO_CHANGES, Retcode.PLACED}
OWN_PARSERS = {"exit-manager": exit_manager.parser, "universal-manager": universal_manager.parser}
"""Commands that hand their arguments to a program of their own."""


# --- runbooks --------------------------------------------------------------------------------------------------------


def rows(title: str) -> dict[str, list[str]]:
    """The rows of the tables under a heading, by their first cell."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", OPERATIONS, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, title
    lines = [line for line in found.group(1).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def names(enum: Any, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in enum.keys() if not name.endswith("_UNSPECIFIED")]  # noqa: SIM118


@pytest.mark.parametrize("reason", names(error_reason_pb2.ErrorReason, "ERROR_REASON_"))
def test_every_error_reason_has_its_entry(reason: str) -> None:
    """What it means, where to look, what to do."""
    assert [len(cell) > 0 for cell in rows("Runbook by error reason")[reason]] == [True] * 3


@pytest.mark.parametrize("alarm", names(event_pb2.AlarmCode, "ALARM_CODE_"))
def test_every_alarm_has_its_entry(alarm: str) -> None:
    """What it means, where to look, what to do."""
    assert [len(cell) > 0 for cell in rows("Runbook by alarm")[alarm]] == [True] * 3


@pytest.mark.parametrize("retcode", [code for code in Retcode if code not in SUCCESSES], ids=lambda code: code.name)
def test_every_retcode_that_is_no_success_has_its_entry(retcode: Retcode) -> None:
    """What it means, what DTMS does by itself, where to look and what to do."""
    assert [len(cell) > 0 for cell in rows("Runbook by retcode")[f"{retcode.value} {retcode.name}"]] == [True] * 3


def test_every_failure_of_a_call_has_its_entry() -> None:
    """Each code of last_error but success stands in a row."""
    told = {int(number) for first in rows("Runbook by retcode") for number in re.findall(r"-\d+", first)}
    assert told == {int(code) for code in LastError if code is not LastError.OK}


def test_every_belief_about_a_terminal_has_its_check() -> None:
    """What the adapter takes for true without proof stands in the list of what to look at on a live terminal."""
    page = (REPO / "docs" / "mt5.md").read_text(encoding="utf-8").partition("\n## 7.")[2]
    believed = [name for name in vars(mt5_inferences) if not name.startswith("_") and _is_own(name)]
    assert believed
    assert [name for name in believed if name not in page] == []


def _is_own(name: str) -> bool:
    """Whether the module defines the name, and does not import it."""
    return getattr(vars(mt5_inferences)[name], "__module__", None) == mt5_inferences.__name__ or name.isupper()


def test_log_lines_that_are_explained_are_written() -> None:
    """Each event of the table of log lines stands in a source as what is logged."""
    code = "\n".join(source.read_text(encoding="utf-8") for source in SERVICE.rglob("*.py"))
    explained = [name for first in rows("Logs") for name in re.findall(r"`(\w+)`", first)]
    assert len(explained) > 10
    assert [name for name in explained if f'"{name}"' not in code] == []


# --- commands --------------------------------------------------------------------------------------------------------


def shown(page: Path) -> Iterator[str]:
    """Every `dtms ...` of a page: lines of its blocks, continued ones joined, and pieces of its text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|powershell|ini)\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    pieces = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for piece in (*lines, *pieces):
        if found := re.search(r"(?:^|[\s/\\=])dtms( .*|$)", piece):
            yield found.group(1).partition(" #")[0].strip()


def options_of(words: list[str]) -> set[str]:
    """The options that the command knows. Raises KeyError for a command that does not exist."""
    current: App = app
    path = ""
    while words and not words[0].startswith("-") and any(not name.startswith("-") for name in current):
        path = words.pop(0)
        alternatives = path.split("|")  # `dtms journal verify|export`
        known = set[str]()
        for name in alternatives:
            known |= _names(current[name], name)
        if len(alternatives) > 1:
            return known
        current = current[path]
    return _names(current, path)


def _names(command: App, name: str) -> set[str]:
    if name in OWN_PARSERS:
        own: argparse.ArgumentParser = OWN_PARSERS[name]()
        return set(own._option_string_actions)
    given = command.assemble_argument_collection() if command.default_command is not None else ()
    return {each for argument in given for each in argument.names} | {"--help", "--version"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_commands_that_are_shown_exist(page: Path) -> None:
    """Each `dtms COMMAND --option` of the documents is a command with that option."""
    wrong: list[str] = []
    for line in shown(page):
        words = line.replace("\\|", "|").split()
        try:
            known = options_of(list(words))
        except KeyError as error:
            wrong.append(f"dtms {line}: no command {error}")
            continue
        given = {found.group() for word in words if (found := re.match(r"--[a-z0-9-]+", word))}
        wrong += [f"dtms {line}: no option {option}" for option in sorted(given - known)]
    assert not wrong, "\n".join(wrong)


def test_commands_of_the_blocks_can_be_typed_as_they_are() -> None:
    """What stands in blocks is whole: each is parsed with all its arguments."""
    count = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```(?:sh|powershell)\n(.*?)```", text, flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if not re.match(r"(?:\.venv[/\\](?:bin|Scripts)[/\\])?dtms ", line):
                    continue
                words = shlex.split(line, comments=True)[1:]
                if words[0] in OWN_PARSERS:
                    OWN_PARSERS[words[0]]().parse_args(words[1:])
                else:
                    app.parse_args(words, exit_on_error=False, print_error=False)
                count += 1
    assert count > 5
