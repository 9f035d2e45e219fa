"""The attendance of a calling process, rule by rule, in virtual time."""

from __future__ import annotations

import itertools

import pytest

from discoclient.control import attendance as module
from discoclient.control.attendance import (
    DENIED_PAUSE,
    LOST_PAUSE,
    PERIOD,
    RETRY_CAP,
    RETRY_FIRST,
    WRITES,
    Delete,
    Failed,
    Grant,
    Renew,
    Write,
)
from discoclient.model.errors import LeaseExpired, RegistryDenied
from tests.control.attending import TTL, Attending, key_of

DENIED = RegistryDenied("no such role")


@pytest.fixture
def here() -> Attending:
    """Announced for one service, under a lease."""
    return Attending().announced()


def writing(here: Attending, value: bytes) -> Attending:
    """*value* is being written, and nobody knows how far that is."""
    here.now += PERIOD
    here.want("web", value)
    assert here.steps() == [Write]
    return here


# ---- one lease, and a key for each service


def test_nothing_is_asked_for_before_a_service_is_called() -> None:
    here = Attending()
    here.run(3600)
    assert here.asked == []
    assert here.attendance.wake_at is None


def test_it_gets_a_lease_and_then_writes_the_key_under_it() -> None:
    here = Attending()
    here.want("web")
    assert here.steps() == [Grant]
    assert not here.attendance.is_announced("web")
    here.answer(here.do(here.job(Grant)))
    assert here.job(Write).step == Write("web", b"v1", 0)
    assert not here.attendance.is_announced("web")
    here.settle()
    assert here.attendance.is_announced("web")
    (entry,) = here.store.list("/").entries
    assert here.attendance.lease is not None
    assert (entry.key, entry.value, entry.lease) == (key_of("web"), b"v1", here.attendance.lease.id)


def test_many_services_share_one_lease() -> None:
    here = Attending()
    for service in ("web", "api", "db"):
        here.want(service)
    here.settle()
    here.announced("late")
    assert here.times(Grant) == [1000.0]
    assert len({entry.lease for entry in here.store.list("/").entries}) == 1
    assert len(here.store.list("/").entries) == 4


def test_a_service_that_nobody_spoke_of_is_not_announced_and_can_be_dropped(here: Attending) -> None:
    assert not here.attendance.is_announced("api")
    here.drop("api")
    assert here.jobs == []


def test_the_same_value_is_not_written_again(here: Attending) -> None:
    revision = here.store.revision
    for _ in range(10):
        here.want("web", b"v1")
        here.run(PERIOD)
    assert here.store.revision == revision


def test_a_new_value_replaces_the_one_that_stands_there(here: Attending) -> None:
    stands = here.store.revision
    writing(here, b"v2")
    assert here.job(Write).step == Write("web", b"v2", stands)
    here.settle()
    assert here.held() == b"v2"


def test_what_is_wanted_during_a_write_follows_it_and_only_the_newest_does(here: Attending) -> None:
    writing(here, b"v2")
    for value in (b"v3", b"v4", b"v5"):
        here.want("web", value)
    assert here.job(Write).step == Write("web", b"v2", here.store.revision)
    here.run(PERIOD)
    assert here.held() == b"v5"
    assert [step.value for _, step in here.asked if isinstance(step, Write)] == [b"v1", b"v2", b"v5"]


# ---- at most two writes a second


def test_a_key_is_written_twice_in_a_second_at_most_and_the_last_value_gets_there() -> None:
    here = Attending().announced()
    for number in range(99):
        here.now = 1000.01 + number / 100
        here.want("web", b"%d" % number)
        here.tick()
        here.settle()
    assert here.times(Write) == [1000.0, 1000.01]
    here.run(PERIOD)
    assert here.times(Write) == [1000.0, 1000.01, 1001.0]
    assert here.held() == b"98"


def test_how_many_writes_in_how_long_is_as_the_constants_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD", 7.0)
    here = Attending().announced()
    here.want("web", b"v2")
    here.settle()
    here.want("web", b"v3")
    here.run(20)
    assert here.times(Write) == [1000.0, 1000.0, 1007.0]
    assert WRITES == 2


def test_each_key_has_its_own_share() -> None:
    here = Attending()
    for service in ("web", "api"):
        for value in (b"v1", b"v2"):
            here.want(service, value)
            here.settle()
    assert [here.times(Write, service) for service in ("web", "api")] == [[1000.0] * 2] * 2
    assert (here.held("web"), here.held("api")) == (b"v2", b"v2")


def test_writes_that_fail_count_as_well() -> None:
    """The registry had the work of them."""
    here = Attending().announced()
    here.is_down = True
    here.want("web", b"v2")
    for _ in range(100):
        here.run(0.02)
    assert most_in_a_period(here.times(Write)) <= WRITES


def most_in_a_period(times: list[float]) -> int:
    return max(sum(at <= each < at + PERIOD - 1e-9 for each in times) for at in times)


def test_a_service_that_is_called_and_dropped_in_turn_is_not_written_more_often() -> None:
    here = Attending()
    for _ in range(10):
        here.want("web")
        here.settle()
        here.drop("web")
        here.settle()
    here.want("web")
    here.run(PERIOD)
    assert here.held() == b"v1"
    assert most_in_a_period(here.times(Write)) <= WRITES


# ---- the lease is kept


def test_it_renews_every_third_of_the_ttl_give_or_take_a_tenth(here: Attending) -> None:
    here.run(600)
    gaps = [later - earlier for earlier, later in itertools.pairwise([1000.0, *here.times(Renew)])]
    assert min(gaps) >= TTL / 3 * 0.9
    assert max(gaps) <= TTL / 3 * 1.1
    assert len({round(gap, 6) for gap in gaps}) > 10
    assert here.times(Grant) == [1000.0]
    assert here.held() == b"v1"


def test_the_lease_counts_from_when_its_grant_was_sent() -> None:
    here = Attending()
    here.want("web")
    job = here.do(here.job(Grant))
    here.now += 4
    here.answer(job)
    assert here.attendance.deadline == 1000 + TTL


def test_the_lease_counts_from_when_its_renewal_was_sent(here: Attending) -> None:
    here.now = here.attendance.wake_at or 0
    here.tick()
    sent_at, job = here.now, here.do(here.job(Renew))
    here.now += 3
    here.answer(job)
    assert here.attendance.deadline == sent_at + TTL


def test_a_renewal_that_fails_is_tried_again_soon_while_the_lease_may_live(here: Attending) -> None:
    here.is_down = True
    here.run(TTL - 1)
    renewals = here.times(Renew)
    gaps = [later - earlier for earlier, later in itertools.pairwise(renewals)]
    assert len(gaps) >= 4
    assert min(gaps) >= 0.5
    assert max(gaps) <= 1.0
    here.is_down = False
    here.run(60)
    assert here.times(Grant) == [1000.0]
    assert here.attendance.is_announced("web")


def test_past_its_deadline_the_lease_is_lost_and_nothing_is_announced_any_more(here: Attending) -> None:
    here.is_down = True
    here.run(TTL)
    assert here.attendance.lease is None
    assert not here.attendance.is_announced("web")


def test_what_was_lost_is_put_back_under_another_lease(here: Attending) -> None:
    here.is_down = True
    here.run(3 * TTL)
    here.is_down = False
    here.run(RETRY_CAP + LOST_PAUSE)
    (entry,) = here.store.list("/").entries
    assert here.attendance.lease is not None
    assert (entry.value, entry.lease) == (b"v1", here.attendance.lease.id)
    assert here.attendance.is_announced("web")


def test_a_process_that_was_stopped_for_longer_than_its_lease_comes_back(here: Attending) -> None:
    here.now += 10 * TTL
    here.store.expire(here.now)
    assert here.held() is None
    here.tick()
    here.run(LOST_PAUSE)
    assert here.held() == b"v1"


@pytest.mark.parametrize("kind", [Renew, Write])
def test_a_word_that_the_lease_is_gone_is_believed(here: Attending, kind: type) -> None:
    assert here.attendance.lease is not None
    here.store.revoke(here.attendance.lease.id)
    if kind is Write:
        writing(here, b"v2")
    else:
        here.now = here.attendance.wake_at or 0
        here.tick()
    assert here.steps() == [kind]
    here.settle()
    assert here.attendance.lease is None
    assert not here.attendance.is_announced("web")
    here.run(LOST_PAUSE + PERIOD)
    assert here.attendance.is_announced("web")
    assert here.held() == (b"v2" if kind is Write else b"v1")


def test_a_lost_lease_is_replaced_within_a_pause_that_is_different_for_everybody() -> None:
    """All who had theirs in the same registry lost them at the same moment."""
    pauses = []
    for seed in range(50):
        here = Attending(seed=seed).announced()
        here.now += 10 * TTL
        here.store.expire(here.now)
        lost_at = here.now
        here.tick()
        here.run(LOST_PAUSE)
        pauses.append(here.times(Grant)[-1] - lost_at)
    assert all(0 <= pause <= LOST_PAUSE for pause in pauses)
    assert max(pauses) > 0.8 * LOST_PAUSE
    assert min(pauses) < 0.2 * LOST_PAUSE


def test_a_lost_lease_that_nobody_needs_is_not_replaced(here: Attending) -> None:
    here.drop("web")
    here.settle()
    here.is_down = True
    here.run(TTL)
    assert here.attendance.lease is None
    here.is_down = False
    here.run(3600)
    assert here.times(Grant) == [1000.0]
    assert here.attendance.wake_at is None
    here.announced("api")


# ---- what fails is tried again


def test_a_grant_that_fails_is_tried_for_ever_with_growing_pauses() -> None:
    here = Attending(is_down=True)
    here.want("web")
    here.run(3600)
    grants = here.times(Grant)
    gaps = [later - earlier for earlier, later in itertools.pairwise(grants)]
    assert gaps[0] <= RETRY_FIRST
    assert RETRY_CAP * 0.9 < max(gaps) <= RETRY_CAP
    assert grants[-1] >= here.now - RETRY_CAP
    here.is_down = False
    here.run(RETRY_CAP)
    assert here.held() == b"v1"


def test_a_write_that_fails_is_tried_again_and_whatever_stands_there_is_replaced(here: Attending) -> None:
    writing(here, b"v2")
    here.fail(here.job(Write))
    assert here.jobs == []
    here.run(RETRY_FIRST)
    assert here.held() == b"v2"
    assert here.asked[-1][1] == Write("web", b"v2", None)


def test_the_first_pause_is_short_again_once_something_was_written() -> None:
    longest = 0.0
    for seed in range(50):
        here = Attending(seed=seed, is_down=True)
        here.want("web")
        here.run(300)
        here.is_down = False
        here.run(RETRY_CAP)
        assert here.attendance.is_announced("web")
        writing(here, b"v2")
        here.fail(here.job(Write))
        assert here.attendance.wake_at is not None
        longest = max(longest, here.attendance.wake_at - here.now)
    assert longest <= RETRY_FIRST


def test_how_long_is_waited_is_as_the_constants_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST", 40.0)
    monkeypatch.setattr(module, "RETRY_CAP", 90.0)
    here = Attending(is_down=True)
    here.want("web")
    here.run(10_000)
    gaps = [later - earlier for earlier, later in itertools.pairwise(here.times(Grant))]
    assert 5 < max(gaps) <= 90
    assert sum(gaps) / len(gaps) > 30


def test_a_write_whose_answer_was_lost_may_have_been_done(here: Attending) -> None:
    """Then what is wanted next must get there, also if it is what stood there before."""
    writing(here, b"v2")
    job = here.do(here.job(Write))
    here.want("web", b"v1")
    here.fail(job)
    assert here.held() == b"v2"
    here.run(10)
    assert here.held() == b"v1"


def test_a_first_write_whose_answer_was_lost_is_taken_back_when_the_service_is_dropped() -> None:
    """Nobody would acknowledge anything under it, and every drain of that service would wait for us in vain."""
    here = Attending()
    here.want("web")
    here.answer(here.do(here.job(Grant)))
    here.fail(here.do(here.job(Write)))
    assert here.held() == b"v1"
    here.drop("web")
    here.run(10)
    assert here.held() is None


def test_a_first_write_is_taken_back_too_when_the_registry_has_an_earlier_one_of_ours() -> None:
    here = Attending()
    here.want("web")
    here.answer(here.do(here.job(Grant)))
    assert here.attendance.lease is not None
    here.store.put(key_of("web"), b"v0", lease=here.attendance.lease.id)
    job = here.do(here.job(Write))
    here.drop("web")
    here.answer(job)
    here.run(10)
    assert here.held() is None


def test_what_an_earlier_write_of_ours_left_there_is_replaced() -> None:
    here = Attending()
    here.want("web")
    here.answer(here.do(here.job(Grant)))
    assert here.attendance.lease is not None
    here.store.put(key_of("web"), b"v0", lease=here.attendance.lease.id)
    here.settle()
    assert here.held() == b"v1"
    assert here.attendance.is_announced("web")


def test_a_key_that_somebody_removed_is_written_anew_with_the_next_value(here: Attending) -> None:
    here.store.delete(key_of("web"))
    writing(here, b"v2")
    here.settle()
    assert here.held() == b"v2"


# ---- where it is not allowed


@pytest.mark.parametrize("kind", [Grant, Write])
def test_a_denial_is_told_and_tried_again_after_a_long_pause(kind: type) -> None:
    here = Attending()
    here.want("web")
    if kind is Write:
        here.answer(here.do(here.job(Grant)))
    here.fail(here.job(kind), DENIED)
    assert here.attendance.is_refused
    asked = len(here.times(kind))
    for _ in range(10):
        here.want("web", b"v2")
        here.run(DENIED_PAUSE / 10 - 0.01)
    assert len(here.times(kind)) == asked
    assert not here.attendance.is_announced("web")
    here.run(1)
    assert len(here.times(kind)) == asked + 1
    assert here.held() == b"v2"
    assert not here.attendance.is_refused


def test_how_long_a_denial_is_waited_out_is_as_the_constant_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DENIED_PAUSE", 5.0)
    here = Attending()
    here.want("web")
    here.fail(here.job(Grant), DENIED)
    here.run(4.9)
    assert here.times(Grant) == [1000.0]
    here.run(0.2)
    assert here.times(Grant) == [1000.0, 1005.0]


def test_a_registry_that_is_away_is_not_one_that_refuses() -> None:
    here = Attending()
    here.want("web")
    here.fail(here.job(Grant))
    assert not here.attendance.is_refused


def test_a_renewal_that_is_denied_says_nothing_of_the_keys(here: Attending) -> None:
    """Else who comes next would not wait for its presence, long after that is over."""
    here.now = here.attendance.wake_at or 0
    here.tick()
    here.fail(here.job(Renew), DENIED)
    assert not here.attendance.is_refused
    here.run(2)
    assert here.attendance.is_announced("web")


def test_a_lease_that_is_granted_at_last_ends_the_refusal() -> None:
    here = Attending()
    here.want("web")
    here.fail(here.job(Grant), DENIED)
    here.now += DENIED_PAUSE
    here.tick()
    here.answer(here.do(here.job(Grant)))
    assert not here.attendance.is_refused
    assert not here.attendance.is_announced("web")


def test_a_key_that_may_not_be_written_stays_refused_whatever_the_lease_does() -> None:
    here = Attending()
    here.want("web")
    here.answer(here.do(here.job(Grant)))
    here.fail(here.job(Write), DENIED)
    here.now = here.attendance.wake_at or 0
    here.tick()
    here.fail(here.job(Renew))
    assert here.attendance.is_refused
    here.run(5)
    assert here.attendance.is_refused


# ---- dropped


def test_a_dropped_service_is_deleted_and_its_lease_kept_for_the_others(here: Attending) -> None:
    here.announced("api")
    here.drop("web")
    assert not here.attendance.is_announced("web")
    here.settle()
    assert (here.held("web"), here.held("api")) == (None, b"v1")
    here.run(60)
    assert here.times(Grant) == [1000.0]
    assert here.held("api") == b"v1"


def test_a_service_dropped_before_there_was_a_lease_is_never_written() -> None:
    here = Attending()
    here.want("web")
    here.drop("web")
    here.run(60)
    assert here.times(Write) == []


def test_a_service_dropped_while_it_is_written_is_deleted_after(here: Attending) -> None:
    writing(here, b"v2")
    here.drop("web")
    assert here.steps() == [Write]
    here.answer(here.do(here.job(Write)))
    assert here.steps() == [Delete]
    here.settle()
    assert here.held() is None
    here.run(60)
    assert here.held() is None


def test_a_service_dropped_while_its_write_waits_is_deleted_and_not_written_any_more() -> None:
    here = Attending().announced()
    for value in (b"v2", b"v3"):
        here.want("web", value)
        here.settle()
    here.drop("web")
    here.run(PERIOD)
    assert here.held() is None
    assert len(here.times(Write)) == WRITES


def test_a_delete_that_fails_is_tried_until_it_is_done(here: Attending) -> None:
    here.drop("web")
    here.is_down = True
    here.run(3)
    assert len(here.times(Delete)) > 1
    here.is_down = False
    here.run(RETRY_CAP)
    assert here.held() is None


def test_a_service_that_is_wanted_again_while_it_is_deleted_is_written_after(here: Attending) -> None:
    here.now += PERIOD
    here.drop("web")
    here.want("web", b"v2")
    assert here.steps() == [Delete]
    assert not here.attendance.is_announced("web")
    here.answer(here.do(here.job(Delete)))
    assert here.job(Write).step == Write("web", b"v2", 0)
    here.settle()
    assert here.held() == b"v2"


@pytest.mark.parametrize("is_done", [True, False])
def test_a_service_that_is_wanted_again_after_a_delete_that_may_have_been_done_is_written(
    here: Attending, is_done: bool
) -> None:
    here.now += PERIOD
    here.drop("web")
    if is_done:
        here.do(here.job(Delete))
    here.fail(here.job(Delete))
    here.want("web", b"v1")
    assert not here.attendance.is_announced("web")
    here.run(10)
    assert here.attendance.is_announced("web")
    assert here.held() == b"v1"


# ---- answers that come late


def test_late_answers_of_an_old_lease_do_not_count_for_the_new_one(here: Attending) -> None:
    old = here.attendance.lease
    here.now = here.attendance.wake_at or 0
    here.tick()
    late = here.do(here.job(Renew)).answer
    assert late is not None
    here.jobs.clear()
    here.now += TTL
    here.store.expire(here.now)
    here.tick()
    here.run(LOST_PAUSE)
    assert here.attendance.lease is not old
    deadline = here.attendance.deadline
    here.tell(late)
    assert here.attendance.deadline == deadline
    assert old is not None
    here.tell(Failed(Renew(), LeaseExpired("gone"), old.id))
    assert here.attendance.lease is not None
    assert here.attendance.is_announced("web")


def lost(here: Attending) -> None:
    """The lease is past its time, and what was under way goes on being so."""
    here.now = here.attendance.deadline
    here.store.expire(here.now)
    here.tick()
    assert here.attendance.lease is None


def test_a_write_of_an_old_lease_that_is_answered_late_is_not_taken_for_one_of_the_new(
    here: Attending,
) -> None:
    writing(here, b"v2")
    late = here.do(here.job(Write))
    lost(here)
    here.now += LOST_PAUSE
    here.tick()
    here.answer(here.do(here.job(Grant)))
    assert not here.attendance.is_announced("web")
    here.answer(late)
    assert not here.attendance.is_announced("web")
    here.run(PERIOD)
    (entry,) = here.store.list("/").entries
    assert here.attendance.lease is not None
    assert (entry.value, entry.lease) == (b"v2", here.attendance.lease.id)


@pytest.mark.parametrize("is_down", [False, True], ids=["deleted", "failed"])
def test_a_delete_may_be_answered_after_its_lease_was_lost(here: Attending, is_down: bool) -> None:
    here.drop("web")
    job = here.do(here.job(Delete))
    lost(here)
    here.fail(job) if is_down else here.answer(job)
    here.run(3600)
    assert here.held() is None
    here.announced("web")


@pytest.mark.parametrize("is_down", [False, True], ids=["deleted", "failed"])
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "late"])
def test_a_delete_of_an_old_lease_does_not_take_away_what_was_wanted_since(
    here: Attending, is_down: bool, is_late: bool
) -> None:
    here.drop("web")
    job = here.job(Delete)
    here.want("web", b"v2")
    if not is_late:
        here.do(job)
    lost(here)
    here.now += LOST_PAUSE
    here.tick()
    here.answer(here.do(here.job(Grant)))
    for written in [each for each in here.jobs if isinstance(each.step, Write)]:
        here.answer(here.do(written))
    if is_late:
        here.do(job)
    here.fail(job) if is_down else here.answer(job)
    here.run(10)
    assert here.held() == b"v2"
    assert here.attendance.is_announced("web")


def test_a_service_that_is_dropped_during_a_write_of_an_old_lease_is_forgotten(here: Attending) -> None:
    writing(here, b"v2")
    job = here.do(here.job(Write))
    here.drop("web")
    lost(here)
    here.answer(job)
    here.run(3600)
    assert here.held() is None
    assert here.attendance.wake_at is None


def test_a_second_grant_is_not_asked_for_while_one_is_under_way() -> None:
    here = Attending()
    for service in ("web", "api"):
        here.want(service)
        here.drop(service)
        here.want(service)
    assert here.steps() == [Grant]
