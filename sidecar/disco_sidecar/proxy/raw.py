"""Raw TCP: each connection goes to an instance of its own, chosen as a request's is."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import cast

from discoclient.calling.steps import Call, End, Send, Sleep
from discoclient.model.outcome import Outcome, OutcomeKind

from ..http.refusal import Refused
from .counts import Counts
from .gate import Gate
from .pool import open_stream
from .services import Service
from .tunnel import TunnelEnd, link, stay_alive

__all__ = ["RawClient"]

logger = logging.getLogger("discoclient.sidecar")

_CALL = Call(is_idempotent=False, is_replayable=False)
"""As long as there is no connection, nothing was sent: then any other instance may be tried."""


class RawClient(asyncio.Protocol):
    """A client of *service*, until there is an instance for it; from then on its connection is one end of a tunnel."""

    __slots__ = ("_carrying", "_early", "_gate", "_is_ended", "_service", "transport")

    transport: asyncio.Transport

    def __init__(self, gate: Gate, service: str) -> None:
        self._gate = gate
        self._service = service
        self._carrying: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        self._is_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        gate = self._gate
        gate.total += 1
        gate.enter_tunnel(self)
        stay_alive(self.transport)
        if len(gate.clients) + len(gate.tunnels) > gate.policy.max_connections:
            self._turn_away("too_many_connections", "too many connections")
            return
        self._carrying = gate.loop.create_task(self._carry())

    def data_received(self, data: bytes) -> None:
        self._early.append(data)
        self.transport.pause_reading()  # what fits into one read may wait here, the rest in the kernel

    def eof_received(self) -> bool:
        """It has said all, and may still want to hear."""
        self._is_ended = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._gate.leave_tunnel(self)
        if self._carrying is not None:
            self._carrying.cancel()

    async def _carry(self) -> None:
        gate, name = self._gate, self._service
        try:
            service = gate.services.find(name) or await gate.services.open(name, is_named=True)
        except Refused as refusal:
            self._turn_away(refusal.reason, refusal.text)
            return
        counts, began = service.counts, monotonic()
        counts.requests += 1
        counts.in_flight += 1
        near = TunnelEnd()
        near.transport = self.transport
        try:
            end, send = await self._find_instance(service, near)
        except BaseException:
            counts.in_flight -= 1
            raise
        self._carrying = None
        if send is None:
            counts.in_flight -= 1
            counts.failed += 1
            reason = "no_instances" if end is End.NO_INSTANCES else "no_answer"
            counts.reasons[reason] += 1
            self._turn_away(reason, f"no instance of service {name!r} could be connected to")
            return
        counts.tunnels += 1
        self._go_through(near, counts, send, began)

    def _go_through(self, near: TunnelEnd, counts: Counts, send: Send, began: float) -> None:
        gate = self._gate

        def over(end: TunnelEnd) -> None:
            gate.leave_tunnel(end)
            send.ticket.close()
            counts.in_flight -= 1
            counts.tunnels -= 1
            counts.answered(200, monotonic() - began)

        near.on_over = over
        gate.enter_tunnel(near)
        gate.leave_tunnel(self)  # not before: somebody may wait until nobody is left
        self.transport.set_protocol(near)
        for data in self._early:
            near.data_received(data)
        if self._is_ended:
            near.eof_received()
        if self.transport.is_closing():  # the instance has closed already
            near.connection_lost(None)
        elif not near.other.is_full:
            self.transport.resume_reading()

    async def _find_instance(self, service: Service, near: TunnelEnd) -> tuple[End, Send | None]:
        """Connect *near* to an instance: which one it is, if there is one, and by what decision."""
        flow = service.flow(_CALL)
        timeout, ca = service.route.settings.policies.retry.connect_timeout, self._gate.policy.ca
        send: Send | None = None
        far = TunnelEnd()
        try:
            step = next(flow)
            while True:
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                assert isinstance(step, Send)
                began, far = monotonic(), TunnelEnd()
                link(near, far)
                try:
                    await open_stream(step.endpoint, lambda: far, timeout=timeout, ca=ca)  # noqa: B023 - called at once
                except (OSError, ValueError) as error:  # ValueError: a host's name that can't be one
                    outcome = Outcome(OutcomeKind.NOT_SENT, monotonic() - began, error=type(error).__name__)
                else:
                    send = step
                    outcome = Outcome(OutcomeKind.RESPONSE, monotonic() - began)
                    stay_alive(far.transport)
                step = flow.send(outcome)
        except StopIteration as stop:
            return stop.value, send
        except BaseException:  # the client is gone
            flow.close()
            if hasattr(far, "transport"):
                far.transport.abort()
            raise

    def _turn_away(self, reason: str, text: str) -> None:
        self._gate.refused[reason] += 1
        logger.info("a connection for service %r is turned away: %s", self._service, text)
        self.transport.abort()
