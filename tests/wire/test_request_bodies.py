"""Bodies that go up: what kinds there are, how they are framed, and what goes wrong with them."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from .conftest import Duel
from .engines import OURS, SIDES, THEIRS, Side, Way
from .observing import Ask, ask, is_right
from .origin import origin
from .plays import Act, early, ok


class Mishap(Exception):
    """The caller's own."""


def parts(*pieces: bytes, error: Exception | None = None) -> Callable[[bool], Any]:
    """A body that can't be sent twice: *pieces*, and then *error*."""

    def sync() -> Iterator[bytes]:
        yield from pieces
        if error is not None:
            raise error

    async def asynchronous() -> AsyncIterator[bytes]:
        for piece in sync():
            yield piece

    return lambda is_sync: sync() if is_sync else asynchronous()


BODIES: dict[str, Ask] = {
    "bytes": Ask("POST", content=lambda is_sync: b"some bytes"),
    "no bytes": Ask("POST", content=lambda is_sync: b""),
    "no body": Ask("POST"),
    "text": Ask("POST", content=lambda is_sync: "t\u00e9xt"),
    "1 MB": Ask("POST", content=lambda is_sync: bytes(range(256)) * 4096),
    "a body on GET": Ask("GET", content=lambda is_sync: b"odd"),
    "a body on HEAD": Ask("HEAD", content=lambda is_sync: b"odd"),
    "a body on DELETE": Ask("DELETE", content=lambda is_sync: b"odd"),
    "PUT without": Ask("PUT"),
    "DELETE without": Ask("DELETE"),
    "parts": Ask("POST", content=parts(b"one", b"two", b"three")),
    "an empty part among others": Ask("POST", content=parts(b"one", b"", b"three")),
    "only an empty part": Ask("POST", content=parts(b"")),
    "no parts": Ask("POST", content=parts()),
    "many parts": Ask("POST", content=parts(*[b"x"] * 500)),
    "large parts": Ask("POST", content=parts(*[b"y" * 200_000] * 4)),
    "parts on GET": Ask("GET", content=parts(b"odd")),
    "parts with a length": Ask(
        "POST", content=parts(b"one", b"two"), more={"headers": {"Content-Length": "6"}}
    ),
    "parts, too short": Ask("POST", content=parts(b"one"), more={"headers": {"Content-Length": "6"}}),
    "parts, too long": Ask(
        "POST", content=parts(b"one", b"two", b"three"), more={"headers": {"Content-Length": "6"}}
    ),
    "parts of length 0": Ask("POST", content=parts(), more={"headers": {"Content-Length": "0"}}),
    "parts beyond length 0": Ask("POST", content=parts(b"one"), more={"headers": {"Content-Length": "0"}}),
    "bytes, too short": Ask(
        "POST", content=lambda is_sync: b"abc", more={"headers": {"Content-Length": "6"}}
    ),
    "bytes, too long": Ask("POST", content=lambda is_sync: b"abc", more={"headers": {"Content-Length": "2"}}),
    "an error at once": Ask("POST", content=parts(error=Mishap("mine"))),
    "an error half way": Ask("POST", content=parts(b"one", error=Mishap("mine"))),
    "an error with a length": Ask(
        "POST", content=parts(b"one", error=Mishap("mine")), more={"headers": {"Content-Length": "6"}}
    ),
    "an error of httpx's": Ask("POST", content=parts(b"one", error=httpx.ReadError("mine"))),
    "an OSError": Ask("POST", content=parts(b"one", error=OSError("mine"))),
    "a form": Ask("POST", more={"data": {"a": "b c", "d": "\u00e9"}}),
    "JSON": Ask("PUT", more={"json": {"a": [1, None, "\u00e9"]}}),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body(duel: Duel, name: str) -> None:
    play = ok(b"") if BODIES[name].method == "HEAD" else ok()
    duel(f"body: {name}", play, BODIES[name])


@pytest.mark.parametrize("name", ["multipart", "a file"])
def test_files(way: Way, name: str) -> None:
    def more(is_sync: bool) -> dict[str, Any]:
        file = io.BytesIO(b"what is in it " * 10_000)
        if name == "a file":
            return {"content": file} if is_sync else {"content": file.getvalue()}
        boundary = {"Content-Type": "multipart/form-data; boundary=b0unda7y"}
        return {
            "files": {"f": ("n\u00e4me.txt", file, "text/plain")},
            "data": {"x": "y"},
            "headers": boundary,
        }

    async def seen(side: Side) -> Any:
        async with side.client(way, server.port) as client:
            answer = await ask(client, Ask("POST", more=more(way.is_sync)))
            return answer, server.requests[0].partition(b"\r\n\r\n")[2]

    with origin({"case": ok()}) as server:
        ours = way.run(lambda: seen(OURS))
    with origin({"case": ok()}) as server:
        assert ours == way.run(lambda: seen(THEIRS))
    assert b"what is in it" in ours[1]


@pytest.mark.parametrize("kind", ["bytes", "parts"])
@pytest.mark.parametrize("side", SIDES, ids=repr)
def test_a_server_that_does_not_read_is_a_write_timeout(way: Way, side: Side, kind: str) -> None:
    """Far more than the kernel takes, to a server that takes nothing; the read timeout is no help, it is far longer."""
    bodies = {"bytes": lambda is_sync: b"x" * 30_000_000, "parts": parts(*[b"x" * 1_000_000] * 30)}
    timeout = httpx.Timeout(connect=5.0, read=30.0, write=0.1, pool=5.0)

    async def case() -> None:
        async with side.client(way, server.port, timeout=timeout) as client:
            assert (await ask(client, Ask("POST", content=bodies[kind]))).error == "WriteTimeout"
            assert is_right(await ask(client, Ask(path="/after", more={"timeout": 5.0})))

    with origin({"case": early(Act.STALL)}, receive_buffer=100_000) as server:
        way.run(case)


def test_a_server_that_reads_is_no_write_timeout(way: Way) -> None:
    """The negative control."""
    timeout = httpx.Timeout(connect=5.0, read=30.0, write=5.0, pool=5.0)

    async def case() -> None:
        async with OURS.client(way, server.port, timeout=timeout) as client:
            answer = await ask(client, Ask("POST", content=parts(*[b"x" * 1_000_000] * 10)))
            assert (answer.error, answer.body) == ("", b"fine")

    with origin({"case": ok()}, receive_buffer=100_000) as server:
        way.run(case)


def test_a_callers_own_error_comes_through_and_the_server_never_sees_a_whole_request(way: Way) -> None:
    error = Mishap("mine")

    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            request = Ask("POST", content=parts(b"one", error=error)).build(client)
            with pytest.raises(Mishap) as raised:
                await client.send(request)
            assert raised.value is error
            await way.until(lambda: server.open == 0, what="half a request's connection is closed")
            assert not any(request.endswith(b"0\r\n\r\n") for request in server.requests)
            assert is_right(await ask(client, Ask(path="/after")))

    with origin({"case": ok()}) as server:
        way.run(case)
