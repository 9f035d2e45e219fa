"""Everything vanishes from etcd at once: a healthy fleet goes on, and one that is really gone is said to be gone."""

from __future__ import annotations

import uuid

import pytest

from discoclient import DiscoClient, NoInstances
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from tests.faults.harness import resolver_of
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.servers import Servers


def forget(*clients: DiscoClient) -> None:
    """Wait until all of them know that the registry has nobody."""
    for client in clients:
        resolver = resolver_of(client)
        eventually(
            lambda resolver=resolver: resolver.snapshot is not None and not resolver.snapshot.by_id,
            timeout=15,
            what="the caller knows that nobody is registered",
        )


@pytest.mark.parametrize("how", ["wiped", "leases revoked"])
def test_a_registry_that_forgets_a_healthy_fleet_does_not_take_it_down(
    etcd_node: EtcdCluster, hub: Hub, how: str
) -> None:
    url = f"{etcd_node.registry_url}/t/{uuid.uuid4().hex}"
    raw = Raw(etcd_node, url)
    with Servers() as servers:
        fleet = [servers.start() for _ in range(3)]
        for server in fleet:
            raw.add("experiment", port=server.port)
        with (
            DiscoClient("experiment", registry=url) as client,
            DiscoClient("experiment", registry=url, vanish_grace=0) as control,
        ):
            for either in (client, control):
                assert either.get("/").status_code == 200
            if how == "wiped":
                etcd_node.wipe_and_restart()
            else:
                for key in raw.instances("experiment").values():
                    raw.revoke(key.lease)
            forget(client, control)
            for _ in range(20):
                assert client.get("/").status_code == 200
            with pytest.raises(NoInstances):  # the negative control
                control.get("/")
            newcomer = servers.start()
            registered = raw.add("experiment", port=newcomer.port)
            eventually(
                lambda: client.get("/").extensions["disco"].instance.id == registered.id,
                timeout=10,
                what="who is registered comes before who is not",
            )
            assert {client.get("/").extensions["disco"].instance.id for _ in range(20)} == {registered.id}


def test_a_service_that_is_really_gone_says_so_within_the_grace(etcd_node: EtcdCluster, hub: Hub) -> None:
    url = f"{etcd_node.registry_url}/t/{uuid.uuid4().hex}"
    raw = Raw(etcd_node, url)
    with Servers() as servers, DiscoClient("experiment", registry=url) as client:
        fleet = [servers.start() for _ in range(3)]
        for server in fleet:
            raw.add("experiment", port=server.port)
        assert client.get("/").status_code == 200
        for server in fleet:
            servers.run(server.kill())
        for key in raw.instances("experiment").values():
            raw.revoke(key.lease)
        forget(client)
        with pytest.raises(NoInstances):
            client.get("/", extensions={"disco": {"retries": 5}})
        with pytest.raises(NoInstances):
            client.get("/")


def test_whoever_drained_is_gone_at_once(etcd_node: EtcdCluster, hub: Hub) -> None:
    url = f"{etcd_node.registry_url}/t/{uuid.uuid4().hex}"
    raw = Raw(etcd_node, url)
    with Servers() as servers, DiscoClient("experiment", registry=url) as client:
        records = [raw.add("experiment", port=servers.start().port) for _ in range(3)]
        assert client.get("/").status_code == 200
        leases = [key.lease for key in raw.instances("experiment").values()]
        for record in records:
            raw.drain(record)
        for lease in leases:
            raw.revoke(lease)
        forget(client)
        with pytest.raises(NoInstances):
            client.get("/")
