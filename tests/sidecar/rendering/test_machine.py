"""The order of things, in virtual time: nothing is run here."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disco_sidecar.rendering.machine import FIRST_RETRY, LONGEST_RETRY, Do, Machine, Step


class World:
    """Does what the machine says, to a file and a server that are two numbers, and notes what and when.

    ``bad``: the contents that do not pass the check. ``broken``: the steps that fail.
    """

    def __init__(self, *, interval: float = 2.0, in_place: bool = False, **options: bool) -> None:
        options = {"checks": True, "reloads": True} | options
        self.machine = Machine(interval=interval, in_place=in_place, **options)
        self.in_place = in_place
        self.now = 100.0
        self.wanted = self.file = self.running = 0
        self.bad: set[int] = set()
        self.broken: set[Do] = set()
        self.done: list[tuple[float, Do]] = []
        self._fresh = 0
        self._checks = options["checks"]
        self._passed: int | None = None  # the content that passed the check of the attempt under way

    def want(self, content: int) -> None:
        self.wanted = content
        self.machine.changed()

    def step(self) -> Step:
        step = self.machine.next(self.now)
        if step.do is Do.WAIT:
            return step
        self.done.append((self.now, step.do))
        if step.do in self.broken:
            self.machine.failed(self.now)
        elif step.do is Do.RENDER:
            self._fresh, self._passed = self.wanted, None
            self.machine.rendered(self._fresh != self.file, self.now)
        elif step.do is Do.CHECK and self.checked in self.bad:
            self.machine.failed(self.now)
        else:
            if step.do is Do.CHECK:
                self._passed = self.checked
            elif step.do is Do.REPLACE:
                assert self.in_place or not self._checks or self._passed == self._fresh
                self.file = self._fresh
            elif step.do is Do.TAKE_BACK:
                self.file = self.running
            elif step.do is Do.RELOAD:
                assert not self._checks or self._passed == self.file
                self.running = self.file
            self.machine.passed(self.now)
        return step

    @property
    def checked(self) -> int:
        return self.file if self.in_place else self._fresh

    def settle(self) -> Step:
        """All that can be done now."""
        for _ in range(20):
            step = self.step()
            if step.do is Do.WAIT:
                return step
        raise AssertionError(f"it does not come to rest: {self.done[-20:]}")

    def until(self, moment: float) -> None:
        """Go on to *moment*, from one thing that is due to the next."""
        while (step := self.settle()).until is not None and step.until <= moment:
            assert step.until > self.now
            self.now = step.until
        self.now = moment

    def take(self) -> list[Do]:
        done, self.done = [do for _, do in self.done], []
        return done


def test_nothing_is_done_before_something_changed() -> None:
    world = World()
    assert world.settle() == Step(Do.WAIT, None)
    assert world.done == []


def test_a_new_file_is_checked_then_put_in_place_then_reloaded() -> None:
    world = World()
    world.want(1)
    assert world.settle() == Step(Do.WAIT, None)
    assert world.take() == [Do.RENDER, Do.CHECK, Do.REPLACE, Do.RELOAD]
    assert (world.file, world.running) == (1, 1)


def test_a_check_in_place_comes_after_the_replacement_and_before_the_reload() -> None:
    world = World(in_place=True)
    world.want(1)
    world.settle()
    assert world.take() == [Do.RENDER, Do.REPLACE, Do.CHECK, Do.RELOAD]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"checks": False}, [Do.RENDER, Do.REPLACE, Do.RELOAD]),
        ({"reloads": False}, [Do.RENDER, Do.CHECK, Do.REPLACE]),
        ({"checks": False, "reloads": False}, [Do.RENDER, Do.REPLACE]),
    ],
    ids=["no check", "no reload", "neither"],
)
def test_what_there_is_no_command_for_is_left_out(options: dict[str, bool], steps: list[Do]) -> None:
    world = World(**options)
    world.want(1)
    world.settle()
    assert world.take() == steps
    assert not world.machine.owes


def test_the_same_content_is_not_reloaded() -> None:
    world = World()
    world.want(0)
    world.settle()
    assert world.take() == [Do.RENDER]


def test_what_failed_its_check_never_comes_into_place() -> None:
    world = World()
    world.bad = {1}
    world.want(1)
    world.settle()
    assert world.take() == [Do.RENDER, Do.CHECK]
    assert world.file == 0


def test_what_failed_its_check_in_place_is_taken_back_and_not_reloaded() -> None:
    world = World(in_place=True)
    world.bad = {1}
    world.want(1)
    world.settle()
    assert world.take() == [Do.RENDER, Do.REPLACE, Do.CHECK, Do.TAKE_BACK]
    assert (world.file, world.running) == (0, 0)
    assert not world.machine.owes


@pytest.mark.parametrize("in_place", [False, True])
def test_after_a_failed_check_the_next_change_is_tried_when_the_interval_is_over(in_place: bool) -> None:
    world = World(in_place=in_place, interval=2.0)
    world.bad = {1}
    world.want(1)
    world.settle()
    world.take()
    world.want(2)
    assert world.settle() == Step(Do.WAIT, 102.0)
    world.until(102.0)
    world.settle()
    assert world.file == world.running == 2


def test_reloads_are_at_least_the_interval_apart_and_the_last_word_wins() -> None:
    world = World(interval=2.0)
    for content in range(1, 60):
        world.want(content)
        world.until(world.now + 0.1)
    world.until(world.now + 10)
    times = [at for at, do in world.done if do is Do.RELOAD]
    assert times[0] == 100.0  # the first one does not wait
    assert all(after - before >= 2.0 for before, after in pairwise(times))
    assert len(times) == 4
    assert world.running == 59


def test_without_an_interval_every_change_is_reloaded() -> None:
    world = World(interval=0.0)
    for content in (1, 2, 3):
        world.want(content)
        world.settle()
    assert [at for at, do in world.done if do is Do.RELOAD] == [100.0] * 3


def retries(world: World, do: Do, *, until: float) -> list[float]:
    world.until(until)
    times = [at for at, done in world.done if done is do]
    return [after - before for before, after in pairwise(times)]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_failed_reload_is_tried_again_ever_more_slowly_until_it_goes_through(in_place: bool) -> None:
    world = World(in_place=in_place, interval=0.5)
    world.broken = {Do.RELOAD}
    world.want(1)
    waits = retries(world, Do.RELOAD, until=400.0)
    assert waits[:7] == [FIRST_RETRY, 2, 4, 8, 16, 32, LONGEST_RETRY]
    assert set(waits[6:]) == {LONGEST_RETRY}
    assert (world.file, world.running, world.machine.owes) == (1, 0, True)
    world.broken = set()
    world.until(world.now + LONGEST_RETRY)
    assert (world.running, world.machine.owes) == (1, False)
    world.take()
    world.until(world.now + 1000)
    assert world.take() == []


def test_a_failed_check_is_tried_again_too_for_what_was_wrong_may_stand_in_another_file() -> None:
    world = World()
    world.broken = {Do.CHECK}
    world.want(1)
    assert retries(world, Do.CHECK, until=200.0)[:3] == [2, 4, 8]
    world.broken = set()
    world.until(300.0)
    assert world.running == 1


def test_a_long_interval_is_kept_by_what_is_tried_again() -> None:
    world = World(interval=90.0)
    world.broken = {Do.RELOAD}
    world.want(1)
    assert set(retries(world, Do.RELOAD, until=1000.0)) == {90.0}


def test_a_template_that_fails_is_not_tried_again_before_something_changed() -> None:
    world = World()
    world.broken = {Do.RENDER}
    world.want(1)
    assert world.settle() == Step(Do.WAIT, None)
    world.broken = set()
    world.until(1000.0)
    assert world.take() == [Do.RENDER]
    world.want(1)
    world.settle()
    assert world.running == 1


@pytest.mark.parametrize("in_place", [False, True])
def test_what_an_earlier_life_owes_is_checked_and_reloaded_though_the_file_is_right(in_place: bool) -> None:
    world = World(in_place=in_place, owes=True)
    world.want(0)
    world.settle()
    assert world.take() == [Do.RENDER, Do.CHECK, Do.RELOAD]
    assert not world.machine.owes


def test_what_an_earlier_life_left_unchecked_in_place_is_taken_back_if_it_is_bad() -> None:
    world = World(in_place=True, owes=True)
    world.file = 1
    world.bad = {1}
    world.want(1)
    world.settle()
    assert world.take() == [Do.RENDER, Do.CHECK, Do.TAKE_BACK]
    assert world.file == 0


def test_a_change_during_an_attempt_is_seen_to_after_it() -> None:
    world = World(interval=2.0)
    world.want(1)
    world.step()
    world.want(2)
    world.settle()
    assert world.running == 1
    world.until(102.0)
    world.settle()
    assert world.running == 2


EVENTS = st.one_of(
    st.tuples(st.just("want"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.7, 2.0, 5.0, 70.0])),
    st.tuples(st.just("step"), st.integers(1, 3)),
    st.tuples(st.just("bad"), st.integers(0, 3)),
    st.tuples(st.just("broken"), st.sampled_from(sorted(set(Do) - {Do.WAIT, Do.TAKE_BACK}))),
    st.tuples(st.just("well"), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=30), st.booleans(), st.sampled_from([0.0, 2.0]))
def test_whatever_happens_nothing_bad_runs_reloads_keep_apart_and_in_the_end_all_is_right(
    events: Iterable[tuple[str, object]], in_place: bool, interval: float
) -> None:
    world = World(in_place=in_place, interval=interval)
    for what, value in events:
        if what == "want":
            world.want(value)  # type: ignore[arg-type]
        elif what == "wait":
            world.settle()
            world.now += value  # type: ignore[operator]
        elif what == "step":
            for _ in range(value):  # type: ignore[call-overload]
                world.step()
        elif what == "bad":
            world.bad.add(value)  # type: ignore[arg-type]
        elif what == "broken":
            world.broken = {value}  # type: ignore[arg-type]
        else:
            world.broken, world.bad = set(), set()
    world.settle()
    if world.machine.is_idle and not world.machine.owes:
        assert world.file == world.running
    times = [at for at, do in world.done if do is Do.RELOAD]
    assert all(after - before >= interval for before, after in pairwise(times))
    world.broken, world.bad = set(), set()
    world.machine.changed()
    world.until(world.now + 200)
    assert world.wanted == world.file == world.running
    assert not world.machine.owes
