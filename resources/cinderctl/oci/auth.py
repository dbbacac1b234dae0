"""Logins for registries: from Docker's config file and its credential helpers, from image pull secrets, or given.

A key names a registry host with an optional path below it (`ghcr.io`, `r.example:5000/team`, `*.example.com`), as in
Docker's config and in Kubernetes' pull secrets; the most specific match comes first.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from cinderctl.core.digest import digest_of
from cinderctl.core.values import Secret
from cinderctl.oci.errors import CredentialsError
from cinderctl.oci.reference import DEFAULT_REGISTRY

__all__ = ["Credentials", "HelperRun", "Login", "docker_config", "pull_secret", "run_helper", "single_login"]

_HUB_KEY: Final = "https://index.docker.io/v1/"  # what Docker stores Docker Hub's login under
_HUB_HOSTS: Final = {"index.docker.io", "registry-1.docker.io", "docker.io"}
_IDENTITY_USER: Final = "<token>"  # the user name by which a helper says that its secret is an identity token
_NOT_FOUND: Final = "credentials not found"  # what every helper built on docker-credential-helpers prints
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_SECONDS: Final = 30.0

HelperRun = Callable[[str, str], bytes | None]
"""(helper name, server) → what `docker-credential-NAME get` printed, or None when it knows no login for the server."""


@dataclass(frozen=True, slots=True)
class Login:
    """One way in. Either a name with a password, an identity token (OAuth2 refresh token), or a ready bearer token."""

    username: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
    identity_token: Secret | None = None
    registry_token: Secret | None = None

    @property
    def basic(self) -> str:
        """The value of a Basic Authorization header. It is a secret."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password.reveal()}".encode()).decode()


class Credentials:
    """Logins by registry and repository. `a + b` asks both, `a` first."""

    def __init__(self, entries: Iterable[tuple[str, Login]] = (), helper: Callable[[str], Login | None] | None = None):
        """`entries` by key; `helper` gives the login for a registry host, asked only when one is needed."""
        ordered = sorted(((_key(key), login) for key, login in entries), key=lambda item: _precision(item[0]))
        self._entries = tuple(ordered)
        self._helpers: tuple[Callable[[str], Login | None], ...] = () if helper is None else (helper,)

    @property
    def fingerprint(self) -> str:
        """Tells sets of logins apart without showing them; equal for equal sets. Empty for no logins."""
        if not self._entries and not self._helpers:
            return ""
        text = [(key, *_revealed(login)) for key, login in self._entries]
        return digest_of([text, [id(helper) for helper in self._helpers]])

    def logins(self, registry: str, repository: str) -> tuple[Login, ...]:
        """Every login for `registry/repository`, most specific first. Raises: CredentialsError (a helper failed)."""
        host = DEFAULT_REGISTRY if registry in _HUB_HOSTS else registry
        stored = (helper(host) for helper in self._helpers)
        matching = (login for key, login in self._entries if _matches(key, host, repository))
        return tuple(dict.fromkeys((*(login for login in stored if login is not None), *matching)))

    def __add__(self, other: Credentials) -> Credentials:
        both = Credentials()
        both._entries = self._entries + other._entries
        both._helpers = self._helpers + other._helpers
        return both

    def __repr__(self) -> str:
        return f"Credentials({', '.join('/'.join(key) for key, _ in self._entries)})"


def single_login(registry: str, username: str, password: Secret) -> Credentials:
    """One name and password for one registry (or `registry/path`)."""
    return Credentials([(registry, Login(username, password))])


def run_helper(name: str, server: str) -> bytes | None:
    """Ask `docker-credential-NAME`, found on PATH. Raises: CredentialsError."""
    program = f"docker-credential-{name}"
    hint = "install it, or remove it from credsStore and credHelpers in Docker's config.json"
    if _HELPER_NAME.fullmatch(name) is None:
        raise CredentialsError(f"`{name}` is no name of a credential helper", hint=hint)
    try:
        done = subprocess.run(  # noqa: PLW1510 - its exit code is read below
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS
        )
    except FileNotFoundError as error:
        raise CredentialsError(f"the credential helper {program} is not on PATH", hint=hint) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CredentialsError(f"the credential helper {program} did not answer: {error}", hint=hint) from error
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
    if _NOT_FOUND in said:
        return None
    raise CredentialsError(f"the credential helper {program} failed", detail=said[:500])


