"""A saved plan comes back as it was, or not at all."""

from __future__ import annotations

import pytest

from cinderctl.core.diagnostics import PlanFileError
from cinderctl.core.digest import sha256_of
from cinderctl.core.values import Secret
from cinderctl.plans.planfile import load_plan, save_plan
from cinderctl.plans.render_json import render_json
from cinderctl.plans.render_text import render_text
from tests.fakes.plans import every_case, nothing
from tests.fakes.runs import applied, plan
from tests.fakes.world import MemoryWorld, server


@pytest.mark.parametrize("made", [every_case(), nothing()])
def test_it_reads_back_as_it_was(made):
    data = save_plan(made, spec_digest="sha256:1", spec_files=["cluster.yaml", "local.yaml"])
    saved = load_plan(data)
    assert (saved.spec_digest, saved.spec_files) == ("sha256:1", ("cluster.yaml", "local.yaml"))
    assert [item for item in saved.plan.changes if item.action.value != "no-op"] == list(made.pending)
    assert render_text(saved.plan, width=200) == render_text(made, width=200)
    assert render_json(saved.plan) == render_json(made)
    assert save_plan(saved.plan, spec_digest="sha256:1", spec_files=["cluster.yaml", "local.yaml"]) == data


def test_it_holds_no_secret():
    world = MemoryWorld()
    applied(world, [server("a", password=Secret("hunter2"))])
    data = save_plan(plan(world, [server("a", password=Secret("hunter3")), server("b", password=Secret("hunter4"))]))
    assert b"hunter" not in data


def refused(data: bytes) -> str:
    with pytest.raises(PlanFileError) as caught:
        load_plan(data)
    return caught.value.diagnostics[0].summary.removeprefix("cannot use the saved plan: ")


def test_cut_short_at_any_length():
    data = save_plan(nothing())
    for length in range(len(data) - 1):
        assert refused(data[:length]) in {"it is cut short", "it is not a plan of cinderctl"}


def test_changed_at_any_byte():
    data = save_plan(nothing())
    for at in range(len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        refused(bytes(damaged))


def test_something_else_altogether():
    assert refused(b"") == "it is not a plan of cinderctl"
    assert refused(b"apiVersion: v1\n") == "it is not a plan of cinderctl"
    assert refused(b"PK\x03\x04tfplan") == "it is not a plan of cinderctl"


def test_a_newer_version():
    data = save_plan(nothing()).replace(b"cinderctl-plan 1 ", b"cinderctl-plan 2 ", 1)
    assert refused(data) == "it comes from a newer version of cinderctl"


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"cluster":"x","mode":"walk","changes":[]}', b"null", b"\xff"])
def test_a_whole_file_that_holds_no_plan(body):
    data = b"cinderctl-plan 1 %d %s\n%s\n" % (len(body), sha256_of(body).encode(), body)
    assert refused(data) == "it does not hold a plan"
