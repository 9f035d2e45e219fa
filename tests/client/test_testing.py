"""What users get to test code that uses the SDK: `discoclient.testing` and the fixture ``disco_registry``."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from discoclient import (
    DiscoClient,
    DiscoveryTimeout,
    Instance,
    NoInstances,
    State,
    connect,
    register,
    testing,
)
from discoclient.control.hub import fresh_hub, hub
from discoclient.registry.codec import encode
from discoclient.registry.happenings import WatchSettings
from discoclient.registry.memory import MemoryRegistry
from discoclient.registry.protocol import Batch
from discoclient.testing import TestRegistry, memory_registry
from tests.support.eventually import eventually
from tests.support.processes import Processes
from tests.support.servers import Servers


def test_what_is_added_is_found(servers: Servers) -> None:
    server = servers.start()
    with memory_registry() as registry:
        instance = registry.add(
            "experiment", port=server.port, version="2.4.1", zone="here", metadata={"a": 1}
        )
        assert DiscoClient("experiment").get("/").text == str(server.port)
        with connect() as handle:
            (found,) = handle.instances("experiment")
            assert handle.services() == ["experiment"]
        assert found == instance
        assert (found.version, found.zone, found.metadata["a"], found.host) == (
            "2.4.1",
            "here",
            1,
            "127.0.0.1",
        )


def test_a_record_can_be_put_anew(registry: TestRegistry) -> None:
    instance = registry.add("experiment", port=80)
    with connect() as handle:
        snapshots = handle.watch("experiment")
        assert next(snapshots).instances == (instance,)
        changed = registry.put(replace(instance, weight=5, state=State.UNREADY))
        assert next(snapshots).instances == (changed,)
        drained = registry.drain(changed)
        assert drained.state is State.DRAINING
        assert next(snapshots).instances == (drained,)
        registry.remove(drained)
        assert next(snapshots).instances == ()


def test_several_instances_leave_all_at_once(registry: TestRegistry) -> None:
    instances = [registry.add("experiment", port=port) for port in (80, 81, 82)]
    with connect() as handle:
        snapshots = handle.watch("experiment")
        before = next(snapshots)
        registry.expire(*instances)
        after = next(snapshots)
    assert (len(before), len(after)) == (3, 0)
    assert after.revision == before.revision + 1
    registry.remove(*instances)  # those that are gone already are no error


def test_who_is_removed_is_gone_and_who_expires_with_all_others_is_mistrusted(registry: TestRegistry) -> None:
    with Servers() as servers:
        pairs = [
            (registry.add("one", servers.start().port), registry.add("two", servers.start().port))
            for _ in "ab"
        ]
        with DiscoClient("one") as one, DiscoClient("two") as two:
            for client in (one, two):
                client.get("/")
            registry.remove(*(first for first, _ in pairs))
            registry.expire(*(second for _, second in pairs))
            with pytest.raises(NoInstances):
                one.get("/")
            assert two.get("/").status_code == 200, "they answer, whatever became of the registry"


def test_the_state_may_be_given_when_an_instance_is_added(registry: TestRegistry) -> None:
    registry.add("experiment", port=80, state=State.DRAINING)
    with DiscoClient("experiment") as client, pytest.raises(NoInstances, match="draining"):
        client.get("/")


def test_what_no_caller_would_accept_can_t_be_added_by_mistake(registry: TestRegistry) -> None:
    with pytest.raises(ValueError, match="port is out of range"):
        registry.add("experiment", port=0)
    with pytest.raises(TypeError):
        registry.add("experiment", port=80, wieght=3)


def test_anything_can_be_put_raw_as_a_broken_writer_would(registry: TestRegistry) -> None:
    good = registry.add("experiment", port=80)
    registry.put_raw("/disco/v1/services/experiment/broken-one", b"{")
    registry.put_raw("/disco/v1/services/experiment/no-lease-here", b"{}", has_lease=False)
    with connect() as handle:
        assert handle.instances("experiment") == [good]
        assert set(handle.resolver("experiment").skipped) == {
            "/disco/v1/services/experiment/broken-one",
            "/disco/v1/services/experiment/no-lease-here",
        }


def test_compaction_while_the_registry_is_away_is_survived(registry: TestRegistry) -> None:
    stays, goes = registry.add("experiment", port=80), registry.add("experiment", port=81)
    with connect() as handle:
        assert len(handle.instances("experiment")) == 2
        sizes = []
        resolver = handle.resolver("experiment")
        unsubscribe = resolver.subscribe(lambda: sizes.append(len(resolver.snapshot or ())))
        registry.set_down(True)
        registry.remove(goes)
        comes = registry.add("experiment", port=82)
        registry.compact()
        registry.set_down(False)
        eventually(lambda: set(handle.instances("experiment")) == {stays, comes}, timeout=20.0)
        unsubscribe()
        assert sizes == [2]  # one change, and the set never dipped


# ---- what was changed is known when the method returns

ROUNDS = 30  # a race that is lost half of the time is lost in one of them


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for what can't come waits until the test is given up."""
    monkeypatch.setattr(testing, "APPLY_TIMEOUT", 3600.0)


