"""The states of several workers become one."""

from __future__ import annotations

import json
from copy import deepcopy

from disco_sidecar.admin import merge

from .states import BOUNDS, a_service, a_state, an_event, an_instance


def test_one_state_is_itself() -> None:
    state = a_state()
    assert merge([state]) is state


def test_the_states_are_not_changed_and_the_result_has_the_same_fields() -> None:
    states = [a_state(), a_state(pid=4243)]
    before = deepcopy(states)
    merged = merge(states)
    assert states == before
    assert set(merged) == set(states[0])
    assert set(merged["sidecar"]) >= set(states[0]["sidecar"])
    assert set(merged["services"][0]) == set(states[0]["services"][0])
    assert set(merged["services"][0]["instances"][0]) >= set(states[0]["services"][0]["instances"][0])
    json.dumps(merged, allow_nan=False)


def test_what_is_counted_is_added() -> None:
    merged = merge([a_state(), a_state(a_service(in_flight=5, statuses={"2xx": 1, "5xx": 2}), pid=9)])
    [service] = merged["services"]
    assert service["requests"] == 4800
    assert service["in_flight"] == 7
    assert service["statuses"]["2xx"] == 2391
    assert service["statuses"]["5xx"] == 5
    assert service["reasons"] == {"no_instances": 2}
    assert service["histogram"]["counts"][1] == 2400
    assert service["histogram"]["sum"] == 19.2
    assert service["instances"][0]["requests"] == 2400
    sidecar = merged["sidecar"]
    assert (sidecar["connections"], sidecar["refused"], sidecar["pids"]) == (
        14,
        {"bad_request": 4},
        [4242, 9],
    )


def test_what_is_known_is_as_old_and_as_doubtful_as_the_worst_has_it() -> None:
    good = a_state(a_service(age=1.0, phase="live", revision=9))
    old = a_state(a_service(age=30.0, phase="suspect", revision=7, is_suspect=True, problem="refused"))
    never = a_state(a_service(age=None, phase="syncing", revision=0, is_known=False, balancer=""))
    [two] = merge([good, old])["services"]
    assert (two["age"], two["phase"], two["revision"], two["is_suspect"]) == (30.0, "suspect", 7, True)
    assert (two["problem"], two["is_known"]) == ("refused", True)
    [three] = merge([never, good, old])["services"]
    assert (three["age"], three["phase"], three["is_known"], three["balancer"]) == (
        None,
        "syncing",
        False,
        "PeakEwma",
    )


def test_a_service_that_one_worker_has_not_met_is_as_the_others_have_it() -> None:
    merged = merge([a_state(a_service("a")), a_state(a_service("b"), a_service("a"))])
    assert [(each["service"], each["requests"]) for each in merged["services"]] == [("a", 4800), ("b", 2400)]


def test_quantiles_are_of_all_requests_together_and_no_mean_of_means() -> None:
    nothing = [0] * (len(BOUNDS) + 1)
    fast, slow = list(nothing), list(nothing)
    fast[0], slow[9] = 990, 10
    recent = {"seconds": 60.0, "requests": 0, "errors": 0, "failed": 0}
    merged = merge(
        [
            a_state(a_service(recent={**recent, "buckets": fast})),
            a_state(a_service(recent={**recent, "buckets": slow})),
        ]
    )
    [service] = merged["services"]
    assert service["latency"]["p50"] < 0.001
    assert service["latency"]["p99"] <= 0.001
    assert service["recent"]["buckets"][9] == 10


def test_an_ewma_weighs_by_requests() -> None:
    busy = an_instance(latency=0.010, requests=900, success_rate=1.0, answers=90)
    idle = an_instance(latency=0.110, requests=100, success_rate=0.0, answers=10)
    [service] = merge([a_state(a_service(instances=[each])) for each in (busy, idle)])["services"]
    [instance] = service["instances"]
    assert round(instance["latency"], 6) == 0.020
    assert instance["success_rate"] == 0.9


