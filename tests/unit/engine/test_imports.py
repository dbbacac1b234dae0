"""The engine is light, and needs none of the systems the kinds drive."""

from __future__ import annotations

import subprocess
import sys

import pytest

# deepdiff, networkx and the SDKs cost a tenth of a second each; psutil is for systems without /proc.
HEAVY = ["aiohttp", "deepdiff", "docker", "kubernetes", "networkx", "psutil", "pydantic", "rich", "typer", "wasmtime"]
MODULES = [
    *(f"cinderctl.engine.{name}" for name in ("kinds", "planner", "executor", "journal", "lock", "observe", "events")),
    *(f"cinderctl.plans.{name}" for name in ("planfile", "render_text", "render_json", "render_graph", "drift")),
]


@pytest.mark.parametrize("missing", ["docker,kubernetes,wasmtime", ""])
def test_core_plans_and_engine_import_without_the_heavy_ones(missing):
    code = (
        f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
        f"for name in {missing!r}.split(','): sys.modules[name] = None\n"
        f"for name in {MODULES!r}: __import__(name)\n"
        f"loaded = [name for name in {HEAVY!r} if sys.modules.get(name)]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
