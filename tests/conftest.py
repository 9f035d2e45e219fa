"""Fixtures that every test may use. Real etcd: one shared by all, or fresh ones that a test may break."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator

import pytest

from discoclient.dev import EtcdCluster, EtcdNotFound, find_etcd
from tests.support.processes import Processes, running

# Raft's clocks for clusters that are to fail over while a test waits; etcd wants a factor of five between
# them.
HEARTBEAT = 0.05
ELECTION = 0.25


# A shell that runs all this in the background has Ctrl-C ignored, also by what is started from here; tests interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=["native", "httpcore"],
        default="native",
        help="what engine='auto' means for HTTP/1.1",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Which etcd the results are about."""
    try:
        return f"etcd: {find_etcd()}"
    except EtcdNotFound as error:
        return f"etcd: none. {error}"


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdCluster]:
    """A single node that all tests share: not to be broken, compacted or wiped. See `registry_url`."""
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION) as cluster:
        yield cluster


@pytest.fixture
def registry_url(etcd: EtcdCluster) -> str:
    """The shared node's address, with a prefix that is this test's alone."""
    return f"{etcd.registry_url}/t/{uuid.uuid4().hex}"


@pytest.fixture
def etcd_node() -> Iterator[EtcdCluster]:
    """A fresh single node, to be broken, compacted and wiped at will."""
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION) as cluster:
        yield cluster


@pytest.fixture
def cluster3() -> Iterator[EtcdCluster]:
    """A fresh cluster of three, to be broken at will. It elects a new leader in about half a second."""
    with EtcdCluster(nodes=3, heartbeat=HEARTBEAT, election=ELECTION) as cluster:
        yield cluster


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts Python programs, and ends them when the test is over."""
    with Processes() as started:
        yield started


@pytest.fixture(autouse=True)
def no_leaked_processes() -> Iterator[None]:
    """Fail a test that leaves a process of `tests.support.processes` behind. Autouse: set up first, checked last."""
    before = running()
    yield
    leaked = running() - before
    for process in leaked:
        process.kill()
    if leaked:
        pytest.fail(
            f"processes were left behind (and are ended now): {sorted(map(repr, leaked))}", pytrace=False
        )
