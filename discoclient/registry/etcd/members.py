"""The members of the cluster: whom to ask next, on which connection, with which token."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from random import Random
from typing import Any, TypeVar

from grpclib.client import ServiceMethod, Stream, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ...model.errors import (
    LeaseExpired,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
    RevisionCompacted,
)
from ..address import RegistryAddress
from . import messages
from .channel import MemberChannel, make_ssl_context
from .errors import TokenRefused, translate

__all__ = ["Members", "Purpose"]

T = TypeVar("T")

ATTEMPT_TIMEOUT = 2.0
"""Seconds that one member may take for one call, the connecting included, before the next one is asked."""


class Purpose(StrEnum):
    """Connections of their own: HTTP/2's window is shared, and a big list must not hold up a lease or a watch."""

    CALL = "call"
    LEASE = "lease"
    WATCH = "watch"


class Members:
    """Members are tried in an order shuffled per process. One that fails is left for the next, per purpose."""

    def __init__(self, address: RegistryAddress, *, rng: Random) -> None:
        self._order = list(address.members)
        rng.shuffle(self._order)
        self._current = dict.fromkeys(Purpose, 0)
        self._channels: dict[tuple[Purpose, int], MemberChannel] = {}
        self._context = make_ssl_context(address)
        self._server_name = address.server_name
        self._credentials = (address.user, address.password) if address.user else None
        self._token: str | None = None
        self._login = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._order)

    def current(self, purpose: Purpose) -> int:
        """The member that *purpose* uses now."""
        return self._current[purpose]

    def name(self, member: int) -> str:
        host, port = self._order[member]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def leave(self, purpose: Purpose, member: int, *, drop: bool) -> None:
        """*member* failed: use the next one. With *drop* its connection is closed, and what else it carries breaks too."""
        if self._current[purpose] == member:
            self._current[purpose] = (member + 1) % len(self._order)
        if drop:
            channel = self._channels.pop((purpose, member), None)
            if channel is not None:
                channel.close()

    async def call(
        self,
        path: str,
        request: Any,
        reply: type[Any],
        *,
        purpose: Purpose = Purpose.CALL,
        start: int | None = None,
        timeout: float = ATTEMPT_TIMEOUT,
    ) -> Any:
        """One answer, from the first member that gives one; each is asked once, *timeout* seconds at most.

        Every request that we make may be asked twice: reads are reads, and writes are conditional.
        """
        first = self._current[purpose] if start is None else start % len(self._order)
        error: RegistryError = RegistryUnavailable("the registry has no members")
        for step in range(len(self._order)):
            member = (first + step) % len(self._order)
            try:
                return await self._ask(member, path, request, reply, purpose, timeout)
            except (RevisionCompacted, LeaseExpired, RegistryDenied):
                raise
            except RegistryUnavailable as caught:
                error = caught
                self.leave(purpose, member, drop=True)
        raise error

    async def ask(self, member: int, path: str, request: Any, reply: type[Any]) -> Any:
        """One answer from this very member."""
        return await self._ask(member, path, request, reply, Purpose.CALL, ATTEMPT_TIMEOUT)

    async def open(self, member: int, path: str, request: type[Any], reply: type[Any]) -> Stream[Any, Any]:
        """A stream to *member* on the connection for watches, with the metadata that makes a leaderless member give up."""
        method = StreamStreamMethod[Any, Any](self._channel(Purpose.WATCH, member), path, request, reply)
        return method.open(metadata={"hasleader": "true", **await self._token_metadata(member)})

    def forget_token(self) -> None:
        self._token = None

    def close(self) -> None:
        while self._channels:
            self._channels.popitem()[1].close()

    async def _ask(
        self, member: int, path: str, request: Any, reply: type[Any], purpose: Purpose, timeout: float
    ) -> Any:
        for is_last in (False, True):
            metadata = await self._token_metadata(member)
            if purpose is Purpose.LEASE:
                metadata["hasleader"] = "true"
            try:
                return await self._exchange(member, path, request, reply, purpose, metadata, timeout)
            except TokenRefused:
                self._token = None
                if is_last or self._credentials is None:
                    raise
        raise AssertionError("unreachable")

    async def _exchange(
        self,
        member: int,
        path: str,
        request: Any,
        reply: type[Any],
        purpose: Purpose,
        metadata: dict[str, str],
        timeout: float,
    ) -> Any:
        # LeaseKeepAlive is a stream for etcd; one request and its end make it a call like any other.
        kind: type[ServiceMethod[Any, Any]] = (
            StreamStreamMethod if purpose is Purpose.LEASE else UnaryUnaryMethod
        )
        method = kind(self._channel(purpose, member), path, type(request), reply)

        async def exchange() -> Any:
            async with method.open(timeout=timeout, metadata=metadata) as stream:
                await stream.send_message(request, end=True)
                answer = await stream.recv_message()
            if answer is None:
                raise GRPCError(Status.UNAVAILABLE, "the stream ended without an answer")
            return answer

        # A task of its own: grpclib's deadline cancels the task it runs in and leaves it marked as being cancelled.
        task = asyncio.ensure_future(exchange())
        try:
            return await task
        except (
            Exception
        ) as error:  # also what grpclib asserts when a connection is lost in the middle of a message
            raise translate(error, self.name(member)) from error
        finally:
            task.cancel()

    async def _token_metadata(self, member: int) -> dict[str, str]:
        if self._credentials is None:
            return {}
        async with self._login:  # one login for everybody who waits: bcrypt costs the member 0.1 s
            if self._token is None:
                rpc = messages.load()
                name, password = self._credentials
                try:
                    answer = await self._exchange(
                        member,
                        "/etcdserverpb.Auth/Authenticate",
                        rpc.AuthenticateRequest(name=name, password=password),
                        rpc.AuthenticateResponse,
                        Purpose.CALL,
                        {},
                        ATTEMPT_TIMEOUT,
                    )
                except RegistryError as error:
                    if "authentication is not enabled" in str(error):
                        return {}  # as etcd's own client: a password where none is asked for is no mistake
                    raise
                self._token = answer.token
            return {"token": self._token or ""}

    def _channel(self, purpose: Purpose, member: int) -> MemberChannel:
        channel = self._channels.get((purpose, member))
        if channel is None:
            host, port = self._order[member]
            channel = MemberChannel(host, port, context=self._context, server_name=self._server_name)
            self._channels[purpose, member] = channel
        return channel
