"""Spans: a tree for each call, named and described by the conventions, passed on in what is sent, and never left open."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv.attributes import error_attributes as error_names
from opentelemetry.semconv.attributes import http_attributes as http_names
from opentelemetry.semconv.attributes import server_attributes as server_names
from opentelemetry.semconv.attributes import url_attributes as url_names
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanKind, StatusCode

import discoclient
from discoclient import otel
from discoclient.model.events import (
    AttemptEnded,
    AttemptStarted,
    BudgetExhausted,
    CallEnded,
    CallInfo,
    EjectionSkipped,
    Event,
    Hook,
    InstanceEjected,
    InstanceUnejected,
    PanicChanged,
    PhaseChanged,
    RequestThrottled,
    SnapshotChanged,
)
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.otel import OtelHook, SemConv
from tests.hooks import NO_ANSWER, OK, REFUSED, Call, UnknownEvent, instance, response
from tests.support.properties import thorough
from tests.support.threads import in_threads

WEB = instance(1)


class Tracing:
    """An SDK that keeps the spans that have ended."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    @property
    def calls(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.kind is SpanKind.INTERNAL]

    @property
    def attempts(self) -> list[ReadableSpan]:
        """In the order in which they started."""
        found = [span for span in self.spans if span.kind is SpanKind.CLIENT]
        return sorted(found, key=lambda span: described(span).get("http.request.resend_count", 0))


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.fixture
def hook(tracing: Tracing) -> OtelHook:
    return OtelHook(tracer_provider=tracing.provider)


@contextmanager
def inside(name: str = "handler") -> Iterator[trace.Span]:
    """In the course of something of the application's own, whose span is not among ours."""
    with Tracing().provider.get_tracer("app").start_as_current_span(name) as span:
        yield span


