"""A user's machine with real clusters on the process provider, made and used by the command lines users type.

State, kubeconfig and registry data of a world live in a short directory of its own; only the cache of binaries is the
user's. Ports and names are chosen free, for other suites may run beside this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
HELLO = EXAMPLES / "hello-world"
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)


def eventually(look: Callable[[], T | None], what: str, timeout: float = 30.0) -> T:
    """What `look` returns once it is true. Raises: AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if value := look():
            return value
        assert time.monotonic() < deadline, f"not in {timeout} s: {what}"
        time.sleep(0.05)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, outside the ranges that the kernel and cinderctl hand out."""
    while True:
        port = random.randrange(30000, 32700)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0


def wat(text: str) -> bytes:
    import wasmtime

    return bytes(wasmtime.wat2wasm(text))


@dataclass
class World:
    """One user's machine, as far as cinderctl sees it."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    registry_port: int = 0

    @classmethod
    def make(cls, root: Path) -> World:
        env = {
            key: value for key, value in os.environ.items() if not key.startswith(("CINDERCTL", "KUBE", "XDG_STATE"))
        }
        # The cache stays the user's, wherever that is; the home does not, for it holds a kubeconfig and logins.
        cache = env.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        (root / "home").mkdir()
        env |= {
            "HOME": str(root / "home"),
            "XDG_CACHE_HOME": cache,
            "XDG_STATE_HOME": str(root / "state"),
            "KUBECONFIG": str(root / "kubeconfig"),
            "NO_COLOR": "1",
            "PYTHONWARNINGS": "default",
        }
        return cls(root, env, free_port())

    @property
    def home(self) -> Path:
        return self.root / "state" / "cinderctl"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cinderctl.cli.app", *arguments]

    def ctl(
        self,
        *arguments: str,
        code: int | None = 0,
        stdin: str | None = None,
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run cinderctl; fails the test on another exit code than `code` (None: any) and on a traceback."""
        # A string is piped in; without one there is nothing to read, and no terminal to ask on.
        done = subprocess.run(
            self.command(*arguments),
            env=self.env | dict(env or {}), cwd=self.root, input=stdin or "", capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        shown = f"cinderctl {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        if code is not None:
            assert done.returncode == code, shown
        assert "Traceback" not in done.stderr, shown
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """cinderctl in the background, in a process group of its own so that a signal reaches only it."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.env, cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    def state(self, cluster: str) -> Path:
        return self.home / cluster

    def spec(self, name: str, text: str) -> Path:
        """A spec file with the header that all have; `{port}` is the world's registry port."""
        path = self.root / name
        header = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n"
        path.write_text(header + text.replace("{port}", str(self.registry_port)))
        return path

    def processes(self) -> dict[int, str]:
        """Every process that runs for this world: pid → command line. Zombies are none."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                mine = (
                    str(self.root) in command or process.environ().get("XDG_STATE_HOME") == self.env["XDG_STATE_HOME"]
                )
                if mine and process.status() != psutil.STATUS_ZOMBIE and "pytest" not in command:
                    found[process.pid] = command
        return found

    def kill_everything(self) -> None:
        """What a power cut leaves: no process of this world."""
        while running := self.processes():
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        self.kill_everything()
        shutil.rmtree(self.root, ignore_errors=True)


@dataclass
class Cluster:
    """A cluster in a world, with its own kubectl."""

    world: World
    name: str
    spec: Path
    kubectl_path: str
    context: str = ""

    @property
    def state(self) -> Path:
        return self.world.state(self.name)

    @property
    def registry(self) -> str:
        """The registry as pods name it."""
        return f"{self.name}reg:{self.world.registry_port}"

    def ctl(self, command: str, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.world.ctl(command, "-f", str(self.spec), *arguments, code=code)

    def apply(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.ctl("apply", "--auto-approve", *arguments, code=code)

    def destroy(self, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.ctl("destroy", "--auto-approve", code=code)

    def kubectl(self, *arguments: str, stdin: str | None = None, code: int | None = 0, timeout: float = 90) -> str:
        """stdout on success, else both streams; fails the test on another exit code than `code` (None: any)."""
        context = ["--context", self.context] if self.context else []
        done = subprocess.run(
            [self.kubectl_path, *context, *arguments],
            env=self.world.env, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, (
                f"kubectl {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    @contextlib.contextmanager
    def following(self, *arguments: str) -> Iterator[Callable[[], str]]:
        """A kubectl that goes on; what it yields gives the next line, "" at the end."""
        with subprocess.Popen(
            [self.kubectl_path, *arguments],
            env=self.world.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline
            finally:
                process.kill()

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def make(self, *objects: Mapping[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(item) for item in objects))

    def delete(self, *arguments: str) -> None:
        self.kubectl("delete", *arguments, "--ignore-not-found", "--wait=false")

    def plan(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.ctl("plan", "--output", "json", *arguments, code=code).stdout)

    def drift(self, code: int) -> Any:
        return json.loads(self.ctl("drift", "--output", "json", code=code).stdout)

    def changes(self) -> dict[str, str]:
        """What a plan would do: address → action."""
        return {change["address"]: change["action"] for change in self.plan()["changes"]}

    def status(self) -> dict[str, Any]:
        """The processes of the cluster: component → row of `status`."""
        rows = json.loads(self.ctl("status", "--output", "json").stdout)["components"]
        return {row["component"]: row for row in rows}

    def pids(self) -> dict[str, int]:
        return {name: row["pid"] for name, row in self.status().items() if row["pid"]}

    def pod(self, name: str) -> dict[str, Any]:
        return dict(self.get("pod", name))

    def wait_for_phase(self, name: str, *phases: str, timeout: float = 30.0) -> dict[str, Any]:
        def seen() -> dict[str, Any] | None:
            found = self.pod(name)
            return found if found["status"].get("phase") in phases else None

        return eventually(seen, f"pod {name} to be {' or '.join(phases)}", timeout)

    def wait_for_waiting(self, name: str, *reasons: str, timeout: float = 30.0) -> dict[str, str]:
        """The `waiting` state of the pod's first container, once its reason is one of these."""

        def seen() -> dict[str, str] | None:
            waiting = container_of(self.pod(name)).get("state", {}).get("waiting", {})
            return waiting if waiting.get("reason") in reasons else None

        return eventually(seen, f"pod {name} to wait with {' or '.join(reasons)}", timeout)

    def events_of(self, name: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
        return items

    def wait_ready(self, node: str, timeout: float = 60.0) -> None:
        self.kubectl("wait", "--for=condition=Ready", f"node/{node}", f"--timeout={timeout:g}s")


def container_of(pod: Mapping[str, Any]) -> dict[str, Any]:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return dict(statuses[0])


def pod(name: str, image: str, *args: str, **spec: Any) -> dict[str, Any]:
    """A bare pod for the wasi node; `container` adds to its one container, `annotations` to its metadata."""
    container = {"name": "main", "image": image, "args": list(args), **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "nodeSelector": {"kubernetes.io/arch": "wasm32-wasi"},
            "tolerations": [{"key": "kubernetes.io/arch", "operator": "Exists"}],
            "containers": [container],
            **spec,
        },
    }


def deployment(name: str, image: str, *args: str, replicas: int = 1, **spec: Any) -> dict[str, Any]:
    template = pod(name, image, *args, restartPolicy="Always", **spec)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    }


