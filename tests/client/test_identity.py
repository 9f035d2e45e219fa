"""Who is meant and who answers: the headers of every attempt, and a port that belongs to somebody else by now."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import uvicorn

from discoclient import Instance, OutlierPolicy, RetryPolicy
from discoclient import asgi as asgi_door
from discoclient import wsgi as wsgi_door
from discoclient.model.events import AttemptEnded, InstanceEjected
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import HTTPX_ON_TRIO, IDEMPOTENT, OTHER, Events, FirstWell, counts, in_order
from tests.client.shells import Shell, in_every_shell
from tests.support.eventually import eventually
from tests.support.servers import Behaviour, answer, echo, refused_port

SOMEBODY = "00000000-somebody-else"


def misdirected(instance: str | None = SOMEBODY) -> Behaviour:
    headers = {} if instance is None else {"X-Disco-Instance": instance}
    return answer(b"not me", status=421, headers=headers)


# ---- what is said


@in_every_shell
async def test_every_attempt_says_whom_it_is_for_and_which_it_is(shell: Shell, fleet: Fleet) -> None:
    with refused_port() as port:
        fleet.register(port=port, slot="")
        servers = in_order(fleet, answer(status=503), answer())
        async with shell.client(balancer=FirstWell()) as client:
            await client.get()
            await client.get()
    expected = [f"experiment/{fleet.instance(server).id}" for server in servers]
    first, second = (server.seen[0].headers for server in servers)
    assert [first["x-disco-expect"], second["x-disco-expect"]] == expected
    assert [first["x-disco-attempt"], second["x-disco-attempt"]] == ["2", "3"]
    assert (
        "x-disco-attempt" not in servers[0].seen[1].headers
    )  # the refused one is left alone, so this is the first
    assert not {"x-disco-deadline", "x-disco-instance"} & first.keys()


@pytest.mark.parametrize("is_client_s", [False, True], ids=["the request's", "the client's"])
@in_every_shell
async def test_what_came_in_from_outside_is_not_passed_on(
    shell: Shell, fleet: Fleet, is_client_s: bool
) -> None:
    headers = {
        "X-Disco-Expect": "ledger/somebody-else",
        "x-disco-attempt": "7",
        "X-DISCO-DEADLINE": "1",
        "X-Disco-Instance": SOMEBODY,
        "X-Disco-Whatever": "x",
        "X-Discotheque": "open",
        "Disco": "too",
    }
    server = fleet.add()
    async with shell.client(headers=headers if is_client_s else None) as client:
        await client.get(headers={} if is_client_s else headers)
    seen = server.seen[0].headers
    assert {name: value for name, value in seen.items() if name.startswith("x-disco-")} == {
        "x-disco-expect": f"experiment/{fleet.instance(server).id}"
    }
    assert (seen["x-discotheque"], seen["disco"]) == ("open", "too")


@in_every_shell
async def test_who_answered_is_for_the_caller_to_see(shell: Shell, fleet: Fleet) -> None:
    fleet.add(answer(headers={"X-Disco-Instance": "says-its-name"}))
    async with shell.client() as client:
        assert (await client.get()).headers["x-disco-instance"] == "says-its-name"


@in_every_shell
async def test_an_answer_under_another_name_is_an_answer(shell: Shell, fleet: Fleet) -> None:
    """It was not refused, so it was done."""
    servers = in_order(fleet, answer(b"done", headers={"X-Disco-Instance": SOMEBODY}), answer())
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.post()).content == b"done"
        assert (await client.get()).content == b"done"
    assert counts(servers) == [2, 0]


# ---- 421


@pytest.mark.parametrize("method", [*IDEMPOTENT, *OTHER])
@in_every_shell
async def test_a_request_that_reached_somebody_else_is_sent_to_the_next_whatever_its_method(
    shell: Shell, fleet: Fleet, method: str
) -> None:
    events = Events()
    servers = in_order(fleet, misdirected(), answer())
    async with shell.client(balancer=FirstWell(), hooks=[events]) as client:
        response = await client.request(method, content=b"x")
        assert response.status_code == 200
        assert response.extensions["disco"].attempts == 2
        for _ in range(5):
            await client.request(method, content=b"x")
    assert counts(servers) == [1, 6]  # and it is left alone
    assert [event.instance for event in events.of(InstanceEjected)] == [fleet.instance(servers[0])]
    assert events.of(InstanceEjected)[0].reason == "wrong_instance"
    assert events.of(AttemptEnded)[0].retry == "misdirected"
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_request_that_reached_somebody_else_does_not_count_as_sent(
    shell: Shell, fleet: Fleet
) -> None:
    servers = in_order(fleet, misdirected(), misdirected(), misdirected(), answer())
    policy = RetryPolicy(max_attempts=4, max_attempts_sent=1)
    async with shell.client(balancer=BySlot(), retry=policy) as client:
        response = await client.post()
    assert response.status_code == 200
    assert response.extensions["disco"].attempts == 4
    assert counts(servers) == [1, 1, 1, 1]


@in_every_shell
async def test_with_somebody_else_everywhere_the_last_refusal_is_the_caller_s(
    shell: Shell, fleet: Fleet
) -> None:
    servers = in_order(fleet, *[misdirected()] * 4)
    async with shell.client(balancer=BySlot()) as client:
        response = await client.post()
    assert (response.status_code, response.content) == (421, b"not me")
    assert response.extensions["disco"].attempts == 3
    assert counts(servers) == [1, 1, 1, 0]
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_body_that_is_gone_can_t_be_sent_to_the_next(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, misdirected(), answer())
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.post(content=shell.body([b"x"]))).status_code == 421
    assert counts(servers) == [1, 0]


@in_every_shell
async def test_a_large_body_is_sent_to_the_next_as_it_was(shell: Shell, fleet: Fleet) -> None:
    in_order(fleet, misdirected(), echo())
    body = bytes(range(256)) * 4000
    async with shell.client(balancer=BySlot()) as client:
        assert (await client.post(content=body)).content == body


@pytest.mark.parametrize("name", ["none", "its own"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@in_every_shell
async def test_a_421_of_the_application_s_is_the_caller_s(
    shell: Shell, fleet: Fleet, method: str, name: str
) -> None:
    servers = in_order(fleet, misdirected(None), answer())
    if name == "its own":
        servers[0].behaviour = misdirected(fleet.instance(servers[0]).id)
    async with shell.client(balancer=BySlot()) as client:
        for _ in range(6):
            response = await client.request(method)
            assert (response.status_code, response.content) == (421, b"not me")
            assert response.extensions["disco"].attempts == 1
    assert counts(servers) == [6, 0]
    assert fleet.endpoint(servers[0]).failures == 0
    assert not fleet.endpoint(servers[0]).is_ejected(time.monotonic())


# ---- with the middleware, and real servers

Serve = Callable[[str, str, bool], AbstractContextManager["Site"]]


class Site:
    """An application, and what it was asked to do."""

    def __init__(self) -> None:
        self.orders: list[bytes] = []
        self.port = 0


@contextlib.contextmanager
def serve_asgi(service: str, id: str, is_protected: bool) -> Iterator[Site]:
    """Behind uvicorn."""
    site = Site()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        site.orders.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "body": b"ordered"})

    protected: Any = asgi_door.DiscoMiddleware(app, service=service, instance=id) if is_protected else app
    config = uvicorn.Config(protected, log_config=None, ws="none", lifespan="off", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        site.port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn", daemon=True)
        thread.start()
        try:
            eventually(lambda: server.started, timeout=20, what="uvicorn serves")
            yield site
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@contextlib.contextmanager
def serve_wsgi(service: str, id: str, is_protected: bool) -> Iterator[Site]:
    """Behind wsgiref."""
    site = Site()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        site.orders.append(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7")])
        return [b"ordered"]

    protected: Any = wsgi_door.DiscoMiddleware(app, service=service, instance=id) if is_protected else app
    with make_server("127.0.0.1", 0, protected, handler_class=_Quiet) as server:
        site.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="wsgiref", daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join(20)
            assert not thread.is_alive()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        return


def named(id: str, port: int) -> Instance:
    return Instance(service="experiment", id=id, host="127.0.0.1", port=port)


SERVERS = pytest.mark.parametrize("serve", [serve_asgi, serve_wsgi], ids=["uvicorn", "wsgiref"])


@HTTPX_ON_TRIO
@SERVERS
@in_every_shell
async def test_a_port_that_belongs_to_another_service_by_now_never_answers(
    shell: Shell, fleet: Fleet, serve: Serve
) -> None:
    server = fleet.add(answer(b"ours"), slot="1")
    with serve("ledger", "ledger-00000001", True) as foreign:
        fleet.register(port=foreign.port, slot="0")
        # Not left alone, so that it is met by every request.
        outlier = OutlierPolicy(max_ejected=0.0)
        async with shell.client(balancer=BySlot(), outlier=outlier) as client:
            for method in ("GET", "POST", "PUT", "PATCH"):
                for size in (0, 10, 100_000):
                    response = await client.request(method, content=bytes(size))
                    assert (response.status_code, response.content) == (200, b"ours")
                    assert response.extensions["disco"].attempts == 2
    assert foreign.orders == []
    assert server.requests == 12


@SERVERS
@in_every_shell
async def test_without_the_middleware_it_answers_and_does_what_was_not_for_it(
    shell: Shell, fleet: Fleet, serve: Serve
) -> None:
    """The negative control."""
    fleet.add(answer(b"ours"), slot="1")
    with serve("ledger", "ledger-00000001", False) as foreign:
        fleet.register(port=foreign.port, slot="0")
        async with shell.client(balancer=BySlot()) as client:
            assert (await client.post(content=b"oh no")).content == b"ordered"
    assert foreign.orders == [b"oh no"]


@SERVERS
@in_every_shell
async def test_a_port_that_another_service_took_is_left_alone(
    shell: Shell, fleet: Fleet, serve: Serve
) -> None:
    server, events = fleet.add(answer(b"ours"), slot="1"), Events()
    with serve("ledger", "ledger-00000001", True) as foreign:
        instance = fleet.register(port=foreign.port, slot="0")
        async with shell.client(balancer=FirstWell(), hooks=[events]) as client:
            for _ in range(10):
                await client.post()
    assert [event.instance for event in events.of(AttemptEnded) if event.outcome.status == 421] == [instance]
    assert server.requests == 10


@SERVERS
@in_every_shell
async def test_a_newer_instance_on_the_same_port_is_called_as_soon_as_it_is_known(
    shell: Shell, fleet: Fleet, serve: Serve
) -> None:
    """A restart: the registry still knows the one before."""
    server = fleet.add(answer(b"ours"), slot="1")
    with serve("experiment", "experiment-0002", True) as newer:
        old = fleet.register(port=newer.port, slot="0")
        async with shell.client(balancer=BySlot()) as client:
            assert (await client.post(content=b"1")).content == b"ours"
            fleet.registry.put(named("experiment-0002", newer.port))
            response = await client.post(content=b"2", extensions={"disco": {"exclude": [old.id]}})
            assert response.content == b"ordered"
            assert response.extensions["disco"].attempts == 1
            assert response.headers["x-disco-instance"] == "experiment-0002"
    assert newer.orders == [b"2"]
    assert server.requests == 1


@SERVERS
@in_every_shell
async def test_who_is_meant_answers_and_says_so(shell: Shell, fleet: Fleet, serve: Serve) -> None:
    with serve("experiment", "experiment-0001", True) as site:
        fleet.registry.put(named("experiment-0001", site.port))
        async with shell.client() as client:
            for body in (b"one", b"two"):
                response = await client.post(content=body)
                assert response.headers["x-disco-instance"] == "experiment-0001"
    assert site.orders == [b"one", b"two"]


@SERVERS
@in_every_shell
async def test_a_fixed_address_has_a_name_that_nobody_knows_and_nobody_is_asked_for(
    shell: Shell, serve: Serve
) -> None:
    """On a laptop: the service knows its own id, and the caller made one up for the address."""
    with serve("experiment", "experiment-0001", True) as site:
        async with shell.client(registry=f"static://experiment=127.0.0.1:{site.port}") as client:
            response = await client.post(content=b"one")
    assert response.status_code == 200
    assert site.orders == [b"one"]


@in_every_shell
async def test_a_421_from_a_fixed_address_is_an_answer(shell: Shell, fleet: Fleet) -> None:
    server = fleet.servers.start(misdirected())
    async with shell.client(registry=f"static://experiment={server.address}") as client:
        response = await client.get()
    assert response.status_code == 421
    assert response.extensions["disco"].attempts == 1
    assert "x-disco-expect" not in server.seen[0].headers
