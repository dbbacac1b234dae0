"""Digests are of the value, not of how it happened to be written."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderctl.core.digest import canonical_json, digest_of, sha256_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_the_order_of_keys_is_no_difference(value):
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)
    assert digest_of(value) == digest_of(backwards)


def test_a_tuple_is_the_list_it_becomes_in_json():
    assert digest_of(("a", "b")) == digest_of(["a", "b"])


@pytest.mark.parametrize(("one", "other"), [({"a": 1}, {"a": "1"}), ([], {}), ([1, 2], [2, 1]), (None, ""), (0, False)])
def test_other_values_have_other_digests(one, other):
    assert digest_of(one) != digest_of(other)


def test_canonical_json_has_no_spaces_and_keeps_letters():
    assert canonical_json({"b": [1, None], "a": "Ärger"}) == '{"a":"Ärger","b":[1,null]}'


def test_the_form_is_that_of_an_oci_digest():
    assert sha256_of(b"hello") == f"sha256:{hashlib.sha256(b'hello').hexdigest()}"


def test_what_json_cannot_hold_is_an_error():
    with pytest.raises(TypeError):
        digest_of({"at": object()})
