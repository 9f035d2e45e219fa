"""A connection from a client: it reads requests, has each carried out in turn, and is the one place that writes answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import cast

from ..http.reading import Message, RequestReader
from ..http.refusal import Refused
from ..routing import Aim, Way
from .exchange import Exchange
from .gate import Gate
from .guidance import Guidance
from .refusing import refusal_head_and_body
from .services import Service
from .tunnel import TunnelEnd

__all__ = ["Client"]

logger = logging.getLogger("discoclient.sidecar")

MOST_WAITING = 16
"""Requests that a client may send ahead (pipelining) before it is not read any more."""
LONG = 16_384
"""Bytes from which on copying costs more than another piece in the kernel's list."""
MOST_HELD = 262_144
"""Bytes of a body that may wait for a connection to an instance."""
LINGER = 2.0
"""Seconds that we read on after a last answer, so that a client that is still sending gets it (RFC 9112, 9.6)."""


class Client(asyncio.Protocol):
    """``is_last``: the answer under way is the last one. ``touched``: when the client did something last."""

    __slots__ = (
        "_guidance",
        "_head_since",
        "_holds",
        "_is_lingering",
        "_message",
        "_opening",
        "_reader",
        "_refusal",
        "address",
        "exchange",
        "gate",
        "is_full",
        "is_last",
        "touched",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, gate: Gate, way: Way) -> None:
        self.gate = gate
        self._guidance = Guidance(way)
        self.exchange: Exchange | None = None
        self.is_full = False
        self.is_last = False
        self.touched = 0.0
        self._reader = RequestReader(gate.policy.limits)
        self._refusal: Refused | None = None  # to be given when the answer under way is complete
        self._opening: asyncio.Task[None] | None = None
        self._message: Message | None = None  # the one under way
        self._head_since = 0.0  # when the sweep found a part of a head
        self._holds = False
        self._is_lingering = False
        self.address = ""

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.touched = monotonic()
        name = transport.get_extra_info("peername")
        # What comes through a Unix socket comes from this machine.
        self.address = name[0] if isinstance(name, tuple) else "127.0.0.1"
        if not self.gate.enter(self):
            self.refuse(self.gate.full())

    def data_received(self, data: bytes) -> None:
        if self._is_lingering or self._refusal is not None:
            return
        self.touched = monotonic()
        reader, exchange = self._reader, self.exchange
        try:
            reader.feed(data)
        except Refused as refusal:
            self._refuse_reading(refusal)
            return
        if exchange is not None:
            if not exchange.is_sent and exchange.message.has_body:
                exchange.more()
        elif self._opening is None and reader.messages and not self.is_full:
            self._begin()
        if (reader.messages or not reader.is_between) and self._is_ahead():
            self.hold()

    def eof_received(self) -> None:
        """A client that closes its side does not wait for an answer: so nginx takes it, too."""

    def connection_lost(self, error: Exception | None) -> None:
        self.gate.leave(self)
        if self._opening is not None:
            self._opening.cancel()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()
            self.gate.log(self, exchange, 499)

    def pause_writing(self) -> None:
        self.is_full = True
        if self.exchange is not None:
            self.exchange.hold_instance()

    def resume_writing(self) -> None:
        self.is_full = False
        if self.exchange is not None:
            self.exchange.release_instance()
        else:
            self._next()  # who does not take the answers gets no more of them

    # ---- one request

    def _begin(self) -> None:
        message = self._message = self._reader.messages.popleft()
        self._head_since = 0.0
        try:
            aimed = self._guidance.aim(message)
        except Refused as refusal:
            self._answer(refusal, message)
            return
        service = self.gate.services.find(aimed.service)
        if service is None:
            self._opening = self.gate.loop.create_task(self._open(message, aimed))
        else:
            self._start(message, aimed, service)

    async def _open(self, message: Message, aimed: Aim) -> None:
        try:
            is_named = self._guidance.way.service is not None
            service = await self.gate.services.open(aimed.service, is_named=is_named)
        except Refused as refusal:
            self._opening = None
            if aimed.is_proxied and refusal.reason == "no_instances":
                text = f"this proxy forwards to registered services only, and {aimed.service!r} is none"
                refusal = Refused(403, "no_open_proxy", text)
            self._answer(refusal, message)
            return
        except Exception:
            logger.exception("service %r could not be opened", aimed.service)
            self._opening = None
            text = f"service {aimed.service!r} could not be opened; the sidecar's log says why"
            self._answer(Refused(500, "internal", text, is_final=True), message)
            return
        self._opening = None
        self._start(message, aimed, service)

    def _start(self, message: Message, aimed: Aim, service: Service) -> None:
        forwarded = self._guidance.forwarded(message, aimed.prefix, self.address)
        exchange = self.exchange = Exchange(self, message, aimed, service, forwarded)
        exchange.begin()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def write_all(self, parts: list[bytes | memoryview]) -> None:
        """Send *parts*, of which the last is the longest: short ones together, and long ones without a copy."""
        if len(parts) == 1:
            self.transport.write(parts[0])
        elif len(parts[-1]) > LONG:
            self.transport.writelines(parts)
        else:
            self.transport.write(b"".join(parts))

    def over(self, exchange: Exchange) -> None:
        """The exchange has given its answer."""
        gate = self.gate
        self.exchange = None
        if gate.has_log:
            gate.log(self, exchange, exchange.status)
        self._go_on(exchange.message, exchange.touched)

    def _go_on(self, message: Message, now: float) -> None:
        """What follows *message*, whose answer is given."""
        self.touched = now
        refusal, self._refusal = self._refusal, None
        if self.is_last or self.gate.is_draining or not message.is_persistent:
            # Nothing may follow a last answer, least of all one that only the connection's end ends.
            self._close(is_read=message.is_complete and not self._reader.messages and refusal is None)
        elif refusal is not None:
            self.refuse(refusal)
        else:
            reader = self._reader
            if reader.is_held:
                try:
                    reader.go_on()
                except Refused as malformed:
                    self._refuse_reading(malformed)
                    return
            if self._holds and not self._is_ahead():
                self.release()
            if reader.messages and not self.is_full:
                self.gate.loop.call_soon(self._next)

    def _next(self) -> None:
        if (
            self.exchange is None
            and self._opening is None
            and self._reader.messages
            and not self._is_lingering
            and not self.transport.is_closing()
        ):
            self._begin()

    def break_off(self, exchange: Exchange, error: Exception) -> None:
        """An answer that was begun can't be finished: the connection's end says so."""
        self.exchange = None
        self.gate.log(self, exchange, exchange.status, error=str(error) or type(error).__name__)
        self.transport.abort()

    def hand_over(self, exchange: Exchange, tunnel: Callable[[bytes], TunnelEnd]) -> None:
        """The connection is HTTP no more."""
        self.exchange = None
        self.gate.log(self, exchange, 101)
        self.gate.enter_tunnel(tunnel(self._reader.take_rest()))
        self.gate.leave(self)  # not before: somebody may wait until nobody is left

    # ---- answers in our own name

    def refuse(self, refusal: Refused, exchange: Exchange | None = None) -> None:
        """Answer *refusal*, for *exchange* if it came that far."""
        message = None
        if exchange is not None:
            self.exchange = None
            message = exchange.message
            exchange.refused(refusal)
            self.gate.log(self, exchange, refusal.status, error=refusal.reason)
        self._answer(refusal, message, exchange)

    def _answer(self, refusal: Refused, message: Message | None, exchange: Exchange | None = None) -> None:
        if exchange is None:
            self.gate.refused[refusal.reason] += 1
            self.gate.log_refusal(self, message, refusal)
        is_closing = (
            refusal.is_final
            or message is None
            or not message.is_complete
            or not message.is_persistent
            or self.is_last
            or self.gate.is_draining
        )
        self.write(
            refusal_head_and_body(
                refusal,
                exchange.service if exchange is not None else None,
                exchange.tried if exchange is not None else [],
                wants_json=message is not None and b"json" in message.fields.accept.lower(),
                is_head=message is not None and message.method == b"HEAD",
                is_closing=is_closing,
            )
        )
        if is_closing:
            self._close(is_read=False)
        elif message is not None:
            self._go_on(message, monotonic())

    def _refuse_reading(self, refusal: Refused) -> None:
        """What the client sends can't be understood, from some point on."""
        self._reader.messages.clear()
        exchange = self.exchange
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        elif exchange is not None:
            if exchange.message.is_complete:  # it is answered all the same
                self._refusal = refusal
                return
            self.exchange = None
            exchange.cancel()
            if exchange.status:  # the client has a part of an answer
                self.transport.abort()
                return
        self.refuse(refusal)

    # ---- time, and the end

    def sweep(self, now: float) -> None:
        """Now and then: whether something takes too long."""
        policy, exchange = self.gate.policy, self.exchange
        idle = now - self.touched
        if self._is_lingering:
            # A slow client may still be reading the answer.
            if idle > (policy.read_timeout if self.transport.get_write_buffer_size() else LINGER):
                self.transport.abort()
        elif exchange is not None:
            if now - exchange.touched > policy.read_timeout:
                exchange.expire()
            elif self._holds and self.gate.is_gone(self.transport):
                self.transport.abort()
        elif self._opening is not None:
            return
        elif self.transport.is_closing():  # once its last bytes are taken, and they may never be
            if idle > policy.read_timeout:
                self.transport.abort()
        elif not self._reader.is_between:
            self._head_since = self._head_since or now
            if now - self._head_since > policy.header_timeout:
                text = f"the request's head was not complete within {policy.header_timeout:g} s"
                self.refuse(Refused(408, "head_timeout", text, is_final=True))
        elif idle > (policy.drain_idle if self.gate.is_draining else policy.idle_timeout):
            self._close(is_read=True)

    def _close(self, *, is_read: bool) -> None:
        """*is_read*: nothing more can be on its way, so that nothing can be lost."""
        if is_read:
            self.transport.close()
            return
        self._is_lingering = True
        self.touched = monotonic()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()

    # ---- backpressure

    def _is_ahead(self) -> bool:
        """Whether as much waits as may: for a connection, for the service, or behind an answer."""
        reader = self._reader
        if reader.held > MOST_HELD or len(reader.messages) >= MOST_WAITING:
            return True
        waiting = sum(len(piece) for message in reader.messages for piece in message.pieces)
        if self._message is not None:
            waiting += sum(map(len, self._message.pieces))
        return waiting > MOST_HELD

    def hold(self) -> None:
        """Read no more for now."""
        if not self._holds:
            self._holds = True
            self.transport.pause_reading()

    def release(self) -> None:
        if self._holds and not self.transport.is_closing():
            self._holds = False
            self.transport.resume_reading()
