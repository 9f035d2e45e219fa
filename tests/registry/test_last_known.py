"""The last known listing in a file: whole or not at all, ours or not used, and never an error of the caller's."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.registry import last_known
from discoclient.registry.address import RegistryAddress
from discoclient.registry.last_known import LEFTOVER_AGE, LastKnownFile, last_known_path
from discoclient.registry.protocol import Entry, Listing
from tests.support.properties import thorough

KEY = "/disco/v1/services/web/CANARYKEY-0001"
VALUE = b'{"canary":"CANARYVALUE"}'
SECRETS = ("CANARY", "Q0FOQVJZ", "eyJjYW5hcnki")
LISTING = Listing(1234567, (Entry(KEY, VALUE, 100, 1234000, 7587869), Entry(KEY + "b", b"\x00\xff", 1, 2, 0)))
OTHER = Listing(1234999, (Entry(KEY, b"other", 100, 1234999, 0),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "web-0123456789abcdef.json"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings since the last call; none of them holds what was in a file."""
    caplog.set_level(logging.DEBUG, "discoclient")

    def take() -> list[str]:
        records = list(caplog.records)
        caplog.clear()
        assert {(record.name, record.levelname) for record in records} <= {
            ("discoclient.registry", "WARNING")
        }
        assert not any(record.exc_info for record in records)
        texts = [record.getMessage() for record in records]
        assert not any(secret in text for secret in SECRETS for text in texts)
        return texts

    return take


Warnings = Callable[[], list[str]]


def assert_unused(path: Path, warnings: Warnings, reason: str) -> None:
    assert LastKnownFile(path).load() is None
    (warning,) = warnings()
    assert str(path) in warning
    assert reason in warning


