"""A terminal that hangs: no function of it ever comes back, as the real package may."""

import threading
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *_arguments, **_fields: threading.Event().wait()
