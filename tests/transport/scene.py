"""Clients with one attempt, and the event loops on which an async one may live."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from discoclient import AsyncDiscoClient, DiscoClient, OutlierPolicy, RetryPolicy
from tests.support.servers import HttpServer

__all__ = ["LOOPS", "async_pieces", "async_to", "pieces", "run_on", "sync_to"]

T = TypeVar("T")

LOOPS = ("asyncio", "uvloop")

_number = itertools.count()


def _options(servers: tuple[HttpServer, ...], options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    service = f"scene-{next(_number)}"
    return service, {
        "registry": f"static://{service}={','.join(server.address for server in servers)}",
        "retry": RetryPolicy(max_attempts=1),
        "outlier": OutlierPolicy(max_ejected=0),
        "trust_env": False,
        "engine": "native",
        "timeout": 5.0,
        **options,
    }


def sync_to(*servers: HttpServer, **options: Any) -> DiscoClient:
    """With *options* instead of: one attempt, 5 s for each wait."""
    service, made = _options(servers, options)
    return DiscoClient(service, **made)


def async_to(*servers: HttpServer, **options: Any) -> AsyncDiscoClient:
    service, made = _options(servers, options)
    return AsyncDiscoClient(service, **made)


def run_on(loop: str, case: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run *case* on a loop of this kind."""
    make = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(case())


def pieces(count: int) -> Iterator[bytes]:
    """A request's body, 100 kB each."""
    return iter([b"p" * 100_000] * count)


async def async_pieces(count: int) -> AsyncIterator[bytes]:
    for piece in pieces(count):
        yield piece
