"""The reference pages say what the code does now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = ("cli.md", "json.md", "kinds.md", "spec.md")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: (DOCS / "reference" / name).read_text(encoding="utf-8") for name in PAGES}


@pytest.mark.parametrize("environment", [{"COLUMNS": "40"}, {"COLUMNS": "300", "PYTHONHASHSEED": "7", "TERM": "dumb"}])
def test_they_are_what_the_generator_writes_wherever_it_runs(environment):
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("name", PAGES)
def test_links_within_a_page_lead_somewhere(name, pages):
    headings = re.findall(r"^#+ (.+)$", pages[name], re.MULTILINE)
    anchors = {re.sub(r"\s+", "-", heading.lower()) for heading in headings}
    linked = set(re.findall(r"\]\(#([^)]+)\)", pages[name]))
    assert linked <= anchors


def test_every_command_has_a_section_and_hidden_ones_have_none(pages):
    sections = set(re.findall(r"^### (cinderctl .+)$", pages["cli.md"], re.MULTILINE))
    assert {"cinderctl plan", "cinderctl apply", "cinderctl get nodes", "cinderctl binaries fetch"} <= sections
    assert not {"cinderctl version", "cinderctl get kc"} & sections


def test_fields_have_their_yaml_names_types_and_defaults(pages):
    spec = pages["spec.md"]
    assert "| `localRegistryPort` | whole number, 1 to 65535 | `5000` |" in spec
    assert "| `extraSans` | list of texts | – |" in spec
    assert "At `controlPlaneConfiguration.kubeAPIServer`." in spec
    assert not re.search(r"\| – \|$", spec, re.MULTILINE), "a field without a description"


def test_inputs_that_replace_are_marked(pages):
    assert re.search(r"\| `service_cidr` \| text \| required \| yes \|", pages["kinds.md"])
    assert re.search(r"\| `pod_cidr` .* \| yes \|", pages["kinds.md"])
