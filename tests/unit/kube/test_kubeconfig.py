"""What a user relies on when we touch the kubeconfig: ours goes in and out, everything else stays, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cinderctl.core.diagnostics import LockedError
from cinderctl.host.identity import Identity
from cinderctl.kube import configlock
from cinderctl.kube.configfile import CorruptConfigError, ForeignEntryError
from cinderctl.kube.kubeconfig import Entries, Names, config_files, merge, names_for, read_entry, remove

NAMES = names_for("cinder", "/state/cinder")
OURS = Entries(
    NAMES.cluster,
    NAMES.context,
    NAMES.user,
    "https://127.0.0.1:6443",
    b"CA",
    b"CERT",
    b"KEY",
    "kube-system",
    NAMES.owner,
)

FOREIGN = """\
# My clusters. Do not lose this line.
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
  # the big one
  - name: prod
    cluster:
      server: 'https://prod.example.com'   # quoted on purpose
      certificate-authority: /etc/ca.crt
      x-my-tool: {a: 1}

contexts:
  - name: prod
    context: {cluster: prod, user: me}
# people
users:
  - name: me
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: login
        args: ["--now",
               "yes"]
current-context: prod # where I work
my-own-key: 0x10
"""

MERGED = """\
# My clusters. Do not lose this line.
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
  # the big one
  - name: prod
    cluster:
      server: 'https://prod.example.com'   # quoted on purpose
      certificate-authority: /etc/ca.crt
      x-my-tool: {a: 1}
  - cluster:
      certificate-authority-data: Q0E=
      extensions:
      - extension:
          cluster: cinder
          owner: /state/cinder
        name: cinder.crit.sh
      server: https://127.0.0.1:6443
    name: cinder

contexts:
  - name: prod
    context: {cluster: prod, user: me}
  - context:
      cluster: cinder
      extensions:
      - extension:
          cluster: cinder
          owner: /state/cinder
        name: cinder.crit.sh
      namespace: kube-system
      user: kubernetes-admin@cinder
    name: kubernetes-admin@cinder
# people
users:
  - name: me
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: login
        args: ["--now",
               "yes"]
  - user:
      client-certificate-data: Q0VSVA==
      client-key-data: S0VZ
      extensions:
      - extension:
          cluster: cinder
          owner: /state/cinder
        name: cinder.crit.sh
    name: kubernetes-admin@cinder
current-context: kubernetes-admin@cinder # where I work
my-own-key: 0x10
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / ".kube" / "config"
    path.parent.mkdir(0o750)
    path.write_text(FOREIGN)
    path.chmod(0o640)
    return path


def put(home: Path, entries: Entries = OURS, *, env: str | None = None, current: bool = True, **more: float) -> str:
    return merge(env, home, None, entries, current, **more).previous_context


def test_our_entries_are_added_and_nothing_else_moves(config: Path, tmp_path: Path) -> None:
    result = merge(None, tmp_path, None, OURS, True)
    assert config.read_text() == MERGED
    assert (result.path, result.previous_context, result.created, result.changed) == (config, "prod", False, True)
    assert config.stat().st_mode & 0o777 == 0o640
    assert config.parent.stat().st_mode & 0o777 == 0o750
    assert sorted(p.name for p in config.parent.iterdir()) == ["config"], "no lock and no temporary file is left"


def test_what_was_added_is_taken_out_again_to_the_byte(config: Path, tmp_path: Path) -> None:
    previous = put(tmp_path)
    assert remove(None, tmp_path, None, NAMES, restore=previous)
    assert config.read_text() == FOREIGN
    assert config.stat().st_mode & 0o777 == 0o640
    assert not remove(None, tmp_path, None, NAMES, restore=previous)


