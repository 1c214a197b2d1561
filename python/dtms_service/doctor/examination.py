"""All checks in order. Each group learns from the ones before it; one that fails itself stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Final

from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, fail

GROUPS: Final = (
    "versions",
    "configuration",
    "data_directory",
    "tokens",
    "port",
    "service",
    "gateway_folder",
    "terminal",
)
"""Modules of this package. Loaded one by one: packages that do not fit together are a finding, no crash."""


def examine(case: Case) -> Iterator[Finding]:
    for group in GROUPS:
        try:
            checks: Callable[[Case], Iterator[Finding]] = import_module(f"{__package__}.{group}").examine
            yield from checks(case)
        except Exception as error:  # noqa: BLE001  shown as a finding: the other groups are worth looking at all the same
            yield broken(group, error)


def broken(group: str, error: Exception) -> Finding:
    mend = "mend what failed above first; if nothing did, report this with the output of dtms doctor --json"
    return fail(group, "the check itself", f"{type(error).__name__}: {error}", mend)
