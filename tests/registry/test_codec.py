"""The wire format: every rule of the contract, one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from discoclient.model.errors import ConfigError, DiscoError
from discoclient.model.instance import Instance, State
from discoclient.registry.codec import BadRecord, check_host, decode, encode, to_record

ID = "0f3c0f3c0f3c"
CANARY = "s3cret-canary"

FULL: dict[str, Any] = {
    "v": 1,
    "service": "experiment",
    "id": ID,
    "scheme": "http",
    "host": "10.0.0.5",
    "port": 43117,
    "state": "ready",
    "pid": 4242,
    "hostname": "web-3",
    "slot": "0",
    "version": "2.4.1",
    "zone": "eu-west-1a",
    "weight": 100,
    "http_keepalive": 5.0,
    "metadata": {},
    "registered_at": "2026-11-23T15:00:00Z",
}
REQUIRED = ("v", "service", "id", "scheme", "host", "port", "state")
SMALL = {name: FULL[name] for name in REQUIRED}


def read(record: object, *, hostnames: bool = False) -> Instance:
    value = record if isinstance(record, bytes) else json.dumps(record).encode()
    return decode(value, service="experiment", id=ID, hostnames=hostnames)


def refusal(record: object, *, hostnames: bool = False) -> str:
    """Why *record* is not read."""
    with pytest.raises(BadRecord) as caught:
        read(record, hostnames=hostnames)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


# ---- what is read


def test_every_field_of_the_contract_is_an_attribute() -> None:
    instance = read(FULL)
    for name, value in FULL.items():
        assert getattr(instance, name) == value
    assert instance.state is State.READY
    assert instance.extra == {}
    assert {field.name for field in fields(Instance)} - {"extra"} == set(FULL)


def test_the_required_fields_are_enough() -> None:
    instance = read(SMALL)
    assert (instance.weight, instance.slot, instance.metadata) == (100, "0", {})
    absent = (instance.pid, instance.hostname, instance.version, instance.zone, instance.http_keepalive)
    assert absent == (None,) * 5
    assert instance.registered_at is None


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("how", ["absent", None, [], {}, True])
def test_without_a_required_field_it_is_no_record(name: str, how: object) -> None:
    record = {key: value for key, value in SMALL.items() if key != name}
    refusal(record if how == "absent" else record | {name: how})


@pytest.mark.parametrize("name", sorted(set(FULL) - set(REQUIRED)))
def test_an_optional_field_that_is_null_is_absent(name: str) -> None:
    assert read(SMALL | {name: None}) == read(SMALL)


@pytest.mark.parametrize(
    ("state", "read_as"),
    [
        ("ready", State.READY),
        ("unready", State.UNREADY),
        ("draining", State.DRAINING),
        ("paused", State.UNREADY),
        ("READY", State.UNREADY),
        ("", State.UNREADY),
        ("__members__", State.UNREADY),
    ],
)
def test_a_state_that_is_unknown_is_read_as_unready(state: str, read_as: State) -> None:
    assert read(SMALL | {"state": state}).state is read_as


@pytest.mark.parametrize("v", [0, 2, -1, 1.5, "1", True, None, [1], {"v": 1}])
def test_another_version_of_the_schema_is_not_read(v: object) -> None:
    assert "version" in refusal(SMALL | {"v": v})


def test_another_version_is_not_even_looked_into() -> None:
    assert "version" in refusal({"v": 2, "whatever": "it holds"})


def test_fields_that_are_unknown_are_kept_and_written_again() -> None:
    unknown = {"datacentre": {"row": 7, "tags": ["a", "b"]}, "extra": 1, "__class__": "x", "": None}
    instance = read(FULL | unknown)
    assert instance.extra == unknown
    assert json.loads(encode(instance)) == FULL | unknown


def test_an_unknown_field_does_not_change_what_is_known() -> None:
    assert replace(read(FULL | {"unknown": 1}), extra={}) == read(FULL)


@pytest.mark.parametrize(
    ("service", "id"),
    [("experimen", ID), ("experiment", ID + "0"), ("experiment2", ID), ("experiment", "x" * 12)],
)
def test_key_and_value_must_agree(service: str, id: str) -> None:
    with pytest.raises(BadRecord, match="do not agree"):
        decode(json.dumps(SMALL).encode(), service=service, id=id)


@pytest.mark.parametrize(
    ("service", "id"),
    [
        ("Experiment", ID),
        ("-experiment", ID),
        ("experiment-", ID),
        ("", ID),
        ("a" * 64, ID),
        ("experiment", "short"),
        ("experiment", "a" * 65),
        ("experiment", "UPPERCASE"),
        ("experiment", "with/slash"),
        ("experiment", "with_score"),
        ("experiment", ID + "\n"),
        ("experiment\n", ID),
    ],
)
def test_a_key_that_is_no_service_and_id_is_refused_even_if_the_value_agrees(service: str, id: str) -> None:
    value = json.dumps(SMALL | {"service": service, "id": id}).encode()
    with pytest.raises(BadRecord, match="key is not"):
        decode(value, service=service, id=id)


@pytest.mark.parametrize("id", ["a" * 8, "a" * 64, "0f3c-0f3c", "--------"])
@pytest.mark.parametrize("service", ["a", "a" * 63, "a-b", "7", "a--b"])
def test_the_longest_and_the_shortest_names_are_read(service: str, id: str) -> None:
    value = json.dumps(SMALL | {"service": service, "id": id}).encode()
    instance = decode(value, service=service, id=id)
    assert (instance.service, instance.id) == (service, id)


# ---- types and ranges


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("scheme", ["ftp", "HTTP", "", 1, None]),
        ("port", [0, -1, 65536, 80.0, "80", True, 10**30]),
        ("host", [1, None, "", " 10.0.0.5"]),
        ("state", [1, None, True]),
        ("pid", ["1", 1.5, True, [], -1, 2**31, int("9" * 3900)]),
        ("hostname", [1, ["a"], True]),
        ("slot", [0, True]),
        ("version", [2.4, {}]),
        ("zone", [1]),
        ("weight", [-1, -0.001, 10_000.1, 10_001, "100", True, False, [], 10**300]),
        ("http_keepalive", [-0.1, "5", True, {}, 86_400 * 365 + 1, 1e9, 10**400]),
        ("metadata", [[], "", 0, True]),
        ("registered_at", [0, 1.5, []]),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_and_named(name: str, values: list[object]) -> None:
    for value in values:
        assert name in refusal(SMALL | {name: value}), value


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("scheme", ["http", "https"]),
        ("port", [1, 65535]),
        ("weight", [0, 0.0, 0.5, 10_000, 10_000.0]),
        ("http_keepalive", [0, 0.0, 5, 5.0, 3600, 86_400 * 365]),
        ("pid", [0, 1, 4194304, 2**31 - 1]),
        ("metadata", [{}, {"a": [1, {"b": None}]}]),
    ],
)
def test_a_value_at_the_edge_is_read(name: str, values: list[object]) -> None:
    for value in values:
        assert getattr(read(SMALL | {name: value}), name) == value


@pytest.mark.parametrize("name", ["v", "port", "pid", "weight", "http_keepalive"])
@pytest.mark.parametrize("digits", [20, 400, 3600])
def test_no_number_that_is_known_has_more_digits_than_a_float_or_a_table_takes(
    name: str, digits: int
) -> None:
    """JSON's integers have no end, and neither have Python's: what reckons with them, or prints them, has."""
    for sign in ("", "-"):
        value = f"{json.dumps(SMALL)[:-1]}, {json.dumps(name)}: {sign}{'9' * digits}}}"
        refusal(value.encode())


# ---- what is no JSON, or too much of it


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"null",
        b"1",
        b'"ready"',
        b"[]",
        b"{",
        b"{}",
        b"\x00",
        b"\xff\xfe",
        b"\x1f\x8b\x08",
        b"not json",
        b"{'v': 1}",
    ],
)
def test_what_is_no_object_is_refused(value: bytes) -> None:
    refusal(value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 4301])
@pytest.mark.parametrize("name", ["weight", "http_keepalive", "port", "pid", "unknown"])
def test_a_number_that_is_none_is_refused_wherever_it_stands(name: str, number: str) -> None:
    refusal(json.dumps(SMALL).encode()[:-1] + f', "{name}": {number}}}'.encode())
    refusal(json.dumps(SMALL).encode()[:-1] + f', "metadata": {{"a": [{number}]}}}}'.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"])
def test_json_is_read_in_utf_8_and_in_nothing_else(encoding: str) -> None:
    refusal(json.dumps(SMALL | {"hostname": "Zürich"}, ensure_ascii=False).encode(encoding))


@pytest.mark.parametrize("name", ["hostname", "version", "unknown"])
@pytest.mark.parametrize("text", [b"\\ud800", b"\\udfff", b"a\\ud83d", b"\\ude00\\ud83d", b"\xed\xa0\x80"])
def test_half_of_a_surrogate_pair_is_refused(name: str, text: bytes) -> None:
    """It can't be written or printed again: the crash would be somewhere else."""
    value = json.dumps(SMALL).encode()[:-1]
    refusal(value + b', "%s": "%s"}' % (name.encode(), text))
    refusal(value + b', "metadata": {"%s": [1]}}' % text)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert read(json.dumps(SMALL | {"hostname": "web-😀"}).encode()).hostname == "web-😀"


