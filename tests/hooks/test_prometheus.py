"""Metrics: what the events add up to, under which names, and that nothing grows without end."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any, cast

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from discoclient import prometheus
from discoclient.model.errors import ConfigError
from discoclient.model.events import (
    BudgetExhausted,
    EjectionSkipped,
    Event,
    Hook,
    InstanceEjected,
    InstancesHeld,
    InstanceUnejected,
    PanicChanged,
    PhaseChanged,
    RequestThrottled,
    SnapshotChanged,
)
from discoclient.model.outcome import Outcome, OutcomeKind
from discoclient.prometheus import BUCKETS, PrometheusHook
from tests.hooks import NO_ANSWER, OK, REFUSED, Call, UnknownEvent, instance, response
from tests.support.properties import thorough
from tests.support.threads import in_threads

WEB = instance(1)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def hook(registry: CollectorRegistry) -> PrometheusHook:
    return PrometheusHook(registry=registry)


def samples(registry: CollectorRegistry, only: str = "") -> dict[str, float]:
    """Everything that is exposed, without the histogram's buckets and when a series began. ``name{value,value}``."""
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if only in sample.name and not sample.name.endswith(("_bucket", "_created"))
    }


def served(hook: Hook, number: int = 1, service: str = "web") -> None:
    call = Call(hook, service=service)
    call.start(instance(number))
    call.end(OK)
    call.done(200)


# --- calls and attempts ----------------------------------------------------------------------------------------------


def test_a_call_that_is_answered_counts_once_with_its_attempt_and_its_time(
    hook: PrometheusHook, registry: CollectorRegistry
) -> None:
    call = Call(hook)
    call.start()
    call.end(OK)
    call.done(200, seconds=0.25)
    assert samples(registry) == {
        "disco_calls_total{web,2xx}": 1,
        "disco_call_duration_seconds_count{web}": 1,
        "disco_call_duration_seconds_sum{web}": 0.25,
        "disco_attempts_total{web,2xx}": 1,
    }


@pytest.mark.parametrize(
    ("status", "error", "result"),
    [
        (200, None, "2xx"),
        (204, None, "2xx"),
        (302, None, "3xx"),
        (404, None, "4xx"),
        (503, None, "5xx"),
        (None, "ConnectTimeout", "ConnectTimeout"),
        (None, "NoInstances", "NoInstances"),
        (200, "DeadlineExceeded", "DeadlineExceeded"),
        (None, None, "unknown"),
    ],
)
def test_the_result_of_a_call_is_the_class_of_its_status_or_of_its_exception(
    hook: PrometheusHook, registry: CollectorRegistry, status: int | None, error: str | None, result: str
) -> None:
    Call(hook).done(status, error=error)
    assert samples(registry, "disco_calls") == {f"disco_calls_total{{web,{result}}}": 1}


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        (response(200), "2xx"),
        (response(404), "4xx"),
        (response(503), "5xx"),
        *((Outcome(kind, 0.1, 421), kind.value) for kind in OutcomeKind if kind is not OutcomeKind.RESPONSE),
    ],
)
def test_the_outcome_of_an_attempt_is_the_class_of_its_status_or_what_went_wrong(
    hook: PrometheusHook, registry: CollectorRegistry, outcome: Outcome, label: str
) -> None:
    call = Call(hook)
    call.start()
    call.end(outcome)
    call.done(error="ReadError")
    assert samples(registry, "disco_attempts") == {f"disco_attempts_total{{web,{label}}}": 1}


def test_retries_count_by_reason(hook: PrometheusHook, registry: CollectorRegistry) -> None:
    call = Call(hook)
    for outcome, retry in (
        (REFUSED, "connect"),
        (REFUSED, "connect"),
        (response(503), "unavailable"),
        (OK, None),
    ):
        call.start()
        call.end(outcome, retry)
    call.done(200)
    assert samples(registry, "disco_retries") == {
        "disco_retries_total{web,connect}": 2,
        "disco_retries_total{web,unavailable}": 1,
    }
    assert samples(registry, "disco_attempts") == {
        "disco_attempts_total{web,not_sent}": 2,
        "disco_attempts_total{web,5xx}": 1,
        "disco_attempts_total{web,2xx}": 1,
    }


