"""The admin server over real sockets, with raw bytes: what is answered, what is refused, and what it puts up with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import httpx
import pytest
import uvloop

from disco_sidecar.admin import Limits
from tests.support.eventually import eventually

from .serving import Served, say
from .states import HOSTILE, a_service, a_state, an_event, an_instance

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SHORT = Limits(head_timeout=0.2, idle=0.5, linger=0.2)
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
NOISE = (b"", b"\r", b"\n", b"\0", b"\xff", b" ", b":", b"HTTP/1.1", b"\r\n\r\n")
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=LOOPS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served(limits=SHORT, loop=LOOPS[request.param]()) as server:
        yield server


def get(path: str = "/", *headers: str, method: str = "GET", host: str = "localhost") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


def headers(answer: bytes) -> dict[str, str]:
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


# ---- what there is


def test_every_path_answers_and_no_other(served: Served) -> None:
    for path in ("/", "/metrics", "/healthz", "/readyz", "/api/services", "/healthz?x=1"):
        assert status(say(served, get(path))) == 200, path
    for path in (
        "/index.html",
        "/api",
        "//",
        "/healthz/",
        "/api/services/..",
        "/%2e%2e/etc/passwd",
        "/../etc/passwd",
    ):
        answer = say(served, get(path))
        assert status(answer) == 404, path
        assert b"/api/services" in body(answer)


def test_the_state_is_told_as_json(served: Served) -> None:
    answer = say(served, get("/api/services"))
    assert headers(answer)["content-type"] == "application/json"
    assert json.loads(body(answer)) == served.state


def test_health_is_told_without_a_look_at_the_state(served: Served) -> None:
    served.state = {}
    assert body(say(served, get("/healthz"))) == b"ok\n"
    assert served.asked == 0


def test_readiness_says_why_not(served: Served) -> None:
    assert json.loads(body(say(served, get("/readyz")))) == {"ready": True, "reasons": []}
    served.state = a_state(is_draining=True)
    answer = say(served, get("/readyz"))
    assert status(answer) == 503
    assert "draining" in json.loads(body(answer))["reasons"][0]


def test_head_says_the_same_without_a_body(served: Served) -> None:
    for path in ("/", "/healthz", "/api/services", "/api/events"):
        answer = say(served, get(path, method="HEAD"))
        assert status(answer) == 200
        assert body(answer) == b""
    wanted = headers(say(served, get("/")))
    assert headers(say(served, get("/", method="HEAD")))["content-length"] == wanted["content-length"]


def test_a_state_that_can_t_be_told_is_a_500_and_the_server_lives_on(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.state = {"sidecar": float("nan")}
    answer = say(served, get("/api/services"))
    assert status(answer) == 500
    assert b"nan" not in answer.lower()
    assert "failed to answer /api/services" in caplog.text
    assert status(say(served, get("/healthz"))) == 200


def test_keep_alive_and_pipelining_answer_one_after_the_other(served: Served) -> None:
    answer = say(served, GET + GET + LAST)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.count(b"ok\n") == 3


def test_what_a_thread_makes_keeps_its_place_among_the_answers(served: Served) -> None:
    scrape = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = say(served, GET + scrape + GET + scrape + LAST)
    kinds = re.findall(rb"\r\nContent-Type: text/plain; (\w+)", answer)
    assert kinds == [b"charset", b"version", b"charset", b"version", b"charset"]
    with served.connect() as connection:
        connection.sendall(scrape)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"disco_sidecar_info" in answer


def test_a_scrape_of_what_can_t_be_told_is_a_500(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    del served.state["services"][0]["histogram"]
    assert status(say(served, get("/metrics"))) == 500
    assert "failed to answer /metrics" in caplog.text


def test_a_scraper_that_does_not_wait_is_forgotten(served: Served) -> None:
    for _ in range(5):
        with served.connect() as connection:
            connection.sendall(get("/metrics"))
    eventually(lambda: served.asked == 5)
    eventually(lambda: served.server.connections == 0)


def test_a_request_that_comes_byte_by_byte_is_answered(served: Served) -> None:
    with served.connect() as connection:
        for byte in LAST:
            connection.sendall(bytes([byte]))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_who_has_said_all_gets_the_answer(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(GET)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.endswith(b"ok\n")


def test_http_1_0_without_a_name_is_how_probes_come(served: Served) -> None:
    assert say(served, b"GET /healthz HTTP/1.0\r\n\r\n").endswith(b"ok\n")


# ---- what a browser is told


def test_every_answer_says_what_a_browser_may_do_with_it(served: Served) -> None:
    for request in (
        get("/"),
        get("/api/services"),
        get("/nowhere"),
        get("/", method="POST"),
        b"nonsense\r\n\r\n",
    ):
        told = headers(say(served, request))
        assert told["x-content-type-options"] == "nosniff"
        assert told["cache-control"] == "no-store"
        assert told["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in told["content-security-policy"]
        assert "server" not in told


def test_the_page_is_whole_and_its_policy_allows_what_stands_in_it_and_nothing_else(served: Served) -> None:
    answer = say(served, get("/"))
    policy, page = headers(answer)["content-security-policy"], body(answer).decode()
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert page.count("<script") == page.count("<style") == 1
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", page)
    assert not re.search(r"\son[a-z]+=", page)
    assert not re.search(r"\sstyle=", page)
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in page


def test_nothing_from_the_registry_is_markup_anywhere(served: Served) -> None:
    hostile = a_service(
        HOSTILE, problem=HOSTILE, instances=[an_instance(HOSTILE, version=HOSTILE, zone=HOSTILE)]
    )
    served.state = a_state(hostile, events=[an_event(HOSTILE, service=HOSTILE)], registry=HOSTILE)
    assert b"<" not in say(served, get("/api/services"))
    assert json.loads(body(say(served, get("/api/services")))) == served.state
    assert b"owned" not in say(served, get("/"))


# ---- what is refused


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_any_other_method_is_405_and_says_which_there_are(served: Served, method: str) -> None:
    answer = say(served, get("/api/services", method=method))
    assert status(answer) == 405
    assert headers(answer)["allow"] == "GET, HEAD"
    assert served.asked == 0


def test_a_name_that_is_not_ours_is_421_and_tells_nothing(served: Served) -> None:
    answer = say(served, get("/api/services", host=f"evil.example:{served.port}"))
    assert status(answer) == 421
    assert b"experiment" not in answer
    assert served.asked == 0


def test_a_page_of_another_site_gets_403(served: Served) -> None:
    for header in ("Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Origin: null"):
        assert status(say(served, get("/api/services", header))) == 403
    assert served.asked == 0


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    ],
)
def test_what_is_not_http_as_it_should_be_is_400_and_the_end(served: Served, data: bytes) -> None:
    answer = say(served, data + GET)
    assert status(answer) == 400
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_is_413_and_the_end(served: Served) -> None:
    for header in ("Content-Length: 3", "Transfer-Encoding: chunked"):
        data = get("/", header).replace(b"Connection: close\r\n", b"")
        answer = say(served, data + b"abc" + GET)
        assert status(answer) == 413
        assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_head_that_is_too_large_is_431_however_it_comes(served: Served, is_complete: bool) -> None:
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000
    assert status(say(served, head + b"\r\n\r\n" if is_complete else head)) == 431


def test_whatever_bytes_come_nothing_breaks_and_nothing_foreign_is_answered(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    rng = Random(2014)
    request = (
        b"GET /api/services?x HTTP/1.1\r\nHost: localhost:7501\r\nAccept: */*\r\nContent-Length: 0\r\n\r\n"
    )
    for _ in range(300):
        data = bytearray(request + request)
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(data))
            data[place : place + rng.randint(0, 3)] = rng.choice(NOISE)
        with served.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert re.fullmatch(
            rb"(HTTP/1.1 (200|400|403|404|405|408|413|421|431|505) .*)?", answer, re.DOTALL
        ), (data, answer)
    assert status(say(served, LAST)) == 200
    assert not caplog.records


# ---- limits


def test_the_size_of_a_head_can_be_set() -> None:
    with Served(limits=Limits(head=300)) as served:
        assert status(say(served, get("/healthz", "X: " + "x" * 100))) == 200
        assert status(say(served, get("/healthz", "X: " + "x" * 400))) == 431


def test_one_that_was_refused_and_stays_is_cut_off_after_a_while(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert status(answer) == 400
        eventually(lambda: served.server.connections == 0)


def test_a_head_that_never_ends_is_given_up_however_busily_it_comes(served: Served) -> None:
    with served.connect() as connection:
        connection.settimeout(0.02)
        started, answer = time.monotonic(), b""
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while not answer:
            assert time.monotonic() - started < 5.0
            with contextlib.suppress(OSError):
                connection.sendall(b"X: y\r\n")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
        took = time.monotonic() - started
    assert status(answer) == 408
    assert took >= SHORT.head_timeout * 0.9
    eventually(lambda: served.server.connections == 0)


def test_without_the_deadline_the_same_head_would_wait() -> None:
    with Served(limits=Limits(head_timeout=60.0)) as served, served.connect() as connection:
        connection.settimeout(0.5)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_connection_that_asks_nothing_is_closed(served: Served) -> None:
    with served.connect() as connection:
        assert connection.recv(1) == b""
    with served.connect() as connection:
        connection.sendall(GET)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.endswith(b"ok\n")


def test_one_connection_too_many_takes_the_place_of_the_one_that_was_idle_longest() -> None:
    with Served(limits=Limits(connections=3)) as served, contextlib.ExitStack() as stack:
        first, *others = (stack.enter_context(served.connect()) for _ in range(3))
        eventually(lambda: served.server.connections == 3)
        assert status(say(served, LAST)) == 200
        assert first.recv(1) == b""
        for other in others:
            other.sendall(LAST)
            assert status(other.recv(65536)) == 200


def test_when_all_are_busy_one_more_is_told_so() -> None:
    with Served(limits=Limits(connections=2)) as served, contextlib.ExitStack() as stack:
        for _ in range(2):
            listening = stack.enter_context(served.connect())
            listening.sendall(get("/api/events"))
            assert listening.recv(20).startswith(b"HTTP/1.1 200")
        assert status(say(served, b"")) == 503


def test_a_client_that_asks_and_never_reads_is_not_answered_without_end(served: Served) -> None:
    served.state = a_state(a_service(problem="x" * 100_000))
    with served.connect() as connection:
        connection.setblocking(False)
        request = b"GET /api/services HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with contextlib.suppress(OSError):
            for _ in range(2000):
                connection.send(request)
        eventually(lambda: served.asked > 0)
        assert status(say(served, LAST)) == 200
        assert served.asked < 200


@pytest.mark.parametrize("make_loop", LOOPS.values(), ids=LOOPS)
def test_one_that_reads_slowly_may_be_slow(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    state = a_state(a_service(problem="x" * 6_000_000))
    with (
        Served(state, limits=Limits(stall=0.5, idle=0.2), loop=make_loop()) as served,
        served.connect() as connection,
    ):
        pace = threading.Event()
        connection.sendall(get("/api/services"))
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
            pace.wait(0.01)
    assert json.loads(body(b"".join(parts))) == state


def test_one_that_reads_nothing_is_dropped_in_the_middle_of_an_answer() -> None:
    state = a_state(a_service(problem="x" * 6_000_000))
    with Served(state, limits=Limits(stall=0.1)) as served, served.connect() as connection:
        connection.sendall(get("/api/services"))
        eventually(lambda: served.asked == 1)
        eventually(lambda: served.server.connections == 0)


def test_the_rest_of_what_was_refused_is_thrown_away_so_that_the_answer_arrives(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n" + b"x" * 300_000)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert status(answer) == 400


# ---- Unix sockets, and the end


@pytest.mark.parametrize("make_loop", LOOPS.values(), ids=LOOPS)
def test_a_unix_socket_is_as_good_and_its_file_stays(
    tmp_path: Path, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    path = tmp_path / "admin.sock"
    client = httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), trust_env=False)
    with Served(unix=path, loop=make_loop()) as served, client:
        assert client.get("http://disco/healthz").text == "ok\n"
        assert client.get("http://disco/api/services").json() == served.state
        assert client.post("http://disco/").status_code == 405
    assert path.exists()


def test_closing_refuses_new_connections_and_ends_the_old(served: Served) -> None:
    with served.connect() as idle, served.connect() as listening:
        listening.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert listening.recv(20).startswith(b"HTTP/1.1 200")
        served.on_loop(served.server.close)
        assert idle.recv(1) == b""
        rest = b"".join(iter(lambda: listening.recv(65536), b""))
        assert rest.endswith(b"0\r\n\r\n")  # it ended, it was not cut
        with pytest.raises(ConnectionRefusedError):
            served.connect()
    served.on_loop(served.server.close)


def test_closing_while_clients_arrive_leaves_nothing_open() -> None:
    """On uvloop, which the sidecar runs on: asyncio of Python 3.11 itself forgets a socket that it accepted just before."""
    for _ in range(20):
        with contextlib.ExitStack() as clients, Served(loop=uvloop.new_event_loop()) as served:
            for _ in range(3):
                clients.enter_context(served.connect()).sendall(get("/metrics"))
        assert served.server.connections == 0


def test_it_measures_even_if_nobody_looks(served: Served) -> None:
    eventually(lambda: served.samples >= 1)
    assert served.asked == 0
