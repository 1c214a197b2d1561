"""How the service is reached: address, credential, channel options, deadlines, pauses between attempts."""

from __future__ import annotations

import functools
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from dtms.v1 import (
    admin_service_pb2,
    arbitration_service_pb2,
    market_data_service_pb2,
    paper_service_pb2,
    registry_service_pb2,
    trade_status_service_pb2,
)

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Options: TypeAlias = tuple[tuple[str, str | int], ...]

OPTIONS: Final[Options] = (
    # A service that was paused or cut off is noticed within 40 s; the server allows a ping every 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # A watcher that falls behind must find it out: with the default window 4 MiB of old news wait in the transport.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65_535),
    # A restarted service is found again within seconds, not after gRPC's two minutes. The second value is also the
    # time that one attempt to connect gets.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

# HTTP header limits are 8 KiB in all; no token of ours is near.
TOKEN_MAX_CHARS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Target:
    """A checked address with what every call to it carries."""

    address: str
    root_certificates: bytes | None
    metadata: Metadata

    def options(self) -> Options:
        """Channel options: keepalive, retry policies, and no proxy between two ends of one machine."""
        local: Options = () if self.root_certificates is not None else (("grpc.enable_http_proxy", 0),)
        return (*OPTIONS, ("grpc.service_config", _packaged("service_config.json")), *local)

    def open(self) -> grpc.Channel:
        """A channel for threads."""
        if self.root_certificates is None:
            return grpc.insecure_channel(self.address, options=self.options())
        credentials = grpc.ssl_channel_credentials(root_certificates=self.root_certificates)
        return grpc.secure_channel(self.address, credentials, options=self.options())

    def open_aio(self) -> grpc.aio.Channel:
        """A channel that belongs to the running event loop."""
        if self.root_certificates is None:
            return grpc.aio.insecure_channel(self.address, options=self.options())
        credentials = grpc.ssl_channel_credentials(root_certificates=self.root_certificates)
        return grpc.aio.secure_channel(self.address, credentials, options=self.options())


def target(
    address: str, *, token: str | None, token_file: Path | str | None, root_certificates: bytes | None
) -> Target:
    """Checks where to and with what to connect.

    Raises ValueError for an address that is not `host:port` or `unix:path`, for one off this machine without TLS,
    and unless exactly one of token and token_file is given and holds a token; OSError when the file cannot be read.
    """
    host = _host(address)
    if root_certificates is None and not _is_loopback(host):
        raise ValueError(
            f"address: {address!r} is not on this machine: the token would travel in the clear; give root_certificates"
        )
    if (token is None) == (token_file is None):
        raise ValueError("token: give exactly one of token and token_file")
    secret = token if token is not None else Path(token_file or "").read_text(encoding="ascii").strip()
    if not 0 < len(secret) <= TOKEN_MAX_CHARS or not all("!" <= char <= "~" for char in secret):
        name = "token" if token is not None else f"token_file {token_file}"
        raise ValueError(f"{name}: expected 1 to {TOKEN_MAX_CHARS} printable ASCII characters without blanks")
    return Target(
        address=address, root_certificates=root_certificates, metadata=(("authorization", f"Bearer {secret}"),)
    )


def _host(address: str) -> str | None:
    """Host of `host:port` or `[v6]:port`; None for a socket in the file system."""
    if address.startswith(("unix:", "unix-abstract:")):
        return None
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536 or (":" in host and not bracketed):
        raise ValueError(f"address: {address!r} is not host:port, [v6]:port or unix:path")
    return host.removeprefix("[").removesuffix("]")


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _packaged(name: str) -> str:
    return resources.files("dtms_client").joinpath(name).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each unary call may take, by type of its request (each RPC has a request type of its own)."""

    methods: Mapping[str, str]
    seconds: Mapping[str, float]
    default_s: float

    def method(self, request: Message) -> str:
        """ "dtms.v1.Service/Method" that takes this request."""
        return self.methods[request.DESCRIPTOR.full_name]

    def of(self, request: Message) -> float:
        """Seconds for the call with this request."""
        return self.seconds.get(self.method(request), self.default_s)


@functools.cache
def deadlines() -> Deadlines:
    """The shared table timeouts.json."""
    files: tuple[FileDescriptor, ...] = (
        admin_service_pb2.DESCRIPTOR,
        arbitration_service_pb2.DESCRIPTOR,
        market_data_service_pb2.DESCRIPTOR,
        paper_service_pb2.DESCRIPTOR,
        registry_service_pb2.DESCRIPTOR,
        trade_status_service_pb2.DESCRIPTOR,
    )
    table = json.loads(_packaged("timeouts.json"))
    return Deadlines(
        methods={
            method.input_type.full_name: f"{service.full_name}/{method.name}"
            for file in files
            for service in file.services_by_name.values()
            for method in service.methods
        },
        seconds=table["methods"],
        default_s=table["default_s"],
    )


class Backoff:
    """Growing pauses between attempts: 0.1 s doubling to 5 s, from the start again after a success.

    The service restarts within a second or two; more than 5 s would be felt by the trades.
    """

    FIRST_S: Final = 0.1
    LONGEST_S: Final = 5.0

    def __init__(self) -> None:
        self._next_s = self.FIRST_S

    def reset(self) -> None:
        """After a success."""
        self._next_s = self.FIRST_S

    def pause_s(self, asked_s: float | None) -> float:
        """Seconds to wait now; `asked_s` is what the service asked for (RetryInfo), and is honoured."""
        pause = self._next_s
        self._next_s = min(2 * self._next_s, self.LONGEST_S)
        return pause if asked_s is None else max(pause, asked_s)
