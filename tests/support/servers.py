"""HTTP/1.1 servers on the loopback that behave, well or badly, as a test tells them, and count what reaches them."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

__all__ = [
    "Behaviour",
    "Exchange",
    "HttpServer",
    "Seen",
    "Servers",
    "answer",
    "answer_before_the_body",
    "begin_and_wait",
    "blackhole",
    "break_off",
    "break_off_head",
    "close_unanswered",
    "echo",
    "hold",
    "in_turn",
    "never",
    "redirect",
    "refused_port",
    "reset_unanswered",
    "sip",
    "stream",
    "trickle",
    "trickle_head",
]

T = TypeVar("T")

_COMMAND_TIMEOUT = 10.0
_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """A request whose head has arrived. ``headers``: lower-case names; ``connection``: 1 for the server's first one."""

    method: str
    target: str
    headers: Mapping[str, str]
    connection: int


class Exchange:
    """One request at a server, and what can be done about it."""

    def __init__(
        self, server: HttpServer, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.seen = seen
        self._reader = reader
        self._writer = writer
        self._parts = self._read_body()

    async def parts(self) -> AsyncIterator[bytes]:
        """The request's body as it arrives."""
        async for part in self._parts:
            yield part

    async def body(self) -> bytes:
        return b"".join([part async for part in self._parts])

    async def reply(
        self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """A whole answer, and the connection stays."""
        await self.begin(status, {"content-length": str(len(body)), **(headers or {})})
        if self.seen.method != "HEAD":
            await self.write(body)

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Only the head of an answer."""
        lines = [f"HTTP/1.1 {status} Whatever", "Connection: keep-alive", f"X-Server: {self.server.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self.write("\r\n".join([*lines, "", ""]).encode())

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """End the connection, as a server that exits does."""
        self._writer.close()

    def say_no_more(self) -> None:
        """End this side of the connection, and leave the caller's open."""
        self._writer.write_eof()

    def reset(self) -> None:
        """End it with a TCP reset, as a machine that lost its memory does."""
        _set_linger(self._writer.get_extra_info("socket"))
        self._writer.transport.abort()

    @property
    def is_alone(self) -> bool:
        """Whether the caller has gone away."""
        return self._reader.at_eof() or self._reader.exception() is not None

    async def wait_for_end(self) -> None:
        """Until the caller has gone away."""
        while await self._reader.read(65536):
            pass

    async def wait_until(self, is_so: Callable[[], bool]) -> bool:
        """Until *is_so*, or the caller has gone away; whether it came to that. For when the whole request was read."""
        while not is_so():
            if self.is_alone:
                return False
            await asyncio.sleep(0.002)
        return True

    async def _read_body(self) -> AsyncIterator[bytes]:
        left = int(self.seen.headers.get("content-length", "0"))
        while left:
            part = await self._reader.read(min(left, 65536))
            if not part:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(part)
            yield part
        if self.seen.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                yield (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readuntil(b"\r\n")


Behaviour: TypeAlias = Callable[[Exchange], Awaitable[None]]


@dataclass(eq=False)
class HttpServer:
    """One server. ``behaviour`` may be changed at any time; the counts may be read from any thread. See `Servers.start`."""

    behaviour: Behaviour
    tls: ssl.SSLContext | None = None
    keepalive: float | None = None
    is_mute: bool = False
    receive_buffer: int | None = None
    port: int = 0
    accepted: int = 0
    """How many connections there were."""
    most_open: int = 0
    """How many connections were open at once, at most."""
    seen: list[Seen] = field(default_factory=list)
    """Every request, in the order of arrival."""
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    """The connections that are open now, as far as the server has noticed."""
    _listener: asyncio.Server | None = None
    _is_killed: bool = False

    @property
    def requests(self) -> int:
        return len(self.seen)

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self.open)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"

    async def listen(self) -> None:
        self._is_killed = False
        self._listener = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=None if self.is_mute else self.tls, limit=_LIMIT
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        if self.receive_buffer is not None:
            self._listener.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)

    async def stop_listening(self) -> None:
        """New connections are refused; those that are there go on."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        for listening in listener.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        # What was accepted just now must find the listener there: asyncio forgets it otherwise, open.
        for _ in range(3):
            await asyncio.sleep(0)
        listener.close()

    async def kill(self) -> None:
        """As SIGKILL does it: nobody listens, and every connection is reset."""
        await self.stop_listening()
        self._is_killed = True
        for writer in list(self.open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_killed:  # it had been accepted, and nobody had begun to serve it
            _reset(writer)
            return
        self.accepted += 1
        number = self.accepted
        self.open.add(writer)
        self.most_open = max(self.most_open, len(self.open))
        try:
            if self.is_mute:
                while await reader.read(65536):
                    pass
                return
            is_first = True
            while True:
                async with asyncio.timeout(None if is_first else self.keepalive):
                    head = await reader.readuntil(b"\r\n\r\n")
                is_first = False
                exchange = Exchange(self, _parse(head, number), reader, writer)
                self.seen.append(exchange.seen)
                await self.behaviour(exchange)
                if writer.is_closing():
                    return
                await exchange.body()
        except (OSError, EOFError, TimeoutError):  # the caller has gone, or it was idle for too long
            return
        except asyncio.CancelledError:  # `Servers` ends; this is the task's outermost frame
            return
        finally:
            self.open.discard(writer)
            writer.close()


class Servers:
    """Starts servers, all on one loop in a thread of its own. A context manager; safe to use from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-servers", daemon=True)
        self._servers: list[HttpServer] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(
        self,
        behaviour: Behaviour | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        keepalive: float | None = None,
        is_mute: bool = False,
        receive_buffer: int | None = None,
        port: int = 0,
    ) -> HttpServer:
        """A server that listens when this returns. It answers with its own port unless told otherwise.

        ``keepalive``: seconds after which it closes an idle connection; default: never. ``is_mute``: it accepts connections and
        says nothing, not even in TLS. ``receive_buffer``: bytes that the kernel takes for a connection before the server reads
        them; default: megabytes.
        """
        server = HttpServer(
            behaviour or answer(),
            tls=tls,
            keepalive=keepalive,
            is_mute=is_mute,
            receive_buffer=receive_buffer,
            port=port,
        )
        self.run(server.listen())
        self._servers.append(server)
        return server

    def several(self, count: int, behaviour: Behaviour | None = None, **options: Any) -> list[HttpServer]:
        return [self.start(behaviour, **options) for _ in range(count)]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something of a server on the servers' loop: ``servers.run(server.kill())``."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_COMMAND_TIMEOUT)

    async def _close(self) -> None:
        for server in self._servers:
            await server.kill()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):  # what was aborted is closed in the loop's next turns
            await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    _set_linger(writer.get_extra_info("socket"))
    writer.transport.abort()


