"""What a request may carry in ``extensions``, and what it finds in the response's."""

from __future__ import annotations

from typing import Any

import pytest

from .engines import OURS, THEIRS, Side, Way
from .observing import Ask, ask, is_right, told
from .origin import origin
from .plays import Act, chunked, ok, response, whole

TRACED = {
    "http11.send_request_headers.started",
    "http11.send_request_headers.complete",
    "http11.receive_response_headers.started",
    "http11.receive_response_headers.complete",
    "http11.receive_response_body.started",
    "http11.receive_response_body.complete",
    "http11.response_closed.complete",
}


def with_extensions(**extensions: Any) -> Ask:
    return Ask(more={"extensions": extensions})


@pytest.mark.parametrize(
    "target", [b"/else", b"*", b"http://elsewhere/x", b"/%zz", b"/case?a=b#c", b"elsewhere:443"]
)
def test_a_target_of_the_callers_own_is_sent(way: Way, target: bytes) -> None:
    async def seen(side: Side) -> list[bytes]:
        async with side.client(way, server.port) as client:
            await ask(client, with_extensions(target=target))
            return [told(request) for request in server.requests]

    with origin() as server:
        ours = way.run(lambda: seen(OURS))
    with origin() as server:
        assert ours == way.run(lambda: seen(THEIRS))
    assert ours[0].startswith(b"GET " + target + b" HTTP/1.1\r\n")


@pytest.mark.parametrize("kind", ["read", "pool and read", "all by one number", "in the client"])
def test_a_timeout_of_the_request(way: Way, kind: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "read": {"extensions": {"timeout": {"read": 0.05}}},
        "pool and read": {
            "extensions": {"timeout": {"read": 0.05, "pool": 5.0, "connect": 5.0, "write": 5.0}}
        },
        "all by one number": {"timeout": 0.05},
        "in the client": {},
    }
    options = {"timeout": 0.05} if kind == "in the client" else {}

    async def seen(side: Side) -> str:
        async with side.client(way, server.port, **options) as client:
            return (await ask(client, Ask(more=kinds[kind]))).error

    with origin({"case": whole(Act.STALL)}) as server:
        assert way.run(lambda: seen(OURS)) == way.run(lambda: seen(THEIRS)) == "ReadTimeout"


def test_no_timeout_at_all_waits(way: Way) -> None:
    """The negative control: longer than the limits above, and no error."""
    slow = whole(*(b"%c" % byte for byte in response(b"x" * 60)))

    async def case() -> None:
        async with OURS.client(way, server.port, timeout=0.00001) as client:
            answer = await ask(client, Ask(more={"timeout": None}))
            assert (answer.error, answer.body) == ("", b"x" * 60)

    with origin({"case": slow}) as server:
        way.run(case)


def test_a_server_name_is_no_hindrance_without_tls(way: Way) -> None:
    async def seen(side: Side) -> Any:
        async with side.client(way, server.port) as client:
            return await ask(client, with_extensions(sni_hostname="elsewhere"))

    with origin({"case": ok()}) as server:
        assert way.run(lambda: seen(OURS)) == way.run(lambda: seen(THEIRS))


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "in parts"])
def test_a_trace_is_told(way: Way, is_whole: bool) -> None:
    """At least what httpx tells of a request and its response, each begun before it is complete."""

    async def seen(side: Side) -> list[str]:
        told: list[str] = []

        def note(event: str, info: Any) -> None:
            told.append(event)

        async def anote(event: str, info: Any) -> None:
            told.append(event)

        async with side.client(way, server.port) as client:
            trace = note if way.is_sync else anote
            await ask(client, Ask(more={"extensions": {"trace": trace}}, is_whole=is_whole))
        return told

    with origin({"case": ok()}) as server:
        ours, theirs = way.run(lambda: seen(OURS)), way.run(lambda: seen(THEIRS))
    assert set(theirs) >= TRACED, "the negative control"
    assert set(ours) >= TRACED, f"not told: {sorted(TRACED - set(ours))}"
    assert set(theirs) - set(ours) <= {
        "connection.connect_tcp.started",
        "connection.connect_tcp.complete",
    } | set(ours)


def test_an_extension_that_nobody_knows_is_no_hindrance(way: Way) -> None:
    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            answer = await ask(client, with_extensions(whatever=object()))
            assert (answer.error, answer.body) == ("", b"fine")

    with origin({"case": ok()}) as server:
        way.run(case)


def test_a_response_tells_of_its_connection(way: Way) -> None:
    """``network_stream`` is what httpx has; what it is asked for most is the addresses."""

    async def seen(side: Side) -> Any:
        async with side.client(way, server.port) as client, client.stream("GET", "/case") as found:
            stream = found.extensions.get("network_stream")
            address = stream.get_extra_info("server_addr") if stream is not None else None
            await client.read(found)
            return sorted(set(found.extensions) - {"disco"}), address

    play = whole(response(b"", b"Transfer-Encoding: chunked", length=False) + chunked(b"abcd"))
    with origin({"case": play}) as server:
        ours, theirs = way.run(lambda: seen(OURS)), way.run(lambda: seen(THEIRS))
        assert ours == theirs


@pytest.mark.parametrize("wrong", [{"read": -1.0}, {"read": 0.0}, {"connect": 0.0}])
def test_a_limit_that_is_none_does_not_hang(way: Way, wrong: dict[str, float]) -> None:
    async def seen(side: Side) -> bool:
        async with side.client(way, server.port) as client:
            first = await ask(client, with_extensions(timeout=wrong))
            assert first.error or first.status == 200
            return is_right(await ask(client, Ask(path="/after")))

    with origin({"case": whole(Act.STALL)}) as server:
        if wrong == {"connect": 0.0}:
            server.plays["case"] = ok()
        assert way.run(lambda: seen(OURS))
