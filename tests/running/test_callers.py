"""Callers say that they are there, and what they know, for as long as they are."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discoclient import AsyncDiscoClient, DiscoClient, Instance, NoInstances
from discoclient.dev import EtcdCluster, EtcdFailed, EtcdRefused
from discoclient.registry.codec import encode
from tests.cli.web import Web
from tests.conftest import ELECTION, HEARTBEAT
from tests.running.keys import Keys
from tests.running.stage import PROGRAMS, SLOW
from tests.support.eventually import eventually
from tests.support.processes import Processes, PythonProcess


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as running:
        yield running


class CallerProcess:
    """`programs/caller.py`, which has called when this is made."""

    def __init__(self, processes: Processes, url: str, folder: Path, *, kind: str = "sync") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        program = PROGRAMS / "caller.py"
        self.process: PythonProcess = processes.python(program, kind, folder, env={"DISCO_REGISTRY": url})
        words = self.process.wait_for_line("got ", timeout=SLOW).split()
        assert words[2] == "200"
        self.revision = int(words[4])

    @property
    def pid(self) -> int:
        return self.process.pid

    def touch(self, name: str) -> None:
        (self.folder / name).touch()


def presence(keys: Keys, pid: int | None = None) -> dict[str, Any] | None:
    """What the process with that pid (or the only one) says of itself, if anything."""
    found = [value for value, _ in keys.clients().values() if pid is None or value["pid"] == pid]
    assert len(found) <= 1, "one key for each process and service"
    return found[0] if found else None


def test_a_caller_is_there_before_it_knows_whom_to_call(
    processes: Processes, keys: Keys, registry_url: str, web: Web, tmp_path: Path
) -> None:
    """Its first call goes by a list that is not older than its presence: whoever drains can't have missed it."""
    keys.add("experiment", port=web.port)
    caller = CallerProcess(processes, registry_url, tmp_path / "caller")
    ((id, (value, key)),) = keys.clients().items()
    assert caller.revision >= key.create_revision
    assert value == {
        "v": 1,
        "id": id,
        "pid": caller.pid,
        "hostname": socket.gethostname(),
        "kind": "sdk",
        "applied": value["applied"],
        "busy": {},
    }
    assert type(value["applied"]) is int
    assert len(id) >= 8
    assert 0 < keys.time_to_live(key.lease) <= 30
    assert len(key.value) < 4096

    # As it learns of something it says so.
    new = keys.add("experiment", port=web.port)
    revision = keys.instances("experiment")[new.id].mod_revision
    keys.drain(new)
    drained = keys.instances("experiment")[new.id].mod_revision
    assert drained > revision
    eventually(lambda: (presence(keys) or {})["applied"] >= drained, timeout=5.0)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("end", ["end", "fall", "SIGINT"])
def test_a_caller_that_ends_is_gone_at_once_with_its_lease(
    processes: Processes, keys: Keys, registry_url: str, web: Web, tmp_path: Path, kind: str, end: str
) -> None:
    keys.add("experiment", port=web.port)
    caller = CallerProcess(processes, registry_url, tmp_path / "caller", kind=kind)
    ((_, key),) = keys.clients().values()
    if end == "SIGINT":
        caller.process.signal(signal.SIGINT)
        caller.touch("end")  # a thread of the async one waits for it
    else:
        caller.touch(end)
    began = time.monotonic()
    caller.process.wait(timeout=SLOW)
    assert keys.clients() == {}
    assert keys.time_to_live(key.lease) == -1
    assert time.monotonic() - began < 5.0


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_a_caller_that_is_killed_is_gone_with_its_lease_that_nobody_renews(
    processes: Processes, keys: Keys, registry_url: str, web: Web, tmp_path: Path
) -> None:
    """And one beside it that lives is not: the control."""
    keys.add("experiment", port=web.port)
    killed, control = (CallerProcess(processes, registry_url, tmp_path / name) for name in "ab")
    leases = {value["pid"]: key.lease for value, key in keys.clients().values()}
    assert len(set(leases.values())) == 2, "a lease for each process"
    granted = keys.time_to_live(leases[killed.pid])
    killed.process.kill()
    eventually(lambda: presence(keys, killed.pid) is None, timeout=granted + 5.0)
    assert presence(keys, control.pid) is not None
    assert keys.time_to_live(leases[control.pid]) > granted / 2


def test_a_process_has_one_lease_and_a_key_for_each_service(keys: Keys, registry_url: str, web: Web) -> None:
    for service in ("experiment", "ledger"):
        keys.add(service, port=web.port)
    with (
        DiscoClient("experiment", registry=registry_url) as first,
        DiscoClient("experiment", registry=registry_url) as second,
        DiscoClient("ledger", registry=registry_url) as other,
    ):
        for client in (first, second, other):
            assert client.get("/").status_code == 200
        ((_, key),) = keys.clients("experiment").values()
        ((_, beside),) = keys.clients("ledger").values()
        assert key.lease == beside.lease


