"""A supervised gateway must not outlive the service that started it: two of them at one terminal would trade twice.

The service holds the other end of standard input and never writes to it. It ends with the service, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import Final

from dtms_service.gateway.process import Exit

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """Called once, early. The kernel helps where it can: a terminal's call may keep every thread from running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_wait_for_the_end, name="parent", daemon=True).start()


def _wait_for_the_end() -> None:
    # Not sys.stdin: its lock would be held while the interpreter shuts down in good order.
    while os.read(0, 1024):
        pass
    os._exit(Exit.ORPHANED)
