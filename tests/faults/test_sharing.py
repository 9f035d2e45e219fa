"""One watch per host: what etcd sees of many workers, and what they know when the one that watches for them fails."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from discoclient import State
from discoclient.dev import EtcdCluster
from discoclient.registry.address import RegistryAddress
from discoclient.registry.etcd.registry import EtcdRegistry
from discoclient.registry.presence import Presence, decode_presence
from discoclient.registry.protocol import Listing
from discoclient.registry.sharing.rounds import Rounds
from tests.conftest import ELECTION, HEARTBEAT
from tests.faults.harness import PROGRAMS, assert_sees, look
from tests.faults.raw import Raw
from tests.sidecar.stage import Sidecar
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess
from tests.support.proxy import FaultProxy

WORKERS = 8
LENDS = "watches for this host"
BORROWS = "shared by pid"


@pytest.fixture(scope="module")
def node() -> Iterator[EtcdCluster]:
    """A node of this file's own: the watches on it are counted."""
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION) as cluster:
        yield cluster


@pytest.fixture
def url(node: EtcdCluster) -> str:
    return f"{node.registry_url}/t/{uuid.uuid4().hex}?share=1"


@pytest.fixture
def raw(node: EtcdCluster, url: str) -> Raw:
    return Raw(node, url)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where they meet, by a short path. Nothing is left there."""
    short = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    yield short / "discoclient"
    assert not (short / "discoclient").exists(), "nothing is left behind"


@pytest.fixture(autouse=True)
def nobody_watches(node: EtcdCluster) -> None:
    eventually(lambda: watches(node) == 0, what="what another test left has ended")


def watches(node: EtcdCluster) -> int:
    """How many etcd has."""
    with urllib.request.urlopen(f"http://127.0.0.1:{node.members[0].client_port}/metrics", timeout=5) as told:
        found = re.search(r"^etcd_debugging_mvcc_watcher_total (\d+)$", told.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


class Worker:
    """`programs/borrowing.py`."""

    def __init__(self, process: PythonProcess) -> None:
        self.process = process

    def last(self, what: str) -> str:
        lines = [line for line in self.process.output.splitlines() if line.startswith(f"{what} ")]
        return lines[-1].partition(" ")[2] if lines else ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def standing(self) -> str:
        return self.last("stands")

    @property
    def lends(self) -> bool:
        return self.standing.startswith(LENDS)

    @property
    def is_live(self) -> bool:
        return self.last("phase") == "live"

    @property
    def known(self) -> set[str]:
        return set(filter(None, self.last("knows").split(",")))

    @property
    def was_empty(self) -> bool:
        """Whether it ever knew nothing, after it had known something."""
        return "knows " in self.process.output.splitlines() or "knows" in self.process.output.splitlines()


class Crew:
    """Workers on one host, that call one service."""

    def __init__(self, processes: Processes, raw: Raw, node: EtcdCluster, url: str) -> None:
        self._processes = processes
        self._node = node
        self._url = url
        self.raw = raw
        self.workers: list[Worker] = []
        self.first = raw.add("experiment").id

    def start(self, count: int = WORKERS, *, url: str = "", without: str = "", **options: Any) -> None:
        arguments = [*(["--without", without] if without else []), *options.pop("arguments", [])]
        started = [
            Worker(
                self._processes.python(
                    PROGRAMS / "borrowing.py",
                    "experiment",
                    *arguments,
                    env={"DISCO_REGISTRY": url or self._url, **options.get("env", {})},
                )
            )
            for _ in range(count)
        ]
        for worker in started:
            worker.process.wait_for_line("ready", timeout=40)
        self.workers += started

    @property
    def watches(self) -> int:
        return watches(self._node)

    @property
    def lender(self) -> Worker:
        def only() -> Worker | None:
            found = [worker for worker in self.workers if worker.lends]
            return found[0] if len(found) == 1 else None

        found = eventually(only, what="one of them lends")
        assert found is not None
        return found

    @property
    def borrowers(self) -> list[Worker]:
        lender = self.lender
        return [worker for worker in self.workers if worker is not lender]

    def wait_shared(self, *, timeout: float = 10.0, others: int = 0) -> None:
        """*others*: watches at etcd that are not theirs."""

        def is_shared() -> bool:
            lenders = [worker for worker in self.workers if worker.lends]
            borrowing = [worker for worker in self.workers if worker.standing.startswith(BORROWS)]
            assert len(lenders) == 1
            assert all(worker.standing == f"{BORROWS} {lenders[0].pid}" for worker in borrowing)
            assert len(borrowing) == len(self.workers) - 1
            assert all(worker.is_live for worker in self.workers)
            return self.watches == 1 + others

        eventually(is_shared, timeout=timeout, what="they have one watch")

    def add(self) -> str:
        return self.raw.add("experiment").id

    def assert_know(self, id: str, workers: list[Worker] | None = None, *, within: float = 5.0) -> None:
        for worker in self.workers if workers is None else workers:
            eventually(lambda worker=worker: id in worker.known, timeout=within, what=f"{worker.pid} knows")  # type: ignore[misc]

    def assert_never_empty(self) -> None:
        assert not any(worker.was_empty for worker in self.workers)

    def end(self, worker: Worker, how: Callable[[PythonProcess], Any] = PythonProcess.stop) -> None:
        how(worker.process)
        self.workers.remove(worker)

    def presences(self) -> dict[int, Presence]:
        """By pid."""
        prefix = self.raw.keys.clients("experiment")
        found = [
            decode_presence(each.value, id=each.key.removeprefix(prefix))
            for each in self.raw._range(prefix, None, False)
        ]
        return {each.pid or 0: each for each in found}


@pytest.fixture
def crew(folder: Path, processes: Processes, raw: Raw, node: EtcdCluster, url: str) -> Crew:
    """`folder` first: it looks whether something is left when all have ended."""
    return Crew(processes, raw, node, url)


def test_many_workers_are_one_watch_to_etcd(crew: Crew, folder: Path) -> None:
    crew.start()
    crew.wait_shared()
    assert len(list(folder.iterdir())) == 2
    crew.assert_know(crew.add())
    for worker in list(crew.workers):
        crew.end(worker)
    assert not folder.exists()


def test_without_the_option_each_worker_is_a_watch(crew: Crew, url: str, folder: Path) -> None:
    """The negative control."""
    crew.start(url=url.partition("?")[0])
    assert crew.watches == WORKERS
    assert not folder.exists()


# ---- the lender goes


@pytest.mark.parametrize("how", [PythonProcess.stop, PythonProcess.kill], ids=["exits", "killed"])
def test_when_who_watches_for_all_is_gone_another_one_does(
    crew: Crew, how: Callable[[PythonProcess], Any]
) -> None:
    crew.start(4)
    crew.wait_shared()
    for _ in range(2):
        crew.end(crew.lender, how)
        crew.assert_know(crew.add(), within=2.0)
        crew.wait_shared()
    crew.assert_never_empty()


def test_what_the_last_one_left_when_it_was_killed_does_no_harm(crew: Crew, folder: Path) -> None:
    crew.start(1)
    crew.end(crew.lender, PythonProcess.kill)
    assert len(list(folder.iterdir())) == 2
    crew.start(2)
    crew.wait_shared()


@pytest.mark.parametrize("without", ["", "lenders-silence"], ids=["heeded", "control"])
def test_who_watches_for_all_and_is_stopped_does_not_stop_the_others(crew: Crew, without: str) -> None:
    crew.start(3, without=without)
    crew.wait_shared()
    stopped, others = crew.lender, crew.borrowers
    stopped.process.pause()
    newcomer = crew.add()
    if without:
        with pytest.raises(AssertionError, match="knows"):
            crew.assert_know(newcomer, others, within=6.0)
    else:
        crew.assert_know(newcomer, others, within=6.0)
        assert all(worker.standing.startswith("watches alone") for worker in others)
        assert "nothing was heard of process" in others[0].process.errors
    stopped.process.resume()
    crew.assert_know(newcomer, within=10.0)
    crew.assert_never_empty()
    if not without:
        crew.wait_shared(timeout=20.0)


def test_a_worker_that_is_stopped_holds_up_nobody_and_catches_up(crew: Crew) -> None:
    crew.start(3)
    crew.wait_shared()
    slow = crew.borrowers[0]
    slow.process.pause()
    for _ in range(200):
        newest = crew.add()
    crew.assert_know(newest, [worker for worker in crew.workers if worker is not slow])
    slow.process.resume()
    crew.assert_know(newest)
    crew.wait_shared()


@pytest.mark.parametrize("without", ["", "kept-from-children"], ids=["given up", "control"])
def test_a_forked_child_does_not_hold_on_to_what_its_parent_had(crew: Crew, without: str) -> None:
    """A lock is held, and a connection stands, for as long as any process has it open."""
    crew.start(1, without=without)
    parent = crew.lender
    crew.start(2)
    crew.wait_shared()
    parent.process.signal(signal.SIGUSR1)
    child = int(parent.process.wait_for_line("forked").split()[1])
    try:
        crew.assert_know(crew.add())
        os.kill(parent.pid, signal.SIGKILL)  # and not its children, as `Processes` would
        crew.end(parent, PythonProcess.wait)
        # To etcd the killed parent still watches: its child has its connection, as every forked child has, and never uses it.
        if without:
            with pytest.raises(AssertionError):
                crew.wait_shared(timeout=2.5, others=1)
        else:
            crew.wait_shared(timeout=2.5, others=1)
        crew.assert_know(crew.add(), within=8.0)
    finally:
        os.kill(child, signal.SIGKILL)
    if without:
        crew.wait_shared(timeout=15.0)


@pytest.mark.parametrize("fault", ["cut", "blackhole"])
def test_when_who_watches_for_all_is_cut_off_the_others_go_on(
    node: EtcdCluster, url: str, raw: Raw, folder: Path, fault: str
) -> None:
    """Two processes' worth in one, of which one reaches etcd by another way, that can be cut."""
    first = raw.add("experiment")
    with FaultProxy("127.0.0.1", node.members[0].client_port) as proxy:
        way = EtcdRegistry(RegistryAddress.parse(f"etcd://{proxy.address}"), rng=Random(1))

        def go_by_the_proxy(registry: Any) -> None:
            registry.own = registry._link._registry = way

        with look(url, without=go_by_the_proxy) as lending, ExitStack() as stack:
            lending.wait_live()
            other = stack.enter_context(look(url))
            other.wait_live()
            assert lending.registry.standing.startswith(LENDS)
            assert other.registry.standing.startswith(BORROWS)
            getattr(proxy, fault)()
            newcomer = raw.add("experiment")
            assert_sees(other, newcomer, within=15.0)
            assert newcomer.id not in lending.ids
            assert first.id in lending.ids, "an old answer beats none"
            proxy.heal()
            assert_sees(lending, newcomer, within=15.0)
            eventually(lambda: other.registry.standing.startswith(BORROWS), timeout=20.0)
            eventually(lambda: watches(node) == 1, timeout=5.0)
            assert not any(not snapshot.by_id for snapshot in [*lending.snapshots, *other.snapshots])


