"""``sd_notify``, both ways."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from discoclient.system.notify import NotifySocket, notify


@pytest.fixture
def heard() -> Iterator[NotifySocket]:
    """A socket as a command is given one."""
    found = NotifySocket()
    yield found
    found.close()


def tell(path: str, *words: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        for word in words:
            speaker.sendto(word, path)


# ---- what we tell


def test_whoever_wants_to_know_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        assert notify("READY=1", {"NOTIFY_SOCKET": path})
        assert systemd.recv(100) == b"READY=1"


def test_a_socket_that_lies_in_no_folder_is_told_too() -> None:
    name = f"disco-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        assert notify("STOPPING=1", {"NOTIFY_SOCKET": f"@{name}"})
        assert systemd.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative/socket"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nowhere/socket"},
        {"NOTIFY_SOCKET": "/" + "x" * 500},
        {"NOTIFY_SOCKET": "@" + "x" * 500},
    ],
)
def test_where_nobody_wants_to_know_nothing_happens(environ: dict[str, str]) -> None:
    assert not notify("READY=1", environ)


def test_somebody_who_does_not_listen_any_more_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(path)})


# ---- what a command tells


async def test_a_command_that_says_that_it_is_ready_is_heard(heard: NotifySocket) -> None:
    assert notify("READY=1", {"NOTIFY_SOCKET": heard.path})
    async with asyncio.timeout(5):
        await heard.ready()


@pytest.mark.parametrize("word", [b"READY=1\nSTATUS=up\n", b"STATUS=x\nREADY=1", b"READY=1\n"])
async def test_it_may_say_more_with_it(heard: NotifySocket, word: bytes) -> None:
    tell(heard.path, word)
    async with asyncio.timeout(5):
        await heard.ready()


async def test_what_is_not_that_it_is_ready_is_not_taken_for_it(heard: NotifySocket) -> None:
    waiting = asyncio.create_task(heard.ready())
    words = [b"", b"READY=0", b"READY=10", b"XREADY=1", b"STATUS=READY=1", b"STOPPING=1", b"\xff" * 5000]
    for word in words:
        tell(heard.path, word)
        await asyncio.sleep(0.001)
    assert not waiting.done()
    tell(heard.path, b"READY=1")
    async with asyncio.timeout(5):
        await waiting


async def test_who_waits_may_be_cancelled_and_wait_again(heard: NotifySocket) -> None:
    waiting = asyncio.create_task(heard.ready())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    tell(heard.path, b"READY=1")
    async with asyncio.timeout(5):
        await heard.ready()


def test_only_we_may_speak_there_and_nothing_is_left_of_it() -> None:
    found = NotifySocket()
    folder = Path(found.path).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(found.path) < 100  # of a socket's name: 108 bytes at most
    found.close()
    found.close()
    assert not folder.exists()


def test_two_do_not_get_in_each_others_way() -> None:
    one, two = NotifySocket(), NotifySocket()
    assert one.path != two.path
    one.close()
    assert notify("READY=1", {"NOTIFY_SOCKET": two.path})
    two.close()


def test_it_is_not_handed_to_what_is_started(heard: NotifySocket) -> None:
    assert not os.get_inheritable(heard._socket.fileno())
