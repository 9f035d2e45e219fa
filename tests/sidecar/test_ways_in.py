"""All ways in, at once, from one process: by path, by host, by port, as forward proxy, raw, by Unix socket; IPv4 and IPv6."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from discoclient.system.ports import pick_ports
from tests.support.eventually import eventually

from .origin import Exchange, Origin
from .stage import Sidecar, Stage, fixed
from .wire import Client, ask, get


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        ("/experiment/users/1", "/users/1"),
        ("/experiment/", "/"),
        ("/experiment/?q=1", "/?q=1"),
        ("/experiment//x", "//x"),
        ("/experiment/../other", "/../other"),
        ("/experiment/./a/%2e%2e/b", "/./a/%2e%2e/b"),
        ("/experiment/%2F%00%zz%", "/%2F%00%zz%"),
        ("/experiment/a?b=/c?d&e=%20+'!$()*,;:@[]|{}^`\\", "/a?b=/c?d&e=%20+'!$()*,;:@[]|{}^`\\"),
        ("/experiment/experiment/x", "/experiment/x"),
        ("/experiment/http://evil.example/", "/http://evil.example/"),
    ],
)
def test_by_path_the_rest_is_forwarded_byte_for_byte(stage: Stage, sent: str, forwarded: str) -> None:
    request = stage.seen(get(sent), forwarded)
    assert request.raw.startswith(f"GET {forwarded} HTTP/1.1\r\n".encode())
    assert request.get("x-forwarded-prefix") == "/experiment"
    assert request.get("host") == "experiment"


@pytest.mark.parametrize("sent", ["/experiment", "/experiment?x=1"])
def test_by_path_without_a_slash_it_is_the_root_or_a_redirect_and_nothing_else(
    stage: Stage, sent: str
) -> None:
    before = len(stage.origin.requests)
    reply = stage.ask(get(sent))
    seen = [request.target for request in stage.origin.requests[before:]]
    if reply.status == 200:
        assert seen in ([sent.replace("/experiment", "/")], [sent.replace("/experiment", "") or "/"])
        assert seen[0].startswith("/")
    else:
        assert reply.status in (301, 307, 308, 404)
        assert seen == []


@pytest.mark.parametrize(
    "sent",
    [
        "/",
        "//experiment/x",
        "//evil.example/x",
        "/%65xperiment/x",
        "/experiment%2fx",
        "/../experiment/x",
        "/./experiment/x",
        "/EXPERIMENT/x",
        "/experiment;v=1/x",
        "/experiment:80/x",
        "/experiment\\x",
        "/-experiment/x",
        "/experiment./x",
        "/experi_ment/x",
        "/" + "a" * 64 + "/x",
        "/127.0.0.1:22/x",
        "/?/experiment/x",
    ],
)
def test_a_first_segment_that_is_no_services_name_is_404(stage: Stage, sent: str) -> None:
    with stage.nothing_forwarded():
        assert stage.ask(get(sent)).status == 404


@pytest.mark.parametrize(
    "host", ["experiment.disco.localhost", "experiment.disco.localhost:7500", "Experiment.Disco.LocalHost"]
)
def test_by_host_the_target_and_the_host_are_the_clients(stage: Stage, host: str) -> None:
    request = stage.seen(get("/users/1?q=%20", host=host), "/users/1?q=%20")
    assert request.get("host") == host
    assert not request.all("x-forwarded-prefix")


@pytest.mark.parametrize(
    "host", ["nobody.disco.localhost", "experiment.evil.disco.localhost", "-.disco.localhost"]
)
def test_by_host_a_service_that_nobody_has_is_not_another_one(stage: Stage, host: str) -> None:
    with stage.nothing_forwarded():
        assert stage.ask(get("/experiment/x", host=host)).status in (400, 404, 421, 503)


def test_a_port_of_its_own_takes_any_path_and_keeps_the_clients_host(stage: Stage) -> None:
    reply = ask(stage.sidecar.listening, get("/ledger/entries?q=1", host="localhost:8081"))
    assert reply.status == 200
    request = stage.origin.only("/ledger/entries?q=1")
    assert request.get("host") == "localhost:8081"
    assert not request.all("x-forwarded-prefix")


def test_a_port_of_its_own_listens_on_ipv6_too(stage: Stage) -> None:
    assert ask(("::1", stage.sidecar.service_port), get("/six", host="[::1]:8081")).status == 200
    assert stage.origin.only("/six")


def test_options_star_reaches_the_service_that_a_port_belongs_to(stage: Stage) -> None:
    assert ask(stage.sidecar.listening, b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 200
    assert stage.origin.only("*").method == "OPTIONS"


def test_as_forward_proxy_the_instance_gets_origin_form_and_the_services_host(stage: Stage) -> None:
    request = stage.seen(get("http://experiment/users/1?q=%20", host="experiment"), "/users/1?q=%20")
    assert request.get("host") == "experiment"
    assert stage.seen(get("http://experiment/", host="experiment")).target == "/"
    assert stage.seen(get("http://experiment", host="experiment")).target == "/"
    assert stage.seen(get("http://experiment?a=b", host="experiment")).target == "/?a=b"
    assert stage.seen(get("http://experiment:80/p80", host="experiment:80")).target == "/p80"


@pytest.mark.parametrize(
    "name",
    ["nobody", "evil.example", "localhost", "127.0.0.1", "[::1]", "169.254.169.254", "experiment.evil"],
)
def test_as_forward_proxy_only_registered_services_are_reached(stage: Stage, name: str) -> None:
    with stage.nothing_forwarded():
        assert stage.ask(get(f"http://{name}/x", host=name)).status in (403, 404, 421, 503)


def test_it_is_no_way_to_the_port_of_a_stranger(stage: Stage) -> None:
    """A client says host and port of a program that does listen, in every way it can."""
    with Origin() as stranger:
        there = f"127.0.0.1:{stranger.port}"
        for target, host in [
            (f"http://{there}/x", there),
            (f"//{there}/x", "localhost"),
            (f"/{there}/x", "localhost"),
            ("/experiment/x", there + ".evil"),
            (f"/experiment/@{there}/", "localhost"),
            (f"http://experiment:{stranger.port}/x", f"experiment:{stranger.port}"),
            (f"http://experiment@{there}/x", there),
        ]:
            stage.ask(get(target, f"X-Forwarded-Host: {there}", f"X-Disco-Instance: {there}", host=host))
        assert (stranger.accepted, stranger.received) == (0, 0)
        assert ask(("127.0.0.1", stranger.port), get("/control")).status == 200
        assert stranger.accepted == 1


def test_two_services_are_not_mixed_up_on_one_connection(stage: Stage) -> None:
    stage.ledger.on("/who", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nledger")
    with stage.client() as client:
        for _ in range(3):
            assert client.send(get("/ledger/who")).reply().body == b"ledger"
            assert client.send(get("/experiment/who")).reply().body == b"ok"
            assert client.send(get("/who", host="ledger.disco.localhost")).reply().body == b"ledger"
            assert client.send(get("http://ledger/who", host="ledger")).reply().body == b"ledger"


def test_a_unix_socket_is_a_way_in_and_only_for_its_owner(stage: Stage) -> None:
    assert ask(stage.sidecar.unix, get("/by-unix")).status == 200
    mode = Path(stage.sidecar.unix).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert not mode & stat.S_IWOTH, oct(mode)


def test_what_listens_for_tcp_listens_on_loopback_only(stage: Stage) -> None:
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with probe:
        probe.connect(("192.0.2.1", 9))
        own = probe.getsockname()[0]
    if own.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    for port in (stage.sidecar.port, stage.sidecar.admin_port, stage.sidecar.service_port):
        with pytest.raises(ConnectionRefusedError), Client((own, port)):
            pass


@pytest.fixture(scope="module")
def raw() -> Iterator[tuple[Sidecar, Origin, Origin]]:
    """A sidecar with raw TCP ports for ``ledger``: two instances that say who they are, and then repeat what they get."""

    def echo(name: bytes) -> object:
        def answer(exchange: Exchange) -> None:
            exchange.send(name)
            while data := exchange.take_some():
                exchange.send(data)
            exchange.send(b"bye")
            exchange.close()

        return answer

    with Origin() as first, Origin() as second:
        first.raw, second.raw = echo(b"1"), echo(b"2")  # type: ignore[assignment]
        (port, dead_port, lone_port, half_port) = pick_ports(4)
        registry = fixed(
            ledger=[first, second], dead=[dead_port], half=[dead_port, first], experiment=[first]
        )
        ways = [f"{port}=ledger", f"{lone_port}=dead", f"{half_port}=half"]
        with Sidecar(registry, *(word for way in ways for word in ("--tcp", way))) as sidecar:
            sidecar.tcp_port, sidecar.dead_tcp_port, sidecar.half_tcp_port = port, lone_port, half_port  # type: ignore[attr-defined]
            yield sidecar, first, second


def test_raw_tcp_carries_any_bytes_both_ways_and_half_closes(raw: tuple[Sidecar, Origin, Origin]) -> None:
    noise = bytes(range(256)) * 2000
    with Client(("127.0.0.1", raw[0].tcp_port)) as client:  # type: ignore[attr-defined]
        assert client.exactly(1) in b"12", "the server speaks first"
        client.send(noise)
        assert client.exactly(len(noise)) == noise
        client.half_close()
        assert client.rest() == b"bye"


def test_raw_tcp_is_balanced_by_connection_and_works_over_ipv6(raw: tuple[Sidecar, Origin, Origin]) -> None:
    clients = [Client((host, raw[0].tcp_port)) for host in ("127.0.0.1", "::1") * 8]  # type: ignore[attr-defined]
    try:
        assert {client.exactly(1) for client in clients} == {b"1", b"2"}
    finally:
        for client in clients:
            client.close()


def test_raw_tcp_to_a_service_that_refuses_ends_at_once(raw: tuple[Sidecar, Origin, Origin]) -> None:
    with Client(("127.0.0.1", raw[0].dead_tcp_port)) as client:  # type: ignore[attr-defined]
        assert client.rest() == b""


def test_raw_tcp_goes_to_another_instance_when_one_refuses(raw: tuple[Sidecar, Origin, Origin]) -> None:
    for _ in range(10):
        with Client(("127.0.0.1", raw[0].half_tcp_port)) as client:  # type: ignore[attr-defined]
            assert client.exactly(1) == b"1"


def test_raw_tcp_whose_client_resets_is_ended_at_the_instance(raw: tuple[Sidecar, Origin, Origin]) -> None:
    client = Client(("127.0.0.1", raw[0].tcp_port))  # type: ignore[attr-defined]
    client.exactly(1)
    client.reset()
    eventually(
        lambda: raw[1].open + raw[2].open == 0, timeout=2.0, what="no connection is left at the instances"
    )