def test_a_record_of_4_kib_is_read_and_one_byte_more_is_not() -> None:
    room = 4096 - len(json.dumps(SMALL | {"hostname": ""}))
    assert read(SMALL | {"hostname": "x" * room}).hostname == "x" * room
    assert "4096" in refusal(SMALL | {"hostname": "x" * (room + 1)})


def test_four_kib_are_bytes_and_no_characters() -> None:
    refusal(json.dumps(SMALL | {"hostname": "ü" * 2500}, ensure_ascii=False).encode())


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return (
        json.dumps(SMALL).encode()[:-1]
        + b', "a": "\\u0041", "m": '
        + opening * depth
        + closing * depth
        + b"}"
    )


def test_whatever_is_nested_deeply_is_refused_at_every_depth() -> None:
    """Python's own limit depends on how deep we are called, and reading, comparing and printing each meet it elsewhere."""
    for depth in [*range(40, 900, 20), *range(940, 1040), 1900]:
        refusal(nested(depth))
    for depth in range(40, 600, 50):
        refusal(nested(depth, b'{"a":', b"}").replace(b":}", b":1}"))


def test_metadata_may_be_nested_and_wide() -> None:
    read(nested(20))
    wide = SMALL | {"metadata": {str(number): [number] for number in range(100)}}
    assert len(read(wide).metadata) == 100


