"""Carries one request to one instance after the other: connects, writes the head, and the body as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from discoclient.calling.steps import Send
from discoclient.model.outcome import OutcomeKind

from ..http.heads import request_head
from ..http.reading import Message
from ..routing import Aim
from .calls import call_of
from .connection import Connection
from .pool import Pool, open_stream
from .services import Service

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Carrier"]


class Carrier:
    """What an `Exchange` is built on, which decides where to, and what follows.

    ``touched``: when a byte moved last, in either direction. ``tried``: each attempt that failed, in a line.
    ``is_sent``: whether the whole request is, in this attempt.
    """

    # Of the class, until there is something else to say: what most requests never need is not written for each.
    tried: Sequence[str] = ()
    _send: Send | None = None
    _pool: Pool | None = None
    _connection: Connection | None = None
    _connecting: asyncio.Task[None] | None = None
    _kept: list[bytes] | None = None
    _is_warm = False
    is_sent = False
    """Whether the instance has the whole request."""

    def __init__(
        self, client: Client, message: Message, aim: Aim, service: Service, forwarded: bytes
    ) -> None:
        now = monotonic()
        self.client = client
        self.message = message
        self.aim = aim
        self.service = service
        self.touched = self._began = self._attempt_began = now
        self._forwarded = forwarded
        self._call = call_of(message, client.gate.policy.replay, now)
        if message.has_body and self._call.is_replayable:
            self._kept = []

    def fail(self, kind: OutcomeKind, error: Exception) -> None:
        """The attempt ended without an answer."""
        raise NotImplementedError

    def answered(self) -> None:
        """More of the answer is here, and was understood."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """The instance closed, or said what can't be understood, or nothing for too long."""
        raise NotImplementedError

    def more(self) -> None:
        """More of the request may be here."""
        connection = self._connection
        self.touched = monotonic()
        if connection is not None and not self.is_sent:
            self._write_body(connection, [])

    def _attempt(self, send: Send) -> None:
        now = self._attempt_began = self.touched = send.began
        self._send = send
        pool = self._pool = self.service.pool(send.endpoint)
        connection = None if send.is_fresh else pool.take(now, is_careful=not self._call.is_idempotent)
        if connection is not None:
            self._is_warm = True
            self._use(connection, send)
            return
        self._is_warm = False
        self._connecting = self.client.gate.loop.create_task(self._connect(send))

    async def _connect(self, send: Send) -> None:
        policy, timeout = self.client.gate.policy, self.service.route.settings.policies.retry.connect_timeout
        connection = Connection()
        try:
            await open_stream(send.endpoint, lambda: connection, timeout=timeout, ca=policy.ca)
        except asyncio.CancelledError:
            if hasattr(connection, "transport"):
                connection.close()
            raise
        except (OSError, ValueError) as error:  # ValueError: a host's name that can't be one
            self._connecting = None
            self.fail(OutcomeKind.NOT_SENT, error)
            return
        self._connecting = None
        if connection.is_lost or connection.transport.is_closing():
            # Gone again, or at least no HTTP: nobody tells us of its end a second time.
            connection.close()
            self.fail(OutcomeKind.NOT_SENT, ConnectionResetError("closed as soon as it was made"))
            return
        self._use(connection, send)

    def _use(self, connection: Connection, send: Send) -> None:
        message, deadline = self.message, self._call.deadline
        connection.serve(self)
        connection.answer.expect(is_head=message.method == b"HEAD", may_switch=message.wants_tunnel)
        self._connection = connection
        aim, pool = self.aim, self._pool
        assert pool is not None
        left = None if deadline is None else max(0, int((deadline - monotonic()) * 1000))
        head = request_head(message, aim.target, aim.host, self._forwarded, pool.greeting, send.number, left)
        if not message.has_body:
            self.is_sent = True
            connection.transport.write(head)
            return
        self.is_sent = False
        kept = self._kept
        if kept:
            message.pieces[:0] = kept
            kept.clear()
        self._write_body(connection, [head])
        if not connection.is_full:  # it was held while there was no connection, or by another one
            self.client.release()

    def _write_body(self, connection: Connection, out: list[bytes]) -> None:
        message = self.message
        pieces, is_chunked = message.pieces, message.fields.is_chunked
        if pieces:
            if self._kept is not None:
                self._kept += pieces
            for piece in pieces:
                self.service.counts.received += len(piece)
                if is_chunked:
                    out += (b"%x\r\n" % len(piece), piece, b"\r\n")
                else:
                    out.append(piece)
            message.pieces = []
        if message.is_complete:
            self.is_sent = True
            if is_chunked:
                out.append(b"0\r\n%b\r\n" % message.trailers)
        if out:
            connection.transport.write(b"".join(out))

    def _give_back(self) -> None:
        """The connection can be used again if all was said on both sides; else it is closed."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.serve(None)
        answer = connection.answer
        if (
            answer.is_complete
            and answer.is_persistent
            and self.is_sent
            and not connection.is_full  # with what it has not read of the request
            and not connection.is_lost
        ):
            connection.is_used = True
            if connection.is_held:  # for a client that was slow
                connection.release()
            assert self._pool is not None
            self._pool.give(connection, self.touched)
        else:
            connection.close()

    def _drop_attempt(self) -> None:
        """What was answered, if anything was, is not the client's."""
        self._give_back()
        if self._send is not None:
            self._send.ticket.close()

    # ---- backpressure

    def hold_client(self) -> None:
        """The instance takes no more for now."""
        self.client.hold()

    def release_client(self) -> None:
        self.touched = monotonic()
        self.client.release()

    def hold_instance(self) -> None:
        """The client takes no more for now."""
        if self._connection is not None:
            self._connection.hold()

    def release_instance(self) -> None:
        self.touched = monotonic()
        if self._connection is not None:
            self._connection.release()
