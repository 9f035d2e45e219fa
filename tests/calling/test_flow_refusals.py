"""Requests that are refused here: throttling, and recovery after an outage. Virtual time."""

from __future__ import annotations

from random import Random

import pytest

from discoclient.balancing.endpoint import Endpoint
from discoclient.calling.steps import End
from discoclient.model.events import (
    RequestThrottled,
)
from discoclient.model.instance import State
from discoclient.model.policy import OutlierPolicy, RecoveryPolicy, RetryPolicy, ThrottlePolicy
from tests.balancing.fleet import eject, instance
from tests.calling.scene import (
    BUSY,
    OK,
    Scene,
    answer,
)

ALONE = OutlierPolicy(max_ejected=0.0)
"""Nobody is ejected: for tests of something else."""


# ---- throttling


def throttled(policy: ThrottlePolicy, *, status: int, seconds: float = 60.0, rate: float = 20.0) -> Scene:
    scene = Scene(3, throttle=policy, outlier=ALONE, retry=RetryPolicy(max_attempts=1))
    for _ in range(int(seconds * rate)):
        scene.call([answer(status, latency=0.0)])
        scene.now += 1 / rate
    return scene


def refused(scene: Scene) -> float:
    """The share of the last calls that was refused here."""
    traces = [scene.call([OK]) for _ in range(200)]
    assert all((trace.end is End.THROTTLED) == (not trace.sends) for trace in traces)
    return sum(trace.end is End.THROTTLED for trace in traces) / 200


@pytest.mark.parametrize(
    ("status", "is_refusal"), [(503, True), (429, True), (200, False), (500, False), (502, False)]
)
def test_a_service_that_refuses_most_is_spared(status: int, is_refusal: bool) -> None:
    assert (refused(throttled(ThrottlePolicy(), status=status)) > 0.5) == is_refusal


def test_max_probability_is_how_many_are_refused_at_most() -> None:
    for most in (0.3, 0.9):
        assert refused(throttled(ThrottlePolicy(max_probability=most), status=503)) == pytest.approx(
            most, abs=0.1
        )


def test_ratio_is_how_many_are_sent_for_each_that_is_taken() -> None:
    def share(ratio: float) -> float:
        policy = ThrottlePolicy(ratio=ratio, max_probability=1.0)
        scene = Scene(3, throttle=policy, outlier=ALONE, retry=RetryPolicy(max_attempts=1))
        chance = Random(1)
        sent = 0
        for number in range(3000):
            trace = scene.call(lambda send: answer(200 if chance.random() < 0.25 else 503, latency=0.0))
            sent += number >= 1500 and bool(trace.sends)
            scene.now += 0.05
        return sent / 1500

    assert share(1.2) < 0.6 * share(3.0)
    assert share(4.5) > 0.97


def test_window_is_how_long_a_refusal_is_remembered() -> None:
    for window in (20.0, 120.0):
        scene = throttled(ThrottlePolicy(window=window), status=503, seconds=15.0)
        scene.now += window + 1.5
        assert scene.call([OK]).end is End.DELIVER
        scene = throttled(ThrottlePolicy(window=window), status=503, seconds=15.0)
        scene.now += window - 17.0
        assert refused(scene) > 0.5


def test_a_refusal_here_is_told_counted_and_no_request_to_the_service() -> None:
    scene = throttled(ThrottlePolicy(max_probability=1.0), status=503)
    requests = scene.ledger.stats()["requests"]
    before = sum(endpoint.requests for endpoint in scene.endpoints.values())
    scene.events.clear()
    earlier = scene.ledger.stats()["throttled"]
    traces = [scene.call([OK]) for _ in range(50)]
    refusals = sum(trace.end is End.THROTTLED for trace in traces)
    assert len(scene.heard(RequestThrottled)) == refusals > 40
    assert {event.policy for event in scene.heard(RequestThrottled)} == {"throttle"}
    assert all(0.9 < event.probability <= 1.0 for event in scene.heard(RequestThrottled))
    assert scene.ledger.stats()["throttled"] - earlier == refusals
    assert scene.ledger.stats()["requests"] - requests == 50 - refusals
    assert sum(endpoint.requests for endpoint in scene.endpoints.values()) - before == 50 - refusals


def test_without_the_policy_nothing_is_refused_here() -> None:
    scene = Scene(3, outlier=ALONE, retry=RetryPolicy(max_attempts=1))
    assert all(scene.call([BUSY]).sends for _ in range(300))


# ---- recovery


def recovering(policy: RecoveryPolicy, back: int) -> Scene:
    """All were ejected, and *back* of ten are well again."""
    scene = Scene(10, recovery=policy)
    for endpoint in scene.endpoints.values():
        eject(endpoint, scene.now, seconds=1000.0)
    scene.call([OK])
    for endpoint in list(scene.endpoints.values())[:back]:
        scene.endpoints[endpoint.id] = Endpoint(endpoint.instance, now=scene.now)
    scene.publish()
    return scene


@pytest.mark.parametrize(("min_working", "back"), [(10, 2), (5, 2), (4, 1)])
def test_min_working_is_how_many_carry_the_whole_load(min_working: int, back: int) -> None:
    scene = recovering(RecoveryPolicy(min_working=min_working), back)
    passed = sum(bool(scene.call([answer(latency=0.0)]).sends) for _ in range(2000))
    assert passed / 2000 == pytest.approx(back / min_working, abs=0.05)
    assert {event.policy for event in scene.heard(RequestThrottled)} == {"recovery"}
    assert scene.heard(RequestThrottled)[0].probability == pytest.approx(1 - back / min_working)


@pytest.mark.parametrize("hold", [3.0, 10.0])
def test_hold_is_how_long_their_number_must_not_change(hold: float) -> None:
    scene = recovering(RecoveryPolicy(min_working=10, hold=hold), 1)
    scene.call([OK])
    scene.now += hold - 0.1
    assert sum(scene.call([answer(latency=0.0)]).end is End.THROTTLED for _ in range(50)) > 30
    scene.now += 0.2
    assert all(scene.call([OK]).sends for _ in range(50))


def test_enough_of_them_and_nothing_is_refused() -> None:
    scene = recovering(RecoveryPolicy(min_working=4), 4)
    assert all(scene.call([OK]).sends for _ in range(100))


def test_those_that_are_not_ready_do_not_work() -> None:
    scene = Scene(4, recovery=RecoveryPolicy(min_working=4))
    for number in range(4):
        scene.endpoints[f"instance-{number}"].update(instance(number, state=State.UNREADY))
    scene.publish()
    assert scene.call([OK]).end is End.DELIVER, "none is usable: it fails open"
    scene.endpoints["instance-0"].update(instance(0))
    scene.publish()
    assert any(scene.call([OK]).end is End.THROTTLED for _ in range(50))


def test_without_an_outage_nothing_is_refused() -> None:
    """Negative control: few are no reason by themselves."""
    scene = Scene(1, recovery=RecoveryPolicy(min_working=10))
    assert all(scene.call([OK]).sends for _ in range(100))
