"""Python's garbage collector, told what kind of process this is."""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 2_000
"""Objects made, less those that ended, before the young are looked through (at 20,000 a look took 4 to 11 ms)."""
OLDER: Final = 5
"""Such looks before one at the older."""
ALL: Final = 100
"""And those before one at all."""


def spare_what_stays() -> None:
    """For a process that runs for long, once it has started.

    A full collection looks through all that lives, and every answer waits meanwhile (40 ms at 1,000 trades), though
    what stands after the start stays for good, and next to nothing that is made later is a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, ALL)