def test_no_refusal_repeats_the_value() -> None:
    for name in FULL:
        for value in (CANARY, [CANARY], {CANARY: 1}):
            if isinstance(FULL[name], str) and value == CANARY and name not in REQUIRED:
                continue
            if name in ("metadata", "state") and not isinstance(value, list):
                continue
            assert CANARY not in refusal(SMALL | {name: value})
    assert CANARY not in refusal(f"{{{CANARY}".encode())


# ---- hosts


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("fd00::1", "fd00::1"),
        ("fd00:ec2::255", "fd00:ec2::255"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("::ffff:0a00:0005", "10.0.0.5"),
        ("203.0.113.9", "203.0.113.9"),
    ],
)
def test_an_ip_address_is_read_in_its_normal_form(host: str, normal: str) -> None:
    assert read(SMALL | {"host": host}).host == normal
    assert check_host(host, hostnames=False) == normal


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "255.255.255.255",
        "::ffff:255.255.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "ff02::1",
        "::ffff:224.0.0.1",
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "fe80::1",
        "fe80::1%eth0",
        "2001:db8::1%1",
        "::1%lo",
        "fd00:ec2::254",
        "FD00:0EC2:0:0:0:0:0:254",
        "fd00:ec2::23",
        "fd20:ce::254",
    ],
)
@pytest.mark.parametrize("hostnames", [False, True])
def test_what_callers_must_not_be_aimed_at_is_refused(host: str, hostnames: bool) -> None:
    assert "host" in refusal(SMALL | {"host": host}, hostnames=hostnames)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0",
        "10.0.0.256",
        "010.0.0.5",
        "10.0.0.5/32",
        "10.0.0.5:80",
        "[::1]",
        "0x7f000001",
        "2130706433",
        "\u0661\u0660.0.0.5",
        "localhost",
        "web-3",
        "10.0.0.5\n",
        "user@10.0.0.5",
        "10.0.0.5#",
    ],
)
def test_what_is_no_ip_address_is_refused(host: str) -> None:
    assert "host" in refusal(SMALL | {"host": host})


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("localhost", "localhost"),
        ("Web-3.Example.COM", "web-3.example.com"),
        ("web-3.example.com.", "web-3.example.com."),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("3com.example", "3com.example"),
    ],
)
def test_host_names_are_read_where_they_are_admitted(host: str, normal: str) -> None:
    assert read(SMALL | {"host": host}, hostnames=True).host == normal
    refusal(SMALL | {"host": host})


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "-web",
        "web-",
        "web_3",
        "web..example",
        "a" * 64,
        "a." * 127 + "aa",
        "10.0.0.256",
        "1.2.3",
        "169.254.169.254.",
        "2130706433",
        "web/3",
        "web:80",
        "web 3",
        "web\n",
        "wéb",
        "user@web",
    ],
)
def test_what_is_no_host_name_is_refused_even_where_they_are_admitted(host: str) -> None:
    assert "host" in refusal(SMALL | {"host": host}, hostnames=True)


