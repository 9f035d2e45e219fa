"""The attempts of one call, as a shell collects them: the last one's response or error, and what became of the others."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

import httpcore
import httpx

from ..calling.flow import Send
from .location import logical_location
from .options import Routed
from .router import Route, Router, Wire

__all__ = ["Attempts", "finalize", "make_response"]

W = TypeVar("W", bound=Wire)


class Attempts(Generic[W]):
    """What has happened to one request so far."""

    __slots__ = ("_error", "_failures", "_response", "request", "route")

    def __init__(self, route: Route[W], request: httpx.Request) -> None:
        self.route = route
        self.request = request
        host = route.settings.host_header
        if host is not None:
            request.headers["Host"] = host
        self._failures: list[str] = []
        self._error: Exception | None = None
        self._response: httpx.Response | None = None

    def begin(self, send: Send) -> dict[str, Any]:
        return self.route.attempt_extensions(self.request.extensions, send)

    def failed(self, send: Send, error: Exception) -> None:
        self._error = error
        instance = send.endpoint.instance
        self._failures.append(
            f"attempt {send.number} at {instance.address} ({instance.id}): {type(error).__name__}: {error}"
        )

    def answered(self, send: Send, response: httpx.Response) -> None:
        response.extensions["disco"] = Routed(
            send.endpoint.instance, send.number, send.view.snapshot.revision
        )
        location = response.headers.get("location")
        if location is not None and response.has_redirect_location:
            logical = logical_location(
                location, self.request, send.view, host_header=self.route.settings.host_header
            )
            if logical is not None:
                response.headers["location"] = logical
        self._response = response

    def deliver(self) -> httpx.Response:
        """The outcome of the last attempt. An error after several attempts tells of each in a note."""
        if self._response is not None:
            return self._response
        assert self._error is not None
        if len(self._failures) > 1:
            for note in self._failures:
                self._error.add_note(note)
        raise self._error


def make_response(answer: httpcore.Response, stream: Any) -> httpx.Response:
    """A new response over *stream*, as httpx's own transports give it."""
    return httpx.Response(
        status_code=answer.status, headers=answer.headers, stream=stream, extensions=dict(answer.extensions)
    )


def finalize(transport: object, router: Router[Any]) -> None:
    """Have a transport that is dropped without being closed give back what it holds."""
    weakref.finalize(transport, router.release).atexit = False
