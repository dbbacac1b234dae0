"""A reference means what Docker, containerd and Kubernetes take it to mean."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderctl.oci.errors import InvalidReferenceError
from cinderctl.oci.reference import Reference, is_digest, parse_reference

HEX = "a" * 64
SHA = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", Reference("docker.io", "library/hello", "latest")),
        ("hello:v1", Reference("docker.io", "library/hello", "v1")),
        ("user/hello", Reference("docker.io", "user/hello", "latest")),
        ("user/deep/hello:v1", Reference("docker.io", "user/deep/hello", "v1")),
        ("docker.io/hello", Reference("docker.io", "library/hello", "latest")),
        ("docker.io/library/hello", Reference("docker.io", "library/hello", "latest")),
        ("index.docker.io/user/hello", Reference("docker.io", "user/hello", "latest")),
        ("localhost/hello", Reference("localhost", "hello", "latest")),
        ("localhost:5000/hello-world:v1", Reference("localhost:5000", "hello-world", "v1")),
        ("cinderegg:5000/hello-world:v1", Reference("cinderegg:5000", "hello-world", "v1")),
        ("127.0.0.1:5000/a/b", Reference("127.0.0.1:5000", "a/b", "latest")),
        ("[::1]:5000/a", Reference("[::1]:5000", "a", "latest")),
        ("Upper/hello", Reference("Upper", "hello", "latest")),
        ("ghcr.io/o/r@" + SHA, Reference("ghcr.io", "o/r", "", SHA)),
        ("ghcr.io/o/r:v1@" + SHA, Reference("ghcr.io", "o/r", "v1", SHA)),
        ("hello@" + SHA, Reference("docker.io", "library/hello", "", SHA)),
        ("xn--n3h.com/a__b/c-d.e", Reference("xn--n3h.com", "a__b/c-d.e", "latest")),
        ("r.io/a--b:" + "t" * 128, Reference("r.io", "a--b", "t" * 128)),
        ("r.io/a:_x.Y-z", Reference("r.io", "a", "_x.Y-z")),
        ("hello:5000", Reference("docker.io", "library/hello", "5000")),
    ],
)
def test_references_are_read_by_docker_rules(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        (" ", "empty"),
        (" a", "space"),
        ("a\n", "space"),
        ("https://r.io/a", "scheme"),
        (HEX, "image ID"),
        ("r.io/Hello", "lower case"),
        ("Hello", "lower case"),
        ("r.io/", "repository"),
        ("r.io/a//b", "repository"),
        ("r.io/a_-b", "repository"),
        ("r.io/a___b", "repository"),
        ("r.io/-a", "repository"),
        ("r.io/a.", "repository"),
        ("r.io/../a", "repository"),
        ("r.io/a:", "tag"),
        ("r.io/a:.x", "tag"),
        ("r.io/a:" + "t" * 129, "tag"),
        ("r.io/a:ü", "tag"),
        ("r.io/a@", "digest"),
        ("r.io/a@sha256:abc", "digest"),
        ("r.io/a@sha256:" + "A" * 64, "digest"),
        ("r.io/a@md5:" + "a" * 32, "md5"),
        ("-r.io/a", "registry"),
        ("r.io:port/a", "registry"),
        ("user@r.io/a", "digest"),
        ("r.io/" + "a" * 256, "256"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_reason(text: str, word: str) -> None:
    with pytest.raises(InvalidReferenceError, match=word):
        parse_reference(text)


def test_a_refusal_proposes_what_was_meant() -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference("r.io/Hello/World")
    assert "hello/world" in caught.value.diagnostics[0].hint
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference("http://r.io/a")
    assert "r.io/a" in caught.value.diagnostics[0].hint


def test_the_digest_is_what_is_asked_for_when_both_are_given() -> None:
    assert parse_reference(f"r.io/a:v1@{SHA}").target == SHA
    assert parse_reference("r.io/a:v1").target == "v1"
    assert str(parse_reference("r.io/a:v1").at(SHA)) == f"r.io/a@{SHA}"


component = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)?", fullmatch=True)
references = st.builds(
    Reference,
    registry=st.sampled_from(["r.io", "localhost", "localhost:5000", "[::1]:1", "Host"]),
    repository=st.lists(component, min_size=1, max_size=3).map("/".join).filter(lambda text: len(text) < 255),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    digest=st.sampled_from(["", SHA]),
)


@settings(max_examples=60, deadline=None)
@given(references)
def test_the_text_of_a_reference_reads_back_as_itself(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="aZ0.:/@-_[] \n", max_size=40))
def test_any_text_is_a_reference_or_a_clear_refusal(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference


def test_digests_we_cannot_check_are_no_digests() -> None:
    assert is_digest(SHA)
    assert is_digest("sha512:" + "0" * 128)
    assert not is_digest("sha256:" + "0" * 63)
    assert not is_digest("md5:" + "0" * 64)
