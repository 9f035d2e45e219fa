"""A process that follows a thousand services, as a gateway does: what it costs the registry, and what it survives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from discoclient.control.hub import Hub, find_address, fresh_hub
from discoclient.control.resolver import Resolver
from discoclient.dev import EtcdCluster
from discoclient.registry.happenings import WatchSettings
from tests.conftest import ELECTION, HEARTBEAT
from tests.faults.harness import Unshuffled
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.tls import cluster_tls

SERVICES = 1000


@pytest.fixture(params=["plain", "TLS"])
def members(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdCluster]:
    tls = cluster_tls(tmp_path, client=None) if request.param == "TLS" else None
    with EtcdCluster(nodes=3, heartbeat=HEARTBEAT, election=ELECTION, tls=tls) as cluster:
        yield cluster


def follow_all(hub: Hub, url: str) -> list[Resolver]:
    address = find_address(url)
    return [hub.acquire(address, f"service-{number}") for number in range(SERVICES)]


def sees(resolver: Resolver, id: str) -> bool:
    return resolver.snapshot is not None and id in resolver.snapshot.by_id


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_a_thousand_services_are_followed_and_outlive_the_member_that_tells_of_them(
    members: EtcdCluster,
) -> None:
    raw = Raw(members, members.registry_url)
    with fresh_hub(settings=WatchSettings()) as hub:
        hub.rng = Unshuffled()
        followed = follow_all(hub, members.registry_url)

        def all_are(phase: str) -> bool:
            return all(resolver.phase == phase for resolver in followed)

        eventually(lambda: all_are("live"), timeout=30, what="all are live")
        teller = members.members[0]
        teller.kill()
        eventually(lambda: not all_are("live"), timeout=10, what="it is noticed")
        eventually(lambda: all_are("live"), timeout=30, what="all are live again")
        for number in (0, SERVICES // 2, SERVICES - 1):
            newcomer = raw.add(f"service-{number}", at=members.leader())
            eventually(partial(sees, followed[number], newcomer.id), timeout=10, what="it is seen")
