"""One look at whether a component is ready. Cheap on purpose: it is repeated often while one starts."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from cinderctl.host.components import Probe
from cinderctl.host.sockets import connect

__all__ = ["prober"]

_PATIENCE = 3.0  # seconds for one answer
_ANSWER_LIMIT = 64 * 1024


def prober(probe: Probe) -> Callable[[], Awaitable[str]]:
    """An async function of no arguments: "" when ready, else why not. It keeps the TLS context between calls."""
    context: list[ssl.SSLContext] = []

    async def look() -> str:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await _look(probe, context)
        except TimeoutError:
            return f"{probe.target} does not answer"
        except ssl.SSLCertVerificationError as error:
            return f"{probe.target}: {error.verify_message}"
        except (OSError, ValueError, EOFError) as error:
            return f"{probe.target}: {error}"

    return look


async def _look(probe: Probe, context: list[ssl.SSLContext]) -> str:
    match probe.kind:
        case "none":
            return ""
        case "file":
            return "" if os.path.exists(probe.target) else f"{probe.target} is not there"  # noqa: ASYNC240, PTH110
        case "unix":
            # Connecting to a local socket does not block: it is refused, or taken into the backlog at once.
            connect(Path(probe.target), _PATIENCE).close()
            return ""
        case "tcp":
            host, _, port = probe.target.rpartition(":")
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.transport.abort()
            return ""
        case "http" | "https":
            if probe.kind == "https" and not context:
                context.append(_context(probe))
            return await _get(probe, context[0] if context else None)


async def _get(probe: Probe, context: ssl.SSLContext | None) -> str:
    url = urlsplit(probe.target)
    host, port = url.hostname or "", url.port or (443 if context else 80)
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode())
        status = (await reader.readline()).decode(errors="replace").split(maxsplit=2)
        if len(status) < 2 or not status[0].startswith("HTTP/"):
            return f"{probe.target}: no HTTP answer"
        if status[1] != "200":
            return f"{probe.target}: HTTP {' '.join(status[1:]).strip()}"
        if probe.expect and probe.expect not in (await _rest(reader)).decode(errors="replace"):
            return f"{probe.target}: the answer lacks {probe.expect!r}"
        return ""
    finally:
        writer.transport.abort()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    content = bytearray()
    while len(content) < _ANSWER_LIMIT and (part := await reader.read(_ANSWER_LIMIT)):
        content += part
    return bytes(content)


def _context(probe: Probe) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if probe.ca:
        context.load_verify_locations(probe.ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if probe.cert:
        context.load_cert_chain(probe.cert, probe.key or None)
    return context