# ---- behaviours


def answer(
    body: bytes | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Behaviour:
    """*body* (default: the server's port), after *delay* seconds."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        if delay:
            await asyncio.sleep(delay)
        text = str(exchange.server.port).encode() if body is None else body
        await exchange.reply(status, text, headers)

    return behave


def close_unanswered() -> Behaviour:
    """Read the request, and close the connection."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        exchange.close()

    return behave


def reset_unanswered() -> Behaviour:
    """Read the request, and reset the connection."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        exchange.reset()

    return behave


def never() -> Behaviour:
    """Read the request, and say nothing for as long as the caller waits."""

    async def behave(exchange: Exchange) -> None:
        await exchange.wait_for_end()
        exchange.close()

    return behave


def stream(
    parts: Iterable[bytes], *, pause: float = 0.0, wait: Callable[[], bool] | None = None
) -> Behaviour:
    """A chunked answer, with *pause* seconds before each part but the first, and before the end until *wait* is true.

    When the caller goes away meanwhile the connection is closed.
    """

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.begin(200, {"transfer-encoding": "chunked"})
        for number, part in enumerate(parts):
            if number and pause:
                await asyncio.sleep(pause)
            await exchange.write(b"%x\r\n%b\r\n" % (len(part), part))
        while wait is not None and not wait():
            await asyncio.sleep(0.005)
            if exchange.is_alone:
                exchange.close()
                return
        await exchange.write(b"0\r\n\r\n")

    return behave


def break_off(body: bytes = b"half of it") -> Behaviour:
    """Promise a long body, send *body*, and close the connection."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.begin(200, {"content-length": str(len(body) + 1000)})
        await exchange.write(body)
        exchange.close()

    return behave


def break_off_head() -> Behaviour:
    """Send the first bytes of an answer, and close the connection."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.write(b"HTTP/1.1 20")
        exchange.close()

    return behave


def hold(is_over: Callable[[], bool], then: Behaviour | None = None) -> Behaviour:
    """Read the request, and answer it (or do what *then* does) when *is_over*; close the connection if the caller goes."""
    behaviour = then or answer()

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        if await exchange.wait_until(is_over):
            await behaviour(exchange)
        else:
            exchange.close()

    return behave


def begin_and_wait(
    status: int, *, length: int, part: bytes = b"", is_over: Callable[[], bool] = lambda: False
) -> Behaviour:
    """Send a head that promises *length* bytes, and *part* of them; send the others when *is_over*."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.begin(status, {"content-length": str(length)})
        await exchange.write(part)
        if await exchange.wait_until(is_over):
            await exchange.write(bytes(length - len(part)))
        else:
            exchange.close()

    return behave


def trickle(status: int = 200, *, pause: float = 0.01) -> Behaviour:
    """A chunked answer without an end, a byte every *pause* seconds, for as long as the caller listens."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.begin(status, {"transfer-encoding": "chunked"})
        while not exchange.is_alone:
            await exchange.write(b"1\r\n.\r\n")
            await asyncio.sleep(pause)
        exchange.close()

    return behave


def trickle_head(*, pause: float = 0.01) -> Behaviour:
    """An answer whose head never ends, a byte every *pause* seconds, for as long as the caller listens."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not exchange.is_alone:
            await exchange.write(b".")
            await asyncio.sleep(pause)
        exchange.close()

    return behave


def sip(swallowed: Callable[[int], object], *, pause: float = 0.01, size: int = 65536) -> Behaviour:
    """Read the request's body in sips of *size* bytes, one every *pause* seconds, and tell *swallowed* of each; then answer."""

    async def behave(exchange: Exchange) -> None:
        async for part in exchange.parts():
            swallowed(len(part))
            await asyncio.sleep(pause * len(part) / size)
        await exchange.reply(200)

    return behave


def echo() -> Behaviour:
    """The request's body, as it came."""

    async def behave(exchange: Exchange) -> None:
        await exchange.reply(200, await exchange.body())

    return behave


def answer_before_the_body(status: int = 413) -> Behaviour:
    """Answer as soon as the head is there, and read the body then."""

    async def behave(exchange: Exchange) -> None:
        await exchange.reply(status, b"enough")

    return behave


def redirect(location: str, *, status: int = 302, path: str = "/") -> Behaviour:
    """Send a request for *path* on to *location*; answer all others with the server's port and their path."""

    async def behave(exchange: Exchange) -> None:
        await exchange.body()
        if exchange.seen.target == path:
            await exchange.reply(status, b"", {"location": location})
        else:
            await exchange.reply(200, f"{exchange.server.port} {exchange.seen.target}".encode())

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """The first request gets the first behaviour, and so on; the last one stays."""
    left = list(behaviours)

    async def behave(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return behave


# ---- addresses where no server is


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port where every connection is refused, and that nobody else can take meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port where connecting gets no answer at all: a listener that does not accept, its queue full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            if not select.select([], [filler], [], 0.2)[1]:
                break
        yield listener.getsockname()[1]


def _set_linger(sock: Any) -> None:
    """Make the next close a reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _parse(head: bytes, connection: int) -> Seen:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines if line)
    return Seen(method, target, {name.lower(): value.strip() for name, _, value in pairs}, connection)
