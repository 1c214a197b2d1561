"""The broker server's clock against this machine's: what is left after whole quarters of an hour is an error."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from dtms_service.broker.mt5_inferences import OFFSET_LEAST_S, OFFSET_MOST_S, OFFSET_STEP_S, TICK_AGE_MOST_MS
from dtms_service.broker.server_time import ServerTime
from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, fail, ok, skipped, warn
from dtms_service.doctor.sights import TickSeen
from dtms_service.gateway.live import TIME_FILE

CHECK: Final = "clock.server"
LOOKED_AT: Final = "ticks that come against this machine's clock"
OFF_MOST_S: Final = 2.0  # a tick is on its way for less; beyond, timers and news blackouts are visibly late

SET_CLOCK: Final = "set this machine's clock: Windows: w32tm /resync (Settings, Time); Linux: timedatectl set-ntp true"


def judge(case: Case, ticks: Sequence[TickSeen], *, watched: bool) -> Finding:
    """``watched``: there was a symbol to see ticks of."""
    if not watched:
        return skipped(CHECK, LOOKED_AT, "no symbol that the broker has was named")
    known_s = case.offset_s if case.offset_s is not None else _stored(case)
    if not ticks:
        return _silent(known_s)
    ahead_s = median((tick.tick_msc - tick.now_msc) / 1000 for tick in ticks)
    offset_s = round(ahead_s / OFFSET_STEP_S) * OFFSET_STEP_S
    off_s = offset_s - ahead_s  # how much this machine is ahead of the truth
    words = f"the server is {_hours(offset_s)} ahead of UTC, this machine's clock {off_s:+.1f} s off"
    if abs(off_s) * 1000 > TICK_AGE_MOST_MS:
        why = "the gateway cannot tell the server's time: it waits for ticks that are less than a minute off"
        return fail(CHECK, LOOKED_AT, f"{words}; {why}", SET_CLOCK)
    if not OFFSET_LEAST_S <= offset_s <= OFFSET_MOST_S:
        return fail(CHECK, LOOKED_AT, f"{words}: no time zone has that", SET_CLOCK + "; its date and zone too")
    if known_s is not None and known_s != offset_s:
        if case.offset_s is not None:
            mend = f"give --server-utc-offset-s {offset_s}, or leave it out: the gateway finds it"
            return fail(CHECK, LOOKED_AT, f"{words}, but {known_s} s were given", mend)
        mend = "nothing after a change of daylight saving: the gateway takes the new one; else set this machine's clock"
        return warn(CHECK, LOOKED_AT, f"{words}, but {known_s} s are stored", mend)
    if abs(off_s) > OFF_MOST_S:
        return warn(CHECK, LOOKED_AT, words, SET_CLOCK)
    return ok(CHECK, LOOKED_AT, words)


def _silent(known_s: int | None) -> Finding:
    found = "no tick came while they were watched for: a closed market, or symbols outside of the Market Watch"
    if known_s is not None:
        return ok(CHECK, LOOKED_AT, f"{found}; the offset is known: {_hours(known_s)}")
    mend = (
        "look again when the market moves; a gateway that must start before gives the server's time minus UTC as "
        "--server-utc-offset-s"
    )
    return warn(CHECK, LOOKED_AT, f"{found}; the server's time offset is not known", mend)


def _stored(case: Case) -> int | None:
    if case.out is None:
        return None
    try:
        return ServerTime(case.out / TIME_FILE).offset_s
    except (ValueError, OSError):
        return None  # the check of the gateway's folder says so


def _hours(offset_s: int) -> str:
    return f"{offset_s / 3600:+g} h"
