"""Which trades a session holds, and until when. Does no I/O and reads no clock: sessions pass the time in.

A lease is counted from the moment its last successful renewal was *sent*: the service counts from a later one, so here
it ends first. Who was paused or cut off for that long holds nothing, before anybody else can be granted the trade.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dtms.v1.arbitration_service_pb2 import Grant, RenewOwnershipRequest, RenewOwnershipResponse
from dtms.v1.ownership_pb2 import Ownership
from dtms.v1.trade_pb2 import Trade
from dtms_client._channel import Backoff, deadlines
from dtms_client.errors import DtmsError, Unavailable, Unexpected

METHOD: Final = "dtms.v1.ArbitrationService/RenewOwnership"
BATCH: Final = 500
"""The service takes at most so many grants, or tickets, in one call."""
RENEWALS: Final = 3
"""Renewed so often in a lease: two calls may be lost before a trade is."""
# Two clocks steered apart as fast as NTP may steer them (500 ppm each) differ by a thousandth.
_DRIFT: Final = 1e-3
# A call over loopback takes a millisecond; one that may take less would fail for no reason.
_LEAST_TIMEOUT_S: Final = 0.05

Owned: TypeAlias = Ownership | Trade | Grant
"""Whatever names a trade and the token under which it is owned."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A trade that the session held, did not give back, and holds no more.

    `trade` is how it is now (`managed_by`, `owner_epoch`); None where the service does not say or does not know it.
    `error` is what kept it from being renewed, LEASE_ENDED where this process was paused; None where the service
    answered that it is lost.
    """

    grant: Grant
    trade: Trade | None
    error: DtmsError | None

    @property
    def facts(self) -> dict[str, object]:
        """For a line of log."""
        return {
            "account": self.grant.account_id,
            "ticket": self.grant.ticket,
            "owner_epoch": self.grant.owner_epoch,
            "managed_by": None if self.trade is None else self.trade.managed_by,
            "error": None if self.error is None else str(self.error),
        }


@dataclass(frozen=True, slots=True)
class _Held:
    grant: Grant
    renew_s: float
    end_s: float


class Holdings:
    """Grants by ticket and account, with the moments when they are renewed and when they end."""

    def __init__(self) -> None:
        self._held: defaultdict[int, dict[str, _Held]] = defaultdict(dict)
        self._backoff = Backoff()
        self._retry_s = 0.0
        self._failure: DtmsError | None = None

    def put(self, ownership: Ownership, *, sent_s: float) -> Grant:
        """Holds what was granted or renewed by a call that was sent at `sent_s`.

        Raises Unexpected for a grant without a lease. An older token, or an answer overtaken by a later one, changes
        nothing.
        """
        grant = _grant(ownership)
        if not ownership.HasField("lease_remaining_ms"):
            raise Unexpected(f"trade {grant.ticket} was granted without a lease", method="", reason="NO_LEASE")
        lease_s = ownership.lease_remaining_ms / 1e3 * (1 - _DRIFT)
        held = _Held(grant=grant, renew_s=sent_s + lease_s / RENEWALS, end_s=sent_s + lease_s)
        known = self._held[grant.ticket].get(grant.account_id)
        if known is None or (held.grant.owner_epoch, held.end_s) > (known.grant.owner_epoch, known.end_s):
            self._held[grant.ticket][grant.account_id] = held
        return grant

    def drop(self, grant: Grant) -> bool:
        """No longer holds this grant; False when another one, or none, was held."""
        held = self._held.get(grant.ticket, {}).get(grant.account_id)
        if held is None or held.grant != grant:
            return False
        del self._held[grant.ticket][grant.account_id]
        if not self._held[grant.ticket]:
            del self._held[grant.ticket]
        return True

    def grant(self, ticket: int, account_id: str, *, now_s: float) -> Grant | None:
        """The grant of a trade as long as its lease lasts. Raises ValueError where only an account tells which."""
        accounts = self._held.get(ticket, {})
        if not account_id and len(accounts) > 1:
            raise ValueError(f"account_id: {', '.join(sorted(accounts))} all have a ticket {ticket}")
        held = accounts.get(account_id) if account_id else next(iter(accounts.values()), None)
        return None if held is None or held.end_s <= now_s else held.grant

    def grants(self, *, now_s: float) -> tuple[Grant, ...]:
        """All grants whose lease lasts."""
        return tuple(held.grant for held in self._all() if held.end_s > now_s)

    def expire(self, *, now_s: float) -> list[Lost]:
        """No longer holds what could not be renewed in time."""
        over = [held.grant for held in self._all() if held.end_s <= now_s]
        error = self._failure or Unavailable("not renewed in time", method=METHOD, reason="LEASE_ENDED")
        return [Lost(grant, None, error) for grant in over if self.drop(grant)]

    # ---- keeping alive

    def wake_s(self) -> float | None:
        """When something is to be done next; None while nothing is held."""
        return min((min(max(held.renew_s, self._retry_s), held.end_s) for held in self._all()), default=None)

    def due(self, *, now_s: float) -> list[Sequence[Grant]]:
        """What to renew now, each list in one call: all that is held as soon as one is due, by account."""
        if self._retry_s > now_s or all(held.renew_s > now_s for held in self._all()):
            return []
        accounts: defaultdict[str, list[Grant]] = defaultdict(list)
        for held in self._all():
            accounts[held.grant.account_id].append(held.grant)
        return [batch for grants in accounts.values() for batch in batches(grants)]

    def timeout_s(self, grants: Iterable[Grant], *, now_s: float) -> float:
        """How long the call that renews these may take: once the first of them has ended it is too late."""
        ends = (self._held[grant.ticket][grant.account_id].end_s for grant in grants if self._has(grant))
        left_s = min(ends, default=now_s) - now_s
        return min(max(left_s, _LEAST_TIMEOUT_S), deadlines().of(RenewOwnershipRequest()))

    def renewed(self, grants: Iterable[Grant], response: RenewOwnershipResponse, *, sent_s: float) -> list[Grant]:
        """Takes the answer to a renewal of these; returns those that are lost by it."""
        self._backoff.reset()
        self._failure = None
        for ownership in response.renewed:
            if self._has(_grant(ownership)):
                self.put(ownership, sent_s=sent_s)
        kept = {(each.account_id, each.ticket, each.owner_epoch) for each in response.renewed}
        return [
            grant
            for grant in grants
            if (grant.account_id, grant.ticket, grant.owner_epoch) not in kept and self.drop(grant)
        ]

    def failed(self, error: DtmsError, *, now_s: float) -> None:
        """The service did not answer: tries again after a pause, until the leases end."""
        self._failure = error
        self._retry_s = now_s + self._backoff.pause_s(error.retry_after_s)

    def refused(self, grants: Iterable[Grant], error: DtmsError) -> list[Lost]:
        """The service does not renew these, and no repeat will change that."""
        return [Lost(grant, None, error) for grant in grants if self.drop(grant)]

    def _has(self, grant: Grant) -> bool:
        held = self._held.get(grant.ticket, {}).get(grant.account_id)
        return held is not None and held.grant == grant

    def _all(self) -> Iterator[_Held]:
        return (held for accounts in self._held.values() for held in accounts.values())


def batches(grants: Sequence[Grant]) -> list[Sequence[Grant]]:
    """Pieces that fit a call."""
    return [grants[start : start + BATCH] for start in range(0, len(grants), BATCH)]


def as_grants(owned: Iterable[Owned]) -> list[Grant]:
    """The grants that these name."""
    return [_grant(each) for each in owned]


def _grant(owned: Owned) -> Grant:
    return Grant(account_id=owned.account_id, ticket=owned.ticket, owner_epoch=owned.owner_epoch)