def test_the_next_call_goes_by_what_was_changed(registry: TestRegistry, servers: Servers) -> None:
    server = servers.start()
    with DiscoClient("experiment", vanish_grace=0) as client:
        for _ in range(ROUNDS):
            with pytest.raises(NoInstances):
                client.get("/")
            instance = registry.add("experiment", server.port)
            assert client.get("/").status_code == 200
            registry.drain(instance)
            with pytest.raises(NoInstances, match="draining"):
                client.get("/")
            registry.put(instance)
            assert client.get("/").status_code == 200
            registry.remove(instance)


def test_the_next_look_sees_what_was_changed(registry: TestRegistry) -> None:
    with connect() as handle, connect() as other:
        for number in range(ROUNDS):
            assert handle.instances("experiment") == other.instances("other") == []
            one, two = registry.add("experiment", 80), registry.add("other", 81)
            assert (handle.instances("experiment"), other.instances("other")) == ([one], [two])
            key = f"/disco/v1/services/experiment/{one.id}"
            registry.put_raw(key, b"{")
            assert handle.instances("experiment") == []
            registry.put_raw(f"{key}-{number}", b"[")
            assert f"{key}-{number}" in handle.resolver("experiment").skipped
            registry.remove(one, two)
            assert other.instances("other") == []


def test_a_registry_that_is_wiped_is_empty_at_once_and_what_is_added_then_is_known(
    registry: TestRegistry,
) -> None:
    """Its revisions begin anew: those who follow it know of higher ones, and must not be taken to be ahead."""
    with connect() as handle:
        for count in (5, 3, 0, 2):
            instances = {registry.add("experiment", 80 + number) for number in range(count)}
            assert set(handle.instances("experiment")) == instances
            assert handle.instances("other") == []
            registry.wipe()
            assert handle.instances("experiment") == []
            assert handle.snapshot("experiment").revision == 1


def test_whoever_looks_at_the_same_registry_by_another_url_sees_it_too(registry: TestRegistry) -> None:
    """The name says which registry it is; options and the prefix say how to look at it."""
    with connect(f"{registry.url}?hostnames=1") as named, connect(f"{registry.url}/other") as elsewhere:
        for _ in range(ROUNDS):
            assert named.instances("experiment") == elsewhere.instances("experiment") == []
            instance = registry.add("experiment", 80, host="localhost")
            assert named.instances("experiment") == [instance]
            key = f"/other/services/experiment/{instance.id}"
            registry.put_raw(key, encode(instance, hostnames=True))
            assert key in elsewhere.resolver("experiment").skipped  # host names are not for this one
            registry.remove(instance)


def test_who_registers_himself_is_back_after_a_wipe(registry: TestRegistry) -> None:
    with connect() as handle, register("experiment", 8000, ttl=2, quiet=0) as registration:
        assert handle.instances("experiment") == [registration.instance]
        registry.wipe()
        eventually(lambda: handle.instances("experiment") == [registration.instance], timeout=20.0)


def test_while_the_registry_is_down_nobody_is_waited_for(registry: TestRegistry, patient: None) -> None:
    stays = registry.add("experiment", 80)
    with connect() as handle:
        assert handle.instances("experiment") == [stays]
        registry.set_down(True)
        registry.add("experiment", 81)
        registry.remove(stays)
        registry.wipe()
        registry.add("experiment", 82)
        assert handle.instances("experiment") == [stays]


