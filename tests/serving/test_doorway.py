"""How a command comes to its port: what excludes what, what it is told, and what it finds."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from discoclient.model.errors import ConfigError
from discoclient.serving.doorway import BACKLOG, Doorway, Way, forget_port, listen, read_port
from tests.support.ports import free_port

TOLD = ("serve", "--port", "{port}")
HANDED = ("serve", "--fd", "{fd}")
PLAIN = ("serve",)


# ---- what excludes what


@pytest.mark.parametrize(
    ("doorway", "way"),
    [
        (Doorway(command=PLAIN), Way.TOLD),
        (Doorway(command=TOLD), Way.TOLD),
        (Doorway(command=TOLD, port=8000), Way.TOLD),
        (Doorway(command=PLAIN, port=8000), Way.TOLD),
        (Doorway(command=HANDED), Way.HANDED),
        (Doorway(command=HANDED, port=8000), Way.HANDED),
        (Doorway(command=HANDED, is_socket=True), Way.HANDED),
        (Doorway(command=PLAIN, is_socket=True), Way.HANDED),
        (Doorway(command=("sh", "-c", "exec serve --bind=fd://{fd}")), Way.HANDED),
        (Doorway(command=PLAIN, port_file="/run/port"), Way.WRITTEN),
    ],
)
def test_the_way_follows_from_the_command_and_the_options(doorway: Doorway, way: Way) -> None:
    assert doorway.way is way


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"command": ()}, "no COMMAND"),
        ({"command": (*TOLD, "{fd}")}, "use one of them"),
        ({"command": TOLD, "is_socket": True}, "use one of them"),
        ({"command": HANDED, "port_file": "/p"}, "leave out --socket or {fd}"),
        ({"command": PLAIN, "port_file": "/p", "is_socket": True}, "leave out --socket or {fd}"),
        ({"command": TOLD, "port_file": "/p"}, "leave out {port}"),
        ({"command": PLAIN, "port_file": "/p", "port": 8000}, "leave out --port"),
        ({"command": TOLD, "port_file": "/p", "port": 8000}, "leave out {port}, --port"),
    ],
)
def test_what_excludes_each_other_is_refused_and_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Doorway(**options)  # type: ignore[arg-type]
    assert named in str(caught.value)


# ---- what it is told


@pytest.mark.parametrize(
    ("command", "port", "words"),
    [
        (TOLD, 8000, ["serve", "--port", "8000"]),
        (("serve", "[::]:{port}", "{port}/{port}", "{ports}"), 80, ["serve", "[::]:80", "80/80", "{ports}"]),
        (HANDED, None, ["serve", "--fd", "3"]),
        (("serve", "fd://{fd}"), None, ["serve", "fd://3"]),
        (("awk", "{print $1}"), 8000, ["awk", "{print $1}"]),
        (PLAIN, 8000, ["serve"]),
    ],
)
def test_words_are_filled_in_and_others_left_alone(
    command: tuple[str, ...], port: int | None, words: list[str]
) -> None:
    assert Doorway(command=command).words(port) == words


def test_the_port_stands_in_the_environment_where_that_is_how_it_is_told() -> None:
    doorway = Doorway(command=PLAIN)
    assert doorway.environment(8000, {"HOME": "/root"}) == {"HOME": "/root", "PORT": "8000"}


def test_what_others_handed_to_us_is_not_for_the_command() -> None:
    """A socket of ours, our own notify socket, a port from the shell before: it would take them for its own."""
    names = [
        "PORT",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
    ]
    ours = dict.fromkeys(names, "1")
    base = {**ours, "PATH": "/bin", "DISCO_REGISTRY": "etcd://a"}
    assert Doorway(command=HANDED).environment(None, base) == {"PATH": "/bin", "DISCO_REGISTRY": "etcd://a"}
    assert len(base) == 9  # which is left as it was


# ---- the socket that is handed over


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_it_listens_at_the_host_and_port_without_delays(host: str) -> None:
    port = free_port()
    with listen(host, port) as listener:
        assert listener.getsockname()[:2] == (host, port)
        near = "::1" if ":" in host else "127.0.0.1"
        with socket.create_connection((near, port)), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_without_a_port_it_takes_one_that_is_free() -> None:
    with listen("127.0.0.1", 0) as first, listen("127.0.0.1", 0) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_a_port_with_remains_of_old_connections_can_be_bound() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = first.accept()
        accepted.close()  # the side that closes first keeps the remains
        client.close()
    with pytest.raises(OSError, match="in use"), socket.socket() as negative_control:
        negative_control.bind(("127.0.0.1", port))
    listen("127.0.0.1", port).close()


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])


def test_many_may_wait_while_the_command_is_busy() -> None:
    assert BACKLOG >= 1024


# ---- the file that a command writes


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8000", 8000),
        ("8000\n", 8000),
        (" 65535 \r\n", 65535),
        ("1", 1),
        ("00080", 80),
        ("", None),
        ("\n", None),
        ("0", None),
        ("65536", None),
        ("-1", None),
        ("+80", None),
        ("8_0", None),
        ("80 81", None),
        ("80.0", None),
        ("http", None),
        ("٨٠", None),
        ("²", None),
        ("9" * 5000, None),
    ],
)
def test_a_port_is_read_and_what_is_none_may_be_half_written(
    tmp_path: Path, text: str, port: int | None
) -> None:
    path = tmp_path / "port"
    path.write_text(text)
    assert read_port(str(path)) == port


def test_there_is_no_port_where_there_is_no_file_or_one_that_is_no_text(tmp_path: Path) -> None:
    assert read_port(str(tmp_path / "nothing")) is None
    assert read_port(str(tmp_path)) is None
    (tmp_path / "port").write_bytes(b"\xff\xfe80")
    assert read_port(str(tmp_path / "port")) is None


def test_what_an_earlier_command_wrote_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "port"
    path.write_text("8000")
    forget_port(str(path))
    assert read_port(str(path)) is None
    forget_port(str(path))


def test_a_file_that_can_not_be_forgotten_is_refused_with_its_name(tmp_path: Path) -> None:
    """What stands in it would be taken for the port of the new command."""
    with pytest.raises(ConfigError, match=f"--port-file {tmp_path}: "):
        forget_port(str(tmp_path))
