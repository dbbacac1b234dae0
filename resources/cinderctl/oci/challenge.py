"""The bearer flow: what a registry's 401 asks for, and the token that answers it.

https://distribution.github.io/distribution/spec/auth/token/ and its OAuth2 form. Tokens are kept by origin, repository
and login until shortly before they expire; nothing is ever written to disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from cinderctl.core.digest import sha256_of
from cinderctl.oci.auth import Login
from cinderctl.oci.errors import RegistryProtocolError, UnauthorizedError
from cinderctl.oci.hosts import Endpoint, is_loopback_host

__all__ = ["Authorizer", "Challenge", "Exchange", "parse_challenges"]

_PART = re.compile(
    r"(?P<key>[A-Za-z0-9_-]+)\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>[^\s,\"]+))|(?P<scheme>[A-Za-z0-9_-]+)"
)
_DEFAULT_LIFE: Final = 60.0  # seconds, what the token specification says where a server does not
_MARGIN: Final = 10.0  # seconds before its end that a token is no longer used
_LONGEST_LIFE: Final = 3600.0
_CLIENT_ID: Final = "cinderctl"

Exchange = Callable[[Endpoint, str, str, Mapping[str, str], bytes | None], tuple[int, bytes]]
"""(endpoint for TLS settings, method, URL, headers, body) → (status, body of at most some hundred KiB)."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way a server would take a login: `bearer` or `basic`, and the parameters; names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """The challenges of `WWW-Authenticate` headers (RFC 9110 §11.6.1), malformed parts skipped."""
    found: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        for part in _PART.finditer(header):
            if part["scheme"]:
                found.append((part["scheme"].lower(), {}))
            elif found:
                quoted = part["quoted"]
                value = part["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                found[-1][1].setdefault(part["key"].lower(), value)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


@dataclass(frozen=True, slots=True)
class _Granted:
    header: str
    until: float  # on the authorizer's clock


class Authorizer:
    """Remembers what each origin granted and answers its challenges."""

    def __init__(self, exchange: Exchange, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._granted: dict[tuple[str, str, str, str], _Granted] = {}

    def known(self, origin: str, repository: str, access: str, logins: str) -> str:
        """The Authorization header that worked last, or nothing. `logins` tells sets of credentials apart."""
        granted = self._granted.get((origin, repository, access, logins))
        return granted.header if granted is not None and granted.until > self._clock() else ""

    def forget(self, origin: str, repository: str, access: str, logins: str) -> None:
        self._granted.pop((origin, repository, access, logins), None)

    def keep(self, origin: str, repository: str, access: str, logins: str, answer: tuple[str, float]) -> None:
        """Remember a header that worked. `answer` as `answers` gave it."""
        header, life = answer
        if len(self._granted) > 256:  # a node pulls from few repositories; a bound all the same
            self._granted.clear()
        self._granted[origin, repository, access, logins] = _Granted(header, self._clock() + life)

    def answers(
        self, endpoint: Endpoint, challenges: Sequence[Challenge], repository: str, access: str, logins: Sequence[Login]
    ) -> Iterator[tuple[str, float]]:
        """Headers worth trying, in order, each with its life in seconds: every login, at last anonymously for a pull.

        `access` is `pull` or `pull,push`. Raises: RegistryProtocolError, and what the exchange raises.
        """
        bearer = next((c for c in challenges if c.scheme == "bearer"), None)
        if bearer is None:
            if any(c.scheme == "basic" for c in challenges):
                yield from ((login.basic, _LONGEST_LIFE) for login in logins if login.username)
            return
        for login in logins:
            if login.registry_token is not None:
                yield f"Bearer {login.registry_token.reveal()}", _DEFAULT_LIFE
                continue
            token = self._token(endpoint, bearer, repository, access, login)
            if token is not None:
                yield token
        anonymous = self._token(endpoint, bearer, repository, access, None)
        if anonymous is not None:
            yield anonymous

    def _token(
        self, endpoint: Endpoint, challenge: Challenge, repository: str, access: str, login: Login | None
    ) -> tuple[str, float] | None:
        """A bearer token, or None when the token server refuses this login."""
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        parts = urlsplit(realm)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise RegistryProtocolError(f"{endpoint.origin} asks for a token but names no server that gives one")
        plain_to_elsewhere = parts.scheme == "http" and not endpoint.plain_http and not is_loopback_host(parts.netloc)
        if plain_to_elsewhere:
            raise UnauthorizedError(
                f"{endpoint.origin} wants a login sent to {parts.netloc} without TLS",
                hint="credentials never leave over plain http for a registry that is reached by https",
            )
        scope = _scope(challenge.parameters.get("scope", ""), repository, access)
        query = {"service": service, "scope": scope} if service else {"scope": scope}
        if login is not None and login.identity_token is not None:
            form = query | {
                "grant_type": "refresh_token",
                "refresh_token": login.identity_token.reveal(),
                "client_id": _CLIENT_ID,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            status, body = self._exchange(endpoint, "POST", realm, headers, urlencode(form).encode())
        else:
            url = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
            status, body = self._exchange(endpoint, "GET", url, {"Authorization": login.basic} if login else {}, None)
        if status in {400, 401, 403}:
            return None
        if status != 200:
            raise RegistryProtocolError(f"the token server {parts.netloc} answered {status}")
        return _read_token(body, parts.netloc)


def _scope(offered: str, repository: str, access: str) -> str:
    """The registry's own words, as a mirror may know the repository by another name; push added where it is meant."""
    scope = offered or f"repository:{repository}:{access}"
    if "push" in access:
        scope = re.sub(r"(^|\s)(repository:\S+:)pull(?=\s|$)", r"\1\2pull,push", scope)
    return scope


def _read_token(body: bytes, server: str) -> tuple[str, float]:
    try:
        value: Any = json.loads(body)
    except ValueError:
        value = None
    token = (value.get("token") or value.get("access_token")) if isinstance(value, dict) else None
    if not isinstance(token, str) or not token.isprintable():
        raise RegistryProtocolError(f"the token server {server} answered without a token ({sha256_of(body)[:19]})")
    life = value.get("expires_in")
    seconds = float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE
    return f"Bearer {token}", min(_LONGEST_LIFE, max(1.0, seconds - _MARGIN))