def described(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def id_of(span: ReadableSpan | trace.Span) -> tuple[int, int]:
    found = span.get_span_context()
    assert found is not None
    return found.trace_id, found.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def told(headers: MutableMapping[str, str]) -> tuple[int, int]:
    """The parent that a service would read from *headers*."""
    _, trace_id, span_id, _ = headers["traceparent"].split("-")
    return int(trace_id, 16), int(span_id, 16)


def is_sampled(headers: MutableMapping[str, str]) -> bool:
    return bool(int(headers["traceparent"].split("-")[3], 16) & 1)


def is_at_rest(hook: OtelHook) -> bool:
    return hook._calls == {} and otel._current.get() is None


# --- the tree --------------------------------------------------------------------------------------------------------


def test_a_call_and_its_attempt_are_two_spans_with_the_attributes_of_the_conventions(
    tracing: Tracing, hook: OtelHook
) -> None:
    call = Call(hook)
    call.start(WEB)
    call.end(OK)
    assert [span.kind for span in tracing.spans] == [
        SpanKind.CLIENT
    ]  # the attempt has ended, the call has not
    call.done(200, by=WEB)
    (logical,), (attempt,) = tracing.calls, tracing.attempts
    assert (logical.name, attempt.name) == ("disco GET web", "GET")
    assert parent_of(logical) is None
    assert parent_of(attempt) == id_of(logical)
    assert described(logical) == {
        "disco.service": "web",
        "disco.attempts": 1,
        "disco.instance.id": "instance-1",
        "http.request.method": "GET",
        "url.full": "http://web/users/1",
        "http.response.status_code": 200,
    }
    assert described(attempt) == {
        "disco.service": "web",
        "disco.instance.id": "instance-1",
        "disco.outcome": "response",
        "http.request.method": "GET",
        "url.full": "http://web/users/1",
        "server.address": "10.0.0.1",
        "server.port": 8000,
        "http.response.status_code": 200,
    }
    assert {span.status.status_code for span in tracing.spans} == {StatusCode.UNSET}
    assert is_at_rest(hook)


def test_a_retry_says_why_and_which_it_is(tracing: Tracing, hook: OtelHook) -> None:
    call = Call(hook)
    for outcome, retry in ((REFUSED, "connect"), (response(503), "unavailable"), (OK, None)):
        call.start()
        call.end(outcome, retry)
    call.done(200)
    found = [
        [
            described(span).get(name)
            for name in ("disco.instance.id", "disco.retry.reason", "error.type", "http.request.resend_count")
        ]
        for span in tracing.attempts
    ]
    assert found == [
        ["instance-1", "connect", "ConnectError", None],
        ["instance-2", "unavailable", "503", 1],
        ["instance-3", None, None, 2],
    ]
    (logical,) = tracing.calls
    assert described(logical)["disco.attempts"] == 3
    assert logical.status.status_code is StatusCode.UNSET


def test_what_was_current_when_the_call_started_is_the_parent(tracing: Tracing, hook: OtelHook) -> None:
    with inside() as handler:
        call = Call(hook)
    with inside("something else"):
        call.start()
        call.end(OK)
        call.done(200)
    (logical,), (attempt,) = tracing.calls, tracing.attempts
    assert parent_of(logical) == id_of(handler)
    assert parent_of(attempt) == id_of(logical)


def test_the_span_of_a_call_does_not_become_the_applications_current_one(hook: OtelHook) -> None:
    before = context.get_current()
    call = Call(hook)
    call.start()
    assert context.get_current() == before
    call.end(OK)
    call.done(200)


def test_calls_one_after_the_other_are_siblings(tracing: Tracing, hook: OtelHook) -> None:
    with inside() as handler:
        for _ in range(2):
            Call(hook).done(error="NoInstances")
    assert [parent_of(span) for span in tracing.calls] == [id_of(handler)] * 2


def test_what_is_sent_names_the_attempt_as_its_parent(tracing: Tracing, hook: OtelHook) -> None:
    call = Call(hook)
    first = call.start()
    call.end(REFUSED, "connect")
    second = call.start()
    call.end(OK)
    call.done(200)
    assert [told(first), told(second)] == [id_of(span) for span in tracing.attempts]
    assert is_sampled(first)


def test_the_callers_baggage_is_sent_along(hook: OtelHook) -> None:
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    try:
        call = Call(hook)
    finally:
        context.detach(token)
    assert call.start()["baggage"] == "tenant=blue"
    call.done(error="CancelledError")


def test_what_is_not_sampled_is_sent_as_such_and_costs_no_span() -> None:
    tracing = Tracing(sampler=ALWAYS_OFF)
    hook = OtelHook(tracer_provider=tracing.provider)
    call = Call(hook)
    headers = call.start()
    hook.on_event(BudgetExhausted("web", "connect"))
    call.end(REFUSED)
    call.start()
    call.done(error="ConnectError", by=WEB)
    assert not is_sampled(headers)
    assert tracing.spans == ()
    assert is_at_rest(hook)


# --- how it ended ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        (response(200), 200, None),
        (response(302), 302, None),
        (response(404), 404, "404"),
        (response(503), 503, "503"),
        (REFUSED, None, "ConnectError"),
        (NO_ANSWER, None, "ReadTimeout"),
        (Outcome(OutcomeKind.NO_ANSWER, 0.1), None, "no_answer"),
        (Outcome(OutcomeKind.STALE, 0.1, error="RemoteProtocolError"), None, "RemoteProtocolError"),
        (Outcome(OutcomeKind.MISDIRECTED, 0.1, 421), 421, "421"),
        (Outcome(OutcomeKind.MISDIRECTED, 0.1, 200), 200, "misdirected"),
        (Outcome(OutcomeKind.LOCAL, 0.1, error="PoolTimeout"), None, "PoolTimeout"),
        (Outcome(OutcomeKind.EXPIRED, 0.1), None, "expired"),
    ],
)
def test_how_an_attempt_ended(
    tracing: Tracing, hook: OtelHook, outcome: Outcome, status: int | None, error: str | None
) -> None:
    call = Call(hook)
    call.start()
    call.end(outcome)
    call.done(error="ReadError")
    (attempt,) = tracing.attempts
    assert described(attempt)["disco.outcome"] == outcome.kind.value
    assert described(attempt).get("http.response.status_code") == status
    assert described(attempt).get("error.type") == error
    assert attempt.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)
    assert attempt.status.description is None


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (200, None, None),
        (404, None, None),
        (500, None, "500"),
        (503, None, "503"),
        (None, "NoInstances", "NoInstances"),
        (None, "ConnectTimeout", "ConnectTimeout"),
        (None, None, None),
    ],
)
def test_how_a_call_ended(
    tracing: Tracing, hook: OtelHook, status: int | None, error: str | None, kind: str | None
) -> None:
    """That somebody asks for what is not there is, unlike for the attempt, no failure of a call."""
    Call(hook).done(status, error=error)
    (logical,) = tracing.calls
    assert described(logical).get("http.response.status_code") == status
    assert described(logical).get("error.type") == kind
    assert described(logical)["disco.attempts"] == 0
    assert "disco.instance.id" not in described(logical)
    assert logical.status.status_code is (StatusCode.ERROR if kind else StatusCode.UNSET)


