"""The WSGI middleware: called as a server calls it, with wsgiref's validator on both of its sides, and behind real servers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest

from discoclient import ConfigError, Registration, register
from discoclient.testing import memory_registry
from discoclient.wsgi import DiscoMiddleware
from tests.support.eventually import eventually
from tests.support.processes import Processes

OURS: dict[str, Any] = {"service": "ledger", "instance": "ledger-0001"}
FOR_US = "ledger/ledger-0001"
FOR_ANOTHER = "experiment/experiment-0001"
REFUSAL = b"This request was meant for experiment/experiment-0001; this is ledger/ledger-0001.\n"
PLAIN = ("Content-Type", "text/plain")
INSTANCE = ("X-Disco-Instance", "ledger-0001")


class App:
    """An application that answers with *status*, *headers* and *body*, and counts its calls."""

    def __init__(self, status: str = "200 OK", *headers: tuple[str, str], body: Any = (b"done",)) -> None:
        self.status = status
        self.headers = [PLAIN, *headers]
        self.body = body
        self.calls = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.calls += 1
        start_response(self.status, self.headers)
        return self.body


class Call:
    """One call, as a server makes it. What the application wrote comes before what it returned."""

    def __init__(self, expect: str | None = None, **environ: Any) -> None:
        self.environ: dict[str, Any] = {"QUERY_STRING": "", **environ}
        if expect is not None:
            self.environ["HTTP_X_DISCO_EXPECT"] = expect
        setup_testing_defaults(self.environ)
        self.started: list[tuple[Any, ...]] = []
        self.body = b""

    def to(self, application: Any, *, is_validated: bool = True) -> tuple[str, list[tuple[str, str]], bytes]:
        returned = (validator(application) if is_validated else application)(
            self.environ, self._start_response
        )
        try:
            for part in returned:
                self.body += part
        finally:
            if hasattr(returned, "close"):
                returned.close()
        return self.started[-1][0], self.started[-1][1], self.body

    def _start_response(self, *arguments: Any) -> Callable[[bytes], None]:
        self.started.append(arguments)
        return self._write

    def _write(self, data: bytes) -> None:
        self.body += data


def protected(app: Any) -> DiscoMiddleware:
    """*app* checks that it is served well, and the middleware around it knows who it is."""
    return DiscoMiddleware(validator(app), **OURS)


def test_a_request_for_another_is_refused_before_the_application_runs() -> None:
    app = App()
    status, headers, body = Call(FOR_ANOTHER).to(protected(app))
    assert status == "421 Misdirected Request"
    assert dict(headers) == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(REFUSAL)),
        "X-Disco-Instance": "ledger-0001",
    }
    assert body == REFUSAL
    assert app.calls == 0


def test_the_refusal_of_a_head_has_no_body() -> None:
    status, headers, body = Call(FOR_ANOTHER, REQUEST_METHOD="HEAD").to(protected(App()))
    assert (status, body) == ("421 Misdirected Request", b"")
    assert ("Content-Length", str(len(REFUSAL))) in headers


@pytest.mark.parametrize(
    "expect", [None, "", FOR_US, "nonsense", "\xe9/\xe9", f"{FOR_ANOTHER},{FOR_ANOTHER}"]
)
def test_all_other_requests_are_the_application_s_and_the_response_says_who_answers(
    expect: str | None,
) -> None:
    app = App()
    assert Call(expect).to(protected(app)) == ("200 OK", [PLAIN, INSTANCE], b"done")
    assert app.headers == [PLAIN], "its own list is left alone"


@pytest.mark.parametrize("name", ["x-disco-instance", "X-Disco-Instance"])
def test_what_the_application_says_of_itself_is_replaced(name: str) -> None:
    app = App("200 OK", (name, "somebody-else"), ("X-Other", "2"))
    assert Call().to(protected(app))[1] == [PLAIN, ("X-Other", "2"), INSTANCE]


def test_a_421_of_the_application_s_own_is_not_signed() -> None:
    app = App("421 Misdirected Request", ("X-Disco-Instance", "somebody-else"))
    assert Call(FOR_US).to(protected(app))[1] == [PLAIN]


def test_a_process_that_does_not_know_itself_leaves_everything_alone() -> None:
    app = App("200 OK", ("X-Disco-Instance", "somebody-else"))
    middleware = DiscoMiddleware(app, registration=lambda: None)
    assert Call(FOR_ANOTHER).to(middleware) == ("200 OK", app.headers, b"done")


# ---- what PEP 3333 allows an application to do


class Parts:
    """A body that counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield b"one,"
        yield b"two"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("body", [[b"one"], (b"one", b"two"), FileWrapper(io.BytesIO(b"a file"))])
