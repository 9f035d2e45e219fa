"""Any fault after any other, for minutes: what no single scenario would find."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from discoclient import AsyncDiscoClient, DiscoClient
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from tests.faults.conftest import heal
from tests.faults.harness import Look, Service, look, start_services
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.load import AsyncLoad, Load
from tests.support.processes import Processes

TTL = 15.0
"""Longer than any member is frozen: a leader that was frozen for longer than that revokes every lease when it wakes up,
before it learns that it leads no more (etcd issue 15247; fixed in 3.4.31 and 3.5.13)."""
SECONDS = 150.0


class Story:
    """A cluster, four instances, and what may happen to them. One thing at a time, each put right before the next."""

    def __init__(
        self, cluster: EtcdCluster, url: str, processes: Processes, looking: Look, seed: int
    ) -> None:
        self._cluster = cluster
        self._url = url
        self._processes = processes
        self._looking = looking
        self._rng = random.Random(seed)
        self.raw = Raw(cluster, url)
        self.services = start_services(processes, url, count=4, ttl=TTL)

    def faults(self) -> list[Callable[[], None]]:
        return [
            self.kill_a_member,
            self.freeze_a_member,
            self.lose_the_quorum,
            self.lose_everything,
            self.compact,
            self.revoke_a_lease,
            self.delete_a_key,
            self.replace_an_instance,
            self.freeze_an_instance,
        ]

    def settle(self) -> None:
        """All is well again: everybody is registered, and the caller knows exactly that."""
        heal(self._cluster)
        ids = {service.id for service in self.services}
        eventually(
            lambda: set(self.raw.instances("experiment")) == ids, timeout=45, what="all are registered"
        )
        eventually(lambda: self._looking.ids == ids, timeout=20, what="the caller knows who is there")

    def kill_a_member(self) -> None:
        self._rng.choice(self._cluster.members).kill()
        time.sleep(self._rng.uniform(0, 3))

    def freeze_a_member(self) -> None:
        self._rng.choice(self._cluster.members).pause()
        time.sleep(self._rng.uniform(0, 5))

    def lose_the_quorum(self) -> None:
        for member in self._rng.sample(self._cluster.members, 2):
            self._rng.choice([member.kill, member.pause])()
        time.sleep(self._rng.uniform(0, 6))

    def lose_everything(self) -> None:
        for member in self._cluster.members:
            member.kill()
        time.sleep(self._rng.uniform(0, 6))

    def compact(self) -> None:
        self.raw.put("/history", b"")
        self._cluster.compact()

    def revoke_a_lease(self) -> None:
        self.raw.revoke(self._rng.choice(list(self.raw.instances("experiment").values())).lease)

    def delete_a_key(self) -> None:
        self.raw.delete(self._rng.choice(list(self.raw.instances("experiment").values())).key)

    def replace_an_instance(self) -> None:
        self._any_service().process.kill()
        self.services.extend(start_services(self._processes, self._url, ttl=TTL))

    def freeze_an_instance(self) -> None:
        service = self._rng.choice(self.services)
        service.process.pause()
        time.sleep(self._rng.uniform(0, TTL + 5))
        service.process.resume()

    def _any_service(self) -> Service:
        return self.services.pop(self._rng.randrange(len(self.services)))


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_happens_no_idempotent_request_fails_and_everybody_agrees_afterwards(
    cluster3: EtcdCluster, hub: Hub, processes: Processes, seed: int
) -> None:
    url = f"{cluster3.registry_url}/t/{uuid.uuid4().hex}"
    with ExitStack() as stack:
        looking = stack.enter_context(look(url))
        story = Story(cluster3, url, processes, looking, seed)
        story.settle()
        client = stack.enter_context(DiscoClient("experiment", registry=url, timeout=2.0))
        client.wait_ready(10)
        loads = [
            stack.enter_context(Load(client, rate=20)),
            stack.enter_context(
                AsyncLoad(lambda: AsyncDiscoClient("experiment", registry=url, timeout=2.0), rate=20)
            ),
        ]
        rng = random.Random(seed)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for fault in rng.sample(story.faults(), len(story.faults())):
                print(f"{SECONDS - (until - time.monotonic()):.1f} s: {fault.__name__}")
                fault()
                story.settle()
                for load in loads:
                    load.assert_none_failed()
        for load in loads:
            load.stop()
            load.assert_none_failed()
