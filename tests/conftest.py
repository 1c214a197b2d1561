"""Fixtures and options shared by every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before the first import of grpc: C-core's notes about connections going away would drown the report.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# A service starts in a third of the time where what Python has compiled is kept; some machines say that it is not.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest
from hypothesis import settings

sys.dont_write_bytecode = False

REPO = Path(__file__).resolve().parents[1]
DATA = REPO.parent / "shared" / "data"

# No deadline for one example on a busy machine: the test's own timeout holds. A failure prints how to repeat it.
settings.register_profile("dtms", deadline=None, print_blob=True)
settings.load_profile("dtms")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sim", "simulated worlds")
    group.addoption("--sim-seeds", type=int, default=1, help="how many worlds a test with `sim_seed` runs")
    group.addoption("--sim-first-seed", type=int, default=1, help="seed of the first of them")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `sim_seed` runs once per world; the seed is part of its name."""
    if "sim_seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--sim-first-seed")
        metafunc.parametrize("sim_seed", range(first, first + metafunc.config.getoption("--sim-seeds")))


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the work tree."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real market data; the test is skipped where the machine has none."""
    if not DATA.is_dir():
        pytest.skip(f"no real market data: {DATA} does not exist")
    return DATA
