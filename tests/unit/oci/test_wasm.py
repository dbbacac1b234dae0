"""A binary is told by its magic and version; what it imports and exports is read without ever leaving its bytes."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cinderctl.oci.errors import NotWasmError
from cinderctl.oci.wasm import Export, Import, describe, describe_file, looks_like, sniff
from tests.unit.oci.conftest import COMPONENT, MODULE


def test_a_module_says_what_it_needs_and_offers() -> None:
    info = describe(MODULE)
    assert info.kind == "module"
    assert info.imports == (Import("env", "log", "func"),)
    assert info.exports == (Export("_start", "func"),)


def test_a_component_says_what_it_needs_and_offers() -> None:
    info = describe(COMPONENT)
    assert info.kind == "component"
    assert info.imports == (Import("", "wasi:cli/environment@0.2.0", "instance"), Import("", "f", "func"))
    assert info.exports == (Export("run", "func"),)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (b"\x01e\x01t\x01\x70\x00\x01", "table"),
        (b"\x01e\x01t\x01\x63\x00\x01\x01\x02", "table"),
        (b"\x01e\x01m\x02\x01\x01\x02", "memory"),
        (b"\x01e\x01m\x02\x03\x01\x80\x80\x04", "memory"),
        (b"\x01e\x01m\x02\x05\x01\x80\x80\x80\x80\x80\x01", "memory"),
        (b"\x01e\x01m\x02\x08\x01\x00", "memory"),
        (b"\x01e\x01g\x03\x7f\x01", "global"),
        (b"\x01e\x01g\x03\x64\x70\x00", "global"),
        (b"\x01e\x01x\x04\x00\x00", "tag"),
    ],
)
def test_every_kind_of_import_is_stepped_over(entry: bytes, expected: str) -> None:
    section = b"\x02" + entry + b"\x01e\x01z\x00\x00"
    info = describe(MODULE[:8] + b"\x02" + bytes([len(section)]) + section)
    assert [item.kind for item in info.imports] == [expected, "func"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (b"\x00\x01m\x00\x11\x00", "module"),
        (b"\x01\x01v\x02\x01\x79", "value"),
        (b"\x00\x01v\x02\x00\x05", "value"),
        (b"\x02\x01v\x031.0\x03\x00\x00", "type"),
        (b"\x00\x01r\x03\x01", "type"),
        (b"\x00\x01c\x04\x00", "component"),
    ],
)
def test_every_kind_of_component_import_is_stepped_over(entry: bytes, expected: str) -> None:
    section = b"\x02" + entry + b"\x00\x01z\x01\x00"
    info = describe(COMPONENT[:8] + b"\x0a" + bytes([len(section)]) + section)
    assert [item.kind for item in info.imports] == [expected, "func"]


def test_a_component_that_exports_a_core_module() -> None:
    section = b"\x01\x00\x01m\x00\x11\x00\x00"
    info = describe(COMPONENT[:8] + b"\x0b" + bytes([len(section)]) + section)
    assert info.exports == (Export("m", "module"),)


def test_custom_sections_are_named_in_order() -> None:
    assert describe(MODULE + b"\0\x06\x03jwtab" + b"\0\x02\x01x").custom == ("jwt", "x")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0as", "no WebAssembly"),
        (b"\0asm\x02\0\0\0", "unknown version (02 00 00 00)"),
        (b"\x7fELF\x02", "ELF"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"#!/bin/sh", "script"),
        (b"  (module)", "text"),
        (b'{"a":1}', "JSON"),
        (b"hello", "no WebAssembly"),
    ],
)
def test_what_is_no_module_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    assert sniff(data) is None
    assert words in looks_like(data)
    with pytest.raises(NotWasmError) as caught:
        describe(data)
    assert words in str(caught.value)
    path = tmp_path / "x.wasm"
    path.write_bytes(data)
    with pytest.raises(NotWasmError, match=r"x\.wasm"):
        describe_file(path)


def test_a_file_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(MODULE)
    assert describe_file(path) == describe(MODULE)
    path.write_bytes(MODULE[:-3])
    with pytest.raises(NotWasmError, match="malformed"):
        describe_file(path)


@pytest.mark.parametrize(
    "tail",
    [
        b"\x02\xff\xff\xff\xff\x0f",  # a section longer than the file
        b"\x02\x80\x80\x80\x80\x80\x00",  # a length that never ends
        b"\x02\x05\xff\xff\xff\xff\x0f",  # a list of four billion
        b"\x02\x04\x01\x7fab",  # a name longer than its section
        b"\x02\x05\x01\x01\xff\x00\x00",  # a name that is not UTF-8
        b"\x02\x05\x01\x00\x00\x09\x00",  # an unknown kind
        b"\x07\x03\x00\x00\x00",  # more than its list
        b"\x00\x00",  # a custom section without a name
    ],
)
def test_lies_about_lengths_are_found(tail: bytes) -> None:
    with pytest.raises(NotWasmError, match="malformed"):
        describe(MODULE[:8] + tail)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([MODULE, COMPONENT]), st.lists(st.tuples(st.integers(8, 60), st.integers(0, 255)), max_size=6))
@example(MODULE, [(9, 0x80)])
def test_a_damaged_binary_is_read_or_refused(data: bytes, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for at, value in flips:
        damaged[at % len(damaged)] = value
    with contextlib.suppress(NotWasmError):
        describe(damaged)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([MODULE[:8], COMPONENT[:8]]), st.binary(max_size=60))
def test_any_sections_are_read_or_refused(head: bytes, sections: bytes) -> None:
    with contextlib.suppress(NotWasmError):
        describe(head + sections)
