"""What can go wrong: each failure of ours is one exception of httpx's, and means one thing for the next attempt."""

from __future__ import annotations

import inspect
import time
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import httpcore
import httpx
import pytest

from discoclient.model.outcome import OutcomeKind
from discoclient.transport import lent_carriers, wire
from discoclient.transport.http1 import async_connection, bounded, failures, sync_connection, writer
from discoclient.transport.http1.bounded import Bounded
from discoclient.transport.http1.failures import Failure
from discoclient.transport.wire import as_httpx, classify, is_timeout, wire_errors

OURS = [getattr(failures, name) for name in failures.__all__ if name != "Failure"]
TABLE = {
    failures.ConnectExpired: (httpx.ConnectTimeout, OutcomeKind.NOT_SENT),
    failures.ConnectFailure: (httpx.ConnectError, OutcomeKind.NOT_SENT),
    failures.LocalProtocolFailure: (httpx.LocalProtocolError, OutcomeKind.LOCAL),
    failures.ReadExpired: (httpx.ReadTimeout, OutcomeKind.NO_ANSWER),
    failures.ReadFailure: (httpx.ReadError, OutcomeKind.NO_ANSWER),
    failures.RemoteProtocolFailure: (httpx.RemoteProtocolError, OutcomeKind.NO_ANSWER),
    failures.WriteExpired: (httpx.WriteTimeout, OutcomeKind.NO_ANSWER),
    failures.WriteFailure: (httpx.WriteError, OutcomeKind.NO_ANSWER),
}


def carrier(*, is_expired: bool = False, has_answer: bool = False) -> Any:
    return SimpleNamespace(is_expired=is_expired, has_answer=has_answer, raises=Exception)


@pytest.mark.parametrize("kind", OURS)
def test_each_failure_is_an_exception_of_httpx_and_means_one_thing(kind: type[Failure]) -> None:
    theirs, meaning = TABLE[kind]
    error = kind("what happened")
    ours = as_httpx(error)
    assert type(ours) is theirs
    assert str(ours) == "what happened"
    assert ours.__cause__ is error
    outcome = classify(error, 0.5, carrier=carrier())
    assert (outcome.kind, outcome.latency, outcome.error) == (meaning, 0.5, theirs.__name__)
    assert is_timeout(error) is issubclass(theirs, httpx.TimeoutException)


def test_no_failure_is_forgotten() -> None:
    """A new class in `failures` must be in the table, and in its drawing."""
    defined = {found for _, found in inspect.getmembers(failures, inspect.isclass)}
    assert defined == {Failure, *TABLE}
    for kind in TABLE:
        assert kind.__name__ in (failures.__doc__ or "")


@pytest.mark.parametrize("kind", OURS)
def test_each_failure_is_raised_by_somebody(kind: type[Failure]) -> None:
    """`WriteFailure` by a lent transport alone: that a service is gone shows when our own connections read."""
    raisers = [inspect.getsource(module) for module in (async_connection, sync_connection, writer)]
    lent = set(lent_carriers._FAILURES.values())
    assert any(f"{kind.__name__}(" in source for source in raisers) or kind in lent


def test_a_lent_transport_s_errors_come_back_as_they_were() -> None:
    """All but those of a proxy: that nothing was sent is what counts."""
    for theirs, ours in lent_carriers._FAILURES.items():
        expected = httpx.ConnectError if theirs is httpx.ProxyError else theirs
        assert TABLE[ours][0] is expected
    assert set(lent_carriers._FAILURES.values()) == set(OURS)


@pytest.mark.parametrize(
    "kind",
    [
        found
        for _, found in inspect.getmembers(httpcore, inspect.isclass)
        if issubclass(found, Exception) and found not in (httpcore.NetworkError, httpcore.TimeoutException)
    ],
)
def test_each_error_of_httpcore_is_one_of_httpx(kind: type[Exception]) -> None:
    """Under the same name, where httpx has it. A proxy's can't come: there is none between us and an instance."""
    ours = as_httpx(kind("so"))
    if kind in (httpcore.ProtocolError, httpcore.ProxyError):
        assert type(ours) is kind
    elif kind is httpcore.ConnectionNotAvailable:
        assert type(ours) is httpx.RemoteProtocolError
    else:
        assert type(ours).__name__ == kind.__name__
        assert isinstance(ours, httpx.TransportError)


