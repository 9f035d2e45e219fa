"""The ASGI middleware: called as a server calls it, and behind a real uvicorn."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
import trio
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from discoclient import AsyncRegistration, ConfigError, aregister
from discoclient.asgi import DiscoMiddleware
from discoclient.testing import memory_registry
from tests.support.eventually import eventually

OURS: dict[str, Any] = {"service": "ledger", "instance": "ledger-0001"}
FOR_US = "ledger/ledger-0001"
FOR_ANOTHER = "experiment/experiment-0001"
REFUSAL = b"This request was meant for experiment/experiment-0001; this is ledger/ledger-0001.\n"
INSTANCE = (b"x-disco-instance", b"ledger-0001")


class App:
    """An application that sends *messages*, and keeps what it was called with."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = messages or (response(), {"type": "http.response.body", "body": b"done"})
        self.calls: list[tuple[Any, Any, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append((scope, receive, send))
        for message in self.messages:
            await send(message)


def response(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"x-app", b"1"), *headers]}


async def never() -> Any:
    raise AssertionError("nobody needs to receive anything")


class Call:
    """One call of *application*, as a server makes it, and what it ``sent``."""

    def __init__(self, expect: str | Sequence[str] = (), *, kind: str = "http", **scope: Any) -> None:
        expected = [expect] if isinstance(expect, str) else expect
        headers = [(b"x-disco-expect", each.encode("latin-1")) for each in expected]
        self.scope = {"type": kind, "method": "GET", "path": "/", "headers": headers, **scope}
        self.sent: list[Any] = []
        self.events: list[Any] = []

    async def to(self, application: Any) -> list[Any]:
        await application(self.scope, self.receive if self.events else never, self.send)
        return self.sent

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def receive(self) -> Any:
        return self.events.pop(0)


async def test_a_request_for_another_is_refused_before_the_application_runs() -> None:
    app = App()
    start, body = await Call(FOR_ANOTHER, method="POST").to(DiscoMiddleware(app, **OURS))
    assert (start["type"], start["status"]) == ("http.response.start", 421)
    assert dict(start["headers"]) == {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": str(len(REFUSAL)).encode(),
        b"x-disco-instance": b"ledger-0001",
    }
    assert body == {"type": "http.response.body", "body": REFUSAL}
    assert app.calls == []


async def test_the_refusal_of_a_head_has_no_body() -> None:
    start, body = await Call(FOR_ANOTHER, method="HEAD").to(DiscoMiddleware(App(), **OURS))
    assert (b"content-length", str(len(REFUSAL)).encode()) in start["headers"]
    assert body == {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize("expect", [(), FOR_US, "nonsense", "\xe9/\xe9", [FOR_ANOTHER, FOR_ANOTHER]])
async def test_all_other_requests_are_the_application_s_and_the_response_says_who_answers(
    expect: Any,
) -> None:
    app = App()
    call = Call(expect)
    start, body = await call.to(DiscoMiddleware(app, **OURS))
    assert start == response(200, INSTANCE)
    assert body is app.messages[1]
    assert app.calls[0][:2] == (call.scope, never)


@pytest.mark.parametrize("name", [b"x-disco-instance", b"X-Disco-Instance"])
async def test_what_the_application_says_of_itself_is_replaced(name: bytes) -> None:
    app = App(response(200, (name, b"somebody-else"), (b"x-other", b"2")))
    (start,) = await Call().to(DiscoMiddleware(app, **OURS))
    assert start == response(200, (b"x-other", b"2"), INSTANCE)
    assert app.messages[0] == response(200, (name, b"somebody-else"), (b"x-other", b"2")), (
        "its own is left alone"
    )


async def test_a_421_of_the_application_s_own_is_not_signed() -> None:
    app = App(response(421, (b"x-disco-instance", b"somebody-else")))
    assert await Call(FOR_US).to(DiscoMiddleware(app, **OURS)) == [response(421)]


async def test_headers_may_be_anything_that_can_be_gone_through_and_may_be_missing() -> None:
    app = App(
        {"type": "http.response.start", "status": 200, "headers": iter([[b"x-app", b"1"]])},
        {"type": "http.response.start", "status": 200},
    )
    first, second = await Call().to(DiscoMiddleware(app, **OURS))
    assert first["headers"] == [(b"x-app", b"1"), INSTANCE]
    assert second["headers"] == [INSTANCE]


async def test_a_process_that_does_not_know_itself_leaves_everything_alone() -> None:
    app = App(response(200, (b"x-disco-instance", b"somebody-else")))
    call = Call(FOR_ANOTHER)
    assert await call.to(DiscoMiddleware(app, registration=lambda: None)) == list(app.messages)
    assert app.calls == [(call.scope, never, call.send)]


@pytest.mark.parametrize("kind", ["lifespan", "something.new"])
async def test_other_scopes_are_passed_through(kind: str) -> None:
    app = App(response())
    call = Call()
    call.scope = {"type": kind}
    await call.to(DiscoMiddleware(app, **OURS))
    assert app.calls == [(call.scope, never, call.send)]
    assert call.sent[0] is app.messages[0]


# ---- websockets

DENIABLE: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}
CONNECT = {"type": "websocket.connect"}


