"""What the keeper makes of what it sees at its key. A watch tells of a change once: what is not heeded then is lost."""

from __future__ import annotations

import copy

import pytest

from discoclient.model.errors import RegistryError
from discoclient.serving.happenings import Step
from tests.serving.keeping import KEY, TTL, Keeping


@pytest.fixture
def kept() -> Keeping:
    return Keeping().registered()


def stands(keeping: Keeping, value: bytes) -> bool:
    """Whether the key holds *value* under the keeper's lease, and the keeper knows."""
    entries = keeping.store.list(KEY).entries
    lease = keeping.keeper.lease
    return [(entry.value, entry.lease) for entry in entries] == [
        (value, lease.id if lease else 0)
    ] and keeping.keeper.is_settled


def test_a_deletion_that_is_seen_before_the_answer_to_the_put_is_heeded(kept: Keeping) -> None:
    """The answer and the watch travel on different connections."""
    kept.want(b"v2")
    kept.do(Step.PUT)
    kept.store.delete(KEY)
    kept.see()
    kept.answer(Step.PUT)
    kept.settle()
    assert stands(kept, b"v2")


def test_an_overwriting_that_is_seen_before_the_answer_to_the_first_put_is_heeded() -> None:
    keeping = Keeping().start()
    keeping.do(Step.GRANT)
    keeping.answer(Step.GRANT)
    keeping.do(Step.PUT)
    keeping.store.put(KEY, b"rival")
    keeping.see()
    keeping.answer(Step.PUT)
    keeping.settle()
    assert stands(keeping, b"v1")


def test_the_own_put_that_is_seen_before_its_answer_is_no_reason_to_put_again(kept: Keeping) -> None:
    kept.want(b"v2")
    kept.do(Step.PUT)
    kept.see()
    kept.answer(Step.PUT)
    assert not kept.jobs
    assert stands(kept, b"v2")


def test_what_was_there_before_the_put_and_is_seen_before_its_answer_is_old(kept: Keeping) -> None:
    kept.want(b"v2")
    kept.see()  # v1 still
    kept.do(Step.PUT)
    kept.answer(Step.PUT)
    assert not kept.jobs
    assert stands(kept, b"v2")


def test_a_deletion_that_is_seen_while_a_put_waits_is_a_loss_that_is_known(kept: Keeping) -> None:
    kept.want(b"v2")
    kept.fail(Step.PUT)
    kept.store.delete(KEY)
    kept.see()
    assert not kept.keeper.is_registered
    kept.run(5)
    assert stands(kept, b"v2")


def test_a_put_that_waits_while_the_old_value_stands_is_no_loss(kept: Keeping) -> None:
    kept.want(b"v2")
    kept.fail(Step.PUT)
    kept.see()
    assert kept.keeper.is_registered
    assert not kept.keeper.is_settled


# ---- the registry went back


def test_after_a_restored_backup_an_old_value_is_put_right(kept: Keeping) -> None:
    """The lease lives in the backup too, and is renewed: nothing else would ever tell."""
    backup = copy.deepcopy(kept.store)
    kept.want(b"v2")
    kept.settle()
    kept.see()
    kept.store = backup
    kept.see()
    kept.settle()
    assert stands(kept, b"v2")


def test_after_a_restored_backup_a_missing_key_is_put_back() -> None:
    keeping = Keeping().start()
    keeping.do(Step.GRANT)
    keeping.answer(Step.GRANT)
    backup = copy.deepcopy(keeping.store)
    keeping.settle()
    keeping.see()
    keeping.store = backup
    keeping.see()
    keeping.settle()
    assert stands(keeping, b"v1")


def test_a_registry_that_went_back_while_a_put_was_under_way_is_put_right(kept: Keeping) -> None:
    backup = copy.deepcopy(kept.store)
    kept.see()
    for value in (b"v2", b"v3"):
        kept.want(value)
        kept.settle()
        kept.see()
    kept.want(b"v4")
    kept.do(Step.PUT)
    kept.store = backup
    kept.see()
    kept.store.put("/elsewhere", b"")
    kept.store.put(KEY, b"rival")
    kept.see()
    kept.answer(Step.PUT)  # as of the registry before
    kept.settle()
    assert stands(kept, b"v4")


def test_what_was_seen_before_the_put_was_sent_does_not_undo_it(kept: Keeping) -> None:
    """Not even if the registry went back then: the put compared, and knows better."""
    for number in range(10):
        kept.store.put("/elsewhere", b"%d" % number)
    kept.see()
    kept.store.wipe()
    assert kept.keeper.lease is not None
    kept.now = kept.keeper.wake_at or 0.0
    kept._tick()
    kept.do(Step.RENEW)
    kept.answer(Step.RENEW)  # the lease is gone
    kept.see()
    before = len(kept.asks(Step.PUT))
    kept.settle()
    assert stands(kept, b"v1")
    assert len(kept.asks(Step.PUT)) == before + 2  # refused for what it expected, and done


def test_a_wiped_registry_gets_everything_anew(kept: Keeping) -> None:
    kept.see()
    kept.store.wipe()
    kept.see()
    kept.settle()
    kept.run(TTL)
    assert stands(kept, b"v1")


def test_what_is_older_than_the_last_write_is_no_registry_that_went_back(kept: Keeping) -> None:
    """Two sightings that were on their way for long, in their order."""
    from discoclient.serving.happenings import Seen

    kept.store.put("/elsewhere", b"")
    kept.want(b"v2")
    kept.settle()
    kept.tell(Seen(None, 1))
    kept.tell(Seen(None, 2))
    assert not kept.jobs
    assert stands(kept, b"v2")


# ---- whose key it is


def test_a_twin_with_the_very_same_record_is_refused_all_the_same() -> None:
    """Registered twice by one process within a second: the records are equal, and the leases are not."""
    first = Keeping().registered()
    second = Keeping(store=first.store)
    second.start().settle()
    assert isinstance(second.keeper.fatal, RegistryError)
    assert not second.keeper.is_registered
    assert stands(first, b"v1")


def test_the_own_first_put_is_known_again_even_if_another_value_is_wanted_since() -> None:
    keeping = Keeping().start()
    keeping.do(Step.GRANT)
    keeping.answer(Step.GRANT)
    keeping.do(Step.PUT)
    keeping.fail(Step.PUT)
    keeping.want(b"v2")
    keeping.run(5)
    assert keeping.keeper.fatal is None
    assert stands(keeping, b"v2")


def test_the_own_first_put_is_known_again_even_if_its_lease_is_lost_since() -> None:
    keeping = Keeping().start()
    keeping.do(Step.GRANT)
    keeping.answer(Step.GRANT)
    keeping.do(Step.PUT)
    keeping.fail(Step.PUT)
    keeping.is_down = True
    keeping.now += TTL + 0.5  # by our clock; the registry's began later
    keeping._tick()
    keeping.is_down = False
    old = keeping.store.list(KEY).entries
    assert old
    keeping.store._leases[old[0].lease].expires_at += 100
    keeping.run(5)
    assert keeping.keeper.fatal is None
    assert stands(keeping, b"v1")