def test_other_exceptions_stay_what_they_are() -> None:
    """The request's body may raise anything, and httpx's own too, when it is read from somewhere else."""
    for error in (ValueError("x"), httpx.ReadTimeout("x"), OSError("x"), TimeoutError("x")):
        assert as_httpx(error) is error
        assert classify(error, 0.0, is_warm=True, carrier=carrier()).kind is OutcomeKind.LOCAL
        assert not is_timeout(error)
        with pytest.raises(type(error)) as raised, wire_errors():
            raise error
        assert raised.value is error


def test_an_error_that_says_nothing_says_what_its_cause_said() -> None:
    error = failures.ConnectFailure()
    error.__cause__ = OSError()
    error.__cause__.__context__ = ValueError("the certificate is for somebody else")
    assert str(as_httpx(error)) == "the certificate is for somebody else"
    assert str(as_httpx(failures.ReadFailure())) == ""


# ---- what it means depends on what was known


@pytest.mark.parametrize("kind", [httpcore.ReadError, failures.ReadFailure, failures.RemoteProtocolFailure])
def test_a_used_connection_that_broke_without_an_answer_is_stale(kind: type[Exception]) -> None:
    error = kind()
    for is_warm, has_answer, meaning in [
        (True, False, OutcomeKind.STALE),
        (False, False, OutcomeKind.NO_ANSWER),
        (True, True, OutcomeKind.NO_ANSWER),
    ]:
        found = classify(error, 0.0, is_warm=is_warm, carrier=carrier(has_answer=has_answer))
        assert (found.kind, found.is_warm) == (meaning, is_warm)


@pytest.mark.parametrize("kind", [failures.ReadExpired, failures.WriteExpired, httpcore.ReadTimeout])
def test_silence_is_never_stale(kind: type[Exception]) -> None:
    assert classify(kind(), 0.0, is_warm=True, carrier=carrier()).kind is OutcomeKind.NO_ANSWER


def test_a_timeout_after_the_deadline_is_the_deadline_s() -> None:
    for kind in TABLE:
        found = classify(kind("x"), 0.0, carrier=carrier(is_expired=True)).kind
        assert (found is OutcomeKind.EXPIRED) is is_timeout(kind("x")), kind


def test_only_what_failed_to_connect_was_surely_not_sent() -> None:
    for error in [*OURS, *(kind for kind in wire._ERRORS if kind.__module__.startswith("httpcore"))]:
        for is_warm in (False, True):
            kind = classify(error("x"), 0.0, is_warm=is_warm, carrier=carrier()).kind
            assert (kind is OutcomeKind.NOT_SENT) is error.__name__.startswith(
                ("ConnectE", "ConnectF", "ConnectT")
            )


# ---- the deadline


class Waiting(Bounded):
    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    """The time, which stands still."""
    stands = time.monotonic()
    monkeypatch.setattr(bounded, "monotonic", lambda: stands)
    return stands


@pytest.mark.parametrize(
    ("left", "timeout", "bound"),
    [
        (None, None, None),
        (None, 2.0, 2.0),
        (3.0, None, 3.0),
        (3.0, 2.0, 2.0),
        (1.0, 2.0, 1.0),
        (2.0, 2.0, 2.0),
    ],
)
def test_a_wait_takes_no_longer_than_the_deadline_leaves(
    left: float | None, timeout: float | None, bound: float | None, now: float
) -> None:
    found = Waiting(None if left is None else now + left).bound(timeout, failures.ReadExpired)
    assert found == (None if bound is None else pytest.approx(bound))


@pytest.mark.parametrize("kind", [failures.ConnectExpired, failures.ReadExpired, failures.WriteExpired])
def test_no_wait_begins_at_the_deadline_or_after_it(kind: type[Failure], now: float) -> None:
    for left in (0.0, -1.0):
        waiting = Waiting(now + left)
        assert waiting.is_expired
        for timeout in (None, 2.0):
            with pytest.raises(kind, match="deadline"):
                waiting.bound(timeout, kind)
    assert not Waiting(now + 0.001).is_expired
    assert not Waiting(None).is_expired


def test_a_deadline_only_moves_nearer(now: float) -> None:
    waiting = Waiting(None)
    lefts = []
    for left in (5.0, 7.0, 3.0, 4.0, 3.0):
        waiting.hurry(now + left)
        lefts.append(waiting.deadline)
    assert lefts == [now + 5.0, now + 5.0, *[now + 3.0] * 3]
    assert all(later <= sooner for sooner, later in pairwise(lefts) if sooner and later)
