"""What others write under our prefix disturbs nobody."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from discoclient import DiscoClient, Instance, NoInstances
from discoclient.control.hub import Hub
from discoclient.dev import EtcdCluster
from discoclient.registry.codec import encode
from discoclient.registry.protocol import Entry
from tests.faults.harness import Look, assert_sees, look, resolver_of, start_services
from tests.faults.raw import Raw
from tests.support.eventually import eventually
from tests.support.processes import Processes

SECRET = "what-is-in-a-value-is-nobodys-business"


def bad_values(good: Instance) -> dict[str, bytes]:
    """Values by instance id, each bad in its own way."""

    def record(id: str, **changes: object) -> bytes:
        return json.dumps(json.loads(encode(good)) | {"id": id} | changes).encode()

    deep = b"[" * 1500 + b"]" * 1500
    return {
        "malformed-0": f"{{not json, {SECRET}".encode(),
        "malformed-1": b"\xff\xfe\x00" + SECRET.encode(),
        "malformed-2": deep,
        "malformed-3": b"",
        "malformed-4": b"[1, 2]",
        "oversized-0": record("oversized-0", metadata={SECRET: "x" * 5000}),
        "oversized-1": b"x" * 1_000_000,
        "foreign--00": record("somebody-else"),
        "foreign--01": record("foreign--01", service="ledger"),
        "unknown--v2": record("unknown--v2", v=2),
        "host-name-0": record("host-name-0", host="metadata.internal"),
        "host-name-1": record("host-name-1", host="169.254.169.254"),
        "port-wrong-": record("port-wrong-", port=70_000),
        "bad_key!": record("bad_key!"),
    }


def put_bad_values(raw: Raw, good: Instance) -> dict[str, bytes]:
    lease = raw.grant(600)
    values = bad_values(good)
    for id, value in values.items():
        raw.put(raw.keys.instance("experiment", id), value, lease=lease)
    raw.put(raw.keys.instance("experiment", "a/b/c"), encode(good), lease=lease)
    return values | {"a/b/c": b""}


def trust_everything(looking: Look) -> None:
    """The control: what is read must be JSON, and that is all."""
    records = looking.resolver._follower._machine._records

    def decode(entry: Entry) -> Instance:
        record = json.loads(entry.value)
        return Instance(**{name: record[name] for name in ("service", "id", "host", "port")})

    records._decode = decode  # type: ignore[assignment]


@pytest.mark.parametrize(
    "is_there_first", [True, False], ids=["before the caller starts", "while the caller watches"]
)
def test_bad_values_are_skipped_counted_and_told_once_without_their_content(
    etcd: EtcdCluster,
    registry_url: str,
    processes: Processes,
    hub: Hub,
    caplog: pytest.LogCaptureFixture,
    is_there_first: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    raw = Raw(etcd, registry_url)
    (service,) = start_services(processes, registry_url, ttl=15)
    good = raw.add("experiment", port=service.port)
    bad = put_bad_values(raw, good) if is_there_first else {}
    with look(registry_url) as looking, DiscoClient("experiment", registry=registry_url) as client:
        looking.wait_live()
        if not is_there_first:
            with look(registry_url) as control:
                control.wait_live()
                trust_everything(control)
                bad = put_bad_values(raw, good)
                newcomer = raw.add("experiment", port=service.port)
                assert_sees(looking, newcomer, within=5)
                with pytest.raises(AssertionError, match="the caller sees"):
                    assert_sees(control, newcomer, within=0.5)
            raw.delete(raw.keys.instance("experiment", newcomer.id))
        eventually(lambda: looking.ids == {service.id, good.id}, what="the good ones are there, and no other")
        prefix = raw.keys.service("experiment")
        assert {key.removeprefix(prefix) for key in looking.resolver.skipped} == set(bad)
        assert all(client.get("/").json()["id"] == service.id for _ in range(20))
        # One that is put right is one more instance, and is told of no more.
        healed = replace(good, id="malformed-0")
        raw.put(raw.keys.instance("experiment", healed.id), encode(healed), lease=raw.grant(600))
        assert_sees(looking, healed, within=5)
        assert prefix + healed.id not in looking.resolver.skipped
    told = [found.getMessage() for found in caplog.records if "skipped" in found.getMessage()]
    assert len([text for text in told if "unknown--v2" in text]) <= 2, (
        "once by each of the two that follow it"
    )
    assert SECRET not in caplog.text
    assert "xxxxxxxx" not in caplog.text


def test_a_key_without_a_lease_is_never_called_because_nothing_would_ever_remove_it(
    etcd: EtcdCluster, registry_url: str, processes: Processes, hub: Hub
) -> None:
    raw = Raw(etcd, registry_url)
    (service,) = start_services(processes, registry_url, service="other", ttl=15)
    orphan = Instance(service="experiment", id="without-a-lease", host="127.0.0.1", port=service.port)
    key = raw.keys.instance("experiment", orphan.id)
    raw.put(key, encode(orphan))
    with DiscoClient("experiment", registry=registry_url) as client:
        with pytest.raises(NoInstances, match="nothing is registered"):
            client.get("/")
        assert list(resolver_of(client).skipped.values()) == ["it has no lease"]
        # Negative control: the same value under a lease is called at once; and no longer when it loses it again.
        raw.put(key, encode(orphan), lease=raw.grant(600))
        eventually(lambda: resolver_of(client).snapshot.by_id, what="it is there")
        assert client.get("/").status_code == 200
        raw.put(key, encode(orphan))
        eventually(lambda: not resolver_of(client).snapshot.by_id, what="it is gone")
        with pytest.raises(NoInstances):
            client.get("/")
