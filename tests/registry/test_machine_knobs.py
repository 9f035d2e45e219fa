"""Every time in `WatchSettings` does what it says: each test fails when its knob is ignored."""

from __future__ import annotations

import itertools
from dataclasses import fields
from random import Random

import pytest

from discoclient.model.errors import RegistryUnavailable
from discoclient.model.schedule import full_jitter, jittered
from discoclient.registry.happenings import Do, WatchSettings
from discoclient.registry.memory_store import MemoryStore
from tests.registry.shell import RANGE, Shell

KEY = f"{RANGE}aaaaaaaa"


def live(**settings: float) -> Shell:
    shell = Shell(MemoryStore(), WatchSettings(**settings)).live()
    shell.forget()
    return shell


@pytest.mark.parametrize("silence", [1.0, 10.0, 60.0])
def test_silence_is_how_long_nothing_may_be_heard(silence: float) -> None:
    shell = live(silence=silence)
    began = shell.now
    shell.run(silence * 1.5)
    (asked,) = shell.asks(Do.PROBE)
    assert 0.9 * silence <= asked - began <= 1.1 * silence


@pytest.mark.parametrize("stall", [0.5, 2.0, 9.0])
def test_stall_is_how_late_an_event_may_be(stall: float) -> None:
    shell = live(silence=5.0, stall=stall)
    shell.is_mute = True
    shell.store.put(KEY, b"1", lease=shell.store.grant(5, 0)[0])
    shell.run(5.6 + stall)
    (probed,), (listed,) = shell.asks(Do.PROBE)[:1], shell.asks(Do.LIST)
    assert listed - probed == pytest.approx(stall)


@pytest.mark.parametrize("resync", [30.0, 300.0, 5000.0])
def test_resync_is_how_often_it_lists_whatever_the_watch_says(resync: float) -> None:
    shell = live(resync=resync)
    began = shell.now
    shell.run(resync * 1.3)
    (listed,) = shell.asks(Do.LIST)
    assert 0.8 * resync <= listed - began <= 1.2 * resync


@pytest.mark.parametrize("stale_after", [0.5, 2.5, 20.0])
def test_stale_after_is_how_long_a_start_waits_for_a_quorum(stale_after: float) -> None:
    shell = Shell(MemoryStore(), WatchSettings(stale_after=stale_after))
    shell.start()
    while not shell.asks(Do.LIST_STALE):
        if Do.LIST in shell.jobs:
            shell.fail(Do.LIST)
        shell.now = shell.machine.wake_at or 0.0
        shell.tick()
    assert shell.asks(Do.LIST_STALE) == [1000.0 + stale_after]


def reopening(attempts: int, **settings: float) -> list[float]:
    """The pauses between *attempts* to open a watch that does not open."""
    shell = live(**settings)
    shell.is_down = True
    shell.fail(Do.WATCH)
    times = [shell.now]
    while len(times) <= attempts:
        shell.now = shell.machine.wake_at or 0.0
        shell.tick()
        times.append(shell.now)
        if len(times) <= attempts:
            shell.fail(Do.WATCH)
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def most(attempt: int, **settings: float) -> float:
    """The longest pause before an attempt (0 is the first), over many processes."""
    found = 0.0
    for seed in range(200):
        shell = Shell(MemoryStore(), WatchSettings(**settings), rng=Random(seed)).live()
        for number in range(attempt + 1):
            began = shell.now
            shell.fail(Do.WATCH)
            assert shell.machine.wake_at is not None
            if number == attempt:
                found = max(found, shell.machine.wake_at - began)
            shell.now = shell.machine.wake_at
            shell.tick()
    return found


@pytest.mark.parametrize("first", [0.1, 0.2, 1.0])
def test_backoff_first_bounds_the_first_pause(first: float) -> None:
    assert 0.8 * first < most(0, backoff_first=first) <= first


def test_backoff_doubles() -> None:
    assert 0.8 * 0.4 < most(1, backoff_first=0.2) <= 0.4
    assert 0.8 * 0.8 < most(2, backoff_first=0.2) <= 0.8


@pytest.mark.parametrize("cap", [0.5, 2.0, 10.0])
def test_backoff_cap_bounds_every_pause(cap: float) -> None:
    assert 0.8 * cap < most(8, backoff_cap=cap) <= cap


def test_the_cap_bounds_the_first_pause_too() -> None:
    assert max(reopening(20, backoff_first=50.0, backoff_cap=1.0)) <= 1.0


@pytest.mark.parametrize("healthy_after", [1.0, 5.0, 100.0])
def test_healthy_after_is_how_long_a_watch_must_stand_to_begin_with_short_pauses_again(
    healthy_after: float,
) -> None:
    def pause_after(stood: float) -> float:
        longest = 0.0
        for seed in range(100):
            shell = Shell(
                MemoryStore(), WatchSettings(healthy_after=healthy_after, silence=1e6), rng=Random(seed)
            ).live()
            for _ in range(8):  # until the pauses are long
                shell.fail(Do.WATCH)
                shell.now = shell.machine.wake_at or 0.0
                shell.tick()
            shell.settle()
            shell.now += stood
            began = shell.now
            shell.fail(Do.WATCH)
            assert shell.machine.wake_at is not None
            longest = max(longest, shell.machine.wake_at - began)
        return longest

    assert pause_after(healthy_after * 0.9) > 1.0
    assert pause_after(healthy_after * 1.1) <= 0.2


def test_no_knob_is_without_a_test() -> None:
    tested = {"silence", "stall", "resync", "stale_after", "backoff_first", "backoff_cap", "healthy_after"}
    assert {field.name for field in fields(WatchSettings)} == tested


# ---- schedules


def test_full_jitter_is_drawn_from_nothing_to_a_bound_that_grows() -> None:
    rounds = [full_jitter(Random(seed), first=1.0, cap=5.0, factor=3.0) for seed in range(500)]
    for bound in (1.0, 3.0, 5.0, 5.0):
        delays = [next(delays) for delays in rounds]
        assert 0 <= min(delays) < 0.05 * bound
        assert 0.95 * bound < max(delays) <= bound
        assert sum(delays) / 500 == pytest.approx(bound / 2, rel=0.1)


def test_jittered_keeps_within_its_share() -> None:
    found = [jittered(Random(seed), 100.0, 0.2) for seed in range(500)]
    assert 80 <= min(found) < 82
    assert 118 < max(found) <= 120


def test_broken_streams_are_what_the_error_says() -> None:
    shell = live()
    shell.fail(Do.WATCH, RegistryUnavailable("away"))
    assert shell.notices[0].text == "away"