def test_an_ewma_without_requests_is_a_plain_mean_and_none_is_left_out() -> None:
    parts = [
        an_instance(latency=0.1, requests=0),
        an_instance(latency=0.3, requests=0),
        an_instance(latency=None),
    ]
    [service] = merge([a_state(a_service(instances=[each])) for each in parts])["services"]
    assert round(service["instances"][0]["latency"], 6) == 0.2


def test_an_ejection_is_shown_if_one_worker_ejected_with_the_longest_time_left() -> None:
    parts = [
        an_instance(),
        an_instance(ejected_for=0.0, reason="probe"),
        an_instance(ejected_for=12.0, reason="connect"),
    ]
    [service] = merge([a_state(a_service(instances=[each])) for each in parts])["services"]
    [instance] = service["instances"]
    assert (instance["ejected_for"], instance["reason"], instance["ejected_in"]) == (12.0, "connect", 2)


def test_one_that_waits_for_its_probe_everywhere_is_still_ejected() -> None:
    parts = [an_instance(ejected_for=0.0, reason="probe")] * 2
    [service] = merge([a_state(a_service(instances=[each])) for each in parts])["services"]
    assert service["instances"][0]["ejected_for"] == 0.0


def test_instances_are_joined_by_id_and_stand_in_the_usual_order() -> None:
    one = a_service(instances=[an_instance("b"), an_instance("a", standing="draining")])
    other = a_service(instances=[an_instance("c"), an_instance("a", standing="ready")])
    [service] = merge([a_state(one), a_state(other)])["services"]
    assert [(each["id"], each["standing"]) for each in service["instances"]] == [
        ("b", "ready"), ("c", "ready"), ("a", "draining"),
    ]  # fmt: skip


def test_the_history_is_added_second_by_second() -> None:
    one = a_service(history=[[10, 5.0, 1.0, 0.0, 0.001, 0.02], [11, 6.0, 0.0, 0.0, None, None]])
    other = a_service(history=[[11, 4.0, 0.0, 1.0, 0.002, 0.03], [12, 1.0, 0.0, 0.0, None, 0.5]])
    [service] = merge([a_state(one), a_state(other)])["services"]
    assert service["history"] == [
        [10, 5.0, 1.0, 0.0, 0.001, 0.02], [11, 10.0, 0.0, 1.0, 0.002, 0.03], [12, 1.0, 0.0, 0.0, None, 0.5],
    ]  # fmt: skip
    assert one["history"][1] == [11, 6.0, 0.0, 0.0, None, None]


def test_the_same_event_of_several_workers_is_one() -> None:
    def at(second: int, text: str = "new a") -> dict[str, object]:
        return an_event(text, at=f"2026-01-31T12:00:{second:02d}.000Z")

    merged = merge([a_state(events=[at(20), at(5)]), a_state(events=[at(21), at(7, "gone b"), at(6)])])
    assert [(each["at"][17:19], each["text"]) for each in merged["events"]] == [
        ("21", "new a"), ("07", "gone b"), ("06", "new a"),
    ]  # fmt: skip


def test_the_same_event_of_one_worker_twice_is_two() -> None:
    again = [
        an_event("new a", at="2026-01-31T12:00:02.000Z"),
        an_event("new a", at="2026-01-31T12:00:01.000Z"),
    ]
    assert len(merge([a_state(events=again), a_state(events=[])])["events"]) == 2


def test_it_drains_when_one_of_them_does_and_every_way_in_is_named_once() -> None:
    merged = merge(
        [a_state(), a_state(is_draining=True, uptime=9000.0, started_at="2026-01-31T09:00:00.000Z")]
    )
    assert merged["sidecar"]["is_draining"] is True
    assert len(merged["sidecar"]["ways"]) == 3
    assert (merged["sidecar"]["uptime"], merged["sidecar"]["started_at"]) == (
        9000.0,
        "2026-01-31T09:00:00.000Z",
    )
