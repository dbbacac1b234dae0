"""Processes that die, agents that go, files that rot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from pathlib import Path

import pytest

from cinderctl.wasmrun.client import RuntimeClient, RuntimeGoneError
from cinderctl.wasmrun.confine import hold_lock
from cinderctl.wasmrun.protocol import Mount, RunState
from tests.unit.wasmrun.guests import Runtime, Watcher, gone, watching


def crash(pid: int) -> None:
    """wasmtime's handler lets the first fault that is not wasm's through to the default action of the next."""
    os.kill(pid, signal.SIGSEGV)
    if not gone(pid, within=0.2):
        os.kill(pid, signal.SIGSEGV)


def test_runs_outlive_the_agent_and_the_next_one_finds_them(runtime: Runtime) -> None:
    async def check() -> None:
        spec, short = runtime.spec("sleep"), runtime.spec("exit", "3")
        async with watching(runtime) as watcher:
            await watcher.client.run(spec)
            await watcher.client.run(short)
        async with watching(runtime) as watcher:
            listed = {s.id: s for s in await watcher.client.list()}
            assert listed[spec.id].state == "running"
            if not listed[short.id].over:
                await watcher.end(short.id)
            assert {s.id: s.exit_code for s in await watcher.client.list()}[short.id] == 3
            await watcher.client.stop(spec.id, 0)
            assert (await watcher.end(spec.id)).exit_code == 143

    asyncio.run(check())


def test_a_crashed_shard_takes_its_runs_along_and_nobody_elses(runtime: Runtime) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            victim, other = runtime.spec("sleep"), runtime.spec("sleep", workload_class="isolated", group="other")
            await watcher.client.run(victim)
            await watcher.client.run(other)
            crash((await watcher.state(victim.id, "running")).shard)
            state = await watcher.end(victim.id)
            assert (state.state, state.exit_code, state.reason) == ("finished", 139, "Error")
            assert "SIGSEGV" in state.message
            assert {s.id: s.state for s in await watcher.client.list()}[other.id] == "running"
            assert (await watcher.run(runtime.spec("exit", "4"))).exit_code == 4
            await watcher.client.stop(other.id, 0)
            await watcher.end(other.id)

    asyncio.run(check())


def is_opening(process: int) -> bool:
    """Whether a thread sits in a call that opens a file (proc(5), syscall)."""
    calls = {(task / "syscall").read_text().split()[0] for task in Path(f"/proc/{process}/task").iterdir()}
    return bool(calls & {"2", "257", "56", "437"})  # open, openat on x86-64 and on arm64, openat2


async def until_opening(process: int) -> None:
    """A guest that is reported as running may not have come to its open yet."""
    async with asyncio.timeout(10):
        while not is_opening(process):  # noqa: ASYNC110 - the kernel tells nobody when a call begins
            await asyncio.sleep(0.005)


def test_what_cannot_be_interrupted_is_killed_with_its_shard_and_siblings_are_lost(
    runtime: Runtime, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def check() -> None:
        async with watching(runtime) as watcher:
            sibling = runtime.spec("sleep", group="stuck")
            stuck = runtime.spec("open", "fifo", group="stuck", mounts=(Mount(str(tmp_path), "/v", True),))
            await watcher.client.run(sibling)
            await watcher.client.run(stuck)
            first = await watcher.state(stuck.id, "running")
            await until_opening(first.shard)
            await watcher.client.stop(stuck.id, 0.0)
            state = await watcher.end(stuck.id)
            assert (state.exit_code, state.reason) == (137, "Error")
            lost = await watcher.end(sibling.id)
            assert (lost.state, lost.reason, lost.exit_code) == ("lost", "ShardRetired", None)
            assert gone(first.shard)
            again = await watcher.run(runtime.spec("exit", "5"))
            assert again.exit_code == 5
            assert again.shard != first.shard

    asyncio.run(check())


def test_outcomes_survive_the_runtimes_death_and_what_ran_is_lost(own_runtime: Runtime) -> None:
    async def before() -> tuple[RunState, RunState]:
        async with watching(own_runtime) as watcher:
            ended = await watcher.run(own_runtime.spec("exit", "9", id="ended"))
            await watcher.client.run(own_runtime.spec("sleep", id="asleep"))
            running = await watcher.state("asleep", "running")
            own_runtime.kill()
            async with asyncio.timeout(5):
                await watcher.task
            assert watcher.client.closed
            with pytest.raises(RuntimeGoneError):
                await watcher.client.list()
            return ended, running

    async def after(ended: RunState) -> None:
        async with watching(own_runtime) as watcher:
            listed = {s.id: s for s in await watcher.client.list()}
            assert listed["ended"] == ended
            assert (listed["asleep"].state, listed["asleep"].reason) == ("lost", "RuntimeDied")
            again = await watcher.client.run(own_runtime.spec("exit", "9", id="ended"))
            assert again == ended
            assert (await watcher.client.run(own_runtime.spec("sleep", id="asleep"))).state == "lost"

    ended, running = asyncio.run(before())
    assert gone(running.shard)
    own_runtime.start()
    asyncio.run(after(ended))
    assert own_runtime.stop() == 0
    assert not own_runtime.socket.exists()


def test_a_stopped_runtime_ends_its_shards_and_records_them_as_lost(own_runtime: Runtime) -> None:
    async def before() -> RunState:
        async with watching(own_runtime) as watcher:
            await watcher.client.run(own_runtime.spec("spin", id="spinning"))
            return await watcher.state("spinning", "running")

    async def after() -> None:
        async with watching(own_runtime) as watcher:
            assert {s.id: s.state for s in await watcher.client.list()} == {"spinning": "lost"}

    running = asyncio.run(before())
    assert own_runtime.stop() == 0
    assert gone(running.shard)
    own_runtime.start()
    asyncio.run(after())


def test_a_flipped_byte_in_compiled_code_is_noticed_and_compiled_anew(runtime: Runtime) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            module = runtime.module("divide")
            await watcher.client.prepare(module.path, module.digest)
            (code,) = (runtime.directory / "state/compiled").glob(f"{module.digest[7:]}-*.cwasm")
            assert stat.S_IMODE(code.parent.stat().st_mode) == 0o700
            whole = code.read_bytes()
            data = bytearray(whole)
            data[len(data) // 2] ^= 1
            code.write_bytes(data)
            state = await watcher.run(runtime.spec("divide"))
            assert "INTEGER_DIVISION_BY_ZERO" in state.message
            assert [s.state for s in watcher.seen[state.id]] == ["compiling", "running", "finished"]
            assert code.read_bytes() == whole
            assert "was damaged on disk" in runtime.said()

    asyncio.run(check())


def test_a_stop_while_compiling_ends_a_run_that_never_began(runtime: Runtime, tmp_path: Path) -> None:
    async def check() -> None:
        async with watching(runtime) as watcher:
            spec = runtime.spec("recurse")
            with contextlib.suppress(OSError):
                for found in (runtime.directory / "state/compiled").glob(f"{spec.digest[7:]}-*"):
                    found.unlink()
            starting = asyncio.create_task(watcher.client.run(spec))
            await asyncio.sleep(0)
            await watcher.client.stop(spec.id, 0)
            async with asyncio.timeout(5):
                state = await starting
            state = state if state.over else await watcher.end(spec.id)
            assert state.exit_code in (143, 134)  # stopped while compiling, or faster than the stop

    asyncio.run(check())


def test_a_runtime_says_what_it_is_and_offers_only_what_its_self_test_proved(runtime: Runtime) -> None:
    async def check() -> None:
        async with await RuntimeClient.connect(runtime.socket, 10.0) as client:
            info = await client.info()
            assert info["classes"] == ["shared", "isolated"]
            assert set(info["selftest"].values()) == {"ok"}
            assert runtime.process is not None
            assert info["pid"] == runtime.process.pid
        assert stat.S_IMODE(runtime.socket.stat().st_mode) == 0o600

    asyncio.run(check())


def test_two_runtimes_never_work_in_one_directory(tmp_path: Path) -> None:
    first = hold_lock(tmp_path / "lock", 0.0)
    with pytest.raises(TimeoutError, match="another wasm runtime"):
        hold_lock(tmp_path / "lock", 0.05)
    os.close(first)
    os.close(hold_lock(tmp_path / "lock", 0.0))


def test_no_runtime_is_a_clear_error(tmp_path: Path) -> None:
    async def check() -> None:
        with pytest.raises(RuntimeGoneError, match="does not answer"):
            await RuntimeClient.connect(tmp_path / "none", 0.0)

    asyncio.run(check())


def test_a_client_that_talks_nonsense_is_dropped_and_others_go_on(runtime: Runtime) -> None:
    async def check() -> None:
        reader, writer = await asyncio.open_unix_connection(str(runtime.socket))
        writer.write(b"\xff\xff\xff\xffGET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        async with await RuntimeClient.connect(runtime.socket, 10.0) as client:
            watcher = Watcher(client)
            assert (await watcher.run(runtime.spec("exit", "6"))).exit_code == 6
            watcher.task.cancel()

    asyncio.run(check())


def test_a_guest_that_opens_all_it_can_keeps_nobody_from_starting(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in")

    async def check() -> None:
        async with watching(runtime) as watcher:
            hog = runtime.spec("hog", group="hog", mounts=(Mount(str(tmp_path), "/v", True),))
            await watcher.client.run(hog)
            async with asyncio.timeout(10):
                while not runtime.log(hog):  # noqa: ASYNC110 (a file tells nobody)
                    await asyncio.sleep(0.01)
            sibling = await watcher.run(runtime.spec("exit", "8", group="hog"))
            assert sibling.exit_code == 8
            assert sibling.shard != watcher.seen[hog.id][-1].shard
            await watcher.client.stop(hog.id, 1)
            state = await watcher.end(hog.id)
            assert state.exit_code == 143
            outcomes = {s.id: s for s in await watcher.client.list()}
            assert outcomes[hog.id] == state

    asyncio.run(check())
