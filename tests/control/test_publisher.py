"""The publisher: views that follow the registry and the clock, those that vanished, and those that come back. Virtual time."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from discoclient.balancing.balancer import RoundRobin
from discoclient.balancing.endpoint import Endpoint, Rank
from discoclient.balancing.picker import Picker
from discoclient.balancing.weights import Candidates
from discoclient.control.emitter import Emitter
from discoclient.control.publisher import REMEMBERED, Publisher
from discoclient.control.slot import Slot
from discoclient.model.events import Event, InstancesHeld, PhaseChanged, SnapshotChanged
from discoclient.model.instance import Instance, State
from discoclient.model.policy import SlowStartPolicy
from discoclient.model.snapshot import Snapshot
from tests.balancing.building import preferring
from tests.balancing.fleet import eject, instance


class Timer:
    def __init__(self, at: float, function: Callable[[], None]) -> None:
        self.at = at
        self.function = function
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Stage:
    """A publisher, on a loop whose clock is ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []
        self.fired = 0
        self.revision = 0
        self.posted: list[Callable[[], None]] = []
        monkeypatch.setattr(
            "discoclient.control.publisher.asyncio",
            SimpleNamespace(get_running_loop=lambda: SimpleNamespace(call_later=self.call_later)),
        )
        self.publisher = Publisher(
            "web",
            clock=lambda: self.now,
            rng=Random(1),
            post=self.posted.append,
            age=lambda: self.now - 990.0,
        )

    def call_later(self, seconds: float, function: Callable[[], None]) -> Timer:
        timer = Timer(self.now + seconds, function)
        self.timers.append(timer)
        return timer

    def slot(self, events: list[Event] | None = None, **preferences: Any) -> Slot:
        emit = (lambda event: None) if events is None else events.append
        slot = self.publisher.slot(preferring(**{"balancer": "round_robin"} | preferences), emit)
        self.run_posted()
        return slot

    def run_posted(self) -> None:
        while self.posted:
            self.posted.pop(0)()

    def publish(self, *instances: Instance, drained: Sequence[str] = (), suspect: bool = False) -> None:
        before = self.publisher.snapshot.by_id if self.publisher.snapshot is not None else {}
        after = {each.id: each for each in instances}
        changed = [id for id in before.keys() | after.keys() if before.get(id) != after.get(id)]
        self.revision += 1
        self.publisher.publish(Snapshot("web", self.revision, after, suspect), changed, drained)

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due with it."""
        end = self.now + seconds
        while True:
            self.timers = [timer for timer in self.timers if not timer.is_cancelled]
            due = min(self.timers, key=lambda timer: timer.at, default=None)
            if due is None or due.at > end:
                break
            self.timers.remove(due)
            self.now = max(self.now, due.at)
            self.fired += 1
            due.function()
        self.now = end


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def callable_ids(slot: Slot, now: float) -> list[str]:
    """In the order in which they would be tried, by rank."""
    assert slot.view is not None
    order: list[str] = []
    while (endpoint := slot.view.pick(now, order)) is not None:
        order.append(endpoint.id)
    return sorted(order)


def share(slot: Slot, id: str, now: float) -> float:
    assert slot.view is not None
    found = [slot.view.pick(now) for _ in range(3000)]
    return sum(endpoint is not None and endpoint.id == id for endpoint in found) / 3000


FLEET = [instance(number) for number in range(4)]
IDS = [each.id for each in FLEET]

# ---- views


def test_a_slot_knows_nothing_until_something_is_published(stage: Stage) -> None:
    slot = stage.slot()
    before = slot.view
    assert before is None
    stage.publish(*FLEET)
    assert callable_ids(slot, stage.now) == IDS


def test_a_slot_that_comes_later_has_its_view_at_once(stage: Stage) -> None:
    stage.publish(*FLEET)
    assert callable_ids(stage.slot(), stage.now) == IDS


def test_known_to_be_empty_is_not_unknown(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish()
    assert slot.view is not None
    assert callable_ids(slot, stage.now) == []


def test_views_are_replaced_and_never_changed(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET[:2])
    before = slot.view
    assert before is not None
    stage.publish(*FLEET[1:])
    assert slot.view is not before
    assert (before.snapshot.revision, set(before.endpoints)) == (1, set(IDS[:2]))
    assert slot.view is not None
    assert slot.view.snapshot.revision == 2


def test_all_slots_share_the_endpoints_and_each_has_its_preferences(stage: Stage) -> None:
    stage.publish(*FLEET)
    one, other = stage.slot(), stage.slot(subset=2, seed="me")
    assert one.view is not None
    assert other.view is not None
    for id in IDS:
        assert one.view.endpoints[id] is other.view.endpoints[id]
    assert len({one.view.pick(stage.now).id for _ in range(200)}) == 4
    assert len({other.view.pick(stage.now).id for _ in range(200)}) == 2


def test_a_slot_that_nobody_holds_is_forgotten(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    assert len(stage.publisher._slots) == 1
    del slot
    gc.collect()
    assert len(stage.publisher._slots) == 0


class Moody:
    """A caller's balancer, that fails with three."""

    def picker(self, endpoints: Sequence[Endpoint], rng: Random) -> Picker:
        if len(endpoints) == 3:
            raise ZeroDivisionError("not three")
        return preferring("random").balancer.picker(endpoints, rng)  # type: ignore[arg-type]


