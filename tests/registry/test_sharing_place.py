"""Where the processes of one user meet: nobody else gets in, one of them has the lock, and nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest

from discoclient.registry.address import RegistryAddress
from discoclient.registry.sharing.place import Claim, Place, Unfit, default_folder, peer_of

URL = "etcd://me:secret@a:1,b:2/team"


def place(folder: Path, url: str = URL) -> Place:
    return Place(RegistryAddress.parse(url), folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "d"


def claimed(place: Place) -> Claim:
    claim = place.claim()
    assert claim is not None
    return claim


# ---- the name


@pytest.mark.parametrize(
    "url",
    [
        "etcd://me:secret@b:2,a:1/team",
        "etcd://me:secret@a:1,b:2/team?share=1&hostnames=1&presence=0",
        "etcd://me:another@a:1,b:2/team",
    ],
    ids=["members in another order", "other options", "another password"],
)
def test_who_reads_the_same_meets_at_the_same_place(folder: Path, url: str) -> None:
    assert place(folder, url).socket_path == place(folder).socket_path


@pytest.mark.parametrize(
    "url",
    [
        "etcd://me:secret@a:1/team",
        "etcd://me:secret@a:1,b:2/other",
        "etcd://you:secret@a:1,b:2/team",
        "etcd://a:1,b:2/team",
        "etcds://me:secret@a:1,b:2/team",
        "etcds://me:secret@a:1,b:2/team?ca=/ca.pem",
        "etcds://me:secret@a:1,b:2/team?cert=/c.pem&key=/k.pem",
        "etcds://me:secret@a:1,b:2/team?server_name=etcd",
    ],
)
def test_registries_users_and_certificates_do_not_mix(folder: Path, url: str) -> None:
    others = {
        place(folder).socket_path,
        place(folder, "etcds://me:secret@a:1,b:2/team?ca=/b.pem").socket_path,
    }
    assert place(folder, url).socket_path not in others


def test_another_users_processes_meet_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = place(folder).socket_path
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert place(folder).socket_path != ours


def test_the_password_is_proved_and_told_to_nobody(folder: Path) -> None:
    ours, same, other = place(folder), place(folder), place(folder, URL.replace("secret", "another"))
    assert ours.proof("nonce", "lender") == same.proof("nonce", "lender")
    said = {ours.proof("nonce", "lender"), ours.proof("nonce", "borrower"), ours.proof("other", "lender")}
    assert len(said | {other.proof("nonce", "lender")}) == 4
    assert "secret" not in f"{ours.socket_path}{said}"


# ---- the folder


def test_the_folder_is_made_for_us_alone(folder: Path) -> None:
    claim = claimed(place(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert place(folder).lock_path.stat().st_mode & 0o077 == 0
    claim.clear()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o750, 0o701])
def test_a_folder_that_others_get_into_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(Unfit, match=f"open to others: its mode is {mode:04o}"):
        place(folder).claim()
    with pytest.raises(Unfit):
        place(folder).connect()
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    claimed(place(folder)).clear()


def test_a_folder_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(Unfit, match=f"belongs to user {owner}"):
        place(folder).claim()


def test_a_link_to_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "real")
    with pytest.raises(Unfit, match="no folder"):
        place(folder).claim()


def test_a_lock_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o700)
    place(folder).lock_path.symlink_to(tmp_path / "victim")
    with pytest.raises(Unfit):
        place(folder).claim()
    assert not (tmp_path / "victim").exists()


def test_a_folder_that_can_t_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="can't be made"):
        place(tmp_path / "not" / "there").claim()


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    meeting = place(tmp_path / ("x" * 100))
    claim = claimed(meeting)
    with pytest.raises(Unfit, match="too long"):
        meeting.listen()
    claim.clear()


def test_the_folder_is_that_of_the_session_or_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_folder() == tmp_path / "discoclient"
    for other in ("", "relative", str(tmp_path / "missing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", other)
        assert default_folder().name == f"discoclient-{os.geteuid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert default_folder().name == "discoclient-4242", "that of a session that was another user's before su"


# ---- the lock


def test_one_has_the_lock_until_it_gives_it_back(folder: Path) -> None:
    claim = claimed(place(folder))
    assert place(folder).claim() is None
    claim.drop()
    claimed(place(folder)).clear()


def test_a_lock_whose_file_was_removed_is_none(folder: Path) -> None:
    """Who had it removes the file; who opened it just before, and gets the lock now, would be one of two."""
    first = claimed(place(folder))
    place(folder).lock_path.unlink()
    second = claimed(place(folder))
    assert not first.stands
    assert second.stands
    first.clear()
    assert place(folder).lock_path.exists(), "what is its successor's is left alone"
    second.clear()


def test_the_lock_of_who_removed_the_file_meanwhile_is_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting, flock = place(folder), fcntl.flock
    raced: list[int] = []

    def race(descriptor: int, how: int) -> None:
        if not raced:
            raced.append(descriptor)
            meeting.lock_path.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", race)
    claim = claimed(meeting)
    assert raced
    assert claim.stands
    claim.clear()


def test_nothing_is_left_behind(folder: Path) -> None:
    meeting = place(folder)
    claim = claimed(meeting)
    listening = meeting.listen()
    assert len(list(folder.iterdir())) == 2
    listening.close()
    claim.clear()
    assert not folder.exists()


def test_others_who_meet_in_the_folder_keep_it(folder: Path) -> None:
    ours, theirs = claimed(place(folder)), claimed(place(folder, "etcd://other"))
    ours.clear()
    assert [file.name for file in folder.iterdir()] == [place(folder, "etcd://other").lock_path.name]
    theirs.clear()
    assert not folder.exists()


def test_what_a_killed_process_left_does_no_harm(folder: Path) -> None:
    meeting = place(folder)
    claim = claimed(meeting)
    meeting.listen().close()
    claim.drop()  # as the kernel does it
    with pytest.raises(ConnectionRefusedError):
        meeting.connect()
    claim = claimed(meeting)
    listening = meeting.listen()
    meeting.connect().close()
    listening.close()
    claim.clear()


def test_who_is_at_the_other_end_is_told_by_the_kernel() -> None:
    one, other = socket.socketpair()
    assert peer_of(one) == (os.getpid(), os.geteuid())
    one.close()
    other.close()