def signed(payload: Any, **head: Any) -> bytes:
    """A file as it should be on the outside, with any *payload*; text stands as it is."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    outside = {
        "format": "discoclient last known",
        "v": 1,
        "sha256": sha256(text.encode()).hexdigest(),
        **head,
    }
    return (json.dumps(outside)[:-1] + ', "payload": ' + text + "}\n").encode()


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)


# ---- there and back


def test_what_was_saved_is_loaded(path: Path, warnings: Warnings) -> None:
    LastKnownFile(path).save(LISTING)
    assert LastKnownFile(path).load() == LISTING
    LastKnownFile(path).save(OTHER)
    assert LastKnownFile(path).load() == OTHER
    assert warnings() == []


numbers = st.integers(0, 2**63 - 1)
listings = st.builds(
    Listing,
    numbers,
    st.lists(st.builds(Entry, st.text(), st.binary(), numbers, numbers, numbers), max_size=5).map(tuple),
)


@thorough(100)
@given(listing=listings)
def test_any_listing_survives(tmp_path_factory: pytest.TempPathFactory, listing: Listing) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    LastKnownFile(path).save(listing)
    assert LastKnownFile(path).load() == listing


def test_an_empty_listing_is_not_nothing(path: Path) -> None:
    LastKnownFile(path).save(Listing(5, ()))
    assert LastKnownFile(path).load() == Listing(5, ())


def test_it_is_json_with_a_version(path: Path) -> None:
    LastKnownFile(path).save(LISTING)
    content = json.loads(path.read_bytes())
    assert content["v"] == 1
    assert content["payload"]["entries"][0]["key"] == KEY


def test_no_file_is_no_news(path: Path, warnings: Warnings) -> None:
    assert LastKnownFile(path).load() is None
    assert LastKnownFile(path.parent / "no" / "folder" / "x.json").load() is None
    assert warnings() == []


# ---- damage


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x20, 0x80, 0xFF])
def test_a_file_with_one_byte_changed_is_not_used(path: Path, warnings: Warnings, mask: int) -> None:
    LastKnownFile(path).save(LISTING)
    data = path.read_bytes()
    for index in range(len(data)):
        put(path, data[:index] + bytes([data[index] ^ mask]) + data[index + 1 :])
        assert_unused(path, warnings, "")
    put(path, data)
    assert LastKnownFile(path).load() == LISTING


def test_without_the_checksum_changed_bytes_would_be_believed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LastKnownFile(path).save(LISTING)
    data = path.read_bytes()
    real = sha256(data[data.index(b'"payload": ') + 11 : -2])

    class Sha256:
        def hexdigest(self) -> str:
            return real.hexdigest()

    monkeypatch.setattr("hashlib.sha256", lambda data: Sha256())
    believed = 0
    for index in range(len(data)):
        put(path, data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        believed += LastKnownFile(path).load() not in (None, LISTING)
    assert believed > 50


def test_a_file_cut_off_anywhere_is_not_used(path: Path, warnings: Warnings) -> None:
    LastKnownFile(path).save(LISTING)
    data = path.read_bytes()
    for length in range(len(data)):
        put(path, data[:length])
        assert_unused(path, warnings, "")
    for more in (b"\n", b"x", data):
        put(path, data + more)
        assert_unused(path, warnings, "checksum")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x00" * 4096, "does not begin"),
        (b"CANARYVALUE", "does not begin"),
        (b'{"revision": 1, "entries": []}', "does not begin"),
        (b"[" * 100_000, "does not begin"),
        (signed({"name": "web-0123456789abcdef.json", "revision": 1, "entries": []}, v=2), "version 2"),
        (
            signed({"name": "web-0123456789abcdef.json", "revision": 1, "entries": []}, sha256="0" * 64),
            "checksum",
        ),
    ],
    ids=["empty", "zeros", "text", "other json", "deep", "version", "checksum"],
)
def test_a_foreign_file_is_not_used(path: Path, warnings: Warnings, data: bytes, reason: str) -> None:
    put(path, data)
    assert_unused(path, warnings, reason)


ENTRY = {"key": "k", "value": "CANARY==", "create_revision": 1, "mod_revision": 1, "lease": 0}


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 100_000,
        "9" * 10_000,
        "CANARY",
        None,
        [],
        "7",
        {},
        {"revision": 1},
        {"revision": -1, "entries": []},
        {"revision": True, "entries": []},
        {"revision": 1.0, "entries": []},
        {"revision": 1, "entries": 3},
        {"revision": 1, "entries": ["CANARY"]},
        {"revision": 1, "entries": [{**ENTRY, "key": 3}]},
        {"revision": 1, "entries": [{**ENTRY, "value": "CANARY"}]},
        {"revision": 1, "entries": [{**ENTRY, "value": "b3Ro!ZXI="}]},
        {"revision": 1, "entries": [{**ENTRY, "value": 3}]},
        {"revision": 1, "entries": [{**ENTRY, "lease": "CANARY"}]},
        {"revision": 1, "entries": [{**ENTRY, "mod_revision": None}]},
        {"revision": 1, "entries": [{"key": "CANARY"}]},
    ],
    ids=str,
)
def test_a_wrong_listing_under_a_right_checksum_is_not_used(
    path: Path, warnings: Warnings, payload: Any
) -> None:
    if isinstance(payload, dict):
        payload = {"name": path.name, **payload}
    put(path, signed(payload))
    assert_unused(path, warnings, "no listing")


def test_the_same_by_hand_and_right_is_used(path: Path, warnings: Warnings) -> None:
    """Negative control of the above."""
    put(path, signed({"name": path.name, "revision": 1, "entries": [{**ENTRY, "value": "b3RoZXI="}]}))
    assert LastKnownFile(path).load() == Listing(1, (Entry("k", b"other", 1, 1, 0),))
    assert warnings() == []


def test_the_file_of_another_service_is_not_used(path: Path, warnings: Warnings) -> None:
    other = path.with_name("ledger-0123456789abcdef.json")
    LastKnownFile(other).save(LISTING)
    other.rename(path)
    assert_unused(path, warnings, "another name")


def test_a_huge_file_is_neither_read_nor_written(
    path: Path, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    LastKnownFile(path).save(LISTING)
    size = path.stat().st_size
    monkeypatch.setattr(last_known, "MAX_BYTES", size)
    LastKnownFile(path).save(LISTING)
    assert LastKnownFile(path).load() == LISTING
    assert warnings() == []
    monkeypatch.setattr(last_known, "MAX_BYTES", size - 1)
    assert_unused(path, warnings, f"{size} bytes")
    before = path.read_bytes()
    LastKnownFile(path).save(Listing(7654321, LISTING.entries))
    assert path.read_bytes() == before
    (warning,) = warnings()
    assert "bytes" in warning


def test_the_limit_is_64_mebibytes(path: Path, warnings: Warnings) -> None:
    for size, reason in ((64 * 2**20 + 1, "67108865 bytes"), (64 * 2**20, "does not begin")):
        put(path, b"")
        os.truncate(path, size)
        assert_unused(path, warnings, reason)


# ---- whose it is


def test_the_file_is_private_and_so_is_a_folder_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "disco" / "web.json"
    before = os.umask(0)
    try:
        LastKnownFile(path).save(LISTING)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    LastKnownFile(path).save(OTHER)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    LastKnownFile(tmp_path / "web.json").save(LISTING)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_used(path: Path, warnings: Warnings, mode: int) -> None:
    LastKnownFile(path).save(LISTING)
    path.chmod(mode)
    assert_unused(path, warnings, f"others may write it (mode 0{mode:o})")
    path.chmod(0o644)  # reading is no harm
    assert LastKnownFile(path).load() == LISTING


def test_a_file_of_another_user_is_not_used(
    path: Path, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    LastKnownFile(path).save(LISTING)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert_unused(path, warnings, "another user")
    monkeypatch.undo()
    assert LastKnownFile(path).load() == LISTING


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_was_given_away_is_not_used(path: Path, warnings: Warnings) -> None:
    LastKnownFile(path).save(LISTING)
    os.chown(path, 12345, -1)
    assert_unused(path, warnings, "another user")


def test_what_is_no_file_is_not_used_and_does_not_block(path: Path, warnings: Warnings) -> None:
    path.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    assert_unused(path, warnings, "not a regular file")
    assert len(os.listdir("/proc/self/fd")) == before
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert_unused(path, warnings, "not a regular file")


def test_what_cannot_be_read_is_not_used(
    path: Path, warnings: Warnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.symlink_to(path)
    assert_unused(path, warnings, os.strerror(errno.ELOOP))
    (path.parent / "file").touch()
    assert_unused(path.parent / "file" / "web.json", warnings, os.strerror(errno.ENOTDIR))

    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", denied)
    assert_unused(path, warnings, os.strerror(errno.EACCES))


# ---- saving that fails


def test_a_failing_save_warns_once_until_it_works_again(tmp_path: Path, warnings: Warnings) -> None:
    """The folder can't be made, because a file has its name: so it fails for root as well."""
    folder = tmp_path / "folder"
    file = LastKnownFile(folder / "web.json")
    for _ in range(2):
        folder.touch()
        file.save(LISTING)
        (warning,) = warnings()
        assert str(folder / "web.json") in warning
        file.save(LISTING)
        assert warnings() == []
        folder.unlink()
        file.save(LISTING)
        assert warnings() == []
        assert file.load() == LISTING
        (folder / "web.json").unlink()
        folder.rmdir()


