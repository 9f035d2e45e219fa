"""A process that is alive and does not get to anything: the lease is kept by a thread that it can't starve."""

from __future__ import annotations

import signal

import pytest

from discoclient.dev import EtcdCluster
from tests.faults.harness import PROGRAMS, Service
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess


def block_processes(etcd: EtcdCluster, url: str, processes: Processes, *, ttl: float, seconds: float) -> None:
    raw = Raw(etcd, url)

    def start(how: str, *options: str) -> PythonProcess:
        arguments = ["experiment", how, "--ttl", str(ttl), "--seconds", str(seconds), *options]
        return processes.python(PROGRAMS / "blocked.py", *arguments, env={"DISCO_REGISTRY": url})

    def assert_kept(service: Service) -> None:
        """The key is the one that was put at first, under the first lease."""
        assert raw.instance("experiment", service.id) == first[service.id], "the lease was lost"
        assert service.states == ["registered"], "the lease was lost"

    started = [start("block"), start("spin")]
    # Negative controls: the renewals on the blocked loop itself; and what no thread can do anything about.
    started += [start("block", "--without", "own-thread"), start("hold")]
    services = [Service(process) for process in started]
    blocked, busy, on_its_own, held = services
    first = raw.instances("experiment")
    assert len(first) == len(services)
    for service in services:
        service.process.signal(signal.SIGUSR1)
    for service in services:
        service.process.wait_for_line("done", timeout=seconds + 20)
    assert_kept(blocked)
    assert_kept(busy)
    for control in (on_its_own, held):
        with pytest.raises(AssertionError, match="the lease was lost"):
            assert_kept(control)
        # Lost, and yet not for good.
        eventually(
            lambda control=control: raw.instance("experiment", control.id), timeout=10, what="it is back"
        )

        def assert_back(control: Service = control) -> None:
            assert control.states[-2:] == ["lost", "registered"]

        eventually(lambda check=assert_back: check() is None, timeout=10)
        control.process.kill()


def test_a_blocked_event_loop_and_busy_threads_lose_no_lease(
    etcd: EtcdCluster, registry_url: str, processes: Processes
) -> None:
    block_processes(etcd, registry_url, processes, ttl=3, seconds=6)


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_fifteen_seconds_of_blocked_event_loop_with_a_ttl_of_ten_lose_no_lease(
    etcd: EtcdCluster, registry_url: str, processes: Processes
) -> None:
    block_processes(etcd, registry_url, processes, ttl=10, seconds=15)
