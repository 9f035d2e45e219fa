"""``last_known=``: a start while the registry is away, from what was known in an earlier life of the process."""

from __future__ import annotations

import json
import logging
import os
import stat
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from discoclient import DiscoClient, DiscoTransport, DiscoveryTimeout
from discoclient.control.hub import fresh_hub
from discoclient.testing import TestRegistry
from tests.client.shells import Shell, in_every_shell
from tests.support.eventually import eventually
from tests.support.servers import HttpServer, Servers

URL = "memory://last-known"


@contextmanager
def life(*, is_down: bool = False) -> Iterator[TestRegistry]:
    """A process's: nothing of the one before is known, and the registry is empty, or away."""
    with fresh_hub() as hub:
        registry = TestRegistry(hub, URL)
        if is_down:
            registry.set_down(True)
        yield registry


@pytest.fixture(autouse=True)
def url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCO_REGISTRY", URL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "known"


def saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def remember(folder: Path, *servers: HttpServer, service: str = "experiment") -> Path:
    """An earlier life, in which *servers* were known."""
    with life() as registry:
        for server in servers:
            registry.add(service, server.port)
        with DiscoClient(service, last_known=folder) as client:
            client.wait_ready()
            ports = {server.port for server in servers}
            found = eventually(lambda: [path for path in saved(folder) if _ports(path) == ports])
    assert len(found) == 1
    return found[0]


def _ports(path: Path) -> set[int]:
    """Whom a file knows. It is one JSON object, whole at any moment."""
    content = json.loads(path.read_bytes())
    return {json.loads(b64decode(entry["value"]))["port"] for entry in content["payload"]["entries"]}


