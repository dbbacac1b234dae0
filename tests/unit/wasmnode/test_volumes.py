"""Volumes and mounts: what lies where, with which mode, and that no link leads the agent astray."""

from __future__ import annotations

import asyncio
import os
import stat
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cinderctl.core.diagnostics import CinderError
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.endpoint import Endpoint
from cinderctl.wasmnode.beneath import beneath
from cinderctl.wasmnode.config import NodeConfig
from cinderctl.wasmnode.env import ContainerConfigError, PodFacts
from cinderctl.wasmnode.mounts import mounts_of
from cinderctl.wasmnode.objects import Objects
from cinderctl.wasmnode.payload import PayloadFile, write_payload
from cinderctl.wasmnode.podspec import Pod
from cinderctl.wasmnode.volumes import Volume, VolumeError, Volumes
from tests.fakes.apiserver import FakeApiServer, pod

FACTS = PodFacts("10.244.255.1", "10.244.1.7", memory=8 << 30, cpus=4)
MAPS = "/api/v1/namespaces/default/configmaps"
Body = Callable[[FakeApiServer, Volumes], Awaitable[Any]]


def with_volumes(config: NodeConfig, volumes: list[dict[str, Any]], body: Body) -> Any:
    async def inside() -> Any:
        async with FakeApiServer().serving() as api, AsyncKube(Endpoint(api.url)) as kube:
            subject = Pod(pod("p", uid="u", labels={"app": "x"}, volumes=volumes))
            return await body(api, Volumes(subject, config.pods_dir / "u", config, Objects(kube), FACTS))

    return asyncio.run(inside())


def made(config: NodeConfig, volume: dict[str, Any], *objects: tuple[str, dict[str, Any]]) -> Volume:
    async def body(api: FakeApiServer, volumes: Volumes) -> Volume:
        for collection, obj in objects:
            api.add(collection, obj)
        return (await volumes.set_up())["v"]

    found: Volume = with_volumes(config, [{"name": "v", **volume}], body)
    return found


def config_map(name: str = "cm", **data: str) -> tuple[str, dict[str, Any]]:
    return MAPS, {"metadata": {"name": name}, "data": data, "binaryData": {"raw": b64encode(b"\xff\0").decode()}}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_config_map_is_files_with_modes_and_binary_data(config: NodeConfig) -> None:
    volume = made(config, {"configMap": {"name": "cm", "defaultMode": 0o440}}, config_map(a="one", b="two"))
    assert volume.read_only
    assert (volume.path / "a").read_text() == "one"
    assert (volume.path / "raw").read_bytes() == b"\xff\0"
    assert mode_of(volume.path / "b") == 0o440


def test_items_choose_paths_and_modes(config: NodeConfig) -> None:
    items = [{"key": "a", "path": "deep/er/file", "mode": 0o400}]
    volume = made(config, {"configMap": {"name": "cm", "items": items}}, config_map(a="one", b="two"))
    assert (volume.path / "deep/er/file").read_text() == "one"
    assert mode_of(volume.path / "deep/er/file") == 0o400
    assert not (volume.path / "b").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        ({"configMap": {"name": "cm", "items": [{"key": "no", "path": "x"}]}}, "references non-existent key: no"),
        ({"nfs": {"server": "s"}}, "nfs are not supported"),
        ({"hostPath": {"path": "/no/such/path"}}, "does not exist"),
        ({"hostPath": {"path": "/etc/passwd", "type": "Directory"}}, "is not a directory"),
        ({"hostPath": {"path": "/dev/null"}}, "neither a file nor a directory"),
        ({"persistentVolumeClaim": {"claimName": "no"}}, 'persistentvolumeclaim "no" not found'),
    ],
)
def test_what_cannot_be_is_said_with_the_volumes_name(config: NodeConfig, source: dict[str, Any], message: str) -> None:
    with pytest.raises(CinderError) as caught:
        made(config, source, config_map(a="one"))
    assert 'volume "v"' in str(caught.value)
    assert message in str(caught.value)


def test_optional_sources_may_be_missing(config: NodeConfig) -> None:
    volume = made(config, {"configMap": {"name": "no", "optional": True}})
    assert [p.name for p in volume.path.iterdir() if not p.name.startswith("..")] == []


def test_a_projected_volume_joins_its_sources_and_renews_its_token(config: NodeConfig) -> None:
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    clock = [1_000_000.0]

    async def body(api: FakeApiServer, volumes: Volumes) -> None:
        api.add(MAPS, {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "PEM"}})
        volumes.now = lambda: clock[0]
        volume = (await volumes.set_up())["v"]
        assert (volume.path / "token").read_text() == "token-1"
        assert (volume.path / "ca.crt").read_text() == "PEM"
        assert (volume.path / "namespace").read_text() == "default"
        bound = next(r[2] for r in api.requests if r[1].endswith("/token"))
        assert bound["spec"]["boundObjectRef"]["uid"] == "u"
        assert not await volumes.refresh()
        clock[0] += 3000
        assert await volumes.refresh()
        assert (volume.path / "token").read_text() == "token-2"

    with_volumes(config, [{"name": "v", "projected": {"sources": sources}}], body)