def test_a_cancelled_call_leaves_no_span_open(tracing: Tracing, hook: OtelHook) -> None:
    call = Call(hook)
    call.start()
    call.start(is_hedge=True)
    call.done(error="CancelledError")
    assert len(tracing.attempts) == 2
    assert len(tracing.calls) == 1
    assert {described(span)["error.type"] for span in tracing.spans} == {"CancelledError"}
    assert {described(span)["disco.outcome"] for span in tracing.attempts} == {"cancelled"}
    assert {span.status.status_code for span in tracing.spans} == {StatusCode.ERROR}
    assert is_at_rest(hook)


def test_a_call_whose_end_does_not_come_is_seen_to_be_open(tracing: Tracing, hook: OtelHook) -> None:
    """The negative control of what is said above about spans that are not left open."""
    call = Call(hook)
    call.start()
    assert tracing.spans == ()
    assert not is_at_rest(hook)
    call.done(error="CancelledError")


# --- hedges ----------------------------------------------------------------------------------------------------------


def test_the_loser_of_a_hedge_is_cancelled_and_no_error(tracing: Tracing, hook: OtelHook) -> None:
    call = Call(hook)
    first = call.start()
    second = call.start(is_hedge=True)
    assert told(first) != told(second)
    call.end(OK, number=2)
    call.done(200, by=call.attempts[2])
    loser, winner = tracing.attempts
    assert (id_of(loser), id_of(winner)) == (told(first), told(second))
    assert described(loser)["disco.outcome"] == "cancelled"
    assert "error.type" not in described(loser)
    assert "disco.hedge" not in described(loser)
    assert loser.status.status_code is StatusCode.UNSET
    assert described(winner)["disco.hedge"] is True
    assert described(winner)["disco.outcome"] == "response"
    assert described(tracing.calls[0])["disco.instance.id"] == "instance-2"
    assert {parent_of(loser), parent_of(winner)} == {id_of(tracing.calls[0])}


def test_a_loser_that_did_end_keeps_its_own_outcome(tracing: Tracing, hook: OtelHook) -> None:
    call = Call(hook)
    call.start()
    call.start(is_hedge=True)
    call.end(NO_ANSWER, number=1)
    call.end(OK, number=2)
    call.done(200)
    assert [described(span)["disco.outcome"] for span in tracing.attempts] == ["no_answer", "response"]


# --- method and URL --------------------------------------------------------------------------------------------------


def one(tracing: Tracing, hook: OtelHook, **fields: str) -> tuple[ReadableSpan, ReadableSpan]:
    call = Call(hook, **fields)
    call.start()
    call.end(OK)
    call.done(200)
    return tracing.calls[-1], tracing.attempts[-1]


def test_an_unknown_method_is_kept_out_of_names(tracing: Tracing, hook: OtelHook) -> None:
    logical, attempt = one(tracing, hook, method="BREW")
    assert (logical.name, attempt.name) == ("disco HTTP web", "HTTP")
    for span in (logical, attempt):
        assert described(span)["http.request.method"] == "_OTHER"
        assert described(span)["http.request.method_original"] == "BREW"


