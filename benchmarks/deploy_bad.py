"""Deploys that go wrong, under load: what the callers notice, and whether the old version is still there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import NamedTuple

from discoclient.dev import EtcdCluster

from .deploy_scene import WAYS, under_load
from .deploy_tables import OLD_WAY, OURS, SIDES, present
from .deploy_ways import BAKE, TIMEOUT, DiscoWay
from .figures import Row, Section

__all__ = ["EXIT_CODE", "KINDS", "Attempt", "BadPlan", "bad_section", "try_bad"]

KINDS = {
    "exits": "exits at start",
    "unready": "never becomes ready",
    "sickens": "fails its health checks once it is registered",
}
"""By mood of the service (`deploy_service`)."""
EXIT_CODE = 3
_BAKE = 3 * BAKE
"""Seconds: it sickens after one, and three failed checks make it unhealthy."""
_AIM = 0.0


class BadPlan(NamedTuple):
    moods: Sequence[str]
    rounds: int
    rate: float
    lead: float
    """Seconds of load before the deploy."""
    seconds: float
    """Seconds of load from the start of the bad version on: what a person needs at least to see it and go back."""


class Attempt(NamedTuple):
    requests: int
    failed: int
    took: float | None
    """Seconds until the bad version had given up; ``None`` where it did not."""
    is_harmless: bool
    """The very same old version is there and ready; and ``disco run`` ended with `EXIT_CODE`."""


def bad_section(plan: BadPlan) -> Section:
    rows: list[Row] = []
    for mood in plan.moods:
        for side in (OLD_WAY, OURS):
            if side in present():
                tried = [try_bad(side, mood, plan, f"round {number}") for number in range(plan.rounds)]
                rows += _rows(side, KINDS[mood], tried)
    return Section("Deploys that go wrong", rows, [_about(plan)])


def try_bad(side: str, mood: str, plan: BadPlan, seed: str) -> Attempt:
    """Deploy one bad version, from nothing to nothing."""
    with TemporaryDirectory(prefix="disco-deploy-") as name, EtcdCluster(nodes=1) as etcd:
        folder = Path(name)
        scene = DiscoWay(etcd, folder, bake=_BAKE) if side == OURS else WAYS[side](etcd, folder)
        with scene, under_load(scene.target, plan.rate, plan.lead + plan.seconds, seed) as load:
            before = scene.ready() if isinstance(scene, DiscoWay) else []
            load.begin()
            time.sleep(max(0.0, load.began + plan.lead - monotonic()))
            # the old way never gives up, so there it is given until the load ends
            patience = TIMEOUT if side == OURS else plan.seconds
            bad = scene.deploy("v2", mood=mood, patience=patience)
            calls = load.finish()
            is_harmless = not bad.was_replaced
            if isinstance(scene, DiscoWay):
                is_harmless = is_harmless and scene.ready() == before and bad.code == EXIT_CODE
    return Attempt(
        len(calls),
        sum(call.error is not None for call in calls),
        bad.ended - bad.began if bad.code is not None and not bad.was_replaced else None,
        is_harmless,
    )


def _rows(side: str, what: str, tried: Sequence[Attempt]) -> list[Row]:
    label, role = SIDES[side]
    name, aim = f"{label}, one that {what}", _AIM if side == OURS else None
    failed = sum(each.failed for each in tried)
    harmful = sum(not each.is_harmless for each in tried)
    took = tuple(each.took for each in tried if each.took is not None)
    rows = [
        Row(f"{name}: failed", role, "requests", (failed,), aim=aim),
        Row(f"{name}: old version touched", role, f"of {len(tried)}", (harmful,), aim=aim),
    ]
    return [*rows, Row(f"{name}: until it gave up", role, "s", took)] if took else rows


def _about(plan: BadPlan) -> str:
    return (
        f"Rounds: {plan.rounds}, each with new processes; {plan.rate:g} requests a second, from {plan.lead:g} s before the "
        f"deploy to {plan.seconds:g} s after its start; sums over all rounds. The old version counts as touched unless the "
        f"very same instance is there and ready in the end and `disco run` ended with exit code {EXIT_CODE}. In the old way "
        "a service registers when it listens, whether it is well or not, and nobody checks it afterwards: what fails there "
        "goes on failing until a person goes back. One that sickens does its work as before, so that only the health checks "
        "can tell."
    )
