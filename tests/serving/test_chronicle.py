"""What happened to a service, told from the registry's history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.model.instance import Instance, State
from discoclient.registry.asked import Asked, Retirement, encode_asked
from discoclient.registry.codec import encode
from discoclient.registry.keys import Keys
from discoclient.registry.memory_store import MemoryStore
from discoclient.registry.protocol import Deletion, Entry
from discoclient.serving.chronicle import STATE_AT, Happening, chronicle
from tests.support.properties import thorough

KEYS = Keys()
OLD, NEW = "aaaaaaaa", "bbbbbbbb"


class Story:
    """What instances write, and what is asked of them."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.lease = self.store.grant(10, 0)[0]
        self.instances: dict[str, Instance] = {}

    def write(self, id: str, state: State = State.READY, **fields: Any) -> Story:
        known = self.instances.get(id) or Instance(service="web", id=id, host="127.0.0.1", port=80)
        self.instances[id] = known = replace(known, state=state, **fields)
        self.store.put(KEYS.instance("web", id), encode(known), lease=self.lease)
        return self

    def ask(self, id: str, asked: Asked) -> Story:
        return self.raw(KEYS.control("web", id), encode_asked(asked))

    def raw(self, key: str, value: bytes) -> Story:
        self.store.put(key, value, lease=self.lease)
        return self

    def delete(self, *ids: str) -> Story:
        self.store.delete(*(KEYS.instance("web", id) for id in ids), *(KEYS.control("web", id) for id in ids))
        return self

    def changes(self, after: int = 1) -> list[Entry | Deletion]:
        ranges = (KEYS.service("web"), KEYS.controls("web"))
        return [
            change
            for range in ranges
            for batch in self.store.batches(range, after)
            for change in batch.changes
        ]

    def told(self) -> list[Happening]:
        return chronicle(self.changes(), keys=KEYS, service="web", hostnames=False)

    def events(self) -> list[tuple[str, str]]:
        return [(each.event, each.instance.id) for each in self.told()]


def test_a_deploy_is_told_in_the_order_in_which_it_happened() -> None:
    story = Story().write(OLD, version="1").write(NEW, version="2")
    story.ask(OLD, Asked(retire=Retirement(reason="replaced by 2", by="disco run on web-3")))
    story.write(OLD, State.DRAINING).delete(OLD)
    told = story.told()
    assert [(each.event, each.instance.version) for each in told] == [
        ("registered", "1"),
        ("registered", "2"),
        ("asked", "1"),
        ("draining", "1"),
        ("gone", "1"),
    ]
    assert told[2].detail == "to retire: replaced by 2 (asked by disco run on web-3)"
    assert [each.revision for each in told] == [2, 3, 4, 5, 6]


def test_nothing_tells_nothing() -> None:
    assert Story().told() == []


def test_who_drained_is_gone_and_who_did_not_is_lost() -> None:
    story = Story().write(OLD).write(NEW).write(NEW, State.DRAINING).delete(OLD, NEW)
    assert story.events()[-2:] == [("lost", OLD), ("gone", NEW)]


@pytest.mark.parametrize("state", [State.UNREADY, State.DRAINING])
def test_who_registers_in_another_state_than_ready_is_told_with_it(state: State) -> None:
    assert Story().write(OLD, state).events() == [("registered", OLD), (str(state), OLD)]


def test_each_change_of_state_is_told_once() -> None:
    story = Story().write(OLD)
    for state in (State.READY, State.UNREADY, State.UNREADY, State.READY, State.DRAINING, State.DRAINING):
        story.write(OLD, state)
    assert [event for event, _ in story.events()] == ["registered", "unready", "ready", "draining"]


def test_another_weight_is_told_from_what_to_what() -> None:
    story = Story().write(OLD, weight=5).write(OLD, weight=100).write(OLD, weight=100)
    assert [(each.event, each.detail) for each in story.told()] == [
        ("registered", ""),
        ("weight", "5 -> 100"),
    ]


def test_what_changes_at_once_is_told_one_after_the_other() -> None:
    story = Story().write(OLD).write(OLD, State.UNREADY, weight=5)
    assert [event for event, _ in story.events()] == ["registered", "weight", "unready"]


def test_one_that_comes_back_is_put_back_and_not_registered_again() -> None:
    story = Story().write(OLD).delete(OLD).write(OLD)
    assert [event for event, _ in story.events()] == ["registered", "lost", "put back"]
    assert story.told()[-1].revision == 4


def test_one_that_comes_back_in_another_state_is_told_with_it() -> None:
    story = Story().write(OLD).delete(OLD).write(OLD, State.DRAINING)
    assert [event for event, _ in story.events()] == ["registered", "lost", "put back", "draining"]


# ---- when it happened


