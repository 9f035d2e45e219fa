"""A process that uses discoclient forks: the child sees what comes later, and the parent notices nothing."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from discoclient.dev import EtcdCluster
from tests.faults.harness import PROGRAMS
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess
from tests.support.servers import Servers


@pytest.fixture
def url(registry_url: str) -> str:
    """The node that all tests share: nothing here breaks it."""
    return registry_url


@pytest.fixture
def raw(etcd: EtcdCluster, url: str) -> Raw:
    return Raw(etcd, url)


class Scene:
    """A forking program, and the instances that it may call."""

    def __init__(self, processes: Processes, servers: Servers, raw: Raw, url: str) -> None:
        self._processes = processes
        self._servers = servers
        self.raw = raw
        self._url = url
        self.join()

    def join(self) -> str:
        """One more instance, that answers. Its id."""
        return self.raw.add("experiment", port=self._servers.start().port).id

    def start(self, how: str, *, without: str = "", patience: float = 15.0) -> Parent:
        """A program that is about to fork."""
        arguments = [how, "--patience", str(patience), "--without", without]
        return Parent(
            self,
            self._processes.python(PROGRAMS / "forking.py", *arguments, env={"DISCO_REGISTRY": self._url}),
        )


class Parent:
    """A program that forks, `programs/forking.py`."""

    def __init__(self, scene: Scene, process: PythonProcess) -> None:
        self.scene = scene
        self.process = process
        self.id = process.wait_for_line("ready", timeout=30).split()[1]
        self.before = self._stamp()

    def fork(self, *, children: int) -> None:
        """Have it fork; returns when the children are there, so that what joins then is news to them alone."""
        self.process.signal(signal.SIGUSR1)
        for _ in range(children):
            self.process.wait_for_line("forked", timeout=20)

    def seen_by(self, who: object) -> set[str]:
        lines = self.process.output.splitlines()
        return {line.split()[2] for line in lines if line.startswith(f"sees {who} ")}

    @property
    def codes(self) -> list[int]:
        """The children's exit codes, of those that have ended."""
        return [
            int(line.split()[2]) for line in self.process.output.splitlines() if line.startswith("ended ")
        ]

    def assert_children_end(self, *, count: int, within: float = 60.0) -> None:
        eventually(lambda: len(self.codes) == count, timeout=within, what="all children have ended")

    def assert_children_see(self, newcomer: str, *, children: int, within: float = 60.0) -> None:
        """Each of them, and they end well."""
        self.assert_children_end(count=children, within=within)
        assert self.codes == [0] * children
        for child in range(children):
            assert self.seen_by(child) == {newcomer}

    def assert_unharmed(self, *, within: float = 5.0) -> None:
        """The parent sees what joins now, and holds the lease that it held before."""
        newcomer = self.scene.join()
        eventually(
            lambda: newcomer in self.seen_by("parent"), timeout=within, what="the parent sees a newcomer"
        )
        assert self._stamp() == self.before, "the parent's registration stands as it stood"

    def assert_renews(self) -> None:
        """From now on, too: the time that the lease has left goes up again."""
        lease, _ = self.before
        left = self.scene.raw.time_to_live(lease)

        def is_renewed() -> bool:
            nonlocal left
            before, left = left, self.scene.raw.time_to_live(lease)
            return left > before

        eventually(is_renewed, timeout=6, what="the parent renews its lease")

    def assert_ends_in_order(self) -> None:
        self.process.signal(signal.SIGUSR1)
        assert self.process.wait(timeout=15) == 0
        assert self.process.errors == ""
        assert self.scene.raw.instance("parent", self.id) is None

    def _stamp(self) -> tuple[int, int]:
        key = self.scene.raw.instance("parent", self.id)
        assert key is not None
        return key.lease, key.create_revision


@pytest.fixture
def scene(processes: Processes, raw: Raw, url: str) -> Iterator[Scene]:
    with Servers() as servers:
        yield Scene(processes, servers, raw, url)