def test_an_attempt_that_is_open_when_its_call_ends_was_cancelled(
    hook: PrometheusHook, registry: CollectorRegistry
) -> None:
    call = Call(hook)
    call.start()
    call.done(error="CancelledError")
    assert samples(registry, "disco_attempts") == {"disco_attempts_total{web,cancelled}": 1}


def test_of_two_hedged_attempts_one_is_answered_and_one_cancelled(
    hook: PrometheusHook, registry: CollectorRegistry
) -> None:
    call = Call(hook)
    call.start()
    call.start(is_hedge=True)
    call.end(OK, number=2)
    call.done(200)
    call.end(NO_ANSWER, number=1)  # what comes after the end is not counted again
    assert samples(registry, "disco_attempts") == {
        "disco_attempts_total{web,2xx}": 1,
        "disco_attempts_total{web,cancelled}": 1,
    }
    assert samples(registry, "disco_hedges") == {"disco_hedges_total{web}": 1}


def test_two_hedged_attempts_that_both_end_are_both_told(
    hook: PrometheusHook, registry: CollectorRegistry
) -> None:
    """The negative control: cancelled are only those that did not end."""
    call = Call(hook)
    call.start()
    call.start(is_hedge=True)
    call.end(OK, number=2)
    call.end(NO_ANSWER, number=1)
    call.done(200)
    assert samples(registry, "disco_attempts") == {
        "disco_attempts_total{web,2xx}": 1,
        "disco_attempts_total{web,no_answer}": 1,
    }


# --- everything else -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [InstanceEjected("web", WEB, "connect", 5.0), InstanceEjected("web", WEB, "consecutive", 10.0)],
            {"disco_ejections_total{web,connect}": 1, "disco_ejections_total{web,consecutive}": 1},
        ),
        (
            [EjectionSkipped("web", WEB, "connect", "alone"), EjectionSkipped("web", WEB, "probe", "alone")],
            {"disco_ejections_skipped_total{web,alone}": 2},
        ),
        ([InstanceUnejected("web", WEB)], {"disco_unejections_total{web}": 1}),
        ([PanicChanged("web", True, 3, 4)], {"disco_panic{web}": 1}),
        ([PanicChanged("web", True, 3, 4), PanicChanged("web", False, 1, 4)], {"disco_panic{web}": 0}),
        ([BudgetExhausted("web", "connect")], {"disco_budget_exhausted_total{web,connect}": 1}),
        ([RequestThrottled("web", "recovery", 0.5)], {"disco_throttled_total{web,recovery}": 1}),
        (
            [
                SnapshotChanged("web", 7, 3, ("a", "b", "c"), (), (), False),
                SnapshotChanged("web", 9, 2, (), ("a",), (), True),
            ],
            {"disco_snapshot_instances{web}": 2, "disco_snapshot_revision{web}": 9},
        ),
        (
            [PhaseChanged("web", "syncing", None), PhaseChanged("web", "live", 0.0)],
            {
                "disco_phase{web,empty}": 0,
                "disco_phase{web,syncing}": 0,
                "disco_phase{web,live}": 1,
                "disco_phase{web,suspect}": 0,
            },
        ),
        ([InstancesHeld("web", ("a", "b"), 60.0)], {}),
        ([cast("Event", UnknownEvent())], {}),
    ],
    ids=lambda value: type(value[0]).__name__ if isinstance(value, list) else "",
)
def test_what_each_event_does(
    hook: PrometheusHook, registry: CollectorRegistry, events: list[Event], expected: dict[str, float]
) -> None:
    for event in events:
        hook.on_event(event)
    assert samples(registry) == expected


def test_it_is_a_hook(hook: PrometheusHook) -> None:
    assert isinstance(hook, Hook)


# --- names -----------------------------------------------------------------------------------------------------------


