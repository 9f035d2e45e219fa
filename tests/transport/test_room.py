"""The room that `max_connections` makes: nobody is forgotten in it, and who waits longest comes in first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from discoclient.transport import room as room_module
from discoclient.transport.room import Room
from tests.support.eventually import eventually


@contextmanager
def waiting(room: Room, timeout: float | None, told: Callable[[bool], object]) -> Iterator[None]:
    """Somebody waits in a thread, and tells whether he came in; waited for at the end."""
    before = len(room._waiting)
    thread = threading.Thread(target=lambda: told(room.enter(timeout)))
    thread.start()
    eventually(lambda: len(room._waiting) == before + 1, what="he waits")
    yield
    thread.join()


def free(room: Room) -> int:
    """How many may come in at once; they all leave again."""
    count = 0
    while room.enter(0.0):
        count += 1
    for _ in range(count):
        room.leave()
    return count


def test_so_many_come_in_at_once_and_no_more() -> None:
    room = Room(3)
    assert [room.enter(0.0) for _ in range(5)] == [True, True, True, False, False]
    room.leave()
    assert [room.enter(0.0) for _ in range(2)] == [True, False]


def test_a_room_without_a_place_lets_nobody_in() -> None:
    room = Room(0)
    assert not room.enter(0.0)
    assert not room.enter(0.001)
    assert not room.enter(-5.0)


def test_who_waits_longest_comes_in_first() -> None:
    room = Room(1)
    order: list[str] = []
    assert room.enter(0.0)
    doors = dict.fromkeys("abcde", False)

    def come_in(name: str, has_entered: bool) -> None:
        order.append(name)
        doors[name] = has_entered

    with ExitStack() as stack:
        for name in doors:
            stack.enter_context(waiting(room, None, partial(come_in, name)))
        for name in doors:
            room.leave()
            eventually(partial(doors.get, name), what=f"{name} is in")
    assert order == list("abcde")
    room.leave()
    assert free(room) == 1


def test_nobody_overtakes_those_who_wait() -> None:
    """A place that is free is given away at once: a newcomer finds none."""
    room = Room(1)
    told: list[bool] = []
    assert room.enter(0.0)
    with waiting(room, None, told.append):
        room.leave()
        assert not room.enter(0.0)
    assert told == [True]


def test_who_gave_up_is_passed_over() -> None:
    room = Room(1)
    told: list[bool] = []
    assert room.enter(0.0)
    assert not room.enter(0.001)
    with waiting(room, None, told.append):
        assert len(room._waiting) == 1
        room.leave()
    assert told == [True]
    room.leave()
    assert free(room) == 1


def test_several_places_at_once_let_several_in() -> None:
    room = Room(3)
    told: list[bool] = []
    assert all(room.enter(0.0) for _ in range(3))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(waiting(room, None, told.append))
        for _ in range(3):
            room.leave()
    assert told == [True] * 3
    assert not room.enter(0.0)


# ---- what is hard to meet: a door whose opening a test decides about


class Door:
    """Stands in for the lock that somebody waits at. ``acquired`` is called when he waits; ``released``, when he is let in."""

    acquired: Callable[[], bool] = staticmethod(lambda: False)
    released: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self) -> None:
        self._is_new = True

    def acquire(self, timeout: float = -1) -> bool:
        if self._is_new:
            self._is_new = False
            return True
        return type(self).acquired()

    def release(self) -> None:
        type(self).released()


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> type[Door]:
    made: Any = type("Doors", (Door,), {})
    monkeypatch.setattr(room_module, "threading", SimpleNamespace(Lock=made, RLock=threading.RLock))
    return made  # type: ignore[no-any-return]


def test_who_is_let_in_just_when_his_time_is_over_is_in(doors: Any) -> None:
    """Else the place would be nobody's for ever."""
    room = Room(1)
    room._free = 0

    def leave_and_time_out() -> bool:
        room.leave()
        return False

    doors.acquired = staticmethod(leave_and_time_out)
    assert room.enter(1.0)
    assert (room._free, len(room._waiting)) == (0, 0)


def test_who_is_interrupted_while_he_waits_leaves_no_trace(doors: Any) -> None:
    room = Room(1)
    room._free = 0

    def interrupt() -> bool:
        raise KeyboardInterrupt

    doors.acquired = staticmethod(interrupt)
    with pytest.raises(KeyboardInterrupt):
        room.enter(None)
    assert (room._free, len(room._waiting)) == (0, 0)


def test_who_is_interrupted_just_when_he_is_let_in_gives_the_place_to_the_next(doors: Any) -> None:
    room = Room(1)
    room._free = 0
    let_in: list[str] = []
    next_one = SimpleNamespace(release=lambda: let_in.append("the next one"))

    def leave_and_interrupt() -> bool:
        room.leave()
        room._waiting.append(next_one)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    doors.acquired = staticmethod(leave_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        room.enter(None)
    assert let_in == ["the next one"]
    assert (room._free, len(room._waiting)) == (0, 0)


@pytest.mark.parametrize("waiting_too", [0, 1, 3])
def test_the_garbage_collector_may_call_leave_in_the_middle_of_it(doors: Any, waiting_too: int) -> None:
    """It may run wherever something is made: here while the first one is let in, and each place it frees lets one more in."""
    room = Room(1)
    let_in: list[int] = []
    freed = [None] * waiting_too

    def let_in_and_collect() -> None:
        let_in.append(len(let_in))
        if freed:
            freed.pop()
            room.leave()  # the response of a caller who forgot it

    doors.released = staticmethod(let_in_and_collect)
    doors.acquired = staticmethod(lambda: True)
    room._waiting.extend(doors() for _ in range(waiting_too))
    assert room.enter(None)
    assert len(let_in) == waiting_too + 1
    assert (room._free, len(room._waiting)) == (0, 0)
    assert not room._is_letting_in


def test_whatever_is_raised_in_the_middle_of_it_the_room_stays_open(doors: Any) -> None:
    room = Room(2)

    def interrupt() -> None:
        raise KeyboardInterrupt

    doors.released = staticmethod(interrupt)
    with pytest.raises(KeyboardInterrupt):
        room.enter(None)
    doors.released, doors.acquired = staticmethod(lambda: None), staticmethod(lambda: True)
    assert room.enter(None)