@in_every_shell
async def test_a_start_while_the_registry_is_away_goes_by_what_was_known(
    shell: Shell, servers: Servers, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = servers.several(2)
    remember(folder, *known)
    with life(is_down=True), caplog.at_level(logging.WARNING, "discoclient"):
        async with shell.client(last_known=folder, discovery_timeout=1.0) as client:
            assert {await client.port() for _ in range(20)} == {server.port for server in known}
            explanation = await client._do("explain")
            assert explanation.is_suspect
            assert "perhaps old" in str(explanation)
            assert explanation.age is None
            await client.wait_ready(0)
    assert "going on with what was known before" in caplog.text


@in_every_shell
async def test_without_the_option_such_a_start_fails(shell: Shell, servers: Servers, folder: Path) -> None:
    """The negative control."""
    remember(folder, servers.start())
    with life(is_down=True):
        async with shell.client(discovery_timeout=0.3) as client:
            with pytest.raises(DiscoveryTimeout):
                await client.get()


@in_every_shell
async def test_the_registry_s_word_counts_as_soon_as_it_is_back(
    shell: Shell, servers: Servers, folder: Path
) -> None:
    old, new = servers.start(), servers.start()
    remember(folder, old)
    with life(is_down=True) as registry:
        async with shell.client(last_known=folder, discovery_timeout=1.0) as client:
            assert await client.port() == old.port
            registry.add("experiment", new.port)
            registry.set_down(False)
            for _ in range(2000):
                if await client.port() == new.port:
                    break
                await shell.sleep(0.005)
            assert await client.port() == new.port
            assert not (await client._do("explain")).is_suspect


def test_what_the_file_says_is_not_written_over_itself(servers: Servers, folder: Path) -> None:
    """It would look younger than it is."""
    path = remember(folder, servers.start())
    before = path.read_bytes(), path.stat().st_mtime_ns
    with life(is_down=True), DiscoClient("experiment", last_known=folder, discovery_timeout=0.6) as client:
        client.get("/")
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_the_file_follows_what_is_known(servers: Servers, folder: Path) -> None:
    one, other = servers.several(2)
    with life() as registry, DiscoClient("experiment", last_known=folder) as client:
        first = registry.add("experiment", one.port)
        client.get("/")
        (path,) = eventually(lambda: saved(folder))
        eventually(lambda: _ports(path) == {one.port})
        registry.add("experiment", other.port)
        eventually(lambda: _ports(path) == {one.port, other.port})
        registry.remove(first)
        eventually(lambda: _ports(path) == {other.port})
        registry.set_down(True)
        client.get("/")
        assert _ports(path) == {other.port}
        assert saved(folder) == [path]


def test_the_file_is_private_and_nothing_else_is_left(servers: Servers, folder: Path) -> None:
    before = os.umask(0)
    try:
        path = remember(folder, servers.start())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [found.name for found in folder.iterdir()] == [path.name]
    assert path.name.startswith("experiment-")


@in_every_shell
async def test_a_file_that_is_damaged_is_ignored_with_a_warning(
    shell: Shell, servers: Servers, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = servers.start()
    _damage(remember(folder, server), "one byte")
    with life(is_down=True) as registry, caplog.at_level(logging.WARNING, "discoclient"):
        async with shell.client(last_known=folder, discovery_timeout=0.3) as client:
            with pytest.raises(DiscoveryTimeout):
                await client.get()
            assert "are not used" in caplog.text
            registry.set_down(False)
            registry.add("experiment", server.port)
            await client.wait_ready(20)
            assert await client.port() == server.port


@pytest.mark.parametrize(
    "damage", ["empty", "cut off", "not ours", "no JSON", "writable by others", "a folder"]
)
def test_a_file_that_can_t_be_trusted_is_ignored_with_a_warning_that_says_nothing_of_what_is_in_it(
    servers: Servers, folder: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    server = servers.start()
    _damage(remember(folder, server), damage)
    with (
        life(is_down=True),
        caplog.at_level(logging.WARNING, "discoclient"),
        DiscoClient("experiment", last_known=folder, discovery_timeout=0.3) as client,
        pytest.raises(DiscoveryTimeout),
    ):
        client.get("/")
    lines = [record.getMessage() for record in caplog.records if "are not used" in record.getMessage()]
    assert lines
    assert "127.0.0.1" not in "".join(lines)
    assert server.requests == 0


def _damage(path: Path, damage: str) -> None:
    data = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut off":
            path.write_bytes(data[: len(data) // 2])
        case "one byte":
            middle = len(data) - 40
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "not ours":
            path.write_bytes(b'{"services": {"experiment": ["10.0.0.1:80"]}}')
        case "no JSON":
            path.write_bytes(os.urandom(500))
        case "writable by others":
            path.chmod(0o622)
        case "a folder":
            path.unlink()
            path.mkdir()


def test_a_file_of_another_service_folder_or_registry_is_not_ours(
    servers: Servers, folder: Path, tmp_path: Path
) -> None:
    remember(folder, servers.start())
    with fresh_hub() as hub:
        for url in (URL, f"{URL}-too"):
            TestRegistry(hub, url).set_down(True)
        for service, options in (
            ("other", {"last_known": folder}),
            ("experiment", {"last_known": tmp_path / "elsewhere"}),
            ("experiment", {"last_known": folder, "registry": f"{URL}-too"}),
        ):
            with (
                DiscoClient(service, discovery_timeout=0.3, **options) as client,
                pytest.raises(DiscoveryTimeout),
            ):
                client.get("/")


def test_each_service_has_its_file(servers: Servers, folder: Path) -> None:
    one, other = sorted(servers.several(2), key=lambda server: server.port)
    remember(folder, one)
    with life() as registry:
        registry.add("other", other.port)
        with DiscoClient("other", last_known=folder) as client:
            client.get("/")
            eventually(lambda: sorted(map(_ports, saved(folder)), key=min) == [{one.port}, {other.port}])
    with life(is_down=True):
        mounts = {"disco://": DiscoTransport(last_known=folder, discovery_timeout=1.0)}
        with httpx.Client(mounts=mounts) as plain:
            assert plain.get("disco://experiment/").text == str(one.port)
            assert plain.get("disco://other/").text == str(other.port)


@in_every_shell
async def test_a_folder_that_can_t_be_written_to_hurts_nobody(
    shell: Shell, servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = servers.start()
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with life() as registry, caplog.at_level(logging.WARNING, "discoclient"):
        registry.add("experiment", server.port)
        async with shell.client(last_known=blocked / "known") as client:
            for _ in range(3):
                assert await client.port() == server.port
            await shell.eventually(lambda: "can't be saved" in caplog.text)


def test_an_instance_that_is_gone_meanwhile_is_tried_and_the_next_one_called(
    servers: Servers, folder: Path
) -> None:
    gone, there = servers.several(2)
    remember(folder, gone, there)
    servers.run(gone.kill())
    with life(is_down=True), DiscoClient("experiment", last_known=folder, discovery_timeout=0.6) as client:
        for _ in range(10):
            assert client.post("/").text == str(there.port)


def test_when_all_are_gone_meanwhile_the_error_is_that_of_the_wire(servers: Servers, folder: Path) -> None:
    gone = servers.start()
    remember(folder, gone)
    servers.run(gone.kill())
    with (
        life(is_down=True),
        DiscoClient("experiment", last_known=folder, discovery_timeout=0.6) as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.get("/")


def test_a_registry_that_is_there_is_asked_and_not_the_file(servers: Servers, folder: Path) -> None:
    old, new = servers.several(2)
    remember(folder, old)
    with life() as registry:
        registry.add("experiment", new.port)
        with DiscoClient("experiment", last_known=folder) as client:
            for _ in range(10):
                assert client.get("/").text == str(new.port)
    assert old.requests == 0


def test_the_folder_may_be_given_later_by_another_client(servers: Servers, folder: Path) -> None:
    server = servers.start()
    with life() as registry:
        registry.add("experiment", server.port)
        with DiscoClient("experiment") as plain, DiscoClient("experiment", last_known=str(folder)) as client:
            plain.get("/")
            assert saved(folder) == []
            client.get("/")
            (path,) = eventually(lambda: saved(folder))
            eventually(lambda: _ports(path) == {server.port})


def test_each_client_s_folder_is_written_to(servers: Servers, folder: Path, tmp_path: Path) -> None:
    server, other = servers.start(), tmp_path / "other"
    with life() as registry:
        registry.add("experiment", server.port)
        with (
            DiscoClient("experiment", last_known=folder) as one,
            DiscoClient("experiment", last_known=other) as two,
        ):
            one.get("/")
            two.get("/")
            eventually(lambda: saved(folder))
            eventually(lambda: saved(other), timeout=1.5)


@in_every_shell
async def test_a_client_s_own_discovery_timeout_says_when_the_file_is_read(
    shell: Shell, servers: Servers, folder: Path
) -> None:
    known = servers.start()
    remember(folder, known)
    with life(is_down=True):
        async with (
            shell.client(discovery_timeout=60.0) as patient,
            shell.client(last_known=folder, discovery_timeout=1.0) as client,
        ):
            with pytest.raises(DiscoveryTimeout):
                await patient.wait_ready(0)
            assert await client.port() == known.port


def test_of_several_folders_the_newest_counts(servers: Servers, folder: Path, tmp_path: Path) -> None:
    old, new = servers.start(), servers.start()
    remember(folder, old)
    remember(tmp_path / "newer", old, new)
    with (
        life(is_down=True),
        DiscoClient("experiment", last_known=folder, discovery_timeout=1.0) as one,
        DiscoClient("experiment", last_known=tmp_path / "newer", discovery_timeout=1.0) as two,
    ):
        resolvers = {client._disco._router.route("experiment").resolver for client in (one, two)}
        one.wait_ready()
        (resolver,) = resolvers
        assert {instance.port for instance in resolver.snapshot} == {old.port, new.port}