def test_a_body_that_is_complete_is_the_application_s_own_object(body: Any) -> None:
    """A server may look at its length, or send its file in a better way."""
    call = Call()
    call.environ["wsgi.file_wrapper"] = FileWrapper
    assert protected_as_is(body)(call.environ, call._start_response) is body


def test_a_body_that_is_being_made_is_closed_once_and_ends_its_request() -> None:
    parts = Parts()
    app = protected(App(body=parts))
    call = Call()
    returned: Any = app(call.environ, call._start_response)
    assert app.in_flight == 1
    assert b"".join(returned) == b"one,two"
    assert (parts.closed, app.in_flight) == (0, 1)
    returned.close()
    returned.close()
    assert (parts.closed, app.in_flight) == (1, 0)


def protected_as_is(body: Any) -> DiscoMiddleware:
    return DiscoMiddleware(App(body=body), **OURS)


def test_a_generator_starts_its_response_when_it_is_first_asked() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [PLAIN])
        yield b"late"

    assert Call().to(protected(app)) == ("200 OK", [PLAIN, INSTANCE], b"late")


def test_the_write_callable_is_the_server_s() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [PLAIN])(b"written,")
        return [b"returned"]

    assert Call().to(protected(app)) == ("200 OK", [PLAIN, INSTANCE], b"written,returned")


@pytest.mark.parametrize("by_keyword", [False, True])
def test_an_application_that_fails_may_start_another_response(by_keyword: bool) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [PLAIN])
        try:
            raise LookupError("half way")
        except LookupError:
            if by_keyword:
                start_response("500 Sorry", [PLAIN], exc_info=sys.exc_info())
            else:
                start_response("500 Sorry", [PLAIN], sys.exc_info())
        return [b"sorry"]

    call = Call()
    assert call.to(DiscoMiddleware(app, **OURS)) == ("500 Sorry", [PLAIN, INSTANCE], b"sorry")
    first, second = call.started
    assert first[0] == "200 OK"
    assert first[2:] in ((), (None,))
    assert second[2][0] is LookupError


def test_an_error_that_the_server_raises_again_arrives_at_the_application() -> None:
    """So does a server whose headers are sent already."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            raise LookupError("half way")
        except LookupError:
            start_response("500 Sorry", [PLAIN], sys.exc_info())
        raise AssertionError("not reached")

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        raise exc_info[1]

    with pytest.raises(LookupError, match="half way"):
        DiscoMiddleware(app, **OURS)(Call().environ, start_response)


def test_what_the_application_raises_goes_through() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise LookupError("at once")

    with pytest.raises(LookupError, match="at once"):
        Call().to(protected(app))


# ---- how it is made


def test_the_options_of_the_middleware_say_who_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert Call(FOR_ANOTHER).to(middleware)[0].startswith("421") == is_refused
    assert Call(FOR_US).to(from_environment)[0].startswith("421")
    with pytest.raises(ConfigError, match="set both"):
        DiscoMiddleware(App(), service="ledger")


# ---- behind real servers


def tell(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """An application that says which process it is, and what it was sent."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    told = {"pid": os.getpid(), "body": environ["wsgi.input"].read(length).decode()}
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Disco-Instance", "somebody-else")])
    return [json.dumps(told).encode()]


