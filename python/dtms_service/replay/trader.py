"""The entry bot as a client of the service: it registers what it opened, and reads scores and trades."""

from __future__ import annotations

from dtms.v1 import registry_service_pb2, trade_pb2
from dtms_client import AsyncClient
from dtms_service.replay.driver import Registration, ScoreReading


class Trader:
    """Needs a credential with the role MANAGER. Every call raises :class:`dtms_client.DtmsError`."""

    def __init__(self, client: AsyncClient, account_id: str) -> None:
        self._client, self._account_id = client, account_id

    async def register(self, registration: Registration) -> None:
        buys = registration.side.name == "BUY"
        await self._client.register_trade(
            registry_service_pb2.Registration(
                account_id=registration.account_id,
                ticket=registration.ticket,
                symbol=registration.symbol,
                side=trade_pb2.SIDE_BUY if buys else trade_pb2.SIDE_SELL,
                entry_price=registration.entry_price,
                volume=registration.volume,
                sl=registration.sl,
                tp=registration.tp,
                strategy_type=registration.strategy_type,
                opened_ns=registration.opened_ns,
            )
        )

    async def score(self, symbol: str) -> ScoreReading:
        """The score for a BUY as of the last tick."""
        answer = await self._client.get_score(symbol, trade_pb2.SIDE_BUY, account_id=self._account_id)
        return ScoreReading(*(getattr(answer.score, name) for name in ScoreReading._fields))

    async def risk_distance(self, ticket: int) -> float | None:
        """R of a trade as a price distance; None while the service does not know it."""
        trade = await self._client.get_trade(ticket, account_id=self._account_id)
        return trade.risk_distance if trade.HasField("risk_distance") else None