def test_which_methods_are_known_can_be_said(tracing: Tracing) -> None:
    hook = OtelHook(tracer_provider=tracing.provider, known_methods=["BREW"])
    logical, attempt = one(tracing, hook, method="BREW")
    assert (logical.name, attempt.name) == ("disco BREW web", "BREW")
    assert described(attempt)["http.request.method"] == "BREW"
    assert "http.request.method_original" not in described(attempt)
    _, attempt = one(tracing, hook, method="GET")  # in full: what is not in it is not known
    assert described(attempt)["http.request.method"] == "_OTHER"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://web/a?b=c&d", "http://web/a?b=c&d"),
        ("disco://web/a#part", "disco://web/a#part"),
        ("http://ann:secret@web/a", "http://REDACTED:REDACTED@web/a"),
        ("http://ann@web", "http://REDACTED:REDACTED@web"),
        ("http://ann:p@ss@web:80/a", "http://REDACTED:REDACTED@web:80/a"),
        ("http://ann:secret@web?to=b@c", "http://REDACTED:REDACTED@web?to=b@c"),
        ("http://web/@ann?to=b@c#d@e", "http://web/@ann?to=b@c#d@e"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://web/a?color=blue&sig=4f2a", "http://web/a?color=blue&sig=REDACTED"),
        ("http://web/a?sig=1#f", "http://web/a?sig=REDACTED#f"),
        ("http://web/a?sig=1&sig=2&b=3", "http://web/a?sig=REDACTED&sig=REDACTED&b=3"),
        ("http://web/a?X-Amz-Signature=1&X-Amz-Date=2", "http://web/a?X-Amz-Signature=REDACTED&X-Amz-Date=2"),
        ("http://web/a?X%2DGoog%2DSignature=1", "http://web/a?X%2DGoog%2DSignature=REDACTED"),
        ("http://web/a?SIG=1&signature=2&sig", "http://web/a?SIG=1&signature=2&sig"),
        ("http://web/sig=1?sig=a=b?c", "http://web/sig=1?sig=REDACTED"),
        ("http://web/a#?sig=1", "http://web/a#?sig=1"),
    ],
)
def test_what_is_secret_in_a_url_is_not_told(tracing: Tracing, hook: OtelHook, url: str, shown: str) -> None:
    for span in one(tracing, hook, url=url):
        assert described(span)["url.full"] == shown


@pytest.mark.parametrize("name", sorted(SemConv.SENSITIVE_PARAMETERS))
def test_signatures_are_known_by_name(tracing: Tracing, hook: OtelHook, name: str) -> None:
    _, attempt = one(tracing, hook, url=f"http://web/?{name}=secret&x=1")
    assert described(attempt)["url.full"] == f"http://web/?{name}=REDACTED&x=1"


def test_which_parameters_are_secret_can_be_said(tracing: Tracing) -> None:
    hook = OtelHook(tracer_provider=tracing.provider, sensitive_parameters=["token"])
    _, attempt = one(tracing, hook, url="http://web/?token=1&sig=2")
    assert described(attempt)["url.full"] == "http://web/?token=REDACTED&sig=2"


def test_the_address_is_the_instances(tracing: Tracing, hook: OtelHook) -> None:
    call = Call(hook)
    call.start(instance(1, host="::1", port=8443))
    call.end(OK)
    call.done(200)
    (attempt,) = tracing.attempts
    assert (described(attempt)["server.address"], described(attempt)["server.port"]) == ("::1", 8443)


# --- names -----------------------------------------------------------------------------------------------------------


def test_the_names_are_those_that_the_conventions_have() -> None:
    assert {
        name: value
        for name, value in vars(SemConv).items()
        if name.isupper() and isinstance(value, str) and not value.startswith(("disco.", "https:", "1."))
    } == {
        "METHOD": http_names.HTTP_REQUEST_METHOD,
        "METHOD_ORIGINAL": http_names.HTTP_REQUEST_METHOD_ORIGINAL,
        "RESEND_COUNT": http_names.HTTP_REQUEST_RESEND_COUNT,
        "STATUS_CODE": http_names.HTTP_RESPONSE_STATUS_CODE,
        "URL": url_names.URL_FULL,
        "SERVER_ADDRESS": server_names.SERVER_ADDRESS,
        "SERVER_PORT": server_names.SERVER_PORT,
        "ERROR_TYPE": error_names.ERROR_TYPE,
    }
    assert {each.value for each in http_names.HttpRequestMethodValues} - {"_OTHER"} <= SemConv.KNOWN_METHODS
    assert f"https://opentelemetry.io/schemas/{SemConv.VERSION}" == SemConv.SCHEMA_URL
    assert SemConv.SCHEMA_URL in {each.value for each in Schemas}


