"""Views for preferences, and who gets what of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from random import Random
from typing import Any

import pytest

from discoclient.balancing.balancer import find_balancer
from discoclient.balancing.endpoint import Endpoint
from discoclient.balancing.picker import HashKey
from discoclient.balancing.preferences import Preferences
from discoclient.balancing.view import View, build_view
from discoclient.model.snapshot import Snapshot

__all__ = ["built", "check_shares", "keyed", "preferring"]


def preferring(balancer: str = "random", **preferences: Any) -> Preferences:
    return Preferences(balancer=find_balancer(balancer), **preferences)


def built(
    endpoints: Sequence[Endpoint], preferences: Preferences, *, now: float = 0.0, seed: int = 1
) -> View:
    by_id = {endpoint.id: endpoint for endpoint in endpoints}
    snapshot = Snapshot("web", 1, {id: endpoint.instance for id, endpoint in by_id.items()})
    return build_view(snapshot, by_id, preferences, Random(seed), now)


def keyed(chosen: View, keys: Sequence[HashKey], *, now: float = 0.0) -> dict[HashKey, str]:
    """Where each key goes, with nothing in flight."""
    places = {}
    for key in keys:
        endpoint = chosen.pick(now, (), key)
        assert endpoint is not None
        places[key] = endpoint.id
    return places


def check_shares(
    counts: Counter[str], shares: dict[str, float], *, within: float = 0.1, is_exact: bool = False
) -> None:
    """Each gets its share to *within*; where chance draws, give or take three standard deviations of the draw itself."""
    picks, total = sum(counts.values()), sum(shares.values())
    for id, share in shares.items():
        expected = picks * share / total
        chance = 1.0 if is_exact else 3 * sqrt(expected * (1 - share / total))
        assert counts[id] == pytest.approx(expected, abs=within * expected + chance), (id, expected, counts)
