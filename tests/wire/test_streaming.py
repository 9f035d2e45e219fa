"""Bodies that the caller reads part by part, or does not read to their end."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.shells import Face

from .engines import OURS, SIDES, THEIRS, Side, Way
from .observing import Ask, ask, error_of, is_right
from .origin import Origin, origin
from .plays import Act, Play, chunked, response, whole

LINES = "one\ntwo\r\nthr\u00e9e\rfour\n\nlast".encode()
HEAD = response(b"", b"Transfer-Encoding: chunked", b"Content-Type: text/plain; charset=utf-8", length=False)
PLAYS = {
    "a length": whole(response(LINES, b"Content-Type: text/plain; charset=utf-8")),
    "chunks": whole(HEAD + chunked(*(LINES[place : place + 3] for place in range(0, len(LINES), 3)))),
    "chunks apart": whole(HEAD, *(b"1\r\n%c\r\n" % byte for byte in LINES), b"0\r\n\r\n"),
    "deflated": whole(response(zlib.compress(LINES * 100), b"Content-Encoding: deflate")),
    "until the end": whole(response(LINES, length=False), Act.SHUT),
    "nothing": whole(response(b"")),
    "cut": whole(response(LINES)[:-5], Act.SHUT),
}
HOWS = ["iter_raw", "iter_bytes", "iter_text", "iter_lines", "iter_raw of 4", "iter_bytes of 7", "read"]


async def read(client: Face, how: str) -> tuple[Any, ...]:
    """Everything there is, joined where the parts are the server's affair; the error, and how much was counted."""
    parts: list[Any] = []
    error = ""
    method, _, size = how.partition(" of ")
    async with client.stream("GET", "/case") as response:
        try:
            if how == "read":
                parts.append(await client.read(response))
            elif client.is_sync:
                parts += getattr(response, method)(*([int(size)] if size else []))
            else:
                parts += [
                    part async for part in getattr(response, f"a{method}")(*([int(size)] if size else []))
                ]
        except Exception as raised:
            error = error_of(raised)
        counted = response.num_bytes_downloaded
    if not (size or how == "iter_lines"):
        parts = ["".join(parts) if how == "iter_text" else b"".join(parts)]
    return error, [] if error and size else parts, counted, response.is_closed


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", PLAYS)
def test_every_way_to_read_gives_the_same(way: Way, name: str, how: str) -> None:
    async def seen(side: Side) -> tuple[Any, ...]:
        async with side.client(way, server.port) as client:
            return await read(client, how)

    with origin({"case": PLAYS[name]}) as server:
        assert way.run(lambda: seen(OURS)) == way.run(lambda: seen(THEIRS))


async def nothing(client: Face, response: Any) -> None:
    pass


async def one_part(client: Face, response: Any) -> None:
    async for _ in client.parts(response):
        break


async def all_parts(client: Face, response: Any) -> None:
    async for _ in client.parts(response):
        pass


LEAVING: dict[str, tuple[Callable[[Face, Any], Any], Play, bool | None]] = {
    "read to the end": (all_parts, whole(response(b"x" * 1000)), True),
    "read to the end, chunks": (all_parts, whole(HEAD + chunked(b"x" * 1000, b"y")), True),
    "not read at all": (nothing, whole(response(b"x" * 500_000)), False),
    "not read at all, and it is small": (nothing, whole(response(b"x" * 10)), None),
    "left half way": (one_part, whole(response(b"x" * 5_000_000)), False),
    "left half way, chunks": (one_part, whole(HEAD + chunked(*[b"x" * 100_000] * 50)), False),
    "left before the last chunk": (one_part, whole(HEAD + b"4\r\nabcd\r\n", Act.STALL), False),
    "left, and the server stalls": (one_part, whole(response(b"x" * 100)[:-50], Act.STALL), False),
    "nothing to read": (nothing, whole(response(b"")), None),
    "204 and not read": (nothing, whole(b"HTTP/1.1 204 No Content\r\n\r\n"), None),
}


@pytest.mark.parametrize("side", SIDES, ids=repr)
@pytest.mark.parametrize("name", LEAVING)
def test_a_body_that_is_left_never_answers_what_follows(way: Way, name: str, side: Side) -> None:
    leave, play, stays = LEAVING[name]

    async def case() -> None:
        async with side.client(way, server.port) as client:
            for _ in range(3):
                before = len(server.order)
                async with client.stream("GET", "/case") as response:
                    await leave(client, response)
                assert response.is_closed
                assert is_right(await ask(client, Ask(path="/after")))
                if stays is not None:
                    assert (server.order[before] == server.order[before + 1]) == stays

    with origin({"case": play}) as server:
        way.run(case)
        way.run(lambda: gone(way, server))


@pytest.mark.parametrize(
    "name", ["left half way", "left before the last chunk", "left, and the server stalls"]
)
def test_a_body_that_is_left_is_closed_to_the_server(way: Way, name: str) -> None:
    leave, play, _ = LEAVING[name]

    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            async with client.stream("GET", "/case") as response:
                await leave(client, response)
            await way.until(lambda: server.open == 0, what="the server sees that nobody reads any more")

    with origin({"case": play}) as server:
        way.run(case)


async def gone(way: Way, server: Origin) -> None:
    """At most the idle one of the last request is left."""
    await way.until(lambda: server.open <= 1, what="what was left is closed")


def test_a_body_after_its_client_was_closed(way: Way) -> None:
    """What comes of it is httpx's to say; it ends, and holds nothing."""

    async def case() -> None:
        async with OURS.client(way, server.port) as client:
            response = await client.open("GET", "/case")
            await client.close()
            error = ""
            try:
                await client.read(response)
            except Exception as raised:
                error = error_of(raised)
            await client.close_response(response)
            assert error in ("", "ReadError", "RemoteProtocolError", "StreamClosed")

    with origin({"case": whole(response(b"x" * 3_000_000))}) as server:
        way.run(case)
