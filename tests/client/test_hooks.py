"""Hooks: what they are told, in which order, by whom; what they may do; and what happens if one fails."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace

import anyio
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from discoclient import DiscoClient, Event, Hook, NoInstances, OutlierPolicy
from discoclient.model.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    EjectionSkipped,
    InstanceEjected,
    InstancesHeld,
    InstanceUnejected,
    PanicChanged,
    PhaseChanged,
    SnapshotChanged,
)
from discoclient.model.outcome import OutcomeKind
from discoclient.otel import OtelHook
from discoclient.prometheus import PrometheusHook
from discoclient.testing import TestRegistry
from tests.client.balancers import BySlot
from tests.client.fleet import Fleet
from tests.client.scenes import DecisionClock, Events, FirstWell, disco, in_order
from tests.client.shells import Shell, in_every_shell
from tests.support.eventually import eventually, eventually_async
from tests.support.servers import answer, close_unanswered, never, refused_port, stream

CALL = ("CallStarted", "AttemptStarted", "AttemptEnded", "CallEnded")


def of_calls(events: Events) -> list[Event]:
    """Those that are about calls and attempts."""
    return [event for event in events.all if type(event).__name__ in CALL]


# ---- what is told of a call


@in_every_shell
async def test_a_call_is_told_from_its_start_to_its_end(shell: Shell, fleet: Fleet) -> None:
    server, events = fleet.add(answer(status=404)), Events()
    async with shell.client(hooks=[events]) as client:
        await client.post("/users?a=b", content=b"x")
    started, attempt, attempt_ended, ended = of_calls(events)
    assert isinstance(started, CallStarted)
    assert (started.call.service, started.call.method) == ("experiment", "POST")
    assert started.call.url == "http://experiment/users?a=b"
    assert isinstance(attempt, AttemptStarted)
    assert (attempt.number, attempt.instance, attempt.is_hedge) == (1, fleet.instance(server), False)
    assert isinstance(attempt_ended, AttemptEnded)
    assert (attempt_ended.number, attempt_ended.instance, attempt_ended.retry) == (1, attempt.instance, None)
    outcome = attempt_ended.outcome
    assert (outcome.kind, outcome.status, outcome.error) == (OutcomeKind.RESPONSE, 404, None)
    assert isinstance(ended, CallEnded)
    assert (ended.attempts, ended.status, ended.error) == (1, 404, None)
    assert ended.instance == fleet.instance(server)
    assert 0 < outcome.latency <= ended.seconds
    assert started.call is attempt.call is attempt_ended.call is ended.call


@in_every_shell
async def test_every_attempt_is_told_and_why_there_was_another(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    with refused_port() as port:
        refusing = fleet.register(port=port, slot="")
        servers = in_order(fleet, answer(status=503), answer())
        async with shell.client(balancer=BySlot(), hooks=[events]) as client:
            await client.get()
    told = [type(event).__name__ for event in of_calls(events)]
    assert told == ["CallStarted", *["AttemptStarted", "AttemptEnded"] * 3, "CallEnded"]
    starts, ends = events.of(AttemptStarted), events.of(AttemptEnded)
    instances = [refusing, *map(fleet.instance, servers)]
    assert [(each.number, each.instance) for each in starts] == list(enumerate(instances, start=1))
    assert [(each.number, each.instance) for each in ends] == list(enumerate(instances, start=1))
    assert [each.outcome.kind for each in ends] == ["not_sent", "response", "response"]
    assert [each.outcome.error for each in ends] == ["ConnectError", None, None]
    assert [each.retry for each in ends] == ["connect", "unavailable", None]
    assert events.of(CallEnded)[0].attempts == 3


@in_every_shell
async def test_a_call_that_fails_is_told_by_the_name_of_its_error(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    fleet.add(close_unanswered())
    async with shell.client(hooks=[events]) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get()
    (ended,) = events.of(CallEnded)
    assert (ended.attempts, ended.status, ended.error) == (1, None, "RemoteProtocolError")
    assert ended.instance is None


@in_every_shell
async def test_a_call_without_an_attempt_is_told(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    async with shell.client("nobody", hooks=[events]) as client:
        with pytest.raises(NoInstances):
            await client.get()
        with pytest.raises(httpx.ReadTimeout):
            await client.get(**disco(deadline=0))
    assert [type(event).__name__ for event in of_calls(events)] == ["CallStarted", "CallEnded"] * 2
    assert [event.error for event in events.of(CallEnded)] == ["NoInstances", "DeadlineExceeded"]
    assert [event.attempts for event in events.of(CallEnded)] == [0, 0]


@in_every_shell
async def test_a_deadline_is_told(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    fleet.add(never())
    async with shell.client(hooks=[events], timeout=None) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(**disco(deadline=0.1))
    (end,), (ended,) = events.of(AttemptEnded), events.of(CallEnded)
    assert (end.outcome.kind, end.retry) == (OutcomeKind.EXPIRED, None)
    assert (ended.error, ended.attempts) == ("DeadlineExceeded", 1)


@in_every_shell
async def test_the_end_is_told_with_the_head_and_not_with_the_body(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    fleet.add(stream([b"a", b"b"], wait=lambda: False))
    async with shell.client(hooks=[events]) as client:
        response = await client.open()
        assert len(events.of(CallEnded)) == 1
        await client.close_response(response)
    assert len(events.of(CallEnded)) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_that_is_cancelled_is_told(fleet: Fleet, backend: str) -> None:
    events, shell = Events(), Shell(backend)
    server = fleet.add(never())

    async def main() -> None:
        async with shell.client(hooks=[events], timeout=None) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.get)
            await eventually_async(lambda: server.requests == 1)
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    (ended,) = events.of(CallEnded)
    assert ended.status is None
    assert ended.error in ("CancelledError", "Cancelled")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_attempt_that_ended_is_told_also_if_the_wait_after_it_is_cancelled(
    fleet: Fleet, backend: str
) -> None:
    events, shell = Events(), Shell(backend)
    servers = in_order(fleet, answer(status=503, headers={"Retry-After": "50"}), answer())

    async def main() -> None:
        async with shell.client(balancer=BySlot(), hooks=[events], deadline=100.0) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get)
                await eventually_async(lambda: servers[0].requests == 1)
                await eventually_async(lambda: fleet.endpoint(servers[0]).failures == 1)
                tasks.cancel_scope.cancel()
            assert fleet.in_flight() == 0

    anyio.run(main, backend=backend)
    assert servers[1].requests == 0
    assert [event.outcome.status for event in events.of(AttemptEnded)] == [503]


@in_every_shell
async def test_calls_at_the_same_time_are_told_apart(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    in_order(fleet, answer(status=503, delay=0.005), answer(delay=0.005))
    outlier = OutlierPolicy(max_ejected=0.0)
    async with shell.client(balancer=BySlot(), hooks=[events], outlier=outlier) as client:
        await shell.together(*[client.get] * 8)
    calls = {id(event.call): event.call for event in events.of(CallStarted)}
    assert len(calls) == 8
    for call in calls.values():
        mine = [event for event in of_calls(events) if getattr(event, "call", None) is call]
        told = [type(event).__name__ for event in mine]
        assert told == ["CallStarted", *["AttemptStarted", "AttemptEnded"] * 2, "CallEnded"]


@in_every_shell
async def test_a_redirect_is_a_call_of_its_own(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    server = fleet.add(answer(status=302, headers={"Location": "/there"}))
    async with shell.client(hooks=[events], follow_redirects=True, max_redirects=1) as client:
        with pytest.raises(httpx.TooManyRedirects):
            await client.get("/here")
    urls = [event.call.url for event in events.of(CallStarted)]
    assert urls == ["http://experiment/here", "http://experiment/there"]
    assert server.requests == 2


# ---- what is told of instances


@in_every_shell
async def test_an_instance_that_is_left_alone_and_comes_back_is_told(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, events = DecisionClock(monkeypatch, is_frozen=True), Events()
    server, _ = in_order(fleet, answer(status=503), answer())
    outlier = OutlierPolicy(base_ejection=100.0, max_ejection=100.0, consecutive_failures=2)
    async with shell.client(balancer=FirstWell(), outlier=outlier, hooks=[events]) as client:
        for _ in range(3):
            await client.get()
        (ejected,) = events.of(InstanceEjected)
        assert (ejected.service, ejected.instance) == ("experiment", fleet.instance(server))
        assert ejected.reason == "consecutive"
        assert 50 <= ejected.seconds <= 100
        assert server.requests == 2
        clock.advance(101.0)
        server.behaviour = answer()
        await client.get()
        assert [event.instance for event in events.of(InstanceUnejected)] == [fleet.instance(server)]
        assert server.requests == 3
        clock.advance(1.0)
        server.behaviour = answer(status=503)
        for _ in range(2):
            await client.get()
        clock.advance(101.0)
        await client.get()
    assert [event.reason for event in events.of(InstanceEjected)] == ["consecutive", "consecutive", "probe"]
    ejections = [event for event in events.all if isinstance(event, InstanceEjected | AttemptEnded)]
    assert isinstance(
        ejections[ejections.index(ejected) + 1], AttemptEnded
    )  # told in the course of its attempt


@in_every_shell
async def test_a_panic_is_told_when_it_begins_and_when_it_ends(
    shell: Shell, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, events = DecisionClock(monkeypatch, is_frozen=True), Events()
    servers = in_order(fleet, *[answer(status=503)] * 3, answer())
    outlier = OutlierPolicy(base_ejection=100.0, max_ejection=100.0, consecutive_failures=1)
    async with shell.client(balancer=FirstWell(), outlier=outlier, hooks=[events]) as client:
        for _ in range(2):
            await client.get()
        assert len(events.of(InstanceEjected)) == 2
        (spared,) = events.of(EjectionSkipped)
        assert (spared.instance, spared.reason) == (fleet.instance(servers[2]), "consecutive")
        assert spared.because == "max_ejected"
        (began,) = events.of(PanicChanged)
        assert (began.service, began.is_panic, began.ejected, began.total) == ("experiment", True, 2, 4)
        assert (await client._do("explain")).is_panic
        assert ", in panic" in str(await client._do("explain"))
        for server in servers:
            server.behaviour = answer()
        clock.advance(101.0)
        for _ in range(3):
            await client.get()
            clock.advance(2.0)
        began, ended = events.of(PanicChanged)
        assert not ended.is_panic
        assert not (await client._do("explain")).is_panic


@in_every_shell
async def test_what_changes_in_the_registry_is_told(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    first = fleet.add()
    async with shell.client(hooks=[events]) as client:
        await client.get()
        await shell.eventually(lambda: events.of(SnapshotChanged))
        events.all.clear()
        second = fleet.add()
        fleet.change(first, replace(fleet.instance(first), weight=7))
        fleet.remove(second)
        added, changed, removed = _snapshots(events, 3)
        ids = [fleet.instance(first).id, fleet.instance(second).id]
        assert (added.service, added.added, added.removed, added.changed) == ("experiment", (ids[1],), (), ())
        assert (added.total, added.is_suspect) == (2, False)
        assert (changed.added, changed.removed, changed.changed, changed.total) == ((), (), (ids[0],), 2)
        assert removed.total == 1
        assert added.revision < changed.revision < removed.revision


def _snapshots(events: Events, least: int) -> list[SnapshotChanged]:
    found = events.of(SnapshotChanged)
    assert len(found) >= least
    return [*found[: least - 1], found[-1]]


@in_every_shell
async def test_how_much_the_knowledge_is_worth_is_told(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    fleet.add()
    async with shell.client(hooks=[events]) as client:
        await client.get()
        # Told, and not only known: it is known a moment before, and who came late is told a moment later.
        await shell.eventually(lambda: [event.phase for event in events.of(PhaseChanged)][-1:] == ["live"])
        await shell.eventually(lambda: events.of(SnapshotChanged))
        events.all.clear()
        fleet.registry.set_down(True)
        await shell.eventually(lambda: [event.phase for event in events.of(PhaseChanged)] == ["suspect"])
        fleet.registry.set_down(False)
        await shell.eventually(lambda: events.of(PhaseChanged)[-1].phase == "live")
        await client.get()
    assert {event.service for event in events.of(PhaseChanged)} == {"experiment"}
    assert all(event.age is not None for event in events.of(PhaseChanged))


@in_every_shell
async def test_who_vanished_is_told(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    servers = [fleet.add() for _ in range(3)]
    instances = [fleet.instance(server) for server in servers]
    async with shell.client(hooks=[events], vanish_grace=20.0) as client:
        await client.get()
        fleet.registry.expire(*instances)
        (held,) = await shell.eventually(lambda: events.of(InstancesHeld))
    assert set(held.ids) == {instance.id for instance in instances}
    assert (held.service, held.seconds) == ("experiment", 20.0)


@in_every_shell
async def test_a_client_that_is_gone_is_told_nothing_more(shell: Shell, fleet: Fleet) -> None:
    events = Events()
    fleet.add()
    client = shell.client(hooks=[events])
    await client.get()
    await client.close()
    del client

    def is_told() -> bool:
        gc.collect()
        events.all.clear()
        fleet.add()
        return bool(events.all)

    # Whoever was about to tell it a moment ago may still hold it.
    await shell.eventually(lambda: not is_told(), what="it is told nothing more")


# ---- what a hook may do


class Naming:
    """Puts headers into attempts."""

    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def on_event(self, event: Event) -> None:
        if isinstance(event, AttemptStarted):
            event.headers.update(self.headers)
            event.headers["x-attempt"] = str(event.number)


@in_every_shell
async def test_headers_of_a_hook_arrive_with_each_attempt(shell: Shell, fleet: Fleet) -> None:
    servers = in_order(fleet, answer(status=503), answer())
    hook = Naming(traceparent="00-1", X_Tenant="the hook's")
    async with shell.client(balancer=BySlot(), hooks=[hook]) as client:
        await client.get(headers={"x-tenant": "the caller's", "X-Other": "stays"})
    for number, server in enumerate(servers, start=1):
        seen = server.seen[0].headers
        assert (seen["traceparent"], seen["x-tenant"], seen["x-attempt"]) == (
            "00-1",
            "the hook's",
            str(number),
        )
        assert seen["x-other"] == "stays"
        assert seen["x-disco-expect"] == f"experiment/{fleet.instance(server).id}"


@in_every_shell
async def test_headers_of_several_hooks_add_up_and_are_not_kept(shell: Shell, fleet: Fleet) -> None:
    server = fleet.add()
    async with shell.client(hooks=[Naming(one="1"), Naming(two="2")]) as client:
        request = client.raw.build_request("GET", "/")
        await client.send(request)
        assert not {"one", "two", "x-attempt"} & set(request.headers)
    seen = server.seen[0].headers
    assert (seen["one"], seen["two"]) == ("1", "2")


@in_every_shell
async def test_a_hook_may_call_others(shell: Shell, fleet: Fleet) -> None:
    """It is called in the middle of things, and yet nothing is locked."""
    fleet.add(service="other")
    fleet.add()
    answers: list[int] = []

    class Calling:
        def on_event(self, event: Event) -> None:
            if isinstance(event, AttemptStarted | InstanceEjected):
                with DiscoClient("other") as client:
                    answers.append(client.get("/").status_code)

    with refused_port() as port:
        fleet.register(port=port, slot="")
        async with shell.client(balancer=FirstWell(), hooks=[Calling()]) as client:
            assert (await client.get()).status_code == 200
    assert answers == [200, 200, 200]


# ---- a hook that fails


class Failing:
    def __init__(self) -> None:
        self.calls = 0

    def on_event(self, event: Event) -> None:
        self.calls += 1
        raise ZeroDivisionError("my own fault")


@in_every_shell
async def test_a_hook_that_fails_stops_nobody_and_is_logged_once_for_each_kind(
    shell: Shell, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    failing, events = Failing(), Events()
    with refused_port() as port:
        fleet.register(port=port, slot="")
        in_order(fleet, answer(status=503), answer(b"ok"))
        with caplog.at_level(logging.ERROR, "discoclient"):
            async with shell.client(balancer=FirstWell(), hooks=[failing, events]) as client:
                for _ in range(5):
                    assert (await client.get()).content == b"ok"
                fleet.add()
    assert failing.calls >= len(of_calls(events)) > 20
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    kinds = [record.getMessage().rpartition(" ")[2] for record in errors]
    assert len(kinds) == len(set(kinds))
    assert {*CALL, "InstanceEjected"} <= set(kinds)
    assert all(record.exc_info is not None for record in errors)
    assert fleet.in_flight() == 0


@in_every_shell
async def test_a_hook_that_fails_does_not_keep_the_headers_of_others_back(
    shell: Shell, fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    server = fleet.add()
    async with shell.client(hooks=[Failing(), Naming(one="1")]) as client:
        await client.get()
    assert server.seen[0].headers["one"] == "1"


def test_a_hook_is_not_kept_alive_by_what_is_shared(fleet: Fleet) -> None:
    fleet.add()
    events = Events()
    with DiscoClient("experiment", hooks=[events]) as client:
        client.get("/")
    found = weakref.ref(events)
    del events, client
    eventually(lambda: gc.collect() >= 0 and found() is None, what="the hook is gone")


def test_what_is_told_of_a_call_is_told_in_the_thread_that_makes_it(fleet: Fleet) -> None:
    fleet.add()
    threads: dict[str, set[str]] = {}

    class Where:
        def on_event(self, event: Event) -> None:
            threads.setdefault(type(event).__name__, set()).add(threading.current_thread().name)

    assert isinstance(Where(), Hook)
    with DiscoClient("experiment", hooks=[Where()]) as client:
        client.get("/")
        fleet.add()
    for name in CALL:
        assert threads[name] == {threading.current_thread().name}
    assert threading.current_thread().name not in threads["SnapshotChanged"]


# ---- the two that come with it, with real calls


@in_every_shell
async def test_metrics_of_real_calls(shell: Shell, fleet: Fleet) -> None:
    registry = CollectorRegistry()
    hook = PrometheusHook(registry=registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"disco_{name}", {"service": "experiment", **labels})

    with refused_port() as port:
        fleet.register(port=port, slot="")
        servers = in_order(fleet, answer(status=503), answer())
        async with shell.client(balancer=FirstWell(), hooks=[hook]) as client:
            for _ in range(3):
                await client.get()
            assert (await client.post()).status_code == 503
            fleet.add(slot="9")
    assert value("calls_total", result="2xx") == 3
    assert value("calls_total", result="5xx") == 1
    assert value("call_duration_seconds_count") == 4
    assert value("attempts_total", outcome="not_sent") == 1
    assert value("attempts_total", outcome="5xx") == servers[0].requests == 4
    assert value("attempts_total", outcome="2xx") == servers[1].requests == 3
    assert value("retries_total", reason="connect") == 1
    assert value("retries_total", reason="unavailable") == 3
    assert value("ejections_total", reason="connect") == 1
    assert value("snapshot_instances") == 4
    assert (value("snapshot_revision") or 0) > 0


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


@in_every_shell
async def test_the_span_of_each_attempt_arrives_at_its_server(
    shell: Shell, fleet: Fleet, spans: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = spans
    servers = in_order(fleet, answer(status=503), answer())
    async with shell.client(balancer=BySlot(), hooks=[OtelHook(tracer_provider=provider)]) as client:
        with trace.get_tracer("test", tracer_provider=provider).start_as_current_span("the caller's"):
            await client.get(headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})
    first, second, call, caller = exporter.get_finished_spans()
    for span, server in ((first, servers[0]), (second, servers[1])):
        assert span.context is not None
        sent = server.seen[0].headers["traceparent"].split("-")
        assert sent[1:3] == [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]
        assert span.kind is SpanKind.CLIENT
        assert _attributes(span)["server.port"] == server.port
        assert _attributes(span)["disco.instance.id"] == fleet.instance(server).id
        assert span.parent == call.context
    assert call.parent == caller.context
    assert len({span.context.trace_id for span in (first, second, call, caller) if span.context}) == 1
    assert _attributes(first)["http.response.status_code"] == 503
    assert _attributes(first)["disco.retry.reason"] == "unavailable"
    assert first.status.status_code is StatusCode.ERROR
    assert _attributes(second)["http.request.resend_count"] == 1
    assert _attributes(call)["disco.attempts"] == 2
    assert _attributes(call)["url.full"] == "http://experiment/"
    assert call.status.status_code is StatusCode.UNSET


def _attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@in_every_shell
async def test_at_the_same_time_each_server_gets_the_span_of_its_own_attempt(
    shell: Shell, fleet: Fleet, spans: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = spans
    server = fleet.add(answer(delay=0.01))
    async with shell.client(hooks=[OtelHook(tracer_provider=provider)]) as client:
        await shell.together(*[client.get] * 6)
    attempts = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]
    sent = {f"{span.context.span_id:016x}" for span in attempts if span.context is not None}
    assert sent == {seen.headers["traceparent"].split("-")[2] for seen in server.seen}
    assert len(sent) == 6


@in_every_shell
async def test_both_at_once_and_events_of_others_in_between(
    shell: Shell,
    fleet: Fleet,
    registry: TestRegistry,
    spans: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    provider, exporter = spans
    metrics = CollectorRegistry()
    hooks = [PrometheusHook(registry=metrics), OtelHook(tracer_provider=provider)]
    with refused_port() as port:
        fleet.register(port=port, slot="")
        in_order(fleet, answer())
        async with shell.client(balancer=BySlot(), hooks=hooks) as client:
            await client.get()
    call = next(span for span in exporter.get_finished_spans() if span.kind is SpanKind.INTERNAL)
    assert [event.name for event in call.events] == ["disco.instance.ejected"]
    labels = {"service": "experiment", "reason": "connect"}
    assert metrics.get_sample_value("disco_ejections_total", labels) == 1
