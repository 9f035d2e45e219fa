"""Which of two is older: the registry's own order tells, and a record says so only for what is older than its key."""

from __future__ import annotations

from typing import Any

import pytest

from discoclient.model.instance import Instance
from discoclient.registry.protocol import Entry
from discoclient.serving.generation import GENERATION, generation_of


def generation(said: Any, created_at: int = 50) -> int:
    extra = {} if said is None else {GENERATION: said}
    instance = Instance(service="web", id="aaaaaaaa", host="127.0.0.1", port=80, extra=extra)
    return generation_of(instance, Entry("/k", b"", created_at, created_at + 7, 1))


def test_an_instance_is_as_old_as_its_key() -> None:
    assert generation(None) == 50


def test_one_that_was_put_back_is_as_old_as_it_says() -> None:
    assert generation(20) == 20


@pytest.mark.parametrize("said", [50, 51, 10**30, 0, -1, "20", 20.0, True, [20], {}])
def test_what_can_not_be_is_not_believed(said: Any) -> None:
    """Nobody gets younger by saying so: whoever is younger sends the others away."""
    assert generation(said) == 50
