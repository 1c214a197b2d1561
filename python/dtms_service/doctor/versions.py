"""Versions that must go together on this machine: Python, the distributions, the extension, the protocol's stubs."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, fail, ok

SERVICE, CLIENT = "dtms-service", "dtms-client"
AGAIN = "make setup (from a clone), or install dtms-service anew into one environment; it brings what belongs to it"


def examine(_case: Case) -> Iterator[Finding]:
    yield _python()
    yield _distributions()
    yield _stubs()


def _python() -> Finding:
    check, at = "versions.python", sys.executable
    bits = 8 * struct.calcsize("P")
    words = f"Python {sys.version.partition(' ')[0]}, {bits} bit, {sys.platform}"
    if sys.platform == "win32" and bits != 64:
        return fail(check, at, words, "install a 64-bit Python: MetaTrader5 has no other")
    return ok(check, at, words)


def _distributions() -> Finding:
    check, at = "versions.packages", f"{SERVICE}, {CLIENT}"
    try:
        ours, clients = version(SERVICE), version(CLIENT)
    except PackageNotFoundError as error:
        return fail(check, at, f"{error.name} is not installed", AGAIN)
    if ours != clients:
        return fail(check, at, f"{SERVICE} {ours} with {CLIENT} {clients}", AGAIN)
    return ok(check, at, f"both {ours}")


def _stubs() -> Finding:
    """Importing is the test: stubs refuse older runtimes of protobuf and grpc themselves."""
    check, at = "versions.protocol", "protobuf, grpcio, the extension and the protocol's enumerations"
    try:
        from dtms_service._core import enums  # noqa: PLC0415  the imports are what is examined
        from dtms_service.doctor.protocol import mismatch  # noqa: PLC0415

        found = mismatch(enums())
        words = f"protobuf {version('protobuf')}, grpcio {version('grpcio')}"
    except Exception as error:  # noqa: BLE001  protobuf and grpc raise kinds of their own for versions that differ
        return fail(check, at, _one_line(error), AGAIN)
    if found:
        return fail(check, at, f"the extension is of another version than the protocol: {found}", AGAIN)
    return ok(check, at, words)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
