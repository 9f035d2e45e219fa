"""Whose listener is it? At each address of this machine, and of each process that is asked for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from discoclient.system.listeners import Listener, look_at
from tests.support.ports import free_port
from tests.support.processes import Processes

LISTEN = """
import signal, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
if family is socket.AF_INET6:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(sys.argv[3]))
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
print("listens", flush=True)
signal.pause()
"""
ME = os.getpid()


@pytest.fixture
def listen() -> Iterator[object]:
    with ExitStack() as open_ones:

        def start(address: str, port: int = 0, *, is_v6_only: bool = False) -> int:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = open_ones.enter_context(socket.socket(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family is socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
            listener.bind((address, port))
            listener.listen()
            found: int = listener.getsockname()[1]
            return found

        yield start


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", Listener.OURS),
        ("127.0.0.1", "127.0.0.2", Listener.NOBODY),
        ("127.0.0.2", "127.0.0.2", Listener.OURS),
        ("127.0.0.2", "127.0.0.1", Listener.NOBODY),
        ("0.0.0.0", "127.0.0.1", Listener.OURS),
        ("0.0.0.0", "127.0.0.2", Listener.OURS),
        ("0.0.0.0", "::1", Listener.NOBODY),
        ("::1", "::1", Listener.OURS),
        ("::1", "127.0.0.1", Listener.NOBODY),
        ("::", "::1", Listener.OURS),
        ("::", "127.0.0.1", Listener.OURS),
        ("::ffff:127.0.0.2", "127.0.0.2", Listener.OURS),
        ("::ffff:127.0.0.2", "127.0.0.1", Listener.NOBODY),
    ],
)
def test_a_listener_is_found_at_the_addresses_that_lead_to_it_and_at_no_other(
    listen: object, address: str, host: str, expected: Listener
) -> None:
    port = listen(address)  # type: ignore[operator]
    assert look_at(port, ME, host=host) is expected
    reached = expected is Listener.OURS
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as caller:
        assert (caller.connect_ex((host, port)) == 0) is reached  # which is what it is about


def test_without_a_host_it_is_about_the_loopback_address(listen: object) -> None:
    assert look_at(listen("127.0.0.1"), ME) is Listener.OURS  # type: ignore[operator]
    assert look_at(listen("127.0.0.2"), ME) is Listener.NOBODY  # type: ignore[operator]


@pytest.mark.parametrize("host", ["localhost", "web-3", "", "127.0.0.1:80"])
def test_a_host_that_is_no_address_is_an_error(host: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        look_at(free_port(), ME, host=host)


def test_a_listener_of_any_of_several_processes_is_theirs(processes: Processes) -> None:
    port = free_port()
    child = processes.code(LISTEN, "127.0.0.1", str(port))
    child.wait_for_line("listens")
    assert look_at(port, child.pid) is Listener.OURS
    assert look_at(port, ME, child.pid) is Listener.OURS
    assert look_at(port, ME) is Listener.FOREIGN
    assert look_at(port) is Listener.FOREIGN


def test_a_port_that_is_shared_by_processes_is_theirs_only_if_all_are_asked_for(
    processes: Processes, listen: object
) -> None:
    """The kernel gives each of them some of the connections."""
    port = listen("127.0.0.1")  # type: ignore[operator]
    child = processes.code(LISTEN, "127.0.0.1", str(port))
    child.wait_for_line("listens")
    assert look_at(port, ME, child.pid) is Listener.OURS
    assert look_at(port, ME) is Listener.FOREIGN
    assert look_at(port, child.pid) is Listener.FOREIGN


def test_a_process_that_is_gone_has_no_listener(listen: object, processes: Processes) -> None:
    child = processes.code("pass")
    child.wait()
    assert look_at(listen("127.0.0.1"), child.pid) is Listener.FOREIGN  # type: ignore[operator]
    assert look_at(free_port(), child.pid) is Listener.NOBODY


def test_an_ipv6_listener_that_leaves_ipv4_to_others(listen: object, processes: Processes) -> None:
    """Two may listen on one port, one for each. The kernel's table does not tell that the first one leaves IPv4 alone,
    so a foreign one is suspected: better than to take a stranger's for ours.
    """
    port = listen("::", is_v6_only=True)  # type: ignore[operator]
    child = processes.code(LISTEN, "127.0.0.1", str(port))
    child.wait_for_line("listens")
    assert look_at(port, ME, host="::1") is Listener.OURS
    assert look_at(port, child.pid) is Listener.FOREIGN
    assert look_at(port, ME, child.pid) is Listener.OURS