def test_spans_say_who_made_them(tracing: Tracing, hook: OtelHook) -> None:
    scope = one(tracing, hook)[0].instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("discoclient", discoclient.__version__)
    assert scope.schema_url == SemConv.SCHEMA_URL


# --- what happens in the course of a call ----------------------------------------------------------------------------

RARE: list[tuple[Event, str, dict[str, Any]]] = [
    (
        InstanceEjected("web", WEB, "connect", 5.0),
        "disco.instance.ejected",
        {
            "disco.instance.id": "instance-1",
            "disco.ejection.reason": "connect",
            "disco.ejection.seconds": 5.0,
        },
    ),
    (
        EjectionSkipped("web", WEB, "connect", "alone"),
        "disco.instance.ejection_skipped",
        {
            "disco.instance.id": "instance-1",
            "disco.ejection.reason": "connect",
            "disco.ejection.because": "alone",
        },
    ),
    (InstanceUnejected("web", WEB), "disco.instance.unejected", {"disco.instance.id": "instance-1"}),
    (
        PanicChanged("web", True, 3, 4),
        "disco.panic.changed",
        {"disco.panic": True, "disco.panic.ejected": 3, "disco.panic.total": 4},
    ),
    (BudgetExhausted("web", "connect"), "disco.budget.exhausted", {"disco.retry.reason": "connect"}),
    (
        RequestThrottled("web", "throttle", 0.5),
        "disco.request.throttled",
        {"disco.throttle.policy": "throttle", "disco.throttle.probability": 0.5},
    ),
]


@pytest.mark.parametrize(("event", "name", "attributes"), RARE, ids=lambda value: type(value).__name__)
def test_what_happens_in_the_course_of_a_call_is_an_event_of_its_span(
    tracing: Tracing, hook: OtelHook, event: Event, name: str, attributes: dict[str, Any]
) -> None:
    hook.on_event(event)  # before any call: nobody's
    call = Call(hook)
    call.start()
    hook.on_event(event)
    call.end(REFUSED)
    call.done(error="ConnectError")
    hook.on_event(event)  # after it: nobody's
    (logical,), (attempt,) = tracing.calls, tracing.attempts
    assert [(each.name, dict(each.attributes or {})) for each in logical.events] == [(name, attributes)]
    assert attempt.events == ()


def test_what_concerns_another_service_is_not_of_this_call(tracing: Tracing, hook: OtelHook) -> None:
    call = Call(hook)
    hook.on_event(BudgetExhausted("ledger", "connect"))
    call.done(200)
    assert tracing.calls[0].events == ()


def test_what_happens_in_another_thread_is_not_of_this_call(tracing: Tracing, hook: OtelHook) -> None:
    call = Call(hook)
    in_threads([lambda: hook.on_event(BudgetExhausted("web", "connect"))])
    call.done(200)
    assert tracing.calls[0].events == ()


def test_a_call_within_a_call_has_its_own_events_and_then_the_outer_one_has_them_again(
    tracing: Tracing, hook: OtelHook
) -> None:
    """The body of the outer request is read from another service, say."""
    outer = Call(hook, service="web")
    inner = Call(hook, service="ledger")
    hook.on_event(BudgetExhausted("ledger", "inner"))
    inner.done(200)
    hook.on_event(BudgetExhausted("web", "outer"))
    outer.done(200)
    found = {
        described(span)["disco.service"]: [dict(event.attributes or {}) for event in span.events]
        for span in tracing.calls
    }
    assert found == {
        "web": [{"disco.retry.reason": "outer"}],
        "ledger": [{"disco.retry.reason": "inner"}],
    }
    assert is_at_rest(hook)


def test_two_hooks_of_one_client_each_have_the_whole_of_it() -> None:
    tracings = [Tracing(), Tracing()]
    hooks = [OtelHook(tracer_provider=each.provider) for each in tracings]
    outer = Call(*hooks, service="ledger")
    call = Call(*hooks)
    call.start()
    call.tell(BudgetExhausted("web", "connect"))
    call.end(REFUSED)
    call.done(error="ConnectError")
    outer.tell(BudgetExhausted("ledger", "connect"))
    outer.done(200)
    for tracing in tracings:
        assert len(tracing.spans) == 3
        assert [[event.name for event in span.events] for span in tracing.calls] == [
            ["disco.budget.exhausted"],
            ["disco.budget.exhausted"],
        ]
    assert all(map(is_at_rest, hooks))


