"""How a problem reads: what, where, why, what to do."""

from __future__ import annotations

import json

from cinderctl.cli.diagnostics import as_json, as_text
from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, Severity
from cinderctl.spec.diagnostics import SpecDiagnostic

MIRROR = SpecDiagnostic(
    "registry mirror endpoint has no scheme",
    detail="The endpoint must be a full URL; a plain name cannot tell http from https",
    hint="write `http://myregistry.dev` for a plain-http registry",
    path=("registryMirrors", "myregistry.dev"),
    source="cluster.yaml:7",
    value='"myregistry.dev"',
)

GOLDEN = """\
error: registry mirror endpoint has no scheme
  cluster.yaml:7  registryMirrors."myregistry.dev" = "myregistry.dev"
  The endpoint must be a full URL; a plain name cannot tell http from https

hint: write `http://myregistry.dev` for a plain-http registry
"""


def test_a_problem_of_the_spec():
    assert as_text([MIRROR], color=False) == GOLDEN


def test_several_problems_stand_apart():
    text = as_text([MIRROR, Diagnostic("port 5000 is taken", address=Address("registry", "cinderegg"))], color=False)
    assert text == f"{GOLDEN}\nerror: port 5000 is taken\n  registry.cinderegg\n"


def test_every_line_of_a_detail_is_indented():
    text = as_text([Diagnostic("failed", detail="one\ntwo")], color=False)
    assert text == "error: failed\n  one\n  two\n"


def test_a_bare_problem_is_one_line():
    assert as_text([Diagnostic("failed")], color=False) == "error: failed\n"


def test_colour_marks_the_severity_and_nothing_is_said_by_colour_alone():
    problems = [Diagnostic("a"), Diagnostic("b", severity=Severity.WARNING)]
    colored = as_text(problems, color=True)
    assert colored == "\033[1;31merror\033[0m: a\n\n\033[1;33mwarning\033[0m: b\n"
    assert as_text(problems, color=False) == "error: a\n\nwarning: b\n"


def test_nothing_is_nothing():
    assert as_text([], color=True) == ""


def test_json_is_one_line_with_every_member():
    text = as_json([MIRROR])
    assert "\n" not in text
    (problem,) = json.loads(text)["diagnostics"]
    assert problem["severity"] == "error"
    assert problem["source"] == "cluster.yaml:7"
    assert problem["path"] == 'registryMirrors."myregistry.dev"'
    assert problem["address"] == ""
