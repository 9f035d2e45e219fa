"""One request's way to an instance and back. Where to, and what follows a failure, is decided by discoclient's flow of a call.

No task and no future is made for it, unless a connection has to: what arrives on either side calls in here.

Until the first byte of an answer is given to the client, an attempt may be followed by another. A body of a known length up to
`Policy.replay` bytes is kept for that.
"""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import TYPE_CHECKING

from discoclient.calling.steps import Call, End, Send, Sleep
from discoclient.model.outcome import Outcome, OutcomeKind

from ..http.heads import answer_head, request_head
from ..http.reading import Message
from ..http.refusal import Refused
from ..routing import Aim
from .connection import Connection
from .pool import Pool, open_stream
from .refusing import refusal_of
from .services import Service
from .tunnel import TunnelEnd, join

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Exchange"]

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110, 9.2.2."""


class Exchange:
    """Begun by a `Client`, which is told how it ends: by `Client.over`, `Client.refuse` or `Client.hand_over`."""

    __slots__ = (
        "_attempt_began",
        "_began",
        "_call",
        "_connecting",
        "_connection",
        "_flow",
        "_forwarded",
        "_is_committed",
        "_is_rechunked",
        "_is_sent",
        "_is_warm",
        "_kept",
        "_pool",
        "_send",
        "_timer",
        "aim",
        "client",
        "message",
        "service",
        "status",
        "touched",
        "tried",
    )

    def __init__(
        self, client: Client, message: Message, aim: Aim, service: Service, forwarded: bytes
    ) -> None:
        fields, now = message.fields, monotonic()
        self.client = client
        self.message = message
        self.aim = aim
        self.service = service
        self.status = 0
        self.touched = now
        """When a byte moved last, in either direction."""
        self.tried: list[str] = []
        """Each attempt that failed, in a line."""
        self._forwarded = forwarded
        self._began = now
        self._attempt_began = now
        length = sum(map(len, message.pieces)) if fields.is_chunked else fields.length or 0
        is_replayable = length <= client.gate.policy.replay and (not fields.is_chunked or message.is_complete)
        self._kept: list[bytes] | None = [] if is_replayable else None
        if fields.deadline is None and fields.attempt == 1:
            self._call = _CALLS[message.method in IDEMPOTENT, is_replayable]
        else:
            self._call = Call(
                message.method in IDEMPOTENT,
                is_replayable,
                retries=0 if fields.attempt > 1 else None,  # one layer retries
                deadline=None if fields.deadline is None else now + fields.deadline / 1000,
            )
        self._flow = service.flow(self._call)
        self._send: Send | None = None
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pool: Pool | None = None
        self._is_warm = False
        self._is_sent = False  # the whole request
        self._is_committed = False  # to this answer
        self._is_rechunked = False
        counts = service.counts
        counts.requests += 1
        counts.in_flight += 1

    def begin(self) -> None:
        if self._call.deadline is not None:
            loop = self.client.gate.loop
            self._timer = loop.call_later(self._call.deadline - monotonic(), self._expire)
        try:
            step = next(self._flow)
        except StopIteration as stop:
            self._end(stop.value)
        else:
            assert isinstance(step, Send)
            self._attempt(step)

    # ---- what to do next

    def _decide(self, outcome: Outcome | None) -> None:
        try:
            step = self._flow.send(outcome)
        except StopIteration as stop:
            self._end(stop.value)
            return
        self._drop_answer()
        if isinstance(step, Send):
            self._attempt(step)
        elif isinstance(step, Sleep):
            self.client.gate.loop.call_later(step.seconds, self._wake)

    def _wake(self) -> None:
        if self.client.exchange is self:
            self._decide(None)

    def _attempt(self, send: Send) -> None:
        now = self._attempt_began = self.touched = monotonic()
        self._send = send
        pool = self._pool = self.service.pool(send.endpoint)
        connection = None if send.is_fresh else pool.take(now)
        if connection is not None:
            self._is_warm = True
            self._use(connection)
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
            self._fail(OutcomeKind.NOT_SENT, error)
            return
        self._connecting = None
        self._use(connection)

    def _use(self, connection: Connection) -> None:
        message, send = self.message, self._send
        assert send is not None
        connection.exchange = self
        connection.answer.expect(is_head=message.method == b"HEAD")
        self._connection = connection
        self._is_sent = False
        deadline = self._call.deadline
        head = request_head(
            message,
            target=self.aim.target,
            host=self.aim.host,
            forwarded=self._forwarded,
            expectation=send.endpoint.expectation,
            attempt=send.number,
            deadline=None if deadline is None else max(0, int((deadline - monotonic()) * 1000)),
        )
        if not message.has_body:
            self._is_sent = True
            connection.transport.write(head)
            return
        kept = self._kept
        if kept:
            message.pieces[:0] = kept
            kept.clear()
        self._write_body(connection, [head])

    def more(self) -> None:
        """More of the request's body is here."""
        connection = self._connection
        self.touched = monotonic()
        if connection is not None and not self._is_sent:
            self._write_body(connection, [])

    def _write_body(self, connection: Connection, out: list[bytes]) -> None:
        message = self.message
        pieces = message.pieces
        if pieces:
            if self._kept is not None:
                self._kept += pieces
            for piece in pieces:
                self.service.counts.received += len(piece)
                if message.fields.is_chunked:
                    out += (b"%x\r\n" % len(piece), piece, b"\r\n")
                else:
                    out.append(piece)
            message.pieces = []
        if message.is_complete:
            self._is_sent = True
            if message.fields.is_chunked:
                out.append(b"0\r\n%b\r\n" % message.trailers)
        if out:
            connection.transport.write(b"".join(out))

    # ---- what the instance says

    def answered(self) -> None:
        """More of the answer is here, and was understood."""
        connection, now = self._connection, monotonic()
        assert connection is not None
        answer = connection.answer
        self.touched = now
        if answer.interim:
            if self.message.minor:
                self.client.write(b"".join(answer.interim))
            answer.interim.clear()
        if not self._is_committed:
            if answer.status:
                self._decide(self._outcome(connection, now))
            return
        self._pass_on(connection, [])

    def _outcome(self, connection: Connection, now: float) -> Outcome:
        answer, send = connection.answer, self._send
        assert send is not None
        status, kind, retry_after = answer.status, OutcomeKind.RESPONSE, None
        if status == 429 or status == 503:
            retry_after = _seconds(answer.retry_after)
        elif status == 421:
            endpoint = send.endpoint
            said = answer.instance.decode("ascii", "replace")
            if endpoint.expectation is not None and said and said != endpoint.id:
                kind = OutcomeKind.MISDIRECTED
        return Outcome(kind, now - self._attempt_began, status, self._is_warm, retry_after)

    def failed(self, error: Exception) -> None:
        """The instance closed, or said what can't be understood, or nothing for too long."""
        connection = self._connection
        assert connection is not None
        if not connection.is_lost:
            connection.close()
        connection.exchange = None
        if self._is_committed:
            self._connection = None
            self._break_off(error)
            return
        is_stale = self._is_warm and not connection.answer.is_begun and isinstance(error, ConnectionError)
        self._connection = None
        self._fail(OutcomeKind.STALE if is_stale else OutcomeKind.NO_ANSWER, error)

    def _fail(self, kind: OutcomeKind, error: Exception) -> None:
        now, send = monotonic(), self._send
        assert send is not None
        name = type(error).__name__
        self.tried.append(f"{send.endpoint.id} ({send.endpoint.instance.address}): {error or name}")
        self._decide(Outcome(kind, now - self._attempt_began, is_warm=self._is_warm, error=name))

    # ---- how it ends

    def _end(self, end: End) -> None:
        connection = self._connection
        if end is not End.DELIVER or connection is None:
            self._drop_answer()
            self.client.refuse(refusal_of(end, self.service, self.tried), self)
            return
        self._is_committed = True
        answer, message, send = connection.answer, self.message, self._send
        assert send is not None
        self.status = answer.status
        if answer.is_upgraded:
            self._upgrade(connection)
            return
        if answer.length is None and message.method != b"HEAD" and answer.status not in (204, 304):
            if message.minor:
                self._is_rechunked = True
            else:  # only the connection's end can tell where the body ends
                self.client.is_last = True
        if not message.is_complete:
            self.client.is_last = True
        head = answer_head(
            answer,
            is_chunked=self._is_rechunked,
            is_closing=self.client.is_last or self.client.gate.is_draining or not message.is_persistent,
            is_old=not message.minor,
            instance=send.endpoint.id.encode(),
            attempts=send.number,
        )
        if self.client.is_full:
            connection.transport.pause_reading()
        self._pass_on(connection, [head])

    def _pass_on(self, connection: Connection, out: list[bytes]) -> None:
        answer = connection.answer
        pieces = answer.pieces
        if pieces:
            counts = self.service.counts
            for piece in pieces:
                counts.sent += len(piece)
                if self._is_rechunked:
                    out += (b"%x\r\n" % len(piece), piece, b"\r\n")
                else:
                    out.append(piece)
            pieces.clear()
        if answer.is_complete:
            if self._is_rechunked:
                out += (b"0\r\n", *answer.trailers, b"\r\n")
            self.client.write(b"".join(out))
            self._finish(connection)
        elif out:
            self.client.write(out[0] if len(out) == 1 else b"".join(out))

    def _finish(self, connection: Connection) -> None:
        self._leave()
        connection.exchange = None
        self._connection = None
        if self._is_sent and connection.answer.is_persistent and not connection.is_lost:
            connection.is_used = True
            if self.client.is_full:  # it was held for this client
                connection.transport.resume_reading()
            assert self._pool is not None
            self._pool.give(connection, self.touched)
        else:
            connection.close()
        counts = self.service.counts
        counts.answered(self.status, self.touched - self._began)
        self.client.over(self)

    def _upgrade(self, connection: Connection) -> None:
        """From here on it is bytes, and whose they are is none of our business."""
        answer, send, counts = connection.answer, self._send, self.service.counts
        assert send is not None
        head = answer_head(
            answer,
            is_chunked=False,
            is_closing=False,
            is_old=False,
            instance=send.endpoint.id.encode(),
            attempts=send.number,
        )
        connection.exchange = None
        self._connection = None
        client, began, ticket = self.client, self._began, send.ticket
        counts.tunnels += 1

        def over(end: TunnelEnd) -> None:
            client.gate.leave_tunnel(end)
            ticket.close()
            counts.in_flight -= 1
            counts.tunnels -= 1
            counts.answered(101, monotonic() - began)

        if self._timer is not None:
            self._timer.cancel()
        client.write(head)
        client.hand_over(
            self, lambda behind: join(client, connection, over, first=answer.rest, behind=behind)
        )

    def cancel(self) -> None:
        """The client is gone, or can't be understood any more."""
        self._flow.close()
        if self._connecting is not None:
            self._connecting.cancel()
        self._drop_answer()
        self._leave()
        self.service.counts.reasons["client_gone"] += 1

    def refused(self, refusal: Refused) -> None:
        """For the client: it answers in our name."""
        self._leave()
        self.status = refusal.status
        counts = self.service.counts
        counts.failed += 1
        counts.reasons[refusal.reason] += 1
        counts.answered(refusal.status, monotonic() - self._began)

    def expire(self) -> None:
        """Nothing moved for too long."""
        if self._connection is None:  # connecting and waiting have limits of their own
            return
        if not self._is_committed and not self.message.is_complete:  # it is the client who keeps us waiting
            self._flow.close()
            self._drop_answer()
            text = "the request's body did not arrive in time"
            self.client.refuse(Refused(408, "body_timeout", text, is_final=True), self)
            return
        self.failed(TimeoutError("no answer within the read timeout"))

    @property
    def seconds(self) -> float:
        return monotonic() - self._began

    @property
    def answered_by(self) -> tuple[str, int]:
        """The id of the instance that was asked last, and the number of attempts."""
        return (self._send.endpoint.id, self._send.number) if self._send is not None else ("", 0)

    def _break_off(self, error: Exception) -> None:
        """An answer that the client has the beginning of ends here."""
        self._leave()
        counts = self.service.counts
        counts.failed += 1
        counts.reasons["broken_off"] += 1
        counts.answered(self.status, monotonic() - self._began)
        self.client.break_off(self, error)

    def _expire(self) -> None:
        """The caller won't wait any longer."""
        if self.client.exchange is not self or self._is_committed:
            return
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.close()
        if self._send is not None:
            self._fail(OutcomeKind.EXPIRED, TimeoutError("the caller's deadline has passed"))

    def _drop_answer(self) -> None:
        """What was answered is not the client's: another attempt follows, or nobody is there any more."""
        connection, send = self._connection, self._send
        if connection is not None:
            self._connection = None
            is_done = connection.answer.is_complete and self._is_sent and connection.answer.is_persistent
            connection.exchange = None
            if is_done and self._pool is not None and not connection.is_lost:
                connection.is_used = True
                self._pool.give(connection, monotonic())
            else:
                connection.close()
        if send is not None:
            send.ticket.close()

    def _leave(self) -> None:
        if self._send is not None:
            self._send.ticket.close()
        if self._timer is not None:
            self._timer.cancel()
        self.service.counts.in_flight -= 1

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
            self._connection.transport.pause_reading()

    def release_instance(self) -> None:
        self.touched = monotonic()
        if self._connection is not None:
            self._connection.transport.resume_reading()


_CALLS = {
    (is_idempotent, is_replayable): Call(is_idempotent, is_replayable)
    for is_idempotent in (False, True)
    for is_replayable in (False, True)
}


def _seconds(retry_after: bytes) -> float | None:
    """``Retry-After`` in seconds from now, as a number or as a date (RFC 9110, 10.2.3)."""
    if not retry_after:
        return None
    if retry_after.isdigit():
        return float(retry_after[:10])
    try:
        return max(0.0, parsedate_to_datetime(retry_after.decode("ascii", "replace")).timestamp() - time())
    except (ValueError, OverflowError):
        return None