def everything(hook: Hook) -> None:
    call = Call(hook)
    call.start()
    call.start(is_hedge=True)
    call.end(REFUSED, "connect", number=1)
    call.end(OK, number=2)
    call.done(200)
    for event in (
        InstanceEjected("web", WEB, "connect", 5.0),
        EjectionSkipped("web", WEB, "connect", "alone"),
        InstanceUnejected("web", WEB),
        PanicChanged("web", True, 3, 4),
        BudgetExhausted("web", "connect"),
        RequestThrottled("web", "throttle", 0.5),
        SnapshotChanged("web", 7, 3, ("a", "b", "c"), (), (), False),
        PhaseChanged("web", "live", 0.0),
    ):
        hook.on_event(event)


def test_the_metrics_are_those_of_the_documentation_with_their_labels(
    hook: PrometheusHook, registry: CollectorRegistry
) -> None:
    everything(hook)
    documented = {
        name: set(labels.split(", "))
        for name, labels in re.findall(
            r"^``(disco_\w+)`` +(\w+(?:, \w+)*)  ", prometheus.__doc__ or "", re.MULTILINE
        )
    }
    exposed: dict[str, set[str]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                name = metric.name if metric.type == "histogram" else sample.name
                exposed.setdefault(name, set()).update(set(sample.labels) - {"le"})
    assert exposed == documented


def test_names_follow_prometheus_own_rules(hook: PrometheusHook, registry: CollectorRegistry) -> None:
    everything(hook)
    for metric in registry.collect():
        names = {sample.name for sample in metric.samples}
        assert re.fullmatch(r"disco_[a-z_]+", metric.name)
        assert metric.documentation.endswith(".")
        assert (f"{metric.name}_total" in names) == (metric.type == "counter")
        assert metric.name.endswith("_seconds") == (metric.type == "histogram")
    text = generate_latest(registry).decode()
    assert 'disco_calls_total{result="2xx",service="web"} 1.0' in text


# --- options ---------------------------------------------------------------------------------------------------------


def test_by_default_the_metrics_are_in_the_librarys_own_registry() -> None:
    hook = PrometheusHook(namespace="disco_test_of_defaults")
    try:
        served(hook)
        assert (
            REGISTRY.get_sample_value(
                "disco_test_of_defaults_calls_total", {"service": "web", "result": "2xx"}
            )
            == 1
        )
    finally:
        for each in vars(hook._metrics).values():
            if isinstance(each, prometheus_client.metrics.MetricWrapperBase):
                REGISTRY.unregister(each)


def test_the_namespace_is_the_beginning_of_every_name(registry: CollectorRegistry) -> None:
    everything(PrometheusHook(registry=registry, namespace="shop"))
    assert samples(registry)
    assert all(name.startswith("shop_") for name in samples(registry))


def bounds(registry: CollectorRegistry) -> list[str]:
    return [
        sample.labels["le"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "disco_call_duration_seconds_bucket"
    ]


def test_the_buckets_are_the_callers(registry: CollectorRegistry) -> None:
    served(PrometheusHook(registry=registry, buckets=(0.5, 2)))
    assert bounds(registry) == ["0.5", "2.0", "+Inf"]


def test_the_buckets_are_by_default_finer_than_the_librarys(
    hook: PrometheusHook, registry: CollectorRegistry
) -> None:
    served(hook)
    assert list(map(float, bounds(registry))) == list(BUCKETS)
    assert BUCKETS[:3] == (0.001, 0.0025, 0.005)


def test_instances_have_no_label_unless_it_is_asked_for(registry: CollectorRegistry) -> None:
    for hook in (
        PrometheusHook(registry=registry, namespace="without"),
        PrometheusHook(registry=registry, namespace="with", per_instance=True),
    ):
        served(hook, 1)
        served(hook, 2)
        hook.on_event(InstanceEjected("web", instance(2), "connect", 5.0))
        call = Call(hook)
        call.start(instance(1))
        call.done(error="CancelledError")
    assert samples(registry, "out_attempts") | samples(registry, "out_ejections") == {
        "without_attempts_total{web,2xx}": 2,
        "without_attempts_total{web,cancelled}": 1,
        "without_ejections_total{web,connect}": 1,
    }
    assert samples(registry, "with_attempts") | samples(registry, "with_ejections") == {
        "with_attempts_total{web,2xx,instance-1}": 1,
        "with_attempts_total{web,2xx,instance-2}": 1,
        "with_attempts_total{web,cancelled,instance-1}": 1,
        "with_ejections_total{web,connect,instance-2}": 1,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"buckets": (2, 1)},
        {"buckets": ()},
        {"buckets": ("soon",)},
        {"buckets": None},
        {"buckets": 1.0},
        {"namespace": ""},
        {"namespace": "a-b"},
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_an_error_and_leaves_nothing_behind(
    registry: CollectorRegistry, wrong: dict[str, Any]
) -> None:
    (option,) = wrong
    with pytest.raises(ConfigError, match=option):
        PrometheusHook(registry=registry, **wrong)
    assert list(registry.collect()) == []
    served(PrometheusHook(registry=registry))


# --- several hooks ---------------------------------------------------------------------------------------------------


def test_two_hooks_with_one_registry_count_in_the_same_metrics(registry: CollectorRegistry) -> None:
    for _ in range(2):
        served(PrometheusHook(registry=registry))
    assert samples(registry, "disco_calls") == {"disco_calls_total{web,2xx}": 2}


@pytest.mark.parametrize("other", [{"buckets": (1.0,)}, {"per_instance": True}], ids=repr)
def test_a_second_hook_with_other_options_is_refused_with_advice(
    registry: CollectorRegistry, other: dict[str, Any]
) -> None:
    first = PrometheusHook(registry=registry)
    with pytest.raises(ConfigError, match=r"namespace 'disco'.*namespace or registry of its own"):
        PrometheusHook(registry=registry, **other)
    PrometheusHook(registry=registry, namespace="its_own", **other)
    PrometheusHook(registry=CollectorRegistry(), **other)
    served(first)
    assert samples(registry, "disco_calls") == {"disco_calls_total{web,2xx}": 1}


def test_where_a_name_is_taken_by_something_else_nothing_is_registered(registry: CollectorRegistry) -> None:
    taken = prometheus_client.Gauge("disco_phase", "The moon's.", registry=registry)
    with pytest.raises(ConfigError, match="disco_phase"):
        PrometheusHook(registry=registry)
    assert [metric.name for metric in registry.collect()] == ["disco_phase"]
    registry.unregister(taken)
    served(PrometheusHook(registry=registry))
    assert samples(registry, "disco_calls") == {"disco_calls_total{web,2xx}": 1}


# --- nothing grows without end ---------------------------------------------------------------------------------------


def test_a_registry_that_is_dropped_is_gone() -> None:
    registry = CollectorRegistry()
    served(PrometheusHook(registry=registry))
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_services_beyond_a_limit_share_a_label(
    hook: PrometheusHook, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "MAX_SERVICES", 2)
    for service in ("a", "b", "c", "d", "a"):
        served(hook, service=service)
        hook.on_event(PanicChanged(service, True, 1, 1))
    assert samples(registry, "disco_calls") == {
        "disco_calls_total{a,2xx}": 2,
        "disco_calls_total{b,2xx}": 1,
        "disco_calls_total{_other,2xx}": 2,
    }
    assert set(samples(registry, "disco_panic")) == {f"disco_panic{{{who}}}" for who in ("a", "b", "_other")}


def test_of_too_many_instances_those_idle_for_longest_lose_their_series(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "MAX_INSTANCES", 2)
    hook = PrometheusHook(registry=registry, per_instance=True)
    for number in (1, 2):
        served(hook, number)
        hook.on_event(InstanceEjected("web", instance(number), "connect", 5.0))
    served(hook, 1)
    served(hook, 3)
    assert samples(registry, "disco_attempts") | samples(registry, "disco_ejections") == {
        "disco_attempts_total{web,2xx,instance-1}": 2,
        "disco_attempts_total{web,2xx,instance-3}": 1,
        "disco_ejections_total{web,connect,instance-1}": 1,
    }


def test_calls_whose_end_never_comes_are_forgotten(
    hook: PrometheusHook, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "MAX_OPEN", 3)
    calls = [Call(hook) for _ in range(5)]
    assert len(hook._open) == 3
    for call in calls:
        call.start()
        call.end(OK)
        call.done(200)
    assert hook._open == {}
    assert samples(registry, "disco_calls") == {"disco_calls_total{web,2xx}": 5}


# --- any order, any number of threads --------------------------------------------------------------------------------

OUTCOMES = {"2xx": OK, "5xx": response(503), "not_sent": REFUSED, "no_answer": NO_ANSWER}


@thorough(150)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["start", "end", "done"]), st.data()), max_size=40
    )
)
def test_whatever_the_interleaving_every_attempt_and_every_call_counts_once(
    steps: list[tuple[int, str, st.DataObject]],
) -> None:
    registry = CollectorRegistry()
    hook = PrometheusHook(registry=registry)
    model: Counter[str] = Counter()
    running: dict[int, tuple[Call, set[int]]] = {}

    def finish(which: int) -> None:
        call, still = running.pop(which)
        model["cancelled"] += len(still)
        model["calls"] += 1
        call.done(200)

    for which, step, data in steps:
        if which not in running:
            running[which] = Call(hook), set()
        call, still = running[which]
        if step == "start":
            call.start()
            still.add(len(call.attempts))
        elif step == "end" and still:
            number = data.draw(st.sampled_from(sorted(still)))
            label = data.draw(st.sampled_from(sorted(OUTCOMES)))
            still.remove(number)
            call.end(OUTCOMES[label], number=number)
            model[label] += 1
        elif step == "done":
            finish(which)
    for which in list(running):
        finish(which)
    counted = {
        f"disco_attempts_total{{web,{label}}}": n for label, n in model.items() if label != "calls" and n
    }
    assert samples(registry, "disco_attempts") == counted
    assert sum(samples(registry, "disco_calls").values()) == model["calls"]
    assert hook._open == {}