def test_a_change_of_a_config_map_reaches_the_volume_in_one_step(config: NodeConfig) -> None:
    async def body(api: FakeApiServer, volumes: Volumes) -> None:
        api.add(*config_map(a="one", b="two"))
        volume = (await volumes.set_up())["v"]
        before = (volume.path / "..data").readlink()
        api.change(f"{MAPS}/cm", lambda obj: obj.update(data={"a": "changed", "c": "new"}))
        assert await volumes.refresh()
        assert (volume.path / "a").read_text() == "changed"
        assert (volume.path / "c").read_text() == "new"
        assert not (volume.path / "b").is_symlink()
        assert (volume.path / "..data").readlink() != before
        assert not (volume.path / before).exists()

    with_volumes(config, [{"name": "v", "configMap": {"name": "cm"}}], body)


def test_a_claim_leads_to_the_directory_of_its_volume(config: NodeConfig, tmp_path: Path) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}
    volume = made(
        config,
        {"persistentVolumeClaim": {"claimName": "data"}},
        ("/api/v1/namespaces/default/persistentvolumeclaims", claim),
        ("/api/v1/persistentvolumes", {"metadata": {"name": "pv"}, "spec": {"local": {"path": str(tmp_path)}}}),
    )
    assert volume.path == tmp_path
    assert not volume.read_only


def test_host_paths_are_made_when_asked_and_kept_within_the_allowed(config: NodeConfig, tmp_path: Path) -> None:
    inside = tmp_path / "allowed" / "new"
    limited = replace(config, host_path_prefixes=(str(tmp_path / "allowed"),))
    assert made(limited, {"hostPath": {"path": str(inside), "type": "DirectoryOrCreate"}}).path.is_dir()
    (tmp_path / "allowed" / "link").symlink_to("/etc")
    with pytest.raises(VolumeError, match="outside of what this node allows"):
        made(limited, {"hostPath": {"path": str(tmp_path / "allowed" / "link")}})


def container(*mounts: dict[str, Any]) -> dict[str, Any]:
    return {"name": "c", "volumeMounts": list(mounts)}


def test_mounts_are_directories_read_only_where_the_volume_or_the_mount_says_so(tmp_path: Path) -> None:
    volumes = {
        "cm": Volume("cm", tmp_path / "cm", read_only=True, ours=True),
        "data": Volume("data", tmp_path / "data"),
    }
    mounts = mounts_of(
        container(
            {"name": "cm", "mountPath": "/etc/app/"},
            {"name": "data", "mountPath": "/data"},
            {"name": "data", "mountPath": "/again", "readOnly": True},
        ),
        volumes,
        {},
        tmp_path,
    )
    assert [(m.guest, m.read_only) for m in mounts] == [("/etc/app", True), ("/data", False), ("/again", True)]


def test_a_sub_path_is_made_and_may_hold_variables(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    volumes = {"data": Volume("data", tmp_path / "data")}
    mount = {"name": "data", "mountPath": "/d", "subPathExpr": "$(POD)/logs"}
    (found,) = mounts_of(container(mount), volumes, {"POD": "p-0"}, tmp_path)
    assert found.host == str(tmp_path / "data/p-0/logs")
    assert Path(found.host).is_dir()


def test_a_single_file_of_a_config_map_gets_a_directory_of_its_own(tmp_path: Path) -> None:
    write_payload(tmp_path / "cm", {"app.conf": PayloadFile(b"x=1", 0o444), "other": PayloadFile(b"")})
    volumes = {"cm": Volume("cm", tmp_path / "cm", read_only=True, ours=True)}
    mount = {"name": "cm", "mountPath": "/etc/app/settings.conf", "subPath": "app.conf"}
    (found,) = mounts_of(container(mount), volumes, {}, tmp_path)
    assert (found.guest, found.read_only) == ("/etc/app", True)
    assert {p.name for p in Path(found.host).iterdir()} == {"settings.conf"}
    assert (Path(found.host) / "settings.conf").read_bytes() == b"x=1"


@pytest.mark.parametrize("sub", ["..", "a/../../b", "/etc"])
def test_a_sub_path_that_leaves_the_volume_is_refused(tmp_path: Path, sub: str) -> None:
    with pytest.raises(ContainerConfigError, match="leaves its volume"):
        mounts_of(
            container({"name": "d", "mountPath": "/d", "subPath": sub}), {"d": Volume("d", tmp_path)}, {}, tmp_path
        )


def test_a_link_a_guest_made_is_never_followed(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "escape").symlink_to("../secret")
    (tmp_path / "secret").mkdir()
    for sub in ("escape", "escape/deeper"):
        with pytest.raises(CinderError, match="link"):
            beneath(volume, sub, create=True)
    assert not (tmp_path / "secret" / "deeper").exists()


def test_a_pipe_in_a_volume_is_no_mount(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CinderError, match="neither a file nor a directory"):
        beneath(tmp_path, "pipe", create=False)
