"""The difference between two states of the registry, and whether it is heard."""

from discoclient import Instance, State
from discoclient.cli.changes import Change, Contact, changes
from tests.cli.records import instance

A = instance("experiment", "aaaaaaaa")
B = instance("experiment", "bbbbbbbb")
C = instance("ledger", "cccccccc")


def table(*instances: Instance) -> dict[str, Instance]:
    return {f"{each.service}/{each.id}": each for each in instances}


def test_what_came_what_changed_and_what_left_are_told_apart() -> None:
    drained = instance("experiment", "aaaaaaaa", state=State.DRAINING)
    assert list(changes(table(A, B), table(drained, C))) == [
        Change("+", C),
        Change("~", drained, {"state": ("ready", "draining")}),
        Change("-", B),
    ]


def test_the_same_record_written_again_is_no_change() -> None:
    assert list(changes(table(A, B), table(instance("experiment", "aaaaaaaa"), B))) == []


def test_a_field_that_comes_or_goes_is_a_change() -> None:
    versioned = instance("experiment", "aaaaaaaa", version="2", extra={"colour": "red"})
    assert list(changes(table(A), table(versioned))) == [
        Change("~", versioned, {"version": (None, "2"), "colour": (None, "red")})
    ]
    assert list(changes(table(versioned), table(A))) == [
        Change("~", A, {"version": ("2", None), "colour": ("red", None)})
    ]


def test_a_short_silence_is_no_news() -> None:
    contact = Contact(patience=2.0)
    heard = [(0.0, True), (1.0, False), (2.9, False), (3.0, True), (4.0, False), (5.9, False), (6.0, True)]
    assert not any(contact.hear(is_live, now) for now, is_live in heard)
    assert not contact.is_lost


def test_a_long_silence_is_told_once_and_so_is_its_end() -> None:
    contact = Contact(patience=2.0)
    told = []
    for now, is_live in [(0.0, True), (1.0, False), (3.0, False), (9.0, False), (10.0, True), (11.0, True)]:
        if contact.hear(is_live, now):
            told.append((now, contact.is_lost))
    assert told == [(3.0, True), (10.0, False)]


def test_after_its_end_a_silence_is_measured_anew() -> None:
    contact = Contact(patience=2.0)
    assert [contact.hear(False, 0.0), contact.hear(False, 2.0), contact.hear(True, 3.0)] == [
        False,
        True,
        True,
    ]
    assert [contact.hear(False, 4.0), contact.hear(False, 5.9), contact.hear(False, 6.0)] == [
        False,
        False,
        True,
    ]
