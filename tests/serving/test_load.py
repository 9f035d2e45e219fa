"""How much is being served: a count that stays right whoever counts."""

from __future__ import annotations

import pytest

from discoclient.serving.load import Load
from tests.support.threads import in_threads


def test_it_counts_what_has_begun_and_not_ended() -> None:
    load = Load()
    assert load.in_flight == 0
    load.begin()
    with load:
        assert load.in_flight == 2
    load.end()
    assert load.in_flight == 0


def test_a_request_that_fails_has_ended_too() -> None:
    load = Load()
    with pytest.raises(RuntimeError, match="of the application's"), load:
        raise RuntimeError("of the application's")
    assert load.in_flight == 0


def test_it_is_right_among_many_threads() -> None:
    load = Load()

    def serve() -> None:
        for _ in range(2000):
            with load:
                pass

    in_threads([serve] * 8)
    assert load.in_flight == 0


def test_one_thread_may_count_while_it_counts() -> None:
    """A finalizer that ends a request runs wherever it likes, also in here."""
    load = Load()
    with load._lock:
        load.begin()
        load.end()
    assert load.in_flight == 0