# ---- writing


def test_what_is_written_is_read_the_same() -> None:
    instance = read(FULL | {"unknown": [1]})
    assert decode(encode(instance), service="experiment", id=ID) == instance


def test_what_is_absent_is_left_out() -> None:
    assert json.loads(encode(read(SMALL))) == SMALL | {"slot": "0", "weight": 100, "metadata": {}}


def test_the_record_is_the_json_of_the_contract() -> None:
    assert to_record(read(FULL)) == FULL


def instance(**changes: Any) -> Instance:
    return replace(read(FULL), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 0},
        {"port": 65536},
        {"port": "80"},
        {"port": True},
        {"host": "0.0.0.0"},
        {"host": "localhost"},
        {"host": "169.254.169.254"},
        {"scheme": "ftp"},
        {"weight": -1},
        {"weight": 10_001},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"http_keepalive": -1},
        {"http_keepalive": float("nan")},
        {"http_keepalive": 10**400},
        {"http_keepalive": 10**5000},
        {"pid": -1},
        {"pid": 10**3900},
        {"metadata": {"a": object()}},
        {"metadata": {"a": "x" * 5000}},
        {"metadata": {"a": "\ud800"}},
        {"metadata": {("a", "b"): 1}},
        {"service": "Not A Name"},
        {"id": "short"},
        {"v": 2},
        {"hostname": 7},
        {"version": "\ud800"},
    ],
)
def test_what_no_caller_would_accept_is_not_written(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError):
        encode(instance(**changes))


def test_metadata_without_an_end_is_not_written() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    for metadata in (endless, {"deep": deep}):
        with pytest.raises(ConfigError):
            encode(instance(metadata=metadata))


def test_host_names_are_written_where_they_are_admitted() -> None:
    value = encode(instance(host="localhost"), hostnames=True)
    assert json.loads(value)["host"] == "localhost"


def test_a_bad_record_is_one_of_our_errors() -> None:
    assert issubclass(BadRecord, DiscoError)


def test_an_instance_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        read(SMALL).port = 1  # type: ignore[misc]


def test_an_instance_can_be_a_key() -> None:
    assert len({read(FULL | {"metadata": {"a": [1]}}), read(FULL | {"metadata": {"a": [1]}})}) == 1
