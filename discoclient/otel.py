"""Traces for OpenTelemetry. The extra: ``pip install 'discoclient[otel]'``.

::

    DiscoClient("experiment", hooks=[OtelHook()])

Each call is a span of kind INTERNAL, a child of the span that is current where the call is made, and each attempt is a span
of kind CLIENT below it::

    disco GET experiment                    disco.service, disco.attempts: 2
      ├─ GET   10.0.0.5:8000   error        error.type: ConnectError, disco.retry.reason: connect
      └─ GET   10.0.0.7:8000                http.response.status_code: 200, http.request.resend_count: 1

What is sent carries the attempt's span as its parent (``traceparent``), and the caller's baggage. Ejections, exhausted budgets
and throttling in the course of a call become events of its span. A span ends with the response, whose
body is in it unless it is streamed, or with the exception. Only the API is used: without an SDK nothing is recorded, and the
caller's context is passed on as it is.

``server.address`` and ``server.port`` are the instance's. (The conventions would have those of the ``Host`` header. That is the
service's name here, which resolves nowhere; it is in ``url.full`` and ``disco.service``.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final
from urllib.parse import unquote_plus

from . import __version__
from .model.events import (
    AttemptEnded,
    AttemptStarted,
    BudgetExhausted,
    CallEnded,
    CallInfo,
    CallStarted,
    EjectionSkipped,
    Event,
    InstanceEjected,
    InstanceUnejected,
    PanicChanged,
    RequestThrottled,
)
from .model.outcome import Outcome, OutcomeKind

try:
    from opentelemetry.context import Context, get_current
    from opentelemetry.propagate import inject
    from opentelemetry.trace import (
        Span,
        SpanKind,
        StatusCode,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )
except ImportError as missing:
    raise ImportError(
        "discoclient.otel needs opentelemetry-api: pip install 'discoclient[otel]'", name="opentelemetry"
    ) from missing

__all__ = ["OtelHook", "SemConv"]


class SemConv:
    """The names that are used, and what version of OpenTelemetry's semantic conventions has them.

    Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.44.0/docs/http/http-spans.md. All of the HTTP client
    span's are stable since 1.23.0.
    """

    VERSION: Final = "1.44.0"
    SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

    METHOD: Final = "http.request.method"
    METHOD_ORIGINAL: Final = "http.request.method_original"
    RESEND_COUNT: Final = "http.request.resend_count"
    STATUS_CODE: Final = "http.response.status_code"
    URL: Final = "url.full"
    SERVER_ADDRESS: Final = "server.address"
    SERVER_PORT: Final = "server.port"
    ERROR_TYPE: Final = "error.type"

    # our own
    SERVICE: Final = "disco.service"
    INSTANCE_ID: Final = "disco.instance.id"
    ATTEMPTS: Final = "disco.attempts"
    OUTCOME: Final = "disco.outcome"
    RETRY_REASON: Final = "disco.retry.reason"
    HEDGE: Final = "disco.hedge"

    KNOWN_METHODS: Final = frozenset(
        {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
    )
    """Others are ``_OTHER``, with the original in an attribute of its own."""

    SENSITIVE_PARAMETERS: Final = frozenset(
        {
            "AWSAccessKeyId",
            "Signature",
            "X-Amz-Credential",
            "X-Amz-Security-Token",
            "X-Amz-Signature",
            "X-Goog-Signature",
            "sig",
        }
    )
    """Parameters of a query whose values are signatures or credentials. The list is still in development: this is v1.44.0's and
    what the versions before and after it have besides."""


MAX_OPEN = 65_536
"""Calls that may be open at once, far more than there are: beyond it the oldest, whose end never came, is ended."""

_current: ContextVar[CallInfo | None] = ContextVar("discoclient_call", default=None)
"""The call in whose course we are. It says of which call an event is that does not say so itself."""


@dataclass(slots=True, eq=False)
class _Call:
    span: Span
    context: Context  # where the call was made
    inside: Context  # the same with our span
    name: str  # of its attempts' spans
    request: dict[str, str]  # attributes that its attempts share
    outer: CallInfo | None  # in whose course this one is: a body that is itself the answer of a call, say
    attempts: dict[int, Span] = field(default_factory=dict)


class OtelHook:
    """Makes spans of calls and attempts, and passes the context on in what is sent.

    Args:
        tracer_provider: whose spans these are. Default: the global one, also if it is set only later.
        known_methods: methods that stand in names and attributes as they are, to be given in full. Default: the conventions'.
        sensitive_parameters: parameters of a query whose value is replaced by ``REDACTED``, to be given in full; case counts.
            Default: the conventions'. User and password in a URL are always replaced.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        known_methods: Collection[str] = SemConv.KNOWN_METHODS,
        sensitive_parameters: Collection[str] = SemConv.SENSITIVE_PARAMETERS,
    ) -> None:
        self._tracer = get_tracer("discoclient", __version__, tracer_provider, SemConv.SCHEMA_URL)
        self._methods = frozenset(known_methods)
        self._sensitive = frozenset(sensitive_parameters)
        self._calls: dict[CallInfo, _Call] = {}

    def on_event(self, event: Event) -> None:
        handle = self._HANDLERS.get(type(event))
        if handle is not None:  # a later version may tell of more
            handle(self, event)

    def _call_started(self, event: CallStarted) -> None:
        info = event.call
        name = method = info.method
        if method not in self._methods:
            name, method = "HTTP", "_OTHER"
        request = {
            SemConv.METHOD: method,
            SemConv.URL: _redact(info.url, self._sensitive),
            SemConv.SERVICE: info.service,
        }
        if method != info.method:
            request[SemConv.METHOD_ORIGINAL] = info.method
        context = get_current()
        span = self._tracer.start_span(f"disco {name} {info.service}", context, attributes=request)
        if not context and not span.get_span_context().is_valid:
            return  # nothing records, and there is nothing to pass on
        inside, outer = _within(span, context), _current.get()
        self._calls[info] = _Call(span, context, inside, name, request, outer)
        _current.set(info)
        if len(self._calls) > MAX_OPEN:
            self._forget_oldest()

    def _attempt_started(self, event: AttemptStarted) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        attributes: dict[str, str | int] = {
            **call.request,
            SemConv.SERVER_ADDRESS: event.instance.host,
            SemConv.SERVER_PORT: event.instance.port,
            SemConv.INSTANCE_ID: event.instance.id,
        }
        if event.number > 1:
            attributes[SemConv.RESEND_COUNT] = event.number - 1
        if event.is_hedge:
            attributes[SemConv.HEDGE] = True
        span = self._tracer.start_span(call.name, call.inside, SpanKind.CLIENT, attributes)
        call.attempts[event.number] = span
        inject(event.headers, _within(span, call.context))

    def _attempt_ended(self, event: AttemptEnded) -> None:
        call = self._calls.get(event.call)
        span = call.attempts.pop(event.number, None) if call is not None else None
        if span is None:
            return
        outcome = event.outcome
        if span.is_recording():
            span.set_attribute(SemConv.OUTCOME, outcome.kind.value)
            if event.retry is not None:
                span.set_attribute(SemConv.RETRY_REASON, event.retry)
            _conclude(span, outcome.status, _error(outcome))
        span.end()

    def _call_ended(self, event: CallEnded) -> None:
        call = self._calls.pop(event.call, None)
        if call is None:
            return
        if _current.get() is event.call:
            _current.set(call.outer)
        for span in call.attempts.values():
            # If the call has its response, then another attempt's: this one lost, which is nobody's failure.
            span.set_attribute(SemConv.OUTCOME, "cancelled")
            _conclude(span, 0, event.error)
            span.end()
        if call.span.is_recording():
            call.span.set_attribute(SemConv.ATTEMPTS, event.attempts)
            if event.instance is not None:
                call.span.set_attribute(SemConv.INSTANCE_ID, event.instance.id)
            status = event.status or 0
            # Whether a 404 is a failure, only the caller knows; that a 503 is one, anybody.
            _conclude(call.span, status, event.error or (str(status) if status >= 500 else None))
        call.span.end()

    def _happened(self, event: Any) -> None:
        info = _current.get()
        call = self._calls.get(info) if info is not None else None
        if call is not None and info is not None and info.service == event.service:
            name, attributes = _describe(event)
            call.span.add_event(name, attributes)

    def _forget_oldest(self) -> None:
        try:
            call = self._calls.pop(next(iter(self._calls)), None)
        except (StopIteration, RuntimeError):  # another thread was faster
            return
        if call is not None:
            for span in (*call.attempts.values(), call.span):
                span.end()

    _HANDLERS: ClassVar[Mapping[type, Callable[[OtelHook, Any], None]]] = MappingProxyType(
        {
            CallStarted: _call_started,
            AttemptStarted: _attempt_started,
            AttemptEnded: _attempt_ended,
            CallEnded: _call_ended,
            InstanceEjected: _happened,
            EjectionSkipped: _happened,
            InstanceUnejected: _happened,
            PanicChanged: _happened,
            BudgetExhausted: _happened,
            RequestThrottled: _happened,
        }
    )