def docker_config(path: Path, run: HelperRun = run_helper) -> Credentials:
    """The logins of a Docker `config.json`: `auths`, `credsStore`, `credHelpers`. No file: no logins.

    Raises: CredentialsError for a file that cannot be used.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Credentials()
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}") from error
    config = _object(text, str(path))
    helpers, store = config.get("credHelpers") or {}, config.get("credsStore") or ""
    if not isinstance(helpers, Mapping) or not isinstance(store, str):
        raise CredentialsError(f"{path}: credHelpers or credsStore has the wrong type")

    def ask(host: str) -> Login | None:
        named = {key if isinstance(key, str) else "": name for key, name in helpers.items()}
        name = named.get(host) or (named.get(_HUB_KEY) if host == DEFAULT_REGISTRY else None) or store
        if not name:
            return None
        answer = run(str(name), _HUB_KEY if host == DEFAULT_REGISTRY else host)
        return None if answer is None else _helper_login(str(name), answer)

    return Credentials(_auths(config.get("auths"), str(path)), ask if helpers or store else None)


def pull_secret(secret: Mapping[str, Any]) -> Credentials:
    """The logins of a Kubernetes Secret of either pull secret type, as the API gives it (data in base64).

    Raises: CredentialsError naming the Secret.
    """
    metadata = secret.get("metadata") or {}
    where = f"secret {metadata.get('namespace', '')}/{metadata.get('name', '')}"
    kind = secret.get("type")
    fields = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}
    if kind not in fields:
        raise CredentialsError(f"{where} has type `{kind}`, which is no image pull secret", hint=f"use {min(fields)}")
    encoded = (secret.get("data") or {}).get(fields[kind])
    if not isinstance(encoded, str):
        raise CredentialsError(f"{where} lacks the key `{fields[kind]}`")
    try:
        text = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise CredentialsError(f"{where}: `{fields[kind]}` is not base64") from error
    config = _object(text, where)
    return Credentials(_auths(config if kind == "kubernetes.io/dockercfg" else config.get("auths"), where))


def _object(text: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:  # no `from`: the JSON error holds the text, and the text holds passwords
        raise CredentialsError(f"{where} is not JSON") from None
    if not isinstance(value, dict):
        raise CredentialsError(f"{where} is not a JSON object")
    return value


def _auths(value: Any, where: str) -> list[tuple[str, Login]]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise CredentialsError(f"{where}: auths is not an object")
    found = []
    for key, entry in value.items():
        if not isinstance(entry, Mapping):
            raise CredentialsError(f"{where}: the entry of {key} is not an object")
        login = _entry_login(key, entry, where)
        if login is not None:  # `{}` only says that a helper has it
            found.append((key, login))
    return found


def _entry_login(key: str, entry: Mapping[str, Any], where: str) -> Login | None:
    def text(name: str) -> str:
        value = entry.get(name) or ""
        if not isinstance(value, str):
            raise CredentialsError(f"{where}: `{name}` of {key} is not text")
        return value

    username, password = text("username"), text("password")
    if text("auth"):
        try:
            username, colon, password = base64.b64decode(text("auth"), validate=True).decode().partition(":")
        except ValueError:
            colon = ""
        if not colon:
            raise CredentialsError(f"{where}: `auth` of {key} is not base64 of `name:password`") from None
        password = password.rstrip("\0")  # as Docker's own reader does
    identity, token = text("identitytoken"), text("registrytoken")
    if not (username or password or identity or token):
        return None
    return Login(username, Secret(password), Secret(identity) if identity else None, Secret(token) if token else None)


def _helper_login(name: str, answer: bytes) -> Login | None:
    value = _object(answer, f"the answer of docker-credential-{name}")
    username, secret = value.get("Username"), value.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise CredentialsError(f"the answer of docker-credential-{name} lacks Username or Secret")
    if not secret:
        return None
    if username == _IDENTITY_USER:
        return Login(identity_token=Secret(secret))
    return Login(username, Secret(secret))


def _revealed(login: Login) -> tuple[str, str, str, str]:
    tokens = (login.password, login.identity_token, login.registry_token)
    password, identity, registry = ("" if token is None else token.reveal() for token in tokens)
    return login.username, password, identity, registry


def _key(text: str) -> tuple[str, str]:
    """A key as (host, path): without scheme, and without the API version Docker writes for Docker Hub."""
    host, _, path = text.partition("://")[2].partition("/") if "://" in text else text.partition("/")
    path = "" if path.strip("/") in {"v1", "v2"} else path.strip("/")
    return (DEFAULT_REGISTRY if host in _HUB_HOSTS else host), path


def _precision(key: tuple[str, str]) -> tuple[int, bool, int]:
    """Sorts the longer path first, then plain hosts before patterns, then the longer host."""
    host, path = key
    return -len(path), "*" in host or "?" in host, -len(host)


def _matches(key: tuple[str, str], registry: str, repository: str) -> bool:
    """Kubernetes' rule: a pattern stands for one label of the host each; the path is a prefix, by whole components."""
    host, path = key
    if path and repository != path and not repository.startswith(f"{path}/"):
        return False
    if host == registry:
        return True
    wanted, wanted_port = _host_port(host)
    given, given_port = _host_port(registry)
    if wanted_port != given_port:
        return False
    patterns, labels = wanted.split("."), given.split(".")
    return len(patterns) == len(labels) and all(map(fnmatchcase, labels, patterns))


def _host_port(authority: str) -> tuple[str, str]:
    host, colon, port = authority.rpartition(":")
    return (host, port) if colon and "]" not in port else (authority, "")
