"""A drain is proved: whatever the order of what callers, the registry and instances do, no request goes to one that stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.serving.draining import TIMEOUT, Caller, Rules, Server, World, actions

BROKEN = {
    "it says that it is there only after it knows": Rules(announces_first=False),
    "it looks before it counts": Rules(counts_first=False),
    "it acknowledges before it publishes": Rules(publishes_first=False),
    "it does not say what it waits for": Rules(tells_what_it_waits_for=False),
}


def world_of(*callers: Rules, servers: int = 1) -> World:
    world = World()
    for _ in range(servers):
        Server(world)
    for rules in callers:
        Caller(world, rules)
    return world


def state_of(world: World) -> Any:
    """All that what follows depends on."""
    return (
        tuple((entry.key, entry.value) for entry in world.store.list("/").entries),
        tuple(
            (
                caller.revision,
                caller.applied,
                caller.is_announced,
                caller.is_dead,
                caller.picked,
                tuple(
                    (
                        pick.endpoint.id,
                        pick.ticket is not None,
                        pick.has_looked,
                        pick.is_sent,
                        pick.endpoint.is_retired,
                    )
                    for pick in caller.picks
                ),
                tuple(sorted(caller.publisher.busy().items())),
            )
            for caller in world.callers
        ),
        tuple(
            (server.drain is None, server.is_stopped, server.revision, str(server.seen))
            for server in world.servers
        ),
    )


def explore(make: Callable[[], World], **options: Any) -> int:
    """Play all orders of what may happen, each state once; how many there were. Raises what goes wrong in one of them."""

    def played(path: tuple[str, ...]) -> World:
        world = make()
        for name in path:
            dict(actions(world, **options))[name]()
        return world

    seen = {state_of(make())}
    paths: deque[tuple[str, ...]] = deque([()])
    while paths:
        path = paths.popleft()
        for name, _ in list(actions(played(path), **options)):
            following = (*path, name)
            try:
                state = state_of(played(following))
            except AssertionError as error:
                raise AssertionError(f"{error}, after: {', '.join(following)}") from error
            if state not in seen:
                seen.add(state)
                paths.append(following)
    return len(seen)


@pytest.mark.parametrize("options", [{"may_die": True}, {"most_picks": 2}], ids=str)
def test_no_request_goes_to_an_instance_that_stopped_in_any_order_of_one_caller_s_steps(
    options: dict[str, Any],
) -> None:
    assert explore(lambda: world_of(Rules()), **options) > 100


@pytest.mark.parametrize("rules", BROKEN.values(), ids=BROKEN)
def test_a_caller_that_breaks_any_one_rule_is_found_out(rules: Rules) -> None:
    with pytest.raises(AssertionError, match=r"has stopped|stopped on"):
        explore(lambda: world_of(rules))


class DrainMachine(RuleBasedStateMachine):
    """More callers and instances than all orders can be played of. Time stands: only proofs end a drain."""

    @initialize(callers=st.integers(1, 3), servers=st.integers(1, 3))
    def begin(self, callers: int, servers: int) -> None:
        self.world = world_of(*[Rules()] * callers, servers=servers)

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        possible = list(actions(self.world, most_picks=4))
        if possible:
            data.draw(st.sampled_from(possible))[1]()

    @rule(data=st.data())
    def a_caller_dies(self, data: st.DataObject) -> None:
        living = [caller for caller in self.world.callers if not caller.is_dead]
        if living and data.draw(st.integers(0, 9)) == 0:
            data.draw(st.sampled_from(living)).die()

    @rule()
    def another_caller_comes(self) -> None:
        if len(self.world.callers) < 4:
            Caller(self.world, Rules())

    def teardown(self) -> None:
        """Once everybody gets a turn, every drain ends, and cleanly, before its time is over."""
        if not hasattr(self, "world"):
            return
        for _ in range(40):
            for name, act in list(actions(self.world, most_picks=0)):
                if "begins" not in name and name in dict(actions(self.world, most_picks=0)):
                    act()
        for server in self.world.servers:
            if server.drain is not None:
                assert server.drained is not None, f"{server.id} still drains"
                assert server.drained.is_clean, server.drained.problem


DrainMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestDrainModel = DrainMachine.TestCase


def drained_with_a_silent_caller() -> tuple[World, Server, Caller]:
    world = world_of(Rules())
    (server,), (caller,) = world.servers, world.callers
    caller.announce()
    caller.read()
    server.begin()
    server.look()
    return world, server, caller


def test_a_caller_that_never_acknowledges_holds_a_drain_up_until_its_time_is_over() -> None:
    world, server, _ = drained_with_a_silent_caller()
    world.now = TIMEOUT - 0.1
    server.judge()
    assert not server.is_stopped
    world.now = TIMEOUT
    server.judge()
    assert server.drained is not None
    assert not server.drained.is_clean


def test_a_caller_that_never_acknowledges_holds_a_drain_up_no_longer_than_its_lease() -> None:
    _, server, caller = drained_with_a_silent_caller()
    caller.die()
    server.look()
    server.judge()
    assert server.drained is not None
    assert server.drained.is_clean
