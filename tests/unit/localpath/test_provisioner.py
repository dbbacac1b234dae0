"""What a user of PersistentVolumeClaims relies on, against a fake API server and real directories."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from cinderctl.kube.endpoint import Endpoint
from cinderctl.localpath import controller
from cinderctl.localpath.provisioner import PROVISIONER, serve_local_path, storage_class
from tests.unit.kube.fake_api import FakeApi, status

CLAIM = "/api/v1/namespaces/default/persistentvolumeclaims/data"
VOLUMES = "/api/v1/persistentvolumes"
EVENTS = "/api/v1/namespaces/default/events"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
CHOSEN = {"volume.kubernetes.io/storage-provisioner": PROVISIONER, "volume.kubernetes.io/selected-node": "cinder-wasi"}


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi.running() as server:
        server.put(f"{CLASSES}/standard", storage_class("standard"))
        server.put("/api/v1/nodes/cinder-wasi", {"metadata": {"labels": {"kubernetes.io/hostname": "wasi.local"}}})
        yield server


def claim(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"annotations": CHOSEN if annotations is None else annotations},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "standard",
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(bounded())


async def until(condition: Callable[[], Any]) -> Any:
    while not (value := condition()):  # noqa: ASYNC110 - the condition is another thread's
        await asyncio.sleep(0.005)
    return value


@contextlib.asynccontextmanager
async def provisioner(api: FakeApi, root: Path) -> AsyncGenerator[Path]:
    config = {"endpoint": Endpoint(api.url).to_json(), "directory": "local-path", "storageClass": "standard"}
    task = asyncio.create_task(serve_local_path(config, root))
    try:
        await until(lambda: api.watching() == 2 or task.done())
        yield root / "local-path"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def volume(api: FakeApi) -> dict[str, Any] | None:
    return next(iter(api.all(VOLUMES)), None)


def is_dir(path: Path | str) -> bool:
    return Path(path).is_dir()


def events(api: FakeApi) -> list[tuple[str, str, str]]:
    return [(e["type"], e["reason"], e["message"]) for e in api.all(EVENTS)]


def release(api: FakeApi, made: dict[str, Any]) -> None:
    api.put(f"{VOLUMES}/{made['metadata']['name']}", made | {"status": {"phase": "Released"}})


def test_a_claim_gets_a_volume_on_the_node_of_its_pod(api: FakeApi, tmp_path: Path) -> None:
    async def work() -> None:
        async with provisioner(api, tmp_path) as directory:
            stored = api.put(CLAIM, claim())
            made = await until(lambda: volume(api))
            uid = stored["metadata"]["uid"]
            path = directory / f"pvc-{uid}_default_data"
            assert path.stat().st_mode & 0o777 == 0o700
            assert directory.stat().st_mode & 0o777 == 0o700
            assert made["metadata"]["name"] == f"pvc-{uid}"
            assert made["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"] == PROVISIONER
            spec = made["spec"]
            assert spec["hostPath"] == {"path": str(path), "type": "DirectoryOrCreate"}
            assert spec["claimRef"]["uid"] == uid
            assert (spec["capacity"], spec["accessModes"]) == ({"storage": "1Gi"}, ["ReadWriteOnce"])
            assert (spec["storageClassName"], spec["persistentVolumeReclaimPolicy"]) == ("standard", "Delete")
            (term,) = spec["nodeAffinity"]["required"]["nodeSelectorTerms"]
            (rule,) = term["matchExpressions"]
            assert rule == {"key": "kubernetes.io/hostname", "operator": "In", "values": ["wasi.local"]}
            await until(lambda: events(api))
            assert events(api) == [("Normal", "ProvisioningSucceeded", f"Successfully provisioned volume pvc-{uid}")]

    run(work())


def test_a_claim_waits_for_its_first_pod(api: FakeApi, tmp_path: Path) -> None:
    async def work() -> None:
        async with provisioner(api, tmp_path):
            named = {"volume.kubernetes.io/storage-provisioner": PROVISIONER}
            api.put(CLAIM, claim(named))
            api.put("/api/v1/namespaces/default/persistentvolumeclaims/other", claim())
            made = await until(lambda: volume(api))
            assert made["spec"]["claimRef"]["name"] == "other"
            assert len(api.all(VOLUMES)) == 1
            api.put(CLAIM, claim())
            await until(lambda: len(api.all(VOLUMES)) == 2)

    run(work())


@pytest.mark.parametrize(
    "not_ours",
    [
        claim({"volume.kubernetes.io/storage-provisioner": "example.com/other"}),
        claim({}),
        claim(volumeName="already"),
        claim() | {"metadata": {"annotations": CHOSEN, "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        claim(storageClassName="elsewhere"),
    ],
)
def test_claims_that_are_not_ours_are_left_alone(api: FakeApi, tmp_path: Path, not_ours: dict[str, Any]) -> None:
    api.put(f"{CLASSES}/elsewhere", storage_class("elsewhere") | {"provisioner": "example.com/other"})

    async def work() -> None:
        async with provisioner(api, tmp_path) as directory:
            api.put("/api/v1/namespaces/default/persistentvolumeclaims/first", not_ours)
            api.put(CLAIM, claim())
            await until(lambda: volume(api))
            assert [v["spec"]["claimRef"]["name"] for v in api.all(VOLUMES)] == ["data"]
            assert len(list(directory.iterdir())) == 1

    run(work())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"accessModes": ["ReadWriteMany"]}, "access mode ReadWriteMany is not supported"),
        ({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}, "access mode ReadOnlyMany is not supported"),
        ({"volumeMode": "Block"}, "volumeMode Block is not supported"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "a selector is not supported"),
        ({"dataSource": {"kind": "VolumeSnapshot", "name": "s"}}, "a data source is not supported"),
    ],
)
def test_what_a_local_volume_cannot_be_is_refused_with_an_event(
    api: FakeApi, tmp_path: Path, spec: dict[str, Any], words: str
) -> None:
    async def work() -> None:
        async with provisioner(api, tmp_path) as directory:
            api.put(CLAIM, claim(**spec))
            await until(lambda: events(api))
            ((type_, reason, message),) = events(api)
            assert (type_, reason) == ("Warning", "ProvisioningFailed")
            assert words in message
            assert volume(api) is None
            assert list(directory.iterdir()) == []

    run(work())


def test_one_pod_only_claims_are_served(api: FakeApi, tmp_path: Path) -> None:
    async def work() -> None:
        async with provisioner(api, tmp_path):
            api.put(CLAIM, claim(accessModes=["ReadWriteOncePod"]))
            assert (await until(lambda: volume(api)))["spec"]["accessModes"] == ["ReadWriteOncePod"]

    run(work())


def test_a_class_that_binds_at_once_is_refused_with_an_event(api: FakeApi, tmp_path: Path) -> None:
    api.put(f"{CLASSES}/standard", storage_class("standard") | {"volumeBindingMode": "Immediate"})

    async def work() -> None:
        async with provisioner(api, tmp_path):
            api.put(CLAIM, claim({"volume.beta.kubernetes.io/storage-provisioner": PROVISIONER}))
            await until(lambda: events(api))
            assert "needs volumeBindingMode WaitForFirstConsumer" in events(api)[0][2]

    run(work())


def test_when_the_chosen_node_is_gone_the_scheduler_chooses_again(api: FakeApi, tmp_path: Path) -> None:
    async def work() -> None:
        async with provisioner(api, tmp_path):
            api.put(CLAIM, claim(CHOSEN | {"volume.kubernetes.io/selected-node": "gone"}))
            await until(lambda: events(api))
            now = api.object(CLAIM)
            assert now is not None
            assert "volume.kubernetes.io/selected-node" not in now["metadata"]["annotations"]
            assert "node gone is gone" in events(api)[0][2]

    run(work())


def test_a_node_without_a_hostname_label_is_meant_by_its_name(api: FakeApi, tmp_path: Path) -> None:
    api.put("/api/v1/nodes/cinder-wasi", {})

    async def work() -> None:
        async with provisioner(api, tmp_path):
            api.put(CLAIM, claim())
            made = await until(lambda: volume(api))
            (term,) = made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
            assert term["matchExpressions"][0]["values"] == ["cinder-wasi"]

    run(work())


def test_class_settings_reach_the_volume(api: FakeApi, tmp_path: Path) -> None:
    api.put(f"{CLASSES}/standard", storage_class("standard") | {"reclaimPolicy": "Retain", "mountOptions": ["ro"]})

    async def work() -> None:
        async with provisioner(api, tmp_path):
            api.put(CLAIM, claim())
            spec = (await until(lambda: volume(api)))["spec"]
            assert (spec["persistentVolumeReclaimPolicy"], spec["mountOptions"]) == ("Retain", ["ro"])

    run(work())


def test_a_released_volume_goes_with_its_data(api: FakeApi, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")

    async def work() -> None:
        async with provisioner(api, tmp_path):
            api.put(CLAIM, claim())
            made = await until(lambda: volume(api))
            path = Path(made["spec"]["hostPath"]["path"])
            (path / "sub").mkdir()
            (path / "sub" / "file").write_text("x")
            (path / "sub" / "link").symlink_to(outside)
            (path / "sub").chmod(0o500)
            release(api, made)
            await until(lambda: volume(api) is None)
            assert not is_dir(path)
            assert (outside / "precious").exists()

    run(work())


def test_a_retained_volume_keeps_its_data(api: FakeApi, tmp_path: Path) -> None:
    api.put(f"{CLASSES}/standard", storage_class("standard") | {"reclaimPolicy": "Retain"})

    async def work() -> None:
        async with provisioner(api, tmp_path):
            api.put(CLAIM, claim())
            made = await until(lambda: volume(api))
            release(api, made)
            api.put("/api/v1/namespaces/default/persistentvolumeclaims/later", claim())
            await until(lambda: len(api.all(VOLUMES)) == 2)
            assert is_dir(made["spec"]["hostPath"]["path"])

    run(work())


@pytest.mark.parametrize("where", ["/etc", "{d}", "{d}/pvc-x/../../outside", "{d}/sub/pvc-x", "{d}/other", ""])
def test_a_volume_that_points_elsewhere_is_never_removed(api: FakeApi, tmp_path: Path, where: str) -> None:
    async def work() -> None:
        async with provisioner(api, tmp_path) as directory:
            (directory / "other").mkdir()
            (directory / "sub" / "pvc-x").mkdir(parents=True)
            path = where.replace("{d}", str(directory))
            hurt = {
                "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
                "spec": {"hostPath": {"path": path}, "persistentVolumeReclaimPolicy": "Delete"},
                "status": {"phase": "Released"},
            }
            api.put(f"{VOLUMES}/pvc-x", hurt)
            await until(lambda: events(api))
            assert events(api)[0][1] == "VolumeFailedDelete"
            assert volume(api) is not None
            assert (directory / "other").is_dir()
            assert (directory / "sub" / "pvc-x").is_dir()

    run(work())


def test_volumes_of_others_are_not_touched(api: FakeApi, tmp_path: Path) -> None:
    async def work() -> None:
        async with provisioner(api, tmp_path) as directory:
            (directory / "pvc-x").mkdir()
            theirs = {
                "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "example.com/other"}},
                "spec": {"hostPath": {"path": str(directory / "pvc-x")}, "persistentVolumeReclaimPolicy": "Delete"},
                "status": {"phase": "Released"},
            }
            api.put(f"{VOLUMES}/pvc-x", theirs)
            api.put(CLAIM, claim())
            await until(lambda: len(api.all(VOLUMES)) == 2)
            assert (directory / "pvc-x").is_dir()

    run(work())


def test_an_attempt_that_was_cut_off_is_finished_with_the_same_names(api: FakeApi, tmp_path: Path) -> None:
    stored = api.put(CLAIM, claim())
    uid = stored["metadata"]["uid"]
    left = tmp_path / "local-path" / f"pvc-{uid}_default_data"
    left.mkdir(parents=True)
    (left / "file").write_text("kept")

    async def work() -> None:
        async with provisioner(api, tmp_path):
            made = await until(lambda: volume(api))
            assert made["spec"]["hostPath"]["path"] == str(left)
        # Cut off after the volume was made and before the claim was bound: the next one finds it.
        async with provisioner(api, tmp_path):
            await until(lambda: len([r for r in api.requests if r.method == "POST" and r.path == VOLUMES]) == 2)
            await until(lambda: len(api.all(EVENTS)) == 1)
        assert len(api.all(VOLUMES)) == 1
        assert (left / "file").read_text() == "kept"

    run(work())


def test_a_removal_that_was_cut_off_is_finished(api: FakeApi, tmp_path: Path) -> None:
    async def work() -> None:
        async with provisioner(api, tmp_path) as directory:
            api.put(CLAIM, claim())
            made = await until(lambda: volume(api))
        (directory / Path(made["spec"]["hostPath"]["path"]).name).rmdir()
        api.remove(CLAIM)
        release(api, made)
        async with provisioner(api, tmp_path):
            await until(lambda: volume(api) is None)

    run(work())


def test_errors_are_told_and_tried_again(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "_RETRY_FIRST", 0.01)

    async def work() -> None:
        async with provisioner(api, tmp_path) as directory:
            directory.rmdir()
            directory.write_text("in the way")
            stored = api.put(CLAIM, claim())
            await until(lambda: events(api))
            assert events(api)[0][1] == "ProvisioningFailed"
            assert str(directory) in events(api)[0][2]
            await until(lambda: api.all(EVENTS)[0]["count"] > 1)
            directory.unlink()
            made = await until(lambda: volume(api))
            assert made["spec"]["claimRef"]["uid"] == stored["metadata"]["uid"]

    run(work())


def test_something_else_in_the_place_of_a_volume_is_not_followed(api: FakeApi, tmp_path: Path) -> None:
    stored = api.put(CLAIM, claim())
    (tmp_path / "local-path").mkdir()
    (tmp_path / "outside").mkdir()
    link = tmp_path / "local-path" / f"pvc-{stored['metadata']['uid']}_default_data"
    link.symlink_to(tmp_path / "outside")

    async def work() -> None:
        async with provisioner(api, tmp_path):
            await until(lambda: events(api))
            assert "in the way" in events(api)[0][2]
            assert volume(api) is None

    run(work())


def test_an_api_server_that_refuses_for_a_while_is_waited_for(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "_RETRY_FIRST", 0.01)

    async def work() -> None:
        async with provisioner(api, tmp_path):
            for _ in range(3):
                api.answer_next(503, status(503, "ServiceUnavailable", "starting"))
            api.put(CLAIM, claim())
            await until(lambda: volume(api))

    run(work())


def test_long_names_fit_into_a_file_name(api: FakeApi, tmp_path: Path) -> None:
    long = "a" * 253

    async def work() -> None:
        async with provisioner(api, tmp_path) as directory:
            api.put(f"/api/v1/namespaces/{'n' * 63}/persistentvolumeclaims/{long}", claim())
            made = await until(lambda: volume(api))
            path = Path(made["spec"]["hostPath"]["path"])
            assert is_dir(path)
            assert path.parent == directory
            assert len(path.name) == 255

    run(work())


def test_the_storage_class_is_the_default_and_kinds_words() -> None:
    made = storage_class("standard")
    assert made["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert (made["provisioner"], made["volumeBindingMode"], made["reclaimPolicy"]) == (
        "rancher.io/local-path",
        "WaitForFirstConsumer",
        "Delete",
    )
    assert "annotations" not in storage_class("other", default=False)["metadata"]


def test_a_plan_pays_nothing_for_the_provisioner() -> None:
    code = "import sys, cinderctl.localpath.provisioner; sys.exit('asyncio' in sys.modules or 'aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
