"""The wire format of what is asked of an instance: garbage asks for nothing, and nothing else happens."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discoclient.registry.asked import Asked, Retirement, decode_asked, encode_asked
from discoclient.registry.codec import MAX_VALUE_BYTES, MAX_WEIGHT, BadRecord
from tests.registry.test_codec_fuzz import json_values, texts
from tests.support.properties import thorough

CONTRACT = {"v": 1, "retire": {"reason": "a new version", "by": "disco run on web-3"}, "weight": 50}


def read(record: object) -> Asked:
    return decode_asked(record if isinstance(record, bytes) else json.dumps(record).encode())


def refusal(record: object) -> str:
    with pytest.raises(BadRecord) as caught:
        read(record)
    return str(caught.value)


def test_it_is_written_as_the_contract_has_it() -> None:
    asked = Asked(retire=Retirement(reason="a new version", by="disco run on web-3"), weight=50)
    assert json.loads(encode_asked(asked)) == CONTRACT
    assert read(CONTRACT) == asked


@pytest.mark.parametrize("record", [{"v": 1}, {"v": 1, "retire": None, "weight": None}, {"v": 1, "new": [1]}])
def test_what_is_absent_or_unknown_asks_for_nothing(record: object) -> None:
    assert read(record) == Asked()
    assert json.loads(encode_asked(Asked())) == {"v": 1}


@pytest.mark.parametrize("version", [0, 2, "1", True, None])
def test_another_version_is_not_heeded(version: object) -> None:
    """It may mean something else; so nothing of it is done."""
    assert refusal({**CONTRACT, "v": version}) == "schema version is not 1"


@pytest.mark.parametrize("weight", [0, 0.5, 1, 100.0, MAX_WEIGHT])
def test_a_weight_is_a_number_within_the_limits(weight: float) -> None:
    assert read({"v": 1, "weight": weight}).weight == weight


@pytest.mark.parametrize("weight", [-1, -0.1, MAX_WEIGHT + 1, 10**400, "5", True, [], {}, [5]])
def test_what_is_no_weight_is_refused_with_all_the_rest(weight: object) -> None:
    assert refusal({**CONTRACT, "weight": weight}) == f"weight is not a number from 0 to {MAX_WEIGHT}"


@pytest.mark.parametrize("retire", [True, False, "now", 1, []])
def test_what_is_no_retirement_is_refused_with_all_the_rest(retire: object) -> None:
    assert refusal({**CONTRACT, "retire": retire}) == "retire is not an object"


@pytest.mark.parametrize("said", [{}, {"reason": 5, "by": None}, {"reason": ["x"]}, {"at": "noon"}])
def test_a_retirement_needs_no_words(said: object) -> None:
    assert read({"v": 1, "retire": said}).retire == Retirement()


@pytest.mark.parametrize(
    ("retirement", "text"),
    [
        (Retirement(), "no reason given"),
        (Retirement(reason="old"), "old"),
        (Retirement(by="disco drain"), "no reason given (asked by disco drain)"),
        (Retirement(reason="old", by="disco drain"), "old (asked by disco drain)"),
    ],
)
def test_a_retirement_reads_well(retirement: Retirement, text: str) -> None:
    assert str(retirement) == text


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b"\xff", b'{"v":1,"weight":NaN}', b"[" * 4096])
def test_what_is_no_object_is_refused(value: bytes) -> None:
    assert refusal(value)


def test_what_is_longer_than_any_record_is_refused() -> None:
    assert "longer than" in refusal({"v": 1, "x": "x" * MAX_VALUE_BYTES})


@pytest.mark.parametrize(
    "words",
    ["x" * 5000, "ö" * 2000, "\udcff", "a\ud800b"],
    ids=["long", "not ASCII", "no text", "half a pair"],
)
def test_whatever_the_words_are_what_is_asked_is_heeded(words: str) -> None:
    """A reason from a shell may be anything. What nobody could read would be asked in vain, and waited for."""
    asked = read(encode_asked(Asked(retire=Retirement(reason=words, by=words), weight=5)))
    assert asked.weight == 5
    assert asked.retire is not None
    assert asked.retire.reason[:1] in (words[:1], "?", "\ufffd")


retirements = st.builds(
    Retirement,
    reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
    by=st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
)
weights = st.integers(0, MAX_WEIGHT) | st.floats(0, MAX_WEIGHT)


@thorough(150)
@given(st.builds(Asked, retire=st.none() | retirements, weight=st.none() | weights))
def test_what_is_written_is_what_is_read(asked: Asked) -> None:
    assert read(encode_asked(asked)) == asked


def harmless(value: bytes) -> None:
    try:
        asked = read(value)
    except BadRecord as error:
        str(error).encode()
        return
    str(asked.retire).encode()
    assert read(encode_asked(asked)) == asked


@thorough(150)
@given(st.binary(max_size=200))
def test_no_bytes_do_any_harm(value: bytes) -> None:
    harmless(value)


@thorough(300)
@given(st.dictionaries(st.sampled_from(sorted(CONTRACT)) | texts, json_values, max_size=4), st.booleans())
def test_no_json_does_any_harm(changes: dict[str, object], ascii_only: bool) -> None:
    text = json.dumps({**CONTRACT, **changes}, ensure_ascii=ascii_only)
    harmless(text.encode("utf-8", "surrogatepass"))
