"""Fixtures of the fault scenarios: a cluster that is put right again after each test, and clients with quick times."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from discoclient.control.hub import Hub, fresh_hub
from discoclient.dev import EtcdCluster
from tests.conftest import ELECTION, HEARTBEAT
from tests.faults.harness import FAST
from tests.faults.raw import Raw


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members for the tests of one file; `healed` puts them right between two tests."""
    with EtcdCluster(nodes=3, heartbeat=HEARTBEAT, election=ELECTION) as started:
        yield started


@pytest.fixture
def healed(cluster: EtcdCluster) -> Iterator[EtcdCluster]:
    """The file's cluster, well when the test begins and made well when it ends."""
    heal(cluster)
    yield cluster
    heal(cluster)


@pytest.fixture
def url(cluster: EtcdCluster) -> str:
    """The file's cluster, with a prefix that is this test's alone."""
    return f"{cluster.registry_url}/t/{uuid.uuid4().hex}"


@pytest.fixture
def raw(cluster: EtcdCluster, url: str) -> Raw:
    return Raw(cluster, url)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """What clients and registrations of this test use, closed at its end."""
    with fresh_hub(settings=FAST) as fresh:
        yield fresh


def heal(cluster: EtcdCluster) -> None:
    for member in cluster.members:
        member.resume()
        member.start()
    cluster.wait_healthy()
