"""Requests that take more than filling in fields; one place for the sync and the async client."""

from __future__ import annotations

import uuid

from dtms.v1.action_pb2 import DenialCode
from dtms.v1.arbitration_service_pb2 import ExplainRequest, ListDecisionsRequest
from dtms.v1.registry_service_pb2 import ListRegistrationsRequest
from dtms.v1.trade_status_service_pb2 import ListTradesRequest, WatchFilter

# The largest page that the service gives: fewest calls for a whole list.
PAGE_SIZE = 500


def new_request_id() -> str:
    """A fresh idempotency key. Keep it for repeats of the same proposal; a new proposal takes a new one."""
    return str(uuid.uuid4())


def explain_request(
    *, decision_id: int | None, request_id: str | None, revision: int | None, manager: str
) -> ExplainRequest:
    """Raises ValueError unless exactly one key is given."""
    match decision_id, request_id, revision:
        case int(), None, None:
            return ExplainRequest(decision_id=decision_id, manager=manager)
        case None, str(), None:
            return ExplainRequest(request_id=request_id, manager=manager)
        case None, None, int():
            return ExplainRequest(revision=revision, manager=manager)
        case _:
            raise ValueError("key: give exactly one of decision_id, request_id and revision")


def list_trades_request(
    *, watch_filter: WatchFilter | None, include_closed: bool, page_token: str
) -> ListTradesRequest:
    """One page of trades."""
    return ListTradesRequest(
        filter=watch_filter, include_closed=include_closed, page_size=PAGE_SIZE, page_token=page_token
    )


def list_registrations_request(*, account_id: str, include_closed: bool, page_token: str) -> ListRegistrationsRequest:
    """One page of registrations."""
    return ListRegistrationsRequest(
        account_id=account_id, include_closed=include_closed, page_size=PAGE_SIZE, page_token=page_token
    )


def list_decisions_request(
    *,
    account_id: str,
    ticket: int,
    manager: str,
    denied_only: bool,
    denial: DenialCode.ValueType,
    page_token: str,
) -> ListDecisionsRequest:
    """One page of decisions."""
    return ListDecisionsRequest(
        account_id=account_id,
        ticket=ticket,
        manager=manager,
        denied_only=denied_only,
        denial=denial,
        page_size=PAGE_SIZE,
        page_token=page_token,
    )
