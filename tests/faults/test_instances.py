"""Instances die, freeze and come back under load: callers see nothing of it, as far as that can be."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack

import httpx
import pytest

from discoclient import AsyncDiscoClient, DiscoClient, OutlierPolicy, RetryPolicy
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from tests.faults.harness import Service, resolver_of, start_services
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.load import AsyncLoad, Load
from tests.support.processes import Processes

TTL = 3.0


class Callers:
    """Sync and async GET, POST, and the negative controls of both: callers that try nothing again.

    The controls have endpoints of their own, or they would profit from what the others find out; and they go round,
    so that they are sure to come to each instance.
    """

    def __init__(self, url: str, stack: ExitStack, *, timeout: float) -> None:
        client = stack.enter_context(DiscoClient("experiment", registry=url, timeout=timeout))
        once = stack.enter_context(
            DiscoClient(
                "experiment",
                registry=f"{url}?hostnames=1",
                retry=RetryPolicy(max_attempts=1),
                outlier=OutlierPolicy(max_ejected=0),
                balancer="round_robin",
                timeout=timeout,
            )
        )
        for made in (client, once):
            made.wait_ready(10)
        self.resolver = resolver_of(client)
        post = {"path": "/work?seconds=0.05", "method": "POST", "content": b"once"}
        self.get = stack.enter_context(Load(client, rate=25))
        self.async_get = stack.enter_context(
            AsyncLoad(lambda: AsyncDiscoClient("experiment", registry=url, timeout=timeout), rate=25)
        )
        self.post = stack.enter_context(Load(client, rate=25, **post))
        self.control_get = stack.enter_context(Load(once, rate=25))
        self.control_post = stack.enter_context(Load(once, rate=25, **post))
        self.all = [self.get, self.async_get, self.post, self.control_get, self.control_post]

    def favourite(self, services: list[Service]) -> Service:
        """The service that most is sent to, once there is enough to tell."""
        eventually(lambda: len(self.post.sent) > 25 and len(self.async_get.sent) > 25, timeout=20)
        ((id, _),) = Counter(sent.instance for sent in self.post.sent[-25:]).most_common(1)
        return next(service for service in services if service.id == id)

    def stop(self) -> None:
        for load in self.all:
            load.stop()


def test_an_instance_is_killed_under_load_and_only_what_it_was_doing_is_lost(
    etcd: EtcdCluster, hub: Hub, registry_url: str, processes: Processes
) -> None:
    raw = Raw(etcd, registry_url)
    services = start_services(processes, registry_url, count=3, ttl=TTL)
    with ExitStack() as stack:
        callers = Callers(registry_url, stack, timeout=5.0)
        victim = callers.favourite(services)
        kill_began = time.monotonic()
        victim.process.kill()
        kill_ended = time.monotonic()
        eventually(
            lambda: victim.id not in raw.instances("experiment"), timeout=TTL + 10, what="its lease ran out"
        )
        eventually(lambda: victim.id not in callers.resolver.snapshot.by_id, what="callers know")
        eventually(lambda: len(callers.post.since(time.monotonic() - 1)) > 5, what="they go on")
        callers.stop()

    callers.get.assert_none_failed()
    callers.async_get.assert_none_failed()
    with pytest.raises(AssertionError, match="requests failed"):
        callers.control_get.assert_none_failed()

    def assert_lost_only_what_was_under_way(post: Load) -> None:
        for lost in post.failures:
            assert lost.began <= kill_ended, f"it was begun when nobody was there any more: {lost}"
            assert lost.ended >= kill_began
            assert isinstance(lost.error, httpx.TransportError)
            assert not isinstance(lost.error, httpx.ConnectError), (
                "nothing was sent: it could have gone elsewhere"
            )

    assert_lost_only_what_was_under_way(callers.post)
    with pytest.raises(AssertionError, match="nobody was there any more"):
        assert_lost_only_what_was_under_way(callers.control_post)
    for load in callers.all:
        gone = [sent for sent in load.since(kill_ended) if sent.instance == victim.id]
        assert not gone, "who is dead does not answer"


def freeze_an_instance(
    etcd: EtcdCluster, url: str, processes: Processes, *, ttl: float, seconds: float
) -> None:
    raw = Raw(etcd, url)
    services = start_services(processes, url, count=3, ttl=ttl)
    # Negative control, out of the callers' way: a service that does not ask for a new lease.
    (fatalist,) = start_services(processes, url, service="other", ttl=ttl, without="new-lease")

    def is_back(service: str, id: str) -> bool:
        return raw.instance(service, id) is not None

    with ExitStack() as stack:
        callers = Callers(url, stack, timeout=2.0)
        victim = callers.favourite(services)
        for process in (victim.process, fatalist.process):
            process.pause()
        frozen_at = time.monotonic()
        time.sleep(seconds)  # how long it is frozen is what the test is about
        assert not is_back("experiment", victim.id), "its lease has run out"
        assert not is_back("other", fatalist.id)
        for process in (victim.process, fatalist.process):
            process.resume()
        eventually(lambda: is_back("experiment", victim.id), timeout=10, what="it is registered again")
        eventually(lambda: victim.states == ["registered", "lost", "registered"], what="and says so")
        with pytest.raises(AssertionError, match="it is registered again"):
            eventually(lambda: is_back("other", fatalist.id), timeout=1, what="it is registered again")
        fatalist.process.kill()
        back_at = time.monotonic()
        eventually(
            lambda: any(sent.instance == victim.id for sent in callers.get.since(back_at)),
            timeout=20,
            what="it is called again",
        )
        callers.stop()
    assert len(callers.get.since(frozen_at)) > 10
    callers.get.assert_none_failed()
    callers.async_get.assert_none_failed()
    with pytest.raises(AssertionError, match=r"requests failed.*ReadTimeout"):
        callers.control_get.assert_none_failed()


def test_an_instance_is_frozen_for_longer_than_its_ttl_and_goes_on(
    etcd: EtcdCluster, hub: Hub, registry_url: str, processes: Processes
) -> None:
    freeze_an_instance(etcd, registry_url, processes, ttl=TTL, seconds=TTL + 2)


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_an_instance_is_frozen_for_a_minute_with_the_usual_ttl(
    etcd: EtcdCluster, hub: Hub, registry_url: str, processes: Processes
) -> None:
    freeze_an_instance(etcd, registry_url, processes, ttl=15, seconds=60)
