"""ArbitrationService: ownership, proposals and their reasons. The manager is the caller's credential."""

from __future__ import annotations

from dataclasses import dataclass

from dtms.v1 import arbitration_service_pb2 as pb
from dtms_service import convert
from dtms_service.config import LimitsConfig
from dtms_service.credentials import Role
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError, Reason, invalid
from dtms_service.interceptors import Call
from dtms_service.servicers.explain import Explainer
from dtms_service.servicers.paging import MAX_BATCH, page_size_of, require

MAX_REQUEST_ID_CHARS = 64


@dataclass(frozen=True, slots=True)
class ArbitrationServicer:
    desk: Desk
    doors: Doors
    limits: LimitsConfig
    explainer: Explainer

    async def AcquireOwnership(self, request: pb.AcquireOwnershipRequest, call: Call) -> pb.AcquireOwnershipResponse:
        reply = await self.desk.acquire((self.doors.resolve(request.account_id), request.ticket), call.principal.name)
        return pb.AcquireOwnershipResponse(
            granted=reply["granted"],
            denial=reply["denial"],
            ownership=convert.ownership(reply["ownership"]),
            decision_id=reply["decision_id"],
        )

    async def RenewOwnership(self, request: pb.RenewOwnershipRequest, call: Call) -> pb.RenewOwnershipResponse:
        require("grants", request.grants)
        if len(request.grants) > MAX_BATCH:
            raise invalid("grants", f"at most {MAX_BATCH}")
        response = pb.RenewOwnershipResponse()
        for grant in request.grants:
            try:
                key = (self.doors.resolve(grant.account_id), grant.ticket)
                renewed = self.desk.renew(key, call.principal.name, grant.owner_epoch)
            except DtmsError as error:  # one lost grant must not cost the others: it is named in the answer
                if error.reason is Reason.FIELD_INVALID:
                    raise
                response.lost.append(grant)
            else:
                response.renewed.append(convert.ownership(renewed))
        return response

    async def ReleaseOwnership(self, request: pb.ReleaseOwnershipRequest, call: Call) -> pb.ReleaseOwnershipResponse:
        require("grant", request.HasField("grant"))
        key = (self.doors.resolve(request.grant.account_id), request.grant.ticket)
        ownership = await self.desk.release(key, call.principal.name, request.grant.owner_epoch)
        return pb.ReleaseOwnershipResponse(ownership=convert.ownership(ownership))

    async def Propose(self, request: pb.ProposeRequest, call: Call) -> pb.ProposeResponse:
        require("request_id", request.request_id)
        if len(request.request_id) > MAX_REQUEST_ID_CHARS:
            raise invalid("request_id", f"at most {MAX_REQUEST_ID_CHARS} characters")
        require("action.kind", request.action.kind)
        account_of = self.doors.resolve if request.dry_run else self.doors.to_command
        verdict = await self.desk.propose(
            call.principal.name,
            request.request_id,
            (account_of(request.account_id), request.ticket),
            request.owner_epoch,
            convert.to_dict(request.action),
            dry_run=request.dry_run,
        )
        return pb.ProposeResponse(
            decision=convert.decision(verdict.decision), outcome=convert.outcome_message(verdict.outcome)
        )

    async def SetMemo(self, request: pb.SetMemoRequest, call: Call) -> pb.SetMemoResponse:
        key = (self.doors.resolve(request.account_id), request.ticket)
        return pb.SetMemoResponse(revision=await self.desk.set_memo(key, call.principal.name, request.memo))

    async def Explain(self, request: pb.ExplainRequest, call: Call) -> pb.ExplainResponse:
        key = request.WhichOneof("key")
        if key is None:
            raise invalid("key", "required: decision_id, request_id or revision")
        require(key, getattr(request, key))
        may_ask = call.principal.role is not Role.MANAGER
        manager = request.manager if may_ask and request.manager else call.principal.name
        return await self.explainer.explain(key, getattr(request, key), manager)

    async def ListDecisions(self, request: pb.ListDecisionsRequest, _call: Call) -> pb.ListDecisionsResponse:
        account_id = self.doors.resolve(request.account_id) if request.account_id else ""
        size = page_size_of(request.page_size, self.limits.max_page_size)
        if request.page_token and not request.page_token.isdecimal():
            raise invalid("page_token", "was not given out by this service")
        # New decisions come in front: a page goes on below the last one shown, wherever that stands by now.
        matching = [
            decision
            for decision in self.desk.decisions()
            if (not request.page_token or decision["decision_id"] < int(request.page_token))
            and (not account_id or decision["account_id"] == account_id)
            and (not request.ticket or decision["ticket"] == request.ticket)
            and (not request.manager or decision["manager"] == request.manager)
            and (not request.denied_only or not decision["granted"])
            and (not request.denial or decision["denial"] == request.denial)
        ]
        token = str(matching[size - 1]["decision_id"]) if len(matching) > size else ""
        return pb.ListDecisionsResponse(decisions=map(convert.decision, matching[:size]), next_page_token=token)
