"""The sidecar and a real etcd: down at the start, lost later, and instances that come and go under load."""

from __future__ import annotations

import contextlib
import select
import time
import uuid
from collections.abc import Iterator

import pytest

from discoclient import register
from discoclient.dev import EtcdCluster
from discoclient.system.ports import pick_ports
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy

from .origin import Exchange, Origin, reply
from .stage import Sidecar
from .test_restart import Clients
from .wire import Client, ask, get, post


@contextlib.contextmanager
def registered(url: str, origin: Origin, *, service: str = "experiment", **fields: object) -> Iterator[str]:
    """*origin* is registered meanwhile. Gives its id."""
    options: dict[str, object] = {
        "host": "127.0.0.1",
        "registry": url,
        "quiet": 0.2,
        "drain_timeout": 1.0,
    } | fields
    with register(service, origin.port, **options) as registration:  # type: ignore[arg-type]
        yield registration.instance.id


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def status(sidecar: Sidecar, target: str = "/experiment/x") -> int:
    return ask(sidecar.address, get(target)).status


def test_an_instance_that_registers_is_reached_and_named(registry_url: str, origin: Origin) -> None:
    with Sidecar(registry_url) as sidecar:
        assert status(sidecar) == 503
        with registered(registry_url, origin) as instance:
            eventually(lambda: status(sidecar) == 200, what="it is reached")
            answer = ask(sidecar.address, get("/experiment/named"))
            assert answer.get("x-disco-instance") == instance
            assert origin.only("/named").get("x-disco-expect") == f"experiment/{instance}"
        eventually(lambda: status(sidecar) == 503, what="and no longer, when it has left")


def test_what_was_up_once_and_is_empty_now_says_so(registry_url: str) -> None:
    with Sidecar(registry_url) as sidecar:
        began = time.monotonic()
        answer = ask(sidecar.address, get("/experiment/x"))
        assert answer.status == 503
        assert time.monotonic() - began < 4.0
        assert answer.get("retry-after")
        assert b"experiment" in answer.body


def test_with_the_registry_down_at_the_start_the_answer_is_503_within_its_time(origin: Origin) -> None:
    (nobody,) = pick_ports(1)
    with Sidecar(f"etcd://127.0.0.1:{nobody}", wait=False) as sidecar:
        sidecar.wait_ready("/healthz")
        began = time.monotonic()
        answer = ask(sidecar.address, get("/experiment/x"), timeout=10.0)
        assert answer.status == 503
        assert answer.get("retry-after")
        assert b"experiment" in answer.body
        assert time.monotonic() - began < 4.0
        assert sidecar.page("/readyz").status == 503
        assert sidecar.process.is_running


def test_a_body_is_held_back_while_nobody_knows_whom_it_is_for() -> None:
    """Two seconds are long enough to send half a gigabyte."""
    (nobody,) = pick_ports(1)
    with Sidecar(f"etcd://127.0.0.1:{nobody}", wait=False) as sidecar:
        sidecar.wait_ready("/healthz")
        before = sidecar.memory()
        with Client(sidecar.address, timeout=10.0) as client:
            client.send(b"PUT /experiment/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999000000\r\n\r\n")
            client.socket.setblocking(False)
            sent, most = 0, 100 << 20
            while sent < most and select.select([], [client.socket], [], 0.3)[1]:
                with contextlib.suppress(OSError):
                    sent += client.socket.send(b"x" * (1 << 20))
                assert sidecar.memory() - before < 16 << 20, "held back, or refused and dropped: not kept"
            client.socket.settimeout(10.0)
            assert client.rest()[9:12] in (b"503", b"")


def test_a_registry_that_comes_late_is_found(etcd: EtcdCluster, origin: Origin) -> None:
    port = int(etcd.registry_url.rpartition(":")[2])
    prefix = f"/t/{uuid.uuid4().hex}"
    with FaultProxy("127.0.0.1", port) as between:
        between.cut()
        with (
            registered(f"{etcd.registry_url}{prefix}", origin),
            Sidecar(f"etcd://{between.address}{prefix}", wait=False) as sidecar,
        ):
            sidecar.wait_ready("/healthz")
            assert status(sidecar) == 503
            between.heal()
            eventually(lambda: status(sidecar) == 200, timeout=15.0, what="it is found")
            eventually(lambda: sidecar.page("/readyz").status == 200, what="ready")


