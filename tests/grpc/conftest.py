"""The service that most tests of the wire share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stack import Stack, running


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A serving service of its own for one test, with the first price seen."""
    async with running(tmp_path / "data") as stack:
        await stack.tick(1.1)
        yield stack