@pytest.mark.parametrize("function", ["fsync", "fchmod", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ValueError("CANARY")])
def test_a_save_that_fails_half_way_leaves_the_file_and_nothing_else(
    path: Path, warnings: Warnings, monkeypatch: pytest.MonkeyPatch, function: str, error: Exception
) -> None:
    file = LastKnownFile(path)
    file.save(LISTING)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, function, fail)
    file.save(OTHER)
    (warning,) = warnings()
    assert (os.strerror(errno.ENOSPC) if isinstance(error, OSError) else "ValueError") in warning
    monkeypatch.undo()
    assert file.load() == LISTING
    assert os.listdir(path.parent) == [path.name]


def test_a_listing_that_cannot_be_written_is_no_error_of_the_callers(path: Path, warnings: Warnings) -> None:
    LastKnownFile(path).save(Listing(1, (Entry("k", "no bytes", 1, 1, 0),)))  # type: ignore[arg-type]
    LastKnownFile("\0").save(LISTING)
    assert len(warnings()) == 2
    assert LastKnownFile("\0").load() is None


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    program = (
        "import logging, os, sys\nlogging.basicConfig()\nfrom discoclient.registry.last_known import *\n"
    )
    program += "from discoclient.registry.protocol import *\n" + code
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it wrote on standard error."""
    try:
        return process.communicate(timeout=30)[1]
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    """A limit on the size of files fails as a full disk does, in the middle of a write, for root as well."""
    LastKnownFile(path).save(LISTING)
    process = run(
        """
