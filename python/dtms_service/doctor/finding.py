"""What a check found, and what a list of findings comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """From the best to the worst; SKIPPED says nothing about what was not looked at."""

    OK = "OK"
    SKIPPED = "SKIPPED"
    WARN = "WARN"
    FAIL = "FAIL"


EXIT_CODES: Final = {Verdict.OK: 0, Verdict.SKIPPED: 0, Verdict.WARN: 1, Verdict.FAIL: 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. ``found`` is what was seen, or why it was skipped; ``mend`` is empty only where nothing is to do.

    ``about`` is the account that it is about, where several may be looked at.
    """

    check: str
    looked_at: str
    verdict: Verdict
    found: str
    mend: str = ""
    about: str = ""


def ok(check: str, looked_at: str, found: str) -> Finding:
    return Finding(check, looked_at, Verdict.OK, found)


def skipped(check: str, looked_at: str, why: str) -> Finding:
    return Finding(check, looked_at, Verdict.SKIPPED, why)


def warn(check: str, looked_at: str, found: str, mend: str) -> Finding:
    return Finding(check, looked_at, Verdict.WARN, found, mend)


def fail(check: str, looked_at: str, found: str, mend: str) -> Finding:
    return Finding(check, looked_at, Verdict.FAIL, found, mend)


def worst(findings: Iterable[Finding]) -> Verdict:
    """OK where nothing is wrong, whatever was skipped."""
    bad = {finding.verdict for finding in findings}
    return Verdict.FAIL if Verdict.FAIL in bad else Verdict.WARN if Verdict.WARN in bad else Verdict.OK
