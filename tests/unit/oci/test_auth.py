"""Logins are found where Docker and Kubernetes keep them, used where they belong, and shown nowhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cinderctl.core.values import Secret
from cinderctl.oci.auth import Credentials, Login, docker_config, pull_secret, single_login
from cinderctl.oci.challenge import Challenge, parse_challenges
from cinderctl.oci.client import RegistryClient
from cinderctl.oci.errors import CredentialsError, OciError, RegistryProtocolError, UnauthorizedError
from cinderctl.oci.hosts import Endpoint, Hosts
from cinderctl.oci.manifest import OCI_MANIFEST
from cinderctl.oci.reference import parse_reference
from tests.fakes.registry import FakeRegistry, Redirect, Status
from tests.unit.oci.conftest import ClientFactory


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def names(credentials: Credentials, registry: str, repository: str = "team/app") -> list[str]:
    return [login.username for login in credentials.logins(registry, repository)]


def config_file(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "config.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


# Where logins come from


def test_auths_of_dockers_config(tmp_path: Path) -> None:
    path = config_file(
        tmp_path,
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": encoded("hub:p:w")},
                "ghcr.io": {"username": "cat", "password": "pw"},
                "https://r.example/v2/": {"auth": encoded("slash:pw")},
                "tokens.example": {"auth": encoded("u:"), "identitytoken": "refresh"},
                "empty.example": {},
            }
        },
    )
    credentials = docker_config(path)
    (hub,) = credentials.logins("docker.io", "library/a")
    assert (hub.username, hub.password.reveal()) == ("hub", "p:w")
    assert names(credentials, "registry-1.docker.io") == ["hub"]
    assert names(credentials, "ghcr.io") == ["cat"]
    assert names(credentials, "r.example") == ["slash"]
    (token,) = credentials.logins("tokens.example", "a")
    assert token.identity_token == Secret("refresh")
    assert names(credentials, "empty.example") == names(credentials, "unknown.example") == []


def test_no_config_file_means_no_logins(tmp_path: Path) -> None:
    assert docker_config(tmp_path / "none.json").logins("r.io", "a") == ()


def test_the_most_specific_login_comes_first() -> None:
    keys = ["*.example", "r.example", "r.example/team", "r.example/team/app", "r.example/te", "other.example/team"]
    credentials = Credentials([(key, Login(key)) for key in keys])
    assert names(credentials, "r.example") == ["r.example/team/app", "r.example/team", "r.example", "*.example"]
    assert names(credentials, "r.example", "elsewhere") == ["r.example", "*.example"]


@pytest.mark.parametrize(
    ("key", "registry", "fits"),
    [
        ("*.example", "a.example", True),
        ("*.example", "a.b.example", False),
        ("*.example", "example", False),
        ("r*.example", "r1.example", True),
        ("r.example:5000", "r.example:5000", True),
        ("r.example", "r.example:5000", False),
        ("*.example:5000", "a.example:5000", True),
        ("*.example:5000", "a.example", False),
        ("[::1]:5000", "[::1]:5000", True),
    ],
)
def test_patterns_stand_for_one_label_each(key: str, registry: str, fits: bool) -> None:
    assert names(Credentials([(key, Login("u"))]), registry) == (["u"] if fits else [])


def test_sets_of_logins_are_asked_in_turn() -> None:
    both = single_login("r.io", "a", Secret("1")) + single_login("r.io", "b", Secret("2"))
    assert names(both, "r.io") == ["a", "b"]


def helper(folder: Path, name: str, script: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    answer = """read server; printf '{"ServerURL":"%s","Username":"from-'$0'","Secret":"%s"}' "$server" "$server" """
    helper(folder, "store", answer.replace("'$0'", "store"))
    helper(folder, "special", answer.replace("'$0'", "special"))
    helper(folder, "token", """printf '{"Username":"<token>","Secret":"refresh"}'""")
    helper(folder, "lacking", "echo 'credentials not found in native keychain'; exit 1")
    helper(folder, "broken", "echo 'the keychain is locked' >&2; exit 1")
    helper(folder, "babble", "echo hello")
    return folder


def test_credential_helpers_are_asked_for_their_registries(tmp_path: Path, helpers: Path) -> None:
    value = {"auths": {"r.io": {"auth": encoded("file:pw")}}, "credsStore": "store", "credHelpers": {"s.io": "special"}}
    credentials = docker_config(config_file(tmp_path, value))
    assert names(credentials, "s.io") == ["from-special"]
    assert names(credentials, "r.io") == ["from-store", "file"]
    (hub,) = credentials.logins("docker.io", "library/a")
    assert hub.password.reveal() == "https://index.docker.io/v1/"


def test_a_helper_may_know_nothing_or_give_a_token(tmp_path: Path, helpers: Path) -> None:
    credentials = docker_config(config_file(tmp_path, {"credHelpers": {"a.io": "lacking", "b.io": "token"}}))
    assert credentials.logins("a.io", "x") == ()
    assert credentials.logins("b.io", "x") == (Login(identity_token=Secret("refresh")),)
    assert credentials.logins("c.io", "x") == ()


@pytest.mark.parametrize(
    ("name", "word"),
    [("broken", "keychain is locked"), ("babble", "not JSON"), ("absent", "not on PATH"), ("../evil", "no name")],
)
def test_a_helper_that_fails_is_named(tmp_path: Path, helpers: Path, name: str, word: str) -> None:
    credentials = docker_config(config_file(tmp_path, {"credsStore": name}))
    with pytest.raises(CredentialsError) as caught:
        credentials.logins("r.io", "a")
    problem = caught.value.diagnostics[0]
    assert name in problem.summary
    assert word in problem.summary + problem.detail


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        {"auths": []},
        {"auths": {"r.io": "x"}},
        {"auths": {"r.io": {"auth": "%%% sesame"}}},
        {"auths": {"r.io": {"auth": encoded("sesame")}}},
        {"auths": {"r.io": {"password": 7}}},
        {"credsStore": 7},
    ],
)
def test_a_config_that_cannot_be_used_is_named_without_its_secrets(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CredentialsError) as caught:
        docker_config(config_file(tmp_path, value))
    assert "config.json" in str(caught.value)
    assert "sesame" not in str(caught.value.diagnostics)


def pull(kind: str, key: str, value: Any) -> dict[str, Any]:
    data = value if isinstance(value, str) else encoded(json.dumps(value))
    return {"metadata": {"namespace": "ns", "name": "pull"}, "type": f"kubernetes.io/{kind}", "data": {key: data}}


def test_pull_secrets_of_both_types() -> None:
    auths = {"r.io": {"username": "u", "password": "p"}}
    assert names(pull_secret(pull("dockerconfigjson", ".dockerconfigjson", {"auths": auths})), "r.io") == ["u"]
    assert names(pull_secret(pull("dockercfg", ".dockercfg", auths)), "r.io") == ["u"]


@pytest.mark.parametrize(
    ("secret", "word"),
    [
        (pull("tls", "tls.crt", "eA=="), "kubernetes.io/tls"),
        (pull("dockercfg", "other", "e30="), ".dockercfg"),
        (pull("dockercfg", ".dockercfg", "!"), "base64"),
        (pull("dockercfg", ".dockercfg", encoded("sesame")), "JSON"),
    ],
)
def test_a_pull_secret_that_is_none_is_named(secret: dict[str, Any], word: str) -> None:
    with pytest.raises(CredentialsError, match="ns/pull") as caught:
        pull_secret(secret)
    assert word in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_logins_do_not_show_their_secrets() -> None:
    login = Login("u", Secret("sesame"), Secret("sesame"), Secret("sesame"))
    credentials = Credentials([("r.io", login)])
    assert "sesame" not in f"{login} {credentials} {credentials.fingerprint}"
    assert credentials.fingerprint == Credentials([("r.io", login)]).fingerprint
    assert credentials.fingerprint != single_login("r.io", "u", Secret("other")).fingerprint


# How they are used


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Basic realm="x y"'], [Challenge("basic", {"realm": "x y"})]),
        (
            ['Bearer realm="https://a/t",service="s, t",scope="repository:a/b:pull,push"'],
            [Challenge("bearer", {"realm": "https://a/t", "service": "s, t", "scope": "repository:a/b:pull,push"})],
        ),
        (["Negotiate, BASIC realm=plain"], [Challenge("negotiate", {}), Challenge("basic", {"realm": "plain"})]),
        (["Negotiate", 'Basic realm="q\\"q"'], [Challenge("negotiate", {}), Challenge("basic", {"realm": 'q"q'})]),
        (["", "=,,=", '"'], []),
    ],
)
def test_challenges_are_read_as_http_writes_them(headers: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(headers) == expected


def login_for(registry: FakeRegistry, user: str = "u", password: str = "p") -> Credentials:
    return single_login(registry.host, user, Secret(password))


def pulls(client: RegistryClient, registry: FakeRegistry, name: str = "team/app") -> str:
    return client.manifest(parse_reference(f"{registry.host}/{name}:v1")).digest


def test_basic_access(client_for: ClientFactory) -> None:
    with FakeRegistry(basic=("u", "p")) as registry:
        digest = registry.put_artifact("team/app", "v1", [])
        client = client_for(credentials=login_for(registry))
        assert pulls(client, registry) == pulls(client, registry) == digest
        assert len(registry.requests) == 3  # the second pull knew
        with pytest.raises(UnauthorizedError) as caught:
            pulls(client_for(credentials=login_for(registry, "u", "wrong")), registry)
        assert caught.value.diagnostics[0].hint == ""
        with pytest.raises(UnauthorizedError) as caught:
            pulls(client_for(), registry)
        assert "docker login" in caught.value.diagnostics[0].hint


def test_bearer_access_with_a_login_for_pull_and_push(client_for: ClientFactory) -> None:
    with FakeRegistry(bearer=True, users={"u": "p"}) as registry:
        client, ref = client_for(credentials=login_for(registry)), parse_reference(f"{registry.host}/team/app:v1")
        client.push_blob(ref, b"data")
        digest = client.push_manifest(ref, b"{}", OCI_MANIFEST)
        assert pulls(client, registry) == digest
        scopes = [request["scope"] for request in registry.token_requests]
        assert scopes == ["repository:team/app:pull,push", "repository:team/app:pull"]


def test_bearer_access_without_a_login(client_for: ClientFactory) -> None:
    with FakeRegistry(bearer=True, anonymous_pull=True) as registry:
        digest = registry.put_artifact("team/app", "v1", [])
        assert pulls(client_for(), registry) == digest
        with pytest.raises(UnauthorizedError):
            client_for().push_manifest(parse_reference(f"{registry.host}/team/app:v1"), b"{}", OCI_MANIFEST)


def test_a_login_that_is_refused_falls_back_to_the_next_and_to_none(client_for: ClientFactory) -> None:
    with FakeRegistry(bearer=True, users={"u": "p"}, anonymous_pull=True) as registry:
        digest = registry.put_artifact("team/app", "v1", [])
        both = login_for(registry, "old", "x") + login_for(registry)
        assert pulls(client_for(credentials=both), registry) == digest
        assert pulls(client_for(credentials=login_for(registry, "old", "x")), registry) == digest


def test_an_identity_token_is_exchanged(client_for: ClientFactory) -> None:
    with FakeRegistry(bearer=True) as registry:
        registry.refresh_tokens.add("refresh")
        digest = registry.put_artifact("team/app", "v1", [])
        credentials = Credentials([(registry.host, Login(identity_token=Secret("refresh")))])
        assert pulls(client_for(credentials=credentials), registry) == digest
        assert registry.token_requests[0]["grant_type"] == "refresh_token"


def test_a_ready_token_is_sent_as_it_is(client_for: ClientFactory) -> None:
    with FakeRegistry(bearer=True) as registry:
        registry.tokens["ready"] = "repository:team/app:pull"
        digest = registry.put_artifact("team/app", "v1", [])
        credentials = Credentials([(registry.host, Login(registry_token=Secret("ready")))])
        assert pulls(client_for(credentials=credentials), registry) == digest


def test_a_token_is_used_until_it_ends_and_renewed_when_it_was_withdrawn(client_for: ClientFactory) -> None:
    clock = [0.0]
    with FakeRegistry(bearer=True, anonymous_pull=True) as registry:
        registry.put_artifact("team/app", "v1", [])
        client = client_for(clock=lambda: clock[0])
        for moment, tokens in ((0.0, 1), (280.0, 1), (295.0, 2)):
            clock[0] = moment
            pulls(client, registry)
            assert len(registry.token_requests) == tokens
        registry.tokens.clear()  # withdrawn
        pulls(client, registry)
        assert len(registry.token_requests) == 3


def test_tokens_are_kept_apart_by_repository_and_by_login(client_for: ClientFactory) -> None:
    with FakeRegistry(bearer=True, users={"u": "p"}, anonymous_pull=True) as registry:
        for name in ("team/app", "team/other"):
            registry.put_artifact(name, "v1", [])
        client = client_for(credentials=login_for(registry))
        pulls(client, registry)
        pulls(client, registry, "team/other")
        pulls(client.with_credentials(Credentials()), registry)
        assert len(registry.token_requests) == 3
        assert registry.count("GET", "/token") == 3
        seen = [request.authorization[:5] for request in registry.requests if request.path.startswith("/token")]
        assert seen == ["Basic", "Basic", ""]


def test_a_registry_that_never_has_enough_is_left(client_for: ClientFactory) -> None:
    with FakeRegistry(bearer=True, users={"u": "p"}, anonymous_pull=True) as registry:
        registry.fail(
            "GET", "/manifests/", Status(401, {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'}), times=99
        )
        with pytest.raises(UnauthorizedError):
            pulls(client_for(credentials=login_for(registry)), registry)
        assert registry.count("GET", "/manifests/") == 3  # without, with the login, anonymously


@pytest.mark.parametrize(
    ("challenge", "error"),
    [
        ("Bearer", RegistryProtocolError),
        ('Bearer realm="ftp://x/"', RegistryProtocolError),
        ("Negotiate", UnauthorizedError),
        ("", UnauthorizedError),
    ],
)
def test_challenges_nobody_can_meet(client_for: ClientFactory, challenge: str, error: type[OciError]) -> None:
    with FakeRegistry() as registry:
        registry.fail("GET", "/manifests/", Status(401, {"WWW-Authenticate": challenge}))
        with pytest.raises(error):
            pulls(client_for(credentials=login_for(registry)), registry)


@pytest.mark.parametrize("answer", [Status(500), Status(404), Status(200, body=b"x"), Status(200, body=b"{}")])
def test_a_token_server_out_of_order_is_named(client_for: ClientFactory, answer: Status) -> None:
    with FakeRegistry(bearer=True) as registry:
        registry.fail("GET", "/token", answer, times=99)
        with pytest.raises(OciError, match=r"token"):
            pulls(client_for(), registry)


def test_a_login_never_leaves_tls_for_a_token(client_for: ClientFactory, certificate: Any) -> None:
    ca, context = certificate
    with FakeRegistry(tls=context, bearer=True) as registry:
        registry.realm = "http://auth.example/token"
        hosts = Hosts({"s.invalid": (Endpoint(registry.url, ca=str(ca)),)}, frozenset({"s.invalid"}))
        credentials = single_login("s.invalid", "u", Secret("p"))
        with pytest.raises(UnauthorizedError, match="without TLS"):
            client_for(hosts, credentials).manifest(parse_reference("s.invalid/team/app:v1"))


def test_credentials_never_follow_a_redirect(client_for: ClientFactory, tmp_path: Path) -> None:
    with FakeRegistry(basic=("u", "p")) as registry, FakeRegistry() as elsewhere:
        digest = elsewhere.put_artifact("team/app", "v1", [])
        client = client_for(credentials=login_for(registry))
        registry.put_artifact("team/app", "v0", [])
        client.manifest(parse_reference(f"{registry.host}/team/app:v0"))
        registry.fail("GET", "/manifests/", Redirect(f"{elsewhere.url}/v2/team/app/manifests/v1"))
        assert pulls(client, registry) == digest
        assert elsewhere.requests[0].authorization == ""
        assert registry.requests[-1].authorization.startswith("Basic")
        # and where it asks for some, it gets none
        elsewhere.basic = ("u", "p")
        registry.fail("GET", "/manifests/", Redirect(f"{elsewhere.url}/v2/team/app/manifests/v1"))
        with pytest.raises(OciError, match="401"):
            pulls(client, registry)


def test_a_mirror_gets_its_own_login_and_not_the_registrys(client_for: ClientFactory) -> None:
    with FakeRegistry(basic=("u", "p")) as registry, FakeRegistry(basic=("m", "p")) as mirror:
        digest = mirror.put_artifact("team/app", "v1", [])
        hosts = Hosts({registry.host: (Endpoint(mirror.url),)})
        client = client_for(hosts, login_for(registry) + login_for(mirror, "m"))
        assert pulls(client, registry) == digest
        assert registry.requests == []
        with pytest.raises(OciError):
            pulls(client_for(hosts, login_for(registry)), registry)
        assert [seen.authorization for seen in mirror.requests[2:]] == [""]


def test_an_alias_lends_its_login_to_what_stands_for_it(client_for: ClientFactory) -> None:
    with FakeRegistry(basic=("u", "p")) as registry:
        digest = registry.put_artifact("team/app", "v1", [])
        hosts = Hosts({"cinderegg:5000": (Endpoint(registry.url),)}, frozenset({"cinderegg:5000"}))
        client = client_for(hosts, single_login("cinderegg:5000", "u", Secret("p")))
        assert client.manifest(parse_reference("cinderegg:5000/team/app:v1")).digest == digest


def test_the_client_is_light_to_import() -> None:
    """The node agent loads it: no heavy library may come along."""
    heavy = "{'requests', 'pydantic', 'kubernetes', 'wasmtime', 'aiohttp', 'docker', 'cryptography', 'rich', 'typer'}"
    code = f"import sys, cinderctl.oci.artifact; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
