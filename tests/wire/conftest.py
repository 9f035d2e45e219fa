"""The two ways to wait, and a case on both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from .comparing import differences, verdict
from .engines import IS_NATIVE, OURS, THEIRS, WAYS, Way
from .observing import Ask, Observed, observe
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

    def fight(case: str, play: Play, ask: Ask = Ask(), **options: Any) -> Observed:
        async def both() -> list[tuple[str, Observed, Observed]]:
            return [
                (
                    "whole" if is_whole else "in parts",
                    await observe(OURS, way, server, replace(ask, is_whole=is_whole), **options),
                    await observe(THEIRS, way, server, replace(ask, is_whole=is_whole), **options),
                )
                for is_whole in (True, False)
            ]

        with origin({"case": play}) as server:
            seen = way.run(both)
        permit = allowed(case, way.name, is_native=IS_NATIVE)
        problems = [f"read {how}: {each}" for how, *sides in seen for each in verdict(*sides, permit)]
        if permit is not None and not any(differences(*sides) for _, *sides in seen):
            problems.append("it stands in stricter.py, and there is no difference")
        assert not problems, f"{case}:\n" + "\n".join(problems)
        return seen[-1][1]

    return fight
