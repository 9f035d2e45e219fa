"""Members of the cluster die, come back, and are cut off from each other, while services live and callers call."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from discoclient import AsyncDiscoClient, DiscoClient
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from tests.faults.conftest import heal
from tests.faults.controls import forget_when_the_watch_breaks
from tests.faults.harness import Service, assert_sees, look, resolver_of, start_services, url_first
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.load import AsyncLoad, Load
from tests.support.processes import Processes

TTL = 5.0


@pytest.fixture(scope="module")
def url(cluster: EtcdCluster) -> str:
    return f"{cluster.registry_url}/t/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def fleet(cluster: EtcdCluster, url: str) -> Iterator[list[Service]]:
    """Three service processes that live through everything that this file does to the cluster."""
    with Processes() as processes:
        started = start_services(processes, url, count=3, ttl=TTL)
        yield started
        # Their drains would wait for callers whose presence outlived the outage.
        for service in started:
            service.process.kill()


class Callers:
    """A sync and an async caller under load, and a third one that forgets what it knew when its watch breaks."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.client = stack.enter_context(DiscoClient("experiment", registry=url))
        forgetful = stack.enter_context(
            DiscoClient("experiment", registry=f"{url}?hostnames=1", vanish_grace=0)
        )
        for client in (self.client, forgetful):
            client.wait_ready(10)
        forget_when_the_watch_breaks(resolver_of(forgetful))
        self.sync = stack.enter_context(Load(self.client, rate=30))
        self.asynchronous = stack.enter_context(
            AsyncLoad(lambda: AsyncDiscoClient("experiment", registry=url), rate=30)
        )
        self.control = stack.enter_context(Load(forgetful, rate=10))

    def age(self) -> float:
        age = resolver_of(self.client).age()
        assert age is not None
        return age

    def assert_none_failed(self) -> None:
        for load in (self.sync, self.asynchronous):
            load.stop()
            load.assert_none_failed()


@pytest.fixture
def callers(hub: Hub, url: str) -> Iterator[Callers]:
    with ExitStack() as stack:
        yield Callers(url, stack)


def stamps(raw: Raw) -> dict[str, tuple[int, int]]:
    """What changes when a key is put again or was away for a moment."""
    return {id: (key.create_revision, key.mod_revision) for id, key in raw.instances("experiment").items()}


def assert_renewed(raw: Raw, ids: set[str]) -> None:
    """The leases of *ids* are renewed from now on."""
    leases = [key.lease for id, key in raw.instances("experiment").items() if id in ids]
    lowest = dict.fromkeys(leases, int(TTL))

    def is_renewed(lease: int) -> bool:
        left = raw.time_to_live(lease)
        lowest[lease] = min(lowest[lease], left)
        return left > lowest[lease]

    for lease in leases:
        eventually(lambda lease=lease: is_renewed(lease), timeout=TTL, what="a lease was renewed")


@pytest.mark.parametrize("victim", ["follower", "leader"])
def test_a_member_is_killed_and_nobody_notices_but_the_watch_that_moves_on(
    healed: EtcdCluster, url: str, raw: Raw, fleet: list[Service], callers: Callers, victim: str
) -> None:
    member = healed.leader() if victim == "leader" else healed.followers()[0]
    before = stamps(raw)
    alone = f"etcd://127.0.0.1:{member.client_port}{url[url.index('/t/') :]}"
    with look(url_first(healed, url, member)) as looking, look(alone) as control:
        for either in (looking, control):
            either.wait_live()
            assert either.ids == set(before)
        lists = looking.lists
        killed_at = time.monotonic()
        member.kill()
        newcomer = raw.add("experiment", at=healed.leader(), port=fleet[0].port)
        assert_sees(looking, newcomer, within=5)
        assert looking.lists == lists, "the watch was resumed, nothing was listed again"
        assert all(len(snapshot) >= len(fleet) for snapshot in looking.snapshots)
        # Negative control: the protection is the other members.
        with pytest.raises(AssertionError, match="the caller sees"):
            assert_sees(control, newcomer, within=0.2)
    assert_renewed(raw, set(before))
    after = stamps(raw)
    del after[newcomer.id]
    assert after == before, "no registration was lost or repaired"
    raw.delete(raw.keys.instance("experiment", newcomer.id))
    eventually(
        lambda: len(callers.sync.since(killed_at)) > 20, timeout=20, what="requests were sent meanwhile"
    )
    callers.assert_none_failed()


