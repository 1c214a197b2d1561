"""What ends a gateway whose terminal hangs for good.

The MetaTrader5 package holds the interpreter for as long as a call lasts and has no timeout (docs/mt5.md 0.1, 0.3): no
thread, deadline or signal handler of this process runs meanwhile. faulthandler's timer does, for it is a thread of C
that needs no interpreter. It ends the process; the service takes what was under way for UNKNOWN, and a supervisor
starts the gateway anew.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# A terminal that starts, logs in and answers its first call may take a minute (initialize's own timeout).
HANG_S: Final = 90.0


@contextmanager
def ended_after(seconds: float = HANG_S) -> Iterator[None]:
    """End the process, with a trace on stderr, unless the block ends within ``seconds``. Not to be nested."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
