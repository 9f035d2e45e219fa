"""What Prometheus gets, read back with Prometheus' own parsers."""

import math

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from disco_sidecar.admin.metrics import exposition

from .states import BOUNDS, HOSTILE, a_service, a_state, an_instance

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(state: dict[str, object]) -> Samples:
    content_type, body = exposition(state)
    assert content_type.startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"disco_sidecar_{name}", frozenset(labels.items())]


def test_the_counts_are_there_with_their_labels() -> None:
    samples = scrape(a_state())
    assert value(samples, "info", version="0.1.0") == 1
    assert value(samples, "open_connections") == 7
    assert value(samples, "refused_total", reason="bad_request") == 2
    assert value(samples, "requests_total", service="experiment", status="2xx") == 2390
    assert value(samples, "failure_reasons_total", service="experiment", reason="no_instances") == 1
    assert value(samples, "registry_phase", service="experiment", phase="live") == 1
    assert value(samples, "registry_phase", service="experiment", phase="suspect") == 0
    assert value(samples, "instances", service="experiment", standing="ready") == 1
    assert value(samples, "instance_requests_total", service="experiment", instance="i-00000001") == 1200
    assert value(samples, "instance_ejected", service="experiment", instance="i-00000001") == 0
    assert value(samples, "start_time_seconds") == 1_769_853_600


def test_the_histogram_is_cumulative_and_ends_with_all() -> None:
    samples = scrape(a_state())
    bounds = [*map(str, BOUNDS), "+Inf"]
    counts = [
        value(samples, "request_duration_seconds_bucket", service="experiment", le=bound) for bound in bounds
    ]
    assert counts == sorted(counts)
    assert counts[-1] == value(samples, "request_duration_seconds_count", service="experiment") == 2400
    assert value(samples, "request_duration_seconds_sum", service="experiment") == 9.6


def test_what_is_not_known_is_left_out_and_not_zero() -> None:
    samples = scrape(a_state(a_service(age=None, instances=[an_instance(latency=None)])))
    names = {name for name, _ in samples}
    assert "disco_sidecar_registry_age_seconds" not in names
    assert "disco_sidecar_instance_latency_seconds" not in names


def test_nothing_of_a_hostile_name_gets_out_of_its_label() -> None:
    hostile = HOSTILE + '"} 1\ndisco_sidecar_owned 1\n\\'
    samples = scrape(a_state(a_service(hostile, reasons={hostile: 1}, instances=[an_instance(hostile)])))
    assert value(samples, "instance_in_flight", service=hostile, instance=hostile) == 2
    assert ("disco_sidecar_owned", frozenset()) not in samples


def test_openmetrics_is_given_to_who_asks_and_is_valid() -> None:
    content_type, body = exposition(a_state(), accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert len(list(parse_openmetrics(body.decode()))) > 20


def test_the_process_is_measured_too_and_every_value_is_a_number() -> None:
    samples = scrape(a_state())
    assert samples["process_resident_memory_bytes", frozenset()] > 0
    assert not any(math.isnan(each) for each in samples.values())


def test_no_services_is_no_error() -> None:
    state = a_state()
    state["services"] = []
    assert value(scrape(state), "workers") == 1