def test_after_the_registry_was_down_the_next_change_is_waited_for(registry: TestRegistry) -> None:
    """Those who follow it come back by themselves, in a moment."""
    with connect() as handle:
        old = [registry.add("experiment", 80 + number) for number in range(5)]
        assert len(handle.instances("experiment")) == 5
        registry.set_down(True)
        eventually(lambda: handle.resolver("experiment").phase == "suspect")
        registry.remove(*old)
        registry.set_down(False)
        new = registry.add("experiment", 90)
        assert handle.instances("experiment") == [new]


def test_after_a_wipe_while_the_registry_was_down_the_next_change_is_waited_for(
    registry: TestRegistry,
) -> None:
    with connect() as handle:
        for number in range(5):
            registry.add("experiment", 80 + number)
        assert len(handle.instances("experiment")) == 5
        registry.set_down(True)
        eventually(lambda: handle.resolver("experiment").phase == "suspect")
        registry.wipe()
        registry.set_down(False)
        new = registry.add("experiment", 90)
        assert handle.instances("experiment") == [new]


def test_a_change_that_does_not_concern_them_keeps_nobody_waiting(
    registry: TestRegistry, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISCO_OVERRIDE_LEDGER", "http://127.0.0.1:3000")
    with connect() as handle:
        assert handle.instances("experiment") == []
        assert len(handle.instances("ledger")) == 1
        gone = registry.add("other", 80)
        for _ in range(2):
            registry.remove(gone)
        registry.add("ledger", 81)
        registry.add("experiment-2", 82)
        registry.put_raw("/disco/v1/services/experiment", b"{}")
        registry.put_raw("/elsewhere", b"")
        registry.remove()
        registry.compact()
        assert handle.instances("experiment") == []
        assert [instance.port for instance in handle.instances("ledger")] == [3000]


def test_who_is_not_told_is_not_waited_for_for_ever(
    registry: TestRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mute(self: MemoryRegistry, range: str, *, after: int) -> AsyncIterator[Batch]:
        yield Batch(after)
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(MemoryRegistry, "watch", mute)
    monkeypatch.setattr(testing, "APPLY_TIMEOUT", 0.05)
    with connect() as handle:
        assert handle.instances("experiment") == []
        registry.add("experiment", 80)
        assert handle.instances("experiment") == []
        registry.wipe()


def test_a_registry_that_lost_everything_is_noticed_even_if_no_watch_breaks() -> None:
    """By asking, when nothing has been heard for a while: here, for a tenth of a second."""
    with fresh_hub(settings=WatchSettings(silence=0.1)) as shared:
        registry = TestRegistry(shared, "memory://lost")
        for port in (80, 81, 82):
            registry.add("experiment", port=port)
        with connect("memory://lost") as handle:
            assert len(handle.instances("experiment")) == 3
            registry._change(lambda store: store.wipe())
            eventually(lambda: handle.instances("experiment") == [], timeout=20.0)
            new = registry.add("experiment", port=90)
            eventually(lambda: handle.instances("experiment") == [new], timeout=20.0)


def test_a_wiped_registry_keeps_nobody_busy(registry: TestRegistry) -> None:
    registry.add("experiment", port=80)
    with connect() as handle:
        handle.instances("experiment")
        registry.wipe()
        registry.add("other", port=81)
        assert len(handle.instances("other")) == 1  # the background loop still turns


def test_a_registry_that_is_down_is_out_of_reach_for_everybody(registry: TestRegistry) -> None:
    registry.set_down(True)
    with DiscoClient("experiment", discovery_timeout=0.05) as client, pytest.raises(DiscoveryTimeout):
        client.get("/")
    registry.set_down(False)
    registry.add("experiment", port=80)
    with connect(discovery_timeout=20.0) as handle:
        eventually(lambda: len(handle.instances("experiment")) == 1, timeout=20.0)


def test_registrations_go_there_by_default(registry: TestRegistry, servers: Servers) -> None:
    server = servers.start()
    with connect() as handle:
        with register("experiment", server.port, host="127.0.0.1", version="1.0") as registration:
            assert handle.instances("experiment") == [registration.instance]
            assert DiscoClient("experiment").get("/").status_code == 200
        eventually(lambda: not handle.instances("experiment"), timeout=20.0)


def test_two_registries_one_after_the_other_know_nothing_of_each_other(servers: Servers) -> None:
    server = servers.start()
    for _ in range(2):
        with memory_registry() as registry:
            client = DiscoClient("experiment", discovery_timeout=20.0)
            with pytest.raises(NoInstances):
                client.get("/")
            registry.add("experiment", port=server.port)
            client.wait_ready(20.0)
            assert client.get("/").status_code == 200


def test_a_registry_inside_another_hides_it_and_gives_it_back(servers: Servers) -> None:
    outer_server, inner_server = servers.several(2)
    with memory_registry() as outer:
        outer.add("experiment", port=outer_server.port)
        assert DiscoClient("experiment").get("/").text == str(outer_server.port)
        with memory_registry() as inner:
            assert outer.url != inner.url
            inner.add("experiment", port=inner_server.port)
            assert DiscoClient("experiment").get("/").text == str(inner_server.port)
        assert DiscoClient("experiment").get("/").text == str(outer_server.port)


@pytest.mark.parametrize("before", [None, "static://experiment=127.0.0.1:1"])
def test_nothing_is_left_after_the_block(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is None:
        monkeypatch.delenv("DISCO_REGISTRY", raising=False)
    else:
        monkeypatch.setenv("DISCO_REGISTRY", before)
    server = servers.start()
    gc.collect()
    threads, files, shared = set(threading.enumerate()), len(os.listdir("/proc/self/fd")), hub()
    with pytest.raises(ZeroDivisionError), memory_registry() as registry:
        registry.add("experiment", port=server.port, http_keepalive=600)
        client = DiscoClient("experiment")
        client.get("/")
        assert os.environ["DISCO_REGISTRY"] == registry.url
        assert hub() is not shared
        _ = 1 / 0
    assert os.environ.get("DISCO_REGISTRY") == before
    assert hub() is shared
    assert set(threading.enumerate()) == threads
    eventually(lambda: server.connections == 0)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files


def test_a_client_that_outlives_its_registry_fails_like_any_other(servers: Servers) -> None:
    with memory_registry() as registry:
        registry.add("experiment", port=servers.start().port)
        client = DiscoClient("experiment", discovery_timeout=20.0)
        client.get("/")
    with fresh_hub(), pytest.raises(NoInstances):
        client.get("/")
    client.close()


USER_TESTS = """
import http.server, threading
import pytest
from discoclient import AsyncDiscoClient, DiscoClient, NoInstances


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, *args): ...


@pytest.fixture
def port():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_one(disco_registry, port):
    disco_registry.add("experiment", port=port)
    with DiscoClient("experiment") as client:
        assert client.get("/users/1").text == "hi"


def test_other(disco_registry):
    with DiscoClient("experiment") as client, pytest.raises(NoInstances):
        client.get("/users/1")


def test_asynchronously(disco_registry, port):
    import asyncio

    async def main():
        disco_registry.add("experiment", port=port)
        async with AsyncDiscoClient("experiment") as client:
            assert (await client.get("/users/1")).text == "hi"

    asyncio.run(main())
"""


def test_the_fixture_is_there_in_anybody_s_pytest(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(USER_TESTS)
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    process = processes.python("-m", "pytest", *options, "test_theirs.py", cwd=tmp_path)
    assert process.wait(timeout=50.0) == 0, process.output
    assert "3 passed" in process.output


@pytest.mark.xfail(
    strict=True, reason="importing a module of the package imports the whole package, and httpx with it"
)
def test_the_plugin_alone_imports_nothing_of_ours(processes: Processes, tmp_path: Path) -> None:
    """It is loaded in every pytest run of every environment that has discoclient in it."""
    (tmp_path / "test_theirs.py").write_text(
        "import sys\ndef test_it():\n"
        "    assert sorted(name for name in sys.modules if name.startswith('discoclient.')) == "
        "['discoclient.pytest_plugin']\n"
    )
    process = processes.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py", cwd=tmp_path)
    assert process.wait(timeout=50.0) == 0, process.output


def test_instances_of_a_test_registry_are_the_model_s_own(registry: TestRegistry) -> None:
    instance = registry.add("experiment", port=80)
    assert isinstance(instance, Instance)
    assert instance.state is State.READY
    assert instance.url == "http://127.0.0.1:80"