@pytest.mark.parametrize("fault", ["cut", "blackhole"])
def test_without_its_registry_it_goes_on_with_what_it_knows(
    etcd: EtcdCluster, origin: Origin, fault: str
) -> None:
    """An old answer beats none, for services it has been asked for."""
    port = int(etcd.registry_url.rpartition(":")[2])
    prefix = f"/t/{uuid.uuid4().hex}"
    with (
        FaultProxy("127.0.0.1", port) as between,
        registered(f"{etcd.registry_url}{prefix}", origin),
        Sidecar(f"etcd://{between.address}{prefix}") as sidecar,
        Clients(sidecar) as clients,
    ):
        clients.wait_for(50)
        getattr(between, fault)()
        clients.wait_for(200)
        clients.stop()
        assert clients.failures == []
        assert sidecar.page("/readyz").status == 200, "it does its work"


def test_instances_that_come_and_go_under_load_cost_no_request(registry_url: str) -> None:
    with contextlib.ExitStack() as stack:
        origins = [stack.enter_context(Origin()) for _ in range(4)]
        stack.enter_context(registered(registry_url, origins[0]))
        sidecar = stack.enter_context(Sidecar(registry_url))
        eventually(lambda: status(sidecar) == 200, what="it is reached")
        with Clients(sidecar, keep=True) as clients:
            for origin in origins[1:]:
                with registered(registry_url, origin):
                    before = len(origin.requests)
                    eventually(
                        lambda origin=origin, before=before: len(origin.requests) > before + 5,
                        what="it is used",
                    )
                # It has left: drained first, so that it can end at once.
                origin.close()
                clients.wait_for(50)
        assert clients.failures == []
        assert clients.successes > 100


def test_control_an_instance_that_ends_without_a_word_and_with_posts_in_flight_is_noticed(
    registry_url: str, origin: Origin
) -> None:
    with registered(registry_url, origin), Sidecar(registry_url) as sidecar:
        eventually(lambda: status(sidecar) == 200, what="it is reached")
        with Clients(sidecar) as clients:
            clients.wait_for(20)
            origin.close()
            eventually(lambda: clients.failures, what="somebody fails")


def test_a_421_of_somebody_else_is_tried_elsewhere_whatever_the_method(registry_url: str) -> None:
    with (
        Origin() as stranger,
        Origin() as good,
        Sidecar(registry_url, "--balancer", "round_robin") as sidecar,
    ):

        def misdirected(exchange: Exchange) -> None:
            exchange.read_body()
            exchange.send(reply(421, b"", "X-Disco-Instance: somebody-else-0001"))

        stranger.default = misdirected
        with registered(registry_url, stranger), registered(registry_url, good) as instance:
            eventually(lambda: len(sidecar_instances(sidecar)) == 2, what="both are known")
            for number in range(4):
                answer = ask(
                    sidecar.address, post("/experiment/x", b"abcd") if number % 2 else get("/experiment/x")
                )
                assert (answer.status, answer.body) == (200, b"ok")
                assert answer.get("x-disco-instance") == instance
        assert stranger.requests, "it was asked"
        assert all(request.body in (b"", b"abcd") for request in good.requests)


def sidecar_instances(sidecar: Sidecar) -> list[str]:
    status(sidecar)
    return [
        instance["id"]
        for service in sidecar.services()["services"]
        if service["service"] == "experiment"
        for instance in service["instances"]
    ]


def test_an_instance_with_weight_0_gets_nothing(registry_url: str) -> None:
    with (
        Origin() as none,
        Origin() as all_,
        Sidecar(registry_url) as sidecar,
        registered(registry_url, none, weight=0),
        registered(registry_url, all_),
    ):
        eventually(lambda: len(sidecar_instances(sidecar)) == 2, what="both are known")
        before = len(none.requests)
        for _ in range(40):
            assert status(sidecar) == 200
        assert len(none.requests) == before


def test_a_forward_proxy_knows_only_what_is_registered(registry_url: str, origin: Origin) -> None:
    with Sidecar(registry_url) as sidecar:
        assert ask(sidecar.address, get("http://experiment/x", host="experiment")).status in (403, 503)
        with registered(registry_url, origin):
            eventually(
                lambda: ask(sidecar.address, get("http://experiment/x", host="experiment")).status == 200,
                what="it is reached",
            )
        assert ask(sidecar.address, get("http://evil.example/x", host="evil.example")).status in (403, 421)


def test_names_that_nobody_has_cost_nothing_for_good(registry_url: str, origin: Origin) -> None:
    """Whoever asks for many names must not fill the process with watches."""
    with registered(registry_url, origin), Sidecar(registry_url) as sidecar:
        eventually(lambda: status(sidecar) == 200, what="it is reached")
        before = sidecar.memory()
        for number in range(150):
            assert status(sidecar, f"/nobody-{number}/x") == 503
        assert status(sidecar) == 200
        assert sidecar.memory() - before < 20 << 20
