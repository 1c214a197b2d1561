"""What the MetaTrader 5 adapter takes for true without documentation or a terminal to try it on: [inf] in docs/mt5.md.

Every such belief of the adapter stands here and nowhere else, so that it can be corrected in one place (those of the
paper broker stand in paper_rules). docs/mt5.md section 7 says how each is checked on a live terminal.
"""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Final

from dtms_service.broker.door import CloseReason
from dtms_service.broker.mt5_enums import DealReason, Filling

# Server time is UTC plus a whole number of quarters of an hour, between the easternmost and westernmost zones on Earth.
OFFSET_STEP_S: Final = 900
OFFSET_LEAST_S: Final = -12 * 3600
OFFSET_MOST_S: Final = 14 * 3600
# A tick that has just arrived is at most this much older than now, the error of this machine's clock included.
TICK_AGE_MOST_MS: Final = 60_000

# What account_info shows where nobody is logged in, if it answers at all.
NO_LOGIN: Final = 0

# Below it a stop is on the wrong side even where the broker sets no stops level, points.
LEAST_STOP_DISTANCE: Final = 1

# A market order that the server has accepted (PLACED) is filled or gone after this long; until then the positions do
# not show what it will do to them.
PLACED_SETTLES_MS: Final = 10_000

# Fill mode of a market order on Market execution whose mask names neither IOC nor FOK.
FILLING_WITHOUT_MASK: Final = Filling.FOK

# Deals by a hand (desktop, phone, web) and by whatever a later terminal adds are somebody else's: CLIENT.
_REASONS: Final = {
    DealReason.EXPERT: CloseReason.EXPERT,
    DealReason.SL: CloseReason.STOP_LOSS,
    DealReason.TP: CloseReason.TAKE_PROFIT,
    DealReason.SO: CloseReason.STOP_OUT,
}


def close_reason(reason: int) -> CloseReason:
    """DEAL_REASON_* of a closing deal."""
    known = reason in set(DealReason)
    return _REASONS.get(DealReason(reason), CloseReason.CLIENT) if known else CloseReason.CLIENT


def judged_level(wanted_points: int, held_points: int) -> int:
    """The level to hold against stops level, 0 for none: one that stays where it is remains legal however near the
    price came."""
    return wanted_points if wanted_points != held_points else 0


def same_terminal(executable: str, shown_folder: str) -> bool:
    """Whether ``terminal_info().path`` is the folder of the executable that ``initialize`` was given."""
    return PureWindowsPath(executable).parent == PureWindowsPath(shown_folder)
