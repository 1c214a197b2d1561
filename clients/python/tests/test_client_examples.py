"""The Python examples of the README files run as they are written, against a real service."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from dtms_client.registration import DEFAULT_ADDRESS
from tests.conftest import REPO
from tests.stack import running

PAGES = ("README.md", "clients/README.md", "clients/python/README.md")


def examples(page: str) -> list[str]:
    """The blocks of Python of a page, in order."""
    return re.findall(r"```python\n(.*?)```", (REPO / page).read_text(encoding="utf-8"), flags=re.DOTALL)


async def run(code: str, folder: Path) -> tuple[str, str]:
    """What an example prints, to stdout and to stderr; one that follows a stream for ever ends after its first line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DTMS_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        "-c",
        code,
        cwd=folder,
        env=inherited | {"GRPC_VERBOSITY": "NONE"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = (await process.stdout.readline()).decode()
    if "watch(" in code and "break" not in code:
        process.kill()
    rest, errors = await process.communicate()
    return said + rest.decode(), errors.decode()


@pytest.mark.parametrize("page", PAGES)
async def test_the_examples_of_a_page_run(page: str, tmp_path: Path) -> None:
    """Each block of Python of the page ends without an error and prints something, in the order of the page."""
    found = examples(page)
    assert found, f"{page} has no example"
    async with running(tmp_path / "dtms-data") as stack:
        assert (await stack.trade(volume=0.1, sl=1.08, tp=1.15)).ticket == 1
        for number, code in enumerate(found, start=1):
            said, errors = await run(code.replace(DEFAULT_ADDRESS, stack.server.address), tmp_path)
            assert errors == "", f"{page}, example {number}: {errors}"
            assert said, f"{page}, example {number} prints nothing"
