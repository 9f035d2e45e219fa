"""The state, from routes and counts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from disco_sidecar.admin import Happenings, Observer
from discoclient.balancing.explanation import Candidate, Explanation
from discoclient.model.instance import Instance, State
from discoclient.transport.router import Router
from discoclient.transport.settings import Settings
from tests.support.eventually import eventually

BOUNDS = (0.001, 0.01, 0.1)


class Counts:
    def __init__(self, requests: int = 0) -> None:
        self.requests = requests
        self.failed = 1
        self.in_flight = 2
        self.statuses = [0, 0, requests, 0, 0, 3]
        self.histogram = [0, requests, 0, 0]
        self.seconds = 0.5


def candidate(**fields: Any) -> Candidate:
    instance = Instance(
        service="experiment", id="abcdefgh-1", host="10.0.0.1", port=80, version="1.2", zone="a", state=State.DRAINING,
        metadata={"token": "secret"},
    )  # fmt: skip
    known: dict[str, Any] = {
        "standing": "draining", "weight": 50.0, "in_flight": 1, "latency": 0.01, "cost": 0.02, "requests": 5, "failures": 1,
        "success_rate": 0.8, "answers": 5, "failures_in_a_row": 0, "ejected_for": None, "reason": None, "known_for": 7.0,
    }  # fmt: skip
    return Candidate(instance=instance, **{**known, **fields})


class Route:
    """As much of discoclient's as the observer asks for."""

    def __init__(self, service: str = "experiment", *candidates: Candidate, is_known: bool = True) -> None:
        self.service = service
        self.is_known = is_known
        self.refusal: Exception | None = None
        self.candidates = candidates
        self.ledger = SimpleNamespace(stats=lambda: {"requests": 9, "retries": 4, "hedges": 1})
        self.resolver = SimpleNamespace(
            phase="syncing",
            revision=3,
            refusal=None,
            age=lambda: None,
            timed_out=lambda waited: f"after {waited} s",
        )

    def explain(self) -> Explanation:
        assert self.is_known, "a route that is not known can't explain itself"
        return Explanation(
            service=self.service, balancer="PeakEwma", revision=7, age=1.5, phase="live", is_suspect=False, is_panic=True,
            candidates=self.candidates,
        )  # fmt: skip


