"""discoclient's events in words."""

from typing import Any

import pytest

from disco_sidecar.admin import Happenings
from disco_sidecar.admin.happenings import KEPT
from discoclient.model.events import (
    BudgetExhausted,
    CallInfo,
    CallStarted,
    EjectionSkipped,
    Event,
    InstanceEjected,
    InstancesHeld,
    InstanceUnejected,
    PanicChanged,
    PhaseChanged,
    RequestThrottled,
    SnapshotChanged,
)
from discoclient.model.instance import Instance

ONE = Instance(service="experiment", id="abcdefgh-1234", host="10.0.0.1", port=80)
EVENTS: list[tuple[Event, str, str]] = [
    (InstanceEjected("experiment", ONE, "connect", 3.0), "ejected", "10.0.0.1:80 (abcdefgh) ejected for 3.0 s (connect)"),
    (EjectionSkipped("experiment", ONE, "connect", "alone"), "spared", "was spared: alone"),
    (InstanceUnejected("experiment", ONE), "recovered", "passed a probe"),
    (PanicChanged("experiment", True, 3, 4), "panic", "3 of 4 look bad: ejections are distrusted"),
    (PanicChanged("experiment", False, 1, 4), "panic", "over; 1 of 4 look bad"),
    (BudgetExhausted("experiment", "connect"), "budget", "too many retries"),
    (RequestThrottled("experiment", "throttle", 0.5), "throttled", "refused here (throttle)"),
    (PhaseChanged("experiment", "suspect", 3.0), "phase", "suspect: the registry's watch broke"),
    (InstancesHeld("experiment", ("a", "b"), 30.0), "held", "2 instances vanished at once"),
    (SnapshotChanged("experiment", 7, 5, ("aaaaaaaaaa",), ("bbbbbbbb", "c", "d", "e"), (), False), "change",
     "new aaaaaaaa; gone bbbbbbbb, c, d and 1 more (5 known)"),
    (SnapshotChanged("experiment", 7, 0, (), (), (), True), "change", "read again (0 known, perhaps old)"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "kind", "words"), EVENTS, ids=lambda each: type(each).__name__)
def test_what_matters_is_told_in_words(event: Event, kind: str, words: str) -> None:
    happenings = Happenings(wall=lambda: 0.5)
    happenings.on_event(event)
    [told] = happenings.recent()
    assert told["at"] == "1970-01-01T00:00:00.500Z"
    assert told["service"] == "experiment"
    assert told["kind"] == kind
    assert words in told["text"]


def test_what_every_request_brings_is_not_kept() -> None:
    happenings = Happenings()
    happenings.on_event(CallStarted(CallInfo("experiment", "GET", "http://experiment/")))
    assert happenings.recent() == []


def test_the_newest_comes_first_and_no_more_than_so_many_are_kept() -> None:
    happenings = Happenings()
    for number in range(KEPT + 20):
        happenings.add(None, "start", f"number {number}")
    kept = happenings.recent()
    assert len(kept) == KEPT
    assert kept[0]["text"] == f"number {KEPT + 19}"


def test_what_happens_again_and_again_is_one_entry_that_counts() -> None:
    happenings = Happenings()
    for _ in range(1000):
        happenings.on_event(BudgetExhausted("experiment", "connect"))
    happenings.on_event(BudgetExhausted("other", "connect"))
    assert [(each["service"], each["times"]) for each in happenings.recent()] == [
        ("other", 1),
        ("experiment", 1000),
    ]


def test_a_listener_is_told_until_it_unsubscribes_and_one_that_fails_stops_nobody() -> None:
    happenings, told = Happenings(), list[dict[str, Any]]()

    def fails(event: dict[str, Any]) -> None:
        raise RuntimeError("no")

    happenings.subscribe(fails)
    unsubscribe = happenings.subscribe(told.append)
    happenings.add("a", "k", "first")
    unsubscribe()
    happenings.add("a", "k", "second")
    assert [each["text"] for each in told] == ["first"]
