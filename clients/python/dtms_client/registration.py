"""Registrations by one registrar for the whole process, described by the environment.

| variable | what |
|---|---|
| `DTMS_ADDRESS` | host:port of the service; 127.0.0.1:50051 where it is not set |
| `DTMS_TOKEN_FILE`, or `DTMS_TOKEN` | the caller's token |
| `DTMS_ROOT_CERTIFICATES` | PEM file, needed off this machine |

The registrar is made at the first registration. For another address, a callback or an end of your choice make a
`Registrar` of your own.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Final

from dtms.v1.registry_service_pb2 import RegisterTradeResponse, Registration
from dtms_client.registrar import PendingRegistration, Registrar

logger = logging.getLogger(__name__)

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"


class _Default:
    """The one registrar of the process."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.registrar: Registrar | None = None

    def after_fork(self) -> None:
        """Whoever held the lock is not in the child; a registrar that is in use refuses there by itself."""
        self.guard = threading.Lock()


_default: Final = _Default()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_default.after_fork)


def default_registrar() -> Registrar:
    """The registrar of the process. Raises ValueError or OSError where the environment does not describe one."""
    with _default.guard:
        if _default.registrar is None:
            _default.registrar = _from_environment()
        return _default.registrar


def auto_register(registration: Registration) -> PendingRegistration:
    """Registers a trade from wherever you are and returns at once; never raises for what the service or the
    environment does: failures are logged, and in what it returns.

    For plain threads, and for synchronous code under a running loop.
    """
    try:
        registrar = default_registrar()
    except (ValueError, OSError) as error:
        logger.exception("trade not registered: ticket=%d", registration.ticket)
        pending = PendingRegistration(registration)
        pending.fail(error)
        return pending
    return registrar.auto_register(registration)


async def register_trade(registration: Registration) -> RegisterTradeResponse:
    """Registers a trade and waits until it is registered, or the failure is known: three tries, or a refusal.

    Cancelling the wait does not stop the delivery. (`AsyncClient.register_trade` is the bare call behind it.)
    """
    return await auto_register(registration)


def _from_environment() -> Registrar:
    certificates = os.environ.get("DTMS_ROOT_CERTIFICATES")
    try:
        return Registrar(
            os.environ.get("DTMS_ADDRESS", DEFAULT_ADDRESS),
            token=os.environ.get("DTMS_TOKEN"),
            token_file=os.environ.get("DTMS_TOKEN_FILE"),
            root_certificates=Path(certificates).read_bytes() if certificates else None,
        )
    except ValueError as error:
        raise ValueError(f"DTMS_ADDRESS, DTMS_TOKEN_FILE, DTMS_TOKEN, DTMS_ROOT_CERTIFICATES: {error}") from error
