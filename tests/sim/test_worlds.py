"""Whole worlds in virtual time under faults: the simulation (docs/simulation.md)."""

from __future__ import annotations

import pytest

from tests.sim.faults import ELSEWHERE, FAULTS
from tests.sim.planted import BUGS, Planted
from tests.sim.run import chosen, play
from tests.sim.validators import VALIDATORS

QUICK = ("check_then_act", "states_are_not_kept")


def test_every_fault_of_the_list_is_here_or_named_elsewhere() -> None:
    """The numbers of the faults are 1 to 24, each once."""
    assert sorted([*(fault.number for fault in FAULTS), *ELSEWHERE]) == list(range(1, 25))


def test_every_guarantee_has_its_validator() -> None:
    """I1 to I24 have one each, and each says what it holds."""
    assert list(VALIDATORS) == [f"I{number}" for number in range(1, 25)]
    assert all(validator.__doc__ for validator in VALIDATORS.values())


@pytest.mark.parametrize("seed", [2, 4, 13])
def test_a_world_survives_its_faults(seed: int) -> None:
    """A storm of the faults that the seed chooses breaks no guarantee, and in the calm after it everything settles."""
    verdict = play(seed)
    assert not verdict.found, verdict.report()
    assert verdict.events > 100, "a world in which little happens shows little"


def test_a_seed_is_a_world() -> None:
    """The same seed gives the same journal, byte for byte; another seed another one."""
    first, second = play(11), play(11)
    assert first.journal_sha256 == second.journal_sha256
    assert chosen(11) == chosen(11)
    assert first.journal_sha256 != play(13).journal_sha256


@pytest.mark.slow
def test_a_world_survives_its_faults_in_every_seed(sim_seed: int) -> None:
    """A storm of the faults that the seed chooses breaks no guarantee, and in the calm after it everything settles."""
    verdict = play(sim_seed)
    assert not verdict.found, verdict.report()


@pytest.mark.parametrize(
    "planted",
    [pytest.param(bug, marks=() if bug.name in QUICK else pytest.mark.slow, id=bug.name) for bug in BUGS],
)
def test_a_planted_bug_is_found(planted: Planted) -> None:
    """A bug of the old system is found by its validator within its seeds; without it the same world is clean."""
    for seed in range(1, planted.seeds + 1):
        if play(seed, faults=planted.faults, planted=planted.bug()).guarantees & planted.by:
            clean = play(seed, faults=planted.faults)
            assert not clean.found, clean.report()
            return
    pytest.fail(f"{planted.name} was not found by {sorted(planted.by)} within {planted.seeds} seeds")
