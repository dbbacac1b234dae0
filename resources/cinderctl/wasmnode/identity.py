"""Who the agent is to the cluster: a client certificate and a serving certificate, asked for, kept, renewed in time.

Below `<node>/pki`: `client.pem` and `serving.pem` hold certificate and key in one file, so that a change is one step;
`<name>.pending.key` is the key of a request under way, on disk before the API server hears of it, so that an agent that
is killed goes on with the same request. A key in use is never replaced before a certificate for its successor is there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError, TransientError
from cinderctl.host.files import ensure_dir, remove_file
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.endpoint import Endpoint
from cinderctl.kube.errors import AlreadyExistsError, KubeError, NotFoundError
from cinderctl.wasmnode.config import NodeConfig

__all__ = ["CLIENT_SIGNER", "SERVING_SIGNER", "Certificate", "Identity", "IdentityError", "KeyWorker", "request_name"]

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_POLL_FIRST, _POLL_MOST = 0.03, 2.0  # seconds between two looks at a request
_POLL_GROWTH = 1.1  # so that the answer is seen at most a tenth later than it came, as long as that is below the most
_IDLE = 5.0  # seconds without a question after which the child is let go

Keywork = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class IdentityError(CinderError):
    pass


@dataclass(frozen=True, slots=True)
class Certificate:
    """A usable one on disk. Times in Unix seconds."""

    path: Path
    not_before: float
    not_after: float

    def renew_at(self, jitter: float) -> float:
        """70 to 90 per cent into its life, as the kubelet; `jitter` is between 0 and 1."""
        return self.not_before + (self.not_after - self.not_before) * (0.7 + 0.2 * jitter)


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str  # client, serving
    signer: str
    usages: tuple[str, ...]
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()


class KeyWorker:
    """The `keywork` child: begun with the first question, ended when there was none for a while."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._end: asyncio.TimerHandle | None = None

    async def __call__(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Raises: IdentityError in the child's words."""
        async with self._turn:
            if self._end is not None:
                self._end.cancel()
            try:
                answer = await self._ask(question)
            except (OSError, ValueError) as error:
                await self.close()
                raise IdentityError("making a key or certificate request failed", detail=str(error)) from error
            self._end = asyncio.get_running_loop().call_later(_IDLE, self._hang_up)
        if "error" in answer:
            raise IdentityError(str(answer["error"]))
        return answer

    async def close(self) -> None:
        process = self._process
        self._hang_up()
        if process is not None:
            await process.wait()

    async def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cinderctl.wasmnode.keywork",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        if process.stdin is None or process.stdout is None:
            raise ValueError("the child has no pipes")
        process.stdin.write(json.dumps(question).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise ValueError(f"the child ended: {await process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _hang_up(self) -> None:
        """The child ends by itself when nobody asks any more."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def request_name(node: str, name: str, digest: str) -> str:
    """The CSR's name: the same for the same key, so that asking twice is asking once."""
    return f"{node}-{name}-{digest[:16]}"


class Identity:
    def __init__(
        self,
        config: NodeConfig,
        *,
        log: Callable[[str], None],
        work: Keywork | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._log = log
        self._work = work or KeyWorker()
        self._now = now
        self._jitter = random.random()  # noqa: S311 - spreads renewals, keeps no secret
        ensure_dir(config.pki_dir)
        usages = ("digital signature",)
        self._client = _Wanted("client", CLIENT_SIGNER, (*usages, "client auth"))
        self._serving = _Wanted(
            "serving", SERVING_SIGNER, (*usages, "server auth"), (config.node_name,), (config.node_ip,)
        )

    def endpoint(self) -> Endpoint:
        """The API server, with the client certificate."""
        path = str(self._file("client"))
        return Endpoint(self._config.server, ca_file=self._config.ca_file, cert_file=path, key_file=path)

    async def client(self) -> Certificate:
        """The client certificate, by the bootstrap token when there is none to be used. Waits for its approval.

        Raises: IdentityError when there is no way to get one.
        """
        found = await self._usable(self._client)
        if found is not None:
            return found
        if not self._config.bootstrap_token:
            raise IdentityError(
                "the node has no usable client certificate and no bootstrap token", hint="run `cinderctl apply`"
            )
        bootstrap = Endpoint(self._config.server, ca_file=self._config.ca_file, token=self._config.bootstrap_token)
        async with AsyncKube(bootstrap) as kube:
            return await self._obtain(self._client, kube)

    async def serving(self, kube: AsyncKube) -> Certificate:
        """The serving certificate; waits for somebody's approval."""
        return await self._usable(self._serving) or await self._obtain(self._serving, kube)

    async def renew_for_ever(
        self, kube: AsyncKube, client: Certificate, serving: Certificate | None, changed: Callable[[str], None]
    ) -> None:
        """Renew both in time. `changed` gets the name of what is new. Until cancelled."""
        held = {"client": client, "serving": serving}
        while True:
            due = min(cert.renew_at(self._jitter) for cert in held.values() if cert is not None)
            # A clock that jumps must not let a certificate expire unseen, so sleep in slices.
            await asyncio.sleep(min(600.0, max(0.0, due - self._now())))
            for wanted in (self._client, self._serving):
                cert = held[wanted.name]
                if cert is not None and self._now() >= cert.renew_at(self._jitter):
                    self._log(f"renewing the {wanted.name} certificate")
                    held[wanted.name] = await self._obtain(wanted, kube)
                    changed(wanted.name)

    async def _usable(self, wanted: _Wanted) -> Certificate | None:
        """What is on disk, if it is for us, of this cluster, and not about to expire."""
        path = self._file(wanted.name)
        if not path.exists():
            return None
        try:
            found = await self._work({"op": "inspect", "pemFile": str(path), "caFile": self._config.ca_file})
        except IdentityError as error:
            self._log(f"the {wanted.name} certificate cannot be used: {error}")
            return None
        return self._judge(wanted, found)

    def _judge(self, wanted: _Wanted, found: Mapping[str, Any]) -> Certificate | None:
        why = found["why"]
        if found["commonName"] != f"system:node:{self._config.node_name}":
            why = f"it is for {found['commonName']}"
        elif not set(wanted.ip_addresses) <= set(found["ipAddresses"]):
            why = "it is for another address"
        elif found["notAfter"] <= self._now() + 60:
            why = "it has expired"
        if why:
            self._log(f"the {wanted.name} certificate cannot be used: {why}")
            return None
        return Certificate(self._file(wanted.name), found["notBefore"], found["notAfter"])

    async def _obtain(self, wanted: _Wanted, kube: AsyncKube) -> Certificate:
        pause = _POLL_FIRST
        while True:
            try:
                return await self._request(wanted, kube)
            except TransientError as error:
                pause = max(pause, error.retry_after)
            except KubeError as error:
                self._log(f"the {wanted.name} certificate cannot be requested: {error}")
                pause = min(max(pause * 2, 1.0), 30.0)
            except IdentityError as error:
                # A pending key that cannot be read is in nobody's use: begin with another.
                self._log(f"the {wanted.name} certificate cannot be requested: {error}")
                remove_file(self._pending(wanted.name))
                pause = min(max(pause * 2, 1.0), 30.0)
            await asyncio.sleep(pause)

    async def _request(self, wanted: _Wanted, kube: AsyncKube) -> Certificate:
        """One request from key to certificate. Raises: KubeError."""
        key_file = self._pending(wanted.name)
        made = await self._work(
            {
                "op": "request",
                "keyFile": str(key_file),
                "commonName": f"system:node:{self._config.node_name}",
                "organizations": ["system:nodes"],
                "dnsNames": list(wanted.dns_names),
                "ipAddresses": list(wanted.ip_addresses),
            }
        )
        name = request_name(self._config.node_name, wanted.name, made["digest"])
        body = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {
                "request": base64.b64encode(made["csr"].encode()).decode(),
                "signerName": wanted.signer,
                "usages": list(wanted.usages),
            },
        }
        try:
            await kube.create(_REQUESTS, body)
            self._log(f"requested a {wanted.name} certificate: {name}")
        except AlreadyExistsError:
            pass  # asked before we were killed
        pem = await self._issued(name, kube)
        if pem is None:
            self._log(f"the request {name} was denied or lost; asking with a new key")
            remove_file(key_file)
            raise TransientError("the certificate was not issued", retry_after=5)
        return await self._keep(wanted, key_file, pem)

    async def _issued(self, name: str, kube: AsyncKube) -> bytes | None:
        """The certificate, once it is there; None when it will never be."""
        pause = _POLL_FIRST
        while True:
            try:
                found = await kube.get(f"{_REQUESTS}/{name}")
            except NotFoundError:
                return None
            status = found.get("status") or {}
            if status.get("certificate"):
                return base64.b64decode(status["certificate"])
            if any(c.get("type") in ("Denied", "Failed") for c in status.get("conditions") or ()):
                return None
            await asyncio.sleep(pause)
            pause = min(pause * _POLL_GROWTH, _POLL_MOST)

    async def _keep(self, wanted: _Wanted, key_file: Path, pem: bytes) -> Certificate:
        question = {
            "op": "keep",
            "pem": pem.decode(),
            "keyFile": str(key_file),
            "pemFile": str(self._file(wanted.name)),
            "caFile": self._config.ca_file,
        }
        found = await self._work(question)
        if found.get("mismatch"):
            remove_file(key_file)
            raise TransientError("the certificate is for another key", retry_after=1)
        kept = self._judge(wanted, found)
        if kept is None:
            raise TransientError("the certificate cannot be used", retry_after=5)
        return kept

    def _pending(self, name: str) -> Path:
        return self._config.pki_dir / f"{name}.pending.key"

    def _file(self, name: str) -> Path:
        return self._config.pki_dir / f"{name}.pem"
