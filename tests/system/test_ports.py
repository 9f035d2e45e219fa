"""Ports that stay free until they are used."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from discoclient.system import ports as ports_module
from discoclient.system.ports import pick_ports


def test_ports_are_different_free_and_not_given_out_again_soon() -> None:
    picked = [port for _ in range(20) for port in pick_ports(5)]
    assert len(set(picked)) == 100
    with socket.create_server(("127.0.0.1", picked[0])):
        pass


def test_ports_are_not_among_those_of_outgoing_connections() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first = int(file.read().split()[0])
    if first < 25_000:
        pytest.skip("this machine takes nearly all ports for outgoing connections")
    assert all(port < first for port in pick_ports(50))


@pytest.fixture
def unreserved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is reserved inside is nobody's afterwards."""
    monkeypatch.setattr(ports_module, "_reservations", type(ports_module._reservations)())
    yield
    let_go()


def let_go() -> None:
    """As if the process had ended."""
    while ports_module._reservations:
        ports_module._give_up(ports_module._reservations.popleft())


@pytest.fixture
def few_ports(monkeypatch: pytest.MonkeyPatch, unreserved: None) -> list[int]:
    """Only four ports to choose from."""
    choice = list(pick_ports(4))
    let_go()

    class Chance:
        def randrange(self, first: int, last: int) -> int:
            choice.append(choice.pop(0))
            return choice[-1]

    monkeypatch.setattr(ports_module, "_chance", Chance())
    monkeypatch.setattr(ports_module, "_recent", type(ports_module._recent)(maxlen=512))
    return choice


def test_a_port_that_is_taken_or_to_be_avoided_is_not_given_out(few_ports: list[int]) -> None:
    first, second, third, fourth = few_ports
    with socket.create_server(("127.0.0.1", first)):
        assert set(pick_ports(2, avoid=[second])) == {third, fourth}


def test_it_is_an_error_when_there_are_too_few(few_ports: list[int]) -> None:
    with pytest.raises(OSError, match="no 5 free ports"):
        pick_ports(5)
    assert len(set(few_ports)) == 4


def test_what_one_process_was_given_no_other_one_gets_until_it_ends(few_ports: list[int]) -> None:
    """Nobody listens there yet: a port that is bound a moment later looks free to everybody."""
    script = (
        "import sys\n"
        "from discoclient.system import ports\n"
        "choice = [int(word) for word in sys.argv[1:]]\n"
        "ports._chance = type('', (), {'randrange': lambda *_: choice.append(choice.pop(0)) or choice[-1]})()\n"
        "print(*ports.pick_ports(2), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, few_ports)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = {int(word) for word in other.stdout.readline().split()}
        assert len(theirs) == 2
        assert set(pick_ports(2)) == set(few_ports) - theirs
        with pytest.raises(OSError, match="no 1 free ports"):
            pick_ports()
        other.communicate()
    assert set(pick_ports(2)) == theirs


def test_what_could_not_be_given_is_not_reserved_either(few_ports: list[int]) -> None:
    with pytest.raises(OSError, match="no 5 free ports"):
        pick_ports(5)
    assert set(pick_ports(4)) == set(few_ports)


def test_only_the_newest_are_reserved(unreserved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a descriptor, and a process may ask for many."""
    monkeypatch.setattr(ports_module, "_RESERVED", 3)
    old = pick_ports(2)
    new = pick_ports(3)
    assert len(ports_module._reservations) == 3
    for port, is_reserved in (*((each, False) for each in old), *((each, True) for each in new)):
        reservation = ports_module._reserve(port)
        assert (reservation is None) is is_reserved
        ports_module._give_up(-1 if reservation is None else reservation)


def test_where_ports_can_not_be_reserved_they_are_only_chosen(
    unreserved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports_module.sys, "platform", "elsewhere")
    assert len(set(pick_ports(3))) == 3
    assert set(ports_module._reservations) == {-1}
