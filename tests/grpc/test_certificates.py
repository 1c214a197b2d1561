"""TLS certificates: what a handshake shows, and that another pair is shown without a restart."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import grpc.aio
import pytest

from dtms_service.certificates import Certificates
from dtms_service.config import Config, load
from dtms_service.errors import ConfigInvalid


def made(folder: Path, name: str) -> Config:
    """The configuration of a server that shows a certificate of its own."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    how = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run((*how, "-subj", f"/CN={name}", "-days", "2", *files), check=True, capture_output=True)
    environ = {"DTMS_SERVER__TLS_CERTIFICATE": str(certificate), "DTMS_SERVER__TLS_KEY": str(key)}
    return load(None, {"DTMS_DATA_DIR": str(folder), **environ})


def shown(port: int) -> bytes:
    """The certificate that a server shows now (blocking)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True) or b""


def der(config: Config) -> bytes:
    assert config.server.tls_certificate is not None
    return ssl.PEM_cert_to_DER_cert(config.server.tls_certificate.read_text())


async def test_the_next_handshake_shows_the_certificate_that_was_taken(tmp_path: Path) -> None:
    """The port stays open; connections that come afterwards see the other pair."""
    before, after = made(tmp_path, "before"), made(tmp_path, "after")
    certificates, other = Certificates.of(before), Certificates.of(after)
    assert certificates is not None
    assert other is not None
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", certificates.for_each_handshake())
    await server.start()
    try:
        loop = asyncio.get_running_loop()
        for _ in range(2):
            assert await loop.run_in_executor(None, shown, port) == der(before)
        certificates.take(other)
        for _ in range(2):
            assert await loop.run_in_executor(None, shown, port) == der(after)
    finally:
        await server.stop(None)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    """The refusal names the key of the configuration."""
    mixed = made(tmp_path, "mixed")
    other = made(tmp_path, "other")
    server = mixed.server.model_copy(update={"tls_key": other.server.tls_key})
    with pytest.raises(ConfigInvalid) as caught:
        Certificates.of(mixed.model_copy(update={"server": server}))
    assert [violation.field for violation in caught.value.violations] == ["server.tls_certificate"]
