"""The built package is the tree: one namespace from three roots, every module in it. Nothing heavy is imported where
it must not be."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = [REPOSITORY / part / "cinderctl" for part in ("engine", "plans", "resources")]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )


def modules_of(*packages: str) -> list[str]:
    """Every module of the tree by its dotted name; all packages when none is named."""
    names = []
    for root in ROOTS:
        for path in root.rglob("*.py"):
            parts = path.relative_to(root.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not packages or parts[1] in packages:
                names.append(name)
    return sorted(names)


def packages_of(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.parent.name)
def test_the_namespace_has_no_init(root):
    """One would hide the other two roots."""
    assert not (root / "__init__.py").exists()
    assert packages_of(root)


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.parent.name)
def test_every_package_says_what_belongs_in_it_and_is_typed(root):
    for package in packages_of(root):
        init = package / "__init__.py"
        assert init.exists(), package
        assert init.read_text().startswith('"""'), init
        assert (package / "py.typed").exists(), package
    code_directories = {path.parent for path in root.rglob("*.py")}
    assert not [path for path in code_directories if not (path / "__init__.py").exists()]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A directory with the sdist, and with the wheel that was made from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def tree() -> set[str]:
    """What a wheel must hold, as it was before the build."""
    wanted = set()
    for root in ROOTS:
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                wanted.add(path.relative_to(root.parent).as_posix())
    return wanted


@pytest.fixture(scope="module")
def wheel(tree, built) -> list[str]:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_has_one_top_level_name(wheel):
    assert {name.partition("/")[0] for name in wheel if ".dist-info/" not in name} == {"cinderctl"}


def test_the_wheel_has_every_file_of_the_tree_once(tree, wheel):
    assert tree - set(wheel) == set()
    assert len(wheel) == len(set(wheel))


def test_the_wheel_is_typed_and_holds_the_locks_of_what_is_built(wheel):
    packages = {package.name for root in ROOTS for package in packages_of(root)}
    assert {name.split("/")[1] for name in wheel if name.endswith("/py.typed")} == packages
    locks = {name.removeprefix("cinderctl/binaries/locks/") for name in wheel if "/binaries/locks/" in name}
    for project in ("etcd", "kubernetes", "registry"):
        assert {f"{project}/go.mod", f"{project}/go.sum"} <= locks


def test_the_wheel_has_a_command_and_a_licence(built, wheel):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (entry,) = [name for name in wheel if name.endswith("entry_points.txt")]
        assert "cinderctl = cinderctl.cli.app:main" in archive.read(entry).decode()
    assert [name for name in wheel if name.endswith("/licenses/LICENSE")]


def test_the_sdist_has_what_its_readers_need(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "examples/hello-world/cluster.yaml"} <= names
    assert not [name for name in names if name.startswith((".git/", ".venv/", "site/")) or "__pycache__" in name]


BLOCKED = """
import importlib, json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"docker", "kubernetes", "wasmtime", "aiohttp"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""


def test_core_spec_plans_and_engine_need_no_client_of_anything():
    names = modules_of("core", "spec", "plans", "engine")
    assert len(names) > 20
    done = python(BLOCKED, *names)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_what_runs_for_days_imports_nothing_heavy():
    code = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = {"kubernetes", "wasmtime", "pydantic", "requests", "rich", "typer", "docker", "networkx", "deepdiff"}
print(sorted(heavy & set(sys.modules)))
"""
    for long_lived in ("cinderctl.cli.supervise", "cinderctl.host.supervisor", "cinderctl.wasmnode.__main__"):
        done = python(code, long_lived)
        assert (done.stdout, done.stderr) == ("[]\n", ""), long_lived


def test_asking_for_the_version_imports_next_to_nothing():
    code = """
import sys
sys.argv = ["cinderctl", "--version"]
from cinderctl.cli.app import main
main()
print(sorted(name for name in sys.modules if name.partition(".")[0] == "cinderctl"))
print(sorted({"typer", "click", "pydantic", "rich", "asyncio"} & set(sys.modules)))
"""
    done = python(code)
    version, ours, heavy = done.stdout.splitlines()
    assert version.startswith("cinderctl ")
    assert ours == str(["cinderctl", "cinderctl.cli", "cinderctl.cli.app", "cinderctl.core", "cinderctl.core.version"])
    assert heavy == "[]"


EXPORTS = """
import importlib, json, sys
problems = []
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        if not getattr(module, "__path__", None) and not name.endswith("__main__"):
            problems.append(f"{name} has no __all__")
        continue
    problems += [f"{name}.{each} does not exist" for each in exported if not hasattr(module, each)]
print(json.dumps(problems))
"""


def test_every_module_imports_and_exports_what_it_says():
    done = python(EXPORTS, *modules_of())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
