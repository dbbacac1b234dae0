"""Speed and memory of cinderctl, beside a peer in the same run: `python benchmarks/run.py`.

Writes docs/benchmarks.md, and every single number as JSON in the temporary directory. Needs the upstream binaries in
the cache (`cinderctl binaries fetch`); fetches the peer's. `--quick` is a smoke run that leaves the page alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pods
from footprint import Footprint, observe
from peer import Peer
from report import Row, machine, p99, spread, table
from world import Failed, World, run, seconds_of

from cinderctl.binaries.catalog import KUBERNETES_VERSION
from cinderctl.binaries.ensure import ensure
from cinderctl.binaries.sources import Sources
from cinderctl.core.diagnostics import CinderError
from cinderctl.core.version import __version__

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "benchmarks.md"
NUMBERS = Path(tempfile.gettempdir()) / "cinderctl-benchmarks.json"
HELLO = REPOSITORY / "examples" / "hello-world"
MODULE = HELLO / "module" / "hello-world.wasm"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok", "kwokctl")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured. Times in seconds."""

    pairs: int = 5
    repeats: int = 10
    starts: int = 30
    pods: int = 50
    rate: float = 10.0
    settle: float = 20.0
    span: float = 20.0


QUICK = Extent(pairs=1, repeats=2, starts=5, pods=5, settle=2.0, span=3.0)


