"""The members of the cluster: whom to ask next, on which connection, with which token."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from enum import StrEnum
from random import Random
from time import monotonic
from typing import Any

from grpclib.client import ServiceMethod, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ...model.errors import LeaseExpired, RegistryDenied, RegistryUnavailable, RevisionCompacted
from ..address import RegistryAddress
from ..protocol import Untrusted
from . import messages
from .channel import MemberChannel, make_ssl_context
from .errors import TokenRefused, translate
from .login import Login
from .member import Member, Purpose

__all__ = ["Lane", "Members"]

ATTEMPT_TIMEOUT = 2.0
"""Seconds that one member may take for one call, the connecting included, before the next one is asked."""
CALLS = 64
"""Calls that are on their way at once, on each lane. More of them wait, and their time does not run yet: if a thousand
services ask at once, their answers take a slow machine longer than `ATTEMPT_TIMEOUT`, and in the end nobody would have one.
"""


class Lane(StrEnum):
    """Calls wait for those of their own lane only."""

    QUORUM = "quorum"
    MEMBER = "member"
    """What one member answers by itself: not behind calls that wait in vain for a quorum."""
    LEASE = "lease"
    WATCH = "watch"
    """Watches that are being opened."""


class Members:
    """Members are tried in an order shuffled per process. One that fails is left for the next, per purpose."""

    def __init__(self, address: RegistryAddress, *, rng: Random) -> None:
        order = list(address.members)
        rng.shuffle(order)
        context = make_ssl_context(address)
        self._all = [
            Member(host, port, context=context, server_name=address.server_name, rng=rng)
            for host, port in order
        ]
        self._current = dict.fromkeys(Purpose, 0)
        self._login = Login(address, rng=rng)
        self.lanes = {lane: asyncio.Semaphore(CALLS) for lane in Lane}

    def __iter__(self) -> Iterator[Member]:
        return iter(self._all)

    def current(self, purpose: Purpose) -> Member:
        """The member that *purpose* uses now."""
        return self._all[self._current[purpose]]

    def other(self, purpose: Purpose) -> Member:
        """Another one, if there is one."""
        return self._after(self.current(purpose))

    def leave(self, purpose: Purpose, member: Member) -> None:
        """*member* failed: use the next one."""
        if self.current(purpose) is member:
            self._current[purpose] = (self._current[purpose] + 1) % len(self._all)

    async def call(
        self,
        path: str,
        request: Any,
        reply: type[Any],
        *,
        purpose: Purpose = Purpose.CALL,
        start: Member | None = None,
        lane: Lane = Lane.QUORUM,
        timeout: float = ATTEMPT_TIMEOUT,
    ) -> Any:
        """One answer, from the first member that gives one; each is asked once, *timeout* seconds at most.

        Every request that we make may be asked twice: reads are reads, and writes are conditional.
        """
        async with self.lanes[lane]:
            return await self._call(path, request, reply, purpose, start, timeout)

    async def _call(
        self,
        path: str,
        request: Any,
        reply: type[Any],
        purpose: Purpose,
        start: Member | None,
        timeout: float,
    ) -> Any:
        errors: list[RegistryUnavailable] = []
        for member in await self._order(purpose, start or self.current(purpose)):
            try:
                answer = await self.ask(member, path, request, reply, purpose=purpose, timeout=timeout)
            except (RevisionCompacted, LeaseExpired, RegistryDenied):
                raise
            except RegistryUnavailable as caught:
                errors.append(caught)
            else:
                if start is None:
                    self._current[purpose] = self._all.index(member)
                return answer
        # What all of them agree on, or what may pass.
        raise next((error for error in reversed(errors) if not isinstance(error, Untrusted)), errors[-1])

    async def ask(
        self,
        member: Member,
        path: str,
        request: Any,
        reply: type[Any],
        *,
        purpose: Purpose = Purpose.CALL,
        timeout: float = ATTEMPT_TIMEOUT,
    ) -> Any:
        """One answer from this very member."""
        for is_last in (False, True):
            metadata = await self._metadata(member)
            extra = {"hasleader": "true"} if purpose is Purpose.LEASE else {}
            try:
                return await self._exchange(
                    member, path, request, reply, purpose, {**metadata, **extra}, timeout
                )
            except TokenRefused:
                self._login.forget(metadata)
                if is_last or not metadata:
                    raise
        raise AssertionError("unreachable")

    async def begin(self, purpose: Purpose) -> tuple[Member, MemberChannel, dict[str, str]]:
        """A connection for a stream of *purpose*, to be given back by ``member.release``, and the metadata to open it with.

        With ``hasleader``, which makes a member without a leader give up.
        """
        member = (await self._order(purpose, self.current(purpose)))[0]
        self._current[purpose] = self._all.index(member)
        try:
            metadata = await self._metadata(member)
            return member, await member.channel(purpose), {"hasleader": "true", **metadata}
        except BaseException:
            self.leave(purpose, member)
            raise

    def forget_token(self, metadata: dict[str, str]) -> None:
        """The token in *metadata* is not taken any more."""
        self._login.forget(metadata)

    def close(self) -> None:
        for member in self._all:
            member.close()

    async def _order(self, purpose: Purpose, first: Member) -> list[Member]:
        """All of them, from *first* on, those that rest last. If all do, waits until one has had its rest."""
        start = self._all.index(first)
        order = self._all[start:] + self._all[:start]
        wait = min(member.rest(purpose) for member in order)
        if 0 < wait < math.inf:  # for ever is only for what is closed
            await asyncio.sleep(wait)
        return sorted(order, key=lambda member: member.rest(purpose) > 0)

    async def _exchange(
        self,
        member: Member,
        path: str,
        request: Any,
        reply: type[Any],
        purpose: Purpose,
        metadata: dict[str, str],
        timeout: float,
    ) -> Any:
        began = monotonic()
        try:
            async with asyncio.timeout(timeout):
                channel = await member.channel(purpose)
        except TimeoutError as error:
            raise translate(error, member.name) from error
        # LeaseKeepAlive is a stream for etcd. We end it when the answer is there: for grpc-proxy, an end that comes with the
        # request is a client that is gone, and gets none.
        kind: type[ServiceMethod[Any, Any]] = (
            StreamStreamMethod if purpose is Purpose.LEASE else UnaryUnaryMethod
        )
        method, left = kind(channel, path, type(request), reply), timeout - (monotonic() - began)

        async def exchange() -> Any:
            async with method.open(timeout=left, metadata=metadata) as stream:
                await stream.send_message(request, end=purpose is not Purpose.LEASE)
                answer = await stream.recv_message()
                if purpose is Purpose.LEASE and answer is not None:
                    await stream.cancel()
            if answer is None:
                raise GRPCError(Status.UNAVAILABLE, "the stream ended without an answer")
            return answer

        # A task of its own: grpclib's deadline cancels the task it runs in and leaves it marked as being cancelled.
        task = asyncio.ensure_future(exchange())
        task.add_done_callback(lambda _: member.release(purpose, channel))
        try:
            return await task
        except (
            Exception
        ) as error:  # also what grpclib asserts when a connection is lost in the middle of a message
            if isinstance(error, TimeoutError):
                channel.doubt(began)
            raise translate(error, member.name) from error
        finally:
            task.cancel()

    async def _metadata(self, member: Member) -> dict[str, str]:
        async def authenticate(name: str, password: str) -> str:
            rpc = messages.load()
            answer = await self._exchange(
                member,
                "/etcdserverpb.Auth/Authenticate",
                rpc.AuthenticateRequest(name=name, password=password),
                rpc.AuthenticateResponse,
                Purpose.CALL,
                {},
                ATTEMPT_TIMEOUT,
            )
            return str(answer.token)

        return await self._login.metadata(authenticate)

    def _after(self, member: Member) -> Member:
        return self._all[(self._all.index(member) + 1) % len(self._all)]