async def test_an_async_caller_is_there_too(keys: Keys, registry_url: str, web: Web) -> None:
    keys.add("experiment", port=web.port)
    async with AsyncDiscoClient("experiment", registry=registry_url) as client:
        response = await client.get("/")
        ((value, key),) = keys.clients().values()
        assert response.extensions["disco"].revision >= key.create_revision
        assert value["kind"] == "sdk"


def test_a_body_that_is_not_read_to_its_end_is_still_under_way(
    keys: Keys, registry_url: str, web: Web
) -> None:
    instance = keys.add("experiment", port=web.port)
    with DiscoClient("experiment", registry=registry_url) as client:
        with client.stream("GET", "/"):
            keys.drain(instance)
            drained = keys.instances("experiment")[instance.id].mod_revision
            eventually(lambda: (presence(keys) or {})["applied"] >= drained, timeout=SLOW)
            told = presence(keys)
            assert told is not None
            assert told["busy"] == {instance.id: 1}
        eventually(lambda: (presence(keys) or {})["busy"] == {}, timeout=5.0)


def test_many_changes_are_acknowledged_by_a_few_writes(keys: Keys, registry_url: str, web: Web) -> None:
    """At most two a second, however much happens."""
    keys.add("experiment", port=web.port)
    with DiscoClient("experiment", registry=registry_url) as client:
        client.get("/")
        began = time.monotonic()
        instances = [keys.add("experiment", port=web.port) for _ in range(20)]
        for instance in instances:
            keys.drain(instance)
        last = max(found.mod_revision for found in keys.instances("experiment").values())
        eventually(lambda: (presence(keys) or {})["applied"] >= last, timeout=SLOW)
        took = time.monotonic() - began
    writes = [event for event in keys.history() if "/clients/" in event.key and event.value is not None]
    assert len(writes) <= 2 + 1 + 2 * took


def seconds_to_acknowledge(keys: Keys, web: Web) -> float:
    """How long it takes until the caller says that it knows of a drain."""
    instance = keys.add("experiment", port=web.port)
    keys.drain(instance)
    drained = keys.instances("experiment")[instance.id].mod_revision
    began = time.monotonic()
    eventually(lambda: (presence(keys) or {})["applied"] >= drained, timeout=SLOW)
    return time.monotonic() - began


def test_a_drain_is_acknowledged_within_a_second(keys: Keys, registry_url: str, web: Web) -> None:
    keys.add("experiment", port=web.port)
    with DiscoClient("experiment", registry=registry_url) as client:
        client.get("/")
        assert min(seconds_to_acknowledge(keys, web) for _ in range(3)) < 1.0


def test_what_was_acknowledged_is_not_called_and_its_connections_are_closed(
    keys: Keys, registry_url: str, web: Web
) -> None:
    """The answer to ``applied`` is a promise: it is looked at the moment it is seen."""
    instance = keys.add("experiment", port=web.port)
    with DiscoClient("experiment", registry=registry_url) as client:
        assert client.get("/").status_code == 200
        assert connections_to(web.port) > 0
        keys.drain(instance)
        drained = keys.instances("experiment")[instance.id].mod_revision
        eventually(lambda: (presence(keys) or {})["applied"] >= drained, timeout=SLOW)
        assert connections_to(web.port) == 0
        with pytest.raises(NoInstances):
            client.get("/")


def test_a_presence_that_was_taken_away_is_put_back(keys: Keys, registry_url: str, web: Web) -> None:
    """Whoever still calls has to be known: its lease was revoked, or somebody deleted its key."""
    keys.add("experiment", port=web.port)
    with DiscoClient("experiment", registry=registry_url) as client:
        client.get("/")
        ((_, key),) = keys.clients().values()
        keys.revoke(key.lease)
        eventually(lambda: presence(keys), timeout=10.0, what="it is known again")
        ((_, again),) = keys.clients().values()
        assert again.lease != key.lease
        assert client.get("/").status_code == 200


def test_what_was_known_of_a_registry_that_was_wiped_acknowledges_nothing_in_the_new_one(
    etcd_node: EtcdCluster, web: Web
) -> None:
    """Its revisions begin again: a number from before would be a promise about drains that nobody has seen."""
    url = etcd_node.registry_url
    keys = Keys(etcd_node, url)
    keys.add("experiment", port=web.port)
    with DiscoClient("experiment", registry=url) as client:
        client.get("/")
        for _ in range(10):
            keys.drain(keys.add("experiment", port=web.port))
        last = max(found.mod_revision for found in keys.instances("experiment").values())
        eventually(lambda: (presence(keys) or {})["applied"] >= last, timeout=SLOW)

        etcd_node.wipe_and_restart()
        keys = Keys(etcd_node, url)
        first = keys.add("experiment", port=web.port)
        eventually(lambda: presence(keys), timeout=20.0, what="it is there again")
        keys.drain(first)
        drained = keys.instances("experiment")[first.id].mod_revision
        assert drained < last
        eventually(lambda: (presence(keys) or {})["applied"] >= drained, timeout=SLOW)
    for event in keys.history():
        if "/clients/" in event.key and event.value is not None:
            assert event.value["applied"] <= event.revision, "it can't know what has not happened"