def _within(span: Span, context: Context) -> Context:
    """*context* in the course of *span*. An old API's invalid span (there without an SDK) must not hide the caller's own."""
    return set_span_in_context(span, context) if span.get_span_context().is_valid else context


def _error(outcome: Outcome) -> str | None:
    is_response = outcome.kind is OutcomeKind.RESPONSE
    if outcome.error is not None and not is_response:
        return outcome.error
    if outcome.status >= 400:  # 4xx too: the conventions have it so for a client's span
        return str(outcome.status)
    return None if is_response else outcome.kind.value


def _conclude(span: Span, status: int, error: str | None) -> None:
    if status:
        span.set_attribute(SemConv.STATUS_CODE, status)
    if error is not None:
        span.set_attribute(SemConv.ERROR_TYPE, error)
        span.set_status(StatusCode.ERROR)  # no description: the type says it


def _describe(event: Event) -> tuple[str, dict[str, str | int | float | bool]]:
    """An event of a span: its name, and its attributes."""
    match event:
        case InstanceEjected():
            return "disco.instance.ejected", {
                SemConv.INSTANCE_ID: event.instance.id,
                "disco.ejection.reason": event.reason,
                "disco.ejection.seconds": event.seconds,
            }
        case EjectionSkipped():
            return "disco.instance.ejection_skipped", {
                SemConv.INSTANCE_ID: event.instance.id,
                "disco.ejection.reason": event.reason,
                "disco.ejection.because": event.because,
            }
        case InstanceUnejected():
            return "disco.instance.unejected", {SemConv.INSTANCE_ID: event.instance.id}
        case PanicChanged():
            return "disco.panic.changed", {
                "disco.panic": event.is_panic,
                "disco.panic.ejected": event.ejected,
                "disco.panic.total": event.total,
            }
        case BudgetExhausted():
            return "disco.budget.exhausted", {SemConv.RETRY_REASON: event.reason}
        case RequestThrottled():
            return "disco.request.throttled", {
                "disco.throttle.policy": event.policy,
                "disco.throttle.probability": event.probability,
            }
    raise AssertionError(event)


def _redact(url: str, sensitive: Collection[str]) -> str:
    """*url* as the conventions want it in ``url.full``: without user, password, and the values of *sensitive* parameters."""
    if "@" in url:
        scheme, slashes, rest = url.partition("//")
        end = min((place for place in map(rest.find, "/?#") if place >= 0), default=len(rest))
        _, at, host = rest[:end].rpartition("@")
        if slashes and at:
            url = f"{scheme}//REDACTED:REDACTED@{host}{rest[end:]}"
    if "?" in url:
        url, hash_, fragment = url.partition("#")
        path, mark, query = url.partition("?")
        url = f"{path}{mark}{'&'.join(_redact_parameter(each, sensitive) for each in query.split('&'))}{hash_}{fragment}"
    return url


def _redact_parameter(parameter: str, sensitive: Collection[str]) -> str:
    key, sign, _ = parameter.partition("=")
    return f"{key}=REDACTED" if sign and unquote_plus(key) in sensitive else parameter
