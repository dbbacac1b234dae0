"""One spec with many mistakes, and all that is said about it. CINDERCTL_ACCEPT=1 writes what is said now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cinderctl.core.diagnostics import SpecError
from cinderctl.spec.diagnostics import SpecDiagnostic
from cinderctl.spec.load import load

GOLDEN = Path(__file__).parent / "golden"


def test_everything_that_is_said_about_a_bad_spec() -> None:
    with pytest.raises(SpecError) as caught:
        load(["all_at_once.yaml"], cwd=GOLDEN)
    said = "\n".join(block(problem) for problem in caught.value.diagnostics)
    expected = GOLDEN / "all_at_once.txt"
    if os.environ.get("CINDERCTL_ACCEPT"):
        expected.write_text(said)
    assert said == expected.read_text()


def block(problem: object) -> str:
    assert isinstance(problem, SpecDiagnostic)
    detail = problem.detail.replace(str(GOLDEN), "GOLDEN")
    lines = [f"{problem.severity}: {problem.summary}", f"{problem.source}  {problem.field}", detail, problem.hint]
    return "".join(f"{line}\n" for line in lines if line.strip())