def websocket(expect: str | Sequence[str] = (), **scope: Any) -> Call:
    call = Call(expect, kind="websocket", **scope)
    del call.scope["method"]
    call.events = [CONNECT]
    return call


async def test_a_websocket_for_another_gets_a_421_from_a_server_that_can() -> None:
    app = App()
    start, body = await websocket(FOR_ANOTHER, **DENIABLE).to(DiscoMiddleware(app, **OURS))
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 421)
    assert INSTANCE in start["headers"]
    assert body == {"type": "websocket.http.response.body", "body": REFUSAL}
    assert app.calls == []


@pytest.mark.parametrize("scope", [{}, {"extensions": None}, {"extensions": {"tls": {}}}])
async def test_a_websocket_for_another_is_closed_before_it_is_accepted_by_any_other_server(
    scope: Any,
) -> None:
    app = App()
    sent = await websocket(FOR_ANOTHER, **scope).to(DiscoMiddleware(app, **OURS))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert app.calls == []


async def test_a_websocket_that_is_gone_before_it_is_refused_gets_nothing() -> None:
    call = websocket(FOR_ANOTHER, **DENIABLE)
    call.events = [{"type": "websocket.disconnect", "code": 1006}]
    assert await call.to(DiscoMiddleware(App(), **OURS)) == []


@pytest.mark.parametrize("scope", [{}, DENIABLE])
async def test_a_websocket_for_us_is_the_application_s_and_the_handshake_says_who_answers(scope: Any) -> None:
    app = App({"type": "websocket.accept", "subprotocol": "x"}, {"type": "websocket.send", "text": "hello"})
    accept, message = await websocket(FOR_US, **scope).to(DiscoMiddleware(app, **OURS))
    assert accept == {"type": "websocket.accept", "subprotocol": "x", "headers": [INSTANCE]}
    assert message is app.messages[1]


@pytest.mark.parametrize(("status", "headers"), [(403, [INSTANCE]), (421, [])])
async def test_a_websocket_that_the_application_denies_is_told_who_did(
    status: int, headers: list[Any]
) -> None:
    app = App({"type": "websocket.http.response.start", "status": status, "headers": []})
    (start,) = await websocket(FOR_US, **DENIABLE).to(DiscoMiddleware(app, **OURS))
    assert start["headers"] == headers


# ---- how it is made


async def test_the_options_of_the_middleware_say_who_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """One test a knob; test_identity.py has all the rest."""
    monkeypatch.setenv("DISCO_SERVICE", "experiment")
    monkeypatch.setenv("DISCO_INSTANCE", "experiment-0001")
    from_environment = DiscoMiddleware(App())
    monkeypatch.delenv("DISCO_SERVICE")
    monkeypatch.delenv("DISCO_INSTANCE")
    for middleware, is_refused in (
        (from_environment, False),
        (DiscoMiddleware(App()), False),
        (DiscoMiddleware(App(), service="experiment", instance="experiment-0001"), False),
        (DiscoMiddleware(App(), service="ledger", instance="experiment-0001"), True),
        (DiscoMiddleware(App(), service="experiment", instance="experiment-0002"), True),
    ):
        assert ((await Call(FOR_ANOTHER).to(middleware))[0]["status"] == 421) == is_refused
    assert (await Call(FOR_US).to(from_environment))[0]["status"] == 421
    with pytest.raises(ConfigError, match="set both"):
        DiscoMiddleware(App(), service="ledger")


