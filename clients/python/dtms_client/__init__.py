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
    "Quotes",
    "Relisted",
    "WatchItem",
    "new_request_id",
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
    "Quotes": "dtms_client.watch",
    "Relisted": "dtms_client.watch",
    "WatchItem": "dtms_client.watch",
    "new_request_id": "dtms_client.requests",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
