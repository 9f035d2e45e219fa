"""What seeded bugs showed that no other test here would notice: see `tests/seeded`."""

from __future__ import annotations

import pytest

from discoclient.balancing.endpoint import Endpoint, Ticket
from discoclient.calling.steps import Call, End
from discoclient.model.policy import HedgePolicy
from tests.balancing.fleet import fleet
from tests.calling.scene import GET, OK, POST, STREAMED_POST, STREAMED_PUT, Scene, answer

USUAL = 0.01


class Leaving(Endpoint):
    """It drains after it was picked, and before the request is counted in flight."""

    __slots__ = ()

    def start(self, now: float) -> Ticket:
        self.retire()
        return super().start(now)


@pytest.mark.parametrize("leaving", [0, 1, 4, 5])
def test_who_begins_to_drain_between_the_pick_and_the_count_gets_nothing(leaving: int) -> None:
    found = fleet(5)
    endpoints = [Leaving(endpoint.instance, now=0.0) for endpoint in found[:leaving]] + found[leaving:]
    scene = Scene(endpoints=endpoints)
    for _ in range(20):
        trace = scene.call([OK])  # which asserts that what it is to send to has not retired
        assert trace.end is (End.DELIVER if leaving < 5 else End.NO_INSTANCES)
        assert len(trace.sends) == (leaving < 5)
        assert scene.in_flight == 0


@pytest.mark.parametrize(
    ("call", "sends"),
    [(GET, 2), (POST, 1), (STREAMED_PUT, 1), (STREAMED_POST, 1)],
    ids=["get", "post", "streamed put", "streamed post"],
)
def test_only_what_may_run_twice_is_sent_twice_when_it_is_late(call: Call, sends: int) -> None:
    """Every attempt gets its answer here, so that one too many does not end as a script that ran out."""
    scene = Scene(5, latency=USUAL, hedge=HedgePolicy(budget=1.0, min_samples=1))
    for _ in range(100):
        scene.call(lambda send: answer(latency=USUAL), GET)
    scene.now += 1.5
    assert len(scene.call(lambda send: answer(latency=1.0), call).sends) == sends
