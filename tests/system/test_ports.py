"""Ports that stay free until they are used."""

from __future__ import annotations

import socket

import pytest

from discoclient.system import ports as ports_module
from discoclient.system.ports import ReservedPort, pick_ports


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
def few_ports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Only four ports to choose from."""
    choice = list(pick_ports(4))

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


def test_a_reserved_port_is_nobody_else_s_until_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    (only,) = pick_ports()
    monkeypatch.setattr(ports_module, "pick_ports", lambda: (only,))
    first = ReservedPort()
    assert first.number == only
    with pytest.raises(OSError, match="nobody else reserved"):
        ReservedPort()
    first.release()
    second = ReservedPort()
    second.release()
    second.release()


def test_a_reserved_port_can_be_bound() -> None:
    reserved = ReservedPort()
    with socket.create_server(("127.0.0.1", reserved.number)):
        pass
    reserved.release()
