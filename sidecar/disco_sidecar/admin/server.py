"""The admin server: listening sockets, who is connected, and the clock of those who look."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Self

from .connection import Connection
from .guard import Head, Refusal
from .limits import Limits
from .replies import Later, Reply, text
from .site import Site, Source, frame

__all__ = ["AdminServer"]

Tell = Callable[[dict[str, Any]], None]
Subscribe = Callable[[Tell], Callable[[], None]]

CLOSING = 1.0
"""Seconds that clients have at the end to take what was written."""
TURNS = 5
"""Of the loop, until one that was accepted a moment ago has come in: asyncio takes up to four to tell its protocol."""
MOST_NEWS = 100
"""Events that wait for the loop's turn; the oldest give way. The next state tells them all the same."""


class AdminServer:
    """Serves the page and what it shows on sockets that are bound and listen already.

    ::

        admin = await AdminServer(observer.state, sockets=[...], subscribe=happenings.subscribe).start()
        ...
        await admin.close()

    Args:
        source: gives the state (see `admin.state`). Called on the running loop, only when somebody looks.
        sockets: TCP or Unix. They belong to the server from `start` on, and are closed by `close`. A Unix socket's file is
            left where it is: who bound it removes it.
        sample: called once a period (`Limits.period`), whether somebody looks or not, for what is measured between two
            looks (`Observer.sample`). Default ``None``.
        subscribe: called with a function that is to be told every event (``{"at", "service", "kind", "text"}``), from
            any thread; returns one that ends it. Default ``None``: events come with the state only.
        allow_hosts: names besides localhost, 127.0.0.1 and [::1] that a ``Host`` header may hold, without port. Default
            none. A Unix socket takes any: nothing on the web can lead there.
        limits: default `Limits()`.
    """

    def __init__(
        self,
        source: Source,
        *,
        sockets: Sequence[socket.socket],
        sample: Callable[[], None] | None = None,
        subscribe: Subscribe | None = None,
        allow_hosts: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits if limits is not None else Limits()
        self._site = Site(source, allow_hosts=allow_hosts)
        self._sockets = sockets
        self._sample = sample
        self._subscribe = subscribe
        self._unsubscribe: Callable[[], None] | None = None
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._clock: asyncio.TimerHandle | None = None
        self._news: deque[dict[str, Any]] = deque(maxlen=MOST_NEWS)
        self._has_news = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._works: set[asyncio.Future[Reply]] = set()
        self._is_closing = False
        self._gone = asyncio.Event()

    async def start(self) -> Self:
        """Begin to accept connections."""
        loop = self._loop = asyncio.get_running_loop()
        for each in self._sockets:
            if each.family == socket.AF_UNIX:
                options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
                made = loop.create_unix_server(partial(Connection, self, is_unix=True), sock=each, **options)
            else:
                made = loop.create_server(partial(Connection, self, is_unix=False), sock=each)
            self._servers.append(await made)
        if self._subscribe is not None:
            self._unsubscribe = self._subscribe(self._tell)
        if self._sample is not None:
            self._wind()
        return self

    async def close(self) -> None:
        """Stop, and end the connections. Safe to call twice."""
        self._is_closing = True
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._stop_clock()
        for server in self._servers:
            server.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.close()
        if not await self._are_gone():
            for connection in list(self._connections):
                connection.abort()
            await self._are_gone()
        if self._works:  # a thread must not find the loop closed
            await asyncio.wait(self._works, timeout=CLOSING)

    @property
    def connections(self) -> int:
        return len(self._connections)

    # ---- for the connections

    def joined(self, connection: Connection) -> Refusal | None:
        """There is a new one; why it can't stay, if it can't."""
        refusal = None
        if self._is_closing or len(self._connections) >= 2 * self.limits.connections:
            connection.abort()  # not even those that are being refused may grow without limit
        elif len(self._connections) >= self.limits.connections and not self._make_room():
            refusal = Refusal(503, f"there are {self.limits.connections} connections already")
        self._connections.add(connection)
        return refusal

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._gone.set()

    def answer(self, head: Head, *, is_unix: bool) -> Reply | Later:
        reply = self._site.answer(head, is_unix=is_unix)
        if isinstance(reply, Later) or not reply.is_stream:
            return reply
        if len(self._streams()) >= self.limits.streams:
            return text(503, f"{self.limits.streams} listen already", headers=(("Retry-After", "5"),))
        if self._clock is None and not self._is_closing:
            self._wind()
        return reply

    def work(self, later: Later) -> asyncio.Future[Reply]:
        """Have it made in a thread."""
        made = asyncio.get_running_loop().run_in_executor(None, later.make)
        self._works.add(made)
        made.add_done_callback(self._works.discard)
        return made

    # ---- inside

    async def _are_gone(self) -> bool:
        """Whether all connections are over, after a while at most."""
        if self._connections:
            self._gone.clear()
            try:
                await asyncio.wait_for(self._gone.wait(), CLOSING)
            except TimeoutError:
                return False
        return True

    def _make_room(self) -> bool:
        """Close the one that has been idle for longest."""
        idle = [each for each in self._connections if each.idle_since is not None]
        if not idle:
            return False
        longest = min(idle, key=lambda each: each.idle_since or 0.0)
        self._connections.discard(longest)
        longest.abort()
        return True

    def _streams(self) -> list[Connection]:
        return [each for each in self._connections if each.is_stream]

    def _wind(self) -> None:
        assert self._loop is not None
        self._clock = self._loop.call_later(self.limits.period, self._strike)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _strike(self) -> None:
        """Tell those who look how things stand; once, whatever their number."""
        self._clock = None
        if self._sample is not None:
            self._wind()
            self._sample()
        streams = self._streams()
        if not streams:
            return
        if self._clock is None:
            self._wind()
        update = self._site.update()
        if update is not None:
            for each in streams:
                each.send(update)

    def _tell(self, event: dict[str, Any]) -> None:
        """From any thread. What comes in masses before the loop has its turn is told by the next state."""
        self._news.append(event)
        if not self._has_news and self._loop is not None and not self._loop.is_closed():
            self._has_news = True  # two threads at once may both come here: the second finds nothing left
            self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        self._has_news = False
        streams = self._streams()
        while self._news:
            event = self._news.popleft()
            if streams:
                data = frame("happening", event)
                for each in streams:
                    each.send(data)
