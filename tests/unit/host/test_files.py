"""Directories, atomic files and records: what survives a full disk, a link, a damaged file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError, UsageError
from cinderctl.core.record import Record
from cinderctl.host.dirs import Home
from cinderctl.host.files import (
    CorruptFileError,
    StorageError,
    ensure_dir,
    read_json,
    remove_tree,
    tail,
    write_atomic,
    write_json,
)
from cinderctl.host.records import delete_record, list_records, read_extra, read_record, write_record


def test_home_follows_the_xdg_convention(tmp_path: Path) -> None:
    home = Home.from_env({"HOME": "/home/u", "XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": "relative/is/ignored"})
    assert home.state == tmp_path / "cinderctl"
    assert home.cache == Path("/home/u/.cache/cinderctl")
    assert home.cluster("cinder").etcd == tmp_path / "cinderctl/cinder/etcd"
    assert home.registry("cinderegg").users == tmp_path / "cinderctl/_registry/cinderegg/users"


def test_home_without_a_home_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no home directory"):
        Home.from_env({})


@pytest.mark.parametrize("name", ["", "..", "a/b", "_host", "-a", "A", "a" * 64])
def test_a_cluster_name_cannot_name_another_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(CinderError, match="not a cluster name"):
        Home(tmp_path, tmp_path).cluster(name)


def test_clusters_are_the_folders_with_cluster_names(tmp_path: Path) -> None:
    home = Home(tmp_path / "state", tmp_path)
    assert home.clusters() == []
    for name in ("b", "a", "_host", "_registry"):
        ensure_dir(home.state / name)
    (home.state / "file").touch()
    assert home.clusters() == ["a", "b"]


def test_directories_are_private_with_their_parents(tmp_path: Path) -> None:
    ensure_dir(tmp_path / "a/b/c")
    (tmp_path / "open").mkdir(0o755)
    ensure_dir(tmp_path / "open")
    for path in ("a", "a/b", "a/b/c", "open"):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o700


def test_a_file_in_the_way_of_a_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(StorageError, match="cannot make the directory"):
        ensure_dir(tmp_path / "f")


def test_write_atomic_replaces_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_so_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    real_open = os.open

    def on_a_full_disk(name: str | Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(name, flags, mode)
        if not str(name).endswith(".tmp"):
            return descriptor
        os.close(descriptor)
        return real_open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", on_a_full_disk)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        write_atomic(path, b"new")
    assert "free some space" in caught.value.diagnostics[0].hint
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_json_files_are_missing_or_whole_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    assert read_json(path) is None
    write_json(path, {"b": 1, "a": ["ä"]})
    assert read_json(path) == {"a": ["ä"], "b": 1}
    path.write_bytes(b'{"a": ')
    with pytest.raises(CorruptFileError, match="is damaged"):
        read_json(path)


def test_remove_tree_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    root = tmp_path / "root"
    tree = root / "tree"
    (tree / "locked").mkdir(parents=True)
    (tree / "locked/file").touch()
    (tree / "locked").chmod(0o500)
    (tree / "link").symlink_to(outside)
    (root / "linked").symlink_to(outside)
    with pytest.raises(CinderError, match="symbolic link on the way"):
        remove_tree(root / "linked/keep", below=root)
    remove_tree(tree, below=root)
    remove_tree(tree, below=root)
    remove_tree(root / "linked", below=root)
    assert list(root.iterdir()) == []
    assert (outside / "keep").exists()


@pytest.mark.parametrize("path", [".", "..", "../outside", "a/../../outside", "/"])
def test_remove_tree_stays_below_its_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    with pytest.raises(CinderError, match="not below"):
        remove_tree(root / path, below=root)
    assert (tmp_path / "outside").exists()


def test_tail_is_the_end_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path) == []
    path.write_text("".join(f"line {n}\n" for n in range(20_000)))
    assert tail(path, 2) == ["line 19998", "line 19999"]


@pytest.mark.parametrize("name", ["cinder-wasi", "apps/v1/Deployment/default/x", "ümläut %", "n" * 400, "..", "a.b"])
def test_records_come_back_whatever_the_name(tmp_path: Path, name: str) -> None:
    address = Address("manifest", name)
    record = Record("cinder", address, {"a": 1}, (Address("control_plane", "cinder"),))
    assert read_record(tmp_path / "records", address) is None
    write_record(tmp_path / "records", record, {"port": 3000})
    write_record(tmp_path / "records", Record("cinder", Address("other", "x"), {}))
    assert read_record(tmp_path / "records", address) == record
    assert read_extra(tmp_path / "records", address) == {"port": 3000}
    assert list_records(tmp_path / "records", "manifest") == [record]
    assert len(list_records(tmp_path / "records")) == 2
    delete_record(tmp_path / "records", address)
    delete_record(tmp_path / "records", address)
    assert list_records(tmp_path / "records", "manifest") == []


def test_a_damaged_record_is_not_taken_for_none(tmp_path: Path) -> None:
    address = Address("file", "x")
    write_record(tmp_path, Record("cinder", address, {}))
    next(tmp_path.glob("*.json")).write_text('{"record": 7}')
    with pytest.raises(CorruptFileError):
        read_record(tmp_path, address)
    with pytest.raises(CorruptFileError):
        list_records(tmp_path)
