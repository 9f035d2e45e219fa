"""One watch of etcd: a task of its own reads the stream, and nothing of grpclib's cancelling reaches the reader."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Self

from grpclib.client import StreamStreamMethod

from ...model.errors import RegistryDenied, RegistryError, RegistryUnavailable, RevisionCompacted
from .errors import TokenRefused, translate
from .member import Purpose
from .members import ATTEMPT_TIMEOUT, Lane, Members

__all__ = ["WatchPump"]


class WatchPump:
    """Opens a watch at the member that watches use now, and hands over its responses. An async context manager.

    A watch that ends, for whatever reason, moves the next one to another member: away from one that failed or stalled, and
    over time evenly over all of them.
    """

    def __init__(self, members: Members, rpc: Any, create: Any) -> None:
        self._members = members
        self._rpc = rpc
        self._create = create
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        self._lane = members.lanes[Lane.WATCH]
        self._is_opening = False
        self._is_open = False

    async def __aenter__(self) -> Self:
        await self._lane.acquire()
        try:
            self._member, self._channel, self._metadata = await self._members.begin(Purpose.WATCH)
        except BaseException:
            self._lane.release()
            raise
        self._is_opening = True
        self._began = monotonic()
        self._task = asyncio.ensure_future(self._pump())
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._opened()
        self._members.leave(Purpose.WATCH, self._member)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def receive(self) -> Any:
        """The next response that says something: the created one first, then events and progress. Raises when it ends."""
        try:
            async with asyncio.timeout(None if self._is_open else ATTEMPT_TIMEOUT):
                response = await self._arrived.get()
        except TimeoutError:
            self._channel.doubt(self._began)
            raise RegistryUnavailable(f"etcd {self._member.name}: the watch did not open in time") from None
        if isinstance(response, RegistryError):
            raise response
        self._is_open = True
        self._opened()
        return response

    def _opened(self) -> None:
        """Somebody else may open a watch: ours stands, or does not."""
        if self._is_opening:
            self._is_opening = False
            self._lane.release()

    async def _pump(self) -> None:
        try:
            method = StreamStreamMethod[Any, Any](
                self._channel, "/etcdserverpb.Watch/Watch", self._rpc.WatchRequest, self._rpc.WatchResponse
            )
            async with method.open(metadata=self._metadata) as stream:
                await stream.send_message(self._rpc.WatchRequest(create_request=self._create))
                while (response := await stream.recv_message()) is not None:
                    ending = self._ending(response)
                    if isinstance(ending, RegistryDenied) and await self._may_read():
                        ending = TokenRefused(str(ending))
                    self._arrived.put_nowait(ending or response)
                    if ending is not None:
                        return
            error: RegistryError = RegistryUnavailable(f"etcd {self._member.name} ended the watch")
        except RegistryError as caught:
            error = caught
        except (
            Exception
        ) as caught:  # whatever it is: a watch that ends in silence would freeze its reader's world
            error = translate(caught, self._member.name)
            if isinstance(error, TokenRefused):
                self._members.forget_token(self._metadata)
        self._arrived.put_nowait(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._member.release(Purpose.WATCH, self._channel)
        # Behind whatever it had to say. For a task that was cancelled, by whomever, this is the only word.
        self._arrived.put_nowait(RegistryUnavailable(f"etcd {self._member.name}: the watch ended"))

    async def _may_read(self) -> bool:
        """Whether it was the token that was denied, and is renewed by now: a watch with an expired one, and nothing else,
        lacks permission to many versions (etcd issue 12385).
        """
        watched = self._create
        request = self._rpc.RangeRequest(
            key=watched.key, range_end=watched.range_end, limit=1, keys_only=True, serializable=True
        )
        try:
            await self._members.ask(self._member, "/etcdserverpb.KV/Range", request, self._rpc.RangeResponse)
        except RegistryError:
            return False
        return True

    def _ending(self, response: Any) -> RegistryError | None:
        """Why etcd ends this watch with *response*, if it does. A refused watch is created and cancelled in one."""
        if response.compact_revision:
            return RevisionCompacted(
                f"the history up to revision {response.compact_revision} is compacted",
                oldest=response.compact_revision,
            )
        if not response.canceled:
            return None
        reason = response.cancel_reason or "no reason given"
        text = f"etcd {self._member.name} cancelled the watch: {reason}"
        if "token" in reason:
            self._members.forget_token(self._metadata)
            return TokenRefused(text)
        return (
            RegistryDenied(text) if "permission" in reason or "auth" in reason else RegistryUnavailable(text)
        )
