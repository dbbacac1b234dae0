"""A world that is in the way or broken: the error says what and where, nothing is lost, and the way back works."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cinderctl.pki import Subject, describe, issue
from tests.e2e.conftest import Cluster, World, eventually, pod

PLAIN = "metadata: {name: bad}\nstorageClass: {enabled: false}\n"


@pytest.fixture
def fresh(make_world: Callable[[], World], kubectl_path: str) -> Iterator[Cluster]:
    """A machine with a spec of the smallest cluster, and nothing applied yet."""
    world = make_world()
    yield Cluster(world, "bad", world.spec("bad.yaml", PLAIN), kubectl_path)
    world.kill_everything()


@pytest.fixture(scope="module")
def plain(make_world: Callable[[], World], kubectl_path: str) -> Iterator[Cluster]:
    """The smallest cluster, shared by tests that break it and mend it."""
    world = make_world()
    made = Cluster(world, "bad", world.spec("bad.yaml", PLAIN), kubectl_path)
    made.apply()
    yield made
    made.destroy()
    assert world.processes() == {}


@contextmanager
def foreign_service(port: int) -> Iterator[None]:
    """Something of somebody else's that answers on a port, and even looks a little like a registry."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    with http.server.HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def no_fault(text: str) -> None:
    assert "fault in cinderctl" not in text
    assert "internal error" not in text


# --- Ports ------------------------------------------------------------------------------------------------------------


def test_a_foreign_service_on_the_registrys_port_is_named_and_never_used(fresh: Cluster) -> None:
    port = fresh.world.registry_port
    fresh.world.spec("bad.yaml", PLAIN + "featureGates: {LocalRegistry: true}\nlocalRegistryPort: {port}\n")
    with foreign_service(port):
        failed = fresh.apply(code=3)
        assert f"port {port}" in failed.stderr
        assert f"pid {os.getpid()}" in failed.stderr
        assert "localRegistryPort" in failed.stderr
        assert fresh.kubectl("get", "ns", "default", "-o", "name")  # what did not need it was done
    fresh.apply()
    assert fresh.changes() == {}
    fresh.destroy()
    assert fresh.world.processes() == {}


def test_the_api_servers_port_in_use_is_no_matter(make_world: Callable[[], World], kubectl_path: str) -> None:
    world = make_world()
    port = world.registry_port
    spec = world.spec("busy.yaml", f"metadata: {{name: busy}}\nkubeconfig: {{}}\ncontrolPlaneConfiguration: "
                      f"{{kubeAPIServer: {{bindPort: {port}}}}}\nstorageClass: {{enabled: false}}\n")  # fmt: skip
    busy = Cluster(world, "busy", spec, kubectl_path)
    with foreign_service(port):
        done = busy.apply(code=None)
        no_fault(done.stderr)
        if done.returncode:  # a port that was asked for by number may also be refused, if it is named
            assert str(port) in done.stderr
        else:
            assert busy.kubectl("get", "ns", "default", "-o", "name")
    busy.destroy()
    assert world.processes() == {}


# --- Files that are not what they were --------------------------------------------------------------------------------


def test_a_damaged_journal_is_never_written_over_and_what_to_do_is_said(plain: Cluster) -> None:
    journal = plain.state / "journal"
    pids = plain.pids()
    garbage = b"\0\1garbage\n" + journal.read_bytes()[:200]
    journal.write_bytes(garbage)
    for refused in (plain.ctl("plan", code=1), plain.apply(code=1)):
        assert str(journal) in refused.stderr
        assert "move it aside" in refused.stderr
    assert journal.read_bytes() == garbage
    journal.rename(journal.with_name("journal.damaged"))
    plain.apply()
    assert plain.changes() == {}
    assert plain.pids() == pids


