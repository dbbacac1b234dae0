"""One root of errors; each kind leaves with its own exit code."""

from __future__ import annotations

import pytest

from cinderctl.core import diagnostics
from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError, Diagnostic, Severity, TransientError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("CinderError", 1),
        ("SpecError", 1),
        ("ApprovalError", 1),
        ("PlanFileError", 1),
        ("DeadlineError", 1),
        ("TransientError", 1),
        ("PartialError", 3),
        ("UnobservableError", 4),
        ("StalePlanError", 5),
        ("LockedError", 6),
        ("UsageError", 64),
        ("InterruptedRunError", 130),
    ],
)
def test_exit_codes_are_a_contract(name, code):
    assert getattr(diagnostics, name).exit_code == code


def test_no_error_leaves_with_the_codes_that_mean_changes_or_success():
    errors = [item for item in vars(diagnostics).values() if isinstance(item, type) and issubclass(item, CinderError)]
    assert not {error.exit_code for error in errors} & {0, 2}


def test_text_becomes_one_diagnostic():
    (problem,) = CinderError("port taken", detail="by nginx", hint="stop it").diagnostics
    assert (problem.summary, problem.detail, problem.hint) == ("port taken", "by nginx", "stop it")
    assert problem.severity is Severity.ERROR


def test_several_problems_are_carried_together_and_named_in_the_text():
    error = CinderError([Diagnostic("one"), Diagnostic("two")])
    assert [problem.summary for problem in error.diagnostics] == ["one", "two"]
    assert str(error) == "one; two"


def test_a_place_is_added_where_there_is_none():
    here, there = Address("registry", "a"), Address("registry", "b")
    located = Diagnostic("x").located(address=here, source="cluster.yaml:7")
    assert (located.address, located.source) == (here, "cluster.yaml:7")
    assert located.located(address=there, source="other.yaml:1") == located


def test_a_subclass_of_diagnostic_stays_one():
    class Detailed(Diagnostic):
        __slots__ = ()

    assert type(Detailed("x").located(source="f:1")) is Detailed


def test_a_transient_failure_says_when_to_try_again():
    assert TransientError("busy", retry_after=3).retry_after == 3
