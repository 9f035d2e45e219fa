"""What a simulated client knows of the service: endpoints over the changes, and a view, kept as
`discoclient.control.resolver` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from random import Random

from discoclient.balancing.endpoint import Endpoint, Rank
from discoclient.balancing.guard import VanishGuard
from discoclient.balancing.preferences import Preferences
from discoclient.balancing.reconcile import reconcile
from discoclient.balancing.view import View, build_view
from discoclient.model.instance import State
from discoclient.model.snapshot import Snapshot

from .loop import Loop

__all__ = ["Known"]


class Known:
    def __init__(self, loop: Loop, preferences: Preferences, rng: Random) -> None:
        self.view: View | None = None
        """``None`` before the first news."""
        self.endpoints: Mapping[str, Endpoint] = {}
        self.ever: list[Endpoint] = []
        """Every endpoint there was."""
        self._loop = loop
        self._preferences = preferences
        self._rng = rng
        self._snapshot: Snapshot | None = None
        self._guard = VanishGuard()
        self._held: dict[str, tuple[Endpoint, float]] = {}
        self._memory: dict[str, Endpoint] = {}

    def newest(self) -> View:
        assert self.view is not None
        return self.view

    def learn(self, snapshot: Snapshot) -> None:
        """What is older than what is known is not news."""
        before = self._snapshot
        if before is not None and snapshot.revision <= before.revision:
            return
        now, known = self._loop.now, before.by_id if before is not None else {}
        changed = sorted(
            id for id in {**known, **snapshot.by_id} if known.get(id) is not snapshot.by_id.get(id)
        )
        memory = {**self._memory, **{id: endpoint for id, (endpoint, _) in self._held.items()}}
        previous = self.endpoints
        self.endpoints, left = reconcile(previous, snapshot, now, changed, memory=memory)
        self.ever += [end for id, end in self.endpoints.items() if previous.get(id) is not end]
        self._snapshot = snapshot
        retiring = self._part(left, snapshot, {id for id in changed if _was_draining(known, id)})
        self._rebuild()
        for endpoint in retiring:
            endpoint.retire()

    def _part(self, left: list[Endpoint], snapshot: Snapshot, drained: Collection[str]) -> list[Endpoint]:
        """Who is to be retired of those that left; the others are held, in case that the registry forgot them."""
        now = self._loop.now
        for id in [id for id in self._held if id in snapshot.by_id]:
            del self._held[id]
        self._guard.forget(snapshot.by_id)
        gone = [endpoint for endpoint in left if endpoint.id not in snapshot.by_id]
        self._memory.update((endpoint.id, endpoint) for endpoint in gone)
        vanished = [each for each in gone if each.rank is not Rank.NEVER and each.id not in drained]
        remaining = sum(endpoint.rank is not Rank.NEVER for endpoint in self.endpoints.values())
        held = set()
        for endpoint in self._guard.hold(vanished, remaining, now) if self._preferences.grace else ():
            if endpoint.id not in self._held:
                twin = (
                    Endpoint(endpoint.instance, now=now, memory=endpoint) if endpoint.is_retired else endpoint
                )
                twin.hold()
                self._held[endpoint.id] = twin, now
                self._loop.after(self._preferences.grace, self._drop, twin)
                held.add(endpoint.id)
                if twin is not endpoint:
                    self.ever.append(twin)
        return [endpoint for endpoint in left if endpoint.id not in held]

    def _drop(self, endpoint: Endpoint) -> None:
        """It was held long enough."""
        if self._held.get(endpoint.id, (None,))[0] is endpoint:
            del self._held[endpoint.id]
            self._rebuild()
            endpoint.retire()

    def _rebuild(self) -> None:
        assert self._snapshot is not None
        held = {id: endpoint for id, (endpoint, _) in self._held.items()}
        endpoints = {**held, **self.endpoints} if held else self.endpoints
        view = build_view(self._snapshot, endpoints, self._preferences, self._rng, self._loop.now)
        self.view = view
        if view.rebuild_at is not None:
            self._loop.at(max(view.rebuild_at, self._loop.now + 0.01), self._refresh, view)

    def _refresh(self, view: View) -> None:
        """Newcomers get more."""
        if self.view is view:
            self._rebuild()


def _was_draining(known: Mapping[str, object], id: str) -> bool:
    return getattr(known.get(id), "state", None) is State.DRAINING