def test_a_journal_that_lost_its_end_loses_nothing_else(plain: Cluster) -> None:
    journal = plain.state / "journal"
    pids = plain.pids()
    plain.kubectl("config", "delete-context", "kubernetes-admin@bad")
    plain.apply()  # so that there is something in it
    for part in (journal.read_bytes()[: journal.stat().st_size // 2], b""):
        journal.write_bytes(part)
        plain.apply()
        assert plain.changes() == {}
        assert plain.pids() == pids


@pytest.mark.parametrize("name", ["records/control_plane.bad.json", "network.json"])
def test_a_damaged_file_of_ours_stops_the_run_and_its_hint_is_the_way_out(plain: Cluster, name: str) -> None:
    path, pids = plain.state / name, plain.pids()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for refused in (plain.ctl("plan", code=4), plain.apply(code=4)):
        assert f"{path} is damaged" in refused.stderr
        assert "move it away" in refused.stderr
    assert path.read_bytes() == whole[: len(whole) // 2]
    path.unlink()
    plain.apply()
    assert plain.changes() == {}
    assert plain.pids() == pids


def test_a_damaged_component_file_is_made_again(plain: Cluster) -> None:
    path, pids = plain.state / "components" / "kube-scheduler.json", plain.pids()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert plain.changes() == {"control_plane.bad": "update"}
    plain.apply()
    assert plain.changes() == {}
    assert path.read_bytes() == whole
    assert plain.pids() == pids


def test_a_kubeconfig_that_cannot_be_read_is_never_overwritten(fresh: Cluster) -> None:
    broken = "apiVersion: v1\nclusters: [\n  this is: not {yaml\n"
    fresh.world.kubeconfig.write_text(broken)
    failed = fresh.apply(code=None)
    no_fault(failed.stderr)
    assert failed.returncode in {1, 3, 4}
    assert str(fresh.world.kubeconfig) in failed.stderr
    assert fresh.world.kubeconfig.read_text() == broken
    fresh.world.kubeconfig.unlink()
    fresh.apply()
    assert fresh.changes() == {}
    fresh.world.kubeconfig.write_text(broken)
    no_fault(fresh.destroy(code=None).stderr)
    assert fresh.world.kubeconfig.read_text() == broken
    fresh.world.kubeconfig.unlink()
    fresh.destroy()
    assert fresh.world.processes() == {}
    assert not fresh.state.exists()


# --- Disks ------------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no permission to mount a file system: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


def test_a_full_disk_is_a_clear_error_and_the_same_command_works_once_there_is_room(fresh: Cluster) -> None:
    home = fresh.world.root / "state"
    with small_disk(home, "size=3m"):
        failed = fresh.apply(code=None)
        no_fault(failed.stderr)
        assert failed.returncode in {1, 3}
        assert "space" in failed.stderr.lower(), failed.stderr
        subprocess.run(["mount", "-o", "remount,size=400m", str(home)], check=True)
        fresh.apply()
        assert fresh.changes() == {}
        fresh.destroy()
        assert fresh.world.processes() == {}


def test_a_read_only_disk_is_a_clear_error(fresh: Cluster) -> None:
    home = fresh.world.root / "state"
    with small_disk(home, "size=10m"):
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        failed = fresh.apply(code=1)
        no_fault(failed.stderr)
        assert "read-only" in failed.stderr.lower()
        assert str(home) in failed.stderr
        assert fresh.ctl("plan").returncode == 0  # looking needs no disk


# --- Certificates -----------------------------------------------------------------------------------------------------


def _expire(cluster: Cluster, name: str, signer: str, subject: Subject, *, server: bool, client: bool) -> None:
    """Rewrite a certificate as it would be after its life, for its own key and from its own CA."""
    pki = cluster.state / "pki"
    expired = issue(
        (pki / f"{signer}.crt").read_bytes(),
        (pki / f"{signer}.key").read_bytes(),
        (pki / f"{name}.key").read_bytes(),
        subject,
        server=server,
        client=client,
        not_before=datetime.now(UTC) - timedelta(days=30),
        days=10,
    )
    (pki / f"{name}.crt").write_bytes(expired)


def test_expired_certificates_are_renewed_by_apply(plain: Cluster) -> None:
    """The administrator's, with which even the plan is made, and the API server's, which it must start to use."""
    old = describe((plain.state / "pki" / "apiserver.crt").read_bytes())
    names = Subject(old.common_name, old.organizations, old.dns_names, old.ip_addresses)
    _expire(plain, "apiserver", "ca", names, server=True, client=False)
    _expire(plain, "admin", "ca", Subject("kubernetes-admin", ("system:masters",)), server=False, client=True)
    planned = plain.ctl("plan", "--output", "json", code=None)
    assert planned.returncode in {0, 4}
    changes = {change["address"]: change for change in json.loads(planned.stdout)["changes"]}
    for name in ("apiserver", "admin"):
        change = changes[f"certificate.{name}"]
        assert change["action"] == "update"
        assert any(f["path"] == "expiry" and "expired" in f["before"] for f in change["fields"])
    plain.apply()
    assert plain.changes() == {}
    for name in ("apiserver", "admin"):
        assert describe((plain.state / "pki" / f"{name}.crt").read_bytes()).not_after > datetime.now(UTC)
    assert plain.kubectl("get", "ns", "default", "-o", "name").strip() == "namespace/default"


def test_a_lost_or_damaged_certificate_is_made_again(plain: Cluster) -> None:
    pki = plain.state / "pki"
    (pki / "scheduler.crt").write_bytes(b"not a certificate")
    assert plain.changes() == {"certificate.scheduler": "update"}
    plain.apply()
    (pki / "front-proxy-client.crt").unlink()
    assert "certificate.front-proxy-client" in plain.changes()
    plain.apply()
    assert plain.changes() == {}


# --- The node's caches ------------------------------------------------------------------------------------------------


def test_compiled_code_with_a_flipped_byte_is_never_run(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("before-flip", tool, "oright"))
    cluster.wait_for_phase("before-flip", "Succeeded")
    compiled = list((cluster.state / "nodes" / "e2e-wasi").rglob("*.cwasm"))
    assert compiled
    damaged = {}
    for path in compiled:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        damaged[path] = bytes(content)
    cluster.make(pod("after-flip", tool, "oright"))
    cluster.wait_for_phase("after-flip", "Succeeded")
    assert cluster.kubectl("logs", "after-flip") == "right\n"
    eventually(
        lambda: any(not path.exists() or path.read_bytes() != content for path, content in damaged.items()),
        "the damaged code of the module to be replaced",
    )
    cluster.delete("pod", "before-flip", "after-flip")


def test_a_module_whose_bytes_changed_on_disk_is_not_believed(cluster: Cluster, tool: str) -> None:
    """The stored module and its compiled code are both damaged: it is pulled again, or the pod says what is wrong."""
    node = cluster.state / "nodes" / "e2e-wasi"
    for path in node.rglob("*.cwasm"):
        path.unlink()
    modules = [path for path in node.rglob("*.wasm") if path.stat().st_size > 500]
    kept = {path: path.read_bytes() for path in modules}
    for path, content in kept.items():
        path.write_bytes(content[:-100] + bytes(100))
    try:
        cluster.make(pod("damaged", tool, "oright"))

        def settled() -> bool:
            seen = cluster.pod("damaged")
            waiting = (seen["status"].get("containerStatuses") or [{}])[0].get("state", {}).get("waiting", {})
            return seen["status"].get("phase") == "Succeeded" or "Error" in waiting.get("reason", "")

        eventually(settled, "the pod to run rightly or to say why not")
        if cluster.pod("damaged")["status"]["phase"] == "Succeeded":
            assert cluster.kubectl("logs", "damaged") == "right\n"
    finally:
        cluster.delete("pod", "damaged")
        for path, content in kept.items():
            path.write_bytes(content)


# --- The environment --------------------------------------------------------------------------------------------------


def test_a_missing_home_and_a_missing_binary_are_clear_errors(fresh: Cluster) -> None:
    env = {"HOME": "", "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""}
    failed = fresh.world.ctl("get", "clusters", code=64, env=env)
    assert "HOME" in failed.stderr
    empty = fresh.world.root / "empty-cache"
    empty.mkdir()
    missing = fresh.world.ctl("binaries", "path", "kubectl", code=1, env={"XDG_CACHE_HOME": str(empty)})
    assert "binaries fetch" in missing.stderr
    shutil.rmtree(empty)
