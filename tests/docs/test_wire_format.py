"""docs/wire-format.md is true: its example runs as printed, and its tables say what the codec does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from discoclient import DiscoClient, Instance, NoInstances, State, connect
from discoclient.balancing.endpoint import Endpoint
from discoclient.control.hub import fresh_hub
from discoclient.dev import EtcdCluster, find_etcdctl
from discoclient.model.instance import ID_PATTERN, SERVICE_PATTERN
from discoclient.registry.asked import decode_asked, encode_asked
from discoclient.registry.codec import MAX_VALUE_BYTES, BadRecord, decode
from discoclient.registry.keys import DEFAULT_PREFIX, Keys
from discoclient.registry.presence import decode_presence, encode_presence
from discoclient.system.process import end, send, spawn
from discoclient.transport.wire import Place, WireOptions
from tests.support.eventually import eventually

PAGE = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()
ID = "0f3c8a1be2d94f77a1c09e5d2b6f4a10"
SMALLEST: dict[str, Any] = {
    "v": 1,
    "service": "experiment",
    "id": ID,
    "scheme": "http",
    "host": "10.0.0.5",
    "port": 43117,
    "state": "ready",
}


def section(heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no section {heading!r}"
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def rows(text: str, columns: int) -> list[list[str]]:
    """The rows of all tables with so many columns, without their heads."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines()]
        if len(table.splitlines()[1].strip("|").split("|")) == columns:
            found += lines[2:]
    return found


def read(record: dict[str, Any]) -> Instance:
    return decode(json.dumps(record).encode(), service="experiment", id=ID)


def changed(code: str) -> dict[str, Any]:
    """The smallest record with ```"field": value``` as the page prints it."""
    change = json.loads("{" + code.strip("`") + "}")
    assert len(change) == 1
    return SMALLEST | change


# ---- the worked example


