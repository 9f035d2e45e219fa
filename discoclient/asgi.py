"""For ASGI applications: `DiscoMiddleware` refuses requests that are meant for another instance, and says who answers.

::

    app = DiscoMiddleware(app, registration=registration)  # what discoclient.register() returned
    app = DiscoMiddleware(app, registration=lambda: registration)  # registered later: None until then
    app = DiscoMiddleware(app)  # its name is in $DISCO_SERVICE and $DISCO_INSTANCE

It is ASGI 3, needs no framework, and runs on asyncio and on trio. Starlette and FastAPI take it too:
``app.add_middleware(DiscoMiddleware, registration=...)``.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from .serving.identity import EXPECT_HEADER, INSTANCE_HEADER, MISDIRECTED, Identities, Source

__all__ = ["DiscoMiddleware"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_EXPECT = EXPECT_HEADER.lower().encode()
_INSTANCE = INSTANCE_HEADER.lower().encode()
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_CAN_DENY = "websocket.http.response"
_POLICY_VIOLATION = 1008
"""RFC 6455, 7.4.1. Before the handshake is accepted, a server makes a 403 of any code."""


class DiscoMiddleware:
    """Answers 421 with ``X-Disco-Instance`` if ``X-Disco-Expect`` names somebody else; *app* does not see that request.

    All other requests are *app*'s, and their responses get ``X-Disco-Instance``, in place of one that *app* set (and a 421 of
    *app*'s own gets none: with it, callers would take the request for not executed). It counts the requests
    in flight, which a drain waits for; while that lasts, responses say ``Connection: close``. While this process does not
    know who it is, everything passes as it is. Websockets are refused the same way; by a server without the extension
    ``websocket.http.response``, with a 403. Lifespan is passed through.

    One registration goes with one listening socket. Workers that share a socket share its registration (one made before
    the fork); if each made its own, they would refuse each other's requests.

    Args:
        app: the application.
        registration: what `discoclient.register` or `aregister` returned, or a function that returns it, and None while
            there is none; or a list of these, where one application serves several services.
        service, instance: the name of the service and the instance's id, instead of a registration.

    Without any of them, ``$DISCO_SERVICE`` and ``$DISCO_INSTANCE`` are read when the middleware is made; without those, it
    knows nobody and does nothing.

    Raises:
        ConfigError: half a pair, both forms at once, no valid name, or nothing that has an instance.
    """

    def __init__(
        self,
        app: Application,
        *,
        registration: Source | None = None,
        service: str | None = None,
        instance: str | None = None,
    ) -> None:
        self.app = app
        self._identities = Identities(
            registration=registration, service=service, instance=instance, environ=os.environ
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":  # it may last for days, and is not waited for
            return await self._serve(scope, receive, send)
        with self._identities.load:
            return await self._serve(scope, receive, send)

    @property
    def in_flight(self) -> int:
        """The requests that *app* is serving now, without websockets."""
        return self._identities.load.in_flight

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        verdict = self._identities.judge(_expected(scope["headers"]))
        if verdict.instance is None:
            return await self.app(scope, receive, send)
        instance = verdict.instance.encode("latin-1")
        if verdict.refusal is not None:
            return await _refuse(scope, receive, send, instance, verdict.refusal.encode())

        async def send_with_instance(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = _with_instance(message.get("headers") or (), instance, message.get("status"))
                if verdict.is_leaving and _closes(scope):
                    headers = [pair for pair in headers if pair[0].lower() != b"connection"]
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        return await self.app(scope, receive, send_with_instance)


def _closes(scope: Scope) -> bool:
    """Whether ``Connection: close`` has a meaning: HTTP/2 has its own way, and no header for it (RFC 9113, 8.2.2)."""
    return scope["type"] == "http" and str(scope.get("http_version", "1.1")).startswith("1")


def _expected(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    # Given twice it is as good as garbled: joined, as RFC 9110 (5.3) has it, it names nobody.
    found = [value for name, value in headers if name == _EXPECT]
    return b",".join(found).decode("latin-1") if found else None


def _with_instance(
    headers: Iterable[tuple[bytes, bytes]], instance: bytes, status: int | None
) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name.lower() != _INSTANCE]
    if status != MISDIRECTED:
        kept.append((_INSTANCE, instance))
    return kept


async def _refuse(scope: Scope, receive: Receive, send: Send, instance: bytes, text: bytes) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        if (await receive())["type"] != "websocket.connect":
            return  # the caller went away
        if _CAN_DENY not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        kind = _CAN_DENY
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (_INSTANCE, instance),
    ]
    await send({"type": f"{kind}.start", "status": MISDIRECTED, "headers": headers})
    await send({"type": f"{kind}.body", "body": b"" if scope.get("method") == "HEAD" else text})
