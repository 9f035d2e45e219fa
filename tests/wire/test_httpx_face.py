"""What httpx does above its transport goes on as ever: cookies, authentication, redirects, hooks."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx
import pytest

from .engines import OURS, THEIRS, Side, Way
from .observing import told
from .origin import Origin, origin
from .plays import Play, response, whole

DIGEST = b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=MD5, opaque="o"'


def moved(status: bytes, location: bytes, *headers: bytes) -> Play:
    return whole(response(b"moved", b"Location: " + location, *headers, status=status))


class Twice(httpx.Auth):
    """Asks, and then asks again with what it was told; it wants the body of both."""

    requires_response_body = True

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        answer = yield request
        request.headers["X-Told"] = answer.text
        yield request


async def everything(client: Any, case: str, is_sync: bool) -> list[Any]:
    async def do(method: str, path: str, **more: Any) -> httpx.Response:
        done = client.request(method, path, **more)
        return done if is_sync else await done  # type: ignore[no-any-return]

    found: list[Any] = []

    def note(answer: httpx.Response) -> None:
        history = [(each.status_code, each.url.path) for each in answer.history]
        found.append(
            (answer.status_code, answer.content, answer.url.path, history, sorted(client.cookies.items()))
        )

    try:
        match case:
            case "cookies":
                note(await do("GET", "/set"))
                note(await do("GET", "/plain"))
                note(await do("GET", "/unset"))
                note(await do("GET", "/plain"))
            case "basic":
                note(await do("GET", "/plain", auth=("user", "p:ss")))
            case "digest":
                note(await do("GET", "/digest", auth=httpx.DigestAuth("user", "pass")))
            case "twice":
                note(await do("POST", "/plain", auth=Twice(), content=b"body"))
            case _:
                method, _, path = case.partition(" ")
                body = {"content": b"body"} if method in ("POST", "PUT") else {}
                note(await do(method, path, follow_redirects=True, **body))
    except httpx.HTTPError as error:
        found.append(type(error).__name__)
    return found


PLAYS = {
    "set": whole(
        response(
            b"", b"Set-Cookie: a=1; Path=/", b"Set-Cookie: b=2", b"Set-Cookie: c=3; Domain=other.example"
        )
    ),
    "unset": whole(response(b"", b"Set-Cookie: a=; Max-Age=0; Path=/")),
    "plain": whole(response(b"plain")),
    "digest": whole(response(b"", DIGEST, status=b"401 Unauthorized")),
    **{f"r{status}": moved(b"%d Moved" % status, b"/plain") for status in (301, 302, 303, 307, 308)},
    "r300": moved(b"300 Choices", b"/plain"),
    "rcookie": moved(b"302 Found", b"/plain", b"Set-Cookie: on=way; Path=/"),
    "rloop": moved(b"302 Found", b"/rloop"),
    "rquery": moved(b"302 Found", b"?x=y"),
    "rumlaut": moved(b"302 Found", b"/pl\xc3\xa4in/plain"),
    "rempty": moved(b"302 Found", b""),
    "rbad": moved(b"302 Found", b"http://[bad/"),
    "rnone": whole(response(b"", status=b"302 Found")),
}
CASES = ["cookies", "basic", "digest", "twice"]
CASES += [
    f"{method} /r{status}" for method in ("GET", "POST", "HEAD") for status in (300, 301, 302, 303, 307, 308)
]
CASES += [f"GET /{name}" for name in ("rcookie", "rloop", "rquery", "rumlaut", "rempty", "rbad", "rnone")]


@pytest.mark.parametrize("case", CASES)
def test_httpx_goes_on_as_ever(way: Way, case: str) -> None:
    async def seen(side: Side, server: Origin) -> tuple[list[Any], list[bytes], list[int]]:
        async with side.client(way, server.port) as client:
            if "HEAD" in case:
                for name, play in PLAYS.items():
                    server.plays[name] = whole(
                        *(act.partition(b"moved")[0] if isinstance(act, bytes) else act for act in play.acts)
                    )
                server.plays["plain"] = whole(response(b""))
            found = await everything(client.raw, case, way.is_sync)
            return found, [_without_chance(told(request)) for request in server.requests], list(server.order)

    with origin(PLAYS) as server:
        ours = way.run(lambda: seen(OURS, server))
    with origin(PLAYS) as server:
        theirs = way.run(lambda: seen(THEIRS, server))
    assert ours == theirs


def _without_chance(request: bytes) -> bytes:
    """Without what differs from one digest to the next."""
    return b"\r\n".join(line.partition(b" Digest ")[0] for line in request.split(b"\r\n"))
