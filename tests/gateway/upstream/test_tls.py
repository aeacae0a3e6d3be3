"""https servers: verified unless the settings say otherwise."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import UpstreamError
from tests.gateway.upstream.scripted import Bench, always, make_exchange


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of shop.internal, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.internal")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.internal")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "shop.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.mark.parametrize(
    ("tls", "trusted"),
    [
        ({}, False),
        ({"server_name": "shop.internal"}, False),
        ({"ca_file": True}, False),  # the address is not the name in the certificate
        ({"ca_file": True, "server_name": "evil.internal"}, False),
        ({"ca_file": True, "server_name": "shop.internal"}, True),
        ({"verify": False}, True),
    ],
)
async def test_certificates_are_verified(
    bench: Bench, certificate: Path, tls: dict[str, object], trusted: bool
) -> None:
    """Neither an unknown issuer nor another name is trusted; what is, is used again."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server, url = await bench.server(always(), tls=context)
    if "ca_file" in tls:
        tls = tls | {"ca_file": certificate}
    upstream = await bench.upstream(url, tls=tls)
    if trusted:
        for _ in range(2):
            assert (await upstream(make_exchange())).body == b"ok"
        assert server.connections == 1
    else:
        with pytest.raises(UpstreamError) as caught:
            await upstream(make_exchange("POST"))
        assert caught.value.status == 502
    assert upstream.servers()[0]["in_flight"] == 0
