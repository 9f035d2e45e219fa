"""Replacing a file: in one step, as it was owned and readable before, and so that it can be taken back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from disco_sidecar.rendering.files import Target
from discoclient import ConfigError


def put(target: Target, content: bytes) -> None:
    target.write(content)
    target.replace()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "x.conf"
    found.write_bytes(b"old")
    return found


def test_until_it_is_replaced_the_old_one_stands_there_whole(path: Path) -> None:
    target = Target(path)
    target.write(b"new")
    assert (path.read_bytes(), target.fresh.read_bytes()) == (b"old", b"new")
    with path.open("rb") as reader:
        target.replace()
        assert reader.read() == b"old"  # another file: whoever reads the old one reads it to its end
    assert (path.read_bytes(), target.read()) == (b"new", b"new")
    assert target.is_unproven
    target.settle()
    assert not target.is_unproven
    assert names(path.parent) == ["x.conf"]


def test_what_lies_beside_it_meanwhile_is_hidden_from_an_include_of_all(path: Path) -> None:
    target = Target(path)
    put(target, b"new")
    target.write(b"newer")
    assert [found.name for found in path.parent.glob("[!.]*")] == ["x.conf"]
    assert not [name for name in names(path.parent) if name != "x.conf" and not name.startswith(".")]


def test_the_mode_of_the_old_file_is_kept(path: Path) -> None:
    path.chmod(0o640)
    put(Target(path), b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_the_mode_that_any_program_would_give_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        put(Target(tmp_path / "y"), b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_of_the_old_file_is_kept(path: Path) -> None:
    os.chown(path, 4321, 1234)
    put(Target(path), b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (4321, 1234)


def test_the_last_proven_one_comes_back_whatever_was_put_in_its_place_since(path: Path) -> None:
    target = Target(path)
    put(target, b"new")
    put(Target(path), b"newer")  # as another life of ours would
    target.take_back()
    assert (path.read_bytes(), names(path.parent)) == (b"old", ["x.conf"])
    target.take_back()
    assert path.read_bytes() == b"old"


def test_where_there_was_none_there_is_none_again(tmp_path: Path) -> None:
    target = Target(tmp_path / "y")
    assert target.read() is None
    put(target, b"new")
    assert Target(tmp_path / "y").is_unproven
    target.take_back()
    assert names(tmp_path) == []


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "enabled").mkdir()
    link = tmp_path / "enabled" / "x"
    link.symlink_to(path)
    put(Target(link), b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert names(link.parent) == ["x"]


def test_what_an_earlier_life_left_half_written_does_not_matter(path: Path) -> None:
    target = Target(path)
    target.fresh.symlink_to("/nonexistent/elsewhere")
    put(target, b"new")
    assert path.read_bytes() == b"new"


def test_where_no_file_can_be_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--out {tmp_path}/no/x: there is no folder {tmp_path}/no"):
        Target(tmp_path / "no" / "x")
    with pytest.raises(ConfigError, match="not a regular file"):
        Target(tmp_path)
