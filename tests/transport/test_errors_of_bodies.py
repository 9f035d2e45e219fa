"""What a request's body raises is the caller's, also if it was read over a connection of another engine's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpcore
import httpx
import pytest

from discoclient import RetryPolicy
from tests.support.eventually import eventually
from tests.support.servers import Servers

from .scene import async_to, run_on, sync_to

TWICE = {"retry": RetryPolicy(max_attempts=2)}
ERRORS = [httpx.ConnectError("no"), httpcore.ConnectError("no"), httpcore.ConnectTimeout("no"), OSError("no")]


def body(error: Exception) -> Iterator[bytes]:
    yield b"the beginning"
    raise error


async def async_body(error: Exception) -> AsyncIterator[bytes]:
    for piece in body(error):
        yield piece


@pytest.mark.parametrize(
    "error", ERRORS, ids=lambda error: f"{type(error).__module__}.{type(error).__name__}"
)
def test_a_request_whose_body_failed_is_not_sent_again_without_it(error: Exception) -> None:
    """Half of a body and then nothing would look like all of it."""

    async def case() -> None:
        async with async_to(*several, **TWICE) as client:
            with pytest.raises((type(error), httpx.TransportError)):
                await client.post("/", content=async_body(error))

    with Servers() as servers:
        several = servers.several(2)
        run_on("asyncio", case)
        with sync_to(*several, **TWICE) as client, pytest.raises((type(error), httpx.TransportError)):
            client.post("/", content=body(error))
        eventually(lambda: not any(server.connections for server in several))
        assert sum(server.requests for server in several) <= 2, "one each at most, and none twice"


def test_a_connection_that_is_refused_is_tried_elsewhere_with_the_same_body() -> None:
    """The negative control: nothing of it was read then."""
    with Servers() as servers:
        several = servers.several(2)
        servers.run(several[0].stop_listening())
        with sync_to(*several, **TWICE) as client:
            for _ in range(4):
                assert client.post("/", content=iter([b"all of it"])).status_code == 200
        assert several[1].requests == 4
