"""The address of the service: who listens there, and may it be reached in the clear?"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from dtms_service.doctor.case import Case
from dtms_service.doctor.finding import Finding, fail, ok, skipped
from dtms_service.journal.lock import holder

PORT_CHECK: Final = "port"
TLS_CHECK: Final = "tls"
TIMEOUT_S: Final = 3.0


def examine(case: Case) -> Iterator[Finding]:
    if case.address is None:
        why = "no --service was given, and no configuration is known"
        yield skipped(PORT_CHECK, "host:port", why)
        yield skipped(TLS_CHECK, "host:port", why)
        return
    try:
        host, port = _split(case.address)
    except ValueError:
        yield fail(PORT_CHECK, case.address, "is not host:port", "write 127.0.0.1:50051, or [::1]:50051")
        yield skipped(TLS_CHECK, case.address, "not reached: port")
        return
    yield _port(case, host, port)
    yield _tls(case, host, port)


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(address)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _port(case: Case, host: str, port: int) -> Finding:
    at = case.address or ""
    pid = holder(case.directory) if case.directory is not None and case.directory.is_dir() else None
    if not port:
        return skipped(PORT_CHECK, at, "port 0 takes a free one at the start; give --service with the one it said")
    try:
        with socket.create_connection((host, port), TIMEOUT_S):
            case.listening = True
    except socket.gaierror as error:
        return fail(PORT_CHECK, at, f"no such host: {error.strerror}", "correct the host's name, or its DNS entry")
    except ConnectionRefusedError:
        return _nobody_listens(case, at, pid)
    except OSError as error:  # a firewall drops what it does not like: TimeoutError
        why = error.strerror or str(error)
        mend = "open the port in the firewalls between here and there; see that the service listens on that address"
        return fail(PORT_CHECK, at, f"cannot be reached: {why}", mend)
    if case.service is None and case.directory is not None and pid is None:
        mend = "stop what listens there, or give the service another port (--port, server.port)"
        return fail(
            PORT_CHECK, at, "is busy, and nobody holds the data directory: another program, or another service", mend
        )
    return ok(PORT_CHECK, at, "somebody listens")


def _nobody_listens(case: Case, at: str, pid: int | None) -> Finding:
    if pid is not None:
        mend = "look at its log: it may still start, or listen elsewhere (--service with that address); else end it"
        found = f"nobody listens, but process {pid or 'unknown'} holds the data directory"
        return fail(PORT_CHECK, at, found, mend)
    if case.service is not None:
        mend = "start the service (dtms serve), or correct the address; its log says `listening` with it"
        return fail(PORT_CHECK, at, "nobody listens", mend)
    return ok(PORT_CHECK, at, "free: a service can start")


def _tls(case: Case, host: str, port: int) -> Finding:
    at = case.address or ""
    server = case.config.server if case.config is not None else None
    if server is not None and server.tls_certificate is not None and server.tls_key is not None:
        wrong = _pair(server.tls_certificate, server.tls_key)
        if wrong is not None:
            return wrong
    if case.root_certificates is None:
        if _is_loopback(host):
            return ok(TLS_CHECK, at, "this machine only: no TLS is needed")
        mend = "give --root-certificates with the PEM file that vouches for the service; docs/operations.md, TLS"
        return fail(TLS_CHECK, at, "is not on this machine: without TLS the token would travel in the clear", mend)
    if not case.listening:
        return skipped(TLS_CHECK, at, "nobody listens")
    return _handshake(case.root_certificates, host, port, at)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pair(certificate: Path, key: Path) -> Finding | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        mend = "give server.tls_certificate and server.tls_key a PEM chain and its own key, readable for the service"
        return fail(TLS_CHECK, f"{certificate}, {key}", str(error), mend)
    return None


def _handshake(roots: Path, host: str, port: int, at: str) -> Finding:
    try:
        context = ssl.create_default_context(cafile=str(roots))
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, port), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            return ok(TLS_CHECK, at, f"{secure.version()}, and the certificate is vouched for")
    except ssl.SSLCertVerificationError as error:
        mend = (
            "renew the service's certificate with this host's name in it, or give the roots that vouch for it; docs/"
            "operations.md, TLS"
        )
        return fail(TLS_CHECK, at, error.verify_message, mend)
    except (OSError, ssl.SSLError) as error:
        mend = "start the service with server.tls_certificate and server.tls_key, or leave --root-certificates out"
        return fail(TLS_CHECK, at, f"no TLS: {error}", mend)
