"""Joining a cluster: keys that survive a kill, requests made once, certificates that fit, renewal in time."""

from __future__ import annotations

import asyncio
import stat
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from cinderctl.core.diagnostics import CinderError
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.endpoint import Endpoint
from cinderctl.pki.certificates import describe, self_signed_ca
from cinderctl.pki.keys import new_private_key
from cinderctl.pki.requests import describe_request, key_matches
from cinderctl.wasmnode.config import NodeConfig
from cinderctl.wasmnode.identity import CLIENT_SIGNER, SERVING_SIGNER, Identity, IdentityError, KeyWorker
from cinderctl.wasmnode.keywork import answer
from tests.fakes.apiserver import FakeApiServer

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


@dataclass
class Authority:
    """A cluster's certificate authority that signs what it is asked to."""

    directory: Path
    days: int = 365
    key: bytes = field(default_factory=new_private_key)

    def __post_init__(self) -> None:
        self.now = datetime.now(UTC)
        self.cert = self_signed_ca(self.key, "ca", not_before=self.now - timedelta(hours=1), days=3650)
        self.path = self.directory / "ca.crt"
        self.path.write_bytes(self.cert)

    def sign(self, csr_pem: bytes, signer: str) -> bytes:
        csr = x509.load_pem_x509_csr(csr_pem)
        ca = x509.load_pem_x509_certificate(self.cert)
        usage = (
            x509.ExtendedKeyUsageOID.SERVER_AUTH if signer == SERVING_SIGNER else x509.ExtendedKeyUsageOID.CLIENT_AUTH
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(csr.subject)
            .issuer_name(ca.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(minutes=5))
            .not_valid_after(self.now + timedelta(days=self.days))
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        for extension in csr.extensions:
            builder = builder.add_extension(extension.value, critical=extension.critical)
        signing = load_pem_private_key(self.key, None)
        return builder.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


async def work(question: Mapping[str, Any]) -> dict[str, Any]:
    """The child's work, in this process."""
    try:
        return answer(question)
    except CinderError as error:
        raise IdentityError(str(error)) from error


@dataclass
class Join:
    api: FakeApiServer
    ca: Authority
    config: NodeConfig
    logged: list[str]

    def identity(self, **config: Any) -> Identity:
        return Identity(replace(self.config, **config), log=self.logged.append, work=work)


def join(config: NodeConfig, tmp_path: Path, body: Callable[[Join], Awaitable[None]], *, days: int = 365) -> None:
    async def inside() -> None:
        ca = Authority(tmp_path, days)
        async with FakeApiServer(sign=ca.sign).serving() as api:
            joined = replace(config, server=api.url, ca_file=str(ca.path), bootstrap_token="abcdef.0123456789abcdef")
            await body(Join(api, ca, joined, []))

    asyncio.run(inside())


def requests_of(api: FakeApiServer) -> list[dict[str, Any]]:
    return [obj for path, obj in api.objects.items() if path.startswith(REQUESTS)]


def test_the_client_certificate_is_asked_for_by_token_and_kept(config: NodeConfig, tmp_path: Path) -> None:
    async def body(lab: Join) -> None:
        certificate = await lab.identity().client()
        pem = certificate.path.read_bytes()
        assert stat.S_IMODE(certificate.path.stat().st_mode) == 0o600
        assert key_matches(pem, pem)
        info = describe(pem)
        assert (info.common_name, info.organizations) == ("system:node:node-wasi", ("system:nodes",))
        (request,) = requests_of(lab.api)
        assert request["spec"]["signerName"] == CLIENT_SIGNER
        assert set(request["spec"]["usages"]) == {"digital signature", "client auth"}
        # The next start uses what is there.
        await lab.identity(bootstrap_token="").client()
        assert len(requests_of(lab.api)) == 1
        assert not (lab.config.pki_dir / "client.pending.key").exists()

    join(config, tmp_path, body)


def test_the_serving_certificate_names_the_node_and_its_virtual_address(config: NodeConfig, tmp_path: Path) -> None:
    async def body(lab: Join) -> None:
        async with AsyncKube(Endpoint(lab.api.url)) as kube:
            certificate = await lab.identity().serving(kube)
        info = describe(certificate.path.read_bytes())
        assert (info.dns_names, info.ip_addresses) == (("node-wasi",), ("10.244.255.1",))
        (request,) = requests_of(lab.api)
        assert request["spec"]["signerName"] == SERVING_SIGNER
        assert set(request["spec"]["usages"]) == {"digital signature", "server auth"}

    join(config, tmp_path, body)


def test_an_agent_killed_while_it_waits_goes_on_with_the_same_key_and_request(
    config: NodeConfig, tmp_path: Path
) -> None:
    async def body(lab: Join) -> None:
        lab.api.approve = False
        first = asyncio.create_task(lab.identity().client())
        (request,) = await lab.api.until(lambda: requests_of(lab.api))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        key = (lab.config.pki_dir / "client.pending.key").read_bytes()
        second = asyncio.create_task(lab.identity().client())
        lab.api.approve_request(f"{REQUESTS}/{request['metadata']['name']}")
        certificate = await second
        assert len(requests_of(lab.api)) == 1
        assert key in certificate.path.read_bytes()

    join(config, tmp_path, body)


def test_a_denied_request_is_followed_by_one_with_a_new_key(config: NodeConfig, tmp_path: Path) -> None:
    async def body(lab: Join) -> None:
        lab.api.approve = False
        waiting = asyncio.create_task(lab.identity().serving(AsyncKube(Endpoint(lab.api.url))))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        identity = lab.identity()
        async with AsyncKube(Endpoint(lab.api.url)) as kube:
            asking = asyncio.create_task(identity.serving(kube))
            (request,) = await lab.api.until(lambda: requests_of(lab.api))
            path = f"{REQUESTS}/{request['metadata']['name']}"
            lab.api.change(path, lambda obj: obj.update(status={"conditions": [{"type": "Denied", "status": "True"}]}))
            await lab.api.until(lambda: any("denied" in line for line in lab.logged))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert not (lab.config.pki_dir / "serving.pending.key").exists()

    join(config, tmp_path, body)


@pytest.mark.parametrize("what", ["another cluster", "expired", "another node", "damaged"])
def test_a_certificate_that_does_not_fit_is_replaced(config: NodeConfig, tmp_path: Path, what: str) -> None:
    async def body(lab: Join) -> None:
        first = await lab.identity().client()
        changes: dict[str, Any] = {}
        match what:
            case "another cluster":
                lab.ca.key = new_private_key()
                lab.ca.__post_init__()
            case "expired":
                late = Identity(lab.config, log=lab.logged.append, work=work, now=lambda: first.not_after)
                lab.ca.days = 800
                await late.client()
                assert len(requests_of(lab.api)) == 2
                return
            case "another node":
                changes = {"node_name": "other"}
            case "damaged":
                first.path.write_bytes(b"no PEM")
        await lab.identity(**changes).client()
        assert len(requests_of(lab.api)) == 2

    join(config, tmp_path, body)


def test_without_certificate_and_token_the_error_says_what_to_do(config: NodeConfig, tmp_path: Path) -> None:
    async def body(lab: Join) -> None:
        with pytest.raises(IdentityError, match="no bootstrap token"):
            await lab.identity(bootstrap_token="").client()

    join(config, tmp_path, body)


def test_certificates_are_renewed_before_they_expire_with_a_key_of_their_own(
    config: NodeConfig, tmp_path: Path
) -> None:
    async def body(lab: Join) -> None:
        clock = [datetime.now(UTC).timestamp()]
        identity = Identity(lab.config, log=lab.logged.append, work=work, now=lambda: clock[0])
        client = await identity.client()
        old = client.path.read_bytes()
        clock[0] = client.not_before + 0.95 * (client.not_after - client.not_before)
        changed: list[str] = []
        lab.ca.days = 4000
        async with AsyncKube(Endpoint(lab.api.url)) as kube:
            task = asyncio.create_task(identity.renew_for_ever(kube, client, None, changed.append))
            await lab.api.until(lambda: changed == ["client"])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        new = client.path.read_bytes()
        assert not key_matches(new, old)
        assert key_matches(new, new)
        asked = {describe_request(b64decode(r["spec"]["request"])).public_key for r in requests_of(lab.api)}
        assert len(asked) == 2

    join(config, tmp_path, body)


def test_the_child_does_the_key_work_and_says_what_went_wrong(tmp_path: Path) -> None:
    async def inside() -> None:
        worker = KeyWorker()
        made = await worker({"op": "request", "keyFile": str(tmp_path / "k"), "commonName": "x"})
        assert "CERTIFICATE REQUEST" in made["csr"]
        assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
        with pytest.raises(IdentityError):
            await worker({"op": "inspect", "pemFile": str(tmp_path / "none")})
        await worker.close()

    asyncio.run(inside())
