"""A registry, a client that does not wait, and modules of a few bytes."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cinderctl.oci.auth import Credentials
from cinderctl.oci.client import RegistryClient
from cinderctl.oci.hosts import Hosts
from cinderctl.oci.transport import Options
from tests.fakes.registry import FakeRegistry

MODULE = (
    b"\0asm\x01\0\0\0"
    b"\x01\x04\x01\x60\0\0"  # type: () -> ()
    b"\x02\x0b\x01\x03env\x03log\0\0"  # import env.log
    b"\x03\x02\x01\0"  # function 1
    b"\x07\x0a\x01\x06_start\0\x01"  # export _start
    b"\x0a\x04\x01\x02\0\x0b"  # its code
)
COMPONENT = (
    b"\0asm\x0d\0\x01\0"
    b"\x07\x03\x01\x42\0"  # type: an empty instance
    b"\x0a\x1f\x01\0\x1awasi:cli/environment@0.2.0\x05\0"  # import it
    b"\x07\x05\x01\x40\0\x01\0"  # type: a function
    b"\x0a\x06\x01\0\x01f\x01\x01"  # import f
    b"\x0b\x09\x01\0\x03run\x01\0\0"  # export it as run
)
ClientFactory = Callable[..., RegistryClient]


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def pauses() -> list[float]:
    """What the client waited for, in seconds, had it waited."""
    return []


@pytest.fixture
def client_for(pauses: list[float]) -> Iterator[ClientFactory]:
    """Makes clients whose waiting takes no time."""
    made: list[RegistryClient] = []

    def make(
        hosts: Hosts | Callable[[], Hosts] | None = None, credentials: Credentials | None = None, **options: object
    ) -> RegistryClient:
        chosen = Options(sleep=pauses.append, uniform=random.Random(7).uniform, **{"read_timeout": 5.0, **options})  # type: ignore[arg-type]
        made.append(RegistryClient(hosts, credentials, chosen))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(client_for: ClientFactory) -> RegistryClient:
    return client_for()


@pytest.fixture
def left_behind(tmp_path: Path) -> Callable[[], list[str]]:
    """Names of all files below the test's directory."""
    return lambda: sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1 (its own authority) and a server context that uses it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.pem").write_bytes(cert.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return folder / "ca.pem", context
