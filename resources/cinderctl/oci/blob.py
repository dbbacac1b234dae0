"""Where a blob's bytes go while they arrive: counted, hashed, and kept only when they are the ones that were meant."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Protocol, Self

from cinderctl.host.files import storage_errors
from cinderctl.oci.errors import DigestMismatchError, TooLargeError
from cinderctl.oci.manifest import Descriptor

__all__ = ["CHUNK", "BlobFile", "BlobMemory", "BlobSink", "PartFile", "Progress", "digest_of_file"]

CHUNK: Final = 256 * 1024  # bytes read at once; the bound of what a transfer holds in memory

Progress = Callable[[int, int], None]
"""(bytes so far, bytes in all), called after every chunk. What it raises ends the transfer."""


class BlobSink(Protocol):
    """Takes a blob in order. `received` is how much it has; `restart` begins from nothing."""

    @property
    def descriptor(self) -> Descriptor: ...
    @property
    def received(self) -> int: ...
    def restart(self) -> None: ...
    def write(self, chunk: bytes) -> None: ...
    def verify(self, origin: str) -> None: ...


class _Counted:
    """What both sinks share: the size bound and the digest."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.received = 0
        self._algorithm = descriptor.digest.partition(":")[0]
        self._hash = hashlib.new(self._algorithm)

    def restart(self) -> None:
        self.received = 0
        self._hash = hashlib.new(self._algorithm)

    def write(self, chunk: bytes) -> None:
        """Raises: TooLargeError past the descriptor's size, before anything is kept: a body may have no end."""
        if self.received + len(chunk) > self.descriptor.size:
            raise TooLargeError(
                f"blob {self.descriptor.digest} has more than the {self.descriptor.size} bytes its descriptor says"
            )
        self._hash.update(chunk)
        self.received += len(chunk)

    def verify(self, origin: str) -> None:
        """Raises: DigestMismatchError."""
        found = f"{self._algorithm}:{self._hash.hexdigest()}"
        if found != self.descriptor.digest:
            raise DigestMismatchError(
                f"{origin} gave other bytes than the ones asked for",
                detail=f"wanted {self.descriptor.digest}, got {found} ({self.received} bytes)",
                hint="the content was damaged or tampered with, in the registry or on the way; it was not used",
            )


class BlobMemory(_Counted):
    """A small blob in memory."""

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(descriptor)
        self.data = bytearray()

    def restart(self) -> None:
        super().restart()
        self.data.clear()

    def write(self, chunk: bytes) -> None:
        super().write(chunk)
        self.data += chunk


class PartFile:
    """A file on its way: a temporary one beside `dest` until `commit`, gone when the block ends without one."""

    def __init__(self, dest: Path, mode: int = 0o600) -> None:
        self._dest = dest
        self._mode = mode
        self._temporary = dest.with_name(f".{dest.name[:200]}.{secrets.token_hex(6)}.part")
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        with storage_errors("write", self._dest):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._temporary, flags, self._mode), "w+b", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._temporary.unlink(missing_ok=True)

    @property
    def _open(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("a PartFile is used in a with block")
        return self._file

    @property
    def content(self) -> IO[bytes]:
        """What has been written, at its start, to be read before or instead of a commit."""
        self._open.seek(0)
        return self._open

    def beside(self, name: str) -> Path:
        """A path in the same directory, for more parts."""
        return self._dest.with_name(f"{self._dest.name[:150]}.{name}")

    def restart(self) -> None:
        with storage_errors("write", self._dest):
            self._open.seek(0)
            self._open.truncate()

    def write(self, chunk: bytes) -> None:
        with storage_errors("write", self._dest):
            rest = memoryview(chunk)
            while rest:  # a raw file may take less than it is given
                rest = rest[self._open.write(rest) :]

    def commit(self) -> None:
        """Make the file appear, outlasting a power cut. Raises: StorageError."""
        with storage_errors("write", self._dest):
            os.fchmod(self._open.fileno(), self._mode)
            os.fsync(self._open.fileno())
            self._temporary.replace(self._dest)
            directory = os.open(self._dest.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


class BlobFile(_Counted):
    """A blob into a file in progress; the file's owner commits it."""

    def __init__(self, file: PartFile, descriptor: Descriptor) -> None:
        super().__init__(descriptor)
        self._file = file

    def restart(self) -> None:
        super().restart()
        self._file.restart()

    def write(self, chunk: bytes) -> None:
        super().write(chunk)
        self._file.write(chunk)


def digest_of_file(path: Path) -> tuple[str, int]:
    """`sha256:...` and the size of a file, in bounded memory. Raises: StorageError."""
    with storage_errors("read", path), path.open("rb") as file:
        hashed = hashlib.file_digest(file, "sha256")
        return f"sha256:{hashed.hexdigest()}", file.tell()