def test_a_forked_child_speaks_for_itself(
    processes: Processes, keys: Keys, registry_url: str, web: Web, tmp_path: Path
) -> None:
    keys.add("experiment", port=web.port)
    caller = CallerProcess(processes, registry_url, tmp_path / "caller")
    caller.touch("fork")
    child = int(caller.process.wait_for_line("forked ", timeout=SLOW).split()[1])
    found = {value["pid"]: key for value, key in keys.clients().values()}
    assert set(found) == {caller.pid, child}
    assert found[child].lease != found[caller.pid].lease
    caller.touch("end")
    assert caller.process.wait(timeout=SLOW) == 0
    eventually(lambda: keys.clients() == {}, timeout=SLOW)


def test_a_caller_whose_presence_is_switched_off_is_not_there(
    keys: Keys, registry_url: str, web: Web
) -> None:
    keys.add("experiment", port=web.port)
    with DiscoClient("experiment", registry=f"{registry_url}?presence=0") as client:
        assert client.get("/").status_code == 200
        instance = keys.add("experiment", port=web.port)
        keys.drain(instance)
        assert client.get("/").status_code == 200
    assert not any("/clients/" in event.key for event in keys.history())


# ---- who may not say that he is there

ROOT, READER = "root:of-all", "reader:may-look"


@pytest.fixture(scope="module")
def guarded() -> Iterator[EtcdCluster]:
    """Where ``reader`` may read what is registered, and write nothing."""
    flags = ["--bcrypt-cost=4"]
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, extra_args=flags) as cluster:
        for user in (ROOT, READER):
            name = user.partition(":")[0]
            cluster.etcdctl("user", "add", user)
            cluster.etcdctl("role", "add", name)
            cluster.etcdctl("user", "grant-role", name, name)
        cluster.etcdctl("role", "grant-permission", "--prefix=true", "reader", "read", "/disco/v1/services/")
        cluster.etcdctl("auth", "enable")
        yield cluster


def test_calls_go_on_where_presence_may_not_be_written(
    guarded: EtcdCluster, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    instance = Instance(service="experiment", id="a" * 16, host="127.0.0.1", port=web.port)
    lease = guarded.etcdctl("--user", ROOT, "lease", "grant", "600").split()[1]
    key = f"/disco/v1/services/experiment/{instance.id}"
    guarded.etcdctl("--user", ROOT, "put", f"--lease={lease}", key, encode(instance).decode())
    url = guarded.registry_url.replace("://", f"://{READER}@")
    began = time.monotonic()
    with DiscoClient("experiment", registry=url) as client:
        assert client.get("/").status_code == 200
        assert time.monotonic() - began < 3.0, "and is not waited for long"
        second = Instance(service="experiment", id="b" * 16, host="127.0.0.1", port=web.port)
        guarded.etcdctl(
            "--user",
            ROOT,
            "put",
            f"--lease={lease}",
            key.replace("a" * 16, second.id),
            encode(second).decode(),
        )
        seen: set[str] = set()

        def both() -> bool:
            seen.add(client.get("/").extensions["disco"].instance.id)
            return len(seen) == 2

        eventually(both, timeout=SLOW, what="it goes on learning")
    assert guarded.etcdctl("--user", ROOT, "get", "--prefix", "/disco/v1/clients/") == ""
    told = [each for each in caplog.records if "presence" in each.getMessage().lower()]
    assert len(told) <= 3, "said, and not over and over"


def test_calls_go_on_where_the_registry_is_full(web: Web) -> None:
    flags = [f"--quota-backend-bytes={128 * 1024}"]
    with EtcdCluster(nodes=1, heartbeat=HEARTBEAT, election=ELECTION, extra_args=flags) as full:
        keys = Keys(full, full.registry_url)
        keys.add("experiment", port=web.port)
        with pytest.raises((EtcdRefused, EtcdFailed), match="space exceeded"):
            for number in range(100):
                keys.put(f"/junk/{number}", b"x" * 16_000)
        began = time.monotonic()
        with DiscoClient("experiment", registry=full.registry_url) as client:
            assert client.get("/").status_code == 200
        assert time.monotonic() - began < 5.0
        assert keys.clients() == {}


def connections_to(port: int) -> int:
    """Established connections to 127.0.0.1:*port*, seen from the side that opened them."""
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2] == wanted and line.split()[3] == "01" for line in lines)
