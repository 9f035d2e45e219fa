"""Whose the listener is that takes the connection of a probe, which somebody else may have become meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from discoclient.serving.readiness import readiness
from discoclient.system.listeners import Listener


class Child:
    """As much of the real one as a probe asks for; *seen* is what its looks find, one after the other."""

    def __init__(self, port: int, *seen: Listener) -> None:
        self.port = port
        self.settled: int | None = None
        self._seen = iter(seen)

    def look(self) -> Listener:
        return next(self._seen)

    def is_elsewhere(self) -> bool:
        return False

    def settle(self, port: int) -> None:
        self.settled = port


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def probe(child: Any) -> str | None:
    return await readiness(child, scheme="http", host="127.0.0.1", health_path=None, port_file=None)()


async def test_a_stranger_who_came_between_the_look_and_the_connection_is_not_the_command(port: int) -> None:
    child = Child(port, Listener.NOBODY, Listener.FOREIGN)
    assert await probe(child) == f"another process listens on 127.0.0.1:{port}"
    assert child.settled is None


async def test_a_command_that_came_between_them_is(port: int) -> None:
    child = Child(port, Listener.NOBODY, Listener.OURS)
    assert await probe(child) is None
    assert child.settled == port


async def test_one_that_was_there_before_is_looked_at_once(port: int) -> None:
    """A look goes through all of /proc."""
    assert await probe(Child(port, Listener.OURS)) is None


async def test_a_stranger_who_was_there_before_is_not_even_called(port: int) -> None:
    assert await probe(Child(port, Listener.FOREIGN)) == f"another process listens on 127.0.0.1:{port}"