@pytest.mark.parametrize("per_instance", [False, True])
def test_threads_lose_no_count(registry: CollectorRegistry, per_instance: bool) -> None:
    together = threading.Barrier(8)

    def work() -> None:
        together.wait(10)
        hook = PrometheusHook(registry=registry, per_instance=per_instance)
        for number in range(100):
            call = Call(hook)
            call.start(instance(number % 3))
            call.start(instance(number % 5), is_hedge=True)
            call.end(REFUSED, "connect", number=1)
            call.done(200)

    in_threads([work] * 8)
    totals: Counter[str] = Counter()
    for name, value in samples(registry).items():
        totals[name.partition("{")[0]] += round(value)
    del totals["disco_call_duration_seconds_sum"]
    assert totals == {
        "disco_calls_total": 800,
        "disco_call_duration_seconds_count": 800,
        "disco_attempts_total": 1600,
        "disco_hedges_total": 800,
        "disco_retries_total": 800,
    }


# --- without the library, and with many processes --------------------------------------------------------------------


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | environment,
    )


def test_without_prometheus_client_the_error_names_the_extra_and_the_rest_works() -> None:
    done = run(
        "import sys\n"
        "sys.modules['prometheus_client'] = None\n"
        "import discoclient\n"
        "try:\n"
        "    import discoclient.prometheus\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install 'discoclient[prometheus]'" in done.stdout


def test_in_multiprocess_mode_a_gauge_is_one_value_for_all_processes(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from discoclient.model.events import PanicChanged, PhaseChanged, SnapshotChanged\n"
        "from discoclient.prometheus import PrometheusHook\n"
        "hook = PrometheusHook()\n"
        "panic, revision, total = map(int, sys.argv[1:])\n"
        "hook.on_event(PanicChanged('web', bool(panic), 1, 2))\n"
        "hook.on_event(SnapshotChanged('web', revision, total, (), (), (), False))\n"
        "hook.on_event(PhaseChanged('web', 'live', 0.0))\n"
    )
    for arguments in (("1", "9", "4"), ("0", "8", "3")):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        )
        assert (done.returncode, done.stderr) == (0, "")
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]
    assert samples(registry, "disco_panic") | samples(registry, "disco_snapshot") == {
        "disco_panic{web}": 1,
        "disco_snapshot_instances{web}": 3,
        "disco_snapshot_revision{web}": 9,
    }
    assert registry.get_sample_value("disco_phase", {"service": "web", "phase": "live"}) == 1