def lose_the_quorum(
    cluster: EtcdCluster, url: str, raw: Raw, fleet: list[Service], callers: Callers, *, seconds: float
) -> None:
    registered = set(stamps(raw))
    with look(url) as looking:
        looking.wait_live()
        leader = cluster.leader()
        killed = [leader, cluster.followers()[0]]
        for member in killed:
            member.kill()
        time.sleep(seconds)  # how long the outage lasts is what the test is about
        assert callers.age() > seconds - 2, "how old the knowledge is can be asked"
        assert looking.phases == "suspect"
        assert looking.ids == registered
        for member in killed:
            member.start()
        cluster.wait_healthy()
        newcomer = raw.add("experiment", port=fleet[0].port)
        assert_sees(looking, newcomer, within=5)
        eventually(lambda: callers.age() < 2, timeout=10, what="the callers' knowledge is fresh again")
        assert all(registered <= set(snapshot.by_id) for snapshot in looking.snapshots), "nobody was dropped"
    raw.delete(raw.keys.instance("experiment", newcomer.id))
    # Their leases are alive: given up for dead meanwhile, or not, each was renewed or replaced in time.
    eventually(
        lambda: all(service.states[-1] == "registered" for service in fleet),
        timeout=10,
        what="all registered",
    )
    assert set(stamps(raw)) == registered
    callers.assert_none_failed()
    callers.control.stop()
    with pytest.raises(AssertionError, match=r"requests failed.*NoInstances"):
        callers.control.assert_none_failed()


def test_the_quorum_is_lost_and_comes_back(
    healed: EtcdCluster, url: str, raw: Raw, fleet: list[Service], callers: Callers
) -> None:
    lose_the_quorum(healed, url, raw, fleet, callers, seconds=TTL + 1.5)


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_the_quorum_is_lost_for_a_minute_and_comes_back(
    healed: EtcdCluster, url: str, raw: Raw, fleet: list[Service], callers: Callers
) -> None:
    lose_the_quorum(healed, url, raw, fleet, callers, seconds=60)


def lose_everything(
    cluster: EtcdCluster, raw: Raw, fleet: list[Service], callers: Callers, *, seconds: float
) -> None:
    for member in cluster.members:
        member.kill()
    lost_at = time.monotonic()
    ages = []
    while time.monotonic() - lost_at < seconds:
        time.sleep(0.25)
        ages.append(callers.age())
    assert ages == sorted(ages)
    assert ages[-1] > seconds - 2, "silence is not freshness"
    heal(cluster)
    newcomer = raw.add("experiment", port=fleet[0].port)
    eventually(
        lambda: newcomer.id in callers.sync.instances and newcomer.id in callers.asynchronous.instances,
        timeout=10,
        what="the callers call a newcomer",
    )
    raw.delete(raw.keys.instance("experiment", newcomer.id))
    callers.assert_none_failed()
    callers.control.stop()
    with pytest.raises(AssertionError, match=r"requests failed.*NoInstances"):
        callers.control.assert_none_failed()


def test_all_of_etcd_is_gone_and_callers_go_on_and_know_how_old_their_knowledge_is(
    healed: EtcdCluster, raw: Raw, fleet: list[Service], callers: Callers
) -> None:
    lose_everything(healed, raw, fleet, callers, seconds=4)


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_all_of_etcd_is_gone_for_two_minutes(
    healed: EtcdCluster, raw: Raw, fleet: list[Service], callers: Callers
) -> None:
    lose_everything(healed, raw, fleet, callers, seconds=120)
