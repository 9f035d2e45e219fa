"""The two ways to wait, and a case on both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from .comparing import differences, verdict
from .engines import IS_NATIVE, WAYS, Way
from .observing import Ask, Observed, both
from .origin import origin
from .plays import Play
from .stricter import allowed

Duel: TypeAlias = Callable[..., Observed]


@pytest.fixture(params=WAYS, ids=repr)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def duel(way: Way) -> Duel:
    """Both sides through one play each on a server of its own, read whole and in parts; ours is returned (the last one).

    The case's name is what it is called in `stricter`.
    """

    def fight(case: str, play: Play, ask: Ask | None = None, **options: Any) -> Observed:
        what = ask or Ask()
        with origin({"case": play}) as server:
            seen = [
                (
                    "whole" if is_whole else "in parts",
                    *both(way, server, replace(what, is_whole=is_whole), **options),
                )
                for is_whole in (True, False)
            ]
        permit = allowed(case, way.name, is_native=IS_NATIVE)
        problems = [
            f"read {how}: {each}" for how, ours, theirs in seen for each in verdict(ours, theirs, permit)
        ]
        if permit is not None and not any(differences(ours, theirs) for _, ours, theirs in seen):
            problems.append("it stands in stricter.py, and there is no difference")
        assert not problems, f"{case}:\n" + "\n".join(problems)
        return seen[-1][1]

    return fight
