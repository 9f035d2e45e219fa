"""Our client and httpx's own, made alike: which engine carries ours, and how one waits."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import httpx

from discoclient import AsyncDiscoClient, DiscoClient, OutlierPolicy, RetryPolicy
from tests.client.shells import Face

__all__ = ["ENGINE", "IS_NATIVE", "OURS", "SIDES", "THEIRS", "WAYS", "Side", "Way"]

T = TypeVar("T")

_HAS_ENGINES = "engine" in inspect.signature(DiscoClient.__init__).parameters

ENGINE = os.environ.get("DISCO_TEST_ENGINE", "native") if _HAS_ENGINES else ""
"""What carries our requests in these tests; another one by ``$DISCO_TEST_ENGINE``. Empty: there is no choice yet."""

IS_NATIVE = ENGINE == "native"

_number = itertools.count()
_TLS = ssl.create_default_context()  # one for all: it is dear, and nothing here is about it


class Way:
    """How one waits: sync (driven without a loop, so nothing may really wait) or asyncio."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_sync = name == "sync"

    def __repr__(self) -> str:
        return self.name

    def run(self, case: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if not self.is_sync:
            with asyncio.Runner() as runner:
                return runner.run(case())
        coroutine = case()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            value: T = stop.value
            return value
        coroutine.close()
        raise AssertionError("a sync case has nothing to wait for")

    async def pause(self, seconds: float = 0.001) -> None:
        """Let others run: threads, and the loop's turns."""
        if self.is_sync:
            threading.Event().wait(seconds)
        else:
            await asyncio.sleep(seconds)

    async def until(self, is_so: Callable[[], object], *, timeout: float = 5.0, what: str = "") -> None:
        """`eventually`, with a first look at once."""
        left = timeout
        while not is_so():
            assert left > 0, f"not within {timeout:g} s: {what}"
            await self.pause()
            left -= 0.001
        if not self.is_sync:  # what the loop has been told by then, it has also done
            for _ in range(3):
                await asyncio.sleep(0)

    async def together(self, *acts: Callable[[], Coroutine[Any, Any, T]]) -> list[T]:
        """What came of each, done at the same time: in threads, or in tasks."""
        if not self.is_sync:
            return await asyncio.gather(*(act() for act in acts))
        results: dict[int, T] = {}

        def act(number: int) -> None:
            results[number] = self.run(acts[number])

        threads = [threading.Thread(target=act, args=(number,)) for number in range(len(acts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results[number] for number in range(len(acts))]


class Side:
    """One of the two that are compared."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_ours = name == "ours"

    def __repr__(self) -> str:
        return self.name

    @contextlib.asynccontextmanager
    async def client(self, way: Way, port: int, **options: Any) -> AsyncIterator[Face]:
        """A client whose one and only attempts go to *port*. Nothing is known of the address from before."""
        options = {"verify": _TLS, "trust_env": False, "timeout": 5.0, **options}
        if self.is_ours:
            service = f"wire-{next(_number)}"
            ours = {
                "registry": f"static://{service}=127.0.0.1:{port}",
                "retry": RetryPolicy(max_attempts=1, connect_timeout=30.0),
                "outlier": OutlierPolicy(max_ejected=0),
                "discovery_timeout": 30.0,  # nothing here is about it, and the machine may be busy
                **({"engine": ENGINE} if ENGINE else {}),
            }
            raw: Any = (DiscoClient if way.is_sync else AsyncDiscoClient)(service, **{**ours, **options})
        else:
            kind = httpx.Client if way.is_sync else httpx.AsyncClient
            raw = kind(base_url=f"http://127.0.0.1:{port}", **options)
        async with Face(raw) as face:
            yield face


WAYS = [Way("sync"), Way("asyncio")]
OURS = Side("ours")
THEIRS = Side("httpx")
SIDES = [OURS, THEIRS]
