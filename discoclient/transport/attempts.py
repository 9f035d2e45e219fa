"""The attempts of one call, as a shell collects them: what each one sends, what became of it, and what the caller gets."""

from __future__ import annotations

import weakref
from datetime import timedelta
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any, Generic, TypeAlias, TypeVar

import httpx

from ..balancing.ticket import Ticket
from ..calling.steps import Call, Send
from ..model.outcome import Outcome, OutcomeKind
from .carrying import Answer, AsyncCarrier, Carrier
from .location import logical_location
from .options import Routed
from .router import Route, Router, Wire, late
from .wire import as_httpx, classify

__all__ = ["PATIENCE", "Attempts", "Result", "WholeStream", "finalize", "is_short", "seconds_to_wait"]

W = TypeVar("W", bound=Wire)

Result: TypeAlias = httpx.Response | Exception

SHORT = 4096
"""Bytes. So much comes with the head, most likely."""
PATIENCE = 0.05
"""Seconds that such a body may take: if it is not there, a new connection is cheaper after all."""

_OURS = b"x-disco-"
_X = (b"x", b"X")


class Attempts(Generic[W]):
    """What has happened to one request so far."""

    __slots__ = ("_earlier", "_last", "_result", "began", "call", "request", "route", "terms")

    def __init__(self, route: Route[W], request: httpx.Request, call: Call, began: float) -> None:
        """*began*: when the call did, by the monotonic clock."""
        self.route = route
        self.began = began
        self.terms = route.whole_terms if call.is_whole else route.stream_terms
        self.request = request
        self.call = call
        host = route.settings.host_header
        if host is not None:
            request.headers["Host"] = host
        self._last: Send | None = None
        self._result: Result | None = None
        self._earlier: list[str] | None = None

    def headers(self, send: Send) -> list[tuple[bytes, bytes]]:
        """The request's own, and what is said to this instance. What came in from outside as ours is not passed on."""
        headers = [
            pair for pair in self.request.headers.raw if pair[0][:1] not in _X or pair[0][:8].lower() != _OURS
        ]
        if send.headers:
            said = {
                name.lower().encode(): (name.encode(), value.encode()) for name, value in send.headers.items()
            }
            headers = [pair for pair in headers if pair[0].lower() not in said]
            headers += said.values()
        expectation = send.ticket.endpoint.expectation
        if expectation is not None:
            headers.append((b"X-Disco-Expect", expectation))
        if send.number > 1:
            headers.append((b"X-Disco-Attempt", b"%d" % send.number))
        if self.call.deadline is not None:
            left = max(0, int((self.call.deadline - monotonic()) * 1000))
            headers.append((b"X-Disco-Deadline", b"%d" % left))
        return headers

    def pool_timeout(self) -> float | None:
        """Seconds to wait for a connection."""
        timeouts = self.request.extensions.get("timeout")
        timeout: float | None = timeouts.get("pool") if timeouts else None
        if self.call.deadline is None:
            return timeout
        left = max(0.0, self.call.deadline - monotonic())
        return left if timeout is None else min(left, timeout)

    def failed(
        self,
        send: Send,
        error: Exception,
        began: float,
        *,
        is_warm: bool,
        carrier: Carrier | AsyncCarrier | None,
    ) -> tuple[Outcome, Result]:
        """What an attempt that ended with *error* means, and the exception that says so."""
        now = monotonic()
        outcome = classify(error, now - began, is_warm=is_warm, carrier=carrier)
        is_over = outcome.kind is OutcomeKind.EXPIRED
        # Waiting for a connection of ours is no failure of the instance, whatever ended it.
        is_over |= isinstance(error, httpx.PoolTimeout) and self.is_late
        if not is_over:
            return outcome, as_httpx(error)
        has_begun = carrier is not None and carrier.has_answer
        late_error = late(
            "while the body was read"
            if has_begun
            else f"while {send.endpoint.instance.address} had not answered"
        )
        late_error.__cause__ = error
        return outcome, late_error

    def answered(
        self, send: Send, answer: Answer, stream: Any, began: float, *, is_warm: bool
    ) -> tuple[Outcome, Result]:
        """What an answer means, and the response over *stream* as httpx's own transports give it."""
        endpoint, status = send.ticket.endpoint, answer.status
        kind, retry_after = OutcomeKind.RESPONSE, None
        extensions = answer.extensions
        extensions["disco"] = Routed(endpoint.instance, send.number, send.view.snapshot.revision)
        response = httpx.Response(
            status_code=status, headers=answer.headers, stream=stream, extensions=extensions
        )
        if (
            type(answer.headers) is httpx.Headers
        ):  # looked for once, and not in each response that has the same head
            response.headers.encoding = answer.headers.encoding
        if status == 429 or status == 503:
            retry_after = seconds_to_wait(response.headers.get("retry-after"))
        elif (
            status == 421
            and endpoint.expectation is not None
            and response.headers.get("x-disco-instance", endpoint.id) != endpoint.id
        ):
            kind = OutcomeKind.MISDIRECTED
        elif 300 <= status < 400:
            self._redirect(send, response)
        latency = (answer.head_at or monotonic()) - began
        return Outcome(kind, latency, status, is_warm, retry_after), response

    def broken_off(self, error: Exception, carrier: Carrier | AsyncCarrier) -> Outcome:
        """What the last attempt means whose body ended with *error*; its result is now the exception that says so."""
        send = self._last
        assert send is not None
        outcome, self._result = self.failed(send, error, send.began, is_warm=False, carrier=carrier)
        return outcome

    def settle(self, send: Send, result: Result) -> None:
        """*result* is the last one, until there is another."""
        self._last, self._result = send, result

    def take_response(self) -> httpx.Response | None:
        """The last attempt's response, which is not the caller's: another attempt follows."""
        if self._last is None:
            return None
        if self._earlier is None:
            self._earlier = []
        self._earlier.append(self._note())
        result, self._last, self._result = self._result, None, None
        return result if isinstance(result, httpx.Response) else None

    def deliver(self) -> httpx.Response:
        """The outcome of the last attempt. An error after several attempts tells of each in a note."""
        result = self._result
        assert result is not None
        if isinstance(result, Exception):
            self.annotate(result)
        return self.hand_over(result)

    def is_whole(self, result: Result) -> bool:
        """Whether it is a response whose body is here."""
        return isinstance(result, httpx.Response) and isinstance(result.stream, WholeStream)

    def hand_over(self, result: Result) -> httpx.Response:
        """*result* as the caller gets it: a body that is here is read."""
        if isinstance(result, Exception):
            raise result
        if isinstance(result.stream, WholeStream):
            try:
                result.read()
            except BaseException:
                result.close()
                raise
            result.elapsed = timedelta(seconds=monotonic() - self.began)
        return result

    def annotate(self, error: Exception) -> None:
        """Have *error* tell of the attempts, if there were several."""
        if self._earlier:
            for note in (*self._earlier, self._note()):
                error.add_note(note)

    @property
    def count(self) -> int:
        """How many there were."""
        return self._last.number if self._last is not None else len(self._earlier or ())

    @property
    def is_late(self) -> bool:
        return self.call.deadline is not None and monotonic() >= self.call.deadline

    @property
    def stream(self) -> httpx.SyncByteStream | httpx.AsyncByteStream | None:
        """The body of the last attempt's response, if there is one."""
        return self._result.stream if isinstance(self._result, httpx.Response) else None

    @property
    def error(self) -> Exception | None:
        """The last attempt's."""
        return self._result if isinstance(self._result, Exception) else None

    def _note(self) -> str:
        """The last attempt in a line."""
        send, result = self._last, self._result
        assert send is not None
        instance = send.endpoint.instance
        is_error = isinstance(result, Exception)
        what = (
            f"{type(result).__name__}: {result}"
            if is_error
            else f"status {getattr(result, 'status_code', '?')}"
        )
        return f"attempt {send.number} at {instance.address} ({instance.id}): {what}"

    def _redirect(self, send: Send, response: httpx.Response) -> None:
        location = response.headers.get("location")
        if location is not None and response.has_redirect_location:
            logical = logical_location(
                location, self.request, send.view, host_header=self.route.settings.host_header
            )
            if logical is not None:
                response.headers["location"] = logical


class WholeStream(httpx.ByteStream):
    """A response's body that is here. For both flavours; it is read before the caller has it."""

    def __init__(self, content: bytes, ticket: Ticket) -> None:
        super().__init__(content)
        self._ticket = ticket

    def close(self) -> None:
        self._ticket.close()

    async def aclose(self) -> None:
        self._ticket.close()


def is_short(response: httpx.Response) -> bool:
    """Whether its body is so short that reading it to the end is cheaper than a new connection."""
    length = response.headers.get("content-length", "")
    return length.isascii() and length.isdigit() and len(length) < 5 and int(length) <= SHORT


def finalize(transport: object, router: Router[Any]) -> None:
    """Have a transport that is dropped without being closed give back what it holds."""
    weakref.finalize(transport, router.release).atexit = False


def seconds_to_wait(retry_after: str | None) -> float | None:
    """``Retry-After`` in seconds from now, as a number or as a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, OverflowError):
        return None
