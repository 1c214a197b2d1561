"""What the contract tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.mt5_rig import fetch_wheel


@pytest.fixture(scope="session")
def wheel(pytestconfig: pytest.Config) -> Path:
    """The real wheel, downloaded once into pytest's cache folder."""
    return fetch_wheel(Path(pytestconfig.cache.mkdir("metatrader5-wheel")))
