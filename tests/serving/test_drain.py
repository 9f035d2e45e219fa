"""May it stop? Each thing that keeps a drain open, alone; in virtual time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.registry.presence import Presence
from discoclient.serving.drain import Drain, Drained
from tests.support.properties import thorough

ME, OTHER = "aaaaaaaa", "bbbbbbbb"
START, REVISION = 1000.0, 50
QUIET, TIMEOUT = 1.0, 20.0


def caller(id: str = "caller-1", *, applied: int = REVISION, busy: int = 0, **said: object) -> Presence:
    return Presence(id=id, applied=applied, busy={ME: busy} if busy else {}, **said)  # type: ignore[arg-type]


def draining(*callers: Presence, quiet: float = QUIET, timeout: float = TIMEOUT) -> Drain:
    """Told at once, and of these callers; nothing is in flight here."""
    drain = Drain(ME, quiet=quiet, timeout=timeout, now=START)
    drain.told(REVISION, START)
    drain.saw({presence.id: presence for presence in callers})
    drain.counted(0)
    return drain


def ended(drain: Drain, after: float) -> Drained:
    verdict = drain.verdict(START + after)
    assert verdict is not None
    return verdict


# ---- when all have left


def test_a_drain_that_nobody_and_nothing_keeps_open_is_over_after_the_quiet_time() -> None:
    drain = draining(caller())
    assert drain.verdict(START + QUIET - 0.01) is None
    assert ended(drain, QUIET) == Drained(is_clean=True, seconds=QUIET, callers=1)


def test_without_callers_it_is_the_same() -> None:
    """There may be some that may not say so."""
    drain = draining()
    assert drain.verdict(START + QUIET - 0.01) is None
    assert ended(drain, QUIET) == Drained(is_clean=True, seconds=QUIET, callers=0)


@pytest.mark.parametrize("quiet", [0.0, 0.5, 7.0])
def test_how_long_is_quiet_is_as_it_was_asked_for(quiet: float) -> None:
    drain = draining(quiet=quiet)
    if quiet:
        assert drain.verdict(START + quiet - 0.01) is None
    assert ended(drain, quiet).is_clean


def test_the_quiet_time_begins_when_the_registry_has_it() -> None:
    drain = Drain(ME, quiet=QUIET, timeout=TIMEOUT, now=START)
    drain.counted(0)
    drain.told(REVISION, START + 5)
    drain.saw({})
    assert drain.verdict(START + 5 + QUIET - 0.01) is None
    assert ended(drain, 5 + QUIET).seconds == 5 + QUIET


# ---- each thing that keeps it open, alone


def keep_untold() -> Drain:
    drain = Drain(ME, quiet=0.0, timeout=TIMEOUT, now=START)
    drain.saw({})
    drain.counted(0)
    return drain


def keep_unlearnt() -> Drain:
    drain = Drain(ME, quiet=0.0, timeout=TIMEOUT, now=START)
    drain.told(REVISION, START)
    drain.counted(0)
    return drain


def keep_in_flight() -> Drain:
    drain = draining(caller(), quiet=0.0)
    drain.counted(3)
    return drain


OPEN = {
    "the registry was not told yet": keep_untold,
    "who calls was not learnt yet": keep_unlearnt,
    "3 requests in flight": keep_in_flight,
    "1 of 1 callers (unknown host, pid 7: did not acknowledge)": lambda: draining(
        caller(applied=REVISION - 1, pid=7), quiet=0.0
    ),
    "1 of 2 callers (web-3, pid 4242: 2 requests in flight)": lambda: draining(
        caller(busy=2, pid=4242, hostname="web-3"), caller("caller-2"), quiet=0.0
    ),
    "2 of 3 callers (caller-1: did not acknowledge)": lambda: draining(
        caller(applied=0), caller("caller-2", busy=1), caller("caller-3"), quiet=0.0
    ),
    "the quiet time of 30 s was not over": lambda: draining(caller(), quiet=30.0),
}


@pytest.mark.parametrize("problem", OPEN)
def test_each_thing_alone_keeps_it_open_until_its_time_is_over_and_is_named_then(problem: str) -> None:
    drain = OPEN[problem]()
    assert drain.verdict(START + TIMEOUT - 0.01) is None
    verdict = ended(drain, TIMEOUT)
    assert not verdict.is_clean
    assert verdict.problem == problem
    assert verdict.seconds == TIMEOUT


@pytest.mark.parametrize("problem", OPEN)
def test_whoever_is_in_a_hurry_waits_for_none_of_it_and_is_told_what_it_was(problem: str) -> None:
    drain = OPEN[problem]()
    drain.hurry()
    verdict = ended(drain, 0.0)
    assert (verdict.is_clean, verdict.problem) == (False, problem)


def test_a_hurry_when_nothing_is_left_to_wait_for_is_clean() -> None:
    drain = draining(caller(), quiet=0.0)
    drain.hurry()
    assert ended(drain, 0.0).is_clean


@pytest.mark.parametrize("timeout", [0.5, 90.0])
def test_how_long_it_may_take_is_as_it_was_asked_for(timeout: float) -> None:
    drain = draining(caller(applied=0), timeout=timeout)
    assert drain.verdict(START + timeout - 0.01) is None
    assert not ended(drain, timeout).is_clean


def test_the_time_counts_from_the_beginning_and_not_from_when_it_was_told() -> None:
    drain = Drain(ME, quiet=QUIET, timeout=TIMEOUT, now=START)
    drain.told(REVISION, START + TIMEOUT - 0.5)
    drain.saw({})
    assert ended(drain, TIMEOUT).problem == "the quiet time of 1 s was not over"


# ---- what closes it


def test_it_closes_when_the_last_caller_has_left() -> None:
    drain = draining(caller(applied=REVISION - 1), caller("caller-2", busy=1))
    assert drain.waiting == ["caller-1", "caller-2"]
    drain.saw({"caller-1": caller(), "caller-2": caller("caller-2", busy=1)})
    assert drain.waiting == ["caller-2"]
    assert drain.verdict(START + 5) is None
    drain.saw({"caller-1": caller(), "caller-2": caller("caller-2", applied=REVISION + 9)})
    assert drain.waiting == []
    assert ended(drain, 5) == Drained(is_clean=True, seconds=5, callers=2)


def test_it_closes_when_the_caller_is_gone_with_its_lease() -> None:
    drain = draining(caller(applied=0))
    drain.saw({})
    assert ended(drain, 5).is_clean


def test_it_opens_again_for_a_caller_that_comes_before_it_is_over() -> None:
    drain = draining(quiet=QUIET)
    drain.saw({"late": caller("late", applied=0)})
    assert drain.verdict(START + 5) is None
    drain.saw({"late": caller("late", applied=REVISION)})
    assert ended(drain, 5).is_clean


def test_requests_that_wait_at_other_instances_do_not_count() -> None:
    drain = draining(Presence(id="caller-1", applied=REVISION, busy={OTHER: 5}))
    assert ended(drain, QUIET).is_clean


def test_it_closes_when_what_was_in_flight_here_is_done() -> None:
    drain = draining()
    drain.counted(1)
    assert drain.verdict(START + 5) is None
    drain.counted(0)
    assert ended(drain, 5).is_clean


# ---- where it can't be known


def test_where_presences_may_not_be_read_the_quiet_time_is_all() -> None:
    drain = Drain(ME, quiet=QUIET, timeout=TIMEOUT, now=START)
    drain.told(REVISION, START)
    drain.saw(None)
    assert drain.verdict(START + QUIET - 0.01) is None
    assert ended(drain, QUIET) == Drained(is_clean=True, seconds=QUIET)


def test_what_is_in_flight_here_counts_all_the_same() -> None:
    drain = Drain(ME, quiet=0.0, timeout=TIMEOUT, now=START)
    drain.told(REVISION, START)
    drain.saw(None)
    drain.counted(1)
    assert drain.verdict(START + TIMEOUT - 0.01) is None


def test_who_may_be_read_after_all_is_waited_for() -> None:
    drain = draining(caller())
    drain.saw(None)
    drain.saw({"caller-1": caller(applied=0)})
    assert drain.verdict(START + 5) is None


def test_what_the_registry_does_not_have_no_caller_can_know() -> None:
    """So nobody's word is waited for; and clean it can't be called."""
    drain = Drain(ME, quiet=QUIET, timeout=TIMEOUT, now=START)
    drain.told(0, START)
    drain.counted(0)
    assert drain.verdict(START + QUIET - 0.01) is None
    verdict = ended(drain, QUIET)
    assert (verdict.is_clean, verdict.problem) == (False, "the registry could not be told")


def test_what_is_in_flight_is_waited_for_even_if_nobody_could_be_told() -> None:
    drain = Drain(ME, quiet=0.0, timeout=TIMEOUT, now=START)
    drain.told(0, START)
    drain.counted(1)
    assert drain.verdict(START + TIMEOUT - 0.01) is None
    drain.counted(0)
    assert ended(drain, 5).problem == "the registry could not be told"


# ---- when to look again


def test_it_wakes_up_at_the_end_of_the_quiet_time_and_at_the_end_of_all() -> None:
    drain = Drain(ME, quiet=QUIET, timeout=TIMEOUT, now=START)
    assert drain.wake_at(START) == START + TIMEOUT
    drain.told(REVISION, START + 2)
    assert drain.wake_at(START + 2) == START + 2 + QUIET
    assert drain.wake_at(START + 2 + QUIET) == START + TIMEOUT
    assert draining(quiet=99.0).wake_at(START) == START + TIMEOUT


callers = st.dictionaries(
    st.sampled_from(["caller-1", "caller-2", "caller-3"]),
    st.builds(
        lambda applied, busy: Presence(id="caller-1", applied=applied, busy=busy),
        st.integers(REVISION - 2, REVISION + 2),
        st.dictionaries(st.sampled_from([ME, OTHER]), st.integers(0, 2)),
    ),
)


@thorough(300)
@given(
    st.none() | callers,
    st.none() | st.sampled_from([0, REVISION]),
    st.integers(0, 1),
    st.integers(0, 8 * int(TIMEOUT)).map(lambda quarters: quarters / 4),
)
def test_it_is_clean_only_if_nobody_can_be_hurt_and_always_ends_in_time(
    presences: Mapping[str, Presence] | None, told: int | None, in_flight: int, after: float
) -> None:
    """Against the plainest reading of the rules."""
    drain = Drain(ME, quiet=QUIET, timeout=TIMEOUT, now=START)
    if told is not None:
        drain.told(told, START)
    drain.saw(presences)
    drain.counted(in_flight)
    verdict = drain.verdict(START + after)
    may_stop = (
        told is not None
        and not in_flight
        and after >= QUIET
        and (
            not told
            or all(each.applied >= REVISION and not each.busy.get(ME) for each in (presences or {}).values())
        )
    )
    if may_stop or after >= TIMEOUT:
        assert verdict is not None
        assert verdict.is_clean is (may_stop and bool(told))
        assert bool(verdict.problem) is not verdict.is_clean
    else:
        assert verdict is None
        assert drain.wake_at(START + after) > START + after