def mounted(source: Mapping[str, Any], path: str = "/data", **mount: Any) -> dict[str, Any]:
    """Spec fields for a pod with one volume: mount number 0 of the tool."""
    return {
        "volumes": [{"name": "data", **source}],
        "container": {"volumeMounts": [{"name": "data", "mountPath": path, **mount}]},
    }


@dataclass(frozen=True)
class RawRegistry:
    """A registry as it is: pushes what no client of ours would."""

    url: str
    data: Path

    def push(self, repository: str, tag: str, layer: bytes, media_type: str = "application/wasm") -> str:
        """An artifact of one layer, in the CNCF form; returns the layer's digest."""
        config = json.dumps({"architecture": "wasm", "os": "wasip1", "layerDigests": [digest_of(layer)]}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._blob(repository, config, "application/vnd.wasm.config.v0+json"),
            "layers": [self._blob(repository, layer, media_type)],
        }
        self._send(
            f"{self.url}/v2/{repository}/manifests/{tag}", "PUT", json.dumps(manifest).encode(), manifest["mediaType"]
        )
        return digest_of(layer)

    def blob(self, digest: str) -> Path:
        """Where Distribution keeps a blob."""
        encoded = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"

    def _blob(self, repository: str, data: bytes, media_type: str) -> dict[str, Any]:
        location = self._send(f"{self.url}/v2/{repository}/blobs/uploads/", "POST", b"", "")
        where = f"{location}{'&' if '?' in location else '?'}digest={digest_of(data)}"
        self._send(where, "PUT", data, "application/octet-stream")
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    @staticmethod
    def _send(url: str, method: str, body: bytes, content_type: str) -> str:
        headers = {"Content-Type": content_type} if content_type else {}
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers.get("Location") or "")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(scope="session")
def make_world() -> Iterator[Callable[[], World]]:
    """Worlds; each is gone at the end with whatever still runs in it."""
    made: list[World] = []

    def make() -> World:
        # Short on purpose: Unix sockets below it have at most 107 characters.
        made.append(World.make(Path(tempfile.mkdtemp(prefix="ci-", dir="/tmp"))))
        return made[-1]

    yield make
    for one in made:
        one.remove()


