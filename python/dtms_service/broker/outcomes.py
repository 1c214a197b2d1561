"""What a retcode makes of a command: the one table of every door, whoever stands behind it."""

from __future__ import annotations

from typing import Final

from dtms_service.broker.door import CommandKind, OutcomeStatus
from dtms_service.broker.retcodes import LastError, Retcode

STALE_TOKEN: Final = "STALE_TOKEN"  # noqa: S105 - the word of the refusal, not a secret
NO_ECHO: Final = "NO_ECHO"

# The layer or the terminal refused before anything was sent: that is evidence, not doubt.
UNSENT: Final = frozenset({LastError.INVALID_PARAMS, LastError.AUTO_TRADING_DISABLED})

_CONFIRMED: Final = frozenset({Retcode.DONE, Retcode.DONE_PARTIAL, Retcode.NO_CHANGES})
_UNKNOWN: Final = frozenset({Retcode.PLACED, Retcode.ERROR, Retcode.TIMEOUT})
_DOCUMENTED: Final = frozenset(Retcode)


def status_of(kind: CommandKind, retcode: int) -> OutcomeStatus:
    """A close of what is closed already is done; a retcode that nobody has documented proves nothing."""
    if retcode in _CONFIRMED or (retcode == Retcode.POSITION_CLOSED and kind is CommandKind.CLOSE):
        return OutcomeStatus.CONFIRMED
    doubtful = retcode in _UNKNOWN or retcode not in _DOCUMENTED
    return OutcomeStatus.UNKNOWN if doubtful else OutcomeStatus.REJECTED
