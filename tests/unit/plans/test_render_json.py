"""The JSON contract: what is promised in the published schemas is what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from cinderctl.core.diagnostics import CinderError, TransientError
from cinderctl.core.values import Secret
from cinderctl.engine.events import event_to_json
from cinderctl.plans import drift
from cinderctl.plans.render_json import plan_to_json, render_json
from cinderctl.plans.render_text import render_text
from tests.fakes.plans import every_case, nothing
from tests.fakes.runs import apply
from tests.fakes.world import Fuse, MemoryWorld, app, server

SCHEMAS = Path(__file__).parents[3] / "docs" / "reference" / "schemas"


def valid(value, name):
    schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema)


@pytest.mark.parametrize("plan", [every_case(), nothing()])
def test_plan_and_drift_keep_to_their_schemas(plan):
    valid(json.loads(render_json(plan)), "plan")
    valid(json.loads(drift.render_json(drift.drift_of(plan))), "drift")


def test_events_keep_to_their_schema_in_success_retry_failure_and_skipping():
    world = MemoryWorld()
    events = []
    world.fuse = Fuse(at=1, error=TransientError("not yet", retry_after=0.001))
    apply(world, [server("a", password=Secret("hunter2"))], emit=events.append)
    world.fuse = Fuse(at=1, error=CinderError("no"))
    world.slow = lambda at, step: step.progress("downloading", done=1, total=2)
    apply(world, [server("a"), server("b"), app("c", on=["server.b"])], emit=events.append, parallelism=1)
    lines = [json.loads(json.dumps(event_to_json(event))) for event in events]
    for line in lines:
        valid(line, "events")
    assert {line["type"] for line in lines} == {
        "run_started",
        "step_started",
        "step_progress",
        "step_retried",
        "step_done",
        "step_failed",
        "step_skipped",
        "run_finished",
    }
    started = next(line for line in lines if line["type"] == "step_started")
    assert {"path": "size", "after": 1}.items() <= started["change"]["fields"][0].items()
    assert "hunter2" not in json.dumps(lines)


def test_a_creation_lists_what_it_sets():
    (created,) = [item for item in plan_to_json(every_case())["changes"] if item["action"] == "create"]
    fields = {item["path"]: item for item in created["fields"]}
    assert fields["port"]["after"] == 3000
    assert fields["port"]["before"] is None
    assert fields['labels."kubernetes.io/arch"']["after"] == "wasm32-wasi"
    assert fields["endpoint"]["after"] == "(known after apply)"
    assert fields["endpoint"]["unknown_after"] is True
    assert "nothing" not in fields


def test_text_and_json_count_the_same():
    summary = plan_to_json(every_case())["summary"]
    line = render_text(every_case()).splitlines()[-1]
    for action in ("create", "update", "replace", "delete", "adopt"):
        assert f"{summary[action]} to {action}" in line
    assert summary["unchanged"] == 3


def test_drift_keeps_the_worlds_moves_apart_from_the_specs():
    found = json.loads(drift.render_json(drift.drift_of(every_case())))
    moves = {item["address"]: (item["drift"], [field["path"] for field in item["fields"]]) for item in found["changes"]}
    assert moves == {
        "control_plane.cinder": ("changed", ["components.kube-scheduler.args.v", 'mirrors."myregistry.dev"']),
        "wasm_node.cinder-wasi": ("gone", []),
        "registry.local": ("unrecorded", []),
        "manifest.web": ("not ready", []),
    }
    assert [item["address"] for item in found["pending"]] == ["artifact.old", "certificate.ca", "control_plane.cinder"]
    assert found["summary"] == {
        "drifted": 4,
        "changed": 1,
        "gone": 1,
        "not_ready": 1,
        "unrecorded": 1,
        "pending": 3,
    }


def test_no_drift_is_said_with_care():
    assert drift.render_text(drift.drift_of(nothing())) == "Drift: none.\n"
    unseen = drift.Drift("cinder", unobserved=every_case().unobserved)
    assert drift.render_text(unseen).splitlines()[-1] == "Drift: none seen, but not everything could be seen."
