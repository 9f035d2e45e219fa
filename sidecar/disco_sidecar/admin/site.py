"""What is at which path. The state is asked for only when somebody looks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from .guard import Guard, Head
from .page import content_policy, page
from .readiness import unready
from .replies import Later, Reply, as_json, refuse, text

__all__ = ["PATHS", "Site", "Source", "brief", "frame"]

Source = Callable[[], dict[str, Any]]

PATHS = ("/", "/api/events", "/api/services", "/healthz", "/metrics", "/readyz")

NEWEST_POINTS = 5
"""Of a service's history, in every state after the first: more than one, for a reader may miss some."""

FAILED = "the admin address failed to answer %s"
_SORRY = text(500, "this failed; the sidecar's log says why")

logger = logging.getLogger("discoclient.sidecar")


class Site:
    """Answers heads. *source* is called on the loop, and should take milliseconds at most."""

    def __init__(self, source: Source, *, allow_hosts: Iterable[str] = ()) -> None:
        self._source = source
        self._guard = Guard(allow_hosts)
        self._paths: dict[str, Callable[[Head], Reply | Later]] = {
            "/": self._page,
            "/api/events": self._events,
            "/api/services": lambda head: as_json(200, self._source()),
            "/healthz": lambda head: text(200, "ok"),
            "/metrics": self._metrics,
            "/readyz": self._ready,
        }

    def answer(self, head: Head, *, is_unix: bool) -> Reply | Later:
        """What *head* gets."""
        refusal = self._guard.refusal(head, is_unix=is_unix)
        if refusal is not None:
            return refuse(refusal)
        answer = self._paths.get(head.path)
        if answer is None:
            return text(404, f"nothing is here; there are {', '.join(PATHS)}")
        try:
            return answer(head)
        except Exception:
            logger.exception(FAILED, head.path)
            return _SORRY

    def update(self) -> bytes | None:
        """The state as an event, short; ``None`` if there is none to be had."""
        try:
            return frame("state", brief(self._source()))
        except Exception:
            logger.exception("the state could not be told")
            return None

    def _page(self, head: Head) -> Reply:
        headers = (("X-Frame-Options", "DENY"), ("Cross-Origin-Opener-Policy", "same-origin"))
        return Reply(200, "text/html; charset=utf-8", page(), headers, policy=content_policy())

    def _events(self, head: Head) -> Reply:
        # A browser that loses us tries again after a second.
        body = b"retry: 1000\n\n" + frame("state", self._source())
        return Reply(200, "text/event-stream", body, (("X-Accel-Buffering", "no"),), is_stream=True)

    def _ready(self, head: Head) -> Reply:
        reasons = unready(self._source())
        return as_json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    def _metrics(self, head: Head) -> Later:
        """With many instances this is a lot of text: the requests of others don't wait for it."""
        state = self._source()

        def make() -> Reply:
            try:
                from .metrics import exposition  # only who is scraped pays for prometheus_client

                content_type, body = exposition(state, accept=", ".join(head.all("accept")))
                return Reply(200, content_type, body)
            except Exception:
                logger.exception(FAILED, head.path)
                return _SORRY

        return Later(make)


def frame(kind: str, value: Any) -> bytes:
    """One server-sent event. JSON has no line ends, so one line of data is all it takes."""
    return b"event: %b\ndata: %b\n" % (kind.encode(), as_json(200, value).body)


def brief(state: dict[str, Any]) -> dict[str, Any]:
    """*state* with only the end of each service's history."""
    services = [{**each, "history": each.get("history", [])[-NEWEST_POINTS:]} for each in state["services"]]
    return {**state, "services": services}
