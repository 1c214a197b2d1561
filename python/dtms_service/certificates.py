"""The server's certificate and key: from their files, and again while the server runs."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Self

import grpc

from dtms_service.config import Config
from dtms_service.errors import ConfigInvalid, FieldViolation


class Certificates:
    """What the next handshake shows. Connections that are open stay as they are."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self._pair = key, certificate
        self._shown: tuple[bytes, bytes] | None = None

    @classmethod
    def of(cls, config: Config) -> Self | None:
        """As the configuration says; None without TLS. ConfigInvalid for files that cannot be read or do not fit."""
        certificate, key = config.server.tls_certificate, config.server.tls_key
        return None if certificate is None or key is None else cls(*_read(certificate, key))

    def is_as(self, other: Certificates) -> bool:
        return self._pair == other._pair

    def take(self, other: Certificates) -> None:
        self._pair = other._pair

    def for_each_handshake(self) -> grpc.ServerCredentials:
        """For a port of a server; gRPC asks for the pair from threads of its own."""
        self._shown = self._pair
        first = grpc.ssl_server_certificate_configuration([self._pair])
        # None is an answer there: the last one holds.
        return grpc.dynamic_ssl_server_credentials(first, self._now)  # type: ignore[arg-type]

    def _now(self) -> grpc.ServerCertificateConfiguration | None:
        """None says that the last one holds."""
        pair = self._pair
        if pair == self._shown:
            return None
        self._shown = pair
        return grpc.ssl_server_certificate_configuration([pair])


def _read(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    read: list[bytes] = []
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            read.append(path.read_bytes())
        except OSError as error:
            violation = FieldViolation(f"server.{name}", f"{path}: {error.strerror}")
            raise ConfigInvalid(str(path), [violation]) from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        violation = FieldViolation("server.tls_certificate", f"does not go with server.tls_key: {error}")
        raise ConfigInvalid(str(certificate), [violation]) from error
    return read[0], read[1]
