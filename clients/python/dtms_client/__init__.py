"""Client of the Defensive Trade Management System."""

from dtms_client.aio import AsyncClient
from dtms_client.client import Client
from dtms_client.errors import DtmsError
from dtms_client.requests import new_request_id
from dtms_client.watch import Interrupted, Listed, Relisted, WatchItem

__all__ = [
    "AsyncClient",
    "Client",
    "DtmsError",
    "Interrupted",
    "Listed",
    "Relisted",
    "WatchItem",
    "new_request_id",
]