@contextmanager
def listening() -> Iterator[int]:
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            body = b"a service in another language"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def environment(folder: Path, etcd: EtcdCluster, port: int) -> dict[str, str]:
    """Where ``etcdctl`` is on PATH, as it is at a reader's."""
    program = find_etcdctl(etcd.binary).path
    (folder / "bin").mkdir()
    (folder / "bin" / "etcdctl").symlink_to(program)
    return {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "ETCDCTL_ENDPOINTS": etcd.registry_url.removeprefix("etcd://"),
        "PORT": str(port),
    }


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_example_registers_a_service_keeps_it_and_takes_it_out(
    etcd_node: EtcdCluster, tmp_path: Path, shell: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (source,) = blocks(section("A worked example"), "sh")
    script, said = tmp_path / "register.sh", tmp_path / "said"
    script.write_text(source)
    with listening() as port, said.open("wb") as output:
        env = environment(tmp_path, etcd_node, port)
        process = spawn([shell, script], env=env, stdout=output, stderr=output)
        try:
            with (
                fresh_hub(),
                connect(etcd_node.registry_url) as registry,
                DiscoClient("experiment", registry=etcd_node.registry_url) as client,
            ):
                eventually(lambda: registry.instances("experiment"), timeout=20)
                (instance,) = registry.instances("experiment")
                assert instance.port == port
                assert instance.state is State.READY
                assert registry.resolver("experiment").skipped == {}
                response = client.get("/")
                assert response.text == "a service in another language"
                assert response.extensions["disco"].instance == instance
                eventually(lambda: b"keepalived with TTL(15)" in said.read_bytes(), timeout=20)

                send(process, signal.SIGTERM)
                eventually(
                    lambda: [i.state for i in registry.instances("experiment")] == [State.DRAINING],
                    timeout=20,
                )
                eventually(lambda: registry.instances("experiment") == [], timeout=20)
            assert process.wait(20) == 0, said.read_text()
        finally:
            end(process, grace=0.0)
    assert "revoked" in said.read_text()
    assert etcd_node.etcdctl("lease", "list").split() == ["found", "0", "leases"]


def test_the_same_record_without_a_lease_is_ignored(etcd_node: EtcdCluster) -> None:
    """The negative control, and what the page says of keys without a lease."""
    with listening() as port, fresh_hub():
        key = f"/disco/v1/services/experiment/{ID}"
        record = json.dumps(SMALLEST | {"host": "127.0.0.1", "port": port})
        etcd_node.etcdctl("put", key, record)
        with DiscoClient("experiment", registry=etcd_node.registry_url) as client:
            with pytest.raises(NoInstances):
                client.get("/")
            lease = etcd_node.etcdctl("lease", "grant", "60").split()[1]
            etcd_node.etcdctl("put", f"--lease={lease}", key, record)
            eventually(lambda: answers(client), timeout=10)


def answers(client: DiscoClient) -> bool:
    try:
        return client.get("/").status_code == 200
    except NoInstances:
        return False


# ---- keys


def test_the_keys_are_those_of_the_page() -> None:
    keys = Keys(DEFAULT_PREFIX)
    table = {row[0].strip("`") for row in rows(section("Keys"), 4)}
    for key in (keys.instance("<service>", "<instance id>"), keys.control("<service>", "<instance id>")):
        assert key.replace(DEFAULT_PREFIX, "<prefix>") in table
    assert f"`<prefix>` is `{DEFAULT_PREFIX}`" in section("Keys")
    assert f"- `<service>`: `{SERVICE_PATTERN.pattern}`" in section("Keys")
    assert f"- `<instance id>`: `{ID_PATTERN.pattern}`" in section("Keys")


# ---- the record


def test_the_printed_record_is_valid_and_complete() -> None:
    (source,) = blocks(section("The record"), "json")
    record = json.loads(source)
    instance = read(record)
    assert instance.extra == {}
    assert list(record) == [row[0].strip("`") for row in rows(section("The record"), 4)]
    for name, value in record.items():
        assert getattr(instance, name) == value


@pytest.mark.parametrize("name", ["What is asked of an instance", "The presence of a caller"])
def test_the_other_printed_values_are_valid_and_their_tables_complete(name: str) -> None:
    (source,) = blocks(section(name), "json")
    printed = json.loads(source)
    named = {word.strip("` ") for row in rows(section(name), 4) for word in row[0].split(",")}
    assert named | {"v"} == set(printed)
    if name.startswith("What"):
        asked = decode_asked(source.encode())
        assert asked.retire is not None
        assert {"reason": asked.retire.reason, "by": asked.retire.by} == printed["retire"]
        assert asked.weight == printed["weight"]
        assert json.loads(encode_asked(asked)) == printed
    else:
        id = "5b0c0000"
        presence = decode_presence(source.replace("5b0c...", id).encode(), id=id)
        assert presence.applied == printed["applied"]
        assert presence.busy == printed["busy"]
        assert {id: [each.requests, each.failures] for id, each in presence.outcomes.items()} == printed[
            "outcomes"
        ]
        assert json.loads(encode_presence(presence)) == printed | {"id": id}


def test_every_field_has_a_row_with_its_type_and_whether_it_is_required() -> None:
    table = {row[0].strip("`"): row[1:] for row in rows(section("The record"), 4)}
    assert set(table) == {field.name for field in fields(Instance)} - {"extra"}
    for name, (kind, necessity, _) in table.items():
        without = {key: value for key, value in SMALLEST.items() if key != name}
        if necessity == "required":
            with pytest.raises(BadRecord):
                read(without)
        else:
            assert necessity == "optional" or necessity.startswith("default")
            assert name not in SMALLEST
            read(SMALLEST | {name: None})
        wrong = 7 if kind in ("string", "object") else "seven"
        with pytest.raises(BadRecord):
            read(SMALLEST | {name: wrong})


DEFAULTS = [
    (row[0].strip("`"), row[2]) for row in rows(section("The record"), 4) if row[2].startswith("default")
]


@pytest.mark.parametrize(("name", "printed"), DEFAULTS, ids=[name for name, _ in DEFAULTS])
def test_a_printed_default_is_the_default(name: str, printed: str) -> None:
    default = json.loads(printed.removeprefix("default").strip(" `"))
    if name == "http_keepalive":  # the caller's, who has to assume something
        assert expiry(None) == expiry(default)
    else:
        assert getattr(read(SMALLEST), name) == default


REFUSED = rows(section("The record"), 2)


@pytest.mark.parametrize(("code", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_the_page_calls_invalid_is_refused_for_the_printed_reason(code: str, reason: str) -> None:
    read(SMALLEST)  # negative control: without the change it is valid
    with pytest.raises(BadRecord, match=f"^{re.escape(reason)}$"):
        read(changed(code))


def test_what_the_page_calls_fine_is_accepted() -> None:
    (sentence,) = re.findall(
        r"^And these are fine: (.*?)\n\n", section("The record"), re.MULTILINE | re.DOTALL
    )
    found = [read(changed(code)) for code in re.findall(r'`("\w+": [^`]+)`', sentence)]
    assert len(found) == 7
    assert [instance.state for instance in found].count(State.UNREADY) == 1
    assert found[2].weight == 100
    assert found[-1].extra == {"shoe_size": 43}


def test_the_limit_of_length_is_the_printed_one() -> None:
    assert f"at most {MAX_VALUE_BYTES} bytes" in section("The record")
    value = json.dumps(SMALLEST).encode()
    decode(value.ljust(MAX_VALUE_BYTES), service="experiment", id=ID)
    with pytest.raises(BadRecord):
        decode(value.ljust(MAX_VALUE_BYTES + 1), service="experiment", id=ID)


def test_every_state_has_a_row() -> None:
    assert {row[0].strip("`") for row in rows(section("States"), 3)} == {str(state) for state in State}


def expiry(http_keepalive: float | None) -> float:
    """For how many seconds a caller keeps an idle connection to an instance that says this."""
    instance = Instance(service="experiment", id=ID, host="10.0.0.5", port=80, http_keepalive=http_keepalive)
    return Place(Endpoint(instance, now=0.0), WireOptions()).expiry


@pytest.mark.parametrize(
    ("said", "kept"), [(None, 1.0), (0, 0.0), (0.5, 0.0), (1, 0.0), (2, 1.0), (5.0, 4.0)]
)
def test_callers_close_idle_connections_a_second_before_the_service_does(
    said: float | None, kept: float
) -> None:
    assert expiry(said) == kept


# ---- the page itself


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings
