"""The keeper of a registration, rule by rule, in virtual time."""

from __future__ import annotations

import itertools

import pytest

from discoclient.model.errors import LeaseExpired, RegistryDenied, RegistryError
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Untrusted
from discoclient.serving.happenings import Step
from discoclient.serving.keeper import REPAIR_WINDOW, REPAIRS, RETRY_CAP, RETRY_FIRST
from tests.serving.keeping import KEY, TTL, Keeping


@pytest.fixture
def kept() -> Keeping:
    return Keeping().registered()


def held(store: MemoryStore) -> tuple[bytes, int] | None:
    entries = store.list(KEY).entries
    return (entries[0].value, entries[0].lease) if entries else None


def test_it_grants_a_lease_and_then_puts_the_key_under_it() -> None:
    keeping = Keeping().start()
    assert list(keeping.jobs) == [Step.GRANT]
    assert not keeping.keeper.is_registered
    keeping.do(Step.GRANT)
    keeping.answer(Step.GRANT)
    assert list(keeping.jobs) == [Step.PUT]
    assert keeping.jobs[Step.PUT].ask.expected == 0
    assert not keeping.keeper.is_registered
    keeping.settle()
    assert keeping.keeper.is_registered
    assert keeping.keeper.lease is not None
    assert held(keeping.store) == (b"v1", keeping.keeper.lease.id)


def test_the_lease_counts_from_when_its_grant_was_sent() -> None:
    keeping = Keeping().start()
    keeping.do(Step.GRANT)
    keeping.now += 4
    keeping.answer(Step.GRANT)
    assert keeping.keeper.deadline == 1000 + TTL


def test_the_lease_counts_from_when_its_renewal_was_sent(kept: Keeping) -> None:
    kept.now = kept.keeper.wake_at or 0
    kept._tick()
    sent_at = kept.now
    kept.do(Step.RENEW)
    kept.now += 3
    kept.answer(Step.RENEW)
    assert kept.keeper.deadline == sent_at + TTL


def test_it_counts_the_ttl_that_was_granted_and_not_the_one_that_was_asked() -> None:
    keeping = Keeping().start()
    keeping.do(Step.GRANT)
    granted = keeping.jobs[Step.GRANT].answer
    assert granted is not None
    longer = type(granted.lease)(granted.lease.id, 60.0)  # type: ignore[union-attr,call-arg]
    keeping.jobs[Step.GRANT].answer = type(granted)(longer, 1000.0)  # type: ignore[call-arg,arg-type]
    keeping.answer(Step.GRANT)
    assert keeping.keeper.deadline == 1060


