"""Which broker door serves which account."""

from __future__ import annotations

import asyncio

from dtms_service.broker.door import BrokerDoor
from dtms_service.errors import DtmsError, Reason, invalid


class Doors:
    """Accounts and the doors attached to them. An account is known from its first attachment on.

    A door is attached first and compared then: until its account's trades are compared with the broker, nobody but
    DTMS itself commands through it.
    """

    def __init__(self) -> None:
        self._doors: dict[str, BrokerDoor | None] = {}
        self._compared: set[str] = set()
        self._attached = asyncio.Event()

    def attach(self, account_id: str, door: BrokerDoor) -> None:
        if self._doors.get(account_id) is not None:
            raise invalid("account_id", f"{account_id} is served by another gateway already")
        self._doors[account_id] = door
        self._attached.set()
        self._attached = asyncio.Event()

    def detach(self, account_id: str, door: BrokerDoor) -> None:
        if self._doors.get(account_id) is door:
            self._doors[account_id] = None
            self._compared.discard(account_id)

    def know(self, account_id: str) -> None:
        """An account of the journal whose door is not there yet."""
        self._doors.setdefault(account_id, None)

    def compared(self, account_id: str, door: BrokerDoor) -> None:
        """The account's trades are what ``door`` shows; nothing where another one serves it by now."""
        if self._doors.get(account_id) is door:
            self._compared.add(account_id)

    @property
    def account_ids(self) -> list[str]:
        return sorted(self._doors)

    def serves(self, account_id: str, door: BrokerDoor) -> bool:
        """Whether the account is attached through this door."""
        return self._doors.get(account_id) is door

    def attached(self, account_id: str) -> bool:
        return self._doors.get(account_id) is not None

    def ready(self, account_id: str) -> bool:
        """Attached, and compared since."""
        return account_id in self._compared

    async def wait(self, account_id: str) -> None:
        """Until the account has a door."""
        while not self.attached(account_id):
            await self._attached.wait()

    def of(self, account_id: str) -> BrokerDoor:
        """Raises ACCOUNT_UNKNOWN, or BROKER_DISCONNECTED where the account's gateway is away."""
        door = self._doors.get(self.resolve(account_id))
        if door is None:
            raise DtmsError(
                Reason.BROKER_DISCONNECTED, f"no gateway serves {account_id} now", metadata={"account_id": account_id}
            )
        return door

    def resolve(self, account_id: str) -> str:
        """The account meant: an empty name means the only one. Raises ACCOUNT_UNKNOWN or FIELD_INVALID."""
        if account_id in self._doors:
            return account_id
        if account_id:
            raise DtmsError(
                Reason.ACCOUNT_UNKNOWN, f"no account {account_id}", metadata={"account_id": account_id[:100]}
            )
        if len(self._doors) != 1:
            raise invalid("account_id", f"required: the service has {len(self._doors)} accounts")
        return next(iter(self._doors))

    def to_command(self, account_id: str) -> str:
        """As :meth:`resolve`, for whoever wants to change something at the broker: BROKER_DISCONNECTED too while the
        account's gateway is away or its trades are not compared yet."""
        account_id = self.resolve(account_id)
        if not self.ready(account_id):
            why = "are being compared with its broker" if self.attached(account_id) else "wait for its gateway"
            raise DtmsError(
                Reason.BROKER_DISCONNECTED,
                f"the trades of {account_id} {why}",
                metadata={"account_id": account_id},
                retry_after_s=1.0,
            )
        return account_id
