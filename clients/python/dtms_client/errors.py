"""Every error that the clients raise, with its facts.

::

    DtmsError                  a request that was not decided
    ├── InvalidArgument        FIELD_INVALID: `violations` names each field; fix the call
    ├── Unauthenticated        CREDENTIAL_MISSING: stop
    ├── PermissionDenied       ROLE_FORBIDDEN: stop
    ├── NotFound               TRADE_UNKNOWN, ACCOUNT_UNKNOWN, SYMBOL_UNKNOWN: list again
    ├── AlreadyExists          TRADE_DIFFERS, REQUEST_ID_REUSED: stop
    ├── Aborted
    │   └── StaleEpoch         STALE_EPOCH: read the trade again and decide anew
    ├── FailedPrecondition     TRADE_CLOSED, NOT_LEADER, MODE_UNSUPPORTED
    ├── OutOfRange             FUTURE_REVISION
    │   └── Compacted          COMPACTED: list again; `oldest_revision` is what is left
    ├── ResourceExhausted      LIMIT_REACHED, RATE_EXCEEDED: back off for `retry_after_s`
    ├── Unavailable            RECOVERING, DRAINING, BROKER_DISCONNECTED, or nobody there: repeat, same request_id
    ├── DeadlineExceeded       the outcome is unknown: repeat, same request_id
    ├── Internal               CORE_PANIC: the service is restarting
    ├── Cancelled              this client was closed under the call, or the peer gave the call up
    └── Unexpected             any other status, or an answer that breaks the protocol

A denial ("no, because ...") is data in a response and never raised. Texts may change; classes, reasons and metadata
keys may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

DOMAIN: Final = "dtms"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field of the request that breaks a rule; `field` is its path in the request."""

    field: str
    why: str


class DtmsError(Exception):
    """A request that was not decided.

    Attributes: `method` ("dtms.v1.Service/Method"), `reason` (stable code, empty where the service gave none),
    `message` (text for people), `metadata` (facts by name), `violations`, `retry_after_s` (None: not said).
    """

    def __init__(
        self,
        message: str,
        *,
        method: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        self.message = message
        self.method = method
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after_s = retry_after_s
        fields = "".join(f"; {violation.field}: {violation.why}" for violation in violations)
        super().__init__(f"{method or 'client'}: {reason or type(self).__name__}: {message}{fields}")


class InvalidArgument(DtmsError):
    """A field of the request is missing or wrong."""


class Unauthenticated(DtmsError):
    """No credential, or one that the service does not know."""


class PermissionDenied(DtmsError):
    """The credential's role may not do this."""


class NotFound(DtmsError):
    """No such trade, account or symbol."""


class AlreadyExists(DtmsError):
    """The ticket or the request_id was used before with another body."""


class Aborted(DtmsError):
    """Overtaken by another change."""


class StaleEpoch(Aborted):
    """The owner_epoch shown is not the trade's: nothing was done."""


class FailedPrecondition(DtmsError):
    """Not possible in the present state of the trade or the service."""


class OutOfRange(DtmsError):
    """A revision that the journal does not have."""


class Compacted(OutOfRange):
    """The journal no longer reaches back that far."""

    @property
    def oldest_revision(self) -> int:
        """Oldest revision that Watch can start from; 0 where the service did not say."""
        text = self.metadata.get("oldest_revision", "")
        return int(text) if text.isdecimal() else 0


class ResourceExhausted(DtmsError):
    """A limit or a rate was exceeded."""


class Unavailable(DtmsError):
    """Nobody answers, or the service says that it cannot at the moment."""


class DeadlineExceeded(DtmsError):
    """No answer in time: whether the request was done is unknown."""


class Internal(DtmsError):
    """The service failed and starts again by replay."""


class Cancelled(DtmsError):
    """The call was given up before its answer."""


class Unexpected(DtmsError):
    """A status or an answer that the protocol does not know."""


# A lost connection, a lost answer and a service in trouble look the same from here: it may be back in a moment.
OUTAGE: Final = (Unavailable, DeadlineExceeded, Internal, ResourceExhausted)
# A service that stops gives up the calls that it has: for whoever asked, that is an outage too.
LOST: Final = (*OUTAGE, Cancelled)

BY_STATUS: Final[Mapping[grpc.StatusCode, type[DtmsError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.CANCELLED: Cancelled,
}

# Only reasons that a client treats otherwise than the rest of their status.
BY_REASON: Final[Mapping[str, type[DtmsError]]] = {"STALE_EPOCH": StaleEpoch, "COMPACTED": Compacted}


def closed() -> Cancelled:
    """The error of every call on a closed client."""
    return Cancelled("this client is closed", method="", reason="CLIENT_CLOSED")


class _FailedCall(Protocol):
    """What gRPC raises, sync and async, without declaring it."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...


def from_rpc(error: grpc.RpcError, *, method: str) -> DtmsError:
    """The error behind a failed call.

    Details that cannot be read (a proxy in between, a foreign service) leave the status alone to speak.
    """
    call = cast("_FailedCall", error)
    reason = ""
    metadata: dict[str, str] = {}
    violations: tuple[Violation, ...] = ()
    retry_after_s: float | None = None
    try:
        status = rpc_status.from_call(call)
        for detail in status.details if status is not None else ():
            info = error_details_pb2.ErrorInfo()
            request = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                if info.domain == DOMAIN:
                    reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(request):
                violations = tuple(
                    Violation(field=each.field, why=each.description) for each in request.field_violations
                )
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except (ValueError, DecodeError) as unreadable:
        metadata = {"details_unreadable": str(unreadable)}
    code = call.code()
    kind = BY_REASON.get(reason) or BY_STATUS.get(code, Unexpected)
    return kind(
        call.details() or code.name,
        method=method,
        reason=reason,
        metadata=metadata,
        violations=violations,
        retry_after_s=retry_after_s,
    )