def test_a_balancer_that_fails_keeps_its_old_view_and_the_others_get_theirs(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.publish(*FLEET[:2])
    moody, other = stage.slot(balancer=Moody()), stage.slot()
    old = moody.view
    with caplog.at_level(logging.ERROR, "discoclient.control"):
        stage.publish(*FLEET[:3])
    assert moody.view is old
    assert callable_ids(other, stage.now) == IDS[:3]
    assert "Moody" in caplog.text
    stage.publish(*FLEET)
    assert callable_ids(moody, stage.now) == IDS


def test_who_leaves_is_retired_after_the_new_view_is_there(stage: Stage) -> None:
    """So that whoever still picks it from the old one sees that it is leaving, and finds a new view to pick from."""
    slot = stage.slot()
    stage.publish(*FLEET)
    leaving = stage.publisher.endpoints[IDS[0]]
    seen: list[bool] = []
    leaving.on_retire(lambda: seen.append(slot.view is not None and IDS[0] in slot.view.endpoints))
    stage.publish(*FLEET[1:])
    assert seen == [False]
    assert leaving.is_retired


def test_who_drains_is_retired_and_still_known(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    stage.publish(instance(0, state=State.DRAINING), *FLEET[1:])
    assert stage.publisher.endpoints[IDS[0]].is_retired
    assert callable_ids(slot, stage.now) == IDS[1:]


def test_closing_retires_everybody_and_stops_the_clock(stage: Stage) -> None:
    _slot = stage.slot()
    stage.publish(*FLEET)
    stage.advance(100.0)
    stage.publish(*FLEET, instance(9))
    stage.publish(FLEET[0])
    held = [endpoint for endpoint, _ in stage.publisher._held.values()]
    assert len(held) == 4
    stage.publisher.close()
    assert all(endpoint.is_retired for endpoint in [*held, *stage.publisher.endpoints.values()])
    assert all(timer.is_cancelled for timer in stage.timers)


# ---- newcomers


def test_a_newcomers_view_is_rebuilt_until_it_has_its_whole_share(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    stage.advance(60.0)
    assert stage.fired == 0, "all are new: there is no ramp, and nothing to rebuild"
    stage.publish(*FLEET, instance(9))
    shares = []
    for _ in range(11):
        shares.append(share(slot, "instance-9", stage.now))
        stage.advance(1.0)
    factors = [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    for found, factor in zip(shares, factors, strict=True):
        assert found == pytest.approx(factor / (4 + factor), rel=0.12)
    stage.advance(600.0)
    assert stage.fired == 10, "once for each step, and then no more"


class Dear(RoundRobin):
    """A balancer whose pickers take *cost* seconds to build."""

    def __init__(self, stage: Stage, cost: float) -> None:
        self.stage, self.cost = stage, cost

    def picker(self, endpoints: Candidates, rng: Random) -> Picker:
        self.stage.now += self.cost
        return super().picker(endpoints, rng)


@pytest.mark.parametrize(("cost", "least", "most"), [(0.0, 90, 100), (0.002, 15, 26), (600.0, 1, 1)])
def test_where_newcomers_are_always_due_for_more_a_dear_view_is_rebuilt_less_often(
    stage: Stage, cost: float, least: int, most: int
) -> None:
    dear = Dear(stage, 0.0)
    slot = stage.slot(balancer=dear)
    fleet = [instance(number) for number in range(250)]
    stage.publish(*fleet[:150])
    stage.advance(60.0)
    for number in range(150, 250):  # one every 0.01 s, so that each second one of them is due so often
        stage.publish(*fleet[:number])
        stage.advance(0.01)
    dear.cost = cost
    stage.publish(*fleet)
    fired = stage.fired
    stage.advance(1.0)
    assert least <= stage.fired - fired <= most
    assert slot.view is not None


def test_each_slot_has_the_ramp_of_its_own_policy(stage: Stage) -> None:
    usual = stage.slot()
    slow = stage.slot(slow_start=SlowStartPolicy(window=100.0))
    off = stage.slot(slow_start=SlowStartPolicy(window=0.0))
    stage.publish(*FLEET)
    stage.advance(500.0)
    stage.publish(*FLEET, instance(9))
    assert share(off, "instance-9", stage.now) == pytest.approx(0.2, rel=0.05)
    stage.advance(11.0)
    assert share(usual, "instance-9", stage.now) == pytest.approx(0.2, rel=0.05)
    assert share(slow, "instance-9", stage.now) == pytest.approx(0.1 / 4.1, rel=0.12)
    stage.advance(90.0)
    assert share(slow, "instance-9", stage.now) == pytest.approx(0.2, rel=0.05)
    assert stage.timers == []


def test_a_slot_that_comes_in_the_middle_of_a_ramp_sees_the_rest_of_it(stage: Stage) -> None:
    stage.publish(*FLEET)
    stage.advance(60.0)
    stage.publish(*FLEET, instance(9))
    assert stage.timers == [], "nobody looks"
    stage.now += 5.0
    slot = stage.slot()
    assert share(slot, "instance-9", stage.now) == pytest.approx(0.5 / 4.5, rel=0.1)
    stage.advance(6.0)
    assert share(slot, "instance-9", stage.now) == pytest.approx(0.2, rel=0.05)


def test_views_that_are_not_due_are_left_as_they_are(stage: Stage) -> None:
    usual, off = stage.slot(), stage.slot(slow_start=SlowStartPolicy(window=0.0))
    stage.publish(*FLEET)
    stage.advance(60.0)
    stage.publish(*FLEET, instance(9))
    before = usual.view, off.view
    stage.advance(3.5)
    assert usual.view is not before[0]
    assert off.view is before[1]


# ---- those that vanished


def test_a_fleet_that_vanishes_at_once_is_kept_as_a_last_resort_for_the_grace(stage: Stage) -> None:
    events: list[Event] = []
    slot = stage.slot(events, grace=20.0)
    stage.publish(*FLEET)
    before = dict(stage.publisher.endpoints)
    stage.publish()
    assert callable_ids(slot, stage.now) == IDS
    assert not any(endpoint.is_retired for endpoint in before.values())
    assert {endpoint.rank for endpoint in before.values()} == {Rank.HELD}
    (told,) = [event for event in events if isinstance(event, InstancesHeld)]
    assert (told.service, sorted(told.ids), told.seconds) == ("web", IDS, 20.0)
    assert stage.publisher.snapshot is not None
    assert len(stage.publisher.snapshot) == 0, "what the registry says is another question"
    stage.advance(19.9)
    assert callable_ids(slot, stage.now) == IDS
    stage.advance(0.2)
    assert callable_ids(slot, stage.now) == []
    assert all(endpoint.is_retired for endpoint in before.values())
    assert stage.timers == []


@pytest.mark.parametrize("grace", [0.0, 5.0, 90.0])
def test_grace_is_how_long(stage: Stage, grace: float) -> None:
    slot = stage.slot(grace=grace)
    stage.publish(*FLEET)
    stage.publish()
    if grace:
        stage.advance(grace - 0.01)
        assert callable_ids(slot, stage.now) == IDS
        stage.advance(0.02)
    assert callable_ids(slot, stage.now) == []


def test_those_that_are_left_are_called_before_those_that_vanished(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    stage.publish(FLEET[2])
    assert slot.view is not None
    assert {endpoint.id for endpoint in (slot.view.pick(stage.now) for _ in range(50)) if endpoint} == {
        IDS[2]
    }
    assert callable_ids(slot, stage.now) == IDS


@pytest.mark.parametrize("rest", [1, 2, 3])
def test_one_or_half_of_them_have_just_died(stage: Stage, rest: int) -> None:
    """Negative control: 4 minus 1 and 4 minus 2 are retired, 4 minus 3 are held."""
    slot = stage.slot()
    stage.publish(*FLEET)
    stage.publish(*FLEET[4 - rest :])
    held = rest == 1
    assert callable_ids(slot, stage.now) == (IDS if held else IDS[4 - rest :])


def test_who_vanished_a_moment_earlier_belongs_to_them(stage: Stage) -> None:
    """It is retired by then, and its connections are closed: a twin takes its place."""
    slot = stage.slot()
    stage.publish(*FLEET)
    first = stage.publisher.endpoints[IDS[0]]
    stage.publish(*FLEET[1:])
    assert first.is_retired
    stage.advance(2.0)
    stage.publish(FLEET[3])
    assert callable_ids(slot, stage.now) == IDS
    assert slot.view is not None
    twin = slot.view.endpoints[IDS[0]]
    assert twin is not first
    assert not twin.is_retired
    assert twin.is_held
    assert twin.first_seen == first.first_seen


@pytest.mark.parametrize("how", ["drained before", "drained in the same change"])
def test_who_drained_is_gone_whatever_else_vanished(stage: Stage, how: str) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    if how == "drained before":
        stage.publish(instance(0, state=State.DRAINING), *FLEET[1:])
        stage.publish()
    else:
        stage.publish(drained=[IDS[0]])
    assert callable_ids(slot, stage.now) == IDS[1:]


def test_a_fleet_that_drains_and_leaves_is_no_accident(stage: Stage) -> None:
    events: list[Event] = []
    slot = stage.slot(events)
    stage.publish(*FLEET)
    stage.publish(*(instance(number, state=State.DRAINING) for number in range(4)))
    stage.publish()
    assert callable_ids(slot, stage.now) == []
    assert not [event for event in events if isinstance(event, InstancesHeld)]


def test_who_comes_back_is_the_same_endpoint_with_its_connections(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    before = dict(stage.publisher.endpoints)
    closed: list[str] = []
    for id, endpoint in before.items():
        endpoint.on_retire(lambda id=id: closed.append(id))  # type: ignore[misc]
    ticket = before[IDS[0]].start(stage.now)
    stage.publish()
    stage.advance(5.0)
    stage.publish(*FLEET[:3])
    assert [stage.publisher.endpoints[id] is before[id] for id in IDS[:3]] == [True] * 3
    assert {before[id].rank for id in IDS[:3]} == {Rank.FIRST}
    assert before[IDS[0]].in_flight == 1
    ticket.close()
    assert closed == []
    stage.advance(60.0)
    assert closed == [IDS[3]], "and the one that did not come back is retired when its time is over"
    assert callable_ids(slot, stage.now) == IDS[:3]


@pytest.mark.parametrize(
    "back", [instance(0, state=State.DRAINING), instance(0, port=9999)], ids=["draining", "elsewhere"]
)
def test_who_comes_back_as_something_else_has_its_old_connections_closed(
    stage: Stage, back: Instance
) -> None:
    """Whoever drains waits for that: a caller that keeps an idle connection open may still send a request there."""
    slot = stage.slot()
    stage.publish(*FLEET)
    before = stage.publisher.endpoints[IDS[0]]
    stage.publish()
    assert before.is_held
    stage.publish(back)
    assert before.is_retired
    assert slot.view is not None
    now = slot.view.endpoints[IDS[0]]
    assert now.is_retired == (back.state is State.DRAINING)
    stage.advance(60.0)
    assert before.is_retired


def test_one_that_was_found_gone_and_comes_back_is_made_anew(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    gone = stage.publisher.endpoints[IDS[0]]
    stage.publish()
    gone.retire()  # its connection was refused
    stage.publish(*FLEET)
    assert stage.publisher.endpoints[IDS[0]] is not gone
    assert not stage.publisher.endpoints[IDS[0]].is_retired
    assert callable_ids(slot, stage.now) == IDS


def test_each_client_has_the_grace_that_it_asked_for(stage: Stage) -> None:
    none, short, long = stage.slot(grace=0.0), stage.slot(grace=5.0), stage.slot(grace=30.0)
    stage.publish(*FLEET)
    stage.publish()
    found = []
    for _ in range(4):
        found.append([len(callable_ids(slot, stage.now)) for slot in (none, short, long)])
        stage.advance(10.1)
    assert found == [[0, 4, 4], [0, 0, 4], [0, 0, 4], [0, 0, 0]]


def test_that_some_have_less_grace_is_no_reason_to_look_a_hundred_times_a_second(stage: Stage) -> None:
    slots = [stage.slot(grace=grace) for grace in (0.0, 5.0, 30.0)]
    stage.publish(*FLEET)
    stage.publish()
    stage.advance(40.0)
    assert all(callable_ids(slot, stage.now) == [] for slot in slots)
    assert stage.fired <= 5


def test_a_client_that_comes_later_has_its_own_grace_too(stage: Stage) -> None:
    long = stage.slot(grace=30.0)
    stage.publish(*FLEET)
    stage.publish()
    stage.advance(1.0)
    short = stage.slot(grace=5.0)
    assert callable_ids(short, stage.now) == IDS
    stage.advance(5.0)
    assert callable_ids(short, stage.now) == []
    assert callable_ids(long, stage.now) == IDS


# ---- those that come back


def test_an_ejected_one_that_leaves_and_comes_back_is_still_ejected(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    eject(stage.publisher.endpoints[IDS[0]], stage.now, seconds=100.0)
    stage.publish(*FLEET[1:])
    stage.advance(10.0)
    stage.publish(*FLEET)
    back = stage.publisher.endpoints[IDS[0]]
    assert back.is_ejected(stage.now)
    assert not back.is_retired
    assert slot.view is not None
    assert IDS[0] not in {
        endpoint.id for endpoint in (slot.view.pick(stage.now) for _ in range(50)) if endpoint
    }


def test_one_that_was_away_for_a_moment_is_no_newcomer(stage: Stage) -> None:
    slot = stage.slot()
    stage.publish(*FLEET)
    stage.advance(60.0)
    stage.publish(*FLEET[1:])
    stage.publish(*FLEET)
    assert share(slot, IDS[0], stage.now) == pytest.approx(0.25, rel=0.05)


def test_what_listens_elsewhere_is_not_judged_by_what_was_there(stage: Stage) -> None:
    stage.publish(*FLEET)
    eject(stage.publisher.endpoints[IDS[0]], stage.now)
    stage.publish(*FLEET[1:])
    stage.publish(instance(0, port=9999), *FLEET[1:])
    assert not stage.publisher.endpoints[IDS[0]].is_ejected(stage.now)


def test_no_more_are_remembered_than_that(stage: Stage) -> None:
    many = [instance(number) for number in range(REMEMBERED + 50)]
    stage.publish(*many)
    stage.publish()
    assert len(stage.publisher._memory) == REMEMBERED


# ---- what hooks are told


def test_hooks_are_told_what_changed(stage: Stage) -> None:
    events: list[Event] = []
    _slot = stage.slot(events)
    stage.publish(*FLEET[:2])
    stage.publish(instance(0, weight=7), *FLEET[2:], suspect=True)
    assert events == [
        SnapshotChanged("web", 1, 2, (IDS[0], IDS[1]), (), (), False),
        SnapshotChanged("web", 2, 3, (IDS[2], IDS[3]), (IDS[1],), (IDS[0],), True),
    ]


def test_what_was_only_looked_at_again_has_not_changed(stage: Stage) -> None:
    """*changed* names those that may have. A registrar that writes its record again, say."""
    events: list[Event] = []
    _slot = stage.slot(events)
    stage.publish(*FLEET)
    events.clear()
    snapshot = Snapshot("web", 7, {each.id: each for each in (instance(0), *FLEET[1:])})
    stage.publisher.publish(snapshot, IDS[:1], ())
    assert all(isinstance(event, SnapshotChanged) and event.changed == () for event in events)


def test_every_client_is_told_and_those_that_are_gone_are_not(stage: Stage) -> None:
    first: list[Event] = []
    second: list[Event] = []
    slots = [stage.slot(first), stage.slot(second)]
    stage.publisher.tell(PhaseChanged("web", "live", 0.0))
    del slots[1]
    gc.collect()
    stage.publisher.tell(PhaseChanged("web", "suspect", 9.0))
    assert [event.phase for event in first if isinstance(event, PhaseChanged)] == ["live", "suspect"]
    assert len(second) == 1


def test_who_comes_late_is_told_where_things_stand(stage: Stage) -> None:
    """A gauge of theirs would else be missing until something happens, which may take days."""
    early: list[Event] = []
    late: list[Event] = []
    _first = stage.slot(early)
    stage.publisher.tell(PhaseChanged("web", "live", 0.0))
    stage.publish(*FLEET[:1])
    stage.publish(*FLEET, suspect=True)
    before = list(early)
    stage.now += 7.0
    _second = stage.slot(late)
    assert late == [
        PhaseChanged("web", "live", 17.0),
        SnapshotChanged("web", 2, 4, tuple(sorted(IDS)), (), (), True),
    ]
    assert early == before, "it is no news to others"
    _third = stage.slot()
    assert len(late) == 2, "once"


def test_without_hooks_the_background_thread_is_left_alone(stage: Stage) -> None:
    """Clients that are made for one call come and go."""
    stage.publisher.tell(PhaseChanged("web", "live", 0.0))
    stage.publish(*FLEET)
    _slot = stage.publisher.slot(preferring(slow_start=SlowStartPolicy(window=0.0)), Emitter().tell)
    assert stage.posted == []
    _other = stage.publisher.slot(
        preferring(slow_start=SlowStartPolicy(window=0.0)), Emitter([Hearer()]).tell
    )
    assert stage.posted


class Hearer:
    def on_event(self, event: Event) -> None: ...


def test_who_comes_before_anything_was_told_is_told_it_as_it_happens(stage: Stage) -> None:
    events: list[Event] = []
    _slot = stage.slot(events)
    stage.publisher.tell(PhaseChanged("web", "syncing", None))
    stage.publish(*FLEET)
    assert [type(event) for event in events] == [PhaseChanged, SnapshotChanged]


def test_what_happens_before_a_newcomer_is_told_where_things_stand_is_told_once(stage: Stage) -> None:
    """The slot is made in the application's thread, and told in the background one."""
    events: list[Event] = []
    stage.publisher.tell(PhaseChanged("web", "syncing", None))
    _slot = stage.publisher.slot(preferring(), events.append)
    stage.publisher.tell(PhaseChanged("web", "live", 0.0))
    stage.publish(*FLEET)
    assert events == [], "in the background thread alone"
    stage.run_posted()
    assert events == [
        PhaseChanged("web", "live", 10.0),
        SnapshotChanged("web", 1, 4, tuple(sorted(IDS)), (), (), False),
    ]
    stage.publisher.tell(PhaseChanged("web", "suspect", 3.0))
    assert events[2:] == [PhaseChanged("web", "suspect", 3.0)]


def test_when_hooks_are_told_the_view_is_the_new_one(stage: Stage) -> None:
    seen: list[int] = []
    slots: list[Slot] = []

    def look(event: Event) -> None:
        view = slots[0].view
        seen.append(view.snapshot.revision if view is not None else 0)

    slots.append(stage.publisher.slot(preferring(), look))
    stage.publish(*FLEET)
    stage.publish(*FLEET[1:])
    assert seen == [1, 2]
