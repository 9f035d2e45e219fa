"""The guard against mass disappearance: who is kept, and who is really gone. Virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.balancing.endpoint import Endpoint, Rank
from discoclient.balancing.guard import LEAST, SHARE, WINDOW, VanishGuard
from discoclient.model.instance import State
from tests.balancing.building import built, preferring
from tests.balancing.fleet import BALANCERS, eject, fleet, instance
from tests.support.properties import thorough


def held(guard: VanishGuard, vanished: list[Endpoint], remaining: int, now: float = 0.0) -> set[str]:
    return {endpoint.id for endpoint in guard.hold(vanished, remaining, now)}


@pytest.mark.parametrize(
    ("vanished", "remaining", "is_held"),
    [
        (1, 0, False),
        (1, 1, False),
        (2, 0, True),
        (2, 1, True),
        (2, 2, False),
        (3, 2, True),
        (3, 3, False),
        (50, 49, True),
        (50, 50, False),
        (100, 0, True),
        (0, 0, False),
    ],
)
def test_more_than_half_and_more_than_one_is_no_coincidence(
    vanished: int, remaining: int, is_held: bool
) -> None:
    endpoints = fleet(vanished)
    found = held(VanishGuard(), endpoints, remaining)
    assert found == ({endpoint.id for endpoint in endpoints} if is_held else set())


def test_those_who_vanish_one_after_the_other_within_the_window_vanish_together() -> None:
    guard, endpoints = VanishGuard(), fleet(4)
    assert held(guard, endpoints[:1], 3, 0.0) == set()
    assert held(guard, endpoints[1:2], 2, 2.0) == set()
    assert held(guard, endpoints[2:3], 1, 4.0) == {"instance-0", "instance-1", "instance-2"}
    assert held(guard, endpoints[3:], 0, 4.9) == {endpoint.id for endpoint in endpoints}


def test_those_who_vanish_further_apart_have_just_died() -> None:
    guard, endpoints = VanishGuard(), fleet(5)
    for number, endpoint in enumerate(endpoints):
        assert held(guard, [endpoint], 4 - number, number * WINDOW) == set()


def test_where_others_came_in_their_place_nothing_is_missing() -> None:
    """A fleet whose instances are killed one by one, and replaced: each is really gone."""
    guard, endpoints = VanishGuard(), iter(fleet(20))
    for step in range(20):
        assert held(guard, [next(endpoints)], 3, step * 0.1) == set()


def test_who_drained_meanwhile_is_not_missing() -> None:
    guard, endpoints = VanishGuard(), fleet(2)
    assert held(guard, endpoints[:1], 9, 0.0) == set()
    assert held(guard, endpoints[1:], 2, 1.0) == set(), "six of ten drained"


def test_newcomers_that_vanish_with_the_others_are_kept_with_them() -> None:
    guard, endpoints = VanishGuard(), fleet(6)
    assert held(guard, endpoints[:1], 5, 0.0) == set()
    assert held(guard, endpoints[1:], 0, 1.0) == {endpoint.id for endpoint in endpoints}


def test_who_is_back_does_not_count() -> None:
    guard, endpoints = VanishGuard(), fleet(4)
    held(guard, endpoints[:2], 2, 0.0)
    guard.forget({"instance-0", "instance-9"})
    assert held(guard, endpoints[2:3], 2, 1.0) == set()
    guard.forget(["instance-2"])
    assert held(guard, endpoints[2:4], 1, 1.5) == {"instance-1", "instance-2", "instance-3"}


@thorough(100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 2.0, 4.9, 5.0, 5.1, 60.0]), st.integers(0, 4), st.integers(0, 6)
        ),
        max_size=25,
    )
)
def test_it_is_a_count_over_a_window(script: list[tuple[float, int, int]]) -> None:
    guard, endpoints = VanishGuard(), (Endpoint(instance(number), now=0.0) for number in range(100))
    now = 0.0
    seen: list[tuple[float, str]] = []
    sizes: list[tuple[float, int]] = []
    for pause, number, remaining in script:
        now += pause
        vanished = [next(endpoints) for _ in range(number)]
        seen += [(now, endpoint.id) for endpoint in vanished]
        sizes.append((now, number + remaining))
        recent = {id for at, id in seen if at > now - WINDOW}
        most = max(size for at, size in sizes if at > now - WINDOW)
        is_mass = len(recent) >= LEAST and min(most - remaining, len(recent)) > SHARE * most
        assert held(guard, vanished, remaining, now) == (recent if is_mass else set())


# ---- what a view makes of those that are held


@pytest.mark.parametrize("balancer", BALANCERS)
def test_who_is_held_is_called_only_if_nothing_else_is_left(balancer: str) -> None:
    ready, unweighted, unready, vanished = fleet(4)
    unweighted.update(instance(1, weight=0))
    unready.update(instance(2, state=State.UNREADY))
    vanished.hold()
    chosen = built([vanished, unready, unweighted, ready], preferring(balancer))
    order: list[str] = []
    while (endpoint := chosen.pick(0.0, order)) is not None:
        order.append(endpoint.id)
    assert order == ["instance-0", "instance-1", "instance-2", "instance-3"]
    for endpoint in (ready, unready, unweighted):
        eject(endpoint)
    assert chosen.pick(1.0) is vanished, "that the others are there is the registry's word, and they fail"
    eject(vanished, 1.0)
    assert chosen.pick(2.0) is ready, "what the registry believes in, if all are alike"


def test_a_drain_is_obeyed_whatever_is_left() -> None:
    (endpoint,) = fleet(1, state=State.DRAINING)
    assert endpoint.rank is Rank.NEVER
    assert built([endpoint], preferring()).pick(0.0) is None


@pytest.mark.parametrize("fields", [{}, {"weight": 0}, {"state": State.UNREADY}])
def test_the_registrys_word_ends_the_hold(fields: dict[str, object]) -> None:
    (endpoint,) = fleet(1)
    rank = Endpoint(instance(0, **fields), now=0.0).rank
    endpoint.hold()
    assert (endpoint.is_held, endpoint.rank) == (True, Rank.HELD)
    endpoint.update(instance(0, **fields))
    assert (endpoint.is_held, endpoint.rank) == (False, rank)
    assert not endpoint.is_retired