class Gunicorn:
    """gunicorn with four workers, whose application was loaded, and used, before they were forked."""

    WORKERS = 4

    def __init__(self, processes: Processes, url: str, *, without: str = "", patience: float = 20.0) -> None:
        self._patience = patience
        arguments = [
            "--preload",
            f"--workers={self.WORKERS}",
            "--graceful-timeout=2",
            "--bind=127.0.0.1:0",
            "tests.faults.programs.preloaded:app",
        ]
        self._process = processes.python(
            "-m", "gunicorn", *arguments, env={"DISCO_REGISTRY": url, "WITHOUT": without}
        )
        self._seen: dict[int, set[str]] = {}
        self._failed: list[httpx.HTTPError] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def seen(self) -> list[set[str]]:
        """What each worker that has answered until now knows, and has itself been answered by."""
        return list(self._seen.values())

    def ask(self) -> None:
        """Some requests at once, so that several workers get one."""
        listening = eventually(
            lambda: re.search(r"Listening at: (http://\S+)", self._process.errors),
            timeout=30,
            what="gunicorn listens",
        )

        def get() -> None:
            try:
                told = (
                    httpx.get(listening[1], timeout=self._patience, trust_env=False).raise_for_status().json()
                )
            except httpx.HTTPError as error:
                self._failed.append(error)
                return
            self._seen.setdefault(told["pid"], set()).update({told["answered"]} & set(told["known"]))

        with ThreadPoolExecutor(2 * self.WORKERS) as pool:
            for asked in [pool.submit(get) for _ in range(2 * self.WORKERS)]:
                asked.result()

    def end_a_worker(self) -> None:
        """The master starts another one in its place."""
        pid, _ = self._seen.popitem()
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: f"Worker exiting (pid: {pid})" in self._process.errors, timeout=15, what="it ends")

    def assert_all_see(self, *ids: str, within: float = 20.0) -> None:
        def is_seen() -> bool:
            self.ask()
            assert not self._failed
            return len(self.seen) == self.WORKERS and all(seen >= set(ids) for seen in self.seen)

        eventually(is_seen, timeout=within, what="every worker sees them")

    def assert_ends_in_order(self) -> None:
        os.kill(self._process.pid, signal.SIGTERM)
        assert self._process.wait(timeout=15) == 0
        assert not re.search(r"Traceback|Warning|\[(WARNING|ERROR|CRITICAL)\]", self._process.errors), (
            self._process.errors
        )


@pytest.mark.parametrize("how", ["fork", "multiprocess", "in_a_loop"])
def test_children_see_what_joins_after_the_fork_and_leave_the_parent_as_it_was(
    scene: Scene, how: str
) -> None:
    parent = scene.start(how)
    parent.fork(children=2)
    newcomer = scene.join()
    parent.assert_children_see(newcomer, children=2)
    if how == "fork":
        assert parent.process.output.count("\nregistered ") == 2, "the children were registered too"
        assert not scene.raw.instances("child"), "and gave their own leases back when they ended"
    parent.assert_unharmed()
    parent.assert_renews()
    parent.assert_ends_in_order()


def test_a_child_that_goes_on_with_an_iterator_of_its_parent_sees_what_joins_after_the_fork(
    scene: Scene,
) -> None:
    parent = scene.start("fork_in_an_iteration")
    parent.fork(children=1)
    newcomer = scene.join()
    parent.assert_children_see(newcomer, children=1)
    parent.assert_ends_in_order()


def test_nobody_hangs_when_the_fork_comes_in_the_middle_of_calls_of_other_threads(scene: Scene) -> None:
    parent = scene.start("fork_while_calling")
    parent.fork(children=6)
    parent.assert_children_end(count=6)
    assert parent.codes == [0] * 6
    parent.assert_unharmed()
    parent.assert_ends_in_order()


def test_a_child_without_the_fork_hook_would_stay_with_what_its_parent_knew(scene: Scene) -> None:
    """The negative control."""
    parent = scene.start("fork", without="fork-reset", patience=2.0)
    parent.fork(children=2)
    newcomer = scene.join()
    # They give up, fall over what their sibling left on the connection that they share, or wait for what it has read.
    with pytest.raises(AssertionError, match=r"all children have ended|== \[0, 0\]"):
        parent.assert_children_see(newcomer, children=2, within=5)
    assert newcomer not in parent.seen_by(0) | parent.seen_by(1)
    parent.process.kill()


def test_a_child_that_closed_what_it_inherited_would_make_its_parent_deaf(scene: Scene) -> None:
    """The negative control: the child's epoll is the parent's."""
    parent = scene.start("fork", without="abandoning")
    parent.fork(children=2)
    scene.join()
    parent.assert_children_end(count=2)
    with pytest.raises(AssertionError, match="the parent sees a newcomer"):
        parent.assert_unharmed(within=2)


def test_a_child_that_took_the_registration_for_its_own_would_hang(scene: Scene) -> None:
    """The negative control."""
    parent = scene.start("fork", without="ownership")
    parent.fork(children=2)
    newcomer = scene.join()
    eventually(lambda: newcomer in parent.seen_by(0) & parent.seen_by(1), timeout=20, what="both have called")
    with pytest.raises(AssertionError, match="all children have ended"):
        parent.assert_children_end(count=2, within=2)
    parent.process.kill()


def test_every_worker_of_a_preloaded_gunicorn_sees_what_joins_later(
    scene: Scene, raw: Raw, processes: Processes, url: str
) -> None:
    gunicorn = Gunicorn(processes, url)
    control = Gunicorn(processes, url, without="fork-reset", patience=1.0)
    (first,) = raw.instances("experiment")
    gunicorn.assert_all_see(first)
    control.ask()
    newcomer = scene.join()
    gunicorn.assert_all_see(first, newcomer)
    with pytest.raises(AssertionError, match="every worker sees them"):
        control.assert_all_see(first, newcomer, within=1)
    # The registration is the master's: it is nothing to it that a worker ends, and gone when the master does.
    (mine,) = (id for id, key in raw.instances("web").items() if json.loads(key.value)["pid"] == gunicorn.pid)
    gunicorn.end_a_worker()
    gunicorn.assert_all_see(first, newcomer)
    assert mine in raw.instances("web")
    gunicorn.assert_ends_in_order()
    assert mine not in raw.instances("web")
