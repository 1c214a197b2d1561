"""Domain errors -> gRPC status with details: one table (guarantees.md), proven complete by a test."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from dtms_service.errors import DtmsError, Reason

DOMAIN = "dtms"
MAX_DETAIL_CHARS = 1000  # trailers above 8 KiB are rejected at random, and the code is lost with them

CODE_OF: dict[Reason, grpc.StatusCode] = {
    Reason.FIELD_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.CREDENTIAL_MISSING: grpc.StatusCode.UNAUTHENTICATED,
    Reason.ROLE_FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Reason.TRADE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.ACCOUNT_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.SYMBOL_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.TRADE_DIFFERS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.STALE_EPOCH: grpc.StatusCode.ABORTED,
    Reason.TRADE_CLOSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NOT_LEADER: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.COMPACTED: grpc.StatusCode.OUT_OF_RANGE,
    Reason.FUTURE_REVISION: grpc.StatusCode.OUT_OF_RANGE,
    Reason.LIMIT_REACHED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.RATE_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.RECOVERING: grpc.StatusCode.UNAVAILABLE,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.BROKER_DISCONNECTED: grpc.StatusCode.UNAVAILABLE,
    Reason.CORE_PANIC: grpc.StatusCode.INTERNAL,
    Reason.MODE_UNSUPPORTED: grpc.StatusCode.FAILED_PRECONDITION,
}


def to_status(error: DtmsError) -> grpc.Status:
    """The status with ErrorInfo, and BadRequest or RetryInfo where they apply."""
    details: list[any_pb2.Any] = []

    def pack(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> None:
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)

    metadata = {key: value[:MAX_DETAIL_CHARS] for key, value in error.metadata.items()}
    pack(error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata))
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.why[:MAX_DETAIL_CHARS])
            for v in error.violations
        ]
        pack(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        pack(error_details_pb2.RetryInfo(retry_delay=delay))
    code = CODE_OF[error.reason]
    status = status_pb2.Status(
        code=code_pb2.Code.Value(code.name), message=error.message[:MAX_DETAIL_CHARS], details=details
    )
    answer: grpc.Status = rpc_status.to_status(status)
    return answer
