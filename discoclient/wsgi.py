"""For WSGI applications: `DiscoMiddleware` refuses requests that are meant for another instance, and says who answers.

::

    app = DiscoMiddleware(app, registration=registration)  # what discoclient.register() returned
    app = DiscoMiddleware(app, registration=lambda: registration)  # registered later: None until then
    app = DiscoMiddleware(app)  # its name is in $DISCO_SERVICE and $DISCO_INSTANCE

It is plain WSGI (PEP 3333) and needs no framework. Of Flask, wrap ``app.wsgi_app``; of Django, what
``get_wsgi_application()`` returns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from .serving.identity import EXPECT_HEADER, INSTANCE_HEADER, MISDIRECTED, Identities, Source
from .serving.load import Load

__all__ = ["DiscoMiddleware"]

_EXPECT = "HTTP_" + EXPECT_HEADER.upper().replace("-", "_")
_INSTANCE = INSTANCE_HEADER.lower()
_REFUSED = f"{MISDIRECTED} Misdirected Request"


class DiscoMiddleware:
    """Answers 421 with ``X-Disco-Instance`` if ``X-Disco-Expect`` names somebody else; *app* does not see that request.

    All other requests are *app*'s, and their responses get ``X-Disco-Instance``, in place of one that *app* set (and a 421 of
    *app*'s own gets none: with it, callers would take the request for not executed). It counts the requests
    in flight, which a drain waits for; while that lasts, responses say ``Connection: close``. While this process does not know
    who it is, everything passes as it is.

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
        app: WSGIApplication,
        *,
        registration: Source | None = None,
        service: str | None = None,
        instance: str | None = None,
    ) -> None:
        self.app = app
        self._identities = Identities(
            registration=registration, service=service, instance=instance, environ=os.environ
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        load = self._identities.load
        load.begin()
        try:
            body = self._serve(environ, start_response)
        except BaseException:
            load.end()
            raise
        if _is_there(body, environ.get("wsgi.file_wrapper")):
            load.end()
            return body
        return _Counted(body, load)

    @property
    def in_flight(self) -> int:
        """The requests that *app* is serving now, until their bodies are closed."""
        return self._identities.load.in_flight

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        verdict = self._identities.judge(environ.get(_EXPECT))
        if verdict.instance is None:
            return self.app(environ, start_response)
        instance = verdict.instance
        if verdict.refusal is not None:
            return _refuse(environ, start_response, instance, verdict.refusal.encode())

        def start_with_instance(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            said = _with_instance(headers, instance, status)
            if verdict.is_leaving and environ.get("SERVER_PROTOCOL", "HTTP/1.1").startswith("HTTP/1"):
                said = [(name, value) for name, value in said if name.lower() != "connection"]
                said.append(("Connection", "close"))
            try:
                return start_response(status, said, exc_info)
            finally:
                del exc_info  # if it is raised, its traceback holds this frame, and would hold itself

        return self.app(environ, start_with_instance)


class _Counted:
    """A body that is being made while it is sent: its request is over when it is closed."""

    def __init__(self, body: Iterable[bytes], load: Load) -> None:
        self._body = body
        self._load: Load | None = load

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        load, self._load = self._load, None
        if load is None:
            return
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            load.end()

    def __del__(self) -> None:
        if self._load is not None:  # a server that does not close what it was given
            self._load.end()


def _is_there(body: Iterable[bytes], file_wrapper: object) -> bool:
    """Whether *body* is complete, or a file: it is left to the server as it is, which may look at its length or its kind."""
    if hasattr(body, "__len__"):
        return True
    return isinstance(body, file_wrapper) if isinstance(file_wrapper, type) else file_wrapper is not None


def _with_instance(headers: list[tuple[str, str]], instance: str, status: str) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in headers if name.lower() != _INSTANCE]
    if not status.startswith(str(MISDIRECTED)):
        kept.append((INSTANCE_HEADER, instance))
    return kept


def _refuse(
    environ: WSGIEnvironment, start_response: StartResponse, instance: str, text: bytes
) -> Iterable[bytes]:
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(text))),
        (INSTANCE_HEADER, instance),
    ]
    start_response(_REFUSED, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [text]
