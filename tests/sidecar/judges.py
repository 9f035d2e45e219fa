"""Two judges of a request's bytes, h11 and httptools, who must agree with what the sidecar made of them."""

from __future__ import annotations

from dataclasses import dataclass

import h11
import httptools

__all__ = ["Disagreement", "Reading", "by_h11", "by_httptools"]


class Disagreement(Exception):
    """A judge does not take this for a request."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What somebody takes a request for."""

    method: bytes
    target: bytes
    body: bytes


def by_h11(raw: bytes, *, count: int = 1) -> list[Reading]:
    """The first *count* requests in *raw*, by h11."""
    found: list[Reading] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    try:
        while len(found) < count:
            request, body = None, b""
            while True:
                event = connection.next_event()
                if isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    raise Disagreement(f"h11 sees no whole request: {event!r}")
            assert request is not None
            found.append(Reading(request.method, request.target, body))
            if len(found) < count:
                rest = connection.trailing_data[0]
                connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
                connection.receive_data(rest)
    except h11.RemoteProtocolError as error:
        raise Disagreement(f"h11: {error}") from None
    return found


class _Notes:
    def __init__(self) -> None:
        self.found: list[Reading] = []
        self._target = self._body = b""
        self.parser: httptools.HttpRequestParser | None = None

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.found.append(Reading(self.parser.get_method(), self._target, self._body))


def by_httptools(raw: bytes, *, count: int = 1) -> list[Reading]:
    """The first *count* requests in *raw*, by llhttp."""
    found: list[Reading] = []
    while len(found) < count:
        notes = _Notes()
        notes.parser = httptools.HttpRequestParser(notes)
        try:
            notes.parser.feed_data(raw)
            raw = b""
        except httptools.HttpParserUpgrade as upgrade:
            # It stops at a request for another protocol, and does not read the body of one that has a body.
            raw = raw[int(str(upgrade)) if str(upgrade).isdigit() else upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if len(found) + len(notes.found) < count:
                raise Disagreement(f"httptools: {type(error).__name__} {error}") from None
        found += notes.found
        if not notes.found:
            raise Disagreement("httptools sees no whole request")
    return found[:count]