def test_etcd_restarts_and_is_compacted_meanwhile(crew: Crew, node: EtcdCluster) -> None:
    crew.start(3)
    crew.wait_shared()
    for _ in range(3):
        node.members[0].kill()
        node.members[0].start()
        node.wait_healthy()
        newcomer = crew.add()
        node.compact()
        crew.assert_know(newcomer, within=10.0)
    crew.wait_shared(timeout=20.0)
    crew.assert_never_empty()


# ---- a drain


def test_each_worker_acknowledges_a_drain_for_itself(crew: Crew, raw: Raw) -> None:
    leaving, last = raw.add("experiment"), raw.add("experiment")
    crew.start()
    crew.wait_shared()
    pids = {worker.pid for worker in crew.workers}
    assert set(crew.presences()) == pids
    assert len({found.id for found in crew.presences().values()}) == WORKERS

    raw.drain(leaving)
    revision = raw.instances("experiment")[leaving.id].mod_revision
    eventually(
        lambda: all(found.has_left(leaving.id, revision) for found in crew.presences().values()),
        what="all have acknowledged",
    )
    # The negative control: nobody speaks for who is stopped, though all that it will know was sent to it.
    stopped = crew.borrowers[-1]
    stopped.process.pause()
    raw.drain(last)
    revision = raw.instances("experiment")[last.id].mod_revision
    eventually(
        lambda: sum(found.applied >= revision for found in crew.presences().values()) == WORKERS - 1,
        what="the others have",
    )
    assert not crew.presences()[stopped.pid].has_left(last.id, revision)
    stopped.process.resume()
    eventually(lambda: crew.presences()[stopped.pid].has_left(last.id, revision), timeout=10.0)


