"""Sockets: bound, inherited, and what happens when an address is taken."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from disco_sidecar.places import Kind, Listener, Place, parse_place
from disco_sidecar.running import bound
from disco_sidecar.running import sockets as module
from disco_sidecar.running.bound import Sockets, close_sockets
from disco_sidecar.running.sockets import OURS, inherited, open_sockets
from discoclient.model.errors import ConfigError
from tests.support.ports import free_port


def listener(place: str, kind: Kind = Kind.BIND) -> Listener:
    return Listener(kind, parse_place(place, "--bind"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def opened(stack: ExitStack, *listeners: Listener, given: list[socket.socket] | None = None) -> Sockets:
    sockets = open_sockets(listeners, given or [])
    stack.callback(close_sockets, sockets, keep=())
    return sockets


def listening(stack: ExitStack, address: tuple[str, int] | str) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = stack.enter_context(socket.socket(family))
    sock.bind(address)
    sock.listen()
    return sock


# ---- bound here


def test_the_loopback_is_both_its_addresses_at_one_port(stack: ExitStack) -> None:
    (both,) = opened(stack, listener("0")).values()
    names = [sock.getsockname()[:2] for sock in both]
    assert names == [("127.0.0.1", names[0][1]), ("::1", names[0][1])]


def test_dns_binds_for_itself(stack: ExitStack) -> None:
    assert opened(stack, listener("0", Kind.DNS)) == {}


def test_a_stranger_at_the_address_is_named_in_bounded_time(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    port = listening(stack, ("127.0.0.1", free_port())).getsockname()[1]
    began = time.monotonic()
    with pytest.raises(OSError, match=rf"bind 127\.0\.0\.1:{port}: .*in use.*pid {os.getpid()}, listens"):
        open_sockets([listener(str(port))], [])
    assert time.monotonic() - began < 1.0


def test_an_address_that_is_freed_within_a_moment_is_waited_for(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = listening(stack, ("127.0.0.1", free_port()))
    port = stranger.getsockname()[1]
    asked = module.ask

    def ask(*arguments: object, **options: object) -> object:
        stranger.close()
        return asked(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "ask", ask)
    assert len(opened(stack, listener(str(port)))) == 1


def test_what_was_bound_before_one_that_fails_is_closed_and_its_file_removed(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    port = listening(stack, ("127.0.0.1", free_port())).getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        open_sockets([listener(f"unix:{tmp_path}/a"), listener(str(port))], [])
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_needs_more_rights_is_said_with_its_listener(stack: ExitStack) -> None:
    with pytest.raises(OSError, match=r"bind 192\.0\.2\.1:80: Cannot assign"):
        open_sockets([listener("192.0.2.1:80")], [])


# ---- Unix sockets


def test_a_unix_socket_is_for_its_user_alone_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    sockets = open_sockets([listener(f"unix:{path}")], [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    close_sockets(sockets, keep=())
    assert not path.exists()


def test_its_file_stays_when_a_successor_has_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    sockets = open_sockets([listener(f"unix:{path}")], [])
    close_sockets(sockets, keep={listener(f"unix:{path}")})
    assert path.exists()


def test_its_file_stays_when_it_is_another_ones_by_now(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "a"
    sockets = open_sockets([listener(f"unix:{path}")], [])
    path.rename(tmp_path / "b")
    listening(stack, str(path))
    close_sockets(sockets, keep=())
    assert path.exists()


def test_what_was_removed_once_is_not_removed_again(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "_file", lambda path: (1, 1))  # a file system that uses a number again
    path = tmp_path / "a"
    sockets = open_sockets([listener(f"unix:{path}")], [])
    close_sockets(sockets, keep=())
    listening(stack, str(path))
    close_sockets(sockets, keep=())
    assert path.exists()


def test_a_file_that_was_left_behind_is_replaced(tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / "a"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    opened(stack, listener(f"unix:{path}"))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed_and_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    began = time.monotonic()
    with pytest.raises(OSError, match="a file that is no socket; it is left as it is"):
        open_sockets([listener(f"unix:{path}")], [])
    assert time.monotonic() - began < 1.0
    assert path.is_symlink() or path.exists()


def test_a_live_stranger_at_a_path_keeps_its_file(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    path = str(tmp_path / "a")
    listening(stack, path)
    with pytest.raises(OSError, match="in use, and not by a sidecar"):
        open_sockets([listener(f"unix:{path}")], [])
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(path)


def test_a_stranger_that_accepts_nothing_does_not_hold_us_up(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setattr(module, "ALIVE_TIMEOUT", 0.05)
    path = str(tmp_path / "a")
    stranger = stack.enter_context(socket.socket(socket.AF_UNIX))
    stranger.bind(path)
    stranger.listen(0)
    stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)  # its queue is full
    with pytest.raises(OSError, match="in use"):
        open_sockets([listener(f"unix:{path}")], [])


# ---- handed over


def test_a_socket_that_was_handed_over_is_used_and_stays_whose_it_is(
    tmp_path: Path, stack: ExitStack
) -> None:
    given = listening(stack, str(tmp_path / "a"))
    sockets = opened(stack, listener(f"unix:{tmp_path}/a"), given=[given])
    assert list(sockets.values()) == [[given]]
    close_sockets(sockets, keep=())
    assert (tmp_path / "a").exists()


def test_one_address_of_the_loopback_is_enough_if_it_is_handed_over(stack: ExitStack) -> None:
    given = listening(stack, ("127.0.0.1", free_port()))
    sockets = opened(stack, listener(str(given.getsockname()[1])), given=[given])
    assert list(sockets.values()) == [[given]]


def test_a_socket_that_nothing_is_configured_for_is_an_error_that_names_it(stack: ExitStack) -> None:
    given = listening(stack, ("127.0.0.1", free_port()))
    with pytest.raises(
        ConfigError, match=rf"127\.0\.0\.1:{given.getsockname()[1]}, and nothing is configured"
    ):
        open_sockets([], [given])


@pytest.mark.parametrize("pid", [None, "1", "", "x"])
def test_what_was_handed_to_another_process_is_left_alone(pid: str | None) -> None:
    environ = {"LISTEN_FDS": "1"} | ({} if pid is None else {"LISTEN_PID": pid})
    assert inherited(environ) == []
    assert environ == {}


@pytest.mark.parametrize("count", ["x", "-1", "", "1.0"])
def test_a_number_of_sockets_that_is_none_is_an_error(count: str) -> None:
    with pytest.raises(ConfigError, match="LISTEN_FDS"):
        inherited({"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())})


def test_a_descriptor_that_is_no_socket_is_an_error_that_names_it(tmp_path: Path) -> None:
    with (
        (tmp_path / "a").open("w") as file,
        pytest.raises(ConfigError, match=rf"{file.fileno()} is no socket"),
    ):
        inherited({OURS: str(file.fileno())})


def test_no_other_place_is_confused_with_a_path() -> None:
    assert str(Listener(Kind.ADMIN, Place(path="/run/a"))) == "admin unix:/run/a"
