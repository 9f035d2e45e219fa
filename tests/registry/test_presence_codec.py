"""The wire format of a caller's presence: garbage is a `BadRecord`, and nothing else happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.registry.codec import MAX_VALUE_BYTES, BadRecord
from discoclient.registry.presence import (
    MOST_BUSY,
    MOST_OBSERVED,
    Outcomes,
    Presence,
    decode_presence,
    encode_presence,
    read_presence,
)
from discoclient.registry.protocol import Entry
from tests.registry.test_codec_fuzz import json_values, texts
from tests.support.properties import thorough

ID = "0f3c0f3c0f3c"
CONTRACT: dict[str, Any] = {
    "v": 1,
    "id": ID,
    "pid": 1,
    "hostname": "web-3",
    "kind": "sdk",
    "applied": 17,
    "busy": {"0f3c0f3c": 2},
}
OBSERVING = {**CONTRACT, "outcomes": {"0f3c0f3c": [10, 1]}}


def read(record: object) -> Presence:
    value = record if isinstance(record, bytes) else json.dumps(record).encode()
    return decode_presence(value, id=ID)


def refusal(record: object) -> str:
    with pytest.raises(BadRecord) as caught:
        read(record)
    return str(caught.value)


# ---- what is read and written


def test_it_is_written_as_the_contract_has_it() -> None:
    presence = Presence(id=ID, applied=17, busy={"0f3c0f3c": 2}, pid=1, hostname="web-3")
    assert json.loads(encode_presence(presence)) == CONTRACT
    assert read(CONTRACT) == presence


def test_what_is_absent_has_its_default_and_what_is_unknown_is_ignored() -> None:
    assert read({"v": 1, "id": ID}) == Presence(id=ID)
    assert Presence(id=ID) == Presence(id=ID, applied=0, busy={}, pid=None, hostname=None, kind="sdk")
    assert read({**CONTRACT, "zone": "eu", "counts": {"2.4.1": [1, 0]}}) == read(CONTRACT)
    assert set(json.loads(encode_presence(Presence(id=ID)))) == {"v", "id", "kind", "applied", "busy"}


@pytest.mark.parametrize("version", [0, 2, "1", True, None, [1]])
def test_another_version_is_refused(version: object) -> None:
    assert refusal({**CONTRACT, "v": version}) == "schema version is not 1"


@pytest.mark.parametrize("id", ["", "another1", None, 5, [ID]])
def test_a_presence_of_another_than_its_key_is_refused(id: object) -> None:
    assert refusal({**CONTRACT, "id": id}) == "key and value do not agree"


@pytest.mark.parametrize("id", ["", "aaaa/aaaa"])
def test_a_key_that_is_no_id_is_refused(id: str) -> None:
    with pytest.raises(BadRecord):
        decode_presence(json.dumps({**CONTRACT, "id": id}).encode(), id=id)


@pytest.mark.parametrize("id", ["c1", "UPPERCASE", "x" * 65, "host:4711"])
def test_a_caller_may_call_itself_what_it_likes(id: str) -> None:
    assert decode_presence(json.dumps({**CONTRACT, "id": id}).encode(), id=id).id == id
    assert decode_presence(b'{"v": 1}', id=id).id == id


@pytest.mark.parametrize("applied", [-1, 1.0, "1", True, None, [], {}])
def test_what_is_no_revision_is_refused(applied: object) -> None:
    assert refusal({**CONTRACT, "applied": applied}) == "applied is not a revision"


@pytest.mark.parametrize(
    "busy", [None, [], "x", 5, {"aaaaaaaa": -1}, {"aaaaaaaa": "1"}, {"aaaaaaaa": True}, {"a": 1, "b": 0.5}]
)
def test_what_are_no_numbers_of_requests_is_refused(busy: object) -> None:
    """To take it for none would have an instance stop under those who wait for it."""
    assert refusal({**CONTRACT, "busy": busy}).startswith("busy is not")


@pytest.mark.parametrize("name", ["pid", "hostname", "kind"])
@pytest.mark.parametrize("value", [None, -1, [], {}, True, 0.5])
def test_what_is_only_shown_is_left_out_where_it_is_nothing_to_show(name: str, value: object) -> None:
    found = read({**CONTRACT, name: value})
    assert getattr(found, name) == getattr(Presence(id=ID), name)
    assert (found.applied, found.busy) == (17, {"0f3c0f3c": 2})


@pytest.mark.parametrize(
    "outcomes",
    [None, [], 5, {"a": 5}, {"a": [1]}, {"a": [1, 2, 3]}, {"a": [1, -1]}, {"a": [1, True]}, {"a": [1, 0.5]}],
)
def test_what_are_no_outcomes_is_refused(outcomes: object) -> None:
    assert refusal({**CONTRACT, "outcomes": outcomes}).startswith("outcomes is not")


def test_outcomes_are_requests_and_failures_by_instance_and_of_so_many_at_most() -> None:
    told = {f"{number:064}": Outcomes(10**9, number) for number in range(MOST_OBSERVED + 5)}
    value = encode_presence(Presence(id=ID, outcomes=told))
    assert json.loads(value)["outcomes"][f"{3:064}"] == [10**9, 3]
    assert read(value).outcomes == dict(list(told.items())[:MOST_OBSERVED])


def test_what_stands_without_a_lease_is_refused() -> None:
    """Nothing would ever end it, and it would keep every drain open."""
    value = json.dumps(CONTRACT).encode()
    assert read_presence(Entry(f"/clients/web/{ID}", value, 2, 2, 7), "/clients/web/") == read(CONTRACT)
    with pytest.raises(BadRecord, match="no lease"):
        read_presence(Entry(f"/clients/web/{ID}", value, 2, 2, 0), "/clients/web/")


def test_what_is_longer_than_any_record_is_refused() -> None:
    room = MAX_VALUE_BYTES - len(json.dumps({**CONTRACT, "x": ""}).encode())
    assert read({**CONTRACT, "x": "x" * room})
    assert "longer than" in refusal({**CONTRACT, "x": "x" * (room + 1)})


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b"5", b"null", b"\xff", b'{"v":1,"id":NaN}', b"[" * 4096]
)
def test_what_is_no_object_is_refused(value: bytes) -> None:
    assert refusal(value)


# ---- what it means


def test_who_has_left_knows_of_the_drain_and_waits_for_nothing() -> None:
    assert Presence(id=ID, applied=17).has_left("aaaaaaaa", 17)
    assert Presence(id=ID, applied=18, busy={"bbbbbbbb": 1, "aaaaaaaa": 0}).has_left("aaaaaaaa", 17)
    assert not Presence(id=ID, applied=16).has_left("aaaaaaaa", 17)
    assert not Presence(id=ID, applied=17, busy={"aaaaaaaa": 1}).has_left("aaaaaaaa", 17)


@pytest.mark.parametrize("count", [MOST_BUSY, MOST_BUSY + 1])
def test_who_waits_for_more_than_can_be_named_does_not_say_that_it_knows(count: int) -> None:
    """Else those that are not named would stop; so all of them wait, until they are few enough."""
    busy = {f"{number:064}": 10**6 for number in range(count)}
    outcomes = {f"{number:064}": Outcomes(10**9, 10**9) for number in range(MOST_OBSERVED)}
    value = encode_presence(
        Presence(
            id="x" * 64,
            applied=2**62,
            busy=busy,
            outcomes=outcomes,
            pid=2**31 - 1,
            hostname="h" * 253,
            kind="sidecar",
        )
    )
    assert len(value) <= MAX_VALUE_BYTES
    found = decode_presence(value, id="x" * 64)
    for id in busy:
        assert not found.has_left(id, 17)
    assert found.outcomes == outcomes
    assert found.has_left("aaaaaaaa", 17) is (count == MOST_BUSY)


@pytest.mark.parametrize("hostname", ["h" * 5000, "ö" * 1000, "\udcff" * 10, "web\n3"])
def test_whatever_a_machine_calls_itself_it_is_a_caller_that_is_waited_for(hostname: str) -> None:
    busy = {f"{number:064}": 10**6 for number in range(MOST_BUSY)}
    presence = Presence(id=ID, applied=17, busy=busy, hostname=hostname)
    found = read(encode_presence(presence))
    assert (found.applied, found.busy) == (17, busy)


# ---- whatever it is


ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=8, max_size=64)
presences = st.builds(
    Presence,
    id=st.just(ID),
    applied=st.integers(0, 2**63 - 1),
    busy=st.dictionaries(ids, st.integers(0, 10**6), max_size=5),
    outcomes=st.dictionaries(
        ids, st.builds(Outcomes, st.integers(0, 10**9), st.integers(0, 10**9)), max_size=5
    ),
    pid=st.none() | st.integers(0, 2**31 - 1),
    hostname=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    kind=st.sampled_from(["sdk", "sidecar"]),
)


@thorough(150)
@given(presences)
def test_what_is_written_is_what_is_read(presence: Presence) -> None:
    assert read(encode_presence(presence)) == presence


def harmless(value: bytes) -> None:
    """Whatever *value* is, it is read or refused; and what is read can be asked, written and printed."""
    try:
        found = read(value)
    except BadRecord as error:
        str(error).encode()
        return
    found.has_left("aaaaaaaa", 1)
    repr(found).encode()
    hash(found)
    encode_presence(found)


@thorough(150)
@given(st.binary(max_size=200))
def test_no_bytes_do_any_harm(value: bytes) -> None:
    harmless(value)


@thorough(300)
@given(st.dictionaries(st.sampled_from(sorted(OBSERVING)) | texts, json_values, max_size=5), st.booleans())
def test_no_json_does_any_harm(changes: dict[str, object], ascii_only: bool) -> None:
    text = json.dumps({**OBSERVING, **changes}, ensure_ascii=ascii_only)
    harmless(text.encode("utf-8", "surrogatepass"))
