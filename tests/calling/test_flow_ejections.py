"""Ejections, panic and instances that vanished, as a whole call meets them. Virtual time."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress

import pytest

from discoclient.balancing.endpoint import Endpoint
from discoclient.calling.ledger import may_eject_more
from discoclient.calling.steps import Call, End
from discoclient.model.events import (
    EjectionSkipped,
    InstanceEjected,
    InstanceUnejected,
    PanicChanged,
)
from discoclient.model.outcome import Outcome
from discoclient.model.policy import OutlierPolicy, RetryPolicy
from tests.balancing.fleet import BALANCERS, fleet
from tests.calling.scene import (
    BUSY,
    FAILED,
    LOCAL,
    MISDIRECTED,
    NO_ANSWER,
    NOT_SENT,
    OK,
    STALE,
    Scene,
)

# ---- ejections, as they are told and counted


def test_an_ejection_is_told_and_counted_by_its_reason_and_so_is_its_end() -> None:
    scene = Scene(2)
    trace = scene.call([NOT_SENT, OK])
    (event,) = scene.heard(InstanceEjected)
    assert (event.service, event.instance.id, event.reason) == ("web", trace.ids[0], "connect")
    assert 2.5 <= event.seconds <= 5.0
    scene.now += 6.0
    while not scene.heard(InstanceUnejected):
        scene.call([OK])
    assert scene.heard(InstanceUnejected)[0].instance.id == trace.ids[0]
    stats = scene.ledger.stats()
    assert (stats["ejections.connect"], stats["unejections"], stats["retries.connect"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("size", "outlier", "because"),
    [
        (1, OutlierPolicy(), "alone"),
        (4, OutlierPolicy(max_ejected=0.0), "off"),
        (4, OutlierPolicy(max_ejected=0.25), "max_ejected"),
    ],
)
def test_what_is_not_enforced_is_told_and_counted_with_the_reason(
    size: int, outlier: OutlierPolicy, because: str
) -> None:
    scene = Scene(size, outlier=outlier)
    for endpoint in scene.endpoints.values():
        scene.call([NOT_SENT], only(scene, endpoint))
    skipped = scene.heard(EjectionSkipped)
    assert {(event.service, event.reason, event.because) for event in skipped} == {
        ("web", "connect", because)
    }
    ejected = 1 if because == "max_ejected" else 0
    assert len(scene.heard(InstanceEjected)) == ejected
    assert len(skipped) == size - ejected
    assert scene.ledger.stats()[f"ejections_skipped.{because}"] == size - ejected


def only(scene: Scene, *endpoints: Endpoint, retries: int = 0) -> Call:
    ids = {endpoint.id for endpoint in endpoints}
    return Call(True, True, exclude=frozenset(scene.endpoints) - ids, retries=retries)


def ejected_at(outlier: OutlierPolicy, script: str, *, pause: float = 0.0) -> int | None:
    """After which letter of *script* (``+`` an answer, ``5`` a 503, ``_`` a pause) the endpoint is ejected."""
    scene = Scene(2, outlier=outlier)
    for number, letter in enumerate(script, start=1):
        if letter == "_":
            scene.now += pause
            continue
        scene.call([BUSY if letter == "5" else OK], only(scene, scene.endpoints["instance-0"]))
        if scene.heard(InstanceEjected):
            assert scene.heard(InstanceEjected)[0].reason == "success_rate"
            return number
    return None


def test_min_success_rate_reaches_the_endpoints() -> None:
    script = "+++5" * 20
    assert ejected_at(OutlierPolicy(), script) == 8
    assert ejected_at(OutlierPolicy(min_success_rate=0.7), script) is None
    assert ejected_at(OutlierPolicy(min_success_rate=0.0), "5+5+" * 20) is None


def test_min_requests_reaches_the_endpoints() -> None:
    script = "5+" * 20
    assert ejected_at(OutlierPolicy(), script) == 5
    assert ejected_at(OutlierPolicy(min_requests=1), script) == 1
    assert ejected_at(OutlierPolicy(min_requests=20), script) == 21


def test_success_window_reaches_the_endpoints() -> None:
    script = "5+5_+5"
    assert ejected_at(OutlierPolicy(), script, pause=8.0) == 6
    assert ejected_at(OutlierPolicy(success_window=5.0), script, pause=8.0) is None
    # Good answers move the window on as well: what is left of this one at its end is two of three.
    policy = OutlierPolicy(success_window=5.0, min_requests=3)
    assert ejected_at(policy, "55_+_+5", pause=3.0) == 7


def test_who_has_left_is_not_counted_in_the_share_that_may_be_ejected() -> None:
    scene = Scene(4)
    scene.endpoints["instance-3"].retire()
    for number in (0, 1, 2):
        scene.call([NOT_SENT], only(scene, scene.endpoints[f"instance-{number}"]))
    assert len(scene.heard(InstanceEjected)) == 1, "half of three"


def test_threads_that_eject_at_the_same_time_stay_within_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asks whether one more may be ejected before the other one has done it, if nothing keeps them apart."""
    scene = Scene(2, retry=RetryPolicy(max_attempts=1))
    together = threading.Barrier(2)

    def ask(ejected: int, total: int, policy: OutlierPolicy) -> bool:
        with suppress(threading.BrokenBarrierError):
            together.wait(0.3)
        return may_eject_more(ejected, total, policy)

    monkeypatch.setattr("discoclient.calling.ledger.may_eject_more", ask)
    calls = [only(scene, endpoint) for endpoint in scene.endpoints.values()]
    threads = [threading.Thread(target=scene.call, args=([NOT_SENT], call)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(endpoint.is_ejected(scene.now) for endpoint in scene.endpoints.values()) == 1


# ---- panic


def outage(scene: Scene, seconds: float, *, every: float = 0.1, outcome: Outcome = NOT_SENT) -> None:
    end = scene.now + seconds
    while scene.now < end:
        scene.call([outcome] * 9)
        scene.now += every


def test_panic_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    scene = Scene(8)
    outage(scene, 20.0)
    assert scene.heard(PanicChanged) == [PanicChanged("web", True, 4, 8)]
    is_panic = [scene.ledger.is_panic]
    for _ in range(600):
        scene.call([OK])
        scene.now += 0.1
    assert [event.is_panic for event in scene.heard(PanicChanged)] == [True, False]
    assert [*is_panic, scene.ledger.is_panic] == [True, False]
    over = scene.heard(PanicChanged)[1]
    assert over.ejected < 4
    assert over.total == 8


@pytest.mark.parametrize("outcome", [NOT_SENT, NO_ANSWER, BUSY], ids=lambda each: each.kind)
def test_an_outage_that_lasts_is_one_panic(outcome: Outcome) -> None:
    """Ejections come to their end in the meantime; that says nothing of those who were ejected."""
    scene = Scene(20)
    outage(scene, 300.0, outcome=outcome)
    assert [event.is_panic for event in scene.heard(PanicChanged)] == [True]


def test_a_single_bad_one_is_no_panic() -> None:
    scene = Scene(8)
    for _ in range(300):
        scene.call(lambda send: NOT_SENT if send.endpoint.id == "instance-3" else OK)
        scene.now += 0.1
    assert scene.heard(PanicChanged) == []
    assert scene.heard(EjectionSkipped) == []


def test_a_second_outage_is_a_second_panic() -> None:
    scene = Scene(4)
    for _ in range(2):
        outage(scene, 5.0)
        for _ in range(900):
            scene.call([OK])
            scene.now += 0.1
    assert [event.is_panic for event in scene.heard(PanicChanged)] == [True, False, True, False]


def test_in_a_panic_calls_go_on() -> None:
    scene = Scene(3)
    outage(scene, 5.0)
    trace = scene.call([OK])
    assert trace.end is End.DELIVER
    assert len(trace.sends) == 1


# ---- those that vanished


def vanished(size: int) -> Scene:
    scene = Scene(size)
    for endpoint in scene.endpoints.values():
        endpoint.hold()
    scene.publish()
    return scene


@pytest.mark.parametrize("balancer", BALANCERS)
def test_who_vanished_and_is_well_is_called_all_the_same(balancer: str) -> None:
    endpoints = fleet(3)
    for endpoint in endpoints:
        endpoint.hold()
    scene = Scene(endpoints=endpoints, balancer=balancer)
    counts = Counter(scene.call([OK]).ids[0] for _ in range(60))
    assert len(counts) == 3


def test_the_first_refused_connection_ends_a_hold() -> None:
    scene = vanished(3)
    trace = scene.call([NOT_SENT, OK])
    gone, there = (scene.endpoints[id] for id in trace.ids)
    assert gone.is_retired
    assert not there.is_retired
    assert gone.id not in {scene.call([OK]).ids[0] for _ in range(50)}


@pytest.mark.parametrize("outcome", [NO_ANSWER, BUSY, FAILED, LOCAL, STALE], ids=lambda each: each.kind)
def test_nothing_less_ends_it(outcome: Outcome) -> None:
    scene = vanished(2)
    scene.call([outcome, outcome, OK])
    assert not any(endpoint.is_retired for endpoint in scene.endpoints.values())


def test_another_service_at_its_address_ends_it_too() -> None:
    scene = vanished(3)
    trace = scene.call([MISDIRECTED, OK])
    assert scene.endpoints[trace.ids[0]].is_retired


@pytest.mark.parametrize(("size", "calls"), [(1, 1), (2, 1), (3, 1), (5, 2)])
def test_a_service_that_is_really_gone_says_so(size: int, calls: int) -> None:
    scene = vanished(size)
    ends = [scene.call([NOT_SENT] * 3).end for _ in range(calls)]
    assert ends[-1] is End.NO_INSTANCES
    assert ends[:-1] == [End.DELIVER] * (calls - 1)
    assert scene.call([]).end is End.NO_INSTANCES
    assert scene.in_flight == 0


def test_a_refused_connection_of_one_that_is_registered_is_the_callers_to_see() -> None:
    """Negative control: it is there, and is not well."""
    scene = Scene(2)
    trace = scene.call([NOT_SENT, NOT_SENT])
    assert trace.end is End.DELIVER
    assert not any(endpoint.is_retired for endpoint in scene.endpoints.values())


def test_while_somebody_is_left_the_last_one_that_vanished_does_not_say_that_nobody_is() -> None:
    scene = Scene(2)
    scene.endpoints["instance-1"].hold()
    scene.publish()
    trace = scene.call([NOT_SENT], only(scene, scene.endpoints["instance-1"]))
    assert trace.end is End.NO_INSTANCES, "the other one is excluded by the call itself"
    scene = Scene(3)
    scene.endpoints["instance-1"].hold()
    scene.publish()
    trace = scene.call([NOT_SENT] * 3)
    assert trace.ids[-1] == "instance-1", "the last resort"
    assert trace.end is End.DELIVER, "two are registered"
