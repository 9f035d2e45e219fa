"""A stage for the data path: transports, a loop and a service, all made up, so that every event comes when a test says so.

The transports keep to what uvloop's do: a write after ``write_eof`` or after the end is an error, ``pause_writing`` comes only
if the bytes do not fit into the socket, and what is paused is not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from random import Random
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

from disco_sidecar.proxy import carrier as carrier_module
from disco_sidecar.proxy import raw as raw_module
from disco_sidecar.proxy.client import Client
from disco_sidecar.proxy.connection import Connection
from disco_sidecar.proxy.counts import Counts
from disco_sidecar.proxy.gate import Gate, Policy
from disco_sidecar.proxy.pool import Pools
from disco_sidecar.proxy.raw import RawClient
from disco_sidecar.proxy.services import Service
from disco_sidecar.routing import Way
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.preferences import Preferences
from discoclient.balancing.view import build_view
from discoclient.calling.flow import Caller
from discoclient.calling.ledger import Ledger, Policies
from discoclient.model.instance import Instance
from discoclient.model.snapshot import Snapshot

__all__ = ["Attempt", "Loop", "Stage", "Task", "Transport", "answer", "paused", "request"]

HIGH_WATER = 65536


class Transport(asyncio.Transport):
    """``room``: bytes that the socket takes before anything waits here."""

    def __init__(self, *, room: int = 1 << 40, peer: Any = ("127.0.0.1", 50000)) -> None:
        super().__init__()
        self.protocol: Any = None
        self.sent = bytearray()
        self.room = room
        self.peer = peer
        self.waiting = 0
        self.is_eof = False
        self.is_closed = False
        self.is_aborted = False
        self.is_over = False
        self.is_paused = False
        self.has_ended = False
        self._is_full = False

    def begin(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    # what the code under test calls

    def write(self, data: Any) -> None:
        if self.is_over:
            raise RuntimeError("the handle is closed")
        if self.is_eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.is_aborted:
            return
        self.sent += data
        taken = min(self.room, len(data)) if not self.waiting else 0
        self.room -= taken
        self.waiting += len(data) - taken
        if self.waiting > HIGH_WATER and not self._is_full:
            self._is_full = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        if self.is_over:
            raise RuntimeError("the handle is closed")
        self.is_eof = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        if not self.is_closing():
            self.is_paused = True

    def resume_reading(self) -> None:
        if not self.is_closing():
            self.is_paused = False

    def is_reading(self) -> bool:
        return not self.is_paused

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.peer if name == "peername" else default

    # what the other end, or the kernel, does

    def say(self, data: bytes) -> None:
        assert not self.is_paused, "it is not read"
        assert not self.is_closing(), "it is closing"
        self.protocol.data_received(data)

    def drain(self) -> None:
        """The other end has read all."""
        self.waiting = 0
        if self._is_full:
            self._is_full = False
            self.protocol.resume_writing()

    def end(self) -> None:
        """The other end has closed its side."""
        assert not self.is_paused, "it is not read"
        self.has_ended = True
        if not self.protocol.eof_received():
            self.close()

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        self.is_closed = self.is_over = True
        self.protocol.connection_lost(error)

    def settle(self) -> None:
        """What a loop does next with a transport that was closed."""
        if not self.is_over and (self.is_aborted or (self.is_closed and not self.waiting)):
            self.lose()

    def take(self) -> bytes:
        """What was sent since the last time."""
        sent = bytes(self.sent)
        self.sent.clear()
        return sent


class Task:
    current: Task | None = None

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self.work = work
        self.is_done = False
        self.step(None)

    def step(self, error: BaseException | None) -> None:
        Task.current = self
        try:
            if error is None:
                self.work.send(None)
            else:
                self.work.throw(error)
        except (StopIteration, asyncio.CancelledError):
            self.is_done = True

    def cancel(self) -> None:
        if not self.is_done:
            self.step(asyncio.CancelledError())


class Timer:
    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds = seconds
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.timers: list[Timer] = []
        self.tasks: list[Task] = []

    def create_task(self, work: Coroutine[Any, Any, None]) -> Task:
        task = Task(work)
        self.tasks.append(task)
        return task

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self.soon.append(lambda: call(*arguments))

    call_soon_threadsafe = call_soon

    def call_later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(seconds, lambda: call(*arguments))
        self.timers.append(timer)
        return timer

    def is_closed(self) -> bool:
        return False

    def run(self) -> None:
        while self.soon:
            self.soon.pop(0)()

    def ring(self) -> None:
        """All timers are due."""
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.is_cancelled:
                timer.call()


class _Wait:
    def __await__(self) -> Generator[Any, None, None]:
        yield


class Attempt:
    """A connection that is being made to an instance."""

    def __init__(self, endpoint: Endpoint, make: Callable[[], asyncio.Protocol], task: Task | None) -> None:
        self.endpoint = endpoint
        self.make = make
        self.error: Exception | None = None
        self.transport: Transport | None = None
        self.task = task

    def meet(self, transport: Transport | None = None) -> Transport:
        """The connection is there, but whoever waits for it does not know yet."""
        self.transport = transport or Transport()
        self.transport.begin(self.make())
        return self.transport

    def succeed(self, transport: Transport | None = None) -> Transport:
        met = self.meet(transport)
        self.wake()
        return met

    def fail(self, error: Exception | None = None) -> None:
        self.error = error or ConnectionRefusedError("refused")
        self.wake()

    def wake(self) -> None:
        assert self.task is not None
        self.task.step(None)


class Stage:
    """One service, ``web``, with *instances* instances, and clients."""

    def __init__(
        self, monkeypatch: Any, *, instances: int = 2, policy: Policy | None = None, **policies: Any
    ) -> None:
        self.loop = Loop()
        now = monotonic()
        made = [
            Instance(service="web", id=f"web-{number}", host=f"10.0.0.{number}", port=8000)
            for number in range(instances)
        ]
        self.endpoints = {instance.id: Endpoint(instance, now=now) for instance in made}
        snapshot = Snapshot("web", 1, {instance.id: instance for instance in made})
        rng = Random(1)
        view = build_view(snapshot, self.endpoints, Preferences(), rng, now)
        self.ledger = Ledger("web", Policies(**policies))
        self.counts = Counts()
        self.pools = Pools(cast("Any", self.loop))
        caller = Caller(lambda: view, self.ledger, emit=lambda event: None, clock=monotonic, rng=rng)
        resolver = SimpleNamespace(age=lambda: 0.0, phase="live", snapshot=snapshot)
        settings = SimpleNamespace(policies=self.ledger.policies)
        route = SimpleNamespace(
            caller=caller, flow=caller.flow, wire=self.pools, resolver=resolver, settings=settings
        )
        self.service = Service("web", cast("Any", route), self.counts)
        self.found: dict[str, Service] = {"web": self.service}
        self.opened = False
        services = SimpleNamespace(find=self.found.get, open=self._open, sweep=self.pools.sweep)
        self.gate = Gate(cast("Any", services), policy or Policy(), loop=cast("Any", self.loop))
        self.attempts: list[Attempt] = []
        monkeypatch.setattr(carrier_module, "open_stream", self._open_stream)
        monkeypatch.setattr(raw_module, "open_stream", self._open_stream)
        monkeypatch.setattr(Connection, "has_news", lambda connection: False, raising=False)

    async def _open(self, name: str, *, is_named: bool = False) -> Service:
        await _Wait()
        return self.service

    async def _open_stream(
        self, endpoint: Endpoint, make: Any, *, timeout: float, ca: str | None = None
    ) -> None:
        attempt = Attempt(endpoint, make, Task.current)
        self.attempts.append(attempt)
        await _Wait()
        if attempt.error is not None:
            raise attempt.error

    def client(self, way: Way | None = None, transport: Transport | None = None) -> tuple[Client, Transport]:
        client, transport = Client(self.gate, way or Way()), transport or Transport()
        transport.begin(client)
        return client, transport

    def raw(self, transport: Transport | None = None) -> tuple[RawClient, Transport]:
        client, transport = RawClient(self.gate, "web"), transport or Transport()
        transport.begin(client)
        return client, transport

    def attempt(self) -> Attempt:
        """The newest."""
        self.loop.run()
        return self.attempts[-1]

    def warm(self, room: int = 1 << 40) -> Transport:
        """Give each endpoint one idle connection, and the one of the first instance back."""
        first: Transport | None = None
        for endpoint in self.endpoints.values():
            transport, connection = Transport(room=room), Connection()
            transport.begin(connection)
            connection.is_used = True
            self.pools.pool(endpoint).give(connection, monotonic())
            first = first or transport
        assert first is not None
        return first

    @property
    def in_flight(self) -> tuple[int, int]:
        """As it is counted here, and by the endpoints. Never negative."""
        return self.counts.in_flight, sum(endpoint.in_flight for endpoint in self.endpoints.values())


def request(
    method: str = "GET", target: str = "/web/x", *lines: str, version: str = "1.1", body: bytes = b""
) -> bytes:
    """A request to ``web``, from a client on this machine."""
    head = [f"{method} {target} HTTP/{version}", "Host: localhost", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def answer(status: str = "200 OK", *lines: str, body: bytes = b"", length: bool = True) -> bytes:
    head = [f"HTTP/1.1 {status}", *lines, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def paused(transport: Transport) -> bool:
    """Whether it is not read for now."""
    return transport.is_paused