@pytest.mark.parametrize(
    "event",
    [
        UnknownEvent(),
        SnapshotChanged("web", 7, 3, (), (), (), False),
        PhaseChanged("web", "live", 0.0),
        AttemptStarted(CallInfo("web", "GET", "http://web/"), 1, WEB),
        AttemptEnded(CallInfo("web", "GET", "http://web/"), 1, WEB, OK),
        CallEnded(CallInfo("web", "GET", "http://web/"), 1, 0.1, 200),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_no_concern_of_any_known_call_is_ignored(
    tracing: Tracing, hook: OtelHook, event: Any
) -> None:
    call = Call(hook)
    hook.on_event(cast("Event", event))
    call.tell(AttemptEnded(call.info, 1, WEB, OK))  # it never started
    call.done(200)
    assert len(tracing.spans) == 1
    assert tracing.spans[0].events == ()
    assert is_at_rest(hook)


def test_it_is_a_hook(hook: OtelHook) -> None:
    assert isinstance(hook, Hook)


def test_calls_whose_end_never_comes_are_ended_and_forgotten(
    tracing: Tracing, hook: OtelHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "MAX_OPEN", 2)
    calls = []
    for _ in range(3):
        calls.append(Call(hook))
        calls[-1].start()
    assert len(hook._calls) == 2
    assert len(tracing.spans) == 2
    for call in calls:
        call.done(200)
    assert len(tracing.spans) == 6
    assert hook._calls == {}
    otel._current.set(None)  # ended in the wrong order, on purpose


# --- any order, any number of threads and tasks ----------------------------------------------------------------------


def check_trees(tracing: Tracing, sent: dict[CallInfo, list[tuple[int, int]]]) -> None:
    """Every span has ended, once; every attempt is below its own call, and was sent with its own id."""
    assert len({id_of(span) for span in tracing.spans}) == len(tracing.spans)
    below: dict[tuple[int, int] | None, set[tuple[int, int]]] = {}
    for span in tracing.attempts:
        below.setdefault(parent_of(span), set()).add(id_of(span))
    by_url = {described(span)["url.full"]: span for span in tracing.calls}
    assert len(by_url) == len(tracing.calls) == len(sent)
    for info, ids in sent.items():
        assert below.get(id_of(by_url[info.url]), set()) == set(ids)
        assert len(set(ids)) == len(ids)
    assert sum(map(len, below.values())) == sum(map(len, sent.values()))


@thorough(150)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["start", "end", "done", "happen"]), st.data()),
        max_size=40,
    )
)
def test_whatever_the_interleaving_each_call_is_a_tree_of_its_own(
    steps: list[tuple[int, str, st.DataObject]],
) -> None:
    tracing = Tracing()
    hook = OtelHook(tracer_provider=tracing.provider)
    running: dict[int, tuple[Call, set[int]]] = {}
    sent: dict[CallInfo, list[tuple[int, int]]] = {}
    for which, step, data in steps:
        if which not in running:
            running[which] = Call(hook, url=f"http://web/{len(sent)}"), set()
            sent[running[which][0].info] = []
        call, still = running[which]
        if step == "start":
            sent[call.info].append(told(call.start()))
            still.add(len(call.attempts))
        elif step == "end" and still:
            number = data.draw(st.sampled_from(sorted(still)))
            still.remove(number)
            call.end(data.draw(st.sampled_from([OK, REFUSED, NO_ANSWER])), number=number)
        elif step == "done":
            call.done(200)
            del running[which]
        elif step == "happen":
            hook.on_event(BudgetExhausted("web", "connect"))
    for call, _ in running.values():
        call.done(error="CancelledError")
    check_trees(tracing, sent)
    assert hook._calls == {}
    otel._current.set(None)


