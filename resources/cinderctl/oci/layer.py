"""One file out of a tar layer: streamed, counted, never unpacked.

Names in the archive are only compared, never used as paths, so `..`, absolute names, links and devices have nothing to
act on. Bounds hold on what comes out of the compression, not on what went in.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final

from cinderctl.oci.blob import CHUNK
from cinderctl.oci.errors import NotWasmError, TooLargeError

__all__ = ["Found", "extract", "find_wasm", "normalised"]

_GZIP: Final = b"\x1f\x8b"
_MAX_HEADER: Final = 1024 * 1024  # bytes of one extended header; tarfile reads these into memory
_MAX_MEMBERS: Final = 20_000  # tarfile keeps every header it has seen, about a KiB each


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file in the layer, by its normalised name; `size` in bytes as the archive says."""

    name: str
    size: int


def normalised(name: str) -> str:
    """A name as from the root, without `./`, `/` or `..` before it: `/a/../b.wasm` is `b.wasm`."""
    return posixpath.normpath(posixpath.join("/", name)).lstrip("/")


def find_wasm(layer: IO[bytes], limit: int, what: str) -> list[Found]:
    """The regular files named `*.wasm`. Raises: TooLargeError past `limit` bytes unpacked, NotWasmError."""
    found: list[Found] = []

    def visit(member: tarfile.TarInfo, _: tarfile.TarFile) -> bool:
        name = normalised(member.name)
        if name.endswith(".wasm"):
            found.append(Found(name, member.size))
        return True

    _walk(layer, limit, what, visit)
    return found


def extract(layer: IO[bytes], name: str, limit: int, what: str, write: Callable[[bytes], object]) -> bool:
    """Hand the content of a regular file to `write`, piece by piece; False when the layer has no such file.

    Raises: TooLargeError, NotWasmError; what was written by then is worth nothing.
    """
    done = False

    def visit(member: tarfile.TarInfo, tar: tarfile.TarFile) -> bool:
        nonlocal done
        if normalised(member.name) != name:
            return True
        content = tar.extractfile(member)
        if content is None:
            return True
        while piece := content.read(CHUNK):
            write(piece)
        done = True
        return False

    _walk(layer, limit, what, visit)
    return done


def _walk(layer: IO[bytes], limit: int, what: str, visit: Callable[[tarfile.TarInfo, tarfile.TarFile], bool]) -> None:
    layer.seek(0)
    packed = layer.read(2) == _GZIP
    layer.seek(0)
    source = gzip.GzipFile(fileobj=layer) if packed else layer
    try:
        with tarfile.TarFile(fileobj=_Forward(source, limit, what)) as tar:
            for _ in range(_MAX_MEMBERS):
                member = tar.next()
                if member is None:
                    return
                if member.isreg() and not member.issparse() and not visit(member, tar):
                    return
            raise TooLargeError(f"a layer of {what} has more than {_MAX_MEMBERS} files")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise NotWasmError(f"a layer of {what} is no usable tar archive", detail=str(error)) from error


class _Forward(io.RawIOBase):
    """A stream as a file that can only go forward, with a bound on what has been read and on a single read.

    tarfile seeks forward over what it skips and reads headers whole; both are bounded here.
    """

    def __init__(self, source: IO[bytes] | gzip.GzipFile, limit: int, what: str) -> None:
        self._source = source
        self._limit = limit
        self._what = what
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError("a header is too large")
        data = self._source.read(size)
        self._at += len(data)
        if self._at > self._limit:
            raise TooLargeError(f"a layer of {self._what} unpacks to more than {self._limit} bytes")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence != 0 or offset < self._at:
            raise tarfile.StreamError("the archive asks to go back")
        while self._at < offset and self.read(min(CHUNK, offset - self._at)):
            pass
        return self._at
