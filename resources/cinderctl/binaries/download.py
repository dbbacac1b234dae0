"""A download that is either the published file or an error: resumed where it broke, and verified."""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cinderctl.binaries.callbacks import CheckCancelled, Progress
from cinderctl.binaries.catalog import Binary
from cinderctl.binaries.errors import (
    ChecksumError,
    DownloadError,
    NotPublishedError,
    StalledError,
    TruncatedError,
)
from cinderctl.binaries.sources import Sources
from cinderctl.binaries.transport import Transport

__all__ = ["Checksum", "download", "fetch_file", "parse_checksum"]

_CHUNK = 256 * 1024
_BREAKS = 8  # a transfer that broke this often is given up even when each attempt brought something
_ALGORITHMS = {64: "sha256", 128: "sha512"}


@dataclass(frozen=True, slots=True)
class Checksum:
    algorithm: str
    hexdigest: str

    def matches(self, path: Path) -> bool:
        """Raises: OSError."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest() == self.hexdigest


def parse_checksum(text: str, file_name: str) -> Checksum | None:
    """The checksum of a file in a checksum file: a bare digest, or `digest  name` lines as sha256sum writes them."""
    for line in text.splitlines():
        words = line.split()
        if not words or not re.fullmatch(r"[0-9a-fA-F]+", words[0]) or len(words[0]) not in _ALGORITHMS:
            continue
        if len(words) == 1 or PurePosixPath(words[-1].lstrip("*")).name == file_name:
            return Checksum(_ALGORITHMS[len(words[0])], words[0].lower())
    return None


def download(
    binary: Binary,
    version: str,
    into: Path,
    *,
    sources: Sources,
    transport: Transport,
    progress: Progress,
    check_cancelled: CheckCancelled,
) -> tuple[Path, str]:
    """Bring one binary into a directory, under a temporary name. Returns that path and the URL it came from.

    What arrived before a failure stays there (`.<file>.part`) and the next attempt continues it.
    Raises: DownloadError, OSError.
    """
    layout = binary.project.layout
    base = sources.base_url(binary.project)
    if layout is None or not base:
        raise DownloadError(f"{binary.project.name} is not downloaded, only built", base)
    words = {
        "version": version,
        "bare": version.removeprefix("v"),
        "os": sources.target.os,
        "arch": sources.target.arch,
        "name": binary.name,
        "archive": "zip" if sources.target.os == "darwin" else "tar.gz",
    }
    file = layout.file.format(**words)
    url = f"{base}/{file}"
    checksums = [f"{base}/{template.format(file=file, **words)}" for template in layout.checksums]
    expected = _published_checksum(checksums, PurePosixPath(file).name, transport)
    part = into / f".{PurePosixPath(file).name}.part"
    fetch_file(
        url,
        part,
        expected,
        transport=transport,
        label=f"downloading {binary.name} {version}",
        progress=progress,
        check_cancelled=check_cancelled,
    )
    arrived = into / f".{binary.name}.new"
    if layout.member:
        try:
            _extract(part, layout.member.format(**words), arrived, url)
        finally:
            part.unlink()
    else:
        part.replace(arrived)
    return arrived, url


def _published_checksum(urls: list[str], file_name: str, transport: Transport) -> Checksum:
    """The first checksum that is published. Raises: DownloadError."""
    missing: NotPublishedError | None = None
    for url in urls:
        try:
            text = transport.text(url)
        except NotPublishedError as error:
            missing = missing or error
            continue
        if checksum := parse_checksum(text, file_name):
            return checksum
        raise DownloadError(f"no checksum of {file_name} in what is published", url)
    raise missing or DownloadError(f"no checksum of {file_name} is published", "")


def fetch_file(
    url: str,
    part: Path,
    expected: Checksum,
    *,
    transport: Transport,
    label: str,
    progress: Progress,
    check_cancelled: CheckCancelled,
) -> None:
    """Make `part` the complete, verified file; continue what it already holds.

    A broken or stalled transfer is resumed as long as each attempt brings something new, else the error stands. A file
    that was put together from several attempts and does not match is fetched once more from its start.
    Raises: DownloadError, OSError.
    """
    breaks = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(
                url,
                part,
                before,
                transport=transport,
                label=label,
                progress=progress,
                check_cancelled=check_cancelled,
            )
        except (TruncatedError, StalledError) as error:
            breaks += 1
            if breaks == _BREAKS or not part.exists() or part.stat().st_size <= before:
                raise
            progress(f"{label}: {error.diagnostics[0].summary}; continuing", None, None)
            continue
        if expected.matches(part):
            return
        part.unlink()
        if before == 0:
            raise ChecksumError(
                f"the file is not the one that was published ({expected.algorithm} differs)",
                url,
                hint="something between this host and the publisher changes files, or a mirror is stale",
            )


def _append(
    url: str,
    part: Path,
    offset: int,
    *,
    transport: Transport,
    label: str,
    progress: Progress,
    check_cancelled: CheckCancelled,
) -> None:
    check_cancelled()
    with transport.open(url, offset=offset) as response:
        if response.status == 416:  # nothing after the offset: the caller's check tells whether the part is the file
            return
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            if response.status == 206:
                raise DownloadError("the server sent another range than the one asked for", url)
            offset = 0
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdigit() else None
        with part.open("ab" if offset else "wb") as file:
            while True:
                with transport.reading(url):
                    data = response.read1(_CHUNK)
                if not data:
                    break
                file.write(data)
                offset += len(data)
                progress(label, offset, total)
                check_cancelled()
    if total is not None and offset != total:
        raise TruncatedError(f"the transfer ended after {offset} of {total} bytes", url)


def _extract(archive: Path, member: str, to: Path, url: str) -> None:
    """One regular file out of a verified archive; nothing else is written. Raises: DownloadError, OSError."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped, zipped.open(member) as source, to.open("wb") as file:
                shutil.copyfileobj(source, file)
                return
        with tarfile.open(archive) as tar:
            entry = next((e for e in tar if PurePosixPath(e.name) == PurePosixPath(member) and e.isfile()), None)
            content = tar.extractfile(entry) if entry else None
            if content is None:
                raise DownloadError(f"no {member} in the archive", url)
            with content, to.open("wb") as file:
                shutil.copyfileobj(content, file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise DownloadError("the archive cannot be read", url, detail=str(error)) from error
