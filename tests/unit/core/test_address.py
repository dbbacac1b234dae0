"""An address is `kind.name`; whatever is in the name comes back as it went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderctl.core.address import Address

KINDS = st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True)
NAMES = st.text(min_size=1, max_size=60)


@given(kind=KINDS, name=NAMES)
def test_what_is_written_is_read_back(kind, name):
    address = Address(kind, name)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("wasm_node.cinder-wasi", "wasm_node", "cinder-wasi"),
        ("registry_mirror.myregistry.dev:5000", "registry_mirror", "myregistry.dev:5000"),
        ("file./etc/audit.d/policy.yaml", "file", "/etc/audit.d/policy.yaml"),
        ("manifest.clusterrolebinding/cinderctl:x", "manifest", "clusterrolebinding/cinderctl:x"),
    ],
)
def test_the_name_may_hold_dots_slashes_and_colons(text, kind, name):
    assert Address.parse(text) == Address(kind, name)


@pytest.mark.parametrize("text", ["", "registry", "registry.", ".name", "Registry.x", "1kind.x", "wasm-node.x", " a.b"])
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"KIND\.NAME"):
        Address.parse(text)


def test_addresses_sort_by_kind_then_name():
    texts = ["wasm_node.a", "binaries.z", "binaries.a"]
    assert [str(address) for address in sorted(map(Address.parse, texts))] == [
        "binaries.a",
        "binaries.z",
        "wasm_node.a",
    ]
