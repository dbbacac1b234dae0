"""Pull policies, credentials, local modules, the store: what a pod's `image` leads to."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from cinderctl.wasmnode.images import Ensured, ImageError, ImageStore
from tests.fakes.apiserver import pod
from tests.unit.wasmnode.conftest import FakePuller, Lab, Run

HELLO = "registry.example/hello:v1"


def store(root: Path, puller: FakePuller, **options: Any) -> ImageStore:
    options.setdefault("allow_local", False)
    return ImageStore(root, puller, on_error=lambda error: None, **options)


def ensure(images: ImageStore, reference: str = HELLO, policy: str = "IfNotPresent") -> Ensured:
    async def inside() -> Ensured:
        return await images.ensure(reference, policy, [], lambda: None)

    return asyncio.run(inside())


def test_a_module_is_kept_by_the_digest_of_its_bytes_and_found_again_after_a_restart(tmp_path: Path) -> None:
    puller = FakePuller()
    first = ensure(store(tmp_path, puller))
    assert first.path.read_bytes() == b"\0asm1"
    assert first.image.digest == "sha256:" + hashlib.sha256(b"\0asm1").hexdigest()
    assert first.seconds is not None
    second = ensure(store(tmp_path, puller))
    assert second.seconds is None
    assert puller.pulls == [HELLO]


def test_always_asks_the_registry_and_pulls_only_what_changed(tmp_path: Path) -> None:
    puller = FakePuller()
    images = store(tmp_path, puller)
    ensure(images, policy="Always")
    ensure(images, policy="Always")
    assert (len(puller.pulls), len(puller.resolved)) == (1, 1)
    puller.images[HELLO] = b"\0asm2"
    assert ensure(images, policy="Always").path.read_bytes() == b"\0asm2"
    assert len(puller.pulls) == 2


def test_never_runs_only_what_is_there(tmp_path: Path) -> None:
    puller = FakePuller()
    images = store(tmp_path, puller)
    with pytest.raises(ImageError) as caught:
        ensure(images, policy="Never")
    assert caught.value.reason == "ErrImageNeverPull"
    ensure(images)
    assert ensure(images, policy="Never").seconds is None


def test_a_name_that_is_none_and_an_image_that_is_not_there_have_reasons_of_their_own(tmp_path: Path) -> None:
    images = store(tmp_path, FakePuller())
    for reference, reason in (("no good:x", "InvalidImageName"), ("registry.example/none:v1", "ErrImagePull")):
        with pytest.raises(ImageError) as caught:
            ensure(images, reference)
        assert caught.value.reason == reason


def test_many_pods_share_one_pull(tmp_path: Path) -> None:
    puller = FakePuller()
    images = store(tmp_path, puller)

    async def inside() -> None:
        await asyncio.gather(*(images.ensure(HELLO, "IfNotPresent", [], lambda: None) for _ in range(20)))

    asyncio.run(inside())
    assert puller.pulls == [HELLO]


def test_local_modules_only_where_the_node_allows_them(tmp_path: Path) -> None:
    module = tmp_path / "My Module.wasm"
    module.write_bytes(b"\0asm local")
    with pytest.raises(ImageError, match="allowLocalModules"):
        ensure(store(tmp_path / "a", FakePuller()), f"fs/{module}")
    images = store(tmp_path / "b", FakePuller(), allow_local=True)
    assert ensure(images, f"fs/{module}").path.read_bytes() == b"\0asm local"
    module.write_bytes(b"\0asm newer")
    assert ensure(images, f"fs/{module}").path.read_bytes() == b"\0asm newer"
    with pytest.raises(ImageError, match="none"):
        ensure(images, "fs//none/such.wasm")


def test_a_damaged_index_costs_a_pull_and_no_more(tmp_path: Path) -> None:
    puller = FakePuller()
    ensure(store(tmp_path, puller))
    (tmp_path / "index.json").write_text("{")
    ensure(store(tmp_path, puller))
    assert len(puller.pulls) == 2


def test_modules_nobody_uses_go_when_they_are_old(tmp_path: Path) -> None:
    clock = [2_000_000_000.0]
    puller = FakePuller(images={HELLO: b"\0asm1", "registry.example/other:v1": b"\0asm22"})
    images = store(tmp_path, puller, now=lambda: clock[0])
    kept, gone = ensure(images), ensure(images, "registry.example/other:v1")
    clock[0] += 100
    assert images.collect(frozenset(), minimum_age=200) == 0
    assert images.collect(frozenset({HELLO}), minimum_age=50) == len(b"\0asm22")
    assert kept.path.exists()
    assert not gone.path.exists()


def test_pull_secrets_of_the_pod_are_used_and_missing_ones_passed_over(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.api.add("/api/v1/namespaces/default/secrets", {"metadata": {"name": "login"}, "data": {}})
        async with lab.agent():
            path = lab.api.add_pod(pod("p", imagePullSecrets=[{"name": "login"}, {"name": "missing"}]))
            await lab.phase(path, "Running")
        assert lab.puller.secrets == [["login"]]

    run_lab(body)