import resource
file = LastKnownFile(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
file.save(Listing(1, (Entry("k", bytes(100_000), 1, 1, 0),)))
file.save(Listing(1, (Entry("k", bytes(100_000), 1, 1, 0),)))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert file.load().revision == 1234567
file.save(Listing(2, ()))
""",
        path,
    )
    errors = finish(process)
    assert process.returncode == 0, errors
    assert errors.count("can't be saved") == 1
    assert LastKnownFile(path).load() == Listing(2, ())
    assert os.listdir(path.parent) == [path.name]


# ---- several writers


def test_a_reader_sees_the_old_or_the_new_listing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = LastKnownFile(path), []
    file.save(LISTING)
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(LastKnownFile(path).load())
        fsync(descriptor)
        seen.append(LastKnownFile(path).load())

    monkeypatch.setattr(os, "fsync", look)
    file.save(OTHER)
    assert seen == [LISTING, LISTING]
    assert file.load() == OTHER


def test_written_in_place_it_would_be_seen_half(path: Path) -> None:
    seen = []

    class InPlace(LastKnownFile):
        def _write(self, data: bytes) -> None:
            with open(path, "wb") as file:
                path.chmod(0o600)
                for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                    file.write(half)
                    file.flush()
                    seen.append(self.load())

    InPlace(path).save(LISTING)
    assert seen == [None, LISTING]


def test_a_save_within_a_save_gives_a_whole_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def another(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        LastKnownFile(path).save(OTHER)
        assert LastKnownFile(path).load() == OTHER

    monkeypatch.setattr(os, "fsync", another)
    LastKnownFile(path).save(LISTING)
    assert LastKnownFile(path).load() == LISTING
    assert os.listdir(path.parent) == [path.name]


def test_two_processes_never_make_a_corrupt_file(path: Path, warnings: Warnings) -> None:
    code = """
file, number, size = LastKnownFile(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for _ in range(100):
    file.save(Listing(number, (Entry("k", bytes([number]) * size, 1, 1, 0),)))
"""
    valid = [
        Listing(number, (Entry("k", bytes([number]) * size, 1, 1, 0),))
        for number, size in ((1, 9), (2, 99_999))
    ]
    LastKnownFile(path).save(valid[0])
    processes = [run(code, path, 1, 9), run(code, path, 2, 99_999)]
    loads = 0
    while any(process.poll() is None for process in processes) and loads < 100_000:
        assert LastKnownFile(path).load() in valid
        loads += 1
    errors = [finish(process) for process in processes]
    assert errors == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]
    assert loads > 10
    assert LastKnownFile(path).load() in valid
    assert warnings() == []
    assert os.listdir(path.parent) == [path.name]


def test_threads_never_make_a_corrupt_file(path: Path, warnings: Warnings) -> None:
    file = LastKnownFile(path)
    valid = [Listing(number, (Entry("k", bytes(number * 999), 1, 1, 0),)) for number in range(4)]

    def work(listing: Listing) -> None:
        for _ in range(20):
            file.save(listing)

    threads = [threading.Thread(target=work, args=(listing,)) for listing in valid]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert file.load() in valid
    assert warnings() == []
    assert os.listdir(path.parent) == [path.name]


def test_what_killed_writers_leave_is_removed_when_it_is_old(path: Path, warnings: Warnings) -> None:
    LastKnownFile(path).save(LISTING)
    process = run(
        "os.fsync = lambda _: os.kill(os.getpid(), 9)\nLastKnownFile(sys.argv[1]).save(Listing(2, ()))", path
    )
    finish(process)
    assert process.returncode == -signal.SIGKILL
    assert LastKnownFile(path).load() == LISTING
    (leftover,) = (each for each in path.parent.iterdir() if each != path)
    others = [path.parent / ".ledger-0123456789abcdef.json.abc.tmp", path.parent / f"{path.name}.tmp"]
    for other in others:
        other.touch()
        os.utime(other, (0, 0))
    LastKnownFile(path).save(OTHER)
    assert leftover.exists()  # its writer may be at work
    old = path.stat().st_mtime - LEFTOVER_AGE - 60
    os.utime(leftover, (old, old))
    LastKnownFile(path).save(LISTING)
    assert not leftover.exists()
    assert all(other.exists() for other in others)
    assert warnings() == []


# ---- where it is


def place(url: str, range: str = "/disco/v1/services/web/") -> Path:
    return last_known_path("/var/cache/disco", RegistryAddress.parse(url), range)


def test_the_name_begins_with_the_service(tmp_path: Path) -> None:
    path = place("etcd://a:1")
    assert path.parent == Path("/var/cache/disco")
    assert path.name.startswith("web-")
    assert path.suffix == ".json"
    assert place("etcd://a:1", "/disco/v1/services/").name.startswith("services-")
    assert last_known_path(tmp_path, RegistryAddress.parse("memory://x"), "/a/web/").parent == tmp_path


def test_registries_and_ranges_do_not_collide() -> None:
    paths = [
        place("etcd://a:1"),
        place("etcd://a:2"),
        place("etcd://b:1"),
        place("etcd://a:1,b:1"),
        place("etcds://a:1"),
        place("etcd://a:1/team"),
        place("etcd://a:1", "/disco/v1/services/we/b/"),
        place("etcd://a:1", "/disco/v1/control/web/"),
        place("etcd://a:1", "/disco/v1/services/web"),
        place("memory://a"),
        place("memory://b"),
        place("memory://a/team"),
        place("static://web=127.0.0.1:1"),
        place("static://web=127.0.0.1:2"),
    ]
    assert len(set(paths)) == len(paths)


def test_credentials_and_the_order_of_members_do_not_count() -> None:
    assert place("etcd://me:CANARY@a:1,b:2") == place("etcd://b:2,a:1") == place("etcd://you:other@a:1,b:2")
    assert "CANARY" not in str(place("etcd://me:CANARY@a:1"))


@pytest.mark.parametrize(
    "range", ["", "/", "/a/../", "/a/.hidden/", "/a/b\n\0c/", "/a/" + "x" * 300 + "/", "/ä/€/"]
)
def test_any_range_gives_one_plain_name(range: str) -> None:
    path = place("etcd://a:1", range)
    assert path.parent == Path("/var/cache/disco")
    assert path.name.isascii()
    assert path.name.isprintable()
    assert path.name[0] not in ".-"
    assert len(path.name) < 128