def test_threads_do_not_get_into_each_others_trees(tracing: Tracing, hook: OtelHook) -> None:
    together = threading.Barrier(8)
    sent: dict[CallInfo, list[tuple[int, int]]] = {}

    def work(name: int) -> None:
        together.wait(10)
        for number in range(50):
            call = Call(hook, url=f"http://web/{name}/{number}")
            first = call.start()
            second = call.start(is_hedge=True)
            hook.on_event(BudgetExhausted("web", call.info.url))
            call.end(REFUSED, "connect", number=1)
            call.done(200)
            sent[call.info] = [told(first), told(second)]
        assert otel._current.get() is None

    in_threads([lambda name=name: work(name) for name in range(8)])
    check_trees(tracing, sent)
    for span in tracing.calls:
        (event,) = span.events
        assert described(span)["url.full"] == (event.attributes or {})["disco.retry.reason"]
    assert is_at_rest(hook)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks_do_not_get_into_each_others_trees(tracing: Tracing, hook: OtelHook, backend: str) -> None:
    sent: dict[CallInfo, list[tuple[int, int]]] = {}
    handlers: dict[str, tuple[int, int]] = {}

    async def hedge(call: Call) -> None:
        """Its task was started by the call's: what happens there is the call's too."""
        await anyio.lowlevel.checkpoint()
        sent[call.info].append(told(call.start(is_hedge=True)))
        hook.on_event(BudgetExhausted("web", call.info.url))

    async def work(name: int) -> None:
        with inside(f"handler {name}") as handler:
            for number in range(5):
                call = Call(hook, url=f"http://web/{name}/{number}")
                handlers[call.info.url] = id_of(handler)
                await anyio.lowlevel.checkpoint()
                sent[call.info] = [told(call.start())]
                async with anyio.create_task_group() as group:
                    group.start_soon(hedge, call)
                await anyio.lowlevel.checkpoint()
                call.end(REFUSED, number=1)
                call.done(200)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for name in range(5):
                group.start_soon(work, name)

    anyio.run(main, backend=backend)
    check_trees(tracing, sent)
    for span in tracing.calls:
        url = described(span)["url.full"]
        assert parent_of(span) == handlers[url]
        assert [(event.attributes or {})["disco.retry.reason"] for event in span.events] == [url]
    assert is_at_rest(hook)


# --- without an SDK, and without the API -----------------------------------------------------------------------------


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_without_an_sdk_nothing_is_kept_and_what_came_in_is_passed_on() -> None:
    run(
        "import sys\n"
        "for name in ('opentelemetry.sdk', 'opentelemetry.semconv'):\n"
        "    sys.modules[name] = None\n"  # the API is all that the extra installs
        "from opentelemetry import baggage, context, propagate\n"
        "from discoclient.otel import OtelHook\n"
        "from tests.hooks import OK, Call\n"
        "hook = OtelHook()\n"
        "call = Call(hook)\n"
        "assert hook._calls == {}\n"
        "assert call.start() == {}\n"
        "call.end(OK)\n"
        "call.done(200)\n"
        "came = {'traceparent': '00-' + 32 * '1' + '-' + 16 * '2' + '-01', 'baggage': 'a=b'}\n"
        "context.attach(propagate.extract(came))\n"
        "call = Call(hook)\n"
        "assert call.start() == came\n"
        "call.end(OK)\n"
        "call.done(200)\n"
        "assert hook._calls == {}\n"
    )


def test_an_sdk_that_is_set_up_after_the_hook_gets_its_spans() -> None:
    out = run(
        "from opentelemetry import trace\n"
        "from discoclient.otel import OtelHook\n"
        "from tests.hooks import OK, Call\n"
        "hook = OtelHook()\n"
        "Call(hook).done(200)\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "kept = InMemorySpanExporter()\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(kept))\n"
        "trace.set_tracer_provider(provider)\n"
        "call = Call(hook)\n"
        "assert call.start()\n"
        "call.end(OK)\n"
        "call.done(200)\n"
        "print(*(span.name for span in kept.get_finished_spans()), sep=', ')\n"
    )
    assert out == "GET, disco GET web\n"


def test_without_opentelemetry_the_error_names_the_extra_and_the_rest_works() -> None:
    out = run(
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "import discoclient\n"
        "try:\n"
        "    import discoclient.otel\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'discoclient[otel]'" in out
