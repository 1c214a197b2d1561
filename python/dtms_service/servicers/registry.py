"""RegistryService: which trades exist and who owns them."""

from __future__ import annotations

from dataclasses import dataclass

from dtms.v1 import registry_service_pb2 as pb
from dtms.v1 import trade_pb2
from dtms_service import convert
from dtms_service.config import LimitsConfig
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.interceptors import Call
from dtms_service.servicers.paging import inside, keys_after, page_size_of, require, token_of


@dataclass(frozen=True, slots=True)
class RegistryServicer:
    desk: Desk
    doors: Doors
    limits: LimitsConfig

    async def RegisterTrade(self, request: pb.RegisterTradeRequest, call: Call) -> pb.RegisterTradeResponse:
        require("registration", request.HasField("registration"))
        with inside("registration"):
            require("symbol", request.registration.symbol)
            key = (self.doors.resolve(request.registration.account_id), request.registration.ticket)
            body = convert.to_dict(request.registration)
            created = await self.desk.register(key, body, convert.ORIGIN_CLIENT, call.principal.name)
        return pb.RegisterTradeResponse(trade=await self._durable(key), created=created)

    async def GetRegistration(self, request: pb.GetRegistrationRequest, _call: Call) -> pb.GetRegistrationResponse:
        key = (self.doors.resolve(request.account_id), request.ticket)
        trade = await self._durable(key)
        ownership = convert.ownership(self.desk.ownership(key))
        return pb.GetRegistrationResponse(registration=_registration(trade), ownership=ownership)

    async def ListRegistrations(
        self, request: pb.ListRegistrationsRequest, _call: Call
    ) -> pb.ListRegistrationsResponse:
        account_id = self.doors.resolve(request.account_id) if request.account_id else ""
        size = page_size_of(request.page_size, self.limits.max_page_size)
        wanted = frozenset(self.desk.keys(request.include_closed))
        following = keys_after(self.desk.keys(include_closed=True), request.page_token)
        keys = [key for key in following if key in wanted and (not account_id or key[0] == account_id)]
        registrations = [_registration(await self._durable(key)) for key in keys[:size]]
        token = token_of(keys[size - 1]) if len(keys) > size else ""
        return pb.ListRegistrationsResponse(registrations=registrations, next_page_token=token)

    async def UnregisterTrade(self, request: pb.UnregisterTradeRequest, call: Call) -> pb.UnregisterTradeResponse:
        key = (self.doors.resolve(request.account_id), request.ticket)
        return pb.UnregisterTradeResponse(revision=await self.desk.unregister(key, call.principal.name))

    async def GetOwnership(self, request: pb.GetOwnershipRequest, _call: Call) -> pb.GetOwnershipResponse:
        key = (self.doors.resolve(request.account_id), request.ticket)
        await self.desk.trade_bytes(key)
        return pb.GetOwnershipResponse(ownership=convert.ownership(self.desk.ownership(key)))

    async def _durable(self, key: tuple[str, int]) -> trade_pb2.Trade:
        return trade_pb2.Trade.FromString(await self.desk.trade_bytes(key))


def _registration(trade: trade_pb2.Trade) -> pb.Registration:
    registration = pb.Registration(
        account_id=trade.account_id,
        ticket=trade.ticket,
        symbol=trade.symbol,
        side=trade.side,
        entry_price=trade.entry_price,
        volume=trade.initial_volume,
        strategy_type=trade.strategy_type,
        opened_ns=trade.opened_ns,
    )
    if trade.HasField("initial_sl"):
        registration.sl = trade.initial_sl
    if trade.HasField("initial_tp"):
        registration.tp = trade.initial_tp
    return registration
