"""One request's way to an instance and back. Where to, and what follows a failure, is decided by discoclient's flow of a call.

No task and no future is made for it, unless a connection has to: what arrives on either side calls in here. Until the first
byte of an answer is given to the client, an attempt may be followed by another.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from discoclient.calling.flow import CallFlow
from discoclient.calling.steps import End, Send, Sleep
from discoclient.model.outcome import Outcome, OutcomeKind

from ..http.answer import opening_of
from ..http.heads import answer_head, signature
from ..http.reading import Message
from ..http.refusal import Refused
from ..routing import Aim
from .calls import outcome_of
from .carrier import Carrier
from .connection import Connection
from .refusing import refusal_of
from .services import Service
from .tunnel import TunnelEnd, join

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Exchange"]


class Exchange(Carrier):
    """Begun by a `Client`, which is told how it ends: by `over`, `refuse`, `break_off` or `hand_over`.

    ``status``: of the answer that the client gets; 0 while there is none.
    """

    # Of the class, until there is something else to say: what nearly no request needs is not written for each.
    status = 0
    _flow: CallFlow | None = None  # from the moment on that more than one attempt may be needed
    _timer: asyncio.TimerHandle | None = None
    _is_committed = False  # to the answer that is here
    _is_rechunked = False

    def __init__(
        self, client: Client, message: Message, aim: Aim, service: Service, forwarded: bytes
    ) -> None:
        super().__init__(client, message, aim, service, forwarded)
        counts = service.counts
        counts.requests += 1
        counts.in_flight += 1

    def begin(self) -> None:
        call = self._call
        if call.deadline is not None:
            wait = call.deadline - self._began
            self._timer = self.client.gate.loop.call_later(wait, self._expire)
        send = self.service.caller.begin(call, self._began)
        if isinstance(send, End):
            self._end(send)
        else:
            self._attempt(send)

    # ---- what to do next

    def _decide(self, outcome: Outcome | None) -> None:
        flow = self._flow
        try:
            if flow is None:
                send = self._send
                assert send is not None
                flow = self._flow = self.service.caller.flow(self._call, send)
                next(flow)
            step = flow.send(outcome)
        except StopIteration as stop:
            self._end(stop.value)
            return
        self._drop_attempt()
        if isinstance(step, Send):
            self._attempt(step)
        elif isinstance(step, Sleep):
            self._send = None
            self.client.gate.loop.call_later(step.seconds, self._wake)

    def _wake(self) -> None:
        if self.client.exchange is self:
            self._decide(None)

    # ---- what the instance says

    def answered(self) -> None:
        """More of the answer is here, and was understood."""
        connection = self._connection
        assert connection is not None
        answer = connection.answer
        now = self.touched = monotonic()
        if answer.interim:
            if self.message.minor:
                self.client.write(b"".join([opening_of(head) + b"\r\n" for head in answer.interim]))
            answer.interim.clear()
        if self._is_committed:
            self._pass_on(connection, [])
        elif answer.status:
            assert self._send is not None
            send, latency, is_warm = self._send, now - self._attempt_began, self._is_warm
            if self._flow is None and self.service.caller.is_done(
                send, answer.status, latency, now, is_warm=is_warm
            ):
                self._deliver()
            else:
                self._decide(outcome_of(answer, send, latency, is_warm=is_warm))

    def failed(self, error: Exception) -> None:
        """The instance closed, or said what can't be understood, or nothing for too long."""
        connection, self._connection = self._connection, None
        assert connection is not None
        connection.serve(None)
        if not connection.is_lost:
            connection.close()
        if self._is_committed:
            self._break_off(error)
            return
        is_stale = self._is_warm and not connection.answer.is_begun and isinstance(error, ConnectionError)
        self.fail(OutcomeKind.STALE if is_stale else OutcomeKind.NO_ANSWER, error)

    def fail(self, kind: OutcomeKind, error: Exception) -> None:
        now, send = monotonic(), self._send
        assert send is not None
        name = type(error).__name__
        self.touched = now
        line = f"{send.endpoint.id} ({send.endpoint.instance.address}): {str(error) or name}"
        self.tried = [*self.tried, line]
        self._decide(Outcome(kind, now - self._attempt_began, is_warm=self._is_warm, error=name))

    # ---- how it ends

    def _end(self, end: End) -> None:
        if end is End.DELIVER and self._connection is not None:
            self._deliver()
            return
        self._drop_attempt()
        self.client.refuse(refusal_of(end, self.service, self.tried), self)

    def _deliver(self) -> None:
        """The answer that is here is the client's."""
        connection, message, send, client = self._connection, self.message, self._send, self.client
        assert connection is not None
        assert send is not None
        answer = connection.answer
        self._is_committed = True
        self.status = answer.status
        if answer.length is None and message.method != b"HEAD" and answer.status not in (101, 204, 304):
            if message.minor:
                self._is_rechunked = True
            else:  # only the connection's end can tell where the body ends
                client.is_last = True
        if not message.is_complete:
            client.is_last = True
        pool, is_closing = self._pool, client.is_last or client.gate.is_draining or not message.is_persistent
        assert pool is not None
        tail = pool.signature if send.number == 1 else signature(send.endpoint.id.encode(), send.number)
        head = answer_head(
            answer,
            is_chunked=self._is_rechunked,
            is_closing=is_closing,
            is_old=not message.minor,
            signature=tail,
        )
        if answer.is_switched:
            self._upgrade(connection, send, head)
            return
        if client.is_full:
            connection.hold()
        self._pass_on(connection, [head])

    def _pass_on(self, connection: Connection, out: list[bytes | memoryview]) -> None:
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
                out += (b"0\r\n", *answer.passed_trailers, b"\r\n")
            if out:
                self.client.write_all(out)
            self._give_back()
            self._leave(self.status)
            self.client.over(self)
        elif out:
            self.client.write_all(out)

    def _upgrade(self, connection: Connection, send: Send, head: bytes) -> None:
        """From here on it is bytes, and what they mean is none of our business."""
        client, counts = self.client, self.service.counts
        connection.serve(None)
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()
        counts.tunnels += 1

        def over(end: TunnelEnd) -> None:
            client.gate.leave_tunnel(end)
            send.ticket.close()
            counts.in_flight -= 1
            counts.tunnels -= 1
            counts.answered(101, monotonic() - self._began)

        client.write(head)
        rest = connection.answer.rest
        client.hand_over(self, lambda behind: join(client, connection, over, first=rest, behind=behind))

    def cancel(self) -> None:
        """The client is gone, or can't be understood any more."""
        self._stop()
        self._leave(None)
        self.service.counts.reasons["client_gone"] += 1

    def refused(self, refusal: Refused) -> None:
        """For the client: it answers in our name."""
        self.status = refusal.status
        counts = self.service.counts
        counts.failed += 1
        counts.reasons[refusal.reason] += 1
        self._leave(refusal.status)

    def expire(self) -> None:
        """Nothing moved for too long."""
        if self._connection is None:  # connecting and waiting have limits of their own
            return
        if not self._is_committed and not self.message.is_complete and not self._connection.is_full:
            # It is the client who keeps us waiting.
            self._stop()
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
        return (
            (self._send.endpoint.id, self._send.number) if self._send is not None else ("", len(self.tried))
        )

    def _break_off(self, error: Exception) -> None:
        """An answer that the client has the beginning of ends here."""
        counts = self.service.counts
        counts.failed += 1
        counts.reasons["broken_off"] += 1
        self._leave(self.status)
        self.client.break_off(self, error)

    def _expire(self) -> None:
        """The caller won't wait any longer."""
        if self.client.exchange is not self or self._is_committed:
            return
        if self._send is None:  # it waits for the next attempt
            self._stop()
            self.client.refuse(refusal_of(End.EXPIRED, self.service, self.tried), self)
            return
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self.fail(OutcomeKind.EXPIRED, TimeoutError("the caller's deadline has passed"))

    def _stop(self) -> None:
        """Whatever is under way for it."""
        if self._flow is not None:
            self._flow.close()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._drop_attempt()

    def _leave(self, status: int | None) -> None:
        """Once, whatever happened: it is in flight no more. *status*: of the answer, if there was one."""
        if self._send is not None:
            self._send.ticket.close()
        if self._timer is not None:
            self._timer.cancel()
        counts = self.service.counts
        counts.in_flight -= 1
        if status is not None:
            counts.answered(status, self.touched - self._began)
