"""What a client made of a play, and what the server heard: taken down so that two clients can be compared."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from tests.client.shells import Face

from .engines import OURS, THEIRS, Side, Way
from .origin import Origin
from .plays import AFTER

__all__ = ["Answer", "Ask", "Observed", "ask", "both", "error_of", "is_right", "observe", "told"]

IDLE = 0.4
"""Seconds: half of what we keep an idle connection, with some room, to an instance that does not say how long it does. On a
machine that was slower than this between two requests nothing can be said of their connection."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. ``content``: given whether it is sync, what `httpx` takes as ``content=``; ``more``: other keywords of
    ``build_request``. ``is_whole``: whether the client reads the body itself, as ``get`` does, or hands out its raw parts."""

    method: str = "GET"
    path: str = "/case"
    content: Callable[[bool], Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    is_whole: bool = True

    def build(self, client: Face) -> httpx.Request:
        more = dict(self.more)
        if self.content is not None:
            more["content"] = self.content(client.is_sync)
        request: httpx.Request = client.raw.build_request(self.method, self.path, **more)
        return request


@dataclass(frozen=True, slots=True)
class Answer:
    """``error``: httpx's class, by name; ``body``: what of it was handed out, even if an error came then."""

    error: str = ""
    status: int = 0
    reason: bytes = b""
    version: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    downloaded: int = 0
    detail: str = field(default="", compare=False)
    """The error's message, for whoever reads of a difference."""


@dataclass(frozen=True, slots=True)
class Observed:
    answer: Answer
    after: Answer
    """What came of a plain GET that followed."""
    is_same: bool
    """Whether that went over the same connection."""
    heard: tuple[bytes, ...]
    """The requests that the server got, but for what must differ."""


def error_of(error: BaseException) -> str:
    """The class that httpx has for it; ours are below those. What is not httpx's keeps its own name."""
    for kind in type(error).__mro__:
        if kind.__module__.partition(".")[0] == "httpx":
            return kind.__name__
    return type(error).__name__


async def ask(client: Face, what: Ask) -> Answer:
    """The request, to its end."""
    answer = Answer()
    response = None
    try:
        request = what.build(client)
        response = await client.send(request, stream=not what.is_whole)
        answer = replace(
            answer,
            status=response.status_code,
            reason=response.extensions["reason_phrase"],
            version=response.extensions["http_version"],
            headers=tuple(response.headers.raw),
        )
        if what.is_whole:
            answer = replace(answer, body=response.content)
        else:
            async for part in client.parts(response):
                answer = replace(answer, body=answer.body + part)
    except Exception as error:
        answer = replace(answer, error=error_of(error), detail=f"{type(error).__name__}: {error}")
    if response is not None:
        answer = replace(answer, downloaded=response.num_bytes_downloaded)
        await client.close_response(response)
    return answer


async def observe(
    side: Side, way: Way, origin: Origin, what: Ask, *, client: Face | None = None, **options: Any
) -> Observed:
    """The request and another one after it, with a fresh client unless one is given; *options* are the client's."""
    if client is None:
        async with side.client(way, origin.port, **options) as fresh:
            return await observe(side, way, origin, what, client=fresh)
    seen, took = await _observe(way, origin, what, client)
    for _ in range(4):
        if took < IDLE:
            break
        seen, took = await _observe(way, origin, what, client)
    return seen


async def _observe(way: Way, origin: Origin, what: Ask, client: Face) -> tuple[Observed, float]:
    """And how many seconds there were between the two."""
    origin.forget()
    answer = await ask(client, what)
    ended = time.monotonic()
    has_come = _has_come(origin, answer)
    await way.until(lambda: origin.is_settled and has_come(), what="the server has done its part")
    took = time.monotonic() - ended
    before = origin.order[-1:]
    client.raw.cookies.clear()  # what was set is httpx's affair, and it can't send back all that it takes
    after = await ask(client, Ask(path="/after"))
    seen = Observed(
        answer=answer,
        after=replace(after, headers=(), detail=""),
        is_same=bool(before) and origin.order[-1:] == before,
        heard=tuple(told(request) for request in origin.requests),
    )
    return seen, took


def both(way: Way, origin: Origin, what: Ask, **options: Any) -> tuple[Observed, Observed]:
    """What came of it with ours, and with httpx's own."""

    async def case() -> tuple[Observed, Observed]:
        ours = await observe(OURS, way, origin, what, **options)
        return ours, await observe(THEIRS, way, origin, what, **options)

    return way.run(case)


def _has_come(origin: Origin, answer: Answer) -> Callable[[], bool]:
    """An answer may be there before the server has so much as read the request. An error may mean that none was sent."""
    return lambda: bool(answer.error or origin.order)


def _small(found: re.Match[bytes]) -> bytes:
    return found[1] + found[2].lower()


def told(request: bytes) -> bytes:
    """A request as it came, without our own headers, and with a name in ``Host`` that both have."""
    head, end, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"x-disco-")]
    lines = [re.sub(rb"(?i)^(host:\s*).*", rb"\1<host>", line) for line in lines]
    # h11 writes this one value anew, in small letters
    lines = [re.sub(rb"(?i)^(transfer-encoding:)(.*)", _small, line) for line in lines]
    return b"\r\n".join(lines) + end + body


def is_right(answer: Answer) -> bool:
    """Whether it is the answer to what was asked after."""
    return (answer.error, answer.status, answer.body) == ("", 200, AFTER)
