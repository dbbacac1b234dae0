from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.wasmrun.guests import Runtime


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """One runtime for the tests of a module that do not harm it."""
    found = Runtime(tmp_path_factory.mktemp("wasm"))
    found.start()
    yield found
    found.kill()


@pytest.fixture
def own_runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A runtime the test may kill."""
    found = Runtime(tmp_path / "wasm")
    found.start()
    yield found
    found.kill()