@dataclass(slots=True)
class Numbers:
    """Every measurement. Seconds, but for pods (milliseconds)."""

    apply: list[float] = field(default_factory=list)
    destroy: list[float] = field(default_factory=list)
    kwok_create: list[float] = field(default_factory=list)
    kwok_delete: list[float] = field(default_factory=list)
    no_op: list[float] = field(default_factory=list)
    plan: list[float] = field(default_factory=list)
    version: list[float] = field(default_factory=list)
    interpreter: list[float] = field(default_factory=list)
    sequential: pods.Latencies | None = None
    at_rate: pods.Latencies | None = None
    idle: list[Footprint] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    load: tuple[float, float] = (0.0, 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure cinderctl beside kwokctl.")
    parser.add_argument("--quick", action="store_true", help="a smoke run; the page goes to the temporary directory")
    parser.add_argument("--output", type=Path, help="where the page goes")
    arguments = parser.parse_args()
    extent = QUICK if arguments.quick else Extent()
    page = arguments.output or (Path(tempfile.gettempdir()) / "cinderctl-benchmarks.md" if arguments.quick else PAGE)
    # A SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    try:
        numbers = measure(extent)
    except (Failed, CinderError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    NUMBERS.write_text(json.dumps(asdict(numbers), indent=1) + "\n")
    page.write_text(render(numbers, extent, time.monotonic() - begun))
    say(f"wrote {page} and {NUMBERS}")
    return 0


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def measure(extent: Extent) -> Numbers:
    """Raises: Failed, CinderError."""
    numbers = Numbers()
    load = os.getloadavg()[0]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cinderctl"
    sources = Sources(cache=cache, environment=dict(os.environ))
    programs = ensure(PROGRAMS, sources, kubernetes_version=KUBERNETES_VERSION, progress=_progress())
    numbers.versions = {
        "cinderctl": __version__,
        "Kubernetes": KUBERNETES_VERSION,
        "etcd": programs["etcd"].parents[1].name,
        "kwok": programs["kwokctl"].parents[1].name,
    }
    for number in range(extent.pairs):
        pair(numbers, programs, last=number == extent.pairs - 1, extent=extent)
    numbers.load = (load, os.getloadavg()[0])
    return numbers


def _progress() -> Any:
    said: set[str] = set()

    def show(message: str, done: int | None = None, total: int | None = None) -> None:
        del done, total
        if message not in said:
            said.add(message)
            say(message)

    return show


def pair(numbers: Numbers, programs: dict[str, Path], *, last: bool, extent: Extent) -> None:
    """One cluster of ours, then one of the peer's. What needs a standing cluster is measured on the last of ours."""
    with World("bench") as ours:
        numbers.apply.append(ours.time("apply", "--auto-approve"))
        say(f"apply from nothing: {numbers.apply[-1]:.2f} s")
        _expect_nodes(ours, programs["kubectl"])
        if last:
            standing(ours, numbers, extent)
        numbers.destroy.append(ours.time("destroy", "--auto-approve"))
        say(f"destroy: {numbers.destroy[-1]:.2f} s")
        if left := ours.processes():
            raise Failed(f"destroy left processes: {[process.command for process in left]}")
    with Peer("bench", programs) as peer:
        numbers.kwok_create.append(peer.create())
        say(f"kwokctl create cluster: {numbers.kwok_create[-1]:.2f} s")
        numbers.kwok_delete.append(peer.delete())
        say(f"kwokctl delete cluster: {numbers.kwok_delete[-1]:.2f} s")


def _expect_nodes(world: World, kubectl: Path) -> None:
    """What was measured is what was promised. Raises: Failed."""
    nodes = json.loads(run([str(kubectl), "get", "nodes", "-o", "json"], world.env))["items"]
    ready = {
        node["metadata"]["name"]
        for node in nodes
        for condition in node["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    }
    if ready != {f"{world.name}-wasi", f"{world.name}-wascc"}:
        raise Failed(f"nodes that are Ready after apply: {sorted(ready)}")


def standing(world: World, numbers: Numbers, extent: Extent) -> None:
    """Warm commands, pods, and what it all takes at rest."""
    numbers.idle = observe(world, extent.settle, extent.span)
    say("measured memory and processor time at rest")
    for _ in range(extent.repeats):
        numbers.plan.append(world.time("plan"))
        numbers.no_op.append(world.time("apply", "--auto-approve"))
    say(f"plan: {statistics.median(numbers.plan):.2f} s, apply: {statistics.median(numbers.no_op):.2f} s")
    for _ in range(extent.starts):
        numbers.interpreter.append(seconds_of([sys.executable, "-c", "pass"], world.env))
        script = str(Path(sys.executable).parent / "cinderctl")
        numbers.version.append(seconds_of([script, "--version"], world.env))
    run(
        [world.argv("push")[0], "push", str(MODULE), f"localhost:{world.port}/hello-world:v1"],
        world.env,
        world.root,
    )
    image = f"{world.registry}:{world.port}/hello-world:v1"
    numbers.sequential, numbers.at_rate = pods.measure(world, HELLO / "k8s.yaml", image, extent.pods, extent.rate)
    say(f"pods: Running after {statistics.median(numbers.sequential.running):.1f} ms")


def render(numbers: Numbers, extent: Extent, seconds: float) -> str:
    """The page."""
    parts = [
        "# Benchmarks",
        "<!-- Written by `make bench`; edits are lost. -->",
        _introduction(seconds),
        "## The machine",
        "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in _surroundings(numbers))]),
        "## A cluster from nothing",
        _from_nothing(numbers, extent),
        "## A cluster that stands",
        _standing(numbers, extent),
        "## A pod",
        _pods(numbers, extent),
        "## At rest",
        _at_rest(numbers, extent),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(seconds: float) -> str:
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with `make bench`, which runs everything below in one go\n"
        f"({seconds / 60:.0f} minutes) and writes this page. A figure is the median, with the least and the most in\n"
        "brackets. Where there is a target, the last column says whether the median meets it."
    )


def _surroundings(numbers: Numbers) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in numbers.versions.items())
    load = f"{numbers.load[0]:.1f} before, {numbers.load[1]:.1f} after (1 minute; what else runs here disturbs)"
    return [*machine(), ("Versions", versions), ("Load", load)]


def _from_nothing(numbers: Numbers, extent: Extent) -> str:
    peer = statistics.median(numbers.kwok_create)
    ratios = [ours / theirs for ours, theirs in zip(numbers.apply, numbers.kwok_create, strict=True)]
    rows = [
        Row(
            "`cinderctl apply`",
            spread(numbers.apply, "s"),
            statistics.median(numbers.apply),
            peer,
            f"≤ kwokctl's {peer:.2f} s",
        ),
        Row("`kwokctl create cluster`", spread(numbers.kwok_create, "s"), peer),
        Row("ratio, pair by pair", spread(ratios, "×"), statistics.median(ratios)),
        Row("`cinderctl destroy`", spread(numbers.destroy, "s"), statistics.median(numbers.destroy), 2.0, "≤ 2 s"),
        Row("`kwokctl delete cluster`", spread(numbers.kwok_delete, "s"), statistics.median(numbers.kwok_delete)),
    ]
    return (
        "Each time in a new state directory, by a new process, with the binaries in the cache: cinderctl and\n"
        f"[kwokctl](https://kwok.sigs.k8s.io/) by turns, {extent.pairs} of each, with the same etcd and Kubernetes\n"
        "programs.\n"
        "They do not do the same: cinderctl makes a control plane with keys of its own for every part, TLS to etcd, a\n"
        "credential for every controller, a registry, a storage class and two WebAssembly nodes, and ends when both\n"
        "nodes are Ready and answer. `kwokctl create cluster --runtime binary --wait 60s` makes a control plane\n"
        "and a controller that simulates nodes, with no registry and no node, and ends when the API server is\n"
        "healthy.\n\n" + table(rows)
    )


def _standing(numbers: Numbers, extent: Extent) -> str:
    bare = statistics.median(numbers.interpreter)
    version = [value * 1e3 for value in numbers.version]
    rows = [
        Row("`plan` with nothing to do", spread(numbers.plan, "s"), statistics.median(numbers.plan), 0.8, "≤ 0.8 s"),
        Row("`apply` with nothing to do", spread(numbers.no_op, "s"), statistics.median(numbers.no_op), 1.0, "≤ 1 s"),
        Row(
            "`--version`",
            spread(version, "ms", 1),
            statistics.median(numbers.version) / bare,
            2.0,
            f"≤ 2 × `python -c pass` ({statistics.median(numbers.version) / bare:.2f} ×)",
        ),
        Row("`python -c pass`", spread([value * 1e3 for value in numbers.interpreter], "ms", 1), bare),
    ]
    return (
        f"Whole commands, from start to exit: {extent.repeats} of each, `--version` and the bare interpreter "
        f"{extent.starts}.\n\n" + table(rows)
    )


def _pods(numbers: Numbers, extent: Extent) -> str:
    if numbers.sequential is None or numbers.at_rate is None:
        return ""
    rows = []
    for how, seen in (("one by one", numbers.sequential), (f"{extent.rate:g} a second", numbers.at_rate)):
        for what, values, target in (("Running", seen.running, 30.0), ("Succeeded", seen.succeeded, 80.0)):
            rows += [
                Row(
                    f"create → {what}, {how}",
                    spread(values, "ms", 1),
                    statistics.median(values),
                    target,
                    f"≤ {target:g} ms",
                ),
                Row(f"create → {what}, {how}, p99", f"{p99(values):.1f} ms", p99(values)),
            ]
    return (
        f"{extent.pods} pods of the hello-world example (environment and a volume from ConfigMaps), the module in the\n"
        "node's cache, `restartPolicy: Never`, no service account token. From just before the create request to the\n"
        "event of a watch, so with scheduling and with every hop.\n"
        f"p99 is by nearest rank: of {extent.pods} values, the greatest.\n\n" + table(rows)
    )


def _at_rest(numbers: Numbers, extent: Extent) -> str:
    counted = [one for one in numbers.idle if one.role in {"supervisor of the cluster", "node agent"}]
    own = [one for one in numbers.idle if one.own]
    rss, cpu = sum(one.rss for one in counted), sum(one.cpu for one in own)
    rows = [
        Row(
            "the supervisor and two node agents, resident",
            f"{rss:.0f} MiB (PSS {sum(one.pss for one in counted):.0f} MiB)",
            rss,
            150.0,
            "≤ 150 MiB",
        ),
        Row(
            "all processes that are cinderctl's own code, resident",
            f"{sum(one.rss for one in own):.0f} MiB (PSS {sum(one.pss for one in own):.0f} MiB)",
            0.0,
        ),
        Row("processor time of cinderctl's own processes", f"{cpu:.2f} % of a core", cpu, 1.0, "≤ 1 %"),
    ]
    lines = ["| process | RSS MiB | PSS MiB | % of a core |", "|---|---|---|---|"]
    lines += [f"| {one.role} | {one.rss:.1f} | {one.pss:.1f} | {one.cpu:.2f} |" for one in numbers.idle]
    return (
        f"{extent.settle:g} s after the cluster was made, before any pod; processor time over the {extent.span:g} s\n"
        "after that. RSS counts shared pages in every process, PSS once in all.\n\n"
        + table(rows)
        + "\n\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    sys.exit(main())