def test_times_are_those_that_the_instances_wrote() -> None:
    story = Story().write(OLD, registered_at="2026-11-23T15:00:00Z")
    story.write(OLD, State.DRAINING, extra={STATE_AT: "2026-11-23T16:00:00Z"}).delete(OLD)
    assert [each.at for each in story.told()] == ["2026-11-23T15:00:00Z", "2026-11-23T16:00:00Z", None]


@pytest.mark.parametrize("said", [5, None, ["x"], {"a": 1}, True])
def test_a_time_that_is_no_text_is_none(said: Any) -> None:
    story = Story().write(OLD, State.UNREADY, extra={STATE_AT: said})
    assert [each.at for each in story.told()] == [None, None]


def test_an_instance_that_stood_there_before_the_history_begins_is_as_old_as_its_key() -> None:
    story = Story().write(OLD).write(NEW).write(OLD, State.UNREADY).write(OLD)
    entries = [entry for entry in story.store.list(KEYS.service("web")).entries if entry.key.endswith(OLD)]
    told = chronicle(entries, keys=KEYS, service="web", hostnames=False)
    assert [(each.event, each.revision) for each in told] == [("registered", 2)]


def test_what_was_asked_of_one_that_the_history_knows_only_from_later_is_told_after_its_registration() -> (
    None
):
    """Its record was written anew when it began to drain, which is all that is left of it where the history is cut off."""
    story = Story().write(OLD).ask(OLD, Asked(retire=Retirement(reason="old"))).write(OLD, State.DRAINING)
    told = chronicle(story.changes(after=2), keys=KEYS, service="web", hostnames=False)
    assert [(each.event, each.revision) for each in told] == [
        ("registered", 2),
        ("asked", 3),
        ("draining", 4),
    ]


# ---- what is left out


def test_what_is_no_record_is_left_out() -> None:
    story = Story().raw(KEYS.instance("web", OLD), b"garbage").write(NEW).raw(KEYS.instance("web", NEW), b"")
    assert story.events() == [("registered", NEW)]
    story.delete(OLD, NEW)
    assert story.events() == [("registered", NEW), ("lost", NEW)]


def test_a_host_name_is_read_where_the_registry_admits_them() -> None:
    instance = Instance(service="web", id=OLD, host="web-3.internal", port=80)
    story = Story().raw(KEYS.instance("web", OLD), encode(instance, hostnames=True))
    assert story.events() == []
    told = chronicle(story.changes(), keys=KEYS, service="web", hostnames=True)
    assert [each.event for each in told] == ["registered"]


@pytest.mark.parametrize(
    "value", [b"", b"garbage", b"{}", encode_asked(Asked()), encode_asked(Asked(weight=5))]
)
def test_what_asks_nobody_to_retire_is_not_told(value: bytes) -> None:
    """Another weight is told once the instance has taken it on."""
    story = Story().write(OLD).raw(KEYS.control("web", OLD), value)
    assert story.events() == [("registered", OLD)]


def test_what_is_asked_of_nobody_is_not_told() -> None:
    assert Story().ask(OLD, Asked(retire=Retirement())).events() == []


def test_who_was_gone_before_the_history_begins_is_not_told() -> None:
    assert (
        chronicle([Deletion(KEYS.instance("web", OLD), 5)], keys=KEYS, service="web", hostnames=False) == []
    )


states = st.sampled_from(State)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from([OLD, NEW]), states, st.sampled_from([5, 100])),
        st.tuples(st.just("delete"), st.sampled_from([OLD, NEW])),
        st.tuples(st.just("raw"), st.sampled_from([OLD, NEW]), st.binary(max_size=3)),
    ),
    max_size=25,
)


@thorough(150)
@given(steps, st.integers(0, 25), st.randoms(use_true_random=False))
def test_whatever_the_history_is_it_can_be_told(script: list[Any], first: int, chance: Any) -> None:
    """Also from somewhere in its middle, and whatever the order in which its parts were read."""
    story = Story()
    for step in script:
        match step:
            case ("write", id, state, weight):
                story.write(id, state, weight=weight)
            case ("delete", id):
                story.delete(id)
            case ("raw", id, value):
                story.raw(KEYS.instance("web", id), value)
    changes = story.changes(after=1 + first)
    whole = chronicle(changes, keys=KEYS, service="web", hostnames=False)
    chance.shuffle(changes)
    assert sorted(map(repr, chronicle(changes, keys=KEYS, service="web", hostnames=False))) == sorted(
        map(repr, whole)
    )
    lives: dict[str, bool] = {}
    for each in whole:
        id, is_there = each.instance.id, lives.get(each.instance.id)
        assert (each.event == "registered") is (is_there is None)
        assert (each.event == "put back") is (is_there is False)
        lives[id] = each.event not in ("gone", "lost")
