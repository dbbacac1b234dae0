"""The kubelet API over TLS: who gets in, who may do what, what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from cinderctl.pki.certificates import Subject, issue, self_signed_ca
from cinderctl.pki.keys import new_private_key
from cinderctl.wasmnode.agent import Agent
from cinderctl.wasmnode.server import KubeletServer
from tests.fakes.apiserver import pod
from tests.unit.wasmnode.conftest import Lab, Run


@dataclass
class Kubelet:
    lab: Lab
    agent: Agent
    server: KubeletServer
    directory: Path

    @asynccontextmanager
    async def get(self, path: str, *, cert: str = "", token: str = "", method: str = "GET") -> AsyncIterator[Any]:
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        if cert:
            context.load_cert_chain(self.directory / f"{cert}.pem")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"https://127.0.0.1:{self.server.port}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url, ssl=context, headers=headers) as r:
            yield r

    async def text(self, path: str, **how: Any) -> tuple[int, str]:
        async with self.get(path, **how) as response:
            return response.status, await response.text()


def certificates(directory: Path) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    for name in ("ca", "foreign"):
        key = new_private_key()
        cert = self_signed_ca(key, name, not_before=start, days=10)
        (directory / f"{name}.crt").write_bytes(cert)
        people = {
            "serving": Subject("system:node:node-wasi", ("system:nodes",), ("node-wasi",), ("127.0.0.1",)),
            "apiserver": Subject("kube-apiserver-kubelet-client", ("system:masters",)),
        }
        for person, subject in people.items():
            own = new_private_key()
            server = person == "serving"
            leaf = issue(cert, key, own, subject, server=server, client=not server, not_before=start, days=5)
            prefix = "" if name == "ca" else "foreign-"
            (directory / f"{prefix}{person}.pem").write_bytes(leaf + own)


def with_kubelet(run_lab: Run, tmp_path: Path, body: Callable[[Kubelet], Awaitable[None]]) -> None:
    async def inside(lab: Lab) -> None:
        await asyncio.to_thread(certificates, tmp_path)
        async with lab.agent(ca_file=str(tmp_path / "ca.crt"), port=0) as agent:
            server = KubeletServer(agent, log=lab.logged.append)
            task = asyncio.create_task(server.serve(tmp_path / "serving.pem"))
            try:
                await lab.api.until(lambda: server.port)
                await body(Kubelet(lab, agent, server, tmp_path))
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    run_lab(inside)


def test_strangers_learn_only_that_the_agent_lives(run_lab: Run, tmp_path: Path) -> None:
    async def body(kubelet: Kubelet) -> None:
        assert await kubelet.text("/healthz") == (200, "ok")
        for path in ("/pods", "/containerLogs/default/p/c", "/metrics", "/stats/summary", "/exec/default/p/c"):
            assert (await kubelet.text(path))[0] == 401
        assert (await kubelet.text("/pods", token="guess"))[0] == 401

    with_kubelet(run_lab, tmp_path, body)


def test_a_certificate_of_another_authority_is_no_way_in(run_lab: Run, tmp_path: Path) -> None:
    async def body(kubelet: Kubelet) -> None:
        try:
            status, _ = await kubelet.text("/pods", cert="foreign-apiserver")
        except aiohttp.ClientError:
            status = 401  # the handshake itself is refused
        assert status == 401

    with_kubelet(run_lab, tmp_path, body)


def test_the_api_server_gets_in_by_certificate_and_is_asked_about_once(run_lab: Run, tmp_path: Path) -> None:
    async def body(kubelet: Kubelet) -> None:
        kubelet.lab.api.may = lambda spec: "system:masters" in spec["groups"]
        for _ in range(3):
            status, _ = await kubelet.text("/pods", cert="apiserver")
            assert status == 200
        reviews = [r[2]["spec"] for r in kubelet.lab.api.requests if r[1].endswith("/subjectaccessreviews")]
        assert len(reviews) == 1
        assert reviews[0]["user"] == "kube-apiserver-kubelet-client"
        assert reviews[0]["resourceAttributes"]["subresource"] == "proxy"

    with_kubelet(run_lab, tmp_path, body)


def test_a_token_is_reviewed_and_each_path_has_its_own_permission(run_lab: Run, tmp_path: Path) -> None:
    async def body(kubelet: Kubelet) -> None:
        kubelet.lab.api.tokens["secret"] = {"username": "reader", "groups": ["g"]}
        kubelet.lab.api.may = lambda spec: spec["resourceAttributes"]["subresource"] == "metrics"
        status, text = await kubelet.text("/metrics", token="secret")
        assert status == 200
        assert "cinderctl_node_runtime_up 1" in text
        status, text = await kubelet.text("/stats/summary", token="secret")
        assert status == 403
        assert "user=reader" in text
        assert "subresource=stats" in text

    with_kubelet(run_lab, tmp_path, body)


def test_logs_of_a_container_and_why_there_are_none(run_lab: Run, tmp_path: Path) -> None:
    async def body(kubelet: Kubelet) -> None:
        lab = kubelet.lab
        path = lab.api.add_pod(pod("p"))
        uid = (await lab.phase(path, "Running"))["metadata"]["uid"]
        log = kubelet.agent.services.log_path(uid, "c", 0)
        await asyncio.to_thread(log.write_text, "2026-01-01T00:00:01.000000000Z stdout F hello\n")
        assert await kubelet.text("/containerLogs/default/p/c", cert="apiserver") == (200, "hello\n")
        status, text = await kubelet.text("/containerLogs/default/p/c?tailLines=x", cert="apiserver")
        assert (status, "tailLines" in text) == (400, True)
        status, text = await kubelet.text("/containerLogs/default/p/c?previous=true", cert="apiserver")
        assert (status, text) == (400, 'previous terminated container "c" in pod "p" not found\n')
        assert (await kubelet.text("/containerLogs/default/p/nope", cert="apiserver"))[0] == 404
        async with kubelet.get("/containerLogs/default/p/c?follow=true", cert="apiserver") as response:
            assert await response.content.readline() == b"hello\n"
            lab.runtime.finish(f"{uid}.c.0", 0)
            assert await response.content.read() == b""

    with_kubelet(run_lab, tmp_path, body)


def test_what_a_wasm_pod_has_not_is_answered_with_what_it_has(run_lab: Run, tmp_path: Path) -> None:
    async def body(kubelet: Kubelet) -> None:
        for path in ("/exec/default/p/c", "/attach/default/p/c", "/portForward/default/p", "/run/default/p/c"):
            status, text = await kubelet.text(path, cert="apiserver", method="POST")
            assert status == 501
            assert "kubectl logs" in text

    with_kubelet(run_lab, tmp_path, body)


def test_pods_and_stats_are_listed(run_lab: Run, tmp_path: Path) -> None:
    async def body(kubelet: Kubelet) -> None:
        await kubelet.lab.phase(kubelet.lab.api.add_pod(pod("p")), "Running")
        async with kubelet.get("/pods", cert="apiserver") as response:
            (item,) = (await response.json())["items"]
        assert item["status"]["phase"] == "Running"
        async with kubelet.get("/stats/summary", cert="apiserver") as response:
            stats = await response.json()
        assert stats["node"]["memory"]["workingSetBytes"] > 0
        assert stats["pods"][0]["podRef"]["name"] == "p"

    with_kubelet(run_lab, tmp_path, body)
