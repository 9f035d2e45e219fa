"""Metrics for Prometheus, made from the state when somebody scrapes: between two scrapes they cost nothing.

==================================================  ==================  ======================================================
metric                                              labels              what
==================================================  ==================  ======================================================
``disco_sidecar_info``                              version             1
``disco_sidecar_start_time_seconds``                                    since 1970, of the oldest worker
``disco_sidecar_workers``                                               worker processes
``disco_sidecar_open_connections``                                      connections of clients, now
``disco_sidecar_connections_total``                                     connections of clients, ever
``disco_sidecar_refused_total``                     reason              what was refused before it was routed
``disco_sidecar_draining``                                              1 while it drains
``disco_sidecar_requests_total``                    service, status     answers, by class: ``2xx`` to ``5xx``
``disco_sidecar_failures_total``                    service             no instance gave an answer to pass on
``disco_sidecar_failure_reasons_total``             service, reason     why
``disco_sidecar_retries_total``                     service             attempts after a request's first
``disco_sidecar_in_flight``                         service             requests under way
``disco_sidecar_request_duration_seconds``          service             histogram: head's arrival to answer's end
``disco_sidecar_received_bytes_total``              service             bodies from clients
``disco_sidecar_sent_bytes_total``                  service             bodies to clients
``disco_sidecar_registry_age_seconds``              service             since that was proved; absent if never
``disco_sidecar_registry_phase``                    service, phase      1 for the phase of what is known, else 0
``disco_sidecar_registry_revision``                 service             the registry's revision of that
``disco_sidecar_panic``                             service             1 while ejections are distrusted
``disco_sidecar_instances``                         service, standing   instances known
``disco_sidecar_instance_in_flight``                service, instance   requests under way
``disco_sidecar_instance_requests_total``           service, instance   attempts
``disco_sidecar_instance_failures_total``           service, instance   those that speak against it
``disco_sidecar_instance_latency_seconds``          service, instance   the balancer's peak EWMA
``disco_sidecar_instance_weight``                   service, instance   what it gets just now
``disco_sidecar_instance_ejected``                  service, instance   1 while it is left alone
==================================================  ==================  ======================================================

An instance's id is new with each start, so its series come and go with it; there are never more than there are instances.
The usual ``process_*`` metrics of the process that answers come with it. With several workers all but those are added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["exposition"]

PHASES = ("empty", "syncing", "live", "suspect")
STANDINGS = ("ready", "weight 0", "unready", "vanished", "draining")

State = dict[str, Any]


def exposition(state: State, *, accept: str = "") -> tuple[str, bytes]:
    """Content type and body, in the format that *accept* asks for: Prometheus' text, or OpenMetrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(state))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


class _Collector(Collector):
    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        yield from _of_the_sidecar(self._state["sidecar"])
        services = self._state["services"]
        yield from _of_requests(services)
        yield from _of_knowledge(services)
        yield from _of_instances(services)


def _of_the_sidecar(sidecar: State) -> Iterator[Metric]:
    started = datetime.fromisoformat(sidecar["started_at"]).timestamp()
    yield InfoMetricFamily("disco_sidecar", "The sidecar.", value={"version": sidecar["version"]})
    yield _gauge("start_time_seconds", "Start, in seconds since 1970.", [], [([], started)])
    yield _gauge("workers", "Worker processes.", [], [([], sidecar["workers"])])
    yield _gauge("open_connections", "Open connections of clients.", [], [([], sidecar["connections"])])
    yield _counter("connections", "Connections of clients.", [], [([], sidecar["connections_total"])])
    refused = [([reason], count) for reason, count in sorted(sidecar["refused"].items())]
    yield _counter(
        "refused", "Requests and connections refused before they were routed.", ["reason"], refused
    )
    yield _gauge("draining", "Whether it drains.", [], [([], int(sidecar["is_draining"]))])


def _of_requests(services: list[State]) -> Iterator[Metric]:
    by_status = [
        ([each["service"], status], count) for each in services for status, count in each["statuses"].items()
    ]
    yield _counter("requests", "Answers given, by class of status.", ["service", "status"], by_status)
    reasons = [
        ([each["service"], reason], count)
        for each in services
        for reason, count in sorted(each["reasons"].items())
    ]
    yield _counter("failures", "Requests that no instance answered.", ["service"], _each(services, "failed"))
    yield _counter("failure_reasons", "Why no instance answered.", ["service", "reason"], reasons)
    yield _counter("retries", "Attempts after a request's first.", ["service"], _each(services, "retries"))
    yield _gauge("in_flight", "Requests under way.", ["service"], _each(services, "in_flight"))
    yield _counter("received_bytes", "Bodies from clients.", ["service"], _each(services, "received"))
    yield _counter("sent_bytes", "Bodies to clients.", ["service"], _each(services, "sent"))
    durations = HistogramMetricFamily(
        "disco_sidecar_request_duration_seconds",
        "From the head's arrival to the answer's end.",
        labels=["service"],
    )
    for each in services:
        histogram = each["histogram"]
        durations.add_metric([each["service"]], _cumulated(histogram), histogram["sum"])
    yield durations


def _of_knowledge(services: list[State]) -> Iterator[Metric]:
    ages = [([each["service"]], each["age"]) for each in services if each["age"] is not None]
    yield _gauge("registry_age_seconds", "Since the registry proved what is known.", ["service"], ages)
    phases = [
        ([each["service"], phase], int(each["phase"] == phase)) for each in services for phase in PHASES
    ]
    yield _gauge("registry_phase", "How much the knowledge is worth.", ["service", "phase"], phases)
    yield _gauge("registry_revision", "The registry's revision.", ["service"], _each(services, "revision"))
    panics = [([each["service"]], int(each["is_panic"])) for each in services]
    yield _gauge("panic", "Whether ejections are distrusted.", ["service"], panics)
    standings = [
        ([each["service"], standing], sum(one["standing"] == standing for one in each["instances"]))
        for each in services
        for standing in STANDINGS
    ]
    yield _gauge("instances", "Instances known.", ["service", "standing"], standings)


def _of_instances(services: list[State]) -> Iterator[Metric]:
    labels = ["service", "instance"]
    pairs = [([each["service"], one["id"]], one) for each in services for one in each["instances"]]

    def of(name: str) -> list[tuple[list[str], float]]:
        return [(values, one[name]) for values, one in pairs if one[name] is not None]

    ejected = [(values, int(one["ejected_for"] is not None)) for values, one in pairs]
    yield _gauge("instance_in_flight", "Requests under way.", labels, of("in_flight"))
    yield _counter("instance_requests", "Attempts.", labels, of("requests"))
    yield _counter("instance_failures", "Attempts that speak against it.", labels, of("failures"))
    yield _gauge("instance_latency_seconds", "The balancer's peak EWMA.", labels, of("latency"))
    yield _gauge("instance_weight", "What it gets just now.", labels, of("weight"))
    yield _gauge("instance_ejected", "Whether it is left alone.", labels, ejected)


def _each(services: list[State], name: str) -> list[tuple[list[str], float]]:
    return [([each["service"]], each[name]) for each in services]


def _cumulated(histogram: State) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip([*map(str, histogram["bounds"]), "+Inf"], histogram["counts"], strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


Samples = Iterable[tuple[list[str], float]]


def _gauge(name: str, text: str, labels: list[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"disco_sidecar_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: list[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"disco_sidecar_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