@pytest.fixture(scope="session")
def kubectl_path(make_world: Callable[[], World]) -> str:
    return make_world().ctl("binaries", "path", "kubectl").stdout.strip()


@pytest.fixture(scope="session")
def world(make_world: Callable[[], World]) -> World:
    return make_world()


SPEC = """\
metadata: {name: e2e}
featureGates: {LocalRegistry: true, Krustlet: true}
localRegistryPort: {port}
localRegistryName: e2ereg
"""


@pytest.fixture(scope="session")
def tool_wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest that does what its arguments say."""
    path = tmp_path_factory.mktemp("guests") / "tool.wasm"
    path.write_bytes(wat((HERE / "tool.wat").read_text()))
    return path


@pytest.fixture(scope="session")
def cluster(world: World, kubectl_path: str, tool_wasm: Path) -> Iterator[Cluster]:
    """The one control plane that the suite shares, with both wasm nodes and a registry that holds two modules."""
    made = Cluster(world, "e2e", world.spec("cluster.yaml", SPEC), kubectl_path)
    made.apply()
    push(made, HELLO / "module" / "hello-world.wasm", "hello-world:v1")
    push(made, tool_wasm, "tool:v1")
    yield made
    made.destroy()
    assert world.processes() == {}
    assert not made.state.exists()


def push(cluster: Cluster, module: Path, name: str) -> None:
    cluster.world.ctl("push", str(module), f"localhost:{cluster.world.registry_port}/{name}")


@pytest.fixture
def tool(cluster: Cluster) -> str:
    """Image reference of the guest that does what its arguments say."""
    return f"{cluster.registry}/tool:v1"


@pytest.fixture(scope="session")
def raw_registry(cluster: Cluster) -> RawRegistry:
    data = cluster.world.home / "_registry" / "e2ereg" / "data"
    return RawRegistry(f"http://127.0.0.1:{cluster.world.registry_port}", data)


def hello(cluster: Cluster, name: str) -> None:
    """The example's own pod and ConfigMaps, under another name and with this suite's registry."""
    text = (HELLO / "k8s.yaml").read_text().replace("cinderegg:5000", cluster.registry)
    documents = list(yaml.safe_load_all(text))
    documents[-1]["metadata"]["name"] = name
    cluster.make(*documents)
