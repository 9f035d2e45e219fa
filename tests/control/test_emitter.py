"""Events on their way: hooks that raise, what the log says, and how often."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from discoclient.control import emitter as emitter_module
from discoclient.control.emitter import PAUSE, Emitter
from discoclient.model.errors import ConfigError
from discoclient.model.events import (
    AttemptEnded,
    AttemptStarted,
    BudgetExhausted,
    CallEnded,
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
from tests.balancing.fleet import OK, instance

CALL = CallInfo("web", "GET", "http://web/secret")
ONE = instance(1)

LOGGED: list[tuple[Event, int, list[str]]] = [
    (InstanceEjected("web", ONE, "connect", 4.2), logging.WARNING, ["10.0.0.1:8001", "4.2 s", "connect"]),
    (EjectionSkipped("web", ONE, "consecutive", "max_ejected"), logging.INFO, ["consecutive", "max_ejected"]),
    (InstanceUnejected("web", ONE), logging.INFO, ["10.0.0.1:8001", "well again"]),
    (PanicChanged("web", True, 4, 8), logging.WARNING, ["4 of 8"]),
    (PanicChanged("web", False, 1, 8), logging.WARNING, ["1 of 8", "well again"]),
    (BudgetExhausted("web", "no_answer"), logging.WARNING, ["no_answer"]),
    (RequestThrottled("web", "throttle", 0.5), logging.WARNING, ["0.50", "throttle"]),
    (SnapshotChanged("web", 7, 3, ("a",), ("b", "c"), (), True), logging.INFO, ["3", "7", "+1", "-2", "old"]),
    (PhaseChanged("web", "suspect", 3.0), logging.INFO, ["suspect"]),
    (InstancesHeld("web", ("a", "b"), 30.0), logging.WARNING, ["2 instances", "30 s"]),
]

QUIET: list[Event] = [
    CallStarted(CALL),
    AttemptStarted(CALL, 1, ONE),
    AttemptEnded(CALL, 1, ONE, OK, "connect"),
    CallEnded(CALL, 1, 0.1, 200),
]


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


class Raising(Listener):
    def on_event(self, event: Event) -> None:
        super().on_event(event)
        raise ZeroDivisionError("a hook's bug")


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """What the log has of events, as it comes."""
    handler, logger = Records(), logging.getLogger("discoclient.events")
    caplog.set_level(logging.DEBUG, "discoclient.events")
    logger.addHandler(handler)
    yield handler.records
    logger.removeHandler(handler)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(emitter_module, "monotonic", made)
    return made


# ---- the log


@pytest.mark.parametrize(("event", "level", "words"), LOGGED, ids=lambda value: type(value).__name__)
def test_without_any_hook_it_is_in_the_log(
    event: Event, level: int, words: list[str], lines: list[logging.LogRecord]
) -> None:
    Emitter()(event)
    (line,) = lines
    assert line.levelno == level
    assert line.name == "discoclient.events"
    assert line.getMessage().startswith("web: ")
    for word in words:
        assert word in line.getMessage()


def test_every_kind_of_event_is_in_the_log_or_one_of_every_call() -> None:
    kinds = {type(event) for event, _, _ in LOGGED} | {type(event) for event in QUIET}
    assert kinds == set(Event.__args__)


@pytest.mark.parametrize("event", QUIET, ids=lambda event: type(event).__name__)
def test_what_comes_with_every_call_is_not_in_the_log(event: Event, lines: list[logging.LogRecord]) -> None:
    listener = Listener()
    Emitter([listener])(event)
    assert lines == []
    assert listener.events == [event]


@pytest.mark.parametrize(
    "make",
    [
        lambda service: BudgetExhausted(service, "connect"),
        lambda service: EjectionSkipped(service, ONE, "connect", "alone"),
        lambda service: RequestThrottled(service, "recovery", 0.1),
    ],
)
def test_what_may_come_with_every_request_is_said_once_in_a_while_for_each_service(
    make: Any, lines: list[logging.LogRecord], clock: Clock
) -> None:
    listener = Listener()
    emitter = Emitter([listener])
    for second in range(25):
        clock.now = second * PAUSE / 10
        emitter(make("web"))
        emitter(make("api"))
    assert len(lines) == 2 * 3
    assert len(listener.events) == 2 * 25, "hooks are told each time"


def test_what_is_rare_is_said_each_time(lines: list[logging.LogRecord], clock: Clock) -> None:
    emitter = Emitter()
    for _ in range(5):
        emitter(InstanceEjected("web", ONE, "connect", 1.0))
        emitter(PanicChanged("web", True, 1, 2))
    assert len(lines) == 10


def test_to_tell_is_to_tell_the_hooks_alone(lines: list[logging.LogRecord]) -> None:
    listener = Listener()
    Emitter([listener]).tell(PanicChanged("web", True, 1, 2))
    assert lines == []
    assert len(listener.events) == 1


# ---- hooks


def test_hooks_are_told_in_their_order_and_the_same_object() -> None:
    order: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def on_event(self, event: Event) -> None:
            order.append(self.name)
            if isinstance(event, AttemptStarted):
                event.headers[self.name] = "1"

    event = AttemptStarted(CALL, 1, ONE)
    Emitter([Named("first"), Named("second")])(event)
    assert order == ["first", "second"]
    assert event.headers == {"first": "1", "second": "1"}


def test_a_hook_that_raises_stops_nobody_and_is_logged_once_for_each_kind(
    lines: list[logging.LogRecord],
) -> None:
    raising, listener = Raising(), Listener()
    emitter = Emitter([raising, listener])
    for _ in range(3):
        for event in QUIET:
            emitter(event)
    assert raising.events == listener.events == QUIET * 3
    assert len(lines) == len(QUIET)
    for line, event in zip(lines, QUIET, strict=True):
        assert line.levelno == logging.ERROR
        assert line.exc_info is not None
        assert type(event).__name__ in line.getMessage()
        assert "Raising" in line.getMessage()


def test_of_two_hooks_that_raise_both_are_logged(lines: list[logging.LogRecord]) -> None:
    Emitter([Raising(), Raising()]).tell(QUIET[0])
    assert len(lines) == 2


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_of_the_hooks_goes_through(interrupt: type[BaseException]) -> None:
    class Interrupted:
        def on_event(self, event: Event) -> None:
            raise interrupt

    with pytest.raises(interrupt):
        Emitter([Interrupted()])(QUIET[0])


@pytest.mark.parametrize(
    "wrong",
    [None, object(), Listener, lambda event: None, "hook"],
    ids=["none", "object", "class", "function", "text"],
)
def test_what_is_no_hook_is_an_error_that_says_what_one_is(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"on_event\(event\)"):
        Emitter([wrong])
