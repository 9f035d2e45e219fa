"""The wire format under arbitrary input: what is read is `Instance`, what is not is `BadRecord`, and nothing else happens."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from discoclient.model.errors import ConfigError
from discoclient.model.instance import Instance, State
from discoclient.registry.codec import BadRecord, check_host, decode, encode
from tests.registry.test_codec import FULL, ID, SMALL
from tests.support.properties import thorough

numbers = st.integers() | st.floats()
texts = st.text(max_size=20) | st.text(st.characters(), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def harmless(value: bytes, *, hostnames: bool = False) -> Instance | None:
    """What *value* is read as; whatever it is, it can be written again, printed, compared and hashed."""
    try:
        instance = decode(value, service="experiment", id=ID, hostnames=hostnames)
    except BadRecord as error:
        str(error).encode()
        return None
    repr(instance).encode()
    hash(instance)
    json.dumps(dict(instance.metadata), ensure_ascii=False).encode()
    again = decode(encode(instance, hostnames=hostnames), service="experiment", id=ID, hostnames=hostnames)
    assert again == instance
    return instance


@thorough(150)
@given(st.binary(max_size=200))
def test_no_bytes_do_any_harm(value: bytes) -> None:
    assert harmless(value) is None


@thorough(150)
@given(json_values, st.booleans())
def test_no_json_does_any_harm(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    harmless(text.encode("utf-8", "surrogatepass"))


@thorough(150)
@given(
    st.dictionaries(st.sampled_from(sorted(FULL)) | texts, json_values, max_size=6),
    st.sets(st.sampled_from(sorted(FULL)), max_size=2),
    st.booleans(),
)
@example({"hostname": "\ud800"}, set(), False)
@example({"metadata": {"\udfff": 1}}, set(), True)
@example({"weight": float("nan")}, set(), True)
def test_no_record_that_is_almost_right_does_any_harm(
    changes: dict[str, Any], missing: set[str], ascii_only: bool
) -> None:
    record = {name: value for name, value in (FULL | changes).items() if name not in missing}
    text = json.dumps(record, ensure_ascii=ascii_only)
    instance = harmless(text.encode("utf-8", "surrogatepass"), hostnames=True)
    if instance is not None:
        assert instance.extra == {key: value for key, value in record.items() if key not in FULL}
        assert 1 <= instance.port <= 65535
        assert 0 <= instance.weight <= 10_000


@thorough(150)
@given(st.binary(min_size=1, max_size=4), st.integers(0, 400), st.integers(0, 3))
def test_no_valid_record_that_was_damaged_does_any_harm(noise: bytes, at: int, cut: int) -> None:
    value = json.dumps(FULL).encode()
    harmless(value[:at] + noise + value[at + cut :], hostnames=True)


instances = st.builds(
    Instance,
    service=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    id=st.from_regex(r"[a-z0-9-]{8,64}", fullmatch=True),
    host=st.ip_addresses().map(str),
    port=st.integers(1, 65535),
    scheme=st.sampled_from(["http", "https"]),
    state=st.sampled_from(State),
    pid=st.none() | st.integers(0, 2**22),
    hostname=st.none() | texts,
    slot=texts,
    version=st.none() | texts,
    zone=st.none() | texts,
    weight=st.integers(0, 10_000) | st.floats(0, 10_000),
    http_keepalive=st.none() | st.floats(0, 1e6),
    metadata=st.dictionaries(
        texts, st.recursive(texts, lambda inner: st.lists(inner, max_size=3)), max_size=3
    ),
    registered_at=st.none() | st.just("2026-11-23T15:00:00Z"),
)


@thorough(150)
@given(instances)
def test_every_instance_that_can_be_written_is_read_the_same(instance: Instance) -> None:
    try:
        host = check_host(instance.host, hostnames=False)
        value = encode(instance)
    except (BadRecord, ConfigError):
        return
    read = decode(value, service=instance.service, id=instance.id)
    assert read.host == host
    assert json.loads(encode(read)) == json.loads(value) | {"host": host}
    for name in (
        "port",
        "scheme",
        "state",
        "pid",
        "hostname",
        "slot",
        "version",
        "zone",
        "weight",
        "metadata",
    ):
        assert getattr(read, name) == getattr(instance, name)


@thorough(150)
@given(st.text(max_size=30) | st.ip_addresses().map(str), st.booleans())
def test_no_host_does_any_harm(host: str, hostnames: bool) -> None:
    try:
        normal = check_host(host, hostnames=hostnames)
    except BadRecord:
        return
    assert check_host(normal, hostnames=hostnames) == normal
    assert not set(normal) & set("/@?# []%\n")


def test_the_examples_above_begin_with_records_that_are_read() -> None:
    assert harmless(json.dumps(FULL).encode()) is not None
    assert harmless(json.dumps(SMALL).encode()) is not None
