"""Send a blob to a registry, from memory or from a file, in one request of known length."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cinderctl.host.files import storage_errors
from cinderctl.oci.blob import Progress
from cinderctl.oci.errors import RegistryUnreachableError
from cinderctl.oci.manifest import Descriptor
from cinderctl.oci.remote import Remote
from cinderctl.oci.transport import BodyFile, finish, refusal

__all__ = ["put_blob"]


def put_blob(
    remote: Remote, descriptor: Descriptor, content: bytes | Path, mount_from: str, progress: Progress | None
) -> None:
    """Upload, beginning anew when the connection or the registry breaks; the registry checks the digest at the end.

    Raises: OciError's, StorageError when the file cannot be read.
    """
    options, attempt = remote.transport.options, 1
    while True:
        url = remote.begin_upload(descriptor.digest, mount_from)
        if not url:
            return
        last = attempt >= options.attempts
        with _body(content, descriptor.size, progress) as body:
            if _sent(remote, descriptor, url, body, last=last):
                return
        options.sleep(options.pause(attempt))
        attempt += 1


def _sent(remote: Remote, descriptor: Descriptor, url: str, body: bytes | BodyFile, *, last: bool) -> bool:
    """Whether the registry has it now; False asks for another session."""
    what = f"the push of blob {descriptor.digest} to {remote.name}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
    try:
        response = remote.send("PUT", url, what, headers=headers, body=body, access="pull,push", attempts=1)
    except RegistryUnreachableError:
        if last:
            raise
        return False
    if response.status == 404 and not last:  # the registry came back and no longer knows the session
        finish(response)
        return False
    if response.status != 201:
        raise refusal(response, what, remote.endpoint)
    finish(response)
    return True


@contextmanager
def _body(content: bytes | Path, size: int, progress: Progress | None) -> Iterator[bytes | BodyFile]:
    if isinstance(content, bytes):
        if progress is None:
            yield content
            return
        yield _Watched(io.BytesIO(content), size, progress)
        return
    with storage_errors("read", content):
        file = content.open("rb")
    with file:
        yield file if progress is None else _Watched(file, size, progress)


class _Watched(io.RawIOBase):
    """A file that tells how far it was read."""

    def __init__(self, file: IO[bytes], size: int, progress: Progress) -> None:
        self._file = file
        self._size = size
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._progress(min(self._file.tell(), self._size), self._size)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
