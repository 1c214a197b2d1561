"""Any method of the protocol by the type of its request, over a plain channel: also what no client wraps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from dtms.v1 import (
    admin_service_pb2,
    arbitration_service_pb2,
    gateway_service_pb2,
    lockstep_service_pb2,
    market_data_service_pb2,
    paper_service_pb2,
    registry_service_pb2,
    trade_status_service_pb2,
)
from dtms_client.errors import from_rpc

Metadata = tuple[tuple[str, str], ...]

SERVICES: Final[tuple[ServiceDescriptor, ...]] = tuple(
    service
    for module in (
        admin_service_pb2,
        arbitration_service_pb2,
        gateway_service_pb2,
        lockstep_service_pb2,
        market_data_service_pb2,
        paper_service_pb2,
        registry_service_pb2,
        trade_status_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
METHODS: Final[tuple[MethodDescriptor, ...]] = tuple(method for service in SERVICES for method in service.methods)
_BY_REQUEST: Final = {method.input_type.full_name: method for method in METHODS}


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def request_class(method: MethodDescriptor) -> type[Message]:
    return message_factory.GetMessageClass(method.input_type)


def _codec(method: MethodDescriptor) -> dict[str, Any]:
    return {
        "request_serializer": request_class(method).SerializeToString,
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }


async def call(channel: grpc.aio.Channel, request: Message, *, metadata: Metadata, timeout_s: float | None) -> Any:
    """The answer of the unary method that takes this request."""
    method = _BY_REQUEST[request.DESCRIPTOR.full_name]
    try:
        return await channel.unary_unary(path_of(method), **_codec(method))(
            request, metadata=metadata, timeout=timeout_s
        )
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, method=path_of(method)) from error


def stream(channel: grpc.aio.Channel, request: Message, *, metadata: Metadata) -> grpc.aio.UnaryStreamCall[Any, Any]:
    """The server-streaming method that takes this request."""
    method = _BY_REQUEST[request.DESCRIPTOR.full_name]
    return channel.unary_stream(path_of(method), **_codec(method))(request, metadata=metadata)


async def exchange(channel: grpc.aio.Channel, requests: Sequence[Message], *, metadata: Metadata) -> list[Any]:
    """Sends requests one by one, each after the answer to the one before, and ends the stream."""
    method = _BY_REQUEST[requests[0].DESCRIPTOR.full_name]
    both_ways = channel.stream_stream(path_of(method), **_codec(method))(metadata=metadata)
    answers = []
    try:
        for request in requests:
            with suppress(asyncio.InvalidStateError):  # refused before it was written: what is read says why
                await both_ways.write(request)
            answer = await both_ways.read()
            if answer is grpc.aio.EOF:
                break
            answers.append(answer)
        await both_ways.done_writing()
        assert await both_ways.read() is grpc.aio.EOF
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, method=path_of(method)) from error
    except BaseException:
        both_ways.cancel()
        raise
    return answers
