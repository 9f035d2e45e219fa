"""Balancers by name, and balancers of one's own."""

from __future__ import annotations

from collections.abc import Container, Sequence
from random import Random

import pytest

from discoclient.balancing.balancer import (
    Balancer,
    LeastRequest,
    PeakEwma,
    RandomChoice,
    RoundRobin,
    find_balancer,
)
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.picker import Picker
from discoclient.model.errors import ConfigError
from tests.balancing.fleet import BALANCERS, fleet


class First:
    """Always the first that was not tried."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints

    def pick(self, now: float, tried: Container[str] = ()) -> Endpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.id not in tried), None)


class Own:
    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        return First(endpoints)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("peak_ewma", PeakEwma),
        ("least_request", LeastRequest),
        ("round_robin", RoundRobin),
        ("random", RandomChoice),
    ],
)
def test_a_balancer_is_found_by_its_name(name: str, kind: type) -> None:
    found = find_balancer(name)
    assert isinstance(found, kind)
    assert isinstance(found, Balancer)


def test_a_balancer_of_ones_own_is_taken_as_it_is() -> None:
    own = Own()
    assert find_balancer(own) is own
    first, second = fleet(2)
    assert find_balancer(own).picker([first, second], Random(1)).pick(0.0, {first.id}) is second


@pytest.mark.parametrize(
    "wrong",
    ["", "PEAK_EWMA", "peak-ewma", "fastest", None, 7, object(), Own, PeakEwma, ["random"], b"random"],
)
def test_anything_else_is_an_error_that_names_the_choices(wrong: object) -> None:
    with pytest.raises(ConfigError) as caught:
        find_balancer(wrong)  # type: ignore[arg-type]
    for name in BALANCERS:
        assert name in str(caught.value)
    assert "picker(endpoints, rng)" in str(caught.value)
    assert repr(wrong) in str(caught.value)
