"""A TCP proxy that breaks connections in the ways that networks do, on command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from .ports import free_port

__all__ = ["FaultProxy"]

T = TypeVar("T")
Direction = Literal["both", "to_target", "to_client"]

_CHUNK = 64 * 1024
_QUEUED_CHUNKS = 64
_COMMAND_TIMEOUT = 10.0


class FaultProxy:
    """Forwards 127.0.0.1:``port`` to the target, until told otherwise. It runs in a thread of its own.

    A context manager; its methods may be called from any thread, and have taken effect when they return.
    Faults add up, and `heal` ends them all. ``port`` stays the same for the proxy's whole life, also while
    connections to it are refused.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._delay = 0.0
        self._slice, self._every = 0, 0.0
        self._accepted = 0
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        # Bound all the time and never listening: while we refuse connections the port is still nobody else's.
        self._holder = _hold_port()
        self.port: int = self._holder.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._gates = {"to_target": asyncio.Event(), "to_client": asyncio.Event()}
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections of clients are open now, held ones too."""
        return len(self._links)

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._accepted

    def blackhole(self, direction: Direction = "both") -> None:
        """Forward nothing any more, and close nothing: to both ends the other one is silent.

        New connections are accepted and get no answer. What is sent meanwhile arrives after `heal`, as TCP
        would have it.
        """
        self._run(self._do_blackhole(direction))

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._run(self._do_cut())

    def reset(self) -> None:
        """Reset all connections once. New ones are served."""
        self._run(self._do_reset())

    def delay(self, seconds: float) -> None:
        """Hand on everything *seconds* later, in each direction: an answer comes two times that later."""
        self._run(self._do_delay(seconds))

    def slice(self, size: int, *, every: float = 0.001) -> None:
        """Hand on at most *size* bytes *every* so many seconds, so that readers see messages in pieces.

        0: as they come. A reader that is slower than that finds several pieces in one.
        """
        self._run(self._do_slice(size, every))

    def heal(self) -> None:
        """Forward everything, at once, and accept connections."""
        self._run(self._do_heal())

    def close(self) -> None:
        """Reset all connections, and end. Can be called again."""
        if self._loop.is_closed():
            return
        self._run(self._do_close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    def _run(self, command: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(command, self._loop).result(_COMMAND_TIMEOUT)

    # From here on everything runs in the loop's thread.

    async def _do_blackhole(self, direction: Direction) -> None:
        for name, gate in self._gates.items():
            if direction in ("both", name):
                gate.clear()

    async def _do_delay(self, seconds: float) -> None:
        self._delay = seconds
        # Whoever waits wakes up and waits for the new time; the next ones wait for the next change.
        self._changed.set()
        self._changed = asyncio.Event()

    async def _do_slice(self, size: int, every: float) -> None:
        self._slice, self._every = size, every

    async def _do_heal(self) -> None:
        await self._do_delay(0.0)
        await self._do_slice(0, 0.0)
        for gate in self._gates.values():
            gate.set()
        if self._server is None:
            listener = _bind(self.port)
            self._server = await asyncio.start_server(self._serve, sock=listener, backlog=1024)

    async def _do_cut(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            # asyncio loses a connection whose server is closed between the accepting and the making of its transport.
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            server.close()
        await self._do_reset()

    async def _do_close(self) -> None:
        await self._do_cut()
        # What was accepted just before is no link yet: it is not welcome, and ends by itself.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await asyncio.sleep(0)

    async def _do_reset(self) -> None:
        tasks = [link.task for link in self._links]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait_delayed(self, since: float) -> None:
        """Until the present delay has passed since the loop's time *since*."""
        while (left := since + self._delay - self._loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._accepted += 1
        link = _Link(self, task)
        self._links.add(link)
        try:
            # A connection may have been accepted just before we stopped listening.
            await link.run(reader, writer, is_welcome=self._server is not None)
        except asyncio.CancelledError:
            pass  # cut
        finally:
            self._links.discard(link)


class _Link:
    """One client's connection, and the one to the target that belongs to it."""

    def __init__(self, proxy: FaultProxy, task: asyncio.Task[None]) -> None:
        self._proxy = proxy
        self.task = task

    async def run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_welcome: bool
    ) -> None:
        """Forward until both sides have ended, or one has failed; then both connections are closed."""
        ends = [writer]
        try:
            if not is_welcome:
                return
            for gate in self._proxy._gates.values():
                await gate.wait()
            target_reader, target_writer = await asyncio.open_connection(*self._proxy._target)
            ends.append(target_writer)
            for end in ends:
                end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, target_writer, "to_target"))
                group.create_task(self._forward(target_reader, writer, "to_client"))
            for end in ends:
                end.close()
                await end.wait_closed()
        except* OSError:
            pass
        finally:
            for end in ends:
                _reset(end)
            for end in ends:
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(_QUEUED_CHUNKS)

        async def read() -> None:
            data: bytes | OSError = b" "
            while data and not isinstance(data, OSError):
                try:
                    data = await reader.read(_CHUNK)
                except OSError as error:
                    data = error  # a reset travels like data does, and waits where that has to wait
                await queue.put((loop.time(), data))

        async def write() -> None:
            while True:
                since, data = await queue.get()
                await self._proxy.wait_delayed(since)
                await self._proxy._gates[name].wait()
                if isinstance(data, OSError):
                    raise data
                if not data:
                    writer.write_eof()
                    return
                await self._write(writer, data, name)

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            group.create_task(write())

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, name: str) -> None:
        position = 0
        while position < len(data):
            size = self._proxy._slice or len(data)
            writer.write(data[position : position + size])
            await writer.drain()
            position += size
            if self._proxy._slice:
                # Let the reader wake up in between, and let a fault come in the middle of a message.
                await asyncio.sleep(self._proxy._every)
                await self._proxy._gates[name].wait()


def _hold_port() -> socket.socket:
    for _ in range(10):
        with contextlib.suppress(OSError):  # somebody took it since
            return _bind(free_port())
    raise OSError("no free port could be bound")


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
    except BaseException:
        bound.close()
        raise
    return bound


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST, as a crashed machine or a firewall does, not with a FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