def test_while_the_lender_is_stopped_the_others_acknowledge(crew: Crew, raw: Raw) -> None:
    leaving = raw.add("experiment")
    crew.start(3)
    crew.wait_shared()
    stopped, others = crew.lender, crew.borrowers
    stopped.process.pause()
    raw.drain(leaving)
    revision = raw.instances("experiment")[leaving.id].mod_revision
    eventually(
        lambda: all(crew.presences()[each.pid].has_left(leaving.id, revision) for each in others), timeout=8.0
    )
    found = crew.presences().get(stopped.pid)
    assert found is None or not found.has_left(leaving.id, revision)
    stopped.process.resume()


async def _careless(self: Rounds, key: Any, question: Any) -> Any:
    """Whoever comes while a question is under way gets its answer."""
    running: Any = self._running.get(key)
    if running is not None:
        return await asyncio.shield(running)
    return await _ask(self, key, question)


_ask = Rounds.ask


@pytest.mark.parametrize("careful", [True, False], ids=["shared", "control"])
def test_who_is_announced_after_a_drain_never_picks_what_drains(
    url: str, raw: Raw, folder: Path, careful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who drains has seen no presence of it, and waits for nobody. So its first list has to be newer than its presence, and
    not that of another worker, which was under way before.
    """
    if not careful:
        monkeypatch.setattr(Rounds, "ask", _careless)
    leaving = raw.add("experiment")
    gate: list[asyncio.Event] = []
    with look(url) as lending:
        lending.wait_live()
        own, is_read = lending.registry.own, []
        plain = own.list

        async def held(range: str, *, serializable: bool = False) -> Listing:
            found = await plain(range, serializable=serializable)
            if not gate:
                gate.append(asyncio.Event())
                is_read.append(found.revision)
                await gate[0].wait()
            return found

        own.list = held
        background, range = lending.hub.background, raw.keys.service("experiment")
        early = background.submit(lending.registry.list(range))
        eventually(lambda: is_read, what="a list of somebody's is under way")
        raw.drain(leaving)
        drained = raw.instances("experiment")[leaving.id].mod_revision
        with look(url) as late:

            def find() -> int:
                """When its presence was written, which is not the first one."""
                found = raw._range(raw.keys.clients("experiment"), None, False)
                return max(key.create_revision for key in found) if len(found) == 2 else 0

            announced = eventually(find, what="it is announced")
            rounds = lending.registry._link._source._rounds
            wanted = rounds._next if careful else rounds._running
            eventually(lambda: wanted, what="it has asked for its first list")
            time.sleep(0.05 if not careful else 0)  # for the control there is nothing to see of who shares
            background.post(gate[0].set)
            late.wait_live()
            assert early.result(5.0).revision == is_read[0] < drained
            first = late.snapshots[0]
            if careful:
                assert first.revision >= announced > drained
                assert first.by_id[leaving.id].state is State.DRAINING
            else:
                assert first.revision < drained
                assert first.by_id[leaving.id].state is State.READY


# ---- gunicorn


@pytest.mark.parametrize(
    ("options", "env"),
    [([], {}), (["--preload"], {}), (["--preload"], {"USED_BEFORE": "1"})],
    ids=["plain", "preload", "preload and used before"],
)
def test_gunicorns_workers_share(
    folder: Path,
    processes: Processes,
    node: EtcdCluster,
    url: str,
    raw: Raw,
    options: list[str],
    env: dict[str, str],
) -> None:
    raw.add("experiment")
    gunicorn = processes.python(
        *("-m", "gunicorn", "--workers=3", "--graceful-timeout=2", "--bind=127.0.0.1:0", *options),
        "tests.faults.programs.sharing_app:app",
        env={"DISCO_REGISTRY": url, **env},
    )
    told: dict[int, dict[str, Any]] = {}

    def ask() -> None:
        at = re.search(r"Listening at: (http://\S+)", gunicorn.errors)
        assert at is not None

        def get() -> None:
            try:
                found = httpx.get(at[1], timeout=5.0, trust_env=False).raise_for_status().json()
            except httpx.HTTPError:
                return
            told[found["pid"]] = found

        with ThreadPoolExecutor(8) as pool:
            for asked in [pool.submit(get) for _ in range(8)]:
                asked.result()

    def share() -> bool:
        ask()
        lenders = [pid for pid, each in told.items() if each["standing"].startswith(LENDS)]
        borrow = [each for each in told.values() if each["standing"].startswith(BORROWS)]
        if env:  # the master was first
            assert lenders == []
            assert all(each["standing"] == f"{BORROWS} {gunicorn.pid}" for each in borrow)
        else:
            assert len(lenders) == 1
        return len(told) == 3 == len(borrow) + len(lenders) and watches(node) == 1

    eventually(share, timeout=30.0, what="the workers share")
    newcomer = raw.add("experiment").id

    def all_know() -> bool:
        ask()
        return all(newcomer in each["known"] for each in told.values())

    eventually(all_know, timeout=10.0, what="all know a newcomer")
    if not env:
        lender = next(pid for pid, each in told.items() if each["standing"].startswith(LENDS))
        os.kill(lender, signal.SIGKILL)
        del told[lender]
        eventually(share, timeout=20.0, what="they share again, and a new one with them")
    gunicorn.signal(signal.SIGTERM)
    assert gunicorn.wait(timeout=15) == 0
    assert "Traceback" not in gunicorn.errors


def test_a_sidecar_lends_to_workers_and_says_what_it_is(crew: Crew, url: str) -> None:
    with Sidecar(url) as sidecar:
        assert httpx.get(f"http://127.0.0.1:{sidecar.service_port}/", trust_env=False).status_code == 502
        eventually(lambda: crew.watches == 1, what="the sidecar watches")
        crew.start(2)
        assert crew.watches == 1
        assert {worker.standing for worker in crew.workers} == {f"{BORROWS} {sidecar.process.pid}"}
        crew.assert_know(crew.add())
        assert sorted(found.kind for found in crew.presences().values()) == ["sdk", "sdk", "sidecar"]
    crew.wait_shared()
    crew.assert_know(crew.add())


# ---- who does not share


def test_a_folder_that_is_open_to_others_is_not_used(crew: Crew, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    crew.start(2)
    crew.assert_know(crew.add())
    assert crew.watches == 2
    for worker in crew.workers:
        assert worker.process.errors.count("is open to others: its mode is 0755, not 0700") == 1
    assert list(folder.iterdir()) == []
    folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_folder_of_another_user_is_not_used(crew: Crew, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, -1)
    crew.start(2)
    crew.assert_know(crew.add())
    assert crew.watches == 2
    assert "belongs to user 65534, and not to us" in crew.workers[0].process.errors
    os.chown(folder, 0, -1)
    folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_two_users_do_not_share(crew: Crew, tmp_path_factory: pytest.TempPathFactory) -> None:
    temporary = tmp_path_factory.getbasetemp().parent.parent
    env = {"XDG_RUNTIME_DIR": "", "TMPDIR": str(temporary)}
    crew.start(2, env=env)
    crew.start(2, env=env, arguments=["--uid", "65534"])
    assert crew.watches == 2
    assert [worker.lends for worker in crew.workers].count(True) == 2
    crew.assert_know(crew.add())
    for worker in list(crew.workers):
        crew.end(worker)
    assert not (temporary / "discoclient-65534").exists()


def test_two_registries_do_not_mix(crew: Crew, node: EtcdCluster, processes: Processes, url: str) -> None:
    crew.start(2)
    other_url = f"{node.registry_url}/t/{uuid.uuid4().hex}?share=1"
    other = Crew(processes, Raw(node, other_url), node, other_url)
    other.start(2)
    assert crew.watches == 2
    crew.assert_know(crew.add())
    other.assert_know(other.add())
    assert all(other.first not in worker.known for worker in crew.workers)
    assert all(crew.first not in worker.known for worker in other.workers)
