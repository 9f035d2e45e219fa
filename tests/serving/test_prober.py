"""The prober, against real sockets; its times are virtual."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from discoclient import ConfigError
from discoclient.serving.health import Health
from discoclient.serving.prober import Prober, probe_http, probe_tcp
from tests.support.ports import free_port
from tests.support.tls import Authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, **options: ssl.SSLContext) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(status: str, requests: list[bytes] | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if requests is not None:
            requests.append(request)
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: /\r\n\r\n".encode())
        await writer.drain()
        await reader.read()  # keep-alive: it is the caller who ends the connection

    return handle


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def trickling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"x-padding: 1\r\n" * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


class Verdicts:
    """Runs a prober on virtual time, and notes its verdicts and its pauses."""

    def __init__(self, outcomes: list[str | None], *, interval: float, probe_takes: float = 0.0) -> None:
        self.told: list[tuple[float, bool]] = []
        self.pauses: list[float] = []
        self._now = 0.0
        self._outcomes = outcomes
        self._takes = probe_takes
        self._health = Health(failures=2)
        self._prober = Prober(
            self._probe,
            self._health,
            interval=interval,
            on_change=lambda health: self.told.append((self._now, health.is_well)),
            clock=lambda: self._now,
            sleep=self._sleep,
        )

    async def run(self) -> None:
        with pytest.raises(StopAsyncIteration):
            await self._prober.run()

    async def _probe(self) -> str | None:
        if not self._outcomes:
            raise StopAsyncIteration
        self._now += self._takes
        return self._outcomes.pop(0)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._now += seconds


async def test_probes_come_every_interval_and_faster_until_the_first_good_one() -> None:
    run = Verdicts(["no", "no", None, None, "no", "no", None], interval=2.0)
    await run.run()
    assert run.pauses == [0.25, 0.25, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert run.told == [(0.5, True), (6.5, False), (8.5, True)]


async def test_a_short_interval_is_not_made_longer_at_the_start() -> None:
    run = Verdicts(["no", None, None], interval=0.125)
    await run.run()
    assert run.pauses == [0.125, 0.125, 0.125]


async def test_the_interval_counts_from_probe_to_probe_and_not_from_the_end_of_one() -> None:
    run = Verdicts([None, None], interval=2.0, probe_takes=0.5)
    await run.run()
    assert run.pauses == [1.5, 1.5]


async def test_a_probe_that_takes_longer_than_the_interval_is_followed_at_once() -> None:
    run = Verdicts([None, None], interval=2.0, probe_takes=3.0)
    await run.run()
    assert run.pauses == [0.0, 0.0]


@pytest.mark.parametrize("handler", [silent, trickling], ids=["silent", "trickling"])
async def test_a_probe_has_the_timeout_for_all_of_it(handler: Handler) -> None:
    """A server that sends a byte now and then never exceeds a timeout that counts from byte to byte."""
    health = Health()
    async with listening(handler) as port:
        prober = Prober(
            probe_http("http", "127.0.0.1", port, "/"), health, timeout=0.15, on_change=lambda health: None
        )
        running = asyncio.create_task(prober.run())
        async with asyncio.timeout(10):
            while health.problem == "it was not probed yet":
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
    assert health.problem == "no answer within 0.15 s"


async def test_a_longer_timeout_lets_a_slow_answer_count() -> None:
    """The control: the same kind of server, and patience."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await answering("200 OK")(reader, writer)

    well = asyncio.Event()
    async with listening(slow) as port:
        prober = Prober(
            probe_http("http", "127.0.0.1", port, "/"), Health(), timeout=20.0, on_change=lambda _: well.set()
        )
        running = asyncio.create_task(prober.run())
        async with asyncio.timeout(20):
            await well.wait()
        running.cancel()
        await asyncio.wait([running])


async def test_a_port_that_accepts_is_well_and_one_that_refuses_is_not() -> None:
    async with listening(silent) as port:
        assert await probe_tcp("127.0.0.1", port)() is None
    nobody = free_port()
    assert (
        await probe_tcp("127.0.0.1", nobody)() == f"no connection to 127.0.0.1:{nobody}: connection refused"
    )


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "299 Whatever"])
async def test_an_answer_of_the_200s_is_well(status: str) -> None:
    async with listening(answering(status)) as port:
        assert await probe_http("http", "127.0.0.1", port, "/healthz")() is None


@pytest.mark.parametrize("status", ["302 Found", "404 Not Found", "503 Service Unavailable"])
async def test_any_other_answer_is_not(status: str) -> None:
    async with listening(answering(status)) as port:
        problem = await probe_http("http", "127.0.0.1", port, "/healthz")()
    assert problem == f"GET http://127.0.0.1:{port}/healthz answered {status[:3]}"


async def test_nobody_there_and_no_http_are_problems_too() -> None:
    nobody = free_port()
    problem = await probe_http("http", "127.0.0.1", nobody, "/")()
    assert problem == f"GET http://127.0.0.1:{nobody}/ failed: connection refused"

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ready\r\n")
        await writer.drain()

    async with listening(garbage) as port:
        assert "failed" in (await probe_http("http", "127.0.0.1", port, "/")() or "")


async def test_every_probe_asks_for_its_path_on_a_connection_of_its_own() -> None:
    """A connection that is kept alive would outlive the listener, and say that all is well."""
    requests: list[bytes] = []
    async with listening(answering("200 OK", requests)) as port:
        probe = probe_http("http", "127.0.0.1", port, "/healthz?full=1")
        assert [await probe(), await probe()] == [None, None]
        assert [request.split(b"\r\n")[0] for request in requests] == [b"GET /healthz?full=1 HTTP/1.1"] * 2
    assert await probe() == f"GET http://127.0.0.1:{port}/healthz?full=1 failed: connection refused"


async def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with listening(answering("200 OK")) as port:
        assert await probe_http("http", "127.0.0.1", port, "/")() is None


async def test_a_certificate_of_any_name_will_do(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("somebody else", sans=["example.com"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    async with listening(answering("200 OK"), ssl=context) as port:
        assert await probe_http("https", "127.0.0.1", port, "/")() is None


def test_what_can_not_work_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="begins with '/'"):
        probe_http("http", "127.0.0.1", 80, "healthz")
    for name in ("interval", "timeout"):
        with pytest.raises(ConfigError, match=f"{name} must be a number of seconds, more than 0"):
            Prober(probe_tcp("127.0.0.1", 80), Health(), on_change=lambda health: None, **{name: 0})