class World:
    def __init__(self, *routes: Route) -> None:
        self.now = 100.0
        self.routes = list(routes)
        self.counts: dict[str, Counts] = {}
        self.happenings = Happenings()
        self.observer = Observer(
            facts=lambda: {"version": "1"},
            routes=lambda: self.routes,
            counts=self.counts.get,
            bounds=BOUNDS,
            happenings=self.happenings,
            clock=lambda: self.now,
            wall=lambda: 1_000_000.0 + self.now,
        )

    def service(self, number: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.observer.state()["services"][number]
        return found


def test_a_service_is_what_its_route_explains_and_what_the_proxy_counted() -> None:
    world = World(Route("experiment", candidate()))
    world.counts["experiment"] = Counts(40)
    service = world.service()
    assert (service["phase"], service["age"], service["revision"], service["is_panic"]) == (
        "live",
        1.5,
        7,
        True,
    )
    assert (service["requests"], service["retries"], service["in_flight"], service["failed"]) == (40, 4, 2, 1)
    assert service["statuses"] == {"1xx": 0, "2xx": 40, "3xx": 0, "4xx": 0, "5xx": 3}
    assert service["histogram"] == {"bounds": list(BOUNDS), "counts": [0, 40, 0, 0], "sum": 0.5}
    assert service["counts"]["hedges"] == 1


def test_a_draining_instance_is_shown_with_what_is_known_of_it_but_not_its_metadata() -> None:
    world = World(Route("experiment", candidate()))
    [instance] = world.service()["instances"]
    assert (instance["address"], instance["standing"], instance["state"]) == (
        "10.0.0.1:80",
        "draining",
        "draining",
    )
    assert (instance["version"], instance["zone"], instance["weight"], instance["in_flight"]) == (
        "1.2",
        "a",
        50.0,
        1,
    )
    assert "secret" not in json.dumps(world.observer.state())


def test_what_is_no_finite_number_is_none_so_that_it_stays_json() -> None:
    world = World(Route("experiment", candidate(cost=math.inf, latency=math.nan)))
    [instance] = world.service()["instances"]
    assert (instance["cost"], instance["latency"]) == (None, None)
    json.dumps(world.observer.state(), allow_nan=False)


def test_a_service_that_nothing_is_known_of_says_why_after_a_moment() -> None:
    world = World(Route(is_known=False))
    first = world.service()
    assert (first["is_known"], first["problem"], first["phase"], first["instances"]) == (
        False,
        None,
        "syncing",
        [],
    )
    world.now += 12.2
    assert world.service()["problem"] == "after 12 s"


def test_without_counts_everything_is_zero() -> None:
    service = World(Route()).service()
    assert (service["requests"], service["failed"], service["in_flight"]) == (0, 0, 0)
    assert service["latency"] == {"p50": None, "p99": None}


def test_quantiles_are_of_the_last_minute_and_not_of_all_time() -> None:
    world = World(Route())
    counts = world.counts["experiment"] = Counts()
    counts.histogram = [0, 0, 100_000, 0]  # a slow past
    world.observer.sample()
    for _ in range(90):
        world.now += 1.0
        counts.histogram[0] += 10
        counts.requests += 10
        world.observer.sample()
    service = world.service()
    assert service["latency"]["p99"] < 0.001
    assert service["recent"]["requests"] == 600
    assert service["history"][-1][:2] == [1_000_190, 10.0]


def test_a_look_takes_readings_if_nobody_else_does_and_two_at_once_take_one() -> None:
    world = World(Route())
    world.counts["experiment"] = Counts()
    world.service()
    world.now += 1.0
    assert len(world.service()["history"]) == len(world.service()["history"]) == 1


def test_services_stand_in_order_and_those_that_are_gone_are_forgotten() -> None:
    world = World(Route("b"), Route("a"))
    world.observer.sample()
    assert [each["service"] for each in world.observer.state()["services"]] == ["a", "b"]
    world.routes.pop()
    world.now += 1.0
    world.observer.sample()
    assert list(world.observer._trails) == ["b"]


def test_the_sidecar_s_requests_are_its_services_together_and_events_are_there() -> None:
    world = World(Route("a"), Route("b"))
    world.counts.update(a=Counts(3), b=Counts(4))
    world.happenings.add("a", "start", "hello")
    state = world.observer.state()
    assert state["sidecar"] == {"version": "1", "requests": 7}
    assert [each["text"] for each in state["events"]] == ["hello"]


class Wire:
    def close(self) -> None: ...


@pytest.fixture
def router() -> Iterator[tuple[Router[Wire], Happenings]]:
    happenings = Happenings()
    made = Router(
        lambda options: Wire(), "sidecar", None, "static://experiment=127.0.0.1:8001,127.0.0.1:8002",
        Settings.of({"hooks": [happenings]}),
    )  # fmt: skip
    yield made, happenings
    made.release()


def test_real_routes_have_all_that_is_asked_of_them(router: tuple[Router[Wire], Happenings]) -> None:
    made, happenings = router
    route = made.route("experiment")
    other = made.route("no-such-thing")
    observer = Observer(
        facts=dict, routes=made.routes, counts=lambda service: None, bounds=BOUNDS, happenings=happenings
    )
    eventually(lambda: route.is_known and route.resolver.phase == "live")
    eventually(lambda: any(each["kind"] == "phase" for each in happenings.recent()))  # told a moment later
    state = observer.state()
    experiment, unknown = state["services"]
    assert [each["address"] for each in experiment["instances"]] == ["127.0.0.1:8001", "127.0.0.1:8002"]
    assert {each["standing"] for each in experiment["instances"]} == {"ready"}
    assert experiment["phase"] == "live"
    assert unknown["service"] == "no-such-thing"
    assert unknown["is_known"] == other.is_known
    assert "phase" in {each["kind"] for each in state["events"]}
    json.dumps(state, allow_nan=False)
