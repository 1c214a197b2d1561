"""Client of the Defensive Trade Management System.

The names below are loaded when first used: a program may set gRPC's environment (GRPC_VERBOSITY) before that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dtms_client.aio import AsyncClient
    from dtms_client.aio_session import AsyncOwnershipSession
    from dtms_client.client import Client
    from dtms_client.errors import DtmsError
    from dtms_client.holdings import Lost
    from dtms_client.registrar import PendingRegistration, Registrar, RegistrationFailure
    from dtms_client.registration import auto_register, default_registrar, register_trade
    from dtms_client.requests import new_request_id
    from dtms_client.session import OwnershipSession
    from dtms_client.watch import Interrupted, Listed, Quotes, Relisted, WatchItem

__all__ = [
    "AsyncClient",
    "AsyncOwnershipSession",
    "Client",
    "DtmsError",
    "Interrupted",
    "Listed",
    "Lost",
    "OwnershipSession",
    "PendingRegistration",
    "Quotes",
    "Registrar",
    "RegistrationFailure",
    "Relisted",
    "WatchItem",
    "auto_register",
    "default_registrar",
    "new_request_id",
    "register_trade",
]

_HOMES: Final = {
    "AsyncClient": "dtms_client.aio",
    "AsyncOwnershipSession": "dtms_client.aio_session",
    "Client": "dtms_client.client",
    "DtmsError": "dtms_client.errors",
    "Interrupted": "dtms_client.watch",
    "Listed": "dtms_client.watch",
    "Lost": "dtms_client.holdings",
    "OwnershipSession": "dtms_client.session",
    "PendingRegistration": "dtms_client.registrar",
    "Quotes": "dtms_client.watch",
    "Registrar": "dtms_client.registrar",
    "RegistrationFailure": "dtms_client.registrar",
    "Relisted": "dtms_client.watch",
    "WatchItem": "dtms_client.watch",
    "auto_register": "dtms_client.registration",
    "default_registrar": "dtms_client.registration",
    "new_request_id": "dtms_client.requests",
    "register_trade": "dtms_client.registration",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
