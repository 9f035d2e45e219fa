"""One member of the cluster: the connections to it, by purpose, and when it may be tried again."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Iterator
from enum import StrEnum
from random import Random
from time import monotonic

from ...model.schedule import full_jitter
from .channel import MemberChannel
from .errors import translate

__all__ = ["Member", "Purpose"]

STREAMS = 100
"""Streams on one connection. etcd 3.5.1 takes 250 with TLS (golang.org/x/net/http2's default), an nginx in front 128. One
more waits until another one ends, which for watches is for ever."""
CONNECT_TIMEOUT = 2.0
"""Seconds until a connection must stand and its peer have spoken."""
REST_FIRST, REST_CAP = 0.1, 2.0
"""Seconds of rest after an attempt that failed, full jitter: once a second on average while a member is down."""
LASTING = 5.0
"""Seconds that a connection has to last. One that does not is as good as a failed attempt: a port that takes connections and
drops them is not to be hammered either."""


class Purpose(StrEnum):
    """Connections of their own: HTTP/2's window is shared, and a big list must not hold up a lease or a watch."""

    CALL = "call"
    LEASE = "lease"
    WATCH = "watch"


class Member:
    """Everybody who wants to reach it shares one attempt to connect, and after a failure its rest.

    Connections are made as streams need them, and closed when their last stream has left and another one has room.
    """

    def __init__(
        self, host: str, port: int, *, context: ssl.SSLContext | None, server_name: str | None, rng: Random
    ) -> None:
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host, self._port = host, port
        self._context, self._server_name = context, server_name
        self._rng = rng
        self._channels: dict[Purpose, list[MemberChannel]] = {purpose: [] for purpose in Purpose}
        self._attempt: asyncio.Task[None] | None = None
        self._failure: BaseException = ConnectionError("not tried yet")
        self._rests = self._new_rests()
        self._rests_until = 0.0

    def rest(self, purpose: Purpose) -> float:
        """Seconds until it may be tried again. 0: now, or it is connected."""
        return 0.0 if self._free(purpose) else max(0.0, self._rests_until - monotonic())

    async def channel(self, purpose: Purpose) -> MemberChannel:
        """A connection for one more stream, which has to be given back by `release`.

        Raises `RegistryUnavailable` if there is none, at once while the member rests.
        """
        while not (free := self._free(purpose)):
            if self._attempt is None:
                if self.rest(purpose):
                    raise translate(self._failure, self.name) from self._failure
                self._attempt = asyncio.ensure_future(self._connect(purpose))
            await asyncio.wait([self._attempt])  # whoever waits may go; the attempt is everybody's
        free[0].streams += 1
        return free[0]

    def release(self, purpose: Purpose, channel: MemberChannel) -> None:
        channel.streams -= 1
        if not channel.streams and (
            channel.is_doubted or any(other is not channel for other in self._free(purpose))
        ):
            self._drop(purpose, channel)

    def close(self) -> None:
        """For ever."""
        self._failure, self._rests_until = ConnectionAbortedError("the registry was closed"), math.inf
        if self._attempt is not None:
            self._attempt.cancel()
        for channels in self._channels.values():
            while channels:
                channels.pop().close()

    async def _connect(self, purpose: Purpose) -> None:
        channel = MemberChannel(self._host, self._port, context=self._context, server_name=self._server_name)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await channel.connect()
            self._channels[purpose].append(channel)
        except Exception as error:
            channel.close()
            self._failed(error)
        except BaseException:
            channel.close()
            raise
        finally:
            self._attempt = None

    def _free(self, purpose: Purpose) -> list[MemberChannel]:
        """Those that have room for one more stream. The lost ones are cleared away."""
        for channel in [channel for channel in self._channels[purpose] if channel.is_lost]:
            if monotonic() - channel.made_at < LASTING:
                self._failed(channel.lost or ConnectionResetError("it closed the connection"))
            else:
                self._rests = self._new_rests()
            self._drop(purpose, channel)
        return [
            channel
            for channel in self._channels[purpose]
            if channel.streams < STREAMS and not channel.is_doubted
        ]

    def _drop(self, purpose: Purpose, channel: MemberChannel) -> None:
        if channel in self._channels[purpose]:
            self._channels[purpose].remove(channel)
            channel.close()

    def _failed(self, error: BaseException) -> None:
        self._failure = error
        self._rests_until = monotonic() + next(self._rests)

    def _new_rests(self) -> Iterator[float]:
        return full_jitter(self._rng, first=REST_FIRST, cap=REST_CAP)
