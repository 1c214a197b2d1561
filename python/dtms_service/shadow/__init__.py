"""Shadow mode: DTMS decides and records as ever, and its commands are carried out on a book of its own.

The real account is only read. ``ShadowDoor`` stands before its door, ``ShadowBook`` is the account as it would be,
``ShadowStore`` keeps it and the record of the real account on disk (docs/adr/0017).
"""

from dtms_service.shadow.book import ShadowBook
from dtms_service.shadow.door import ShadowDoor, Shadows
from dtms_service.shadow.record import ChangeKind, RealChange, RealPosition
from dtms_service.shadow.store import SHADOW_FOLDER, ShadowStore, books_in

__all__ = [
    "SHADOW_FOLDER",
    "ChangeKind",
    "RealChange",
    "RealPosition",
    "ShadowBook",
    "ShadowDoor",
    "ShadowStore",
    "Shadows",
    "books_in",
]