def preloaded(*, is_protected: bool) -> Any:
    """What gunicorn loads, before it forks: ``tests.middleware.test_wsgi:preloaded(is_protected=True)``."""
    return DiscoMiddleware(tell) if is_protected else tell


class _Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def wsgiref(app: Any) -> Iterator[int]:
    """*app* behind wsgiref's server, in a thread, on the port that is yielded."""
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="wsgiref", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(20)


def post(port: int, expect: str | None, *, method: str = "POST") -> httpx.Response:
    headers = {} if expect is None else {"X-Disco-Expect": expect}
    content = b"an order" if method == "POST" else None
    url = f"http://127.0.0.1:{port}/orders"
    return httpx.request(method, url, content=content, headers=headers, trust_env=False, timeout=20)


def assert_is_refused(refused: httpx.Response) -> None:
    assert (refused.status_code, refused.reason_phrase) == (421, "Misdirected Request")
    assert refused.content == (b"" if refused.request.method == "HEAD" else REFUSAL)
    assert refused.headers.get_list("X-Disco-Instance") == ["ledger-0001"]


def assert_is_done(done: httpx.Response) -> None:
    assert (done.status_code, done.json()["body"]) == (200, "an order")
    assert done.headers.get_list("X-Disco-Instance") == ["ledger-0001"]


def test_behind_wsgiref_an_application_is_protected_once_it_has_registered() -> None:
    registration: Registration | None = None
    app = DiscoMiddleware(tell, registration=lambda: registration)
    with memory_registry(), wsgiref(validator(app)) as port:
        unknown = post(port, FOR_ANOTHER)
        assert (unknown.status_code, unknown.headers["X-Disco-Instance"]) == (200, "somebody-else")
        with register("ledger", port, instance_id="ledger-0001", quiet=0) as registration:
            assert_is_refused(post(port, FOR_ANOTHER))
            assert_is_refused(post(port, FOR_ANOTHER, method="HEAD"))
            assert_is_done(post(port, FOR_US))
            assert_is_done(post(port, None))


def gunicorn(processes: Processes, *, is_protected: bool) -> int:
    """A preloaded gunicorn with two workers, under an environment as `disco run` sets it; its port."""
    process = processes.python(
        "-m",
        "gunicorn",
        "--preload",
        "--workers=2",
        "--graceful-timeout=2",
        "--bind=127.0.0.1:0",
        f"tests.middleware.test_wsgi:preloaded(is_protected={is_protected})",
        env={"DISCO_SERVICE": "ledger", "DISCO_INSTANCE": "ledger-0001"},
    )
    listening = re.compile(r"Listening at: http://127\.0\.0\.1:(\d+)")
    (port,) = eventually(lambda: listening.findall(process.errors), timeout=30, what="gunicorn listens")
    return int(port)


def test_behind_a_preloaded_gunicorn_every_worker_knows_who_it_is(processes: Processes) -> None:
    port = gunicorn(processes, is_protected=True)
    workers = set()

    def ask() -> bool:
        """Some requests at once, so that both workers get one."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda expect: post(port, expect), [FOR_US, FOR_ANOTHER] * 8))
        for done, refused in zip(answers[::2], answers[1::2], strict=True):
            assert_is_done(done)
            assert_is_refused(refused)
            workers.add(done.json()["pid"])
        return len(workers) == 2

    eventually(ask, timeout=20, what="both workers answered")
    assert_is_refused(post(port, FOR_ANOTHER, method="HEAD"))


def test_without_the_middleware_a_post_for_another_is_done(processes: Processes) -> None:
    """The negative control."""
    done = post(gunicorn(processes, is_protected=False), FOR_ANOTHER)
    assert (done.status_code, done.json()["body"]) == (200, "an order")
    with wsgiref(tell) as port:
        assert post(port, FOR_ANOTHER).status_code == 200
