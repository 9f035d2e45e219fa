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
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from .serving.identity import EXPECT_HEADER, INSTANCE_HEADER, MISDIRECTED, Identities, Source

__all__ = ["DiscoMiddleware"]

_EXPECT = "HTTP_" + EXPECT_HEADER.upper().replace("-", "_")
_INSTANCE = INSTANCE_HEADER.lower()
_REFUSED = f"{MISDIRECTED} Misdirected Request"


class DiscoMiddleware:
    """Answers 421 with ``X-Disco-Instance`` if ``X-Disco-Expect`` names somebody else; *app* does not see that request.

    All other requests are *app*'s, and their responses get ``X-Disco-Instance``, in place of one that *app* set (and a 421 of
    *app*'s own gets none: with it, callers would take the request for not executed). While this process does not know who
    it is, everything passes as it is.

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
        verdict = self._identities.judge(environ.get(_EXPECT))
        if verdict.instance is None:
            return self.app(environ, start_response)
        instance = verdict.instance
        if verdict.refusal is not None:
            return _refuse(environ, start_response, instance, verdict.refusal.encode())

        def start_with_instance(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            try:
                return start_response(status, _with_instance(headers, instance, status), exc_info)
            finally:
                del exc_info  # if it is raised, its traceback holds this frame, and would hold itself

        # The application's own iterable, not one of ours: its close() is called, a server may see its file_wrapper.
        return self.app(environ, start_with_instance)


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