def test_merging_twice_changes_nothing(config: Path, tmp_path: Path) -> None:
    put(tmp_path)
    before = config.stat()
    result = merge(None, tmp_path, None, OURS, True)
    assert not result.changed
    assert (config.stat().st_ino, config.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_was_put_in_is_seen(config: Path, tmp_path: Path) -> None:
    assert read_entry(None, tmp_path, None, NAMES) is None
    put(tmp_path)
    found = read_entry(None, tmp_path, None, NAMES)
    assert found is not None
    assert (found.server, found.ca_data, found.cert_data, found.key_data) == (OURS.server, b"CA", b"CERT", b"KEY")
    assert (found.namespace, found.current, found.linked, found.foreign, found.missing) == (
        "kube-system",
        True,
        True,
        "",
        (),
    )
    assert "KEY" not in repr(found)
    assert "KEY" not in repr(OURS)


def test_two_clusters_do_not_share_credentials(config: Path, tmp_path: Path) -> None:
    other = names_for("second", "/state/second")
    put(tmp_path)
    put(
        tmp_path,
        Entries(other.cluster, other.context, other.user, "https://x", b"CA2", b"C2", b"K2", owner=other.owner),
    )
    first, second = (read_entry(None, tmp_path, None, names) for names in (NAMES, other))
    assert first is not None
    assert second is not None
    assert (first.key_data, second.key_data) == (b"KEY", b"K2")
    remove(None, tmp_path, None, other, restore=NAMES.context)
    assert read_entry(None, tmp_path, None, NAMES) == Found_current(first)


def Found_current(found: object) -> object:  # noqa: N802 - reads as the value it makes
    import dataclasses

    return dataclasses.replace(found, current=True, current_context=NAMES.context)  # type: ignore[type-var]


def test_a_first_kubeconfig_is_private_and_goes_when_nothing_is_left(tmp_path: Path) -> None:
    result = merge(None, tmp_path, None, OURS, True)
    path = tmp_path / ".kube" / "config"
    assert (result.path, result.created) == (path, True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    remove(None, tmp_path, None, NAMES, created=True)
    assert not path.exists()


def test_a_created_file_that_others_used_since_stays(tmp_path: Path) -> None:
    merge(None, tmp_path, None, OURS, True)
    path = tmp_path / ".kube" / "config"
    path.write_text(
        path.read_text().replace("clusters:\n", "clusters:\n- name: other\n  cluster: {server: https://o}\n")
    )
    remove(None, tmp_path, None, NAMES, created=True)
    assert "name: other" in path.read_text()
    assert "cinder" not in path.read_text()


def test_rotated_certificates_replace_ours_and_keep_what_the_user_added(config: Path, tmp_path: Path) -> None:
    put(tmp_path)
    text = config.read_text()
    config.write_text(
        text.replace(
            "server: https://127.0.0.1:6443\n", "server: https://127.0.0.1:6443\n      proxy-url: http://p # mine\n"
        )
    )
    rotated = Entries(
        OURS.cluster, OURS.context, OURS.user, "https://127.0.0.1:7443", b"CA9", b"C9", b"K9", owner=OURS.owner
    )
    put(tmp_path, rotated)
    found = read_entry(None, tmp_path, None, NAMES)
    assert found is not None
    assert (found.server, found.ca_data, found.key_data, found.namespace) == (rotated.server, b"CA9", b"K9", "")
    assert "proxy-url: http://p # mine" in config.read_text()


def test_a_hand_edit_is_seen_and_repaired(config: Path, tmp_path: Path) -> None:
    put(tmp_path)
    config.write_text(config.read_text().replace("https://127.0.0.1:6443", "https://10.0.0.1:1"))
    found = read_entry(None, tmp_path, None, NAMES)
    assert found is not None
    assert found.server == "https://10.0.0.1:1"
    assert merge(None, tmp_path, None, OURS, True).changed
    repaired = read_entry(None, tmp_path, None, NAMES)
    assert repaired is not None
    assert repaired.server == OURS.server


def test_the_context_the_user_chose_since_stays(config: Path, tmp_path: Path) -> None:
    put(tmp_path)
    config.write_text(config.read_text().replace("current-context: kubernetes-admin@cinder", "current-context: prod"))
    remove(None, tmp_path, None, NAMES, restore="elsewhere")
    assert config.read_text() == FOREIGN


def test_a_previous_context_that_is_gone_is_not_restored(config: Path, tmp_path: Path) -> None:
    put(tmp_path)
    remove(None, tmp_path, None, NAMES, restore="gone")
    assert 'current-context: "" # where I work' in config.read_text()


def test_the_current_context_can_be_left_alone(config: Path, tmp_path: Path) -> None:
    put(tmp_path, current=False)
    assert "current-context: prod # where I work" in config.read_text()


@pytest.mark.parametrize("part", ["clusters", "contexts", "users"])
def test_an_entry_of_the_same_name_that_is_not_ours_is_left_alone(tmp_path: Path, part: str) -> None:
    bodies = {
        "clusters": "- name: cinder\n  cluster: {server: https://mine}\n",
        "contexts": "- name: kubernetes-admin@cinder\n  context: {cluster: mine, user: me}\n",
        "users": "- name: kubernetes-admin@cinder\n  user: {token: mine}\n",
    }
    path = tmp_path / "config"
    path.write_text(f"{part}:\n{bodies[part]}")
    before = path.read_text()
    with pytest.raises(ForeignEntryError) as caught:
        merge(str(path), tmp_path, None, OURS, True)
    assert str(path) in caught.value.diagnostics[0].detail
    assert "mine" not in caught.value.diagnostics[0].detail
    found = read_entry(str(path), tmp_path, None, OURS)
    assert found is not None
    assert found.foreign
    remove(str(path), tmp_path, None, NAMES)
    assert path.read_text() == before


def test_a_cluster_of_the_same_name_in_another_state_directory_is_foreign(config: Path, tmp_path: Path) -> None:
    put(tmp_path)
    before = config.read_text()
    other = names_for("cinder", "/elsewhere")
    with pytest.raises(ForeignEntryError, match="not ours") as caught:
        put(
            tmp_path,
            Entries(other.cluster, other.context, other.user, "https://x", b"B", b"B", b"B", owner=other.owner),
        )
    assert "/state/cinder" in caught.value.diagnostics[0].detail
    remove(None, tmp_path, None, other)
    assert config.read_text() == before


def test_entries_that_lost_their_mark_are_known_by_their_certificates(config: Path, tmp_path: Path) -> None:
    put(tmp_path)
    lines = config.read_text().splitlines(keepends=True)
    config.write_text(
        "".join(line for line in lines if "cinder.crit.sh" not in line).replace("owner: /state/cinder", "x: y")
    )
    text = config.read_text()
    config.write_text(
        text.replace("      - extension:\n          cluster: cinder\n          x: y\n", "      - {name: other}\n")
    )
    found = read_entry(None, tmp_path, None, OURS)
    assert found is not None
    assert found.foreign == ""
    put(tmp_path)
    assert config.read_text().count("cinder.crit.sh") == 3
    assert config.read_text().count("other") == 3, "what others put beside our mark stays"


def test_symbolic_links_are_written_through(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "kube.yaml"
    real.parent.mkdir()
    real.write_text(FOREIGN)
    link = tmp_path / ".kube" / "config"
    link.parent.mkdir()
    link.symlink_to("../dotfiles/kube.yaml")
    put(tmp_path)
    assert link.is_symlink()
    assert "kubernetes-admin@cinder" in real.read_text()
    remove(None, tmp_path, None, NAMES, restore="prod")
    assert real.read_text() == FOREIGN


def test_a_link_into_nowhere_makes_the_file_it_names(tmp_path: Path) -> None:
    link = tmp_path / ".kube" / "config"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "dotfiles" / "kube.yaml")
    put(tmp_path)
    assert link.is_symlink()
    assert (tmp_path / "dotfiles" / "kube.yaml").stat().st_mode & 0o777 == 0o600


def test_files_and_their_precedence_are_kubectls(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert config_files(None, tmp_path, None) == [tmp_path / ".kube" / "config"]
    assert config_files("", tmp_path, None) == [tmp_path / ".kube" / "config"]
    assert config_files(f"{a}{os.pathsep}{os.pathsep}{b}{os.pathsep}{a}", tmp_path, None) == [a, b]
    assert config_files(f"{a}", tmp_path, b) == [b]


def test_of_several_files_the_first_that_exists_gets_new_entries(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    b.write_text("apiVersion: v1\nkind: Config\n")
    c.write_text(FOREIGN)
    env = os.pathsep.join(map(str, (a, b, c)))
    assert put(tmp_path, env=env) == "prod"
    assert not a.exists()
    assert "name: cinder" in b.read_text()
    assert c.read_text() == FOREIGN.replace("current-context: prod", "current-context: kubernetes-admin@cinder")
    remove(env, tmp_path, None, NAMES, restore="prod")
    assert c.read_text() == FOREIGN


def test_of_several_files_none_of_which_exists_the_last_is_made(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert merge(f"{a}{os.pathsep}{b}", tmp_path, None, OURS, True).path == b
    assert not a.exists()


def test_an_entry_is_changed_in_the_file_where_it_lives(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    merge(str(b), tmp_path, None, OURS, False)
    a.write_text(FOREIGN)
    moved = Entries(OURS.cluster, OURS.context, OURS.user, "https://new", b"CA", b"CERT", b"KEY", owner=OURS.owner)
    merge(f"{a}{os.pathsep}{b}", tmp_path, None, moved, False)
    assert a.read_text() == FOREIGN
    assert "https://new" in b.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "clusters: [\n",
        "- a list\n",
        "just text\n",
        "clusters: 7\n",
        "clusters:\n- cluster: {}\n",
        "clusters:\n- name: 7\n",
        "users:\n- name: a\n  user: text\n",
        "a: 1\n---\nb: 2\n",
        "a: 1\na: 2\n",
        "\x00",
        "x: &a [*a]\n\tb",
    ],
)
def test_a_file_that_cannot_be_read_is_never_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    for attempt in (
        lambda: merge(str(path), tmp_path, None, OURS, True),
        lambda: read_entry(str(path), tmp_path, None, NAMES),
        lambda: remove(str(path), tmp_path, None, NAMES),
    ):
        with pytest.raises(CorruptConfigError, match="no kubeconfig"):
            attempt()
    assert path.read_text() == text


def test_bytes_that_are_no_text_are_never_written(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptConfigError):
        merge(str(path), tmp_path, None, OURS, True)
    assert path.read_bytes() == b"\xff\xfe\x00"


def test_a_parse_error_does_not_repeat_the_text_around_it(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("users:\n- name: a\n  user: {token: hunter2\n")
    with pytest.raises(CorruptConfigError) as caught:
        merge(str(path), tmp_path, None, OURS, True)
    assert "hunter2" not in str(caught.value.diagnostics)
    assert "line" in caught.value.diagnostics[0].detail


def test_an_anchor_in_our_entry_is_not_edited_blindly(tmp_path: Path) -> None:
    path = tmp_path / "config"
    text = textwrap.dedent("""\
        x: &shared {server: https://127.0.0.1:1, certificate-authority-data: Q0E=}
        clusters:
        - {name: cinder, cluster: *shared}
        - {name: other, cluster: *shared}
        """)
    path.write_text(text)
    merge(str(path), tmp_path, None, OURS, False)
    assert "&shared {server: https://127.0.0.1:1" in path.read_text()
    assert "- {name: other, cluster: *shared}" in path.read_text()


def test_a_json_kubeconfig_stays_json(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "clusters": None, "x": 1}))
    merge(str(path), tmp_path, None, OURS, True)
    value = json.loads(path.read_text())
    assert [c["name"] for c in value["clusters"]] == ["cinder"]
    assert value["x"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "clusters: []\ncontexts: null\nusers:\n",
        "clusters:   # none yet\ncontexts: []\nusers: []\n",
    ],
)
def test_empty_lists_are_filled_and_emptied(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    merge(str(path), tmp_path, None, OURS, True)
    assert read_entry(str(path), tmp_path, None, NAMES) is not None
    for line in text.splitlines():
        if "#" in line:
            assert line[line.index("#") :] in path.read_text()
    remove(str(path), tmp_path, None, NAMES)
    assert read_entry(str(path), tmp_path, None, NAMES) is None


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(FOREIGN.replace("\n", "\r\n").encode())
    merge(str(path), tmp_path, None, OURS, True)
    assert b"\n" not in path.read_bytes().replace(b"\r\n", b"")
    remove(str(path), tmp_path, None, NAMES, restore="prod")
    assert path.read_bytes() == FOREIGN.replace("\n", "\r\n").encode()


def test_names_that_yaml_takes_for_something_else_are_quoted(tmp_path: Path) -> None:
    names = Names("on", "null", "123")
    merge(None, tmp_path, None, Entries(*("on", "null", "123"), "https://x", b"", b"", b""), True)
    text = (tmp_path / ".kube" / "config").read_text()
    assert 'name: "on"' in text
    assert 'user: "123"' in text
    assert read_entry(None, tmp_path, None, names) is not None


def test_a_lock_of_a_living_program_is_waited_for_then_reported(config: Path, tmp_path: Path) -> None:
    lock = config.with_name("config.lock")
    lock.touch()
    with pytest.raises(LockedError) as caught:
        put(tmp_path, patience=0.1)
    assert str(lock) in caught.value.diagnostics[0].hint
    assert lock.exists(), "an empty lock says nothing of its owner, so it is never broken"
    assert config.read_text() == FOREIGN


def test_a_lock_that_goes_in_time_is_no_hindrance(config: Path, tmp_path: Path) -> None:
    lock = config.with_name("config.lock")
    lock.touch()
    with configlock.config_locks([config], patience=5, pause=lambda _: lock.unlink()):
        assert lock.exists()
    assert not lock.exists()


def test_a_lock_whose_owner_was_killed_is_taken_over(config: Path, tmp_path: Path) -> None:
    killed = "import os, signal, sys; from pathlib import Path; from cinderctl.kube.configlock import config_locks\n"
    killed += "with config_locks([Path(sys.argv[1])], patience=1): os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", killed, str(config)], check=False).returncode == -9
    assert config.with_name("config.lock").exists()
    put(tmp_path, patience=0)
    assert not config.with_name("config.lock").exists()


def test_a_lock_of_another_host_is_not_ours_to_judge(config: Path, tmp_path: Path) -> None:
    lock = config.with_name("config.lock")
    dead = Identity(2**22 - 1, 1.0, "x", "another boot")
    lock.write_text(json.dumps({"host": "elsewhere", "owner": dead.to_json()}))
    with pytest.raises(LockedError):
        put(tmp_path, patience=0)


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    code = textwrap.dedent("""\
        import sys
        from pathlib import Path
        from cinderctl.kube.kubeconfig import Entries, merge, names_for
        for n in range(5):
            names = names_for(f"{sys.argv[1]}-{n}")
            entries = Entries(names.cluster, names.context, names.user, "https://x", b"", b"", b"")
            merge(None, Path(sys.argv[2]), None, entries, True)
        """)
    workers = [subprocess.Popen([sys.executable, "-c", code, name, str(tmp_path)]) for name in ("a", "b", "c")]
    assert [worker.wait(30) for worker in workers] == [0, 0, 0]
    for name in ("a", "b", "c"):
        for number in range(5):
            assert read_entry(None, tmp_path, None, names_for(f"{name}-{number}")) is not None
    assert [p.name for p in (tmp_path / ".kube").iterdir()] == ["config"]
