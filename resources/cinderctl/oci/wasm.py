"""What a WebAssembly binary says about itself: module or component, imports, exports, custom sections.

A reader of the section framing only; it validates nothing and compiles nothing (the runtime does), and never reads
outside the bytes it was given. Binary formats: https://webassembly.github.io/spec/core/binary/ and the component
model's Binary.md.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

from cinderctl.host.files import storage_errors
from cinderctl.oci.errors import NotWasmError

__all__ = ["MAGIC", "Export", "Import", "Kind", "WasmInfo", "describe", "describe_file", "looks_like", "sniff"]

T = TypeVar("T")
Kind: TypeAlias = Literal["module", "component"]
Data: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

MAGIC: Final = b"\0asm"
_MODULE: Final = b"\x01\x00\x00\x00"
_COMPONENT: Final = b"\x0d\x00\x01\x00"
_MAX_ITEMS: Final = 100_000  # what wasmtime allows of imports and exports is of this order
_MAX_NAME: Final = 100_000  # bytes, the core specification's implementation limit

_CORE_KINDS: Final = ("func", "table", "memory", "global", "tag")
_COMPONENT_SORTS: Final = ("core", "func", "value", "type", "component", "instance")


@dataclass(frozen=True, order=True, slots=True)
class Import:
    """`module` is empty for a component, whose imports have one name (`wasi:cli/environment@0.2.0`)."""

    module: str
    name: str
    kind: str


@dataclass(frozen=True, order=True, slots=True)
class Export:
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class WasmInfo:
    """`custom`: names of custom sections in order (`name`, `producers`, waSCC's `jwt`)."""

    kind: Kind
    imports: tuple[Import, ...]
    exports: tuple[Export, ...]
    custom: tuple[str, ...]


def sniff(head: Data) -> Kind | None:
    """By the first eight bytes: a core module, a component, or neither (also: a version we do not know)."""
    start = bytes(head[:8])
    if start == MAGIC + _MODULE:
        return "module"
    return "component" if start == MAGIC + _COMPONENT else None


def looks_like(head: Data) -> str:
    """What bytes that are no WebAssembly binary seem to be, for an error text."""
    start = bytes(head[:64])
    if not start:
        return "an empty file"
    known = (
        (MAGIC, f"WebAssembly of an unknown version ({start[4:8].hex(' ')})"),
        (b"\x7fELF", "an ELF file: a native program, or a module compiled ahead of time"),
        (b"\x1f\x8b", "gzip-compressed data"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
        (b"PK\x03\x04", "a zip archive"),
        (b"#!", "a script"),
        (b"BC\xc0\xde", "LLVM bitcode"),
        (b"!<arch>", "a static library"),
    )
    for magic, words in known:
        if start.startswith(magic):
            return words
    text = start.lstrip()
    if text.startswith((b"(module", b"(component", b";;")):
        return "WebAssembly text: translate it first, for instance with `wat2wasm`"
    return "JSON" if text[:1] in {b"{", b"["} else "no WebAssembly"


def describe(data: Data) -> WasmInfo:
    """Raises: NotWasmError when it is none, or its sections do not hold together."""
    kind = sniff(data)
    if kind is None:
        raise NotWasmError(f"not a WebAssembly module: it seems to be {looks_like(data)}")
    try:
        return _sections(_Reader(data, 8, len(data)), kind)
    except _MalformedError as error:
        raise NotWasmError(f"a malformed WebAssembly {kind}: {error}") from None


def describe_file(path: Path) -> WasmInfo:
    """`describe` of a file without reading what does not matter. Raises: NotWasmError, StorageError."""
    with storage_errors("read", path), path.open("rb") as file:
        head = file.read(8)
        if sniff(head) is None:
            raise NotWasmError(f"{path.name} is not a WebAssembly module: it seems to be {looks_like(head)}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return describe(data)


class _MalformedError(Exception):
    pass


class _Reader:
    """A cursor over a part of some bytes that never leaves it. Holds no view, so that a mapped file can be closed."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: Data, start: int, end: int) -> None:
        self._data = data
        self._at = start
        self._end = end

    @property
    def left(self) -> int:
        return self._end - self._at

    def byte(self) -> int:
        if self._at >= self._end:
            raise _MalformedError("it ends in the middle")
        self._at += 1
        return self._data[self._at - 1]

    def part(self, count: int) -> _Reader:
        """A reader of the next bytes, which this one steps over."""
        if count > self.left:
            raise _MalformedError("a length leads past the end")
        self._at += count
        return _Reader(self._data, self._at - count, self._at)

    def rest(self) -> bytes:
        return bytes(self._data[self._at : self._end])

    def unsigned(self, bits: int = 32) -> int:
        """LEB128 of at most `bits` bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                raise _MalformedError("a number is too long")
        if value >> bits:
            raise _MalformedError("a number is too large")
        return value

    def skip_signed(self, bits: int = 33) -> None:
        for _ in range(-(-bits // 7)):
            if self.byte() < 0x80:
                return
        raise _MalformedError("a number is too long")

    def name(self) -> str:
        length = self.unsigned()
        if length > _MAX_NAME:
            raise _MalformedError("a name is too long")
        try:
            return self.part(length).rest().decode()
        except UnicodeDecodeError:
            raise _MalformedError("a name is not UTF-8") from None

    def count(self) -> int:
        """The length of a list; each item has at least one byte."""
        count = self.unsigned()
        if count > min(self.left, _MAX_ITEMS):
            raise _MalformedError("a list is longer than its section")
        return count


def _sections(reader: _Reader, kind: Kind) -> WasmInfo:
    imports: list[Import] = []
    exports: list[Export] = []
    custom: list[str] = []
    import_id, export_id = (2, 7) if kind == "module" else (10, 11)
    read_import, read_export = (_core_import, _core_export) if kind == "module" else (_import, _export)
    while reader.left:
        number = reader.byte()
        section = reader.part(reader.unsigned())
        if number == 0:
            custom.append(section.name())
        elif number == import_id:
            imports += _list(section, read_import)
        elif number == export_id:
            exports += _list(section, read_export)
        if len(imports) > _MAX_ITEMS or len(exports) > _MAX_ITEMS or len(custom) > _MAX_ITEMS:
            raise _MalformedError("it has too many sections")
    return WasmInfo(kind, tuple(imports), tuple(exports), tuple(custom))


def _list(section: _Reader, read: Callable[[_Reader], T]) -> list[T]:
    items = [read(section) for _ in range(section.count())]
    if section.left:
        raise _MalformedError("a section is longer than its list")
    return items


def _core_import(reader: _Reader) -> Import:
    module, name, kind = reader.name(), reader.name(), reader.byte()
    match kind:
        case 0:
            reader.unsigned()
        case 1:
            _skip_value_type(reader)
            _skip_limits(reader)
        case 2:
            _skip_limits(reader)
        case 3:
            _skip_value_type(reader)
            reader.byte()
        case 4:
            reader.byte()
            reader.unsigned()
        case _:
            raise _MalformedError(f"an import has the unknown kind {kind}")
    return Import(module, name, _CORE_KINDS[kind])


def _core_export(reader: _Reader) -> Export:
    name, kind = reader.name(), reader.byte()
    if kind >= len(_CORE_KINDS):
        raise _MalformedError(f"an export has the unknown kind {kind}")
    reader.unsigned()
    return Export(name, _CORE_KINDS[kind])


def _skip_value_type(reader: _Reader) -> None:
    if reader.byte() in {0x63, 0x64}:  # (ref null ht), (ref ht)
        reader.skip_signed()


def _skip_limits(reader: _Reader) -> None:
    """Flags: 1 has a maximum, 2 shared, 4 64-bit, 8 custom page size."""
    flags = reader.byte()
    if flags > 15:
        raise _MalformedError("limits have unknown flags")
    reader.unsigned(64)
    if flags & 1:
        reader.unsigned(64)
    if flags & 8:
        reader.unsigned()


def _extern_name(reader: _Reader) -> str:
    """A component's import or export name: plain (0, 1), or with a version suffix of its own (2)."""
    form = reader.byte()
    name = reader.name()
    if form == 2:
        reader.name()
    elif form > 2:
        raise _MalformedError("a name has an unknown form")
    return name


def _extern_type(reader: _Reader) -> str:
    sort = reader.byte()
    match sort:
        case 0:
            if reader.byte() != 0x11:
                raise _MalformedError("an import has an unknown core sort")
            reader.unsigned()
            return "module"
        case 1 | 4 | 5:
            reader.unsigned()
        case 2:  # values are not settled: the specification has a bound before the type, wasm-tools has not
            bound = reader.byte()
            if bound == 0:
                reader.unsigned()
            elif bound == 1:
                reader.skip_signed()
        case 3:
            if reader.byte() == 0:
                reader.unsigned()
        case _:
            raise _MalformedError(f"an import has the unknown sort {sort}")
    return _COMPONENT_SORTS[sort]


def _import(reader: _Reader) -> Import:
    return Import("", _extern_name(reader), _extern_type(reader))


def _export(reader: _Reader) -> Export:
    name, sort = _extern_name(reader), reader.byte()
    if sort >= len(_COMPONENT_SORTS):
        raise _MalformedError(f"an export has the unknown sort {sort}")
    core_module = sort == 0 and reader.byte() == 0x11
    reader.unsigned()
    ascribed = reader.byte()
    if ascribed > 1:
        raise _MalformedError("an export has an unknown ascription")
    kind = _extern_type(reader) if ascribed else "module" if core_module else _COMPONENT_SORTS[sort]
    return Export(name, kind)
