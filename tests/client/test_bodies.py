"""Bodies both ways, and how long a request counts as being in flight."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.client.fleet import Fleet
from tests.client.shells import Face, Shell, in_every_shell
from tests.support.servers import Exchange, answer, answer_before_the_body, break_off, echo, stream


@asynccontextmanager
async def streaming(shell: Shell, fleet: Fleet) -> AsyncIterator[tuple[Face, threading.Event]]:
    """A client of a service whose answer ends when the event is set."""
    is_over = threading.Event()
    fleet.add(stream([b"first"], wait=is_over.is_set))
    try:
        async with shell.client() as client:
            yield client, is_over
    finally:
        is_over.set()


@in_every_shell
async def test_a_body_is_handed_over_as_it_arrives(shell: Shell, fleet: Fleet) -> None:
    async with streaming(shell, fleet) as (client, is_over), client.stream() as response:
        parts = client.parts(response)
        assert await anext(parts) == b"first"
        is_over.set()
        assert [part async for part in parts] == []


@in_every_shell
async def test_a_request_is_in_flight_until_its_body_is_read(shell: Shell, fleet: Fleet) -> None:
    async with streaming(shell, fleet) as (client, is_over):
        response = await client.open()
        assert fleet.in_flight() == 1
        is_over.set()
        assert await client.read(response) == b"first"
        assert fleet.in_flight() == 0
        await client.close_response(response)
        assert fleet.in_flight() == 0  # and not -1


@in_every_shell
async def test_a_request_is_in_flight_until_its_unread_body_is_closed(shell: Shell, fleet: Fleet) -> None:
    async with streaming(shell, fleet) as (client, _):
        response = await client.open()
        assert fleet.in_flight() == 1
        await client.close_response(response)
        assert fleet.in_flight() == 0
        await client.close_response(response)
        assert fleet.in_flight() == 0
        server = next(iter(fleet.servers._servers))
        assert server.accepted == 1
        is_over = await client.open()
        await shell.eventually(
            lambda: server.accepted == 2, what="the half-read connection is not used again"
        )
        await client.close_response(is_over)


@in_every_shell
async def test_a_response_that_is_forgotten_is_not_in_flight_for_ever(shell: Shell, fleet: Fleet) -> None:
    async with streaming(shell, fleet) as (client, is_over):
        response = await client.open()
        assert fleet.in_flight() == 1
        del response
        gc.collect()
        assert fleet.in_flight() == 0
        is_over.set()
        server = next(iter(fleet.servers._servers))
        await shell.eventually(lambda: server.connections == 0, what="its connection is closed")


@in_every_shell
async def test_a_body_that_breaks_off_ends_the_request(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(break_off(b"half"))
    async with shell.client() as client:
        async with client.stream() as response:
            parts = client.parts(response)
            assert await anext(parts) == b"half"
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await anext(parts)
        assert caught.value.request is response.request
        assert fleet.in_flight() == 0
        await shell.eventually(lambda: server.connections == 0)


@in_every_shell
async def test_reading_a_body_obeys_the_read_timeout(shell: Shell, fleet: Fleet) -> None:
    async with streaming(shell, fleet) as (client, _):
        with pytest.raises(httpx.ReadTimeout):
            await client.get(timeout=httpx.Timeout(10, read=0.1))
        assert fleet.in_flight() == 0


@in_every_shell
async def test_a_body_is_sent_as_it_comes(shell: Shell, fleet: Fleet) -> None:
    seen: list[bytes] = []

    async def behave(exchange: Exchange) -> None:
        seen.extend([part async for part in exchange.parts()])
        await exchange.reply(200, b"".join(seen))

    fleet.add(behave)
    parts = [b"one", b"two", b"x" * 100_000]
    async with shell.client() as client:
        response = await client.post(content=shell.body(parts))
    assert seen == parts
    assert response.content == b"".join(parts)


@in_every_shell
async def test_big_bodies_go_both_ways(shell: Shell, fleet: Fleet) -> None:
    fleet.add(echo())
    body = bytes(range(256)) * (16 * 1024)  # 4 MiB: more than any buffer on the way
    async with shell.client() as client:
        for content in (body, shell.body([body[:1_000_000], body[1_000_000:]])):
            response = await client.request("PUT", content=content)
            assert response.content == body
    assert fleet.in_flight() == 0


@in_every_shell
async def test_forms_and_files_are_sent_as_httpx_sends_them(shell: Shell, fleet: Fleet) -> None:
    fleet.add(echo())
    async with shell.client() as client:
        assert (await client.post(data={"a": "b c"})).content == b"a=b+c"
        response = await client.post(files={"file": ("name.txt", b"the file")})
        assert b"the file" in response.content
        assert (await client.post(json=["é"])).json() == ["é"]


@in_every_shell
async def test_an_answer_that_comes_before_the_body_is_sent_is_an_answer(shell: Shell, fleet: Fleet) -> None:
    fleet.add(answer_before_the_body(413))
    async with shell.client() as client:
        response = await client.post(content=b"x" * 10_000)
        assert response.status_code == 413
        assert (await client.post(content=b"x" * 10_000)).status_code == 413
    assert fleet.in_flight() == 0


@in_every_shell
async def test_answers_without_a_body_leave_the_connection_usable(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add(answer(b""))
    async with shell.client() as client:
        assert (await client.request("HEAD")).content == b""
        assert (await client.get()).content == b""
        async with client.stream():
            pass
        await client.get()
    assert server.accepted <= 2  # the third one was closed before the end of its body was read
    assert server.requests == 4


@in_every_shell
async def test_a_compressed_body_is_decoded_as_ever(shell: Shell, fleet: Fleet) -> None:
    import gzip

    fleet.add(answer(gzip.compress(b"plain"), headers={"content-encoding": "gzip"}))
    async with shell.client() as client:
        assert (await client.get()).content == b"plain"
