"""PaperService: orders by hand at the embedded paper broker."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dtms.v1 import gateway_service_pb2
from dtms.v1 import paper_service_pb2 as pb
from dtms_service import gateway_messages
from dtms_service.broker.door import Side
from dtms_service.doors import Doors
from dtms_service.errors import invalid
from dtms_service.interceptors import Call
from dtms_service.paper_account import PaperAccount
from dtms_service.servicers.market_data import paper_of
from dtms_service.servicers.paging import require


@dataclass(frozen=True, slots=True)
class PaperServicer:
    paper: PaperAccount | None
    doors: Doors

    async def OpenPosition(self, request: pb.OpenPositionRequest, _call: Call) -> pb.OpenPositionResponse:
        require("symbol", request.symbol)
        require("side", request.side)
        _require_positive("volume", request.volume)
        paper, side = self._account(request.account_id), Side(request.side)
        result = paper.by_hand(lambda hand: hand.open(request.symbol, side, request.volume, request.sl, request.tp))
        return pb.OpenPositionResponse(
            retcode=result.retcode, comment=result.comment, position=_position(paper, result.order)
        )

    async def ClosePosition(self, request: pb.ClosePositionRequest, _call: Call) -> pb.ClosePositionResponse:
        paper = self._account(request.account_id)
        if request.HasField("volume"):
            _require_positive("volume", request.volume)
        held = paper.position(request.ticket)
        if held is None:
            raise invalid("ticket", f"the paper broker has no position {request.ticket}")
        volume = request.volume if request.HasField("volume") else held.volume
        result = paper.by_hand(lambda hand: hand.close(request.ticket, volume))
        return pb.ClosePositionResponse(retcode=result.retcode, comment=result.comment)

    async def ModifyPosition(self, request: pb.ModifyPositionRequest, _call: Call) -> pb.ModifyPositionResponse:
        result = self._account(request.account_id).by_hand(
            lambda hand: hand.modify(request.ticket, request.sl, request.tp)
        )
        return pb.ModifyPositionResponse(retcode=result.retcode, comment=result.comment)

    async def ListPositions(self, request: pb.ListPositionsRequest, _call: Call) -> pb.ListPositionsResponse:
        held = self._account(request.account_id).broker.positions()
        return pb.ListPositionsResponse(positions=[gateway_messages.position_to_wire(p) for p in held])

    def _account(self, account_id: str) -> PaperAccount:
        """The embedded account. Raises MODE_UNSUPPORTED, or ACCOUNT_UNKNOWN for another account's name."""
        paper = paper_of(self.paper)
        self.doors.resolve(account_id)
        return paper


def _position(paper: PaperAccount, ticket: int) -> gateway_service_pb2.BrokerPosition | None:
    held = paper.position(ticket)
    return None if held is None else gateway_messages.position_to_wire(held)


def _require_positive(field: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise invalid(field, "must be a positive number")