async def test_an_application_made_before_it_registers_is_protected_from_then_on() -> None:
    registration: AsyncRegistration | None = None
    app = DiscoMiddleware(App(), registration=lambda: registration)
    assert (await Call(FOR_ANOTHER).to(app))[0] == response()
    with memory_registry():
        async with aregister("ledger", 8000, instance_id="ledger-0001", quiet=0) as registration:
            assert (await Call(FOR_ANOTHER).to(app))[0]["status"] == 421
            assert (await Call(FOR_US).to(app))[0] == response(200, INSTANCE)


def test_it_runs_on_trio() -> None:
    async def refuse() -> int:
        return int((await websocket(FOR_ANOTHER, **DENIABLE).to(DiscoMiddleware(App(), **OURS)))[0]["status"])

    assert trio.run(refuse) == 421


def test_importing_it_needs_no_framework_and_no_server() -> None:
    code = "import sys, discoclient.asgi; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert not {"starlette", "fastapi", "uvicorn", "asgiref"} & set(result.stdout.split())


# ---- behind a real server


class Site:
    """A Starlette application behind uvicorn, in a thread; with *middleware*, or with none."""

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        self.orders: list[bytes] = []
        self.lifespan: list[str] = []
        self.url = ""
        routes = [Route("/orders", self._order, methods=["GET", "POST"])]
        self.app = Starlette(routes=routes, middleware=middleware, lifespan=self._live)

    async def _order(self, request: Request) -> Response:
        self.orders.append(await request.body())
        return PlainTextResponse("ordered", headers={"X-Disco-Instance": "somebody-else"})

    @contextlib.asynccontextmanager
    async def _live(self, app: Starlette) -> Any:
        self.lifespan.append("begun")
        yield
        self.lifespan.append("ended")

    @contextlib.contextmanager
    def serve(self, app: Any = None) -> Iterator[None]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            server = uvicorn.Server(uvicorn.Config(app or self.app, log_config=None, ws="none"))
            thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn", daemon=True)
            thread.start()
            try:
                eventually(lambda: server.started, timeout=20, what="uvicorn serves")
                yield
            finally:
                server.should_exit = True
                thread.join(20)
                assert not thread.is_alive()


def caller() -> httpx.Client:
    return httpx.Client(trust_env=False, timeout=20)


@pytest.mark.parametrize("is_outside", [False, True], ids=["add_middleware", "around the application"])
def test_behind_uvicorn_a_post_for_another_is_refused_and_nothing_has_happened(is_outside: bool) -> None:
    site = Site([] if is_outside else [Middleware(DiscoMiddleware, **OURS)])
    with site.serve(DiscoMiddleware(site.app, **OURS) if is_outside else None), caller() as client:
        for body in (b"", b"an order", bytes(2_000_000)):
            refused = client.post(f"{site.url}/orders", content=body, headers={"X-Disco-Expect": FOR_ANOTHER})
            assert (refused.status_code, refused.content) == (421, REFUSAL)
            assert refused.headers["X-Disco-Instance"] == "ledger-0001"
        head = client.head(f"{site.url}/orders", headers={"X-Disco-Expect": FOR_ANOTHER})
        assert (head.status_code, head.content) == (421, b"")
        assert site.orders == []
        passed = client.post(f"{site.url}/orders", content=b"one", headers={"X-Disco-Expect": FOR_US})
        assert (passed.status_code, passed.text) == (200, "ordered")
        assert passed.headers.get_list("X-Disco-Instance") == ["ledger-0001"]
        assert client.get(f"{site.url}/orders").headers["X-Disco-Instance"] == "ledger-0001"
        assert site.orders == [b"one", b""]
    assert site.lifespan == ["begun", "ended"]


def test_without_the_middleware_a_post_for_another_is_done() -> None:
    """The negative control."""
    site = Site([])
    with site.serve(), caller() as client:
        done = client.post(f"{site.url}/orders", content=b"oh no", headers={"X-Disco-Expect": FOR_ANOTHER})
        assert done.status_code == 200
    assert site.orders == [b"oh no"]
