"""What a pod's author and the node agent rely on, with real modules in a real runtime."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from cinderctl.wasmrun.client import RuntimeRefusedError
from cinderctl.wasmrun.protocol import Mount
from tests.unit.wasmrun.guests import ROOT, Runtime, module_file, watching


def test_every_exit_code_is_reported_from_many_guests_at_once(runtime: Runtime) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            specs = {code: runtime.spec("exit", str(code)) for code in (*range(256), 256, 511, 4294967295)}
            await asyncio.gather(*(watcher.client.run(spec) for spec in specs.values()))
            states = {code: await watcher.end(spec.id) for code, spec in specs.items()}
            assert {code: s.exit_code for code, s in states.items()} == {code: code & 255 for code in specs}
            assert {s.reason for code, s in states.items() if code & 255 == 0} == {"Completed"}
            assert {s.reason for code, s in states.items() if code & 255} == {"Error"}

    asyncio.run(check())


@pytest.mark.parametrize(
    ("guest", "code", "reason", "message"),
    [
        ("recurse", 134, "Error", "trap STACK_OVERFLOW"),
        ("bounds", 134, "Error", "trap MEMORY_OUT_OF_BOUNDS"),
        ("divide", 134, "Error", "trap INTEGER_DIVISION_BY_ZERO"),
        ("grow", 137, "OOMKilled", "trap UNREACHABLE"),
        ("large", 137, "OOMKilled", "memory minimum size"),
        ("collect", 137, "OOMKilled", "GC heap"),
    ],
)
def test_a_guest_that_fails_says_how(runtime: Runtime, guest: str, code: int, reason: str, message: str) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            state = await watcher.run(runtime.spec(guest, memory_limit=16 << 20))
            assert (state.exit_code, state.reason) == (code, reason)
            assert message in state.message
            assert len(state.message) <= 4096
            assert [s.state for s in watcher.seen[state.id]][-2:] == ["running", "finished"]

    asyncio.run(check())


def test_outcomes_of_guests_that_end_together_are_not_mixed_up(runtime: Runtime) -> None:
    async def check() -> None:
        wanted = {"bounds": 134, "divide": 134, "exit": 7}
        async with watching(runtime) as watcher:
            specs = [runtime.spec(name, "7") for _ in range(67) for name in wanted]
            await asyncio.gather(*(watcher.client.run(spec) for spec in specs))
            for name, spec in zip([n for _ in range(67) for n in wanted], specs, strict=True):
                state = await watcher.end(spec.id)
                assert state.exit_code == wanted[name]
                assert ("OUT_OF_BOUNDS" in state.message) == (name == "bounds")
                assert ("DIVISION" in state.message) == (name == "divide")

    asyncio.run(check())


@pytest.mark.parametrize("guest", ["sleep", "spin"])
def test_stop_interrupts_at_once(runtime: Runtime, guest: str) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            sibling = runtime.spec("sleep", group=f"pod of {guest}")
            spec = runtime.spec(guest, group=f"pod of {guest}")
            await watcher.client.run(sibling)
            await watcher.client.run(spec)
            await watcher.state(spec.id, "running")
            begun = time.monotonic()
            await watcher.client.stop(spec.id, 30)
            state = await watcher.end(spec.id)
            assert time.monotonic() - begun < 2.0
            assert (state.exit_code, state.reason) == (143, "Error")
            listed = {s.id: s for s in await watcher.client.list()}
            assert listed[sibling.id].state == "running"
            assert listed[sibling.id].shard == state.shard
            await watcher.client.stop(sibling.id, 0)
            await watcher.end(sibling.id)

    asyncio.run(check())


def test_an_absolute_sleep_on_the_monotonic_clock_takes_its_time(runtime: Runtime) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            assert (await watcher.run(runtime.spec("nap"))).exit_code == 0

    asyncio.run(check())


def test_the_log_joins_split_writes_and_keeps_the_order_of_both_streams(runtime: Runtime) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            spec = runtime.spec("say", "1one", "1\n", "2warn\n", "1two\nthr", "2un", "1ee\n", "2finished", "1end")
            assert (await watcher.run(spec)).exit_code == 0
            assert runtime.log(spec) == [
                ("stdout", "F", "one"),
                ("stderr", "F", "warn"),
                ("stdout", "F", "two"),
                ("stdout", "F", "three"),
                ("stdout", "F", "end"),
                ("stderr", "F", "unfinished"),
            ]

    asyncio.run(check())


def test_a_flood_is_logged_whole_in_rotated_files_and_the_oldest_go(runtime: Runtime) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            spec = runtime.spec("flood", log_limit_bytes=4 << 20, log_files=8)
            assert (await watcher.run(spec)).exit_code == 0
            files = sorted(Path(spec.log).parent.glob(f"{Path(spec.log).name}*"))
            assert sum(file.read_bytes().count(b" stdout F a line of one hundred") for file in files) == 100_000
            assert all(file.stat().st_size <= 4 << 20 for file in files)
            short = runtime.spec("flood", log_limit_bytes=1 << 20, log_files=2)
            await watcher.run(short)
            assert len(list(Path(short.log).parent.glob(f"{Path(short.log).name}*"))) == 2

    asyncio.run(check())


def test_guests_see_their_mounts_only_and_write_only_where_they_may(runtime: Runtime, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "in").write_text("in")
    (tmp_path / "secret").write_text("secret")
    (volume / "out").symlink_to(tmp_path / "secret")
    rw, ro = (Mount(str(volume), "/v", False),), (Mount(str(volume), "/v", True),)

    async def check() -> None:
        async with watching(runtime) as watcher:

            async def errno(*argv: str, mounts: tuple[Mount, ...]) -> int | None:
                return (await watcher.run(runtime.spec("open", *argv, mounts=mounts))).exit_code

            assert await errno("in", mounts=ro) == 0
            assert await errno("none", mounts=ro) == 44
            assert await errno("new", "create", mounts=rw) == 0
            assert await errno("new2", "create", mounts=ro) in (63, 69)
            for path in ("../secret", "out", "/etc/passwd"):
                assert await errno(path, mounts=rw) == 63
            assert await errno("in", mounts=()) == 8
            missing = runtime.spec("open", "in", mounts=(Mount(str(tmp_path / "nowhere"), "/v", True),))
            state = await watcher.run(missing)
            assert (state.exit_code, state.reason) == (128, "StartError")
            assert "nowhere" in state.message
        assert (volume / "new").exists()
        assert not (volume / "new2").exists()

    asyncio.run(check())


def test_what_cannot_run_is_refused_with_the_reason(runtime: Runtime, tmp_path: Path) -> None:
    magic = b"\0asm"
    cases = [
        (module_file(tmp_path, b"#!/bin/sh\n"), "NotWasm", "asm"),
        (module_file(tmp_path, magic + b"\x0d\0\x01\0"), "IsComponent", "component"),
        (module_file(tmp_path, magic + b"\x01\0\0\0\xff\xff"), "CompileFailed", "invalid"),
        (runtime.module("foreign"), "NotRunnable", "wapc.__guest_request, env.magic"),
        (runtime.module("library"), "NotRunnable", "_start"),
    ]

    async def check() -> None:
        async with watching(runtime) as watcher:
            for module, reason, words in cases:
                spec = runtime.spec(module)
                with pytest.raises(RuntimeRefusedError) as caught:
                    await watcher.client.run(spec)
                assert caught.value.reason == reason
                assert words in caught.value.message
                with pytest.raises(RuntimeRefusedError):
                    await watcher.client.prepare(module.path, module.digest)
            other = runtime.module("exit").digest
            absent = tmp_path / "absent.wasm"
            for path, digest in ((cases[0][0].path, "sha256:" + "0" * 64), (str(absent), "sha256:" + "1" * 64)):
                with pytest.raises(RuntimeRefusedError) as caught:
                    await watcher.client.prepare(path, digest)
                assert caught.value.reason == "BadArgument"
            for bad in (
                runtime.spec("exit", "1\0"),
                runtime.spec("exit", id="../x"),
                runtime.spec("exit", env=(("A=B", ""),)),
                runtime.spec("exit", workload_class="http"),
            ):
                with pytest.raises(RuntimeRefusedError) as caught:
                    await watcher.client.run(bad)
                assert caught.value.reason == "BadArgument"
            assert other not in {s.id for s in await watcher.client.list()}
            assert not [s for s in await watcher.client.list() if s.state == "compiling"]

    asyncio.run(check())


def test_the_same_id_is_never_run_twice(runtime: Runtime) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            spec = runtime.spec("say", "1once\n")
            first = await watcher.run(spec)
            assert await watcher.client.run(spec) == first
            assert len(runtime.log(spec)) == 1
            await watcher.client.forget(spec.id)
            await watcher.client.forget(spec.id)
            assert spec.id not in {s.id for s in await watcher.client.list()}

    asyncio.run(check())


def test_isolated_groups_have_a_process_each_and_containers_of_a_pod_share_one(runtime: Runtime) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            specs = [runtime.spec("sleep", workload_class="isolated", group=g) for g in ("a", "a", "b")]
            for spec in specs:
                await watcher.client.run(spec)
            with pytest.raises(RuntimeRefusedError):
                await watcher.client.forget(specs[0].id)
            shards = [(await watcher.state(spec.id, "running")).shard for spec in specs]
            assert shards[0] == shards[1] != shards[2]
            check_confined(Path(f"/proc/{shards[0]}"), runtime)
            for spec in specs:
                await watcher.client.stop(spec.id, 1)
            for spec in specs:
                await watcher.end(spec.id)

    asyncio.run(check())


def check_confined(process: Path, runtime: Runtime) -> None:
    assert "Max open files            4096" in (process / "limits").read_text()
    assert "NoNewPrivs:\t1" in (process / "status").read_text()
    assert int((process / "oom_score_adj").read_text()) >= 500
    links = [os.readlink(link) for link in (process / "fd").iterdir() if int(link.name) > 2]  # noqa: PTH115
    # its channel, and its epoll; not the runtime's listener, clients, other shards or caches
    assert sum(link.startswith("socket:") for link in links) == 1
    assert {link for link in links if link.startswith("/")} <= {
        str(runtime.directory / "state/lock"),
        *(str(log) for log in runtime.directory.glob("run-*.log")),
        *(link for link in links if link.startswith("/memfd:")),  # wasmtime's images of initial memory
    }


def test_the_hello_world_example_prints_what_its_readme_promises(runtime: Runtime, tmp_path: Path) -> None:
    module = ROOT / "examples/hello-world/module/hello-world.wasm"
    (tmp_path / "bacon_ipsum.txt").write_text("Bacon ipsum dolor amet\n")
    mounts = (Mount(str(tmp_path), "/mnt/storage", True),)

    async def check() -> None:
        async with watching(runtime) as watcher:
            wasm = module_file(tmp_path, module.read_bytes())
            spec = runtime.spec(wasm, env=(("FOO", "bar"), ("POD_NAME", "hello")), mounts=mounts)
            assert (await watcher.run(spec)).exit_code == 0
            assert [(stream, text) for stream, _, text in runtime.log(spec)] == [
                ("stdout", "hello from stdout!"),
                ("stderr", "hello from stderr!"),
                ("stdout", "FOO=bar"),
                ("stdout", "POD_NAME=hello"),
                ("stdout", "Args are: []"),
                ("stdout", ""),
                ("stdout", "Bacon ipsum dolor amet"),
            ]
            without = runtime.spec(wasm, "a", 'b"c')
            assert (await watcher.run(without)).exit_code == 1
            assert ("stdout", "F", 'Args are: ["a", "b\\"c"]') in runtime.log(without)
            assert runtime.log(without)[-1][0] == "stderr"

    asyncio.run(check())