def test_it_renews_every_third_of_the_ttl_give_or_take_a_tenth(kept: Keeping) -> None:
    kept.run(600)
    asked = [1000.0, *kept.asks(Step.RENEW)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert min(gaps) >= TTL / 3 * 0.9
    assert max(gaps) <= TTL / 3 * 1.1
    assert len({round(gap, 6) for gap in gaps}) > 10
    assert kept.asks(Step.GRANT) == [1000]


def test_a_renewal_that_fails_is_tried_again_soon_while_the_lease_may_live(kept: Keeping) -> None:
    kept.is_down = True
    kept.run(TTL - 1)
    assert len(kept.asks(Step.RENEW)) >= 5
    assert kept.keeper.is_registered
    kept.is_down = False
    kept.run(60)
    assert kept.asks(Step.GRANT) == [1000]
    assert kept.keeper.is_registered


def test_past_the_deadline_the_lease_is_dead_and_a_new_one_is_asked_for(kept: Keeping) -> None:
    kept.is_down = True
    kept.run(TTL + 1)
    assert not kept.keeper.is_registered
    assert kept.keeper.lease is None
    assert len(kept.asks(Step.GRANT)) > 1
    kept.is_down = False
    kept.run(RETRY_CAP)
    assert kept.keeper.is_registered


def test_it_asks_for_ever_and_never_more_often_than_the_backoff_lets_it(kept: Keeping) -> None:
    kept.is_down = True
    kept.run(3600)
    grants = kept.asks(Step.GRANT)[1:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(grants)]
    assert max(gaps) <= RETRY_CAP
    assert sum(gaps) / len(gaps) > RETRY_CAP / 3
    assert grants[-1] > kept.now - RETRY_CAP - 1


def test_the_backoff_starts_anew_once_it_was_registered(kept: Keeping) -> None:
    kept.is_down = True
    kept.run(300)
    kept.is_down = False
    kept.run(10)
    kept.is_down = True
    before = len(kept.asks(Step.GRANT))
    kept.run(TTL + 0.5)
    soon = [at for at in kept.asks(Step.GRANT)[before:] if at < kept.now]
    assert len(soon) >= 2


def test_a_renewal_that_says_the_lease_is_gone_asks_for_a_new_one_at_once(kept: Keeping) -> None:
    assert kept.keeper.lease is not None
    kept.store.revoke(kept.keeper.lease.id)
    kept.run(TTL / 2)
    assert len(kept.asks(Step.GRANT)) == 2
    assert kept.keeper.is_registered
    assert held(kept.store) == (b"v1", kept.keeper.lease.id)


def test_a_process_that_was_stopped_for_longer_than_its_ttl_registers_again(kept: Keeping) -> None:
    kept.now += 10 * TTL
    kept.store.expire(kept.now)
    assert held(kept.store) is None
    kept.run(0)
    kept._tick()
    kept.settle()
    assert kept.keeper.is_registered
    assert held(kept.store) == (b"v1", kept.keeper.lease.id)  # type: ignore[union-attr]


def test_another_holder_of_the_id_is_refused_loudly_and_left_alone() -> None:
    first = Keeping().registered()
    second = Keeping(store=first.store, value=b"v2")
    second.start().settle()
    assert isinstance(second.keeper.fatal, RegistryError)
    assert "instance id" in str(second.keeper.fatal)
    assert not second.keeper.is_registered
    assert held(first.store) == (b"v1", first.keeper.lease.id)  # type: ignore[union-attr]


def test_a_put_whose_answer_was_lost_does_no_harm() -> None:
    keeping = Keeping().start()
    keeping.do(Step.GRANT)
    keeping.answer(Step.GRANT)
    keeping.do(Step.PUT)
    keeping.fail(Step.PUT)
    revision = keeping.store.revision
    keeping.run(1)
    assert keeping.keeper.is_registered
    assert keeping.keeper.fatal is None
    assert keeping.store.revision == revision


def test_a_first_put_that_was_done_under_a_lease_that_is_lost_since_is_still_ours() -> None:
    keeping = Keeping().start()
    keeping.do(Step.GRANT)
    keeping.answer(Step.GRANT)
    keeping.do(Step.PUT)
    keeping.is_down = True
    keeping.run(TTL + 0.1)
    # the server, whose clock began later, still has the key under the old lease
    keeping.store.put(KEY, b"v1", lease=keeping.store.grant(TTL, keeping.now)[0])
    keeping.is_down = False
    keeping.run(30)
    assert keeping.keeper.fatal is None
    assert keeping.keeper.is_registered


@pytest.mark.parametrize("error", [RegistryDenied("no"), Untrusted("another authority")])
def test_a_refusal_is_fatal_at_first_and_waited_out_later(kept: Keeping, error: RegistryError) -> None:
    new = Keeping().start()
    new.fail(Step.GRANT, error)
    assert new.keeper.fatal is error
    assert kept.keeper.lease is not None
    kept.store.revoke(kept.keeper.lease.id)
    kept.run(TTL / 2.9)
    kept.keeper.want(b"v2", kept.now)
    assert kept.keeper.fatal is None


def test_a_deleted_key_is_put_back_at_once(kept: Keeping) -> None:
    kept.store.delete(KEY)
    kept.see()
    assert not kept.keeper.is_registered
    kept.settle()
    assert kept.keeper.is_registered
    assert held(kept.store) == (b"v1", kept.keeper.lease.id)  # type: ignore[union-attr]


@pytest.mark.parametrize("has_lease", [True, False], ids=["under a foreign lease", "without a lease"])
@pytest.mark.parametrize("value", [b"v1", b"other"], ids=["our value", "another value"])
def test_an_overwritten_key_is_put_back_at_once(kept: Keeping, has_lease: bool, value: bytes) -> None:
    lease = kept.store.grant(60, kept.now)[0] if has_lease else 0
    kept.store.put(KEY, value, lease=lease)
    kept.see()
    kept.settle()
    assert kept.keeper.is_registered
    assert held(kept.store) == (b"v1", kept.keeper.lease.id)  # type: ignore[union-attr]


def test_a_key_that_went_with_its_lease_is_put_back_under_a_new_one(kept: Keeping) -> None:
    old = kept.keeper.lease
    assert old is not None
    kept.store.revoke(old.id)
    kept.see()
    kept.settle()
    assert kept.keeper.is_registered
    assert kept.keeper.lease is not None
    assert kept.keeper.lease.id != old.id


def test_what_is_as_it_should_be_is_not_written_again(kept: Keeping) -> None:
    revision = kept.store.revision
    kept.see()
    kept.run(60, watching=True)
    assert kept.store.revision == revision
    assert len(kept.asks(Step.PUT)) == 1


def test_a_sighting_from_before_the_last_write_is_ignored(kept: Keeping) -> None:
    from discoclient.serving.happenings import Seen

    kept.tell(Seen(None, kept.store.revision - 1))
    assert not kept.jobs
    assert kept.keeper.is_registered


def test_two_that_overwrite_each_other_wait_longer_and_longer(kept: Keeping) -> None:
    """Three repairs at once, then pauses that grow: no fight at the speed of the network."""
    for _ in range(200):
        kept.store.put(KEY, b"rival")
        kept.see()
        kept.run(1)
    puts = kept.asks(Step.PUT)[1:]
    assert len([at for at in puts if at < 1000 + REPAIR_WINDOW]) <= REPAIRS + 4
    assert len(puts) < 100


def test_three_repairs_are_made_at_once_and_the_fourth_waits(kept: Keeping) -> None:
    for number in range(REPAIRS + 1):
        kept.store.put(KEY, b"rival")
        kept.see()
        is_asked = Step.PUT in kept.jobs
        assert is_asked is (number < REPAIRS)
        kept.settle()
    assert held(kept.store) == (b"rival", 0)
    kept.run(60)
    assert kept.keeper.is_registered


def test_repairs_that_are_far_apart_are_all_made_at_once(kept: Keeping) -> None:
    for _ in range(10):
        kept.run(REPAIR_WINDOW)
        kept.store.delete(KEY)
        kept.see()
        assert Step.PUT in kept.jobs
        kept.settle()


def test_a_new_value_is_put_over_the_old_one(kept: Keeping) -> None:
    kept.want(b"v2")
    assert not kept.keeper.is_settled
    kept.settle()
    assert kept.keeper.is_settled
    assert held(kept.store) == (b"v2", kept.keeper.lease.id)  # type: ignore[union-attr]


def test_a_value_wanted_while_another_is_being_put_follows_it(kept: Keeping) -> None:
    kept.want(b"v2")
    kept.want(b"v3")
    assert kept.jobs[Step.PUT].ask.value == b"v2"
    kept.settle()
    assert held(kept.store) == (b"v3", kept.keeper.lease.id)  # type: ignore[union-attr]
    assert kept.keeper.is_settled


def test_a_value_wanted_while_there_is_no_lease_comes_with_the_next_one(kept: Keeping) -> None:
    kept.is_down = True
    kept.run(TTL + 1)
    kept.want(b"v2")
    kept.is_down = False
    kept.run(10)
    assert held(kept.store) == (b"v2", kept.keeper.lease.id)  # type: ignore[union-attr]


def test_answers_about_a_lease_that_was_given_up_are_ignored(kept: Keeping) -> None:
    kept.now = kept.keeper.wake_at or 0
    kept._tick()
    kept.do(Step.RENEW)
    late = kept.jobs.pop(Step.RENEW).answer
    assert late is not None
    old = kept.keeper.lease
    kept.now += TTL
    kept.store.expire(kept.now)
    kept._tick()
    kept.settle()
    deadline = kept.keeper.deadline
    kept.tell(late)
    assert kept.keeper.lease is not old
    assert kept.keeper.deadline == deadline


def test_a_late_word_that_an_old_lease_is_gone_does_not_cost_the_new_one(kept: Keeping) -> None:
    from discoclient.serving.happenings import Failed

    old = kept.keeper.lease
    assert old is not None
    kept.store.revoke(old.id)
    kept.see()
    kept.settle()
    new = kept.keeper.lease
    kept.tell(Failed(Step.RENEW, LeaseExpired("gone"), old.id))
    assert kept.keeper.lease is new
    assert kept.keeper.is_registered


def test_leaving_gives_the_lease_back_and_asks_for_nothing_more(kept: Keeping) -> None:
    kept.leave()
    assert list(kept.jobs) == [Step.REVOKE]
    assert not kept.keeper.is_registered
    kept.do(Step.REVOKE)
    assert held(kept.store) is None
    kept.see()
    kept.run(3600)
    assert kept.asked[-1][1] is Step.REVOKE


def test_leaving_without_a_lease_asks_for_nothing() -> None:
    keeping = Keeping().start()
    keeping.jobs.clear()
    keeping.leave()
    assert not keeping.jobs


def test_a_renewal_may_grant_another_ttl_and_that_one_counts(kept: Keeping) -> None:
    from discoclient.serving.happenings import Renewed

    lease = kept.keeper.lease
    assert lease is not None
    kept.tell(Renewed(60.0, kept.now, lease.id))
    assert kept.keeper.deadline == kept.now + 60
    assert kept.keeper.wake_at is not None
    assert 18 <= kept.keeper.wake_at - kept.now <= 22


@pytest.mark.parametrize("error", [RegistryDenied("no"), Untrusted("another authority")])
def test_whoever_was_registered_waits_a_denial_out(kept: Keeping, error: RegistryError) -> None:
    """A role that was changed by mistake will be changed back, and a certificate that has expired be renewed."""
    kept.now = kept.keeper.wake_at or 0
    kept._tick()
    kept.fail(Step.RENEW, error)
    assert kept.keeper.fatal is None
    kept.want(b"v2")
    kept.fail(Step.PUT, error)
    assert kept.keeper.fatal is None
    kept.run(30)
    assert held(kept.store) == (b"v2", kept.keeper.lease.id)  # type: ignore[union-attr]


def test_after_a_long_trouble_that_is_over_the_first_pause_is_short_again() -> None:
    longest = 0.0
    for seed in range(50):
        keeping = Keeping(seed=seed).registered()
        keeping.is_down = True
        keeping.run(120)
        keeping.is_down = False
        keeping.run(10)
        assert keeping.keeper.is_registered
        keeping.want(b"v2")
        keeping.fail(Step.PUT)
        longest = max(longest, keeping.keeper._timers[Step.PUT] - keeping.now)
    assert longest <= RETRY_FIRST


# ---- a lost lease is no fight


def repaired(kept: Keeping, times: int) -> Keeping:
    """After it has put an overwritten key right so often, just now."""
    for _ in range(times):
        kept.store.put(KEY, b"rival")
        kept.see()
        kept.settle()
        assert kept.keeper.is_registered
    return kept


def revoke(kept: Keeping) -> None:
    assert kept.keeper.lease is not None
    kept.store.revoke(kept.keeper.lease.id)


def test_a_lease_that_is_revoked_after_many_repairs_is_replaced_at_once(kept: Keeping) -> None:
    repaired(kept, REPAIRS)
    revoke(kept)
    kept.see()
    kept.settle()
    assert kept.keeper.is_registered
    assert held(kept.store) == (b"v1", kept.keeper.lease.id)  # type: ignore[union-attr]
    assert kept.now == 1000


def test_a_renewal_that_finds_the_lease_gone_after_many_repairs_has_it_replaced_at_once(
    kept: Keeping,
) -> None:
    repaired(kept, REPAIRS)
    revoke(kept)
    kept.now = kept.keeper.wake_at or 0
    kept._tick()
    assert list(kept.jobs) == [Step.RENEW]
    kept.settle()
    assert kept.keeper.is_registered
    assert held(kept.store) == (b"v1", kept.keeper.lease.id)  # type: ignore[union-attr]


def test_a_key_that_is_deleted_after_many_repairs_waits_however_well_its_lease_is(kept: Keeping) -> None:
    repaired(kept, REPAIRS)
    kept.store.delete(KEY)
    kept.see()
    assert list(kept.jobs) == [Step.RENEW]
    kept.settle()
    assert not kept.keeper.is_registered
    kept.run(3)
    assert kept.keeper.is_registered
    assert kept.asks(Step.PUT)[-1] >= 1001
    assert len(kept.asks(Step.GRANT)) == 1


def test_lost_leases_do_not_count_as_repairs(kept: Keeping) -> None:
    for _ in range(REPAIRS):
        revoke(kept)
        kept.see()
        kept.settle()
        assert kept.keeper.is_registered
    repaired(kept, REPAIRS)


def test_a_registry_that_can_hold_no_lease_is_asked_for_one_less_and_less_often(kept: Keeping) -> None:
    for number in range(REPAIRS + 1):
        revoke(kept)
        kept.see()
        kept.settle()
        assert kept.keeper.is_registered is (number < REPAIRS)
    kept.run(3)
    assert kept.keeper.is_registered
    kept.run(REPAIR_WINDOW)
    revoke(kept)
    kept.see()
    kept.settle()
    assert kept.keeper.is_registered


# ---- leaving


def test_a_revoke_that_fails_is_tried_again_until_the_registry_takes_it(kept: Keeping) -> None:
    kept.is_down = True
    kept.leave()
    kept.run(60)
    asked = kept.asks(Step.REVOKE)
    assert len(asked) > 10
    assert max(later - earlier for earlier, later in itertools.pairwise(asked)) <= RETRY_CAP
    assert not kept.keeper.is_gone
    kept.is_down = False
    kept.run(RETRY_CAP)
    assert kept.keeper.is_gone
    assert held(kept.store) is None
    assert kept.keeper.wake_at is None


def test_who_leaves_wants_nothing_more(kept: Keeping) -> None:
    kept.leave()
    kept.want(b"v2")
    assert list(kept.jobs) == [Step.REVOKE]
    kept.settle()
    assert kept.keeper.is_gone
    kept.want(b"v3")
    assert not kept.jobs


def test_who_has_no_lease_is_gone_when_it_leaves() -> None:
    keeping = Keeping().start()
    keeping.jobs.clear()
    keeping.leave()
    assert keeping.keeper.is_gone
